"""Scales in a kernel: stored and loaded in the layout that was asked for, and what pads a tiled one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import triton
import triton.language as tl

from m3ops import rows
from m3ops.numerics.formats import BLOCK
from m3ops.numerics.scale_layouts import ROW_MAJOR, TILES
from m3ops.op import ArraySpec

PADDING_CHUNK = 2048
"""Bytes of padding that one program writes."""

_CHUNK = tl.constexpr(PADDING_CHUNK)

# A tiled layout as a constexpr: sizes and strides of a tile's four axes, then these.
_PAD_ROWS = tl.constexpr(8)
_BLOCKS = tl.constexpr(9)  # of a padded row
_MATRIX_ROWS = tl.constexpr(10)  # 0 where there is one matrix, which has all rows


@dataclass(frozen=True)
class ScaleLayout:
    """What a plan has to know of the scales of its op.

    Attributes:
        operands: The scales by name where they are rows like the other operands, so that they belong into the row
            layout; empty for a tiled layout.
        padding: Programs that write padding, beside those that work on tiles.
        constants: Constexpr arguments for the functions below.
        of_tile: Blocks to a multiple of which rows are padded.
    """

    operands: Mapping[str, ArraySpec]
    padding: int
    constants: Mapping[str, Any]
    of_tile: int = 1

    def padded(self, spec: ArraySpec) -> ArraySpec:
        """An operand as large as it is with its rows padded to whole tiles of scales, for tilings to cover."""
        multiple = self.of_tile * BLOCK if self.of_tile > 1 else 1
        return replace(spec, shape=(*spec.shape[:-1], -(-spec.shape[-1] // multiple) * multiple))

    def masked(self, spec: ArraySpec, masked: bool) -> dict[str, bool]:
        """The MASKED constant of a tiling of the padded operand."""
        return {"MASKED": masked or self.padded(spec) != spec}


def scale_layout(params: Mapping[str, Any], values: ArraySpec, scales: ArraySpec) -> ScaleLayout:
    """The layout of the scales of these values."""
    if params["scale_layout"] == ROW_MAJOR:
        return ScaleLayout({"scales": scales}, 0, {"SCALE_TILES": None})
    tiles = TILES[params["scale_layout"]]
    *batch, num_rows, _ = values.shape
    padded_rows, padded_blocks = scales.shape[-2:]
    # The number of rows of a single matrix is no constant: else every batch size would compile a kernel of its own.
    matrix_rows = num_rows if prod(batch) > 1 else 0
    constants = {
        "SCALES_STRIDES": None,
        "SCALE_TILES": (*tiles.rows, *tiles.blocks, *tiles.strides, tiles.pad_rows, padded_blocks, matrix_rows),
    }
    partial = num_rows // tiles.shape[0] * tiles.shape[0] if not matrix_rows else 0
    padding = scales.size - partial * padded_blocks if num_rows != padded_rows else 0
    return ScaleLayout({}, -(-padding // PADDING_CHUNK), constants, tiles.shape[1])


@triton.constexpr_function
def padded_size(SIZE, TILES):
    """Elements of a row with the blocks that pad it."""
    return SIZE if TILES is None else TILES[9] * BLOCK


@triton.constexpr_function
def _matrix_bytes(TILES):
    """Bytes of the scales of one matrix of several."""
    pad_rows, blocks, num_rows = TILES[8:]
    return (num_rows + pad_rows - 1) // pad_rows * pad_rows * blocks


@triton.jit
def pads(scales_ptr, num_rows, SIZE: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, TILES: tl.constexpr):
    """Whether this program is one of those that come after the tiles and write padding; it has then done so."""
    PADDED: tl.constexpr = padded_size(SIZE, TILES)
    chunk = tl.program_id(0) - tl.cdiv(num_rows, ROWS) * ((PADDED + COLS - 1) // COLS)
    if chunk >= 0:
        _clear_chunk(scales_ptr, chunk, num_rows, num_rows, TILES)
    return chunk >= 0


@triton.jit
def clear(scales_ptr, live, num_rows, BLOCKS: tl.constexpr, TILES: tl.constexpr, LIVE: tl.constexpr):
    """Padding, and zeros in the rows of a new result that do not count, shared among all programs."""
    if TILES is None:
        rows.clear(scales_ptr, live, num_rows, BLOCKS, LIVE)
    else:
        kept = live if LIVE[0] else num_rows
        start, end = _clear_range(kept, num_rows, TILES)
        for chunk in range(tl.program_id(0), tl.cast(tl.cdiv(end - start, _CHUNK), tl.int32), LIVE[2]):
            _clear_chunk(scales_ptr, chunk, kept, num_rows, TILES)


@triton.jit
def _clear_range(kept, num_rows, TILES: tl.constexpr):
    """The first and the last byte where a row may be from row ``kept`` on or none at all."""
    kept, num_rows = tl.cast(kept, tl.int64), tl.cast(num_rows, tl.int64)
    if TILES[_MATRIX_ROWS] == 0:  # from the first tile that is not full
        TILE_ROWS: tl.constexpr = TILES[0] * TILES[1]
        start = kept // TILE_ROWS * (TILE_ROWS * TILES[_BLOCKS])
        end = tl.cdiv(num_rows, TILES[_PAD_ROWS]) * (TILES[_PAD_ROWS] * TILES[_BLOCKS])
    else:
        start = num_rows * 0
        end = num_rows // TILES[_MATRIX_ROWS] * _matrix_bytes(TILES)
    return start, end


@triton.jit
def _clear_chunk(ptr, chunk, kept, num_rows, TILES: tl.constexpr):
    """Zeros in chunk number ``chunk`` of that range: where a matrix has no row, and from row ``kept`` on."""
    TILE_ROWS: tl.constexpr = TILES[0] * TILES[1]
    MATRIX_ROWS: tl.constexpr = TILES[_MATRIX_ROWS]
    start, end = _clear_range(kept, num_rows, TILES)
    offset = start + tl.cast(chunk, tl.int64) * _CHUNK + tl.arange(0, _CHUNK)
    in_matrix = offset if MATRIX_ROWS == 0 else offset % _matrix_bytes(TILES)
    row = in_matrix // (TILE_ROWS * TILES[_BLOCKS]) * TILE_ROWS
    row += in_matrix // TILES[4] % TILES[0] * TILES[1] + in_matrix // TILES[5] % TILES[1]
    if MATRIX_ROWS == 0:
        cleared = row >= kept
    else:
        cleared = (row >= MATRIX_ROWS) | (offset // _matrix_bytes(TILES) * MATRIX_ROWS + row >= kept)
    tl.store(ptr + offset, tl.zeros([_CHUNK], tl.uint8), mask=cleared & (offset < end))


@triton.jit
def store(
    ptr,
    scales,
    window,
    SIZE: tl.constexpr,
    ROWS: tl.constexpr,
    MASKED: tl.constexpr,
    INNER_SIZES: tl.constexpr,
    STRIDES: tl.constexpr,
    TILES: tl.constexpr,
):
    """Stores the scales [ROWS, COLS] of a window of blocks, SIZE of which are a row, and zeros in what pads the row."""
    if TILES is None:
        rows.store(ptr, scales, window, SIZE, ROWS, MASKED, INNER_SIZES, STRIDES)
    else:
        first_row, num_rows, cols = window
        row = first_row + tl.arange(0, ROWS)[:, None]
        ptrs = ptr + _row_offset(row, TILES) + _col_offset(cols, TILES)
        if TILES[_BLOCKS] != SIZE:
            scales = tl.where(cols < SIZE, scales, 0).to(tl.uint8)
        if MASKED:
            tl.store(ptrs, scales, mask=(row < num_rows) & (cols < TILES[_BLOCKS]))
        else:
            tl.store(ptrs, scales)


@triton.jit
def load(
    ptr,
    window,
    SIZE: tl.constexpr,
    ROWS: tl.constexpr,
    MASKED: tl.constexpr,
    INNER_SIZES: tl.constexpr,
    STRIDES: tl.constexpr,
    TILES: tl.constexpr,
):
    """Loads the scales [ROWS, COLS] of a window of blocks, SIZE of which are a row."""
    if TILES is None:
        scales = rows.load(ptr, window, SIZE, ROWS, MASKED, INNER_SIZES, STRIDES)
    else:
        first_row, num_rows, cols = window
        row = first_row + tl.arange(0, ROWS)[:, None]
        ptrs = ptr + _row_offset(row, TILES) + _col_offset(cols, TILES)
        scales = tl.load(ptrs, mask=(row < num_rows) & (cols < SIZE), other=0) if MASKED else tl.load(ptrs)
    return scales


@triton.jit
def _row_offset(row, TILES: tl.constexpr):
    """The part of a scale's byte offset that its row decides; int64."""
    TILE_ROWS: tl.constexpr = TILES[0] * TILES[1]
    MATRIX_ROWS: tl.constexpr = TILES[_MATRIX_ROWS]
    base = row * 0
    if MATRIX_ROWS != 0:
        base = row // MATRIX_ROWS * _matrix_bytes(TILES)
        row = row % MATRIX_ROWS
    base += row // TILE_ROWS * (TILE_ROWS * TILES[_BLOCKS])
    return base + row // TILES[1] % TILES[0] * TILES[4] + row % TILES[1] * TILES[5]


@triton.jit
def _col_offset(col, TILES: tl.constexpr):
    """The part that its block decides."""
    TILE_BLOCKS: tl.constexpr = TILES[2] * TILES[3]
    base = col // TILE_BLOCKS * (TILES[0] * TILES[1] * TILE_BLOCKS)
    return base + col // TILES[3] % TILES[2] * TILES[6] + col % TILES[3] * TILES[7]
