"""Scales in a kernel: stored and loaded in the layout that was asked for, and what pads a tiled one."""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl

from m3ops.numerics.formats import BLOCK
from m3ops.tiles import row_count, rows

PADDING_CHUNK = 2048
"""Bytes of padding that one program writes."""

_CHUNK = tl.constexpr(PADDING_CHUNK)


@dataclass(frozen=True)
class ScaleTiles:
    """A tiled layout of scales, a constexpr. See :class:`m3ops.numerics.scale_layouts.Tiles`.

    Attributes:
        rows: Rows of a scale tile, as (outer, inner).
        blocks: Blocks of a scale tile, likewise.
        strides: Bytes from one index to the next along these four axes.
        pad_rows: Rows are padded to a multiple of it.
        by_columns: Whether tiles follow each other column by column of tiles.
        padded_blocks: Blocks of a padded row.
        matrix_rows: Rows of each of several matrices. 0 where there is one, whose number of rows is no constant: else
            every batch size would compile a kernel of its own.
    """

    rows: tuple[int, int]
    blocks: tuple[int, int]
    strides: tuple[int, int, int, int]
    pad_rows: int
    by_columns: bool
    padded_blocks: int
    matrix_rows: int

    @property
    def tile_rows(self) -> int:
        return self.rows[0] * self.rows[1]

    @property
    def tile_blocks(self) -> int:
        return self.blocks[0] * self.blocks[1]

    @property
    def tile_bytes(self) -> int:
        return self.tile_rows * self.tile_blocks

    @property
    def pads_rows(self) -> bool:
        """Whether there may be padding rows."""
        return self.matrix_rows == 0 or self.matrix_rows % self.pad_rows != 0

    @property
    def row_of_tiles(self) -> int:
        """Bytes of a row of scale tiles."""
        return self.tile_rows * self.padded_blocks

    @property
    def row_step(self) -> int:
        """Bytes from a scale tile to the one below it."""
        return self.tile_bytes if self.by_columns else self.row_of_tiles

    @property
    def matrix_bytes(self) -> int:
        """Bytes of one matrix of several."""
        return -(-self.matrix_rows // self.pad_rows) * self.pad_rows * self.padded_blocks


@triton.constexpr_function
def padded_size(SIZE, TILES):
    """Elements of a row with the blocks that pad it."""
    return SIZE if TILES is None else TILES.padded_blocks * BLOCK


@triton.jit
def store(
    ptr, scales, blocks, total_rows, TILE: tl.constexpr, AT: tl.constexpr, TILES: tl.constexpr, scale_rows_ptr=None
):
    """Stores the scales of a window of blocks, and zeros in what pads its rows.

    ``scale_rows_ptr`` has for each row, int32, which row of a taller tiled matrix its scales are; None where they are
    the same.
    """
    if TILES is None:
        rows.store(ptr, scales, blocks, TILE, AT)
    else:
        first_row, end, cols = blocks
        row = first_row + tl.arange(0, TILE.rows)[:, None]
        place = scale_rows(scale_rows_ptr, row, end, TILE)
        ptrs = ptr + row_offset(place, TILES) + block_offset(cols, total_rows, TILES)
        if TILES.padded_blocks != AT.size:
            scales = tl.where(cols < AT.size, scales, 0).to(tl.uint8)
        if TILE.masked:
            tl.store(ptrs, scales, mask=(row < end) & (cols < TILES.padded_blocks))
        else:
            tl.store(ptrs, scales)


@triton.jit
def load(ptr, blocks, total_rows, TILE: tl.constexpr, AT: tl.constexpr, TILES: tl.constexpr, scale_rows_ptr=None):
    """Loads the scales of a window of blocks, from the rows where :func:`store` put them."""
    if TILES is None:
        scales = rows.load(ptr, blocks, TILE, AT)
    else:
        first_row, end, cols = blocks
        row = first_row + tl.arange(0, TILE.rows)[:, None]
        place = scale_rows(scale_rows_ptr, row, end, TILE)
        ptrs = ptr + row_offset(place, TILES) + block_offset(cols, total_rows, TILES)
        scales = tl.load(ptrs, mask=(row < end) & (cols < AT.size), other=0) if TILE.masked else tl.load(ptrs)
    return scales


@triton.jit
def scale_rows(ptr, row, end, TILE: tl.constexpr):
    """The rows of the tiled matrix, int64."""
    place = row
    if ptr is not None:
        place = (tl.load(ptr + row, mask=row < end, other=0) if TILE.masked else tl.load(ptr + row)).to(tl.int64)
    return place


@triton.jit
def pads(ptr, total_rows, SIZE: tl.constexpr, TILE: tl.constexpr, TILES: tl.constexpr):
    """Whether this program is one of those that come after the tiles and write padding; it has then done so."""
    if TILES is None:
        return False
    else:
        PADDED: tl.constexpr = padded_size(SIZE, TILES)
        chunk = tl.program_id(0) - tl.cdiv(total_rows, TILE.rows) * ((PADDED + TILE.width - 1) // TILE.width)
        if chunk >= 0:
            clear_chunk(ptr, chunk, total_rows * 0, total_rows, total_rows, TILES)
        return chunk >= 0


@triton.jit
def clear(ptr, ends, total_rows, AT: tl.constexpr, TILES: tl.constexpr, COUNT: tl.constexpr):
    """Padding rows, and zeros in the rows of a new result that do not count, shared among all programs."""
    if TILES is None:
        row_count.clear(ptr, ends, total_rows, AT.size, COUNT, "scales")
    elif TILES.pads_rows or row_count.clears(COUNT, "scales"):
        first_buffer, sharer = row_count.share(COUNT)
        for buffer in range(first_buffer, COUNT.buffers, COUNT.programs // COUNT.sharers):
            first_row, valid, last = row_count.bounds(buffer, ends, total_rows, COUNT)
            kept = valid if row_count.clears(COUNT, "scales") else last
            start, end = _clear_range(first_row, kept, last, TILES)
            for chunk in range(sharer, tl.cast(tl.cdiv(end - start, _CHUNK), tl.int32), COUNT.sharers):
                clear_chunk(ptr, chunk, first_row, kept, last, TILES)


@triton.jit
def clear_rows(ptr, kept, last, TILES: tl.constexpr):
    """Zeros in the rows of a matrix from ``kept`` up to ``last``, by this program alone."""
    start, end = _clear_range(kept * 0, kept, last, TILES)
    for chunk in range(tl.cast(tl.cdiv(end - start, _CHUNK), tl.int32)):
        clear_chunk(ptr, chunk, kept * 0, kept, last, TILES)


@triton.jit
def _clear_range(first_row, kept, last, TILES: tl.constexpr):
    """The first and the last byte where a row from ``kept`` up to ``last`` may be or none at all."""
    kept, last = tl.cast(kept, tl.int64), tl.cast(last, tl.int64)
    if TILES.matrix_rows == 0:  # from the first scale tile that is not full
        start = kept // TILES.tile_rows * TILES.row_of_tiles
        end = tl.cdiv(last, TILES.pad_rows) * (TILES.pad_rows * TILES.padded_blocks)
    else:
        start = tl.cast(first_row, tl.int64) // TILES.matrix_rows * TILES.matrix_bytes
        end = last // TILES.matrix_rows * TILES.matrix_bytes
    return start, end


@triton.jit
def clear_chunk(ptr, chunk, first_row, kept, last, TILES: tl.constexpr):
    """Zeros in chunk number ``chunk`` of that range: where a matrix has no row, and from row ``kept`` on."""
    start, end = _clear_range(first_row, kept, last, TILES)
    offset = start + tl.cast(chunk, tl.int64) * _CHUNK + tl.arange(0, _CHUNK)
    in_matrix = offset if TILES.matrix_rows == 0 else offset % TILES.matrix_bytes
    row = in_matrix // TILES.row_of_tiles * TILES.tile_rows
    row += in_matrix // TILES.strides[0] % TILES.rows[0] * TILES.rows[1]
    row += in_matrix // TILES.strides[1] % TILES.rows[1]
    if TILES.matrix_rows == 0:
        cleared = row >= kept
    else:
        cleared = (row >= TILES.matrix_rows) | (offset // TILES.matrix_bytes * TILES.matrix_rows + row >= kept)
    place = _place(offset, in_matrix, last, TILES)
    tl.store(ptr + place, tl.zeros([_CHUNK], tl.uint8), mask=cleared & (offset < end))


@triton.jit
def _place(offset, in_matrix, total_rows, TILES: tl.constexpr):
    """Where the byte is that would have these offsets, the second in its matrix, if tiles came row by row."""
    place = offset
    if TILES.by_columns:
        column = in_matrix % TILES.row_of_tiles // TILES.tile_bytes
        place = in_matrix // TILES.row_of_tiles * TILES.row_step + column * _column_of_tiles(total_rows, TILES)
        place += in_matrix % TILES.tile_bytes
        if TILES.matrix_rows != 0:  # of ``offset - in_matrix`` the compiler would not see that bytes follow each other
            place += offset // TILES.matrix_bytes * TILES.matrix_bytes
    return place


@triton.jit
def _column_of_tiles(total_rows, TILES: tl.constexpr):
    """Bytes of a column of scale tiles, int64."""
    matrix_rows = tl.cast(total_rows if TILES.matrix_rows == 0 else TILES.matrix_rows, tl.int64)
    return tl.cdiv(matrix_rows, TILES.pad_rows) * (TILES.pad_rows * TILES.tile_blocks)


@triton.jit
def row_offset(row, TILES: tl.constexpr):
    """The part of a scale's byte offset that its row decides; int64."""
    base = row * 0
    if TILES.matrix_rows != 0:
        base = row // TILES.matrix_rows * TILES.matrix_bytes
        row = row % TILES.matrix_rows
    base += row // TILES.tile_rows * TILES.row_step
    return base + row // TILES.rows[1] % TILES.rows[0] * TILES.strides[0] + row % TILES.rows[1] * TILES.strides[1]


@triton.jit
def block_offset(block, total_rows, TILES: tl.constexpr):
    """The part that its block decides. How many rows there are is of use where all are of one matrix."""
    base = block // TILES.tile_blocks
    base = base * (_column_of_tiles(total_rows, TILES) if TILES.by_columns else TILES.tile_bytes)
    base += block // TILES.blocks[1] % TILES.blocks[0] * TILES.strides[2]
    return base + block % TILES.blocks[1] * TILES.strides[3]
