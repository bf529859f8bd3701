"""Launch plan of the gradients of a norm."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from m3ops.array import ArraySpec
from m3ops.numerics.constants import FAN_IN, PARTIAL_ROWS, lanes, partials
from m3ops.op import Specs
from m3ops.ops.gemma_rmsnorm.backward_kernel import (
    Groups,
    NormBackwardAt,
    _gemma_rmsnorm_backward_kernel,
    _sum_rows_kernel,
)
from m3ops.ops.gemma_rmsnorm.plan import norm_constants
from m3ops.ops.gemma_rmsnorm.spec import NormBackward
from m3ops.plan import Launch, Plan, pointers
from m3ops.planning.groups import groups_of
from m3ops.planning.launch import bytes_moved
from m3ops.planning.narrowing import narrowing
from m3ops.planning.tiling import WIDEST_TILE, power_of_two_at_least
from m3ops.target import Target
from m3ops.tiles.rows import Rows, Tile

FLOPS_PER_ELEMENT = 16

SUM_COLS = 256
"""Columns that a program sums partial sums of: few, since there are few partial sums."""


def backward_plan(op: NormBackward, specs: Specs, target: Target, *, keep: Collection[str]) -> Plan:
    """Partial sums for the weight, then launches that add them up."""
    x, size = specs["x"], specs["x"].shape[-1]
    groups = groups_of(specs["weight"], {name: spec for name, spec in specs.items() if "weight" not in name})
    tile = _tile(size, groups.total_rows)
    number = partials(groups.total_rows, size)
    programs = number // tile.rows
    if programs * groups.count >= 2**31:
        raise ValueError(
            f"{groups.total_rows} rows need {programs * groups.count} programs, more than a grid holds (2**31 - 1)"
        )
    elements = tile.rows * power_of_two_at_least(max(size, 32))
    scratch = {"partials": ArraySpec((programs, groups.count, tile.rows, size), "float32")}
    sums = list(_sums(number, tile.rows, groups.count, specs["grad_weight"], target, scratch))
    launch = Launch(
        kernel=_gemma_rmsnorm_backward_kernel,
        grid=(programs * groups.count,),
        arguments={
            **pointers(_gemma_rmsnorm_backward_kernel, {**specs, **scratch}),
            "total_rows": groups.total_rows,
        },
        constants={
            "AT": NormBackwardAt(**groups.rows, partials=Rows(size, (), (size, 1))),
            "GROUPS": Groups(groups.count, NormBackwardAt(**groups.first_rows)),
            "TILE": tile,
            "NORM": norm_constants(op, specs, target),
        },
        writes=("grad_x", "partials"),
        # 16 elements a thread keep it within 128 registers; of short rows 8 on a warp of 64 lanes, where they do not.
        num_warps=min(max(elements // (16 * target.warp_size), 2), 1024 // target.warp_size),
    )
    flops = (FLOPS_PER_ELEMENT + ("residual" in specs)) * x.size
    return Plan((launch, *sums), bytes_moved(specs), flops, scratch)


def _tile(size: int, total_rows: int) -> Tile:
    """Whole rows: as many at once as there are lanes of partial sums."""
    rows, cols = lanes(size), min(power_of_two_at_least(max(size, 32)), WIDEST_TILE)
    masked = total_rows % (rows * PARTIAL_ROWS) != 0 or size % cols != 0
    return Tile(rows, cols, masked, parts=-(-size // cols))


def _sums(
    number: int, lanes_in: int, groups: int, total: ArraySpec, target: Target, scratch: dict[str, ArraySpec]
) -> Iterator[Launch]:
    """Launches that add partial sums of each group, ``FAN_IN`` to one at a time, until they are ``grad_weight``."""
    size, name = total.shape[-1], "partials"
    while True:
        chains = -(-number // FAN_IN)
        last = chains == 1
        out = "grad_weight" if last else f"{name}_"
        if not last:
            scratch[out] = ArraySpec((chains, groups, size), "float32")
        yield Launch(
            kernel=_sum_rows_kernel,
            grid=(chains * groups * -(-size // SUM_COLS),),
            arguments={"partials_ptr": name, "num_partials": number, "total_ptr": out},
            constants={
                "SIZE": size,
                "GROUPS": groups,
                "LANES": lanes_in,
                "COLS": SUM_COLS,
                "NARROWING": narrowing(scratch[out].dtype if out in scratch else total.dtype, target, beside_fp8=False),
            },
            writes=(out,),
            num_warps=SUM_COLS // (4 * target.warp_size),  # 4 elements a thread
        )
        if last:
            return
        number, lanes_in, name = chains, 1, out
