"""Triton kernel of the sum of experts' results, a tile at a time."""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl

from m3ops.numerics.tile import fp32
from m3ops.tiles import launches, row_count, rows
from m3ops.tiles.rows import Rows


@dataclass(frozen=True)
class CombineAt:
    """Where the rows of each operand lie, a constexpr; None for what a call does not have."""

    y: Rows
    slots: Rows
    weights: Rows
    result: Rows
    shared: Rows | None = None


@dataclass(frozen=True)
class Combine:
    """The sum's parameters, a constexpr.

    Attributes:
        scale: Its factor, as fp32.
        narrowing: How the result is rounded.
    """

    scale: float
    narrowing: fp32.Narrowing


@triton.jit
def _element(pointers, PLACE: tl.constexpr, mask, AT: tl.constexpr):
    """One element of each row, [rows, 1]. A load of that shape would be one for each column of a thread."""
    return tl.load(pointers + PLACE * AT.strides[len(AT.strides) - 1], mask=mask, other=0)[:, None]


@triton.jit
def _weighted_rows(y_ptr, slots_ptr, weights_ptr, y_rows, window, AT: tl.constexpr, TILE: tl.constexpr):
    """The sum of the rows of y that a window's slots name, fp32."""
    SLOTS: tl.constexpr = AT.slots.size
    STRIDES: tl.constexpr = AT.y.strides
    first_row, end, cols = window
    offset = cols if STRIDES[1] == 1 else cols.to(tl.int64) * STRIDES[1]
    total = tl.zeros((TILE.rows, TILE.cols), tl.float32)
    row = first_row + tl.arange(0, TILE.rows)
    of_slots = rows.advance(slots_ptr, row, AT.slots.inner_sizes, AT.slots.strides)
    of_weights = rows.advance(weights_ptr, row, AT.weights.inner_sizes, AT.weights.strides)
    for place in tl.static_range(SLOTS):
        slot = _element(of_slots, place, row < end, AT.slots)
        weight = _element(of_weights, place, row < end, AT.weights)
        exists = (slot >= 0) & (slot < y_rows)
        mask = exists & (cols < AT.y.size) if TILE.masked else exists
        y = tl.load(rows.advance(y_ptr, slot, AT.y.inner_sizes, STRIDES) + offset, mask=mask, other=0)
        total = tl.where(exists, tl.fma(weight, y.to(tl.float32), total), total)
    return total


@triton.jit
def _combine_tile(
    t,
    end,
    y_ptr,
    slots_ptr,
    weights_ptr,
    shared_ptr,
    y_rows,
    result_ptr,
    AT: tl.constexpr,
    TILE: tl.constexpr,
    COMBINE: tl.constexpr,
):
    window = rows.window(t, end, AT.y.size, TILE)
    total = _weighted_rows(y_ptr, slots_ptr, weights_ptr, y_rows, window, AT, TILE)
    scale = tl.full((), COMBINE.scale, tl.float32)  # Triton would take a bare subnormal number for fp64
    if shared_ptr is None:
        total *= scale
    else:
        shared = rows.load(shared_ptr, window, TILE, AT.shared).to(tl.float32)
        total = tl.fma(total, tl.broadcast_to(scale, total.shape), shared)
    result = fp32.narrow(total, result_ptr.dtype.element_ty, COMBINE.narrowing)
    rows.store(result_ptr, result, window, TILE, AT.result)


@triton.jit
def _moe_combine_kernel(
    y_ptr,  # [y_rows, N]
    slots_ptr,  # int32 [total_rows, k]
    weights_ptr,  # fp32 [total_rows, k]
    shared_ptr,  # [total_rows, N], or None
    num_rows_ptr,  # int32, how many rows of each buffer count, or None for all
    y_rows,
    total_rows,
    result_ptr,  # [total_rows, N]
    AT: tl.constexpr,
    TILE: tl.constexpr,
    COMBINE: tl.constexpr,
    COUNT: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    launches.begin(OVERLAPS)
    if num_rows_ptr is None:
        t = tl.program_id(0)
        _combine_tile(t, total_rows, y_ptr, slots_ptr, weights_ptr, shared_ptr, y_rows, result_ptr, AT, TILE, COMBINE)
    else:
        ends = row_count.ends(num_rows_ptr, total_rows, COUNT)
        tiles = row_count.tiles(ends, total_rows, AT.y.size, TILE, COUNT)
        for i in range(tl.program_id(0), tiles[0], COUNT.programs):
            t, end = row_count.tile(i, tiles, ends, COUNT)
            _combine_tile(t, end, y_ptr, slots_ptr, weights_ptr, shared_ptr, y_rows, result_ptr, AT, TILE, COMBINE)
        row_count.clear(result_ptr, ends, total_rows, AT.y.size, COUNT, "result")
