"""Rows of strided operands in a kernel. A row is a vector along the last axis; the axes before it are its number."""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl


@dataclass(frozen=True)
class Rows:
    """Where the rows of one operand lie, a constexpr.

    Attributes:
        size: Elements of a row.
        inner_sizes: Sizes of the collapsed leading axes but the first, so that the number of rows is not part of it.
        strides: Of the collapsed leading axes, then of the last axis, in elements.
    """

    size: int
    inner_sizes: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class Tile:
    """What a program works on at a time, a constexpr. Its shape decides speed, never bytes.

    Attributes:
        rows: Rows, a power of two.
        cols: Columns, a power of two.
        masked: Whether a tile may reach past the edges of the operands.
        parts: Into how many pieces of ``cols`` columns a program divides whole rows; 1 where it does not have them.
        reload: Whether a program that needs its rows twice reads them twice, instead of keeping them in registers.
    """

    rows: int
    cols: int
    masked: bool
    parts: int = 1
    reload: bool = False

    @property
    def width(self) -> int:
        """Columns of all parts."""
        return self.cols * self.parts


@triton.constexpr_function
def resized(AT, SIZE):
    """The same rows with another number of elements."""
    return Rows(SIZE, AT.inner_sizes, AT.strides)


@triton.jit
def window(t, end, SIZE: tl.constexpr, TILE: tl.constexpr, PER: tl.constexpr = 1):
    """Where tile number ``t`` of rows of SIZE elements is: ``(first row, end of the rows, columns [1, cols])``.

    With PER = 32 that of the blocks of those elements.
    """
    COLS: tl.constexpr = TILE.cols // PER
    COL_TILES: tl.constexpr = (SIZE + TILE.cols - 1) // TILE.cols
    first_row = tl.cast(t // COL_TILES, tl.int64) * TILE.rows
    col_tile = t % COL_TILES
    if 2 * (SIZE + TILE.cols) > 2**31:  # a single axis may be so long; alternating gates and ups lie twice as far
        col_tile = tl.cast(col_tile, tl.int64)
    return first_row, end, col_tile * COLS + tl.arange(0, COLS)[None, :]


@triton.jit
def part(t, end, TILE: tl.constexpr, PART: tl.constexpr, PER: tl.constexpr = 1):
    """The same for part number PART of a tile of whole rows."""
    COLS: tl.constexpr = TILE.cols // PER
    return tl.cast(t, tl.int64) * TILE.rows, end, PART * COLS + tl.arange(0, COLS)[None, :]


@triton.jit
def load(ptr, window, TILE: tl.constexpr, AT: tl.constexpr, EVICTION: tl.constexpr = ""):
    """A window [rows, cols] of an operand, with zeros past its edges. Rows that are all the same are read once."""
    ptrs = _pointers(ptr, window, TILE.rows, AT.inner_sizes, AT.strides)
    if TILE.masked:
        mask = _mask(window, TILE.rows, AT.size, AT.strides)
        x = tl.load(ptrs, mask=mask, other=0, eviction_policy=EVICTION)
    else:
        x = tl.load(ptrs, eviction_policy=EVICTION)
    return tl.broadcast_to(x, (TILE.rows, x.shape[1]))


@triton.jit
def store(ptr, x, window, TILE: tl.constexpr, AT: tl.constexpr):
    """Stores a window [rows, cols] within the edges of an operand, in the operand's dtype."""
    ptrs = _pointers(ptr, window, TILE.rows, AT.inner_sizes, AT.strides)
    x = x.to(ptr.dtype.element_ty)
    if TILE.masked:
        tl.store(ptrs, x, mask=_mask(window, TILE.rows, AT.size, AT.strides))
    else:
        tl.store(ptrs, x)


@triton.jit
def advance(ptr, row, INNER_SIZES: tl.constexpr, STRIDES: tl.constexpr):
    """The pointer to the start of a row."""
    for axis in tl.static_range(len(STRIDES) - 2, 0, -1):
        ptr += (row % INNER_SIZES[axis - 1]).to(tl.int64) * STRIDES[axis]
        row = row // INNER_SIZES[axis - 1]
    return ptr + row.to(tl.int64) * STRIDES[0]


@triton.jit
def _mask(window, ROWS: tl.constexpr, SIZE: tl.constexpr, STRIDES: tl.constexpr):
    first_row, end, cols = window
    mask = cols < SIZE
    if len(STRIDES) > 2 or STRIDES[0] != 0:
        mask = mask & (first_row + tl.arange(0, ROWS)[:, None] < end)
    return mask


@triton.jit
def _pointers(ptr, window, ROWS: tl.constexpr, INNER_SIZES: tl.constexpr, STRIDES: tl.constexpr):
    first_row, _, cols = window
    LEADING: tl.constexpr = len(STRIDES) - 1
    local = tl.arange(0, ROWS)[:, None]
    if STRIDES[LEADING] != 1 or ROWS * STRIDES[0] >= 2**31:  # 32-bit offsets within a tile would not do
        local, cols = local.to(tl.int64), cols.to(tl.int64)
    if LEADING > 1:
        index = first_row + local
        offset = index * 0
        for axis in tl.static_range(LEADING - 1, 0, -1):
            offset += (index % INNER_SIZES[axis - 1]) * STRIDES[axis]
            index = index // INNER_SIZES[axis - 1]
        block = (ptr + (offset + index * STRIDES[0])) + cols * STRIDES[LEADING]
    elif STRIDES[0] == 0:
        block = ptr + cols * STRIDES[LEADING]
    else:  # a 64-bit scalar base and 32-bit offsets: what the wide loads of both vendors want
        block = (ptr + first_row * STRIDES[0]) + (local * STRIDES[0] + cols * STRIDES[LEADING])
    return block
