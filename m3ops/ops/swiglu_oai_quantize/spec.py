"""SwiGLU-OAI and MXFP8 quantization in one pass.

The activation is that of :mod:`m3ops.ops.swiglu_oai.spec`, the quantization that of
:mod:`m3ops.ops.mxfp8_quantize.spec`. ``round_activation=False`` quantizes the fp32 activation, as vLLM's
``swiglu_oai_quantize_mxfp8`` does; ``True`` rounds it to the input dtype first, and then the result equals
``mxfp8_quantize(swiglu_oai(gate_up))`` to the bit. ``[..., 2 * I] -> values [..., I], scales [..., I / 32]``.
"""

from __future__ import annotations

from m3ops import validate
from m3ops.numerics import exact
from m3ops.numerics.formats import FP8_FORMATS
from m3ops.numerics.scale_layouts import ROW_MAJOR
from m3ops.op import Array, Arrays, ArraySpec
from m3ops.ops.mxfp8_quantize.spec import check_format, check_layout, mxfp8_specs
from m3ops.ops.swiglu_oai.spec import activation, check_gate_up


def infer(
    gate_up: ArraySpec,
    *,
    alpha: float = 1.702,
    beta: float = 1.0,
    limit: float | None = 7.0,
    layout: str = "split",
    groups: int = 1,
    scale_rule: str = "rceil",
    fp8_format: str = "e4m3fn",
    round_activation: bool = False,
    scale_layout: str = "row_major",
) -> tuple[ArraySpec, ArraySpec]:
    shape = check_gate_up(gate_up, alpha=alpha, beta=beta, limit=limit, layout=layout, groups=groups)
    half = "half the last axis of gate_up" if groups == 1 else "half a group of gate_up"
    validate.blocks(half, shape[-1] // groups)
    check_format(scale_rule, fp8_format)
    check_layout(scale_layout, "gate_up", gate_up)
    if groups > 1 and scale_layout != ROW_MAJOR:
        raise ValueError(f"groups must be 1 for scale_layout={scale_layout!r}, got {groups}")
    validate.flag("round_activation", round_activation)
    return mxfp8_specs(shape, fp8_format, scale_layout)


def compute(
    gate_up: Array,
    *,
    alpha: float,
    beta: float,
    limit: float | None,
    layout: str,
    groups: int,
    scale_rule: str,
    fp8_format: str,
    round_activation: bool,
    scale_layout: str,
) -> Arrays:
    act = activation(gate_up, alpha=alpha, beta=beta, limit=limit, layout=layout, groups=groups)
    if round_activation:
        act = exact.round_to(act, gate_up.dtype.name)
    return exact.quantize(act, scale_rule, FP8_FORMATS[fp8_format], scale_layout)
