"""Triton kernels of products of MXFP8 matrices.

The digits of x are written once, by a kernel of their own: hundreds of programs read each, and tensor cores take them
from shared memory. The weight is the left operand of their products: it then has enough rows for one however few x has,
and its digits are made in registers, where they are needed once. To the bytes that makes no difference.
"""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl

from m3ops.numerics import constants as c
from m3ops.numerics.tile import fp32, functions
from m3ops.tiles import launches, matrix, product, row_count, rows, scales
from m3ops.tiles.rows import Rows

_CHUNK_BLOCKS = tl.constexpr(c.CHUNK_BLOCKS)


@dataclass(frozen=True)
class DigitsAt:
    """Where the rows of x and of its digits lie, a constexpr.

    Attributes:
        values: Rows of the values of x.
        scales: Rows of its scales; of use only where these are stored row by row.
        digits: Rows of the integers. The rests of each follow it.
    """

    values: Rows
    scales: Rows
    digits: Rows


@triton.jit
def _digits_tile(
    t,
    end,
    x_values_ptr,
    x_scales_ptr,
    total_rows,
    digits_ptr,
    factors_ptr,
    AT: tl.constexpr,
    TILE: tl.constexpr,
    MX: tl.constexpr,
    scale_rows_ptr=None,
):
    window, blocks = rows.window(t, end, AT.values.size, TILE), rows.window(t, end, AT.values.size, TILE, 32)
    high, low = functions.digits(rows.load(x_values_ptr, window, TILE, AT.values), MX.fp8, MX.cast)
    rows.store(digits_ptr, high, window, TILE, AT.digits)
    rows.store(digits_ptr + AT.values.size, low, window, TILE, AT.digits)
    exponents = scales.load(x_scales_ptr, blocks, total_rows, TILE, AT.scales, MX.scale_tiles, scale_rows_ptr)
    factors = functions.scale_factors(exponents)
    first_row, _, block = blocks
    row = first_row + tl.arange(0, TILE.rows)[:, None]
    place = tl.cast(block, tl.int64) * total_rows + row
    tl.store(factors_ptr + place, factors, mask=(row < end) & (block < AT.scales.size))


