"""Launch plan of Gemma's RMSNorm and MXFP8 quantization, with residual add too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from m3ops.op import LaunchPlan
from m3ops.ops.gemma_rmsnorm.plan import FLOPS_PER_ELEMENT as NORM_FLOPS
from m3ops.ops.gemma_rmsnorm.plan import Specs, norm_constants
from m3ops.ops.gemma_rmsnorm_quantize.kernel import _gemma_rmsnorm_quantize_kernel
from m3ops.ops.mxfp8_quantize.plan import FLOPS_PER_ELEMENT as QUANTIZE_FLOPS
from m3ops.ops.mxfp8_quantize.plan import format_constants
from m3ops.rows import row_layout
from m3ops.scales import scale_layout
from m3ops.target import Target
from m3ops.tiling import row_block_tiling


def norm_quantize_plan(
    kernel: Any, names: tuple[str, ...], inputs: Specs, outputs: Specs, params: Mapping[str, Any], target: Target
) -> LaunchPlan:
    """The launch of a kernel whose inputs are arrays to add up and a weight.

    ``names`` are those of the inputs and outputs but for the scales and the norm, which is asked for by ``out_norm``.
    """
    x = inputs[0]
    values, scales, *others = outputs
    layout = scale_layout(params, values, scales)
    rows = row_layout(*inputs, values, *others, *layout.operands.values())
    norm = ("norm",) if params["out_norm"] else ()
    tiling = row_block_tiling(rows.num_rows, layout.padded(x).shape[-1], target)
    return LaunchPlan(
        kernel=kernel,
        grid=tiling.grid + layout.padding,
        num_rows=rows.num_rows,
        constants={
            **({} if norm else {"norm_ptr": None, "NORM_STRIDES": None}),
            "SIZE": x.shape[-1],
            **rows.constants(*names, *norm, *layout.operands),
            **layout.constants,
            **norm_constants(x.shape[-1], params),
            "ROUND_ACTIVATION": params["round_activation"],
            **format_constants(params, target),
            **tiling.constants,
            **layout.masked(x, tiling.masked),
            "MIXED_FMA": x.dtype in target.mixed_fma,
        },
        num_warps=tiling.num_warps,
        bytes_moved=sum(spec.nbytes for spec in (*inputs, *outputs)),
        flops=(NORM_FLOPS + len(inputs) - 2 + QUANTIZE_FLOPS) * x.size,
    )


def plan(inputs: Specs, outputs: Specs, params: Mapping[str, Any], target: Target) -> LaunchPlan:
    return norm_quantize_plan(
        _gemma_rmsnorm_quantize_kernel, ("x", "weight", "values"), inputs, outputs, params, target
    )
