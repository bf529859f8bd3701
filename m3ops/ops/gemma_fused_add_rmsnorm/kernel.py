"""Triton kernel of residual add and Gemma's RMSNorm, whole rows a program."""

from __future__ import annotations

import triton
import triton.language as tl

from m3ops import rows
from m3ops.numerics import tile


@triton.jit
def _gemma_fused_add_rmsnorm_kernel(
    x_ptr,  # [num_rows, SIZE]
    residual_ptr,  # [num_rows, SIZE]
    weight_ptr,  # [num_rows or 1, SIZE]
    live_ptr,  # int32 [1], the number of rows that count, or None for all
    num_rows,
    out_ptr,  # [num_rows, SIZE]
    new_residual_ptr,  # [num_rows, SIZE]
    SIZE: tl.constexpr,
    INNER_SIZES: tl.constexpr,
    X_STRIDES: tl.constexpr,
    RESIDUAL_STRIDES: tl.constexpr,
    WEIGHT_STRIDES: tl.constexpr,
    OUT_STRIDES: tl.constexpr,
    NEW_RESIDUAL_STRIDES: tl.constexpr,
    INV_SIZE: tl.constexpr,
    EPS: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    TILES: tl.constexpr,
    MASKED: tl.constexpr,
    RELOAD: tl.constexpr,
    MIXED_FMA: tl.constexpr,
    LIVE: tl.constexpr = None,
):
    count, first, step, live = rows.tiles(num_rows, live_ptr, COLS, ROWS, COLS, LIVE)
    for turn in range(count):
        t = first + turn * step
        tiles, weights, groups = (), (), ()
        for i in tl.static_range(TILES):
            window = rows.whole_rows(t, live, ROWS, COLS, i)
            x = rows.load_sum(
                x_ptr, residual_ptr, window, SIZE, ROWS, MASKED, INNER_SIZES, X_STRIDES, RESIDUAL_STRIDES, "evict_last"
            )
            if not RELOAD:
                new_residual = tile.narrow(x, new_residual_ptr.dtype.element_ty, MIXED_FMA)
                rows.store(
                    new_residual_ptr, new_residual, window, SIZE, ROWS, MASKED, INNER_SIZES, NEW_RESIDUAL_STRIDES
                )
                tiles += (x,)
                weights += (rows.load(weight_ptr, window, SIZE, ROWS, MASKED, INNER_SIZES, WEIGHT_STRIDES),)
            groups += (tile.square_groups(x, ROWS, COLS),)
        rstd = tile.reciprocal_rms(groups, INV_SIZE, EPS)
        for i in tl.static_range(TILES):
            window = rows.whole_rows(t, live, ROWS, COLS, i)
            if RELOAD:
                x = rows.load_sum(
                    x_ptr,
                    residual_ptr,
                    window,
                    SIZE,
                    ROWS,
                    MASKED,
                    INNER_SIZES,
                    X_STRIDES,
                    RESIDUAL_STRIDES,
                    "evict_first",
                )
                new_residual = tile.narrow(x, new_residual_ptr.dtype.element_ty, MIXED_FMA)
                rows.store(
                    new_residual_ptr, new_residual, window, SIZE, ROWS, MASKED, INNER_SIZES, NEW_RESIDUAL_STRIDES
                )
                weight = rows.load(weight_ptr, window, SIZE, ROWS, MASKED, INNER_SIZES, WEIGHT_STRIDES)
            else:
                x, weight = tiles[i], weights[i]
            out = tile.narrow((x * rstd) * (weight.to(tl.float32) + 1.0), out_ptr.dtype.element_ty, MIXED_FMA)
            rows.store(out_ptr, out, window, SIZE, ROWS, MASKED, INNER_SIZES, OUT_STRIDES)
    if live_ptr is not None:
        rows.clear(out_ptr, live, num_rows, SIZE, LIVE)
        rows.clear(new_residual_ptr, live, num_rows, SIZE, LIVE)
