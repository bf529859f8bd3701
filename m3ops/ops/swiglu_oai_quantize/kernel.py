"""Triton kernel of SwiGLU-OAI with MXFP8 quantization, one tile of rows and blocks a program."""

from __future__ import annotations

import triton
import triton.language as tl

from m3ops import rows, scales
from m3ops.numerics import tile


@triton.jit
def _swiglu_oai_quantize_kernel(
    gate_up_ptr,  # [num_rows, 2 * SIZE]
    num_rows,
    values_ptr,  # uint8 [num_rows, SIZE]
    scales_ptr,  # uint8 [num_rows, SIZE / 32], or in tiles
    SIZE: tl.constexpr,
    INNER_SIZES: tl.constexpr,
    GATE_UP_STRIDES: tl.constexpr,
    VALUES_STRIDES: tl.constexpr,
    SCALES_STRIDES: tl.constexpr,
    SCALE_TILES: tl.constexpr,
    SLOPE: tl.constexpr,
    BOUND: tl.constexpr,
    BETA: tl.constexpr,
    LIMIT: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    ROUND_ACTIVATION: tl.constexpr,
    FP8: tl.constexpr,
    RULE: tl.constexpr,
    CAST: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    MASKED: tl.constexpr,
    MIXED_FMA: tl.constexpr,
):
    if SCALE_TILES is not None:  # noqa: SIM102
        if scales.pads(scales_ptr, num_rows, SIZE, ROWS, COLS, SCALE_TILES):
            return
    PADDED: tl.constexpr = scales.padded_size(SIZE, SCALE_TILES)
    window = rows.window(num_rows, PADDED, ROWS, COLS)
    RUN: tl.constexpr = 128 // values_ptr.dtype.element_ty.primitive_bitwidth  # what a thread stores at once
    gate, up = rows.load_halves(
        gate_up_ptr, window, SIZE, ROWS, COLS, MASKED, INNER_SIZES, GATE_UP_STRIDES, INTERLEAVED, RUN
    )
    act = tile.swiglu_oai(gate, up, SLOPE, BOUND, BETA, LIMIT)
    if ROUND_ACTIVATION:
        act = tile.round_to(act, gate_up_ptr.dtype.element_ty, MIXED_FMA)
    values, exponents = tile.quantize_blocks(act, ROWS, COLS, FP8, RULE, CAST)
    rows.store(values_ptr, values, window, SIZE, ROWS, MASKED, INNER_SIZES, VALUES_STRIDES)
    blocks = rows.window(num_rows, PADDED // 32, ROWS, COLS // 32)
    scales.store(scales_ptr, exponents, blocks, SIZE // 32, ROWS, MASKED, INNER_SIZES, SCALES_STRIDES, SCALE_TILES)