@triton.jit
def _mxfp8_matmul_digits_kernel(
    x_values_ptr,  # uint8 [total_rows, K]
    x_scales_ptr,  # uint8 [total_rows, K / 32], or in tiles
    num_rows_ptr,  # int32 [1], the number of rows that count, or None for all
    scale_rows_ptr,  # int32 [total_rows], rows of the tiled scales, or None where rows are not in groups
    total_rows,
    digits_ptr,  # fp16 [total_rows, 2, K]
    factors_ptr,  # fp32 [K / 32, total_rows]
    AT: tl.constexpr,
    TILE: tl.constexpr,
    MX: tl.constexpr,
    COUNT: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    launches.begin(OVERLAPS)
    t = tl.program_id(0)
    if num_rows_ptr is None:
        _digits_tile(t, total_rows, x_values_ptr, x_scales_ptr, total_rows, digits_ptr, factors_ptr, AT, TILE, MX)
    else:
        valid = row_count.valid_rows(num_rows_ptr, total_rows, COUNT)
        for i in range(t, row_count.num_tiles(valid, AT.values.size, TILE), COUNT.programs):
            _digits_tile(
                i, valid, x_values_ptr, x_scales_ptr, total_rows, digits_ptr, factors_ptr, AT, TILE, MX, scale_rows_ptr
            )


@triton.jit
def add_blocks(digits, factors, w, exponents, first, end, total_rows, W: tl.constexpr, TILE: tl.constexpr):
    """The sum of blocks of a chunk, ``[cols, rows]`` fp32, of rows given by pointers, and the weight's next scales."""
    partial = tl.zeros((TILE.cols, TILE.rows), tl.float32)
    for block in range(first, end):
        w_digits = functions.digits(matrix.load_codes(w, block, 1, W), W.mx.fp8, W.mx.cast)
        x_digits = tl.load(digits + (block * 32 + tl.arange(0, 32))[None, :])
        x_factors = tl.load(factors + tl.cast(block, tl.int64) * total_rows)
        w_factors = functions.scale_factors(exponents)
        partial = functions.add_block(partial, w_digits, tl.trans(x_digits), w_factors, x_factors, TILE.cols, TILE.rows)
        # Loads of single bytes are not pipelined by the compiler. One that is issued before a product would be waited
        # for by the fence in front of it.
        exponents = matrix.load_scales(w, tl.minimum(block + 1, TILE.blocks - 1), W)
    return partial, exponents


@triton.jit
def _chunk(digits, factors, w, exponents, chunk, total_rows, W: tl.constexpr, TILE: tl.constexpr):
    first = chunk * _CHUNK_BLOCKS
    end = first + _CHUNK_BLOCKS
    if TILE.ends_in_a_chunk:
        end = tl.minimum(end, TILE.blocks)
    return add_blocks(digits, factors, w, exponents, first, end, total_rows, W, TILE)


@triton.jit
def _chunks(digits, factors, w, first_chunk, total_rows, W: tl.constexpr, TILE: tl.constexpr):
    """The sum of the chunks of a part."""
    exponents = matrix.load_scales(w, first_chunk * _CHUNK_BLOCKS, W)
    if TILE.chunks == 1:
        total, _ = _chunk(digits, factors, w, exponents, first_chunk, total_rows, W, TILE)
    else:
        total = tl.zeros((TILE.cols, TILE.rows), tl.float32)
        for chunk in range(first_chunk, first_chunk + TILE.chunks):
            partial, exponents = _chunk(digits, factors, w, exponents, chunk, total_rows, W, TILE)
            total += partial
    return total


@triton.jit
def source_rows(first_row, end, rows_ptr, x_rows, TILE: tl.constexpr):
    """For a tile of rows those of x, those of the digits, and which there are."""
    row = first_row + tl.arange(0, TILE.rows)
    if rows_ptr is None:  # past the edge the last row is read once more, which costs less than a mask
        digit_row = tl.minimum(2 * first_row + tl.arange(0, 2 * TILE.rows), 2 * tl.cast(end, tl.int64) - 1)
        return tl.minimum(row, end - 1), digit_row, row < end
    else:
        x_row, there = product.source(row, end, rows_ptr, x_rows)
        digit = tl.arange(0, 2 * TILE.rows)
        twice, _ = product.source(first_row + digit // 2, end, rows_ptr, x_rows)
        return x_row, 2 * twice + digit % 2, there


@triton.jit
def exact_tile(
    part,
    group,
    first_row,
    end,
    col,
    digits_ptr,
    factors_ptr,
    w_values_ptr,
    w_scales_ptr,
    rows_ptr,
    x_rows,
    total_rows,
    product_ptr,
    W: tl.constexpr,
    PRODUCT: tl.constexpr,
    TILE: tl.constexpr,
    NARROWING: tl.constexpr,
):
    """A tile of the product with the weight of one group, and zeros where there is no such group."""
    COLS: tl.constexpr = PRODUCT.size
    total = tl.zeros((TILE.cols, TILE.rows), tl.float32)
    if digits_ptr is not None and group < W.groups:
        x_row, digit_row, there = source_rows(first_row, end, rows_ptr, x_rows, TILE)
        digits = digits_ptr + digit_row[:, None] * (32 * TILE.blocks)
        w_row = tl.cast(group, tl.int64) * COLS + tl.minimum(col, COLS - 1)
        w = matrix.row_pointers(w_values_ptr, w_scales_ptr, w_row, W)
        total = _chunks(digits, factors_ptr + x_row, w, part * TILE.chunks, x_rows, W, TILE)
        if rows_ptr is not None:
            total = tl.where(there[None, :], total, 0.0)
    row = first_row + tl.arange(0, TILE.rows)
    part_ptr = product_ptr + tl.cast(part, tl.int64) * total_rows * COLS
    product.store(part_ptr, total, row[None, :], col[:, None], end, PRODUCT, NARROWING)


@triton.jit
def _product_tile(
    t,
    end,
    digits_ptr,
    factors_ptr,
    w_values_ptr,
    w_scales_ptr,
    total_rows,
    product_ptr,
    W: tl.constexpr,
    PRODUCT: tl.constexpr,
    TILE: tl.constexpr,
    NARROWING: tl.constexpr,
):
    part, row_tile, col = product.place(t, tl.cdiv(end, TILE.rows), PRODUCT.size, TILE)
    first_row = product.first_row(row_tile, TILE)
    operands = digits_ptr, factors_ptr, w_values_ptr, w_scales_ptr, None, total_rows, total_rows, product_ptr
    exact_tile(part, 0, first_row, end, col, *operands, W, PRODUCT, TILE, NARROWING)


@triton.jit
def _mxfp8_matmul_kernel(
    digits_ptr,  # fp16 [total_rows, 2, K], or None where K is 0
    factors_ptr,  # fp32 [K / 32, total_rows], or None
    w_values_ptr,  # uint8 [N, K]
    w_scales_ptr,  # uint8 [N, K / 32], or in tiles
    num_rows_ptr,  # int32 [1], the number of rows that count, or None for all
    total_rows,
    product_ptr,  # [total_rows, N], or fp32 [parts, total_rows, N]
    W: tl.constexpr,
    PRODUCT: tl.constexpr,
    TILE: tl.constexpr,
    NARROWING: tl.constexpr,
    COUNT: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    launches.begin(OVERLAPS)
    t = tl.program_id(0)
    operands = digits_ptr, factors_ptr, w_values_ptr, w_scales_ptr, total_rows, product_ptr
    if num_rows_ptr is None:
        _product_tile(t, total_rows, *operands, W, PRODUCT, TILE, NARROWING)
    else:
        valid = row_count.valid_rows(num_rows_ptr, total_rows, COUNT)
        for i in range(t, product.num_tiles(valid, PRODUCT.size, TILE), COUNT.programs):
            _product_tile(i, valid, *operands, W, PRODUCT, TILE, NARROWING)
        row_count.clear(product_ptr, valid, total_rows, PRODUCT.size, COUNT, "product")


@triton.jit
def _sum_tile(t, end, partials_ptr, total_rows, product_ptr, PARTIALS, PRODUCT, TILE, PARTS, NARROWING):
    window = rows.window(t, end, PRODUCT.size, TILE)
    total = rows.load(partials_ptr, window, TILE, PARTIALS)
    for part in range(1, PARTS):
        part_ptr = partials_ptr + tl.cast(part, tl.int64) * total_rows * PARTIALS.size
        total += rows.load(part_ptr, window, TILE, PARTIALS)
    total = fp32.narrow(total + 0.0, product_ptr.dtype.element_ty, NARROWING)
    rows.store(product_ptr, total, window, TILE, PRODUCT)


@triton.jit
def _mxfp8_matmul_sum_kernel(
    partials_ptr,  # fp32 [parts, total_rows, N]
    num_rows_ptr,  # int32 [1], the number of rows that count, or None for all
    total_rows,
    product_ptr,  # [total_rows, N]
    PARTIALS: tl.constexpr,
    PRODUCT: tl.constexpr,
    TILE: tl.constexpr,
    PARTS: tl.constexpr,
    NARROWING: tl.constexpr,
    COUNT: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    launches.begin(OVERLAPS)
    t = tl.program_id(0)
    if num_rows_ptr is None:
        _sum_tile(t, total_rows, partials_ptr, total_rows, product_ptr, PARTIALS, PRODUCT, TILE, PARTS, NARROWING)
    else:
        valid = row_count.valid_rows(num_rows_ptr, total_rows, COUNT)
        for i in range(t, row_count.num_tiles(valid, PRODUCT.size, TILE), COUNT.programs):
            _sum_tile(i, valid, partials_ptr, total_rows, product_ptr, PARTIALS, PRODUCT, TILE, PARTS, NARROWING)
        row_count.clear(product_ptr, valid, total_rows, PRODUCT.size, COUNT, "product")
