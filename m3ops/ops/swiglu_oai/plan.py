"""Launch plans of SwiGLU-OAI, with or without MXFP8 quantization, and of its gradient."""

from __future__ import annotations

from collections.abc import Collection

from m3ops.numerics.constants import float32, sigmoid_constants
from m3ops.numerics.tile.fp32 import Narrowing
from m3ops.op import Specs
from m3ops.ops.mxfp8.spec import MXFP8Dequantize
from m3ops.ops.swiglu_oai.kernel import Swiglu, SwigluAt, _swiglu_oai_backward_kernel, _swiglu_oai_kernel
from m3ops.ops.swiglu_oai.spec import (
    Activation,
    SwigluOAI,
    SwigluOAIBackward,
    SwigluOAIFakeQuant,
    SwigluOAIQuantize,
)
from m3ops.plan import Launch, Plan, pointers
from m3ops.planning.launch import bytes_moved, counts_rows, tiled_launch
from m3ops.planning.mx import FLOPS_PER_ELEMENT as QUANTIZE_FLOPS
from m3ops.planning.mx import mx, scale_plan
from m3ops.planning.narrowing import narrowing
from m3ops.planning.rows import rows_of, split_rows
from m3ops.planning.scale_groups import in_groups
from m3ops.planning.tiling import block_tiling, element_tiling
from m3ops.target import Target

FLOPS_PER_ELEMENT = 30
BACKWARD_FLOPS_PER_ELEMENT = 36


def activation_plan(op: SwigluOAI, specs: Specs, target: Target, *, keep: Collection[str]) -> Plan:
    total_rows, rows = rows_of(_grouped(op, specs))
    activation = specs["activation"]
    tiling = element_tiling(total_rows, rows["activation"].size, target, decode=counts_rows(specs))
    constants = {
        "AT": SwigluAt(**rows),
        "SWIGLU": _swiglu(op, narrowing(activation.dtype, target, beside_fp8=False)),
        "MX": None,
    }
    launch = tiled_launch(
        _swiglu_oai_kernel, op, specs, target, tiling, total_rows, constants, keep=keep, rows_each=op.groups
    )
    return Plan((launch,), bytes_moved(specs), FLOPS_PER_ELEMENT * activation.size)


def quantize_plan(op: SwigluOAIQuantize, specs: Specs, target: Target, *, keep: Collection[str]) -> Plan:
    grouped = _grouped(op, specs)
    scales = scale_plan(op.scale_layout, grouped["values"], grouped["scales"])
    total_rows, rows = rows_of(scales.rows(grouped))
    tiling = block_tiling(total_rows, scales.size, target, decode=counts_rows(specs))
    constants = {
        "AT": SwigluAt(**scales.at(rows)),
        "SWIGLU": _swiglu(op, narrowing(specs["gate_up"].dtype, target, beside_fp8=True)),
        "MX": mx(op.fp8_format, op.scale_rule, scales, target, round_activation=op.round_activation),
    }
    launch = tiled_launch(
        _swiglu_oai_kernel,
        op,
        specs,
        target,
        tiling,
        total_rows,
        constants,
        keep=keep,
        rows_each=op.groups,
        scales=scales,
    )
    launches, scratch = in_groups(launch, op.scale_layout, specs, "scales", target)
    return Plan(launches, bytes_moved(specs), (FLOPS_PER_ELEMENT + QUANTIZE_FLOPS) * specs["values"].size, scratch)


def fake_quant_plan(op: SwigluOAIFakeQuant, specs: Specs, target: Target, *, keep: Collection[str]) -> Plan:
    """Quantizes into scratch memory and reads it back."""
    quantize = SwigluOAIQuantize.of(
        alpha=op.alpha,
        beta=op.beta,
        limit=op.limit,
        layout=op.layout,
        groups=op.groups,
        scale_rule=op.scale_rule,
        fp8_format=op.fp8_format,
        round_activation=op.round_activation,
    )
    dequantize = MXFP8Dequantize.of(out_dtype=specs["activation"].dtype)
    given = {name: spec for name, spec in specs.items() if name != "activation"}
    scratch = quantize.check(given)
    counted = {name: spec for name, spec in given.items() if name not in op.inputs}
    kept = ["x"] if "activation" in keep else []
    back = dequantize.plan({**scratch, **counted, "x": specs["activation"]}, target, keep=kept)
    (first,) = quantize.plan({**given, **scratch}, target, keep=scratch).launches
    (last,) = back.launches
    flops = (FLOPS_PER_ELEMENT + QUANTIZE_FLOPS) * specs["activation"].size
    return Plan((first, last.renamed({"x": "activation"})), bytes_moved(specs), flops, scratch)


def backward_plan(op: SwigluOAIBackward, specs: Specs, target: Target, *, keep: Collection[str]) -> Plan:
    total_rows, rows = rows_of(_grouped(op, specs))
    tiling = element_tiling(total_rows, rows["grad"].size, target, decode=False)
    launch = Launch(
        kernel=_swiglu_oai_backward_kernel,
        grid=(tiling.num_tiles,),
        arguments={**pointers(_swiglu_oai_backward_kernel, specs), "total_rows": total_rows},
        constants={
            "AT": SwigluAt(**rows),
            "TILE": tiling.tile,
            "SWIGLU": _swiglu(op, narrowing(specs["gate_up"].dtype, target, beside_fp8=False)),
        },
        writes=tuple(name for name in ("grad_gate_up", "grad_up") if name in specs),
        num_warps=tiling.num_warps,
    )
    return Plan((launch,), bytes_moved(specs), BACKWARD_FLOPS_PER_ELEMENT * specs["grad"].size)


def _grouped(op: Activation, specs: Specs) -> Specs:
    """The operands with each group of a row as a row."""
    return {name: split_rows(spec, op.groups) for name, spec in specs.items() if name != "num_rows"}


def _swiglu(op: Activation, narrowing: Narrowing) -> Swiglu:
    slope, bound = sigmoid_constants(op.alpha)
    return Swiglu(
        slope=slope,
        bound=bound,
        beta=float32(op.beta),
        limit=None if op.limit is None else float32(op.limit),
        alpha=float32(op.alpha),
        interleaved=op.layout == "interleaved",
        narrowing=narrowing,
    )
