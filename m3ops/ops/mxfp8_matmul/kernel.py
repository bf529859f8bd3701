"""Triton kernels of products of MXFP8 matrices.

The weight is the left operand of a tensor core's product: it then has enough rows for one however few x has, and its
digits stay in registers. To the bytes that makes no difference.
"""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl

from m3ops.numerics import constants as c
from m3ops.numerics import tile
from m3ops.tiles import matrix, row_count, rows

_CHUNK_BLOCKS = tl.constexpr(c.CHUNK_BLOCKS)


@dataclass(frozen=True)
class ProductTile:
    """What a program computes at a time, a constexpr. It decides speed, never bytes.

    Attributes:
        rows: Rows of x.
        cols: Rows of the weight, which are columns of the product.
        blocks: Blocks of 32 along K.
        parts: Into how many parts K is divided, each the work of a program, whose sums are added later: one, or one for
            each chunk.
    """

    rows: int
    cols: int
    blocks: int
    parts: int

    @property
    def chunks(self) -> int:
        """Chunks of a part."""
        return -(-self.blocks // c.CHUNK_BLOCKS) // self.parts


@triton.jit
def _chunks(x, w, first_chunk, X: tl.constexpr, W: tl.constexpr, TILE: tl.constexpr):
    """The sum of the chunks of a part, ``[cols, rows]`` fp32, of rows given by pointers."""
    total = tl.zeros((TILE.cols, TILE.rows), tl.float32)
    for chunk in range(first_chunk, first_chunk + TILE.chunks):
        partial = tl.zeros((TILE.cols, TILE.rows), tl.float32)
        for block in range(chunk * _CHUNK_BLOCKS, tl.minimum((chunk + 1) * _CHUNK_BLOCKS, TILE.blocks)):
            w_digits, w_scale = matrix.load_block(w, block, W)
            x_digits, x_scale = matrix.load_block(x, block, X)
            turned = tl.trans(x_digits[0]), tl.trans(x_digits[1])
            partial = tile.add_block(partial, w_digits, turned, w_scale, x_scale)
        total += partial
    return total


@triton.jit
def _product_tile(
    t,
    end,
    x_values_ptr,
    x_scales_ptr,
    w_values_ptr,
    w_scales_ptr,
    total_rows,
    product_ptr,
    X: tl.constexpr,
    W: tl.constexpr,
    PRODUCT: tl.constexpr,
    TILE: tl.constexpr,
    NARROWING: tl.constexpr,
):
    COLS: tl.constexpr = PRODUCT.size
    COL_TILES: tl.constexpr = (COLS + TILE.cols - 1) // TILE.cols
    part, t = t % TILE.parts, t // TILE.parts
    row = tl.cast(t // COL_TILES, tl.int64) * TILE.rows + tl.arange(0, TILE.rows)
    col = t % COL_TILES * TILE.cols + tl.arange(0, TILE.cols)
    # Past the edges the last row is read once more, which costs less than a mask.
    x = matrix.row_pointers(x_values_ptr, x_scales_ptr, tl.minimum(row, end - 1), X)
    w = matrix.row_pointers(w_values_ptr, w_scales_ptr, tl.minimum(col, COLS - 1).to(tl.int64), W)
    total = _chunks(x, w, part * TILE.chunks, X, W, TILE) + 0.0  # a sum of zero is +0
    place = tl.cast(part, tl.int64) * total_rows + row
    ptrs = rows.advance(product_ptr, place, PRODUCT.inner_sizes, PRODUCT.strides)[None, :] + col[:, None]
    total = tile.narrow(total, product_ptr.dtype.element_ty, NARROWING)
    tl.store(ptrs, total, mask=(row < end)[None, :] & (col < COLS)[:, None])


@triton.jit
def _num_tiles(valid, COLS: tl.constexpr, TILE: tl.constexpr):
    return tl.cdiv(valid, TILE.rows) * ((COLS + TILE.cols - 1) // TILE.cols * TILE.parts)


@triton.jit
def _mxfp8_matmul_kernel(
    x_values_ptr,  # uint8 [total_rows, K]
    x_scales_ptr,  # uint8 [total_rows, K / 32], or in tiles
    w_values_ptr,  # uint8 [N, K]
    w_scales_ptr,  # uint8 [N, K / 32], or in tiles
    num_rows_ptr,  # int32 [1], the number of rows that count, or None for all
    total_rows,
    product_ptr,  # [total_rows, N], or fp32 [parts, total_rows, N]
    X: tl.constexpr,
    W: tl.constexpr,
    PRODUCT: tl.constexpr,
    TILE: tl.constexpr,
    NARROWING: tl.constexpr,
    COUNT: tl.constexpr,
):
    t = tl.program_id(0)
    operands = x_values_ptr, x_scales_ptr, w_values_ptr, w_scales_ptr, total_rows, product_ptr
    if num_rows_ptr is None:
        _product_tile(t, total_rows, *operands, X, W, PRODUCT, TILE, NARROWING)
    else:
        valid = row_count.valid_rows(num_rows_ptr, total_rows, COUNT)
        for i in range(t, _num_tiles(valid, PRODUCT.size, TILE), COUNT.programs):
            _product_tile(i, valid, *operands, X, W, PRODUCT, TILE, NARROWING)
        row_count.clear(product_ptr, valid, total_rows, PRODUCT.size, COUNT, "product")


@triton.jit
def _sum_tile(t, end, partials_ptr, total_rows, product_ptr, PARTIALS, PRODUCT, TILE, PARTS, NARROWING):
    window = rows.window(t, end, PRODUCT.size, TILE)
    total = rows.load(partials_ptr, window, TILE, PARTIALS)
    for part in range(1, PARTS):
        part_ptr = partials_ptr + tl.cast(part, tl.int64) * total_rows * PARTIALS.size
        total += rows.load(part_ptr, window, TILE, PARTIALS)
    total = tile.narrow(total + 0.0, product_ptr.dtype.element_ty, NARROWING)
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
):
    t = tl.program_id(0)
    if num_rows_ptr is None:
        _sum_tile(t, total_rows, partials_ptr, total_rows, product_ptr, PARTIALS, PRODUCT, TILE, PARTS, NARROWING)
    else:
        valid = row_count.valid_rows(num_rows_ptr, total_rows, COUNT)
        for i in range(t, row_count.num_tiles(valid, PRODUCT.size, TILE), COUNT.programs):
            _sum_tile(i, valid, partials_ptr, total_rows, product_ptr, PARTIALS, PRODUCT, TILE, PARTS, NARROWING)
        row_count.clear(product_ptr, valid, total_rows, PRODUCT.size, COUNT, "product")
