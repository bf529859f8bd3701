"""Triton kernel of SwiGLU-OAI, one tile of rows and columns a program."""

from __future__ import annotations

import triton
import triton.language as tl

from m3ops import rows
from m3ops.numerics import tile


@triton.jit
def _swiglu_oai_kernel(
    gate_up_ptr,  # [num_rows, 2 * SIZE]
    live_ptr,  # int32 [1], the number of rows that count, or None for all
    num_rows,
    out_ptr,  # [num_rows, SIZE]
    SIZE: tl.constexpr,
    INNER_SIZES: tl.constexpr,
    GATE_UP_STRIDES: tl.constexpr,
    OUT_STRIDES: tl.constexpr,
    SLOPE: tl.constexpr,
    BOUND: tl.constexpr,
    BETA: tl.constexpr,
    LIMIT: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    MASKED: tl.constexpr,
    MIXED_FMA: tl.constexpr,
    LIVE: tl.constexpr = None,
):
    RUN: tl.constexpr = 128 // out_ptr.dtype.element_ty.primitive_bitwidth  # what a thread stores at once
    count, first, step, live = rows.tiles(num_rows, live_ptr, SIZE, ROWS, COLS, LIVE)
    for turn in range(count):
        t = first + turn * step
        window = rows.window(t, live, SIZE, ROWS, COLS)
        gate, up = rows.load_halves(
            gate_up_ptr, window, SIZE, ROWS, COLS, MASKED, INNER_SIZES, GATE_UP_STRIDES, INTERLEAVED, RUN
        )
        out = tile.swiglu_oai(gate, up, SLOPE, BOUND, BETA, LIMIT)
        out = tile.narrow(out, out_ptr.dtype.element_ty, MIXED_FMA)
        rows.store(out_ptr, out, window, SIZE, ROWS, MASKED, INNER_SIZES, OUT_STRIDES)
    if live_ptr is not None:
        rows.clear(out_ptr, live, num_rows, SIZE, LIVE)
