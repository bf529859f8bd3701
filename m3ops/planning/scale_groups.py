"""Launches whose scales are those of groups of rows."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from m3ops.array import ArraySpec
from m3ops.numerics.scale_layouts import OF_GROUPS, SPREAD_GROUPS, TILES, TILES_OF_GROUPS
from m3ops.op import Specs
from m3ops.plan import Launch
from m3ops.planning.launch import PROGRAMS_OF_BUFFERS
from m3ops.target import Target
from m3ops.tiles.row_count import RowCount
from m3ops.tiles.scale_groups import _scale_rows_kernel

Launches = tuple[tuple[Launch, ...], dict[str, ArraySpec]]
"""With the scratch memory between them."""


def in_groups(
    launch: Launch, scale_layout: str, specs: Specs, scales: str, target: Target, *, keep: Collection[str] = ()
) -> Launches:
    """A launch as it was; or, for a layout of groups, two: which rows the scales are, and those rows alone.

    Args:
        launch: That for all rows, of a kernel that takes ``num_rows_ptr`` and ``scale_rows_ptr``.
        scale_layout: The layout of the scales that it reads or writes.
        specs: The operands by name, ``group_sizes`` among them.
        scales: The name of the scales.
        target: The device.
        keep: Results that keep what their memory held in the rows of no group; those of the others become zeros.
    """
    if scale_layout not in OF_GROUPS:
        return (launch,), {}
    total_rows, tile_rows = launch.arguments["total_rows"], TILES[TILES_OF_GROUPS].pad_rows
    num_tiles = specs[scales].shape[0] // tile_rows
    assert isinstance(total_rows, int)
    first = Launch(
        kernel=_scale_rows_kernel,
        grid=(max(num_tiles, 1),),
        arguments={
            "group_sizes_ptr": "group_sizes",
            "total_rows": total_rows,
            "num_tiles": num_tiles,
            "scale_rows_ptr": "scale_rows",
            "counts_ptr": "counts",
        },
        constants={
            "GROUPS": specs["group_sizes"].size,
            "TILE_ROWS": tile_rows,
            "SPREAD": scale_layout == SPREAD_GROUPS,
        },
        writes=("scale_rows", "counts"),
        num_warps=4,
    )
    programs, tile = PROGRAMS_OF_BUFFERS * target.multiprocessors, launch.constants["TILE"]
    tile = replace(tile, masked=tile.masked or tile.rows > 1)
    second = replace(
        launch,
        grid=(programs,),
        arguments={**launch.arguments, "num_rows_ptr": "counts", "scale_rows_ptr": "scale_rows"},
        constants={**launch.constants, "TILE": tile, "COUNT": RowCount(programs, tuple(keep))},
        overlaps=False,
    )
    counts = ArraySpec((2 + num_tiles,), "int32")
    return (first, second), {"scale_rows": ArraySpec((max(total_rows, 1),), "int32"), "counts": counts}
