"""The gradients of Gemma's RMSNorm with respect to x and its weight.

    grad_x      = rstd * (h - n * mean(h * n)),  n = x * rstd,  h = grad * (1 + weight)
    grad_weight = sum over rows of grad * n

with ``rstd = 1 / sqrt(mean(x**2) + eps)``, in fp32, rounded once to the dtypes of x and weight. The mean does not
depend on the order of addition; the sum over rows has one order, ``exact.sum_rows``. ``x [..., N], weight [N],
grad [..., N] -> grad_x [..., N], grad_weight [N]``; leading axes of the weight broadcast against those of x, and only
over the others is summed.
"""

from __future__ import annotations

from m3ops import validate
from m3ops.numerics import exact
from m3ops.op import Array, Arrays, ArraySpec
from m3ops.ops.gemma_rmsnorm.spec import check_norm
from m3ops.row_sums import grouped


def infer(x: ArraySpec, weight: ArraySpec, grad: ArraySpec, *, eps: float = 1e-6) -> tuple[ArraySpec, ArraySpec]:
    check_norm(x, weight, eps=eps)
    validate.same("grad", grad, "x", x)
    return ArraySpec(x.shape, x.dtype), ArraySpec(weight.shape, weight.dtype)


def compute(x: Array, weight: Array, grad: Array, *, eps: float) -> Arrays:
    dy = exact.load(grad)
    rstd, inner, normalized = exact.rmsnorm_backward(exact.load(x), exact.load(weight), dy, eps)
    grad_x = exact.store(exact.round32(rstd * inner), x.dtype.name)
    return grad_x, weight_gradient(dy, normalized, weight)


def weight_gradient(grad: Array, normalized: Array, weight: Array) -> Array:
    total = exact.sum_rows(*(grouped(rows, weight.shape) for rows in (grad, normalized)))
    return exact.store(total, weight.dtype.name).reshape(weight.shape)
