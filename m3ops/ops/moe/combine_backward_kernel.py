"""Triton kernel of the gradient of the sum of experts' results, by the slot that names each row of y."""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl

from m3ops.numerics import constants as c
from m3ops.numerics.tile import fp32, functions
from m3ops.ops.moe.owners_kernel import NONE, SEVERAL, numbered_slots
from m3ops.tiles import launches, rows
from m3ops.tiles.rows import Rows

_LANES = tl.constexpr(c.LANES)
_NONE, _SEVERAL = tl.constexpr(NONE), tl.constexpr(SEVERAL)
_LAST = tl.constexpr(2**31 - 1)  # no slot's number


@dataclass(frozen=True)
class CombineBackwardAt:
    """Where the rows of each operand lie, a constexpr."""

    y: Rows
    slots: Rows
    weights: Rows
    grad: Rows
    grad_y: Rows
    grad_weights: Rows


@dataclass(frozen=True)
class CombineBackward:
    """The gradient's parameters and how programs work, a constexpr.

    Attributes:
        scale: The factor of the sum, as fp32.
        narrowing: How the gradient of y is rounded.
        places: Slots of a token, rounded up to a power of two.
        rows: Rows of y that a program looks at for those which no slot names alone.
        elements: Slots that it looks at together for these, and columns that it writes together.
    """

    scale: float
    narrowing: fp32.Narrowing
    places: int
    rows: int
    elements: int


@triton.jit
def _at(pointers, col, AT: tl.constexpr):
    """The pointers to columns of rows."""
    STRIDE: tl.constexpr = AT.strides[len(AT.strides) - 1]
    return pointers + (col if STRIDE == 1 else col.to(tl.int64) * STRIDE)


@triton.jit
def _token(
    token,
    y_ptr,
    slots_ptr,
    weights_ptr,
    grad_ptr,
    owners_ptr,
    y_rows,
    grad_y_ptr,
    grad_weights_ptr,
    AT: tl.constexpr,
    BACKWARD: tl.constexpr,
):
    """All that follows from the gradient of one token: it is read once, and so is each row of y that it alone names."""
    SIZE: tl.constexpr = AT.y.size
    SLOTS: tl.constexpr = AT.slots.size
    place = tl.arange(0, BACKWARD.places)
    of_slots = rows.advance(slots_ptr, token, AT.slots.inner_sizes, AT.slots.strides)
    of_weights = rows.advance(weights_ptr, token, AT.weights.inner_sizes, AT.weights.strides)
    slot = tl.load(_at(of_slots, place, AT.slots), mask=place < SLOTS, other=-1)
    weight = tl.load(_at(of_weights, place, AT.weights), mask=place < SLOTS, other=0)
    exists = (slot >= 0) & (slot < y_rows)
    owned = exists & (tl.load(owners_ptr + slot, mask=exists, other=_NONE) == token * SLOTS + place)
    row = tl.where(exists, slot, 0)
    of_y = rows.advance(y_ptr, row, AT.y.inner_sizes, AT.y.strides)[:, None]
    of_grad_y = rows.advance(grad_y_ptr, row, AT.grad_y.inner_sizes, AT.grad_y.strides)[:, None]
    of_grad = rows.advance(grad_ptr, token, AT.grad.inner_sizes, AT.grad.strides)
    scale = tl.full((), BACKWARD.scale, tl.float32)  # Triton would take a bare subnormal number for fp64
    factor = (weight * scale)[:, None]
    total = tl.zeros((BACKWARD.places, _LANES), tl.float32)
    for first in range(0, SIZE, _LANES):
        col = first + tl.arange(0, _LANES)[None, :]
        inside = col < SIZE
        grad = tl.load(_at(of_grad, col, AT.grad), mask=inside, other=0)
        y = tl.load(_at(of_y, col, AT.y), mask=exists[:, None] & inside, other=0).to(tl.float32)
        of_all = tl.broadcast_to(grad.to(tl.float32), total.shape)
        total = tl.fma(of_all, y, total)
        more = tl.fma(tl.broadcast_to(factor, total.shape), of_all, tl.zeros_like(total))
        more = fp32.narrow(more, grad_y_ptr.dtype.element_ty, BACKWARD.narrowing)
        tl.store(_at(of_grad_y, col, AT.grad_y), more, mask=owned[:, None] & inside)
    total = tl.reshape(functions.sum_lanes(tl.reshape(total, (1, BACKWARD.places, _LANES))), (BACKWARD.places,))
    of_grad_weights = rows.advance(grad_weights_ptr, token, AT.grad_weights.inner_sizes, AT.grad_weights.strides)
    total = tl.where(exists, total * scale, 0)
    tl.store(_at(of_grad_weights, place, AT.grad_weights), total, mask=place < SLOTS)


