"""Launch plan of SwiGLU-OAI with MXFP8 quantization."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from m3ops.op import ArraySpec, LaunchPlan
from m3ops.ops.mxfp8_quantize.plan import FLOPS_PER_ELEMENT as QUANTIZE_FLOPS
from m3ops.ops.mxfp8_quantize.plan import format_constants
from m3ops.ops.swiglu_oai.plan import FLOPS_PER_ELEMENT as ACTIVATION_FLOPS
from m3ops.ops.swiglu_oai.plan import activation_constants
from m3ops.ops.swiglu_oai_quantize.kernel import _swiglu_oai_quantize_kernel
from m3ops.rows import row_layout, split_rows
from m3ops.scales import scale_layout
from m3ops.target import Target
from m3ops.tiling import column_tiling


def plan(
    inputs: tuple[ArraySpec, ...], outputs: tuple[ArraySpec, ...], params: Mapping[str, Any], target: Target
) -> LaunchPlan:
    gate_up, values, scales = (split_rows(spec, params["groups"]) for spec in (*inputs, *outputs))
    layout = scale_layout(params, values, scales)
    rows = row_layout(gate_up, values, *layout.operands.values())
    size = values.shape[-1]
    tiling = column_tiling(rows.num_rows, layout.padded(values).shape[-1], target)
    return LaunchPlan(
        kernel=_swiglu_oai_quantize_kernel,
        grid=tiling.grid + layout.padding,
        num_rows=rows.num_rows,
        constants={
            "SIZE": size,
            **rows.constants("gate_up", "values", *layout.operands),
            **layout.constants,
            **activation_constants(params),
            "ROUND_ACTIVATION": params["round_activation"],
            **format_constants(params, target),
            **tiling.constants,
            **layout.masked(values, tiling.masked),
            "MIXED_FMA": gate_up.dtype in target.mixed_fma,
        },
        num_warps=tiling.num_warps,
        bytes_moved=gate_up.nbytes + values.nbytes + scales.nbytes,
        flops=(ACTIVATION_FLOPS + QUANTIZE_FLOPS) * values.size,
    )
