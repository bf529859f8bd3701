"""Triton kernels of grouped products: the tiles of all groups, one group after the other."""

from __future__ import annotations

import triton
import triton.language as tl

from m3ops.ops.mxfp8_matmul.fast_kernel import tile_of_codes
from m3ops.ops.mxfp8_matmul.kernel import exact_tile
from m3ops.tiles import groups, launches, product, row_count


@triton.jit
def _exact_tile(t, row_tiles, valid, cleared, group_sizes_ptr, operands, GROUPS, W, PRODUCT, TILE, NARROWING):
    part, row_tile, col = product.place(t, row_tiles, PRODUCT.size, TILE)
    group, first_row, end = groups.find(row_tile, group_sizes_ptr, valid, cleared, GROUPS, TILE.rows)
    exact_tile(part, group, first_row, end, col, *operands, W, PRODUCT, TILE, NARROWING)


@triton.jit
def _fast_tile(t, row_tiles, valid, cleared, group_sizes_ptr, operands, GROUPS, W, PRODUCT, TILE, NARROWING):
    _, row_tile, col = product.place(t, row_tiles, PRODUCT.size, TILE)
    group, first_row, end = groups.find(row_tile, group_sizes_ptr, valid, cleared, GROUPS, TILE.rows)
    tile_of_codes(group, first_row, end, col, *operands, W, PRODUCT, TILE, NARROWING)


@triton.jit
def _counted(num_rows_ptr, total_rows, group_sizes_ptr, GROUPS, PRODUCT, TILE, COUNT):
    """The rows that count, the end of those that become zeros if they are in no group, and how many tiles both have."""
    valid = row_count.valid_rows(num_rows_ptr, total_rows, COUNT)
    cleared = total_rows if row_count.clears(COUNT, "product") else valid
    row_tiles = groups.num_tiles(group_sizes_ptr, valid, cleared, GROUPS, TILE.rows)
    return valid, cleared, product.tiles_of(row_tiles, PRODUCT.size, TILE)


@triton.jit
def _mxfp8_grouped_matmul_kernel(
    digits_ptr,  # fp16 [x_rows, 2, K], or None where K or x_rows is 0
    factors_ptr,  # fp32 [K / 32, x_rows], or None
    w_values_ptr,  # uint8 [groups, N, K]
    w_scales_ptr,  # uint8 [groups, N, K / 32], or in tiles
    group_sizes_ptr,  # int32 [groups]
    num_rows_ptr,  # int32 [1], the number of rows that count, or None for all
    rows_ptr,  # int32 [total_rows], the rows of x, or None for all
    x_rows,
    total_rows,
    row_tiles,
    product_ptr,  # [total_rows, N], or fp32 [parts, total_rows, N]
    GROUPS: tl.constexpr,
    W: tl.constexpr,
    PRODUCT: tl.constexpr,
    TILE: tl.constexpr,
    NARROWING: tl.constexpr,
    COUNT: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    launches.begin(OVERLAPS)
    t = tl.program_id(0)
    operands = digits_ptr, factors_ptr, w_values_ptr, w_scales_ptr, rows_ptr, x_rows, total_rows, product_ptr
    if num_rows_ptr is None:
        _exact_tile(
            t, row_tiles, total_rows, total_rows, group_sizes_ptr, operands, GROUPS, W, PRODUCT, TILE, NARROWING
        )
    else:
        valid, cleared, tiles = _counted(num_rows_ptr, total_rows, group_sizes_ptr, GROUPS, PRODUCT, TILE, COUNT)
        for i in range(t, tiles, COUNT.programs):
            _exact_tile(i, row_tiles, valid, cleared, group_sizes_ptr, operands, GROUPS, W, PRODUCT, TILE, NARROWING)


@triton.jit
def _mxfp8_grouped_matmul_fast_kernel(
    x_ptr,  # bf16 [x_rows, K]
    w_values_ptr,  # uint8 [groups, N, K]
    w_scales_ptr,  # uint8 [groups, N, K / 32], or in tiles
    group_sizes_ptr,  # int32 [groups]
    num_rows_ptr,  # int32 [1], the number of rows that count, or None for all
    rows_ptr,  # int32 [total_rows], the rows of x, or None for all
    x_rows,
    total_rows,
    row_tiles,
    product_ptr,  # [total_rows, N]
    GROUPS: tl.constexpr,
    W: tl.constexpr,
    PRODUCT: tl.constexpr,
    TILE: tl.constexpr,
    NARROWING: tl.constexpr,
    COUNT: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    launches.begin(OVERLAPS)
    t = tl.program_id(0)
    operands = x_ptr, w_values_ptr, w_scales_ptr, rows_ptr, x_rows, product_ptr
    if num_rows_ptr is None:
        _fast_tile(t, row_tiles, total_rows, total_rows, group_sizes_ptr, operands, GROUPS, W, PRODUCT, TILE, NARROWING)
    else:
        valid, cleared, tiles = _counted(num_rows_ptr, total_rows, group_sizes_ptr, GROUPS, PRODUCT, TILE, COUNT)
        for i in range(t, tiles, COUNT.programs):
            _fast_tile(i, row_tiles, valid, cleared, group_sizes_ptr, operands, GROUPS, W, PRODUCT, TILE, NARROWING)