@triton.jit
def _sum_of_slots(
    row,
    col,
    slots_ptr,
    weights_ptr,
    grad_ptr,
    total_rows,
    AT: tl.constexpr,
    BACKWARD: tl.constexpr,
):
    """The gradient of some columns of a row of y that several slots name, fp32: the sum over them, in their order."""
    SLOTS: tl.constexpr = AT.slots.size
    scale = tl.full((), BACKWARD.scale, tl.float32)
    total = tl.zeros(col.shape, tl.float32)
    for first in range(0, total_rows * SLOTS, BACKWARD.elements):
        number, named = numbered_slots(slots_ptr, first, total_rows, BACKWARD.elements, AT.slots)
        left = named == row
        for _ in range(tl.sum(left.to(tl.int32))):
            slot = tl.min(tl.where(left, number, _LAST))
            left = left & (number != slot)
            of_weights = rows.advance(weights_ptr, slot // SLOTS, AT.weights.inner_sizes, AT.weights.strides)
            of_grad = rows.advance(grad_ptr, slot // SLOTS, AT.grad.inner_sizes, AT.grad.strides)
            factor = tl.load(_at(of_weights, slot % SLOTS, AT.weights)) * scale
            grad = tl.load(_at(of_grad, col, AT.grad), mask=col < AT.grad.size, other=0).to(tl.float32)
            total = tl.fma(tl.broadcast_to(factor, total.shape), grad, total)
    return total


@triton.jit
def _other_rows(
    first_row,
    slots_ptr,
    weights_ptr,
    grad_ptr,
    owners_ptr,
    y_rows,
    total_rows,
    grad_y_ptr,
    AT: tl.constexpr,
    BACKWARD: tl.constexpr,
):
    """The gradients of those of some rows of y that no slot names alone."""
    end_row = tl.minimum(first_row + BACKWARD.rows, y_rows)
    every = first_row + tl.arange(0, BACKWARD.rows)
    if tl.min(tl.load(owners_ptr + every, mask=every < end_row, other=0)) < 0:
        for number in range(first_row, end_row):
            row = tl.cast(number, tl.int64)
            owner = tl.load(owners_ptr + row)
            if owner < 0:
                of_grad_y = rows.advance(grad_y_ptr, row, AT.grad_y.inner_sizes, AT.grad_y.strides)
                tokens = tl.where(owner == _SEVERAL, total_rows, 0)
                for first in range(0, AT.y.size, BACKWARD.elements):
                    col = first + tl.arange(0, BACKWARD.elements)
                    total = _sum_of_slots(row, col, slots_ptr, weights_ptr, grad_ptr, tokens, AT, BACKWARD)
                    total = fp32.narrow(total, grad_y_ptr.dtype.element_ty, BACKWARD.narrowing)
                    tl.store(_at(of_grad_y, col, AT.grad_y), total, mask=col < AT.y.size)


@triton.jit
def _moe_combine_backward_kernel(
    y_ptr,  # [y_rows, N]
    slots_ptr,  # int32 [total_rows, k]
    weights_ptr,  # fp32 [total_rows, k]
    grad_ptr,  # [total_rows, N]
    owners_ptr,  # int32 [y_rows]
    y_rows,
    total_rows,
    grad_y_ptr,  # [y_rows, N]
    grad_weights_ptr,  # fp32 [total_rows, k]
    AT: tl.constexpr,
    BACKWARD: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    launches.begin(OVERLAPS)
    program = tl.program_id(0)
    if program < total_rows:
        _token(
            program,
            y_ptr,
            slots_ptr,
            weights_ptr,
            grad_ptr,
            owners_ptr,
            y_rows,
            grad_y_ptr,
            grad_weights_ptr,
            AT,
            BACKWARD,
        )
    else:
        first_row = (program - total_rows) * BACKWARD.rows
        _other_rows(
            first_row, slots_ptr, weights_ptr, grad_ptr, owners_ptr, y_rows, total_rows, grad_y_ptr, AT, BACKWARD
        )
