"""Triton kernel of products of MXFP8 matrices at the speed of bfloat16.

Both operands become bfloat16, exactly but for extreme scales, and the tensor core adds their products along K. The
order is the same whatever the tile and whichever operand is the left one, so a row's bytes do not depend on the batch.
They depend on the device.
"""

from __future__ import annotations

import triton
import triton.language as tl

from m3ops.numerics.tile import functions
from m3ops.tiles import launches, matrix, product, row_count


@triton.jit
def sum_of_codes(x_ptrs, valid, w, first, end, W: tl.constexpr, TILE: tl.constexpr):
    """The sum of some blocks, ``[cols, rows]``.

    The weight is the left operand, as which it has enough rows for any tensor core.
    """
    total = tl.zeros((TILE.cols, TILE.rows), tl.float32)
    if TILE.blocks:
        scales = matrix.load_scales_of_blocks(w, tl.minimum(first, TILE.blocks - TILE.step), TILE.step, W)
        for block in range(first, end, TILE.step):
            codes = matrix.load_codes(w, block, TILE.step, W)
            # Triton has no asynchronous copy of so few bytes: the next step's are on their way during this one.
            ahead = tl.minimum(block + TILE.step, TILE.blocks - TILE.step)
            next_scales = matrix.load_scales_of_blocks(w, ahead, TILE.step, W)
            numbers = functions.bfloat16_blocks(codes, scales, TILE.cols, 32 * TILE.step, W.mx.fp8, W.mx.cast)
            x = tl.load(x_ptrs + block * 32, mask=valid, other=0.0)
            total = tl.dot(numbers, tl.trans(x), total)
            scales = next_scales
    return total


@triton.jit
def _sum_of_numbers(x_ptrs, w_ptrs, TILE: tl.constexpr):
    """``[rows, cols]``."""
    total = tl.zeros((TILE.rows, TILE.cols), tl.float32)
    for block in range(0, TILE.blocks, TILE.step):
        total = tl.dot(tl.load(x_ptrs + block * 32), tl.trans(tl.load(w_ptrs + block * 32)), total)
    return total


@triton.jit
def tile_of_codes(
    group,
    first_row,
    end,
    col,
    x_ptr,
    w_values_ptr,
    w_scales_ptr,
    rows_ptr,
    x_rows,
    product_ptr,
    W: tl.constexpr,
    PRODUCT: tl.constexpr,
    TILE: tl.constexpr,
    NARROWING: tl.constexpr,
):
    """A tile of the product with the weight of one group, and zeros where there is no such group."""
    COLS: tl.constexpr = PRODUCT.size
    row = first_row + tl.arange(0, TILE.rows)
    total = tl.zeros((TILE.cols, TILE.rows), tl.float32)
    if group < W.groups:
        # A mask, since sixteen times the same row, where there is one, take a tenth longer than that row and zeros.
        x_row, there = product.source(row, end, rows_ptr, x_rows)
        x_ptrs = (x_ptr + x_row * (32 * TILE.blocks))[:, None] + tl.arange(0, 32 * TILE.step)[None, :]
        w_row = tl.cast(group, tl.int64) * COLS + tl.minimum(col, COLS - 1)
        w = matrix.row_pointers(w_values_ptr, w_scales_ptr, w_row, W)
        total = sum_of_codes(x_ptrs, there[:, None], w, 0, TILE.blocks, W, TILE)
        if rows_ptr is not None:
            total = tl.where(there[None, :], total, 0.0)
    product.store(product_ptr, total, row[None, :], col[:, None], end, PRODUCT, NARROWING)


@triton.jit
def _fast_tile(
    t,
    end,
    x_ptr,
    w_ptr,
    w_scales_ptr,
    total_rows,
    product_ptr,
    W: tl.constexpr,
    PRODUCT: tl.constexpr,
    TILE: tl.constexpr,
    NARROWING: tl.constexpr,
):
    COLS: tl.constexpr = PRODUCT.size
    SIZE: tl.constexpr = 32 * TILE.blocks
    _, row_tile, col = product.place(t, tl.cdiv(end, TILE.rows), COLS, TILE)
    first_row = product.first_row(row_tile, TILE)
    if w_scales_ptr is None:
        row = first_row + tl.arange(0, TILE.rows)
        w_row = tl.minimum(col, COLS - 1).to(tl.int64)
        # Past the edges the last row is read once more, which costs less than a mask.
        x_ptrs = (x_ptr + tl.minimum(row, end - 1) * SIZE)[:, None] + tl.arange(0, 32 * TILE.step)[None, :]
        w_ptrs = (w_ptr + w_row * SIZE)[:, None] + tl.arange(0, 32 * TILE.step)[None, :]
        total = _sum_of_numbers(x_ptrs, w_ptrs, TILE)
        product.store(product_ptr, total, row[:, None], col[None, :], end, PRODUCT, NARROWING)
    else:
        operands = x_ptr, w_ptr, w_scales_ptr, None, total_rows, product_ptr
        tile_of_codes(0, first_row, end, col, *operands, W, PRODUCT, TILE, NARROWING)


@triton.jit
def _mxfp8_matmul_fast_kernel(
    x_ptr,  # bf16 [total_rows, K]
    w_ptr,  # uint8 [N, K], or bf16
    w_scales_ptr,  # uint8 [N, K / 32], or in tiles, or None where the weight is bf16
    num_rows_ptr,  # int32 [1], the number of rows that count, or None for all
    total_rows,
    product_ptr,  # [total_rows, N]
    W: tl.constexpr,
    PRODUCT: tl.constexpr,
    TILE: tl.constexpr,
    NARROWING: tl.constexpr,
    COUNT: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    launches.begin(OVERLAPS)
    t = tl.program_id(0)
    operands = x_ptr, w_ptr, w_scales_ptr, total_rows, product_ptr
    if num_rows_ptr is None:
        _fast_tile(t, total_rows, *operands, W, PRODUCT, TILE, NARROWING)
    else:
        valid = row_count.valid_rows(num_rows_ptr, total_rows, COUNT)
        for i in range(t, product.num_tiles(valid, PRODUCT.size, TILE), COUNT.programs):
            _fast_tile(i, valid, *operands, W, PRODUCT, TILE, NARROWING)
        row_count.clear(product_ptr, valid, total_rows, PRODUCT.size, COUNT, "product")
