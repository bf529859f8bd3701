"""Triton kernel of the gradient of the router's weight, a few experts and columns at a time over all tokens."""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl

from m3ops.numerics import constants as c
from m3ops.numerics.tile import fp32, functions
from m3ops.tiles import launches, rows
from m3ops.tiles.rows import Rows

_LANES = tl.constexpr(c.LANES)


@dataclass(frozen=True)
class WeightAt:
    """Where the rows of each operand lie, a constexpr; those of grad_w are experts."""

    x: Rows
    grad: Rows
    grad_w: Rows


@triton.jit
def _load(ptr, row, column, inside, AT: tl.constexpr):
    """One element of each of the next rows, fp32; zeros where there are none."""
    STRIDE: tl.constexpr = AT.strides[len(AT.strides) - 1]
    offset = column if STRIDE == 1 else column.to(tl.int64) * STRIDE
    pointers = rows.advance(ptr, row, AT.inner_sizes, AT.strides) + offset
    return tl.load(pointers, mask=inside & (column < AT.size), other=0).to(tl.float32)


@triton.jit
def _moe_logits_weight_kernel(
    x_ptr,  # [total_rows, H]
    grad_ptr,  # fp32 [total_rows, E]
    total_rows,
    grad_w_ptr,  # [E, H]
    AT: tl.constexpr,
    TILE: tl.constexpr,
    NARROWING: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    launches.begin(OVERLAPS)
    window = rows.window(tl.program_id(0), AT.grad.size, AT.x.size, TILE)
    first_expert, _, cols = window
    expert, column = first_expert + tl.arange(0, TILE.rows)[:, None, None], cols[:, :, None]
    total = tl.zeros((TILE.rows, TILE.cols, _LANES), tl.float32)
    for first in range(0, tl.cast(total_rows, tl.int64), _LANES):
        row = first + tl.arange(0, _LANES)[None, None, :]
        grad = _load(grad_ptr, row, expert, row < total_rows, AT.grad)
        x = _load(x_ptr, row, column, row < total_rows, AT.x)
        total = tl.fma(tl.broadcast_to(grad, total.shape), tl.broadcast_to(x, total.shape), total)
    total = fp32.narrow(functions.sum_lanes(total), grad_w_ptr.dtype.element_ty, NARROWING)
    rows.store(grad_w_ptr, total, window, TILE, AT.grad_w)
