"""Groups in a kernel. Of rows: a table of tiles, each with rows of one group, made on the device from the sizes.

A product's programs read it. Were each to search the sizes, all would do the same work while memory waits. Where groups
lie along K a program adds all blocks of one, and the search is a small part of that.
"""

from __future__ import annotations

import triton
import triton.language as tl

from m3ops.tiles.vectors import only

ENTRIES = 64
"""Entries of the table that a program writes at a time."""

_ENTRIES = tl.constexpr(ENTRIES)


def most_tiles(num_rows: int, num_groups: int, tile_rows: int) -> int:
    """How many tiles there are at most: each group may end in one that is not full, and so may the rest."""
    return num_rows // tile_rows + min(num_groups, num_rows) + 1


def programs(num_tiles: int, num_groups: int) -> int:
    """How many write such a table: one for each group, and others for what is left."""
    return num_groups + -(-num_tiles // ENTRIES)


@triton.jit
def write(program, sizes_ptr, valid, cleared, num_tiles, tiles_ptr, GROUPS: tl.constexpr, ROWS: tl.constexpr):
    """Writes a part of the table.

    An entry has the group, the first row and the end of its rows. Those of rows that are in no group, from the last
    group to row ``cleared``, have the group GROUPS. What is left are tiles without rows, and after the table stands how
    many have some.
    """
    index = tl.arange(0, triton.next_power_of_2(GROUPS + 1))
    size = tl.maximum(tl.load(sizes_ptr + index, mask=index < GROUPS, other=0), 0).to(tl.int64)
    size = tl.where(index == GROUPS, cleared, size)
    total = tl.cumsum(size, 0)
    start = tl.minimum(total - size, valid)
    end = tl.minimum(total, tl.where(index < GROUPS, valid, cleared))
    tiles = tl.where(index <= GROUPS, tl.cdiv(end - start, ROWS), 0)
    group = tl.minimum(program, GROUPS)
    first_row, last_row = only(start, index == group), only(end, index == group)
    first = tl.sum(tl.where(index < group, tiles, 0))
    begin, after = first, first + only(tiles, index == group)
    if program >= GROUPS:
        begin += (program - GROUPS) * _ENTRIES
        after = tl.minimum(begin + _ENTRIES, tl.cast(num_tiles, tl.int64))
        tl.store(tiles_ptr + 3 * num_tiles, tl.sum(tiles).to(tl.int32), mask=program == GROUPS)
    for chunk in range(begin, after, _ENTRIES):
        tile = chunk + tl.arange(0, _ENTRIES)
        row = tl.minimum(first_row + (tile - first) * ROWS, last_row)
        entry = tiles_ptr + 3 * tile
        tl.store(entry, tl.full([_ENTRIES], 0, tl.int32) + group, mask=tile < after)
        tl.store(entry + 1, row.to(tl.int32), mask=tile < after)
        tl.store(entry + 2, tl.broadcast_to(last_row, (_ENTRIES,)).to(tl.int32), mask=tile < after)


@triton.jit
def blocks(sizes_ptr, group, GROUPS: tl.constexpr, BLOCKS: tl.constexpr):
    """Where the blocks of a group begin and end, if each group begins with a block of its own and there are BLOCKS."""
    index = tl.arange(0, triton.next_power_of_2(GROUPS))
    size = tl.maximum(tl.load(sizes_ptr + index, mask=index < GROUPS, other=0), 0).to(tl.int64)
    number = tl.cdiv(size, 32)
    first = tl.sum(tl.where(index < group, number, 0))
    last = first + only(number, index == group)
    return tl.minimum(first, BLOCKS).to(tl.int32), tl.minimum(last, BLOCKS).to(tl.int32)


@triton.jit
def read(tiles_ptr, tile):
    """The group of a tile, its first row as int64, and the end of its rows."""
    entry = tiles_ptr + 3 * tile
    return tl.load(entry), tl.load(entry + 1).to(tl.int64), tl.load(entry + 2)


@triton.jit
def num_tiles(tiles_ptr, row_tiles, COLS: tl.constexpr, TILE: tl.constexpr):
    """The tiles of a product of COLS columns that have rows."""
    return tl.load(tiles_ptr + 3 * row_tiles) * ((COLS + TILE.cols - 1) // TILE.cols * TILE.parts)
