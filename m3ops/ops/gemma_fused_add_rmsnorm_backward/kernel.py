"""Triton kernel of the gradients of residual add and Gemma's RMSNorm: x and partial sums for the weight."""

from __future__ import annotations

import triton
import triton.language as tl

from m3ops import rows
from m3ops.numerics import constants as c
from m3ops.numerics import tile

_PARTIAL_ROWS = tl.constexpr(c.PARTIAL_ROWS)


@triton.jit
def _gemma_fused_add_rmsnorm_backward_kernel(
    x_ptr,  # [GROUPS, num_rows, SIZE]
    residual_ptr,  # [GROUPS, num_rows, SIZE]
    weight_ptr,  # [GROUPS, SIZE]
    grad_ptr,  # [GROUPS, num_rows, SIZE]
    grad_new_residual_ptr,  # [GROUPS, num_rows, SIZE]
    num_rows,
    grad_x_ptr,  # [GROUPS, num_rows, SIZE]
    partials_ptr,  # fp32 [programs of a group, GROUPS, ROWS, SIZE]
    SIZE: tl.constexpr,
    GROUPS: tl.constexpr,
    KEPT_SIZES: tl.constexpr,
    WEIGHT_KEPT: tl.constexpr,
    X_KEPT: tl.constexpr,
    RESIDUAL_KEPT: tl.constexpr,
    GRAD_KEPT: tl.constexpr,
    GRAD_NEW_RESIDUAL_KEPT: tl.constexpr,
    GRAD_X_KEPT: tl.constexpr,
    INNER_SIZES: tl.constexpr,
    WEIGHT_STRIDES: tl.constexpr,
    X_STRIDES: tl.constexpr,
    RESIDUAL_STRIDES: tl.constexpr,
    GRAD_STRIDES: tl.constexpr,
    GRAD_NEW_RESIDUAL_STRIDES: tl.constexpr,
    GRAD_X_STRIDES: tl.constexpr,
    INV_SIZE: tl.constexpr,
    EPS: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    TILES: tl.constexpr,
    MASKED: tl.constexpr,
    MIXED_FMA: tl.constexpr,
):
    group = tl.program_id(0) % GROUPS
    first_row = (tl.program_id(0) // GROUPS).to(tl.int64) * (ROWS * _PARTIAL_ROWS)
    x_ptr = rows.moved(x_ptr, group, KEPT_SIZES, X_KEPT)
    residual_ptr = rows.moved(residual_ptr, group, KEPT_SIZES, RESIDUAL_KEPT)
    weight_ptr = rows.moved(weight_ptr, group, KEPT_SIZES, WEIGHT_KEPT)
    grad_ptr = rows.moved(grad_ptr, group, KEPT_SIZES, GRAD_KEPT)
    grad_new_residual_ptr = rows.moved(grad_new_residual_ptr, group, KEPT_SIZES, GRAD_NEW_RESIDUAL_KEPT)
    grad_x_ptr = rows.moved(grad_x_ptr, group, KEPT_SIZES, GRAD_X_KEPT)
    partials = ()
    for _ in tl.static_range(TILES):
        partials += (tl.zeros((ROWS, COLS), tl.float32),)
    for step in range(tl.minimum((num_rows - first_row + ROWS - 1) // ROWS, _PARTIAL_ROWS)):
        first = first_row + step * ROWS
        tiles, squares = (), ()
        for i in tl.static_range(TILES):
            window = (first, num_rows, i * COLS + tl.arange(0, COLS)[None, :])
            x = rows.load_sum(
                x_ptr, residual_ptr, window, SIZE, ROWS, MASKED, INNER_SIZES, X_STRIDES, RESIDUAL_STRIDES, ""
            )
            tiles += (x,)
            squares += (tile.square_groups(x, ROWS, COLS),)
        rstd = tile.reciprocal_rms(squares, INV_SIZE, EPS)
        normalized, scaled, products, sums = (), (), (), ()
        for i in tl.static_range(TILES):
            window = (first, num_rows, i * COLS + tl.arange(0, COLS)[None, :])
            grad = rows.load(grad_ptr, window, SIZE, ROWS, MASKED, INNER_SIZES, GRAD_STRIDES).to(tl.float32)
            weight = rows.load(weight_ptr, window, SIZE, ROWS, MASKED, INNER_SIZES, WEIGHT_STRIDES).to(tl.float32)
            n, h, product, total = tile.rmsnorm_backward(
                tiles[i], rstd, weight, grad, partials[i], first, num_rows, ROWS, COLS, MASKED
            )
            normalized += (n,)
            scaled += (h,)
            products += (product,)
            sums += (total,)
        partials = sums
        mean = (tile.sum_exactly(products, True) * INV_SIZE)[:, None]
        for i in tl.static_range(TILES):
            window = (first, num_rows, i * COLS + tl.arange(0, COLS)[None, :])
            grad_new_residual = rows.load(
                grad_new_residual_ptr, window, SIZE, ROWS, MASKED, INNER_SIZES, GRAD_NEW_RESIDUAL_STRIDES
            ).to(tl.float32)
            grad_x = tl.fma(rstd, tl.fma(-normalized[i], mean, scaled[i]), grad_new_residual)
            grad_x = tile.narrow(grad_x, grad_x_ptr.dtype.element_ty, MIXED_FMA)
            rows.store(grad_x_ptr, grad_x, window, SIZE, ROWS, MASKED, INNER_SIZES, GRAD_X_STRIDES)
    row = tl.program_id(0).to(tl.int64) * ROWS
    for i in tl.static_range(TILES):
        window = (row, row + ROWS, i * COLS + tl.arange(0, COLS)[None, :])
        rows.store(partials_ptr, partials[i], window, SIZE, ROWS, MASKED, (), (SIZE, 1))
