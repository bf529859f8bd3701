"""Triton kernels of products whose groups lie along K: the programs of a group add its blocks."""

from __future__ import annotations

import triton
import triton.language as tl

from m3ops.numerics import constants as c
from m3ops.ops.mxfp8_matmul.fast_kernel import sum_of_codes
from m3ops.ops.mxfp8_matmul.kernel import add_blocks, source_rows
from m3ops.tiles import groups, launches, matrix, product, row_count

_CHUNK_BLOCKS = tl.constexpr(c.CHUNK_BLOCKS)


@triton.jit
def _store(product_ptr, total, group, first_row, end, col, total_rows, PRODUCT, TILE: tl.constexpr, NARROWING):
    """Stores the rows of a tile before ``end``, the end of those of its group that count."""
    before = tl.cast(group, tl.int64) * total_rows
    row = before + first_row + tl.arange(0, TILE.rows)
    product.store(product_ptr, total, row[None, :], col[:, None], before + end, PRODUCT, NARROWING)


@triton.jit
def _exact_tile(
    t,
    group,
    end,
    digits_ptr,
    factors_ptr,
    w_values_ptr,
    w_scales_ptr,
    group_sizes_ptr,
    total_rows,
    product_ptr,
    GROUPS: tl.constexpr,
    W: tl.constexpr,
    PRODUCT: tl.constexpr,
    TILE: tl.constexpr,
    NARROWING: tl.constexpr,
):
    _, row_tile, col = product.place(t, tl.cdiv(end, TILE.rows), PRODUCT.size, TILE)
    first_row = product.first_row(row_tile, TILE)
    total = tl.zeros((TILE.cols, TILE.rows), tl.float32)
    if digits_ptr is not None:
        x_row, digit_row, _ = source_rows(first_row, end, None, total_rows, TILE)
        digits = digits_ptr + digit_row[:, None] * (32 * TILE.blocks)
        w_row = tl.minimum(col, PRODUCT.size - 1).to(tl.int64)
        w = matrix.row_pointers(w_values_ptr, w_scales_ptr, w_row, W)
        first, last = groups.blocks(group_sizes_ptr, group, GROUPS, TILE.blocks)
        exponents = matrix.load_scales(w, tl.minimum(first, TILE.blocks - 1), W)
        for chunk in range(first, last, _CHUNK_BLOCKS):
            chunk_end = tl.minimum(chunk + _CHUNK_BLOCKS, last)
            partial, exponents = add_blocks(
                digits, factors_ptr + x_row, w, exponents, chunk, chunk_end, total_rows, W, TILE
            )
            total += partial
    _store(product_ptr, total, group, first_row, end, col, total_rows, PRODUCT, TILE, NARROWING)


@triton.jit
def _fast_tile(
    t,
    group,
    end,
    x_ptr,
    w_values_ptr,
    w_scales_ptr,
    group_sizes_ptr,
    total_rows,
    product_ptr,
    GROUPS: tl.constexpr,
    W: tl.constexpr,
    PRODUCT: tl.constexpr,
    TILE: tl.constexpr,
    NARROWING: tl.constexpr,
):
    _, row_tile, col = product.place(t, tl.cdiv(end, TILE.rows), PRODUCT.size, TILE)
    first_row = product.first_row(row_tile, TILE)
    row = first_row + tl.arange(0, TILE.rows)
    x_ptrs = (x_ptr + tl.minimum(row, end - 1) * (32 * TILE.blocks))[:, None]
    x_ptrs += tl.arange(0, 32 * TILE.step)[None, :]
    w = matrix.row_pointers(w_values_ptr, w_scales_ptr, tl.minimum(col, PRODUCT.size - 1).to(tl.int64), W)
    first, last = groups.blocks(group_sizes_ptr, group, GROUPS, TILE.blocks)
    total = sum_of_codes(x_ptrs, (row < end)[:, None], w, first, last, W, TILE)
    _store(product_ptr, total, group, first_row, end, col, total_rows, PRODUCT, TILE, NARROWING)


@triton.jit
def _rows_of(group, valid, total_rows):
    """How many rows of a group count, of so many of the product."""
    return tl.minimum(tl.maximum(valid - tl.cast(group, tl.int64) * total_rows, 0), total_rows).to(tl.int32)


@triton.jit
def _mxfp8_k_grouped_matmul_kernel(
    digits_ptr,  # fp16 [total_rows, 2, K], or None where K is 0
    factors_ptr,  # fp32 [K / 32, total_rows], or None
    w_values_ptr,  # uint8 [N, K]
    w_scales_ptr,  # uint8 [N, K / 32], or in tiles
    group_sizes_ptr,  # int32 [groups]
    num_rows_ptr,  # int32 [1], the number of rows of the product that count, or None for all
    total_rows,
    product_ptr,  # [groups, total_rows, N]
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
    operands = digits_ptr, factors_ptr, w_values_ptr, w_scales_ptr, group_sizes_ptr, total_rows, product_ptr
    if num_rows_ptr is None:
        _exact_tile(t, tl.program_id(1), total_rows, *operands, GROUPS, W, PRODUCT, TILE, NARROWING)
    else:
        every = tl.cast(total_rows, tl.int64) * GROUPS
        valid = row_count.valid_rows(num_rows_ptr, every, COUNT)
        for group in range(0, GROUPS):
            end = _rows_of(group, valid, total_rows)
            for i in range(t, product.num_tiles(end, PRODUCT.size, TILE), COUNT.programs):
                _exact_tile(i, group, end, *operands, GROUPS, W, PRODUCT, TILE, NARROWING)
        row_count.clear(product_ptr, valid, every, PRODUCT.size, COUNT, "product")


@triton.jit
def _mxfp8_k_grouped_matmul_fast_kernel(
    x_ptr,  # bf16 [total_rows, K]
    w_values_ptr,  # uint8 [N, K]
    w_scales_ptr,  # uint8 [N, K / 32], or in tiles
    group_sizes_ptr,  # int32 [groups]
    num_rows_ptr,  # int32 [1], the number of rows of the product that count, or None for all
    total_rows,
    product_ptr,  # [groups, total_rows, N]
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
    operands = x_ptr, w_values_ptr, w_scales_ptr, group_sizes_ptr, total_rows, product_ptr
    if num_rows_ptr is None:
        _fast_tile(t, tl.program_id(1), total_rows, *operands, GROUPS, W, PRODUCT, TILE, NARROWING)
    else:
        every = tl.cast(total_rows, tl.int64) * GROUPS
        valid = row_count.valid_rows(num_rows_ptr, every, COUNT)
        for group in range(0, GROUPS):
            end = _rows_of(group, valid, total_rows)
            for i in range(t, product.num_tiles(end, PRODUCT.size, TILE), COUNT.programs):
                _fast_tile(i, group, end, *operands, GROUPS, W, PRODUCT, TILE, NARROWING)
        row_count.clear(product_ptr, valid, every, PRODUCT.size, COUNT, "product")
