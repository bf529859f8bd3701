"""Triton kernels of MXFP8 quantization and dequantization, one tile of rows and blocks at a time."""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl

from m3ops.numerics.tile import fp32, functions
from m3ops.tiles import launches, mx, row_count, rows, scales
from m3ops.tiles.rows import Rows


@dataclass(frozen=True)
class Mxfp8At:
    """Where the rows of each operand lie, a constexpr."""

    x: Rows
    values: Rows
    scales: Rows


@triton.jit
def _quantize_tile(
    t,
    end,
    x_ptr,
    total_rows,
    values_ptr,
    scales_ptr,
    AT: tl.constexpr,
    TILE: tl.constexpr,
    MX: tl.constexpr,
    scale_rows_ptr=None,
):
    PADDED: tl.constexpr = scales.padded_size(AT.values.size, MX.scale_tiles)
    window = rows.window(t, end, PADDED, TILE)
    x = rows.load(x_ptr, window, TILE, AT.x).to(tl.float32)
    mx.store(
        values_ptr, scales_ptr, x, t, window, total_rows, TILE, AT.values, AT.scales, MX, scale_rows_ptr=scale_rows_ptr
    )


@triton.jit
def _mxfp8_quantize_kernel(
    x_ptr,  # [total_rows, I]
    num_rows_ptr,  # int32, how many rows of each buffer count, or None for all
    scale_rows_ptr,  # int32 [total_rows], rows of the tiled scales, or None where rows are not in groups
    total_rows,
    values_ptr,  # uint8 [total_rows, I]
    scales_ptr,  # uint8 [total_rows, I / 32], or in tiles
    AT: tl.constexpr,
    TILE: tl.constexpr,
    MX: tl.constexpr,
    COUNT: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    launches.begin(OVERLAPS)
    if num_rows_ptr is None:
        if scales.pads(scales_ptr, total_rows, AT.values.size, TILE, MX.scale_tiles):
            return
        _quantize_tile(tl.program_id(0), total_rows, x_ptr, total_rows, values_ptr, scales_ptr, AT, TILE, MX)
    else:
        ends = row_count.ends(num_rows_ptr, total_rows, COUNT)
        PADDED: tl.constexpr = scales.padded_size(AT.values.size, MX.scale_tiles)
        tiles = row_count.tiles(ends, total_rows, PADDED, TILE, COUNT)
        for i in range(tl.program_id(0), tiles[0], COUNT.programs):
            t, end = row_count.tile(i, tiles, ends, COUNT)
            _quantize_tile(t, end, x_ptr, total_rows, values_ptr, scales_ptr, AT, TILE, MX, scale_rows_ptr)
        counts_ptr = None if scale_rows_ptr is None else num_rows_ptr
        mx.clear(values_ptr, scales_ptr, ends, total_rows, AT.values, AT.scales, MX, COUNT, counts_ptr)


@triton.jit
def _dequantize_tile(
    t,
    end,
    values_ptr,
    scales_ptr,
    total_rows,
    x_ptr,
    AT: tl.constexpr,
    TILE: tl.constexpr,
    MX: tl.constexpr,
    NARROWING: tl.constexpr,
    scale_rows_ptr=None,
):
    window, blocks = rows.window(t, end, AT.values.size, TILE), rows.window(t, end, AT.values.size, TILE, 32)
    values = rows.load(values_ptr, window, TILE, AT.values)
    exponents = scales.load(scales_ptr, blocks, total_rows, TILE, AT.scales, MX.scale_tiles, scale_rows_ptr)
    x = functions.dequantize_blocks(values, exponents, TILE.rows, TILE.cols, MX.fp8, MX.cast)
    x = fp32.narrow(x, x_ptr.dtype.element_ty, NARROWING)
    if MX.interleaves:
        first, second = functions.halves(x, TILE.rows, TILE.cols)
        first_row, _, half = rows.window(t, end, AT.x.size, TILE, 2)
        cols = half // 16 * 32 + half % 16  # of the first halves of blocks; the second ones follow each
        rows.store(x_ptr, first, (first_row, end, cols), TILE, AT.x)
        rows.store(x_ptr, second, (first_row, end, cols + 16), TILE, AT.x)
    else:
        rows.store(x_ptr, x, window, TILE, AT.x)


@triton.jit
def _mxfp8_dequantize_kernel(
    values_ptr,  # uint8 [total_rows, I]
    scales_ptr,  # uint8 [total_rows, I / 32], or in tiles
    num_rows_ptr,  # int32, how many rows of each buffer count, or None for all
    scale_rows_ptr,  # int32 [total_rows], rows of the tiled scales, or None where rows are not in groups
    total_rows,
    x_ptr,  # [total_rows, I]
    AT: tl.constexpr,
    TILE: tl.constexpr,
    MX: tl.constexpr,
    NARROWING: tl.constexpr,
    COUNT: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    launches.begin(OVERLAPS)
    if num_rows_ptr is None:
        t = tl.program_id(0)
        _dequantize_tile(t, total_rows, values_ptr, scales_ptr, total_rows, x_ptr, AT, TILE, MX, NARROWING)
    else:
        ends = row_count.ends(num_rows_ptr, total_rows, COUNT)
        tiles = row_count.tiles(ends, total_rows, AT.values.size, TILE, COUNT)
        for i in range(tl.program_id(0), tiles[0], COUNT.programs):
            t, end = row_count.tile(i, tiles, ends, COUNT)
            _dequantize_tile(t, end, values_ptr, scales_ptr, total_rows, x_ptr, AT, TILE, MX, NARROWING, scale_rows_ptr)
        row_count.clear(x_ptr, ends, total_rows, AT.x.size, COUNT, "x")
