"""MiniMax-M3's fused ops for PyTorch: operators that launch the Triton kernels of m3ops."""

from m3ops import __version__
from m3ops_torch import compat as compat
from m3ops_torch import nn as nn
from m3ops_torch._mxfp8 import MXFP8
from m3ops_torch.gemma_rmsnorm import (
    gemma_fused_add_rmsnorm,
    gemma_fused_add_rmsnorm_quantize,
    gemma_rmsnorm,
    gemma_rmsnorm_quantize,
)
from m3ops_torch.gemma_rmsnorm_heads import gemma_rmsnorm_heads
from m3ops_torch.mxfp8 import mxfp8_dequantize, mxfp8_quantize
from m3ops_torch.swiglu_oai import swiglu_oai, swiglu_oai_fake_quant, swiglu_oai_quantize

__all__ = [
    "MXFP8",
    "__version__",
    "gemma_fused_add_rmsnorm",
    "gemma_fused_add_rmsnorm_quantize",
    "gemma_rmsnorm",
    "gemma_rmsnorm_heads",
    "gemma_rmsnorm_quantize",
    "mxfp8_dequantize",
    "mxfp8_quantize",
    "swiglu_oai",
    "swiglu_oai_fake_quant",
    "swiglu_oai_quantize",
]
