"""Triton kernel of MXFP8 quantization, one tile of rows and blocks a program."""

from __future__ import annotations

import triton
import triton.language as tl

from m3ops import rows
from m3ops.numerics import tile


@triton.jit
def _mxfp8_quantize_kernel(
    x_ptr,  # [num_rows, SIZE]
    num_rows,
    values_ptr,  # uint8 [num_rows, SIZE]
    scales_ptr,  # uint8 [num_rows, SIZE / 32]
    SIZE: tl.constexpr,
    INNER_SIZES: tl.constexpr,
    X_STRIDES: tl.constexpr,
    VALUES_STRIDES: tl.constexpr,
    SCALES_STRIDES: tl.constexpr,
    FP8: tl.constexpr,
    RULE: tl.constexpr,
    CAST: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    MASKED: tl.constexpr,
):
    window = rows.window(num_rows, SIZE, ROWS, COLS)
    x = rows.load(x_ptr, window, SIZE, ROWS, MASKED, INNER_SIZES, X_STRIDES).to(tl.float32)
    values, scales = tile.quantize_blocks(x, ROWS, COLS, FP8, RULE, CAST)
    rows.store(values_ptr, values, window, SIZE, ROWS, MASKED, INNER_SIZES, VALUES_STRIDES)
    blocks = rows.window(num_rows, SIZE // 32, ROWS, COLS // 32)
    rows.store(scales_ptr, scales, blocks, SIZE // 32, ROWS, MASKED, INNER_SIZES, SCALES_STRIDES)
