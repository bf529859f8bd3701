"""Launch plans of products whose groups lie along K: x as its arithmetic wants it, and the product of each group."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from m3ops import row_count
from m3ops.array import ArraySpec
from m3ops.numerics.formats import BLOCK
from m3ops.op import Specs
from m3ops.ops.mxfp8_matmul import fast_plan as fast
from m3ops.ops.mxfp8_matmul import plan as exact
from m3ops.ops.mxfp8_matmul.k_grouped_kernel import (
    _mxfp8_k_grouped_matmul_fast_kernel,
    _mxfp8_k_grouped_matmul_kernel,
)
from m3ops.ops.mxfp8_matmul.k_grouped_spec import MXFP8KGroupedMatmul
from m3ops.plan import Launch, Plan
from m3ops.planning.launch import bytes_moved
from m3ops.target import Target
from m3ops.tiles.product import ROWS_OF_TILES, ProductTile

MOST_GROUPS = 2**16 - 1
"""CUDA's limit of the second axis of a grid."""


def exact_plan(op: MXFP8KGroupedMatmul, specs: Specs, target: Target, *, keep: Collection[str]) -> Plan:
    """The digits of x, and their products with those of w."""
    rows, size = specs["x_values"].shape
    tile_rows = exact.tile_rows_of(rows, target)
    tile = ProductTile(tile_rows, exact.COLS, size // BLOCK, -(-rows // tile_rows) > ROWS_OF_TILES)
    scratch: dict[str, ArraySpec] = {}
    launches = []
    if size:
        scratch = exact.digits_of(rows, size)
        launches.append(exact.digits_launch(op, {**_uncounted(specs), **scratch}, target))
    launch = exact.product_launch(
        _mxfp8_k_grouped_matmul_kernel,
        {**specs, **scratch},
        exact.weight_at(op, specs, target),
        target,
        tile,
        -(-rows // tile_rows),
        num_warps=exact.warps_of(tile, target),
        options=exact.stages_of(tile, target),
    )
    launches.append(_of_groups(launch, specs, target, keep=keep))
    return Plan(tuple(launches), bytes_moved(specs), _flops(specs), scratch)


def fast_plan(op: MXFP8KGroupedMatmul, specs: Specs, target: Target, *, keep: Collection[str]) -> Plan:
    """The rows of x in bfloat16 and their products with those of w, whose codes the kernel converts.

    A group may have any number of blocks, so they are added one by one.
    """
    (groups, rows, cols), size = specs["product"].shape, specs["x_values"].shape[-1]
    tile_rows = exact.tile_rows_of(rows, target, fast.MOST_ROWS)
    in_turns = rows > tile_rows * ROWS_OF_TILES
    every = groups * -(-rows // tile_rows)
    choice = fast.choice_of_codes(tile_rows, every, cols, size // BLOCK, target, in_turns=in_turns)
    choice = replace(choice, tile=replace(choice.tile, step=1), row_tiles=-(-rows // tile_rows))
    scratch = {"x": ArraySpec((rows, size), "bfloat16")}
    numbers = fast.numbers("x", op.x_layout, _uncounted(specs), target, choice)
    weight = exact.weight_at(op, specs, target)
    launch = fast.fast_launch(_mxfp8_k_grouped_matmul_fast_kernel, {**specs, **scratch}, weight, choice, target)
    launches = numbers, _of_groups(launch, specs, target, keep=keep)
    return Plan(launches, bytes_moved(specs), _flops(specs), scratch)


def _uncounted(specs: Specs) -> Specs:
    """The operands of what is done with x beforehand: counted are rows of the product, and each is of a row of x."""
    return {name: spec for name, spec in specs.items() if name != row_count.NAME}


def _of_groups(launch: Launch, specs: Specs, target: Target, *, keep: Collection[str]) -> Launch:
    """The launch of a group that multiplies as that of all groups, along the second axis of the grid.

    Raises:
        ValueError: There are more of them than that axis may be long.
    """
    groups, rows, _ = specs["product"].shape
    if groups > MOST_GROUPS:
        raise ValueError(f"{groups} groups are more than a kernel numbers ({MOST_GROUPS})")
    arguments, constants = {**launch.arguments, "total_rows": rows}, {**launch.constants, "GROUPS": groups}
    grid = (*launch.grid, groups)
    overlaps = exact.overlaps(grid, target)
    launch = replace(launch, grid=grid, arguments=arguments, constants=constants, overlaps=overlaps)
    return exact.counted(launch, specs, target, keep=keep)


def _flops(specs: Specs) -> int:
    _, rows, cols = specs["product"].shape
    return 2 * rows * cols * specs["x_values"].shape[-1]
