"""Triton kernels of grouped products: which tile is of which group, and those tiles."""

from __future__ import annotations

import triton
import triton.language as tl

from m3ops.ops.mxfp8_matmul.fast_kernel import tile_of_codes
from m3ops.ops.mxfp8_matmul.kernel import exact_tile
from m3ops.tiles import groups, product


@triton.jit
def _mxfp8_matmul_groups_kernel(
    group_sizes_ptr,  # int32 [groups]
    num_rows_ptr,  # int32 [1], the number of rows that count, or None for all
    total_rows,
    row_tiles,
    tiles_ptr,  # int32 [row_tiles + 1, 3]
    GROUPS: tl.constexpr,
    ROWS: tl.constexpr,
    KEEPS: tl.constexpr,
):
    valid, cleared = total_rows, total_rows
    if num_rows_ptr is not None:
        valid = tl.maximum(tl.minimum(tl.load(num_rows_ptr), total_rows), 0)
        if KEEPS:
            cleared = valid
    groups.write(tl.program_id(0), group_sizes_ptr, valid, cleared, row_tiles, tiles_ptr, GROUPS, ROWS)


@triton.jit
def _exact_tile(t, row_tiles, tiles_ptr, operands, W, PRODUCT, TILE, NARROWING):
    part, row_tile, col = product.place(t, row_tiles, PRODUCT.size, TILE)
    group, first_row, end = groups.read(tiles_ptr, row_tile)
    exact_tile(part, group, first_row, end, col, *operands, W, PRODUCT, TILE, NARROWING)


@triton.jit
def _fast_tile(t, row_tiles, tiles_ptr, operands, W, PRODUCT, TILE, NARROWING):
    _, row_tile, col = product.place(t, row_tiles, PRODUCT.size, TILE)
    group, first_row, end = groups.read(tiles_ptr, row_tile)
    tile_of_codes(group, first_row, end, col, *operands, W, PRODUCT, TILE, NARROWING)


@triton.jit
def _mxfp8_grouped_matmul_kernel(
    digits_ptr,  # fp16 [x_rows, 2, K], or None where K or x_rows is 0
    factors_ptr,  # fp32 [K / 32, x_rows], or None
    w_values_ptr,  # uint8 [groups, N, K]
    w_scales_ptr,  # uint8 [groups, N, K / 32], or in tiles
    tiles_ptr,  # int32 [row_tiles + 1, 3]
    rows_ptr,  # int32 [total_rows], the rows of x, or None for all
    x_rows,
    total_rows,
    row_tiles,
    product_ptr,  # [total_rows, N], or fp32 [parts, total_rows, N]
    W: tl.constexpr,
    PRODUCT: tl.constexpr,
    TILE: tl.constexpr,
    NARROWING: tl.constexpr,
    COUNT: tl.constexpr,
):
    t = tl.program_id(0)
    operands = digits_ptr, factors_ptr, w_values_ptr, w_scales_ptr, rows_ptr, x_rows, total_rows, product_ptr
    if COUNT is None:
        _exact_tile(t, row_tiles, tiles_ptr, operands, W, PRODUCT, TILE, NARROWING)
    else:
        for i in range(t, groups.num_tiles(tiles_ptr, row_tiles, PRODUCT.size, TILE), COUNT.programs):
            _exact_tile(i, row_tiles, tiles_ptr, operands, W, PRODUCT, TILE, NARROWING)


@triton.jit
def _mxfp8_grouped_matmul_fast_kernel(
    x_ptr,  # bf16 [x_rows, K]
    w_values_ptr,  # uint8 [groups, N, K]
    w_scales_ptr,  # uint8 [groups, N, K / 32], or in tiles
    tiles_ptr,  # int32 [row_tiles + 1, 3]
    rows_ptr,  # int32 [total_rows], the rows of x, or None for all
    x_rows,
    total_rows,
    row_tiles,
    product_ptr,  # [total_rows, N]
    W: tl.constexpr,
    PRODUCT: tl.constexpr,
    TILE: tl.constexpr,
    NARROWING: tl.constexpr,
    COUNT: tl.constexpr,
):
    t = tl.program_id(0)
    operands = x_ptr, w_values_ptr, w_scales_ptr, rows_ptr, x_rows, product_ptr
    if COUNT is None:
        _fast_tile(t, row_tiles, tiles_ptr, operands, W, PRODUCT, TILE, NARROWING)
    else:
        for i in range(t, groups.num_tiles(tiles_ptr, row_tiles, PRODUCT.size, TILE), COUNT.programs):
            _fast_tile(i, row_tiles, tiles_ptr, operands, W, PRODUCT, TILE, NARROWING)
