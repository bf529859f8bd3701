"""Triton kernels of SwiGLU-OAI, with or without MXFP8 quantization, and of its gradient; a tile at a time."""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl

from m3ops.numerics.tile import fp32, functions
from m3ops.tiles import launches, mx, row_count, rows, scales
from m3ops.tiles.rows import Rows


@dataclass(frozen=True)
class SwigluAt:
    """Where the rows of each operand lie, a constexpr; None for what a call does not have."""

    gate_up: Rows
    up: Rows | None = None
    activation: Rows | None = None
    values: Rows | None = None
    scales: Rows | None = None
    grad: Rows | None = None
    grad_gate_up: Rows | None = None
    grad_up: Rows | None = None

    @property
    def size(self) -> int:
        """Elements of a row of the activation."""
        return self.gate_up.size // 2 if self.up is None else self.up.size


@dataclass(frozen=True)
class Swiglu:
    """The activation's parameters, a constexpr: arguments of ``functions.swiglu_oai``."""

    slope: float
    bound: float
    beta: float
    limit: float | None
    alpha: float
    interleaved: bool
    narrowing: fp32.Narrowing


@triton.jit
def _load_pair(
    ptr,
    up_ptr,
    window,
    TILE: tl.constexpr,
    AT: tl.constexpr,
    UP: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    RUN: tl.constexpr,
):
    """The fp32 gates and ups of a window of the activation, from two arrays or from one.

    Alternating ones are read as runs of RUN columns, the even runs in one load and the odd ones in another, and taken
    apart in registers. With RUN the elements that a thread stores at once, each element is read by the thread that
    stores what becomes of it, 16 bytes at a time.
    """
    COL_STRIDE: tl.constexpr = AT.strides[len(AT.strides) - 1]
    if up_ptr is not None:
        gate = rows.load(ptr, window, TILE, AT)
        up = rows.load(up_ptr, window, TILE, UP)
    elif INTERLEAVED:
        first_row, end, cols = window
        runs = first_row, end, cols + cols // RUN * RUN
        x = rows.load(ptr, runs, TILE, AT)
        y = rows.load(ptr + RUN * COL_STRIDE, runs, TILE, rows.resized(AT, AT.size - RUN))
        x_first, x_second = tl.split(tl.reshape(x, (TILE.rows, TILE.cols // RUN, RUN // 2, 2)))
        y_first, y_second = tl.split(tl.reshape(y, (TILE.rows, TILE.cols // RUN, RUN // 2, 2)))
        gate = tl.reshape(tl.permute(tl.join(x_first, y_first), (0, 1, 3, 2)), (TILE.rows, TILE.cols))
        up = tl.reshape(tl.permute(tl.join(x_second, y_second), (0, 1, 3, 2)), (TILE.rows, TILE.cols))
    else:
        HALF: tl.constexpr = rows.resized(AT, AT.size // 2)
        gate = rows.load(ptr, window, TILE, HALF)
        up = rows.load(ptr + (AT.size // 2) * COL_STRIDE, window, TILE, HALF)
    return gate.to(tl.float32), up.to(tl.float32)


@triton.jit
def _swiglu_tile(
    t,
    end,
    gate_up_ptr,
    up_ptr,
    total_rows,
    activation_ptr,
    values_ptr,
    scales_ptr,
    AT: tl.constexpr,
    TILE: tl.constexpr,
    SWIGLU: tl.constexpr,
    MX: tl.constexpr,
    scale_rows_ptr=None,
):
    if MX is None:
        window = rows.window(t, end, AT.size, TILE)
        RUN: tl.constexpr = 128 // activation_ptr.dtype.element_ty.primitive_bitwidth  # what a thread stores at once
        gate, up = _load_pair(gate_up_ptr, up_ptr, window, TILE, AT.gate_up, AT.up, SWIGLU.interleaved, RUN)
        activation = functions.swiglu_oai(gate, up, SWIGLU.slope, SWIGLU.bound, SWIGLU.beta, SWIGLU.limit)
        activation = fp32.narrow(activation, activation_ptr.dtype.element_ty, SWIGLU.narrowing)
        rows.store(activation_ptr, activation, window, TILE, AT.activation)
    else:
        PADDED: tl.constexpr = scales.padded_size(AT.size, MX.scale_tiles)
        window = rows.window(t, end, PADDED, TILE)
        gate, up = _load_pair(gate_up_ptr, up_ptr, window, TILE, AT.gate_up, AT.up, SWIGLU.interleaved, 16)
        activation = functions.swiglu_oai(gate, up, SWIGLU.slope, SWIGLU.bound, SWIGLU.beta, SWIGLU.limit)
        if MX.round_activation:
            activation = fp32.round_to(activation, gate_up_ptr.dtype.element_ty, SWIGLU.narrowing)
        mx.store(
            values_ptr,
            scales_ptr,
            activation,
            t,
            window,
            total_rows,
            TILE,
            AT.values,
            AT.scales,
            MX,
            scale_rows_ptr=scale_rows_ptr,
        )


@triton.jit
def _swiglu_oai_kernel(
    gate_up_ptr,  # [total_rows, 2 * I], or the gates alone, [total_rows, I]
    up_ptr,  # [total_rows, I], or None where gate_up has both
    num_rows_ptr,  # int32, how many rows of each buffer count, or None for all
    scale_rows_ptr,  # int32 [total_rows], rows of the tiled scales, or None where rows are not in groups
    total_rows,
    activation_ptr,  # [total_rows, I], or None where MXFP8 is wanted
    values_ptr,  # uint8 [total_rows, I], or None
    scales_ptr,  # uint8 [total_rows, I / 32], or in tiles, or None
    AT: tl.constexpr,
    TILE: tl.constexpr,
    SWIGLU: tl.constexpr,
    MX: tl.constexpr,
    COUNT: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    launches.begin(OVERLAPS)
    TILES: tl.constexpr = None if MX is None else MX.scale_tiles
    operands = gate_up_ptr, up_ptr, total_rows, activation_ptr, values_ptr, scales_ptr
    if num_rows_ptr is None:
        if scales.pads(scales_ptr, total_rows, AT.size, TILE, TILES):
            return
        _swiglu_tile(tl.program_id(0), total_rows, *operands, AT, TILE, SWIGLU, MX)
    else:
        ends = row_count.ends(num_rows_ptr, total_rows, COUNT)
        PADDED: tl.constexpr = scales.padded_size(AT.size, TILES)
        tiles = row_count.tiles(ends, total_rows, PADDED, TILE, COUNT)
        for i in range(tl.program_id(0), tiles[0], COUNT.programs):
            t, end = row_count.tile(i, tiles, ends, COUNT)
            _swiglu_tile(t, end, *operands, AT, TILE, SWIGLU, MX, scale_rows_ptr)
        if MX is None:
            row_count.clear(activation_ptr, ends, total_rows, AT.size, COUNT, "activation")
        else:
            counts_ptr = None if scale_rows_ptr is None else num_rows_ptr
            mx.clear(values_ptr, scales_ptr, ends, total_rows, AT.values, AT.scales, MX, COUNT, counts_ptr)


@triton.jit
def _swiglu_oai_backward_kernel(
    gate_up_ptr,  # [total_rows, 2 * I], or the gates alone, [total_rows, I]
    up_ptr,  # [total_rows, I], or None where gate_up has both
    grad_ptr,  # [total_rows, I]
    total_rows,
    grad_gate_up_ptr,  # like gate_up
    grad_up_ptr,  # like up
    AT: tl.constexpr,
    TILE: tl.constexpr,
    SWIGLU: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    launches.begin(OVERLAPS)
    t = tl.program_id(0)
    window = rows.window(t, total_rows, AT.size, TILE)
    RUN: tl.constexpr = 128 // grad_gate_up_ptr.dtype.element_ty.primitive_bitwidth
    gate, up = _load_pair(gate_up_ptr, up_ptr, window, TILE, AT.gate_up, AT.up, SWIGLU.interleaved, RUN)
    grad = rows.load(grad_ptr, window, TILE, AT.grad).to(tl.float32)
    grad_gate, grad_up = functions.swiglu_oai_backward(
        gate, up, grad, SWIGLU.slope, SWIGLU.bound, SWIGLU.beta, SWIGLU.limit, SWIGLU.alpha
    )
    grad_gate = fp32.narrow(grad_gate, grad_gate_up_ptr.dtype.element_ty, SWIGLU.narrowing)
    grad_up = fp32.narrow(grad_up, grad_gate_up_ptr.dtype.element_ty, SWIGLU.narrowing)
    if grad_up_ptr is not None:
        rows.store(grad_gate_up_ptr, grad_gate, window, TILE, AT.grad_gate_up)
        rows.store(grad_up_ptr, grad_up, window, TILE, AT.grad_up)
    elif SWIGLU.interleaved:
        pairs = tl.reshape(tl.join(grad_gate, grad_up), (TILE.rows, 2 * TILE.cols))
        first_row, end, _ = window
        COL_TILES: tl.constexpr = (AT.size + TILE.cols - 1) // TILE.cols
        wide = first_row, end, (t % COL_TILES) * (2 * TILE.cols) + tl.arange(0, 2 * TILE.cols)[None, :]
        rows.store(grad_gate_up_ptr, pairs, wide, TILE, AT.grad_gate_up)
    else:
        HALF: tl.constexpr = rows.resized(AT.grad_gate_up, AT.size)
        rows.store(grad_gate_up_ptr, grad_gate, window, TILE, HALF)
        second_ptr = grad_gate_up_ptr + AT.size * AT.grad_gate_up.strides[len(AT.grad_gate_up.strides) - 1]
        rows.store(second_ptr, grad_up, window, TILE, HALF)
