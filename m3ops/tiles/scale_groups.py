"""Scales of groups of rows in a kernel: which row of the tiled matrix is whose, and the padding of each group."""

from __future__ import annotations

import triton
import triton.language as tl

from m3ops.tiles import launches, scales
from m3ops.tiles.vectors import only


@triton.jit
def _scale_rows_kernel(
    group_sizes_ptr,  # int32 [groups]
    total_rows,
    num_tiles,
    scale_rows_ptr,  # int32 [total_rows]
    counts_ptr,  # int32 [2 + num_tiles]
    GROUPS: tl.constexpr,
    TILE_ROWS: tl.constexpr,
    SPREAD: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    """Writes which row of the tiled matrix each row in a group is, and counts: of these rows, of the matrix' rows of
    tiles, and of the rows in each of those. A program has one row of tiles, which is of one group at most.
    """
    launches.begin(OVERLAPS)
    tile = tl.program_id(0)
    index = tl.arange(0, triton.next_power_of_2(GROUPS + 1))
    size = tl.maximum(tl.load(group_sizes_ptr + index, mask=index < GROUPS, other=0), 0).to(tl.int64)
    total = tl.cumsum(size, 0)
    start, end = tl.minimum(total - size, total_rows), tl.minimum(total, total_rows)
    tiles = tl.cdiv(end - start, TILE_ROWS)
    first = (start + (TILE_ROWS - 1) * index) // TILE_ROWS if SPREAD else tl.cumsum(tiles, 0) - tiles
    here = (first <= tile) & (tile < first + tiles)
    before = (tile - first) * TILE_ROWS
    first_row = only(start + before, here)
    there = tl.minimum(only(end - start - before, here), TILE_ROWS).to(tl.int32)
    local = tl.arange(0, TILE_ROWS)
    tl.store(scale_rows_ptr + first_row + local, tile * TILE_ROWS + local, mask=local < there)
    tl.store(counts_ptr + 2 + tile, there, mask=tile < num_tiles)
    tl.store(counts_ptr, tl.max(end, 0).to(tl.int32), mask=tile == 0)
    tl.store(counts_ptr + 1, num_tiles, mask=tile == 0)


@triton.jit
def clear(ptr, counts_ptr, TILES: tl.constexpr, COUNT: tl.constexpr):
    """Zeros where a row of tiles has no rows of a group, shared among all programs."""
    for tile in range(tl.program_id(0), tl.load(counts_ptr + 1), COUNT.programs):
        end = tl.cast(tile + 1, tl.int64) * TILES.pad_rows
        kept = end - TILES.pad_rows + tl.load(counts_ptr + 2 + tile)
        scales.clear_rows(ptr, kept, end, TILES)
