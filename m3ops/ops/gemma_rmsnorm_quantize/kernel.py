"""Triton kernel of Gemma's RMSNorm and MXFP8 quantization, whole rows a program."""

from __future__ import annotations

import triton
import triton.language as tl

from m3ops import rows, scales
from m3ops.numerics import tile


@triton.jit
def _gemma_rmsnorm_quantize_kernel(
    x_ptr,  # [num_rows, SIZE]
    weight_ptr,  # [num_rows or 1, SIZE]
    live_ptr,  # int32 [1], the number of rows that count, or None for all
    num_rows,
    values_ptr,  # uint8 [num_rows, SIZE]
    scales_ptr,  # uint8 [num_rows, SIZE / 32], or in tiles
    norm_ptr,  # [num_rows, SIZE], or None
    SIZE: tl.constexpr,
    INNER_SIZES: tl.constexpr,
    X_STRIDES: tl.constexpr,
    WEIGHT_STRIDES: tl.constexpr,
    VALUES_STRIDES: tl.constexpr,
    SCALES_STRIDES: tl.constexpr,
    SCALE_TILES: tl.constexpr,
    NORM_STRIDES: tl.constexpr,
    INV_SIZE: tl.constexpr,
    EPS: tl.constexpr,
    ROUND_ACTIVATION: tl.constexpr,
    FP8: tl.constexpr,
    RULE: tl.constexpr,
    CAST: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    TILES: tl.constexpr,
    MASKED: tl.constexpr,
    RELOAD: tl.constexpr,
    MIXED_FMA: tl.constexpr,
    LIVE: tl.constexpr = None,
):
    if SCALE_TILES is not None and live_ptr is None:  # noqa: SIM102
        if scales.pads(scales_ptr, num_rows, SIZE, ROWS, COLS * TILES, SCALE_TILES):
            return
    count, first, step, live = rows.tiles(num_rows, live_ptr, COLS, ROWS, COLS, LIVE)
    for turn in range(count):
        t = first + turn * step
        tiles, groups = (), ()
        for i in tl.static_range(TILES):
            window = rows.whole_rows(t, live, ROWS, COLS, i)
            x = rows.load(x_ptr, window, SIZE, ROWS, MASKED, INNER_SIZES, X_STRIDES, "evict_last").to(tl.float32)
            tiles += (x,)
            groups += (tile.square_groups(x, ROWS, COLS),)
        rstd = tile.reciprocal_rms(groups, INV_SIZE, EPS)
        for i in tl.static_range(TILES):
            window = rows.whole_rows(t, live, ROWS, COLS, i)
            x = tiles[i]
            if RELOAD:
                x = rows.load(x_ptr, window, SIZE, ROWS, MASKED, INNER_SIZES, X_STRIDES, "evict_first").to(tl.float32)
            weight = rows.load(weight_ptr, window, SIZE, ROWS, MASKED, INNER_SIZES, WEIGHT_STRIDES).to(tl.float32)
            norm = (x * rstd) * (weight + 1.0)
            if norm_ptr is not None:
                rounded = tile.narrow_beside_fp8(norm, norm_ptr.dtype.element_ty, MIXED_FMA)
                rows.store(norm_ptr, rounded, window, SIZE, ROWS, MASKED, INNER_SIZES, NORM_STRIDES)
            if ROUND_ACTIVATION:
                norm = tile.round_to(norm, x_ptr.dtype.element_ty, MIXED_FMA)
            values, exponents = tile.quantize_blocks(norm, ROWS, COLS, FP8, RULE, CAST)
            rows.store(values_ptr, values, window, SIZE, ROWS, MASKED, INNER_SIZES, VALUES_STRIDES)
            blocks = rows.whole_rows(t, live, ROWS, COLS // 32, i)
            scales.store(
                scales_ptr, exponents, blocks, SIZE // 32, ROWS, MASKED, INNER_SIZES, SCALES_STRIDES, SCALE_TILES
            )
    if live_ptr is not None:
        rows.clear(values_ptr, live, num_rows, SIZE, LIVE)
        if norm_ptr is not None:
            rows.clear(norm_ptr, live, num_rows, SIZE, LIVE)
        scales.clear(scales_ptr, live, num_rows, SIZE // 32, SCALE_TILES, LIVE)
