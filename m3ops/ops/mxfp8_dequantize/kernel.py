"""Triton kernel of MXFP8 dequantization, one tile of rows and blocks a program."""

from __future__ import annotations

import triton
import triton.language as tl

from m3ops import rows, scales
from m3ops.numerics import tile


@triton.jit
def _mxfp8_dequantize_kernel(
    values_ptr,  # uint8 [num_rows, SIZE]
    scales_ptr,  # uint8 [num_rows, SIZE / 32], or in tiles
    live_ptr,  # int32 [1], the number of rows that count, or None for all
    num_rows,
    out_ptr,  # [num_rows, SIZE]
    SIZE: tl.constexpr,
    INNER_SIZES: tl.constexpr,
    VALUES_STRIDES: tl.constexpr,
    SCALES_STRIDES: tl.constexpr,
    SCALE_TILES: tl.constexpr,
    OUT_STRIDES: tl.constexpr,
    FP8: tl.constexpr,
    CAST: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    MASKED: tl.constexpr,
    MIXED_FMA: tl.constexpr,
    LIVE: tl.constexpr = None,
):
    count, first, step, live = rows.tiles(num_rows, live_ptr, SIZE, ROWS, COLS, LIVE)
    for turn in range(count):
        t = first + turn * step
        window = rows.window(t, live, SIZE, ROWS, COLS)
        blocks = rows.window(t, live, SIZE // 32, ROWS, COLS // 32)
        values = rows.load(values_ptr, window, SIZE, ROWS, MASKED, INNER_SIZES, VALUES_STRIDES)
        exponents = scales.load(scales_ptr, blocks, SIZE // 32, ROWS, MASKED, INNER_SIZES, SCALES_STRIDES, SCALE_TILES)
        out = tile.dequantize_blocks(values, exponents, ROWS, COLS, FP8, CAST)
        out = tile.narrow_beside_fp8(out, out_ptr.dtype.element_ty, MIXED_FMA, BF16_OVERFLOWS=False)
        rows.store(out_ptr, out, window, SIZE, ROWS, MASKED, INNER_SIZES, OUT_STRIDES)
    if live_ptr is not None:
        rows.clear(out_ptr, live, num_rows, SIZE, LIVE)
