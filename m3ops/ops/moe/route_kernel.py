"""Triton kernels of the choice of experts and of its gradient, a few whole rows at a time."""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl

from m3ops.numerics.tile import fp32, functions
from m3ops.tiles import launches, row_count, rows
from m3ops.tiles.rows import Rows

_TAKEN = tl.constexpr(-(2**31))


@dataclass(frozen=True)
class RouteAt:
    """Where the rows of each operand lie, a constexpr; None for what a call does not have."""

    logits: Rows
    bias: Rows
    ids: Rows | None = None
    weights: Rows | None = None
    grad_weights: Rows | None = None
    grad_logits: Rows | None = None


@dataclass(frozen=True)
class Route:
    """How experts are chosen, a constexpr.

    Attributes:
        top_k: How many.
        cols: A power of two of at least as many columns as a token has experts.
        slope: Of the sigmoid, see ``constants.sigmoid_constants``.
        bound: Likewise.
        narrowing: How a gradient is rounded.
    """

    top_k: int
    cols: int
    slope: float
    bound: float
    narrowing: fp32.Narrowing = fp32.Narrowing()  # noqa: RUF009 (frozen too)


@triton.jit
def _choose(scores, bias, SIZE: tl.constexpr, ROUTE: tl.constexpr):
    """The indices and the scores of the chosen experts, both ``[rows, ROUTE.cols]``, and the sums of the scores."""
    col, place = tl.arange(0, scores.shape[1])[None, :], tl.arange(0, ROUTE.cols)[None, :]
    keys, bits = functions.choice_keys(scores, bias), fp32.bits32(scores)
    if scores.shape[1] != SIZE:
        keys = tl.where(col < SIZE, keys, _TAKEN)
    ids = tl.zeros((scores.shape[0], ROUTE.cols), tl.int32)
    chosen, total = tl.zeros(ids.shape, tl.float32), tl.zeros((scores.shape[0], 1), tl.float32)
    for i in range(ROUTE.top_k):
        largest = tl.max(keys, axis=1, keep_dims=True)
        index = tl.min(tl.where(keys == largest, col, SIZE), axis=1, keep_dims=True)
        score = fp32.from_bits32(tl.max(tl.where(col == index, bits, _TAKEN), axis=1, keep_dims=True))
        keys = tl.where(col == index, _TAKEN, keys)
        ids = tl.where(place == i, index, ids)
        chosen = tl.where(place == i, score, chosen)
        total += score
    return ids, chosen, total


@triton.jit
def _route_tile(
    t,
    end,
    logits_ptr,
    bias_ptr,
    ids_ptr,
    weights_ptr,
    AT: tl.constexpr,
    TILE: tl.constexpr,
    ROUTE: tl.constexpr,
):
    window = rows.window(t, end, AT.logits.size, TILE)
    logits = rows.load(logits_ptr, window, TILE, AT.logits).to(tl.float32)
    bias = rows.load(bias_ptr, window, TILE, AT.bias).to(tl.float32)
    _, _, _, scores = functions.sigmoid(logits, ROUTE.slope, ROUTE.bound, True)
    scores = tl.where(logits == logits, scores, logits)  # of a NaN the sigmoid is not defined
    ids, chosen, total = _choose(scores, bias, AT.logits.size, ROUTE)
    first_row, _, _ = window
    place = tl.arange(0, ROUTE.cols)[None, :]
    places = first_row, end, place
    if AT.ids.size != ROUTE.top_k:  # experts that every token has follow
        ids = tl.where(place < ROUTE.top_k, ids, AT.logits.size - ROUTE.top_k + place)
    rows.store(ids_ptr, ids, places, TILE, AT.ids)
    rows.store(weights_ptr, tl.div_rn(chosen, total), places, TILE, AT.weights)


@triton.jit
def _moe_route_kernel(
    logits_ptr,  # [total_rows, E]
    bias_ptr,  # [total_rows or 1, E]
    num_rows_ptr,  # int32, how many rows of each buffer count, or None for all
    total_rows,
    ids_ptr,  # int32 [total_rows, top_k + shared_experts]
    weights_ptr,  # fp32 [total_rows, top_k]
    AT: tl.constexpr,
    TILE: tl.constexpr,
    ROUTE: tl.constexpr,
    COUNT: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    launches.begin(OVERLAPS)
    if num_rows_ptr is None:
        _route_tile(tl.program_id(0), total_rows, logits_ptr, bias_ptr, ids_ptr, weights_ptr, AT, TILE, ROUTE)
    else:
        ends = row_count.ends(num_rows_ptr, total_rows, COUNT)
        tiles = row_count.tiles(ends, total_rows, AT.logits.size, TILE, COUNT)
        for i in range(tl.program_id(0), tiles[0], COUNT.programs):
            t, end = row_count.tile(i, tiles, ends, COUNT)
            _route_tile(t, end, logits_ptr, bias_ptr, ids_ptr, weights_ptr, AT, TILE, ROUTE)
        row_count.clear(ids_ptr, ends, total_rows, AT.ids.size, COUNT, "ids")
        row_count.clear(weights_ptr, ends, total_rows, ROUTE.top_k, COUNT, "weights")


@triton.jit
def _at(x, place, PLACE):
    """One column of a tile of fp32 or int32 numbers, [rows, 1]."""
    bits = x.to(tl.int32, bitcast=True)
    return tl.sum(tl.where(place == PLACE, bits, 0), axis=1, keep_dims=True).to(x.dtype, bitcast=True)


@triton.jit
def _moe_route_backward_kernel(
    logits_ptr,  # [total_rows, E]
    bias_ptr,  # [total_rows or 1, E]
    grad_weights_ptr,  # fp32 [total_rows, top_k]
    total_rows,
    grad_logits_ptr,  # [total_rows, E]
    AT: tl.constexpr,
    TILE: tl.constexpr,
    ROUTE: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    launches.begin(OVERLAPS)
    window = rows.window(tl.program_id(0), total_rows, AT.logits.size, TILE)
    first_row, end, col = window
    place = tl.arange(0, ROUTE.cols)[None, :]
    logits = rows.load(logits_ptr, window, TILE, AT.logits).to(tl.float32)
    bias = rows.load(bias_ptr, window, TILE, AT.bias).to(tl.float32)
    grad = rows.load(grad_weights_ptr, (first_row, end, place), TILE, AT.grad_weights)
    _, _, exp2, scores = functions.sigmoid(logits, ROUTE.slope, ROUTE.bound, True)
    rest = exp2 * scores
    scores = tl.where(logits == logits, scores, logits)
    ids, chosen, total = _choose(scores, bias, AT.logits.size, ROUTE)
    weights = tl.div_rn(chosen, total)
    mean = tl.zeros((TILE.rows, 1), tl.float32)
    for i in range(ROUTE.top_k):
        mean = tl.fma(_at(grad, place, i), _at(weights, place, i), mean)
    outer = weights * (grad - mean)
    gradient = tl.zeros((TILE.rows, TILE.cols), tl.float32)
    for i in range(ROUTE.top_k):
        gradient = tl.where(col == _at(ids, place, i), _at(outer, place, i) * rest, gradient)
    gradient = fp32.narrow(gradient, grad_logits_ptr.dtype.element_ty, ROUTE.narrowing)
    rows.store(grad_logits_ptr, gradient, window, TILE, AT.grad_logits)
