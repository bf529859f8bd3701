"""Launch plan of Gemma's RMSNorm, with residual add too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from m3ops.numerics.constants import float32
from m3ops.op import ArraySpec, LaunchPlan
from m3ops.ops.gemma_rmsnorm.kernel import _gemma_rmsnorm_kernel
from m3ops.rows import row_layout
from m3ops.target import Target
from m3ops.tiling import row_tiling

Specs = tuple[ArraySpec, ...]

FLOPS_PER_ELEMENT = 6


def norm_constants(size: int, params: Mapping[str, Any]) -> dict[str, float]:
    """Constexpr arguments of ``tile.reciprocal_rms``."""
    return {"INV_SIZE": float32(1.0 / size), "EPS": float32(params["eps"])}


def norm_plan(
    kernel: Any, names: tuple[str, ...], inputs: Specs, outputs: Specs, params: Mapping[str, Any], target: Target
) -> LaunchPlan:
    """The launch of a kernel whose inputs are arrays to add up and a weight; ``names`` has its outputs too."""
    *added, _ = inputs
    x = added[0]
    rows = row_layout(*inputs, *outputs)
    tiling = row_tiling(rows.num_rows, added, target)
    return LaunchPlan(
        kernel=kernel,
        grid=tiling.grid,
        num_rows=rows.num_rows,
        constants={
            "SIZE": x.shape[-1],
            **rows.constants(*names),
            **norm_constants(x.shape[-1], params),
            **tiling.constants,
            "MIXED_FMA": x.dtype in target.mixed_fma,
        },
        num_warps=tiling.num_warps,
        bytes_moved=sum(spec.nbytes for spec in (*inputs, *outputs)),
        flops=(FLOPS_PER_ELEMENT + len(added) - 1) * x.size,
    )


def plan(inputs: Specs, outputs: Specs, params: Mapping[str, Any], target: Target) -> LaunchPlan:
    return norm_plan(_gemma_rmsnorm_kernel, ("x", "weight", "out"), inputs, outputs, params, target)
