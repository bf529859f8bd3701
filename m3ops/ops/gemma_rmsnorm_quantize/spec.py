"""Gemma's RMSNorm and MXFP8 quantization in one pass.

The norm is that of :mod:`m3ops.ops.gemma_rmsnorm.spec`, the quantization that of
:mod:`m3ops.ops.mxfp8_quantize.spec`. ``round_activation=False`` quantizes the fp32 norm; ``True`` rounds it to the
dtype of x first, and then the result equals ``mxfp8_quantize(gemma_rmsnorm(x, weight))`` to the bit. ``out_norm=True``
adds the norm itself, rounded once: MiniMax-M3's router reads it. ``x [..., N], weight [N] -> values [..., N], scales
[..., N / 32]`` and, on request, ``norm [..., N]``.
"""

from __future__ import annotations

from m3ops import validate
from m3ops.numerics import exact
from m3ops.numerics.formats import FP8_FORMATS
from m3ops.op import Array, Arrays, ArraySpec
from m3ops.ops.gemma_rmsnorm.spec import check_norm
from m3ops.ops.mxfp8_quantize.spec import check_format, check_layout, mxfp8_specs


def infer(
    x: ArraySpec,
    weight: ArraySpec,
    *,
    eps: float = 1e-6,
    scale_rule: str = "rceil",
    fp8_format: str = "e4m3fn",
    round_activation: bool = False,
    out_norm: bool = False,
    scale_layout: str = "row_major",
) -> tuple[ArraySpec, ...]:
    check_norm(x, weight, eps=eps)
    validate.blocks("the last axis of x", x.shape[-1])
    check_format(scale_rule, fp8_format)
    check_layout(scale_layout, "x", x)
    validate.flag("round_activation", round_activation)
    validate.flag("out_norm", out_norm)
    rows = ArraySpec(x.shape, x.dtype)
    return (*mxfp8_specs(x.shape, fp8_format, scale_layout), *([rows] if out_norm else []))


def compute(
    x: Array,
    weight: Array,
    *,
    eps: float,
    scale_rule: str,
    fp8_format: str,
    round_activation: bool,
    out_norm: bool,
    scale_layout: str,
) -> Arrays:
    dtype = x.dtype.name
    norm = exact.rmsnorm(exact.load(x), exact.load(weight), eps)
    rounded = exact.store(norm, dtype)
    values, scales = exact.quantize(
        exact.load(rounded) if round_activation else norm, scale_rule, FP8_FORMATS[fp8_format], scale_layout
    )
    return (values, scales, *([rounded] if out_norm else []))
