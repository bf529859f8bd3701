"""Launch plan of Gemma's RMSNorm of q and k heads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from m3ops.op import ArraySpec, LaunchPlan
from m3ops.ops.gemma_rmsnorm.plan import FLOPS_PER_ELEMENT, norm_constants
from m3ops.ops.gemma_rmsnorm_heads.kernel import _gemma_rmsnorm_heads_kernel
from m3ops.rows import row_layout
from m3ops.target import Target
from m3ops.tiling import ROW_TILE, power_of_two_at_least, tiling


def plan(
    inputs: tuple[ArraySpec, ...], outputs: tuple[ArraySpec, ...], params: Mapping[str, Any], target: Target
) -> LaunchPlan:
    (qkv, weight_q, weight_k), (out,) = inputs, outputs
    layout = row_layout(qkv, weight_q, weight_k, out)
    size = weight_q.shape[-1]
    counts = [params[name] for name in ("num_heads_q", "num_heads_k", "num_heads_v")]
    cols = power_of_two_at_least(max(size, 32))
    # Rows of 128 want to be gathered (tiling.ROW_TILE): first the heads of a row, which lie side by side, then rows.
    alike = math.gcd(*counts)
    heads = min(alike & -alike, max(ROW_TILE // cols, 1)) if size == cols else 1
    rows = max(1, min(ROW_TILE // (heads * cols), power_of_two_at_least(layout.num_rows)))
    while heads > 1 and layout.num_rows * sum(counts) < 4 * heads * rows * target.multiprocessors:
        heads //= 2  # a decode step is over sooner the more multiprocessors share it
    warps = max(1, rows * heads * cols // 16 // target.warp_size)
    base = tiling(layout.num_rows, qkv.shape[-1], rows, heads * size, warps)
    return LaunchPlan(
        kernel=_gemma_rmsnorm_heads_kernel,
        grid=base.grid,
        num_rows=layout.num_rows,
        constants={
            "SIZE": size,
            **dict(zip(("NUM_Q", "NUM_K", "NUM_V"), counts, strict=True)),
            **layout.constants("qkv", "weight_q", "weight_k", "out"),
            **norm_constants(size, params),
            "ROWS": rows,
            "HEADS": heads,
            "COLS": cols,
            "MASKED": base.masked or size != cols,
            "MIXED_FMA": out.dtype in target.mixed_fma,
        },
        num_warps=warps,
        bytes_moved=sum(spec.nbytes for spec in (*inputs, *outputs)),
        flops=FLOPS_PER_ELEMENT * qkv.size,
    )
