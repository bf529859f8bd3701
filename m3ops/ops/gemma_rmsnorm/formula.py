"""The norms as a user of PyTorch or JAX would write them."""

from __future__ import annotations

from typing import Any

from m3ops.ops.gemma_rmsnorm import GemmaRMSNorm
from m3ops.ops.mxfp8.formula import quantize_jax, quantize_torch

EPS = GemmaRMSNorm.of().eps


def norm_torch(x: Any, weight: Any) -> Any:
    """The fp32 norm of fp32 numbers."""
    rstd = (x.square().mean(-1, keepdim=True) + EPS).rsqrt()
    return x * rstd * (1.0 + weight.float())


def norm_jax(x: Any, weight: Any) -> Any:
    """The same for JAX."""
    import jax
    import jax.numpy as jnp

    rstd = jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + EPS)
    return x * rstd * (1.0 + weight.astype(jnp.float32))


def _fused_torch(x: Any, residual: Any, weight: Any) -> tuple[Any, Any]:
    total = x.float() + residual.float()
    return norm_torch(total, weight).bfloat16(), total.bfloat16()


def _fused_quantize_torch(x: Any, residual: Any, weight: Any) -> tuple[Any, Any, Any]:
    total = x.float() + residual.float()
    return (*quantize_torch(norm_torch(total, weight)), total.bfloat16())


def _fused_jax(x: Any, residual: Any, weight: Any) -> tuple[Any, Any]:
    total = x.astype("float32") + residual.astype("float32")
    return norm_jax(total, weight).astype("bfloat16"), total.astype("bfloat16")


def _fused_quantize_jax(x: Any, residual: Any, weight: Any) -> tuple[Any, Any, Any]:
    total = x.astype("float32") + residual.astype("float32")
    return (*quantize_jax(norm_jax(total, weight)), total.astype("bfloat16"))


TORCH = {
    "gemma_rmsnorm": lambda x, weight: norm_torch(x.float(), weight).bfloat16(),
    "gemma_fused_add_rmsnorm": _fused_torch,
    "gemma_rmsnorm_quantize": lambda x, weight: quantize_torch(norm_torch(x.float(), weight)),
    "gemma_fused_add_rmsnorm_quantize": _fused_quantize_torch,
}
JAX = {
    "gemma_rmsnorm": lambda x, weight: norm_jax(x.astype("float32"), weight).astype("bfloat16"),
    "gemma_fused_add_rmsnorm": _fused_jax,
    "gemma_rmsnorm_quantize": lambda x, weight: quantize_jax(norm_jax(x.astype("float32"), weight)),
    "gemma_fused_add_rmsnorm_quantize": _fused_quantize_jax,
}
