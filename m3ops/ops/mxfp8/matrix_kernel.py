"""The Triton kernel that quantizes a matrix along its rows, along its columns or along both, of one read."""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl

from m3ops.numerics.tile import functions
from m3ops.tiles import launches, rows, scales
from m3ops.tiles.rows import Rows


@dataclass(frozen=True)
class Matrices:
    """Where the matrices lie that are quantized, and how they are divided into tiles, a constexpr.

    Attributes:
        x: Their rows, those of all.
        col_tiles: Tiles along a row. Scales in tiles are padded: then these reach past the edges of a matrix, where of
            zeros come the zeros that pad.
        row_tiles: Tiles along the rows of each of several matrices. 0 where there is one, whose number of rows is no
            constant: else every batch size would compile a kernel of its own.
    """

    x: Rows
    col_tiles: int
    row_tiles: int


@triton.jit
def _store(
    values_ptr,
    scales_ptr,
    x,
    matrix,
    first_row,
    first_col,
    num_rows,
    size,
    TILE: tl.constexpr,
    MX: tl.constexpr,
    SQUARE: tl.constexpr,
):
    """Quantizes a tile along its rows and stores it into one of several matrices of ``[num_rows, size]`` elements."""
    ROWS: tl.constexpr = x.shape[0]
    COLS: tl.constexpr = x.shape[1]
    codes, exponents = functions.quantize_blocks(x, ROWS, COLS, MX.fp8, MX.rule, MX.cast, SQUARE)
    row = first_row + tl.arange(0, ROWS)[:, None]
    col = first_col + tl.arange(0, COLS)[None, :]
    block = first_col // 32 + tl.arange(0, COLS // 32)[None, :]
    first = tl.cast(matrix, tl.int64) * num_rows
    ptrs = values_ptr + (first + row) * size + col
    if MX.scale_tiles is None:
        scale_ptrs = scales_ptr + (first + row) * (size // 32) + block
        padded_rows = num_rows
        padded_blocks = size // 32
    else:
        padded_rows = tl.cdiv(num_rows, MX.scale_tiles.pad_rows) * MX.scale_tiles.pad_rows
        padded_blocks = MX.scale_tiles.padded_blocks
        first = tl.cast(matrix, tl.int64) * padded_rows * padded_blocks
        offset = scales.row_offset(tl.cast(row, tl.int64), MX.scale_tiles)
        scale_ptrs = scales_ptr + first + offset + scales.block_offset(block, num_rows, MX.scale_tiles)
    if TILE.masked:
        tl.store(ptrs, codes, mask=(row < num_rows) & (col < size))
        tl.store(scale_ptrs, exponents, mask=(row < padded_rows) & (block < padded_blocks))
    else:
        tl.store(ptrs, codes)
        tl.store(scale_ptrs, exponents)


@triton.jit
def _mxfp8_quantize_matrix_kernel(
    x_ptr,  # [matrices, num_rows, N]
    row_blocks,
    values_ptr,  # uint8 [matrices, num_rows, N], or None like the other results
    scales_ptr,  # uint8 [matrices, num_rows, N / 32], or in tiles
    transposed_values_ptr,  # uint8 [matrices, N, num_rows]
    transposed_scales_ptr,  # uint8 [matrices, N, num_rows / 32], or in tiles
    AT: tl.constexpr,
    TILE: tl.constexpr,
    MX: tl.constexpr,
    TRANSPOSED_MX: tl.constexpr,
    SQUARE: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    launches.begin(OVERLAPS)
    SIZE: tl.constexpr = AT.x.size
    num_rows = row_blocks * 32  # a multiple of 32 to the compiler too
    row_tile = tl.program_id(0) // AT.col_tiles
    matrix = row_tile * 0
    if AT.row_tiles:
        matrix = row_tile // AT.row_tiles
        row_tile = row_tile % AT.row_tiles
    first_row = row_tile * TILE.rows
    first_col = tl.program_id(0) % AT.col_tiles * TILE.cols
    first = tl.cast(matrix, tl.int64) * num_rows
    window = first + first_row, first + num_rows, first_col + tl.arange(0, TILE.cols)[None, :]
    x = rows.load(x_ptr, window, TILE, AT.x).to(tl.float32)
    if TILE.masked and AT.x.strides[0] == 0:  # rows that are all the same were read without a mask of them
        x = tl.where(first_row + tl.arange(0, TILE.rows)[:, None] < num_rows, x, 0.0)
    if values_ptr is not None:
        _store(values_ptr, scales_ptr, x, matrix, first_row, first_col, num_rows, SIZE, TILE, MX, SQUARE)
    if transposed_values_ptr is not None:
        _store(
            transposed_values_ptr,
            transposed_scales_ptr,
            tl.trans(x),
            matrix,
            first_col,
            first_row,
            SIZE,
            num_rows,
            TILE,
            TRANSPOSED_MX,
            SQUARE,
        )
