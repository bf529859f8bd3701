"""Residual add and Gemma's RMSNorm in one pass.

    new_residual = x + residual,  out = new_residual / sqrt(mean(new_residual**2) + eps) * (1 + weight)

in fp32: the norm sees the unrounded sum, and each result is rounded once to the dtype of x. Source: vLLM's
``gemma_fused_add_rmsnorm``. ``x [..., N], residual [..., N], weight [N] -> out [..., N], new_residual [..., N]``.
"""

from __future__ import annotations

from m3ops import validate
from m3ops.numerics import exact
from m3ops.op import Array, Arrays, ArraySpec
from m3ops.ops.gemma_rmsnorm.spec import check_norm


def infer(x: ArraySpec, residual: ArraySpec, weight: ArraySpec, *, eps: float = 1e-6) -> tuple[ArraySpec, ArraySpec]:
    check_norm(x, weight, eps=eps)
    validate.same("residual", residual, "x", x)
    return ArraySpec(x.shape, x.dtype), ArraySpec(x.shape, x.dtype)


def compute(x: Array, residual: Array, weight: Array, *, eps: float) -> Arrays:
    total = exact.round32(exact.load(x) + exact.load(residual))
    dtype = x.dtype.name
    return exact.store(exact.rmsnorm(total, exact.load(weight), eps), dtype), exact.store(total, dtype)
