"""Launch plan of residual add and Gemma's RMSNorm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from m3ops.op import ArraySpec, LaunchPlan
from m3ops.ops.gemma_fused_add_rmsnorm.kernel import _gemma_fused_add_rmsnorm_kernel
from m3ops.ops.gemma_rmsnorm.plan import FLOPS_PER_ELEMENT, norm_constants
from m3ops.rows import row_layout
from m3ops.target import Target
from m3ops.tiling import row_tiling


def plan(
    inputs: tuple[ArraySpec, ...], outputs: tuple[ArraySpec, ...], params: Mapping[str, Any], target: Target
) -> LaunchPlan:
    rows = row_layout(*inputs, *outputs)
    x = inputs[0]
    size = x.shape[-1]
    tiling = row_tiling(rows.num_rows, inputs[:2], target)
    return LaunchPlan(
        kernel=_gemma_fused_add_rmsnorm_kernel,
        grid=tiling.grid,
        num_rows=rows.num_rows,
        constants={
            "SIZE": size,
            **rows.constants("x", "residual", "weight", "out", "new_residual"),
            **norm_constants(size, params),
            **tiling.constants,
            "MIXED_FMA": x.dtype in target.mixed_fma,
        },
        num_warps=tiling.num_warps,
        bytes_moved=sum(spec.nbytes for spec in (*inputs, *outputs)),
        flops=(FLOPS_PER_ELEMENT + 1) * x.size,
    )
