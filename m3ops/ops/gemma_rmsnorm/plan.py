"""Launch plan of Gemma's RMSNorm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from m3ops.numerics.constants import float32
from m3ops.op import ArraySpec, LaunchPlan
from m3ops.ops.gemma_rmsnorm.kernel import _gemma_rmsnorm_kernel
from m3ops.rows import row_layout
from m3ops.target import Target
from m3ops.tiling import row_tiling

FLOPS_PER_ELEMENT = 6


def norm_constants(size: int, params: Mapping[str, Any]) -> dict[str, float]:
    """Constexpr arguments of ``tile.rmsnorm``."""
    return {"INV_SIZE": float32(1.0 / size), "EPS": float32(params["eps"])}


def plan(
    inputs: tuple[ArraySpec, ...], outputs: tuple[ArraySpec, ...], params: Mapping[str, Any], target: Target
) -> LaunchPlan:
    (x, weight), (out,) = inputs, outputs
    rows = row_layout(x, weight, out)
    size = x.shape[-1]
    tiling = row_tiling(rows.num_rows, [x], target)
    return LaunchPlan(
        kernel=_gemma_rmsnorm_kernel,
        grid=tiling.grid,
        num_rows=rows.num_rows,
        constants={
            "SIZE": size,
            **rows.constants("x", "weight", "out"),
            **norm_constants(size, params),
            **tiling.constants,
            "MIXED_FMA": out.dtype in target.mixed_fma,
        },
        num_warps=tiling.num_warps,
        bytes_moved=x.nbytes + weight.nbytes + out.nbytes,
        flops=FLOPS_PER_ELEMENT * x.size,
    )
