"""Blocks of quantized matrices in a kernel, of rows given by their numbers."""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl

from m3ops.numerics.tile import functions
from m3ops.tiles import rows, scales
from m3ops.tiles.mx import Mx
from m3ops.tiles.rows import Rows


@dataclass(frozen=True)
class Matrix:
    """Where the rows of a quantized operand lie and how its bytes are read, a constexpr.

    Attributes:
        values: Rows of the values.
        scales: Rows of the scales; of use only where these are stored row by row.
        mx: Format, conversion, and the tiled layout of the scales.
        rows: Rows of a matrix.
        groups: How many matrices of as many rows follow each other.
    """

    values: Rows
    scales: Rows
    mx: Mx
    rows: int
    groups: int


@triton.jit
def row_pointers(values_ptr, scales_ptr, row, AT: tl.constexpr):
    """Where the values and the scales of rows begin, for int64 row numbers."""
    values = rows.advance(values_ptr, row, AT.values.inner_sizes, AT.values.strides)
    if AT.mx.scale_tiles is None:
        return values, rows.advance(scales_ptr, row, AT.scales.inner_sizes, AT.scales.strides)
    else:
        return values, scales_ptr + scales.row_offset(row, AT.mx.scale_tiles)


@triton.jit
def load_codes(pointers, block, BLOCKS: tl.constexpr, AT: tl.constexpr):
    """Some blocks of 32 of each row, ``[R, 32 BLOCKS]``."""
    if AT.mx.interleaves:
        ROWS: tl.constexpr = pointers[0].shape[0]
        COLS: tl.constexpr = 32 * BLOCKS
        # Each block of all rows for itself: Triton spreads whole rows, read for ``wgmma``, badly over the banks of
        # shared memory. 32768 rows in 128 groups, N = 6144 on the H200, us: 6450; 7140 in whole rows.
        col = _column((block + tl.arange(0, BLOCKS))[:, None, None] * 32 + tl.arange(0, 32)[None, None, :], AT)
        codes = tl.permute(tl.load(pointers[0][None, :, None] + col), (1, 0, 2))
        return functions.interleave(tl.reshape(codes, (ROWS, COLS)), ROWS, COLS)
    else:
        col = _column((block * 32 + tl.arange(0, 32 * BLOCKS))[None, :], AT)
        return tl.load(pointers[0][:, None] + col)


@triton.jit
def _column(col, AT: tl.constexpr):
    STRIDES: tl.constexpr = AT.values.strides
    STRIDE: tl.constexpr = STRIDES[len(STRIDES) - 1]
    if STRIDE != 1:
        col = col.to(tl.int64) * STRIDE
    return col


@triton.jit
def load_scales(pointers, block, AT: tl.constexpr):
    """The scales of one block, ``[R]``."""
    return tl.load(pointers[1] + _scale_offset(block, AT))


@triton.jit
def load_scales_of_blocks(pointers, block, BLOCKS: tl.constexpr, AT: tl.constexpr):
    """The scales of some blocks, ``[R, BLOCKS]``."""
    return tl.load(pointers[1][:, None] + _scale_offset(block + tl.arange(0, BLOCKS), AT)[None, :])


@triton.jit
def _scale_offset(block, AT: tl.constexpr):
    if AT.mx.scale_tiles is None:
        STRIDES: tl.constexpr = AT.scales.strides
        offset = tl.cast(block, tl.int64) * STRIDES[len(STRIDES) - 1]
    else:
        offset = scales.block_offset(block, AT.rows, AT.mx.scale_tiles)
    return offset
