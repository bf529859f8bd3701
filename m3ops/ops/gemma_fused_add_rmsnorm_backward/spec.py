"""The gradients of residual add and Gemma's RMSNorm with respect to x (or the residual: it is the same) and the weight.

    grad_x      = rstd * (h - n * mean(h * n)) + grad_new_residual,  n = (x + residual) * rstd,  h = grad * (1 + weight)
    grad_weight = sum over rows of grad * n

as of ``gemma_rmsnorm`` at the unrounded sum, the last product and sum one fma. ``x, residual [..., N], weight [N],
grad, grad_new_residual [..., N] -> grad_x [..., N], grad_weight [N]``.
"""

from __future__ import annotations

from m3ops import validate
from m3ops.numerics import exact
from m3ops.op import Array, Arrays, ArraySpec
from m3ops.ops.gemma_rmsnorm.spec import check_norm
from m3ops.ops.gemma_rmsnorm_backward.spec import weight_gradient


def infer(
    x: ArraySpec,
    residual: ArraySpec,
    weight: ArraySpec,
    grad: ArraySpec,
    grad_new_residual: ArraySpec,
    *,
    eps: float = 1e-6,
) -> tuple[ArraySpec, ArraySpec]:
    check_norm(x, weight, eps=eps)
    validate.same("residual", residual, "x", x)
    validate.same("grad", grad, "x", x)
    validate.same("grad_new_residual", grad_new_residual, "x", x)
    return ArraySpec(x.shape, x.dtype), ArraySpec(weight.shape, weight.dtype)


def compute(x: Array, residual: Array, weight: Array, grad: Array, grad_new_residual: Array, *, eps: float) -> Arrays:
    total, dy = exact.round32(exact.load(x) + exact.load(residual)), exact.load(grad)
    rstd, inner, normalized = exact.rmsnorm_backward(exact.settled(total), exact.load(weight), dy, eps)
    grad_x = exact.store(exact.fma(rstd, inner, exact.load(grad_new_residual)), x.dtype.name)
    return grad_x, weight_gradient(dy, normalized, weight)
