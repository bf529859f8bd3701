"""Launch plan of the gradients of a norm."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from m3ops.array import ArraySpec
from m3ops.numerics.row_sums import FAN_IN, lanes, partials
from m3ops.op import Specs
from m3ops.ops.gemma_rmsnorm.backward_kernel import (
    Ahead,
    Chains,
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
from m3ops.planning.tiling import ROW_TILE, WIDEST_KEPT, WIDEST_TILE, power_of_two_at_least
from m3ops.target import Target
from m3ops.tiles.rows import Rows, Tile

FLOPS_PER_ELEMENT = 16

ROWS_AHEAD_BYTES = 65536
"""Shared memory for rows on their way: what fits, beside the sums, into the 99 KiB that a program has on most GPUs."""

MORE_ROWS_AHEAD_BYTES = 98304
"""The same with 163 KiB or more: two rows of 6144 with residual add. H100, us: one row 389, two 353, three 355."""

LARGE_SHARED_MEMORY = ("sm_80", "sm_90", "sm_100", "sm_103")

SUM_COLS = 32
"""Columns that a program sums partial sums of: few, since there are few partial sums."""


def backward_plan(op: NormBackward, specs: Specs, target: Target, *, keep: Collection[str]) -> Plan:
    """Partial sums for the weight, then launches that add them up."""
    x, size = specs["x"], specs["x"].shape[-1]
    groups = groups_of(specs["weight"], {name: spec for name, spec in specs.items() if "weight" not in name})
    tile = _tile(size, groups.total_rows, target)
    number = partials(groups.total_rows, size)
    programs = number // tile.rows
    if programs * groups.count >= 2**31:
        raise ValueError(
            f"{groups.total_rows} rows need {programs * groups.count} programs, more than a grid holds (2**31 - 1)"
        )
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
            "AHEAD": _ahead(tile, specs, target),
        },
        writes=("grad_x", "partials"),
        num_warps=_threads(tile) // target.warp_size,
    )
    flops = (FLOPS_PER_ELEMENT + ("residual" in specs)) * x.size
    return Plan((launch, *sums), bytes_moved(specs), flops, scratch)


def _tile(size: int, total_rows: int, target: Target) -> Tile:
    """Whole rows: as many at once as partial sums lie next to each other.

    Rows of three powers of two are in three parts, so that no thread is without elements. On AMD, where a part would be
    4 waves and all operands of a row with residual add 152 registers a lane, they stay whole: 128, in 8 waves.
    """
    rows, width = lanes(size), power_of_two_at_least(max(size, 32))
    in_three = target.vendor == "nvidia" and size > ROW_TILE and 4 * size == 3 * width
    cols = size // 3 if in_three else min(width, WIDEST_TILE)
    masked = total_rows % rows != 0 or size % cols != 0
    return Tile(rows, cols, masked, parts=-(-size // cols))


def _threads(tile: Tile) -> int:
    """8 elements of each part for a thread, what it loads at once; 16 of rows in one part or two.

    Norm of 16384 x 6144 in parts of 2048 on the H100, us: 256 threads 224, 128 222, 512 543; with residual add 353, 355
    and 555. Of 2**20 x 128: 128 threads 293, 64 308; with residual add 468 and 481.
    """
    elements = tile.rows * tile.width
    if elements <= ROW_TILE:
        return elements // 8
    return min(tile.cols // 8 if tile.parts == 3 else elements // 16, 1024)


def _ahead(tile: Tile, specs: Specs, target: Target) -> Ahead:
    """Rows on their way while others are worked on.

    H100, us, nothing ahead, in registers, through shared memory: 16384 x 6144 256, 259 and 224, with residual add 365,
    353 and 353; 2**20 x 128 379, 293 and 302, with residual add 500, 468 and 495. With the sums of a row's squares and
    products in one exchange, which another formula would allow, 229 became 230 and 362 358.
    """
    if tile.rows * tile.width <= ROW_TILE:
        return Ahead(stages=1, registers=specs["x"].size > 0, weight=True)  # of no rows there is no first one
    if target.vendor != "nvidia":
        return Ahead(stages=1, registers=False, weight=False)
    operands = [spec for name, spec in specs.items() if name in ("x", "residual", "grad", "grad_new_residual")]
    row = sum(tile.width * spec.itemsize for spec in operands)
    room = MORE_ROWS_AHEAD_BYTES if target.arch in LARGE_SHARED_MEMORY else ROWS_AHEAD_BYTES
    return Ahead(1 + min(room // row, 2), registers=False, weight=tile.width <= WIDEST_KEPT)


def _sums(
    number: int, lanes_in: int, groups: int, total: ArraySpec, target: Target, scratch: dict[str, ArraySpec]
) -> Iterator[Launch]:
    """Launches that add partial sums of each group, ``FAN_IN`` to one at a time; the last adds the rest by halves."""
    size, name, last = total.shape[-1], "partials", False
    while not last:
        chains = max(number // FAN_IN, 1)
        last = chains <= FAN_IN
        out = "grad_weight" if last else f"{name}_"
        if not last:
            scratch[out] = ArraySpec((chains, groups, size), "float32")
        rows = min(chains, FAN_IN) if last else 8
        dtype = total.dtype if last else "float32"
        yield Launch(
            kernel=_sum_rows_kernel,
            grid=(chains // rows * groups * -(-size // SUM_COLS),),
            arguments={"partials_ptr": name, "total_ptr": out},
            constants={
                "SIZE": size,
                "GROUPS": groups,
                "CHAINS": Chains(number // chains, chains, lanes_in, rows, SUM_COLS, last),
                "NARROWING": narrowing(dtype, target, beside_fp8=False),
            },
            writes=(out,),
            num_warps=max(rows * SUM_COLS // (2 * target.warp_size), 1),  # 2 elements a thread
        )
        number, lanes_in, name = chains, 1, out
