"""Groups in a kernel: which of them a tile of rows is of, and which blocks along K are one's.

The sizes are on the device, and each program goes through them. For the 128 groups of a layer that takes less time than
a table would that a launch of its own writes: a layer of one token, of two products, took 4 us less on the H200.
"""

from __future__ import annotations

import triton
import triton.language as tl

from m3ops.tiles.vectors import only

MOST_AT_A_TIME = 256
"""Groups that a program looks at together: it keeps numbers of each in registers."""


def most_tiles(num_rows: int, num_groups: int, tile_rows: int) -> int:
    """How many tiles there are at most: each group may end in one that is not full, and so may the rest."""
    return num_rows // tile_rows + min(num_groups, num_rows) + 1


@triton.constexpr_function
def _width(GROUPS):
    """How many groups a program looks at together; the rows that are in none count as one."""
    return min(triton.next_power_of_2(GROUPS + 1), MOST_AT_A_TIME)


@triton.jit
def _some(sizes_ptr, first, rows_before, valid, cleared, GROUPS: tl.constexpr, ROWS: tl.constexpr):
    """Of some groups from a first one on the numbers, where the rows of each begin and end, how many tiles of rows each
    has, and how many rows the sizes of all up to these promise. After the last group come the rows that are in none, up
    to row ``cleared``.
    """
    group = first + tl.arange(0, _width(GROUPS))
    size = tl.maximum(tl.load(sizes_ptr + group, mask=group < GROUPS, other=0), 0).to(tl.int64)
    size = tl.where(group == GROUPS, cleared, size)
    total = rows_before + tl.cumsum(size, 0)
    start = tl.minimum(total - size, valid)
    end = tl.minimum(total, tl.where(group < GROUPS, valid, cleared))
    tiles = tl.where(group <= GROUPS, tl.cdiv(end - start, ROWS), 0)
    return group, start, end, tiles, rows_before + tl.sum(size)


@triton.jit
def find(tile, sizes_ptr, valid, cleared, GROUPS: tl.constexpr, ROWS: tl.constexpr):
    """The group of a tile of ROWS rows, its first row as int64, and the end of its rows.

    Rows that are in no group have the group GROUPS. So has a tile past the last one, which has no rows.
    """
    group, first_row, end_of_rows = tl.cast(GROUPS, tl.int32), tl.cast(0, tl.int64), tl.cast(0, tl.int64)
    rows_before, tiles_before = tl.cast(0, tl.int64), tl.cast(0, tl.int64)
    for first in range(0, GROUPS + 1, _width(GROUPS)):
        number, start, end, tiles, rows_before = _some(sizes_ptr, first, rows_before, valid, cleared, GROUPS, ROWS)
        after = tiles_before + tl.cumsum(tiles, 0)
        here = (after - tiles <= tile) & (tile < after)
        group -= only(GROUPS - number, here)
        first_row += only(start + (tile - after + tiles) * ROWS, here)
        end_of_rows += only(end, here)
        tiles_before += tl.sum(tiles)
    return group, first_row, end_of_rows


@triton.jit
def num_tiles(sizes_ptr, valid, cleared, GROUPS: tl.constexpr, ROWS: tl.constexpr):
    """How many tiles of ROWS rows there are."""
    rows_before, number = tl.cast(0, tl.int64), tl.cast(0, tl.int64)
    for first in range(0, GROUPS + 1, _width(GROUPS)):
        _, _, _, tiles, rows_before = _some(sizes_ptr, first, rows_before, valid, cleared, GROUPS, ROWS)
        number += tl.sum(tiles)
    return number.to(tl.int32)


@triton.jit
def blocks(sizes_ptr, group, GROUPS: tl.constexpr, BLOCKS: tl.constexpr):
    """Where the blocks of a group begin and end, if each group begins with a block of its own and there are BLOCKS."""
    index = tl.arange(0, triton.next_power_of_2(GROUPS))
    size = tl.maximum(tl.load(sizes_ptr + index, mask=index < GROUPS, other=0), 0).to(tl.int64)
    number = tl.cdiv(size, 32)
    first = tl.sum(tl.where(index < group, number, 0))
    last = first + only(number, index == group)
    return tl.minimum(first, BLOCKS).to(tl.int32), tl.minimum(last, BLOCKS).to(tl.int32)
