"""Launch plan of the gradients of Gemma's RMSNorm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from m3ops.numerics.constants import FAN_IN, PARTIAL_ROWS, lanes, partials
from m3ops.op import ArraySpec, LaunchPlan
from m3ops.ops.gemma_rmsnorm.plan import norm_constants
from m3ops.ops.gemma_rmsnorm_backward.kernel import _gemma_rmsnorm_backward_kernel, _sum_rows_kernel
from m3ops.row_sums import group_layout
from m3ops.target import Target
from m3ops.tiling import WIDEST_TILE, power_of_two_at_least

FLOPS_PER_ELEMENT = 16

SUM_COLS = 256
"""Columns that a program sums partial sums of: few, since there are few partial sums."""


def plan(
    inputs: tuple[ArraySpec, ...], outputs: tuple[ArraySpec, ...], params: Mapping[str, Any], target: Target
) -> LaunchPlan:
    (x, weight, grad), (grad_x, grad_weight) = inputs, outputs
    layout = group_layout(weight, x, grad, grad_x)
    return LaunchPlan(
        kernel=_gemma_rmsnorm_backward_kernel,
        constants={
            **layout.constants("weight", "x", "grad", "grad_x"),
            **norm_constants(x.shape[-1], params),
            **tile_constants(x, layout.summed.num_rows),
            "MIXED_FMA": x.dtype in target.mixed_fma,
        },
        bytes_moved=sum(spec.nbytes for spec in (*inputs, *outputs)),
        flops=FLOPS_PER_ELEMENT * x.size,
        **partial_sums(x, grad_weight, layout.summed.num_rows, layout.groups, target),
    )


def tile_constants(x: ArraySpec, num_rows: int) -> dict[str, Any]:
    """The tile of a program, whole rows: as many at once as there are lanes."""
    size = x.shape[-1]
    rows, cols = lanes(size), min(power_of_two_at_least(max(size, 32)), WIDEST_TILE)
    return {
        "SIZE": size,
        "ROWS": rows,
        "COLS": cols,
        "TILES": -(-size // cols),
        "MASKED": num_rows % (rows * PARTIAL_ROWS) != 0 or size % cols != 0,
    }


def partial_sums(x: ArraySpec, grad_weight: ArraySpec, num_rows: int, groups: int, target: Target) -> dict[str, Any]:
    """What depends on the partial sums: the grid and warps of the launch that makes them, and the launches after it."""
    size = x.shape[-1]
    rows, number = lanes(size), partials(num_rows, size)
    elements = rows * power_of_two_at_least(max(size, 32))
    programs = number // rows
    if programs * groups >= 2**31:
        raise ValueError(f"{num_rows} rows need {programs * groups} programs, more than a grid holds (2**31 - 1)")
    return {
        "grid": programs * groups,
        "num_rows": num_rows,
        # 16 elements a thread keep it within 128 registers; of short rows 8 on a warp of 64 lanes, where they do not.
        "num_warps": min(max(elements // (16 * target.warp_size), 2), 1024 // target.warp_size),
        "temporary": ArraySpec((programs, groups, rows, size), "float32"),
        "then": sum_plan(number, rows, groups, grad_weight, target),
    }


def sum_plan(number: int, lanes_in: int, groups: int, out: ArraySpec, target: Target) -> LaunchPlan:
    """Sums ``number`` partial sums of each group, ``FAN_IN`` to one, in as many launches as that takes."""
    size, chains = out.shape[-1], -(-number // FAN_IN)
    last = chains == 1
    moved = 4 * groups * number * size
    return LaunchPlan(
        kernel=_sum_rows_kernel,
        grid=chains * groups * -(-size // SUM_COLS),
        num_rows=number,
        constants={
            "SIZE": size,
            "GROUPS": groups,
            "LANES": lanes_in,
            "COLS": SUM_COLS,
            "MIXED_FMA": last and out.dtype in target.mixed_fma,
        },
        num_warps=SUM_COLS // (4 * target.warp_size),  # 4 elements a thread
        bytes_moved=moved + (out.nbytes if last else 4 * groups * chains * size),
        flops=groups * number * size,
        then=None if last else sum_plan(chains, 1, groups, out, target),
        temporary=None if last else ArraySpec((chains, groups, size), "float32"),
    )
