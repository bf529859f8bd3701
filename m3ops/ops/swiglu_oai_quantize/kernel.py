"""Triton kernel of SwiGLU-OAI with MXFP8 quantization, one tile of rows and blocks a program."""

from __future__ import annotations

import triton
import triton.language as tl

from m3ops import rows, scales
from m3ops.numerics import tile


@triton.jit
def _swiglu_oai_quantize_kernel(
    gate_up_ptr,  # [num_rows, 2 * SIZE]
    live_ptr,  # int32 [1], the number of rows that count, or None for all
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
    LIVE: tl.constexpr = None,
):
    if SCALE_TILES is not None and live_ptr is None:  # noqa: SIM102
        if scales.pads(scales_ptr, num_rows, SIZE, ROWS, COLS, SCALE_TILES):
            return
    PADDED: tl.constexpr = scales.padded_size(SIZE, SCALE_TILES)
    RUN: tl.constexpr = 128 // values_ptr.dtype.element_ty.primitive_bitwidth  # what a thread stores at once
    count, first, step, live = rows.tiles(num_rows, live_ptr, PADDED, ROWS, COLS, LIVE)
    for turn in range(count):
        t = first + turn * step
        window = rows.window(t, live, PADDED, ROWS, COLS)
        gate, up = rows.load_halves(
            gate_up_ptr, window, SIZE, ROWS, COLS, MASKED, INNER_SIZES, GATE_UP_STRIDES, INTERLEAVED, RUN
        )
        act = tile.swiglu_oai(gate, up, SLOPE, BOUND, BETA, LIMIT)
        if ROUND_ACTIVATION:
            act = tile.round_to(act, gate_up_ptr.dtype.element_ty, MIXED_FMA)
        values, exponents = tile.quantize_blocks(act, ROWS, COLS, FP8, RULE, CAST)
        rows.store(values_ptr, values, window, SIZE, ROWS, MASKED, INNER_SIZES, VALUES_STRIDES)
        blocks = rows.window(t, live, PADDED // 32, ROWS, COLS // 32)
        scales.store(scales_ptr, exponents, blocks, SIZE // 32, ROWS, MASKED, INNER_SIZES, SCALES_STRIDES, SCALE_TILES)
    if live_ptr is not None:
        rows.clear(values_ptr, live, num_rows, SIZE, LIVE)
        scales.clear(scales_ptr, live, num_rows, SIZE // 32, SCALE_TILES, LIVE)
