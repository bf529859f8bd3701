"""Gemma's RMSNorm, with weights stored as offsets from 1.

    out = x / sqrt(mean(x**2) + eps) * (1 + weight)

along the last axis, in fp32, rounded once to the dtype of x. Source: Gemma (arXiv:2403.08295); vLLM's ``GemmaRMSNorm``.
``x [..., N], weight [N] -> [..., N]``; leading axes of the weight broadcast against those of x.
"""

from __future__ import annotations

from m3ops import validate
from m3ops.numerics import exact
from m3ops.numerics.constants import MAX_NORM_SIZE
from m3ops.op import Array, Arrays, ArraySpec


def check_norm(x: ArraySpec, weight: ArraySpec, *, eps: float) -> None:
    """Validates what every norm takes."""
    validate.array("x", x)
    validate.array("weight", weight)
    if not 0 < x.shape[-1] <= MAX_NORM_SIZE:
        raise ValueError(f"x must have a last axis of 1 to {MAX_NORM_SIZE} elements, got shape {x.shape}")
    if weight.shape[-1] != x.shape[-1] or not broadcasts(weight.shape[:-1], x.shape[:-1]):
        raise ValueError(
            f"weight must have shape ({x.shape[-1]},) or broadcast against x {x.shape}, got {weight.shape}"
        )
    validate.number("eps", eps, low=0.0)


def broadcasts(leading: tuple[int, ...], onto: tuple[int, ...]) -> bool:
    """Size by size: where a framework traces with symbols for sizes, NumPy would turn them into numbers."""
    own = onto[len(onto) - len(leading) :]
    return len(leading) <= len(onto) and all(size in (1, of_x) for size, of_x in zip(leading, own, strict=True))


def infer(x: ArraySpec, weight: ArraySpec, *, eps: float = 1e-6) -> tuple[ArraySpec]:
    check_norm(x, weight, eps=eps)
    return (ArraySpec(x.shape, x.dtype),)


def compute(x: Array, weight: Array, *, eps: float) -> Arrays:
    return (exact.store(exact.rmsnorm(exact.load(x), exact.load(weight), eps), x.dtype.name),)
