"""Tiles of a matrix product in a kernel."""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl

from m3ops.numerics.constants import CHUNK_BLOCKS
from m3ops.numerics.tile import fp32
from m3ops.tiles import rows

ROWS_OF_TILES = 8
"""How many rows of large tiles take turns, so that programs which run together share weights and rows of x: on the
H100 the product of 8192 x 6144 took 11.6 ms with one row of tiles after the other, and 11.2 in this order.
"""

_TURNS = tl.constexpr(ROWS_OF_TILES)


@dataclass(frozen=True)
class ProductTile:
    """What a program computes at a time, a constexpr. It decides speed, never bytes.

    Attributes:
        rows: Rows of x.
        cols: Rows of the weight, which are columns of the product.
        blocks: Blocks of 32 along K.
        step: How many of them are multiplied at once.
        parts: Into how many parts K is divided, each the work of a program, whose sums are added later: one, or one for
            each chunk.
        in_turns: Whether ``ROWS_OF_TILES`` rows of tiles take turns.
    """

    rows: int
    cols: int
    blocks: int
    in_turns: bool
    step: int = 1
    parts: int = 1

    @property
    def chunks(self) -> int:
        """Chunks of a part."""
        return -(-self.blocks // CHUNK_BLOCKS) // self.parts

    @property
    def ends_in_a_chunk(self) -> bool:
        """Whether K ends within a chunk."""
        return self.blocks % CHUNK_BLOCKS != 0


@triton.jit
def num_tiles(num_rows, COLS: tl.constexpr, TILE: tl.constexpr):
    """The tiles of these rows of a product of COLS columns."""
    return tiles_of(tl.cdiv(num_rows, TILE.rows), COLS, TILE)


@triton.jit
def tiles_of(row_tiles, COLS: tl.constexpr, TILE: tl.constexpr):
    """The tiles of so many tiles of rows."""
    return row_tiles * ((COLS + TILE.cols - 1) // TILE.cols * TILE.parts)


@triton.jit
def place(t, row_tiles, COLS: tl.constexpr, TILE: tl.constexpr):
    """Which part of K, which of so many tiles of rows and which columns tile number ``t`` is of."""
    COL_TILES: tl.constexpr = (COLS + TILE.cols - 1) // TILE.cols
    part, t = t % TILE.parts, t // TILE.parts
    row_tile, col_tile = t // COL_TILES, t % COL_TILES
    if TILE.in_turns:
        first = t // (COL_TILES * _TURNS) * _TURNS
        if first + _TURNS <= row_tiles:  # the others, at the end, follow each other
            row_tile, col_tile = first + t % _TURNS, t // _TURNS % COL_TILES
    return part, row_tile, col_tile * TILE.cols + tl.arange(0, TILE.cols)


@triton.jit
def first_row(row_tile, TILE: tl.constexpr):
    """The first row of a tile of rows, int64."""
    return tl.cast(row_tile, tl.int64) * TILE.rows


@triton.jit
def source(row, end, rows_ptr, x_rows):
    """The rows of x that some of the product are of, and which of them there are."""
    if rows_ptr is None:
        return row, row < end
    else:
        index = tl.load(rows_ptr + row, mask=row < end, other=-1).to(tl.int64)
        there = (index >= 0) & (index < x_rows)
        return tl.where(there, index, 0), there


@triton.jit
def store(ptr, total, row, col, end, PRODUCT: tl.constexpr, NARROWING: tl.constexpr):
    """Rounds sums once and stores those within the edges; rows and columns broadcast to the shape of the sums."""
    ptrs = rows.advance(ptr, row, PRODUCT.inner_sizes, PRODUCT.strides) + col
    total = fp32.narrow(total + 0.0, ptr.dtype.element_ty, NARROWING)  # a sum of zero is +0
    tl.store(ptrs, total, mask=(row < end) & (col < PRODUCT.size))
