"""MiniMax-M3's fused ops for JAX: primitives that launch the Triton kernels of m3ops through jax-triton."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from m3ops import __version__
from m3ops_jax._mxfp8 import MXFP8
from m3ops_jax.compile_for import compile_for
from m3ops_jax.gemma_rmsnorm import (
    gemma_fused_add_rmsnorm,
    gemma_fused_add_rmsnorm_quantize,
    gemma_rmsnorm,
    gemma_rmsnorm_quantize,
)
from m3ops_jax.gemma_rmsnorm_heads import gemma_rmsnorm_heads
from m3ops_jax.mxfp8 import mxfp8_dequantize, mxfp8_quantize
from m3ops_jax.swiglu_oai import swiglu_oai, swiglu_oai_fake_quant, swiglu_oai_quantize

if TYPE_CHECKING:
    from m3ops_jax import nnx as nnx
else:

    def __getattr__(name: str) -> Any:
        """``m3ops_jax.nnx``, which imports flax, when it is asked for."""
        if name == "nnx":
            return import_module("m3ops_jax.nnx")
        raise AttributeError(f"module 'm3ops_jax' has no attribute {name!r}")


__all__ = [
    "MXFP8",
    "__version__",
    "compile_for",
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
