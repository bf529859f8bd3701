"""MXFP8 quantization and dequantization."""

from m3ops.ops.mxfp8.spec import MXFP8Dequantize, MXFP8Quantize, MXFP8QuantizeBoth, MXFP8QuantizeTransposed

__all__ = ["MXFP8Dequantize", "MXFP8Quantize", "MXFP8QuantizeBoth", "MXFP8QuantizeTransposed"]
