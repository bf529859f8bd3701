"""Matrix products of MXFP8."""

from m3ops.ops.mxfp8_matmul.spec import MXFP8GroupedMatmul, MXFP8Matmul

__all__ = ["MXFP8GroupedMatmul", "MXFP8Matmul"]
