"""Launch plan of Gemma's RMSNorm and MXFP8 quantization."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from m3ops.op import ArraySpec, LaunchPlan
from m3ops.ops.gemma_rmsnorm.plan import FLOPS_PER_ELEMENT as NORM_FLOPS
from m3ops.ops.gemma_rmsnorm.plan import norm_constants
from m3ops.ops.gemma_rmsnorm_quantize.kernel import _gemma_rmsnorm_quantize_kernel
from m3ops.ops.mxfp8_quantize.plan import FLOPS_PER_ELEMENT as QUANTIZE_FLOPS
from m3ops.ops.mxfp8_quantize.plan import format_constants
from m3ops.rows import row_layout
from m3ops.scales import scale_layout
from m3ops.target import Target
from m3ops.tiling import row_block_tiling


def plan(
    inputs: tuple[ArraySpec, ...], outputs: tuple[ArraySpec, ...], params: Mapping[str, Any], target: Target
) -> LaunchPlan:
    x = inputs[0]
    values, scales, *others = outputs
    layout = scale_layout(params, values, scales)
    rows = row_layout(*inputs, values, *others, *layout.operands.values())
    names = ["x", "weight", "values", *(["norm"] if params["out_norm"] else [])]
    without_norm = {} if params["out_norm"] else {"norm_ptr": None, "NORM_STRIDES": None}
    tiling = row_block_tiling(rows.num_rows, layout.padded(x).shape[-1], target)
    return LaunchPlan(
        kernel=_gemma_rmsnorm_quantize_kernel,
        grid=tiling.grid + layout.padding,
        num_rows=rows.num_rows,
        constants={
            **without_norm,
            "SIZE": x.shape[-1],
            **rows.constants(*names, *layout.operands),
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
        flops=(NORM_FLOPS + QUANTIZE_FLOPS) * x.size,
    )
