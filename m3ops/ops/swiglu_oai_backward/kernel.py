"""Triton kernel of the gradient of SwiGLU-OAI, one tile of rows and columns a program."""

from __future__ import annotations

import triton
import triton.language as tl

from m3ops import rows
from m3ops.numerics import tile


@triton.jit
def _swiglu_oai_backward_kernel(
    gate_up_ptr,  # [num_rows, 2 * SIZE]
    grad_ptr,  # [num_rows, SIZE]
    num_rows,
    grad_gate_up_ptr,  # [num_rows, 2 * SIZE]
    SIZE: tl.constexpr,
    INNER_SIZES: tl.constexpr,
    GATE_UP_STRIDES: tl.constexpr,
    GRAD_STRIDES: tl.constexpr,
    GRAD_GATE_UP_STRIDES: tl.constexpr,
    SLOPE: tl.constexpr,
    BOUND: tl.constexpr,
    BETA: tl.constexpr,
    LIMIT: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    ALPHA: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    MASKED: tl.constexpr,
    MIXED_FMA: tl.constexpr,
):
    window = rows.window(tl.program_id(0), num_rows, SIZE, ROWS, COLS)
    RUN: tl.constexpr = 128 // grad_gate_up_ptr.dtype.element_ty.primitive_bitwidth
    gate, up = rows.load_halves(
        gate_up_ptr, window, SIZE, ROWS, COLS, MASKED, INNER_SIZES, GATE_UP_STRIDES, INTERLEAVED, RUN
    )
    grad = rows.load(grad_ptr, window, SIZE, ROWS, MASKED, INNER_SIZES, GRAD_STRIDES).to(tl.float32)
    grad_gate, grad_up = tile.swiglu_oai_backward(gate, up, grad, SLOPE, BOUND, BETA, LIMIT, ALPHA)
    grad_gate = tile.narrow(grad_gate, grad_gate_up_ptr.dtype.element_ty, MIXED_FMA)
    grad_up = tile.narrow(grad_up, grad_gate_up_ptr.dtype.element_ty, MIXED_FMA)
    if INTERLEAVED:
        pairs = tl.reshape(tl.join(grad_gate, grad_up), (ROWS, 2 * COLS))
        wide = rows.window(tl.program_id(0), num_rows, 2 * SIZE, ROWS, 2 * COLS)
        rows.store(grad_gate_up_ptr, pairs, wide, 2 * SIZE, ROWS, MASKED, INNER_SIZES, GRAD_GATE_UP_STRIDES)
    else:
        rows.store(grad_gate_up_ptr, grad_gate, window, SIZE, ROWS, MASKED, INNER_SIZES, GRAD_GATE_UP_STRIDES)
        grad_up_ptr = grad_gate_up_ptr + SIZE * GRAD_GATE_UP_STRIDES[len(GRAD_GATE_UP_STRIDES) - 1]
        rows.store(grad_up_ptr, grad_up, window, SIZE, ROWS, MASKED, INNER_SIZES, GRAD_GATE_UP_STRIDES)
