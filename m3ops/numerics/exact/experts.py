"""The choice of experts, and the sum of what they return, as the specification computes them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from m3ops.numerics import constants as c
from m3ops.numerics.exact.fp32 import fma, load, round32
from m3ops.numerics.exact.functions import sigmoid
from m3ops.numerics.exact.namespaces import Array, barrier, each, fold, repeat


def linear(x: Array, w: Array) -> Array:
    """``x @ w.T`` of ``[..., K]`` and ``[N, K]`` in fp32."""
    return dot(x[..., None, :], w)


def linear_backward(x: Array, w: Array, grad: Array) -> tuple[Array, Array]:
    """The gradients of x ``[..., K]`` and w ``[N, K]`` from that of :func:`linear`: sums over N, and over all rows."""
    count = math.prod(x.shape[:-1])
    rows, grads = (array.reshape(count, array.shape[-1]) for array in (x, grad))
    return _products(grads, w.T).reshape(x.shape), _products(grads.T, rows.T)


def _products(x: Array, w: Array) -> Array:
    """:func:`linear` of two matrices, a row of x at a time; both may have many."""
    xp = x.__array_namespace__()
    one_more = xp.concatenate((xp.zeros((1, x.shape[1]), x.dtype), x))
    return each(lambda row: dot(row, w), one_more)[1:]


def dot(x: Array, y: Array) -> Array:
    """Sums of ``x * y`` along the last axis in fp32: ``LANES`` chains of fma from +0, then added by halves.

    A chain takes every ``LANES``-th product. What is missing to a whole number of steps is zeros.
    """
    xp, size = x.__array_namespace__(), x.shape[-1]
    lanes = min(max(size, 1), c.LANES) if isinstance(size, int) else c.LANES  # the others stay +0
    least = -(-size // lanes)
    steps = max(least, 1) if isinstance(size, int) else least + 2  # a program for any size has two at least
    x, y = (_longer(a, steps * lanes - size) for a in (x, y))
    if not isinstance(size, int):  # -0 * 0 leaves a sum as it is, the sign of a zero too
        x = xp.where(xp.arange(steps * lanes) < xp.asarray(least * lanes), x, -0.0)
    x, y = (xp.moveaxis(a.reshape(*a.shape[:-1], steps, lanes), -2, 0) for a in (x, y))

    def step(total: Array, x: Array, y: Array) -> Array:
        return fma(x, y, total)

    zero = barrier(xp.zeros((), xp.float64))  # XLA would drop a known 0
    total = _longer(fold(step, step(zero, x[0], y[0]), x[1:], y[1:]), c.LANES - lanes)
    while (half := total.shape[-1] // 2) > 0:
        total = round32(total[..., :half] + total[..., half:])
    return total[..., 0]


def _longer(array: Array, count: int) -> Array:
    """With so many zeros at the end of the last axis; of a symbolic number there are some."""
    if isinstance(count, int) and count == 0:
        return array
    return array.__array_namespace__().pad(array, [(0, 0)] * (array.ndim - 1) + [(0, count)])


def route(logits: Array, bias: Array, top_k: int) -> tuple[Array, Array, Array, Array]:
    """The experts of each row of fp32 logits ``[..., E]``, and the weights of what they return.

    Chosen are the largest of ``sigmoid(logit) + bias``, the largest first. A NaN is larger than infinity; of what is
    equal, NaNs too, the lower index comes first. A weight is the sigmoid over the sum of those that are chosen.

    Returns:
        ``(ids, weights, exp2, scores)``, each ``[..., top_k]``: the indices as int64, the weights, and what
        :func:`sigmoid` gives of the chosen logits.
    """
    xp = logits.__array_namespace__()
    _, _, exp2, scores = sigmoid(logits, 1.0)
    exp2, scores = barrier(exp2), barrier(xp.where(xp.isnan(logits), xp.nan, scores))
    choice = round32(scores + bias)
    bits = choice.view(xp.int64)  # of negative numbers they grow the other way; no sum is -0
    key = xp.where(xp.isnan(choice), 2**63 - 1, xp.where(bits < 0, bits ^ (2**63 - 1), bits))
    ids = barrier(xp.argsort(~key, axis=-1, stable=True)[..., :top_k])
    exp2, scores = (xp.take_along_axis(x, ids, axis=-1) for x in (exp2, scores))
    total = scores[..., 0]
    for place in range(1, top_k):
        total = round32(total + scores[..., place])
    return ids, round32(scores / total[..., None]), exp2, scores


def with_shared(ids: Array, num_experts: int, count: int) -> Array:
    """Ids ``[..., top_k]``, and after them those of so many experts that every token has."""
    xp = ids.__array_namespace__()
    shared = xp.arange(num_experts, num_experts + count, dtype=ids.dtype)
    return xp.concatenate([ids, xp.broadcast_to(shared, (*ids.shape[:-1], count))], axis=-1)


def route_backward(logits: Array, bias: Array, grad: Array) -> Array:
    """The gradient of the logits of :func:`route` from that of the weights ``[..., top_k]``.

    With p the weights and s the sigmoids it is ``p_j * (grad_j - sum grad_i p_i) * (1 - s_j)`` for the chosen, where
    ``1 - s`` is ``exp(-logit) * s``, which does not cancel, and 0 for the others.
    """
    ids, weights, exp2, scores = map(barrier, route(logits, bias, grad.shape[-1]))
    xp = logits.__array_namespace__()
    mean: Array = barrier(xp.zeros(grad.shape[:-1], xp.float64))
    for place in range(grad.shape[-1]):
        mean = fma(grad[..., place], weights[..., place], mean)
    chosen = round32(round32(weights * round32(grad - mean[..., None])) * round32(exp2 * scores))
    total = xp.zeros(logits.shape, xp.float64)
    for place in range(grad.shape[-1]):
        total = xp.where(xp.arange(logits.shape[-1]) == ids[..., place, None], chosen[..., place, None], total)
    return total


def sort(ids: Array, num_experts: int) -> tuple[Array, Array, Array]:
    """The slots of ids ``[..., k]`` by expert, those of one in their order, and last those whose id is no expert's.

    Returns:
        ``(order, slots, group_sizes)``: the slots; the place of each among these, in the shape of ids; and how many
        each expert has, ``[num_experts]``.
    """
    xp = ids.__array_namespace__()
    experts = xp.where((ids >= 0) & (ids < num_experts), ids, num_experts).reshape(-1)
    # Sorted with the slots, a number comes after the slots of smaller experts and before those of its own.
    numbers = xp.arange(num_experts + 1, dtype=experts.dtype)
    places = barrier(_argsort(_argsort(xp.concatenate((numbers, experts)))))
    firsts, slots = places[: num_experts + 1] - numbers, places[num_experts + 1 :] - experts - 1
    return _argsort(slots), slots.reshape(ids.shape), xp.diff(firsts)


def _argsort(keys: Array) -> Array:
    """The stable argsort of numbers that fit 31 bits, by a sort of each with its place, which takes a third as long."""
    xp = keys.__array_namespace__()
    return xp.sort(keys.astype(xp.int64) << 32 | xp.arange(keys.shape[0], dtype=xp.int64)) & 2**32 - 1


def combine(y: Array, slots: Array, weights: Array) -> Array:
    """Sums of weighted rows, ``[..., N]``: of y ``[R, N]`` those that slots ``[..., k]`` name, each times its weight.

    A chain of fma from +0 in the order of the slots. A slot that is no row's contributes nothing. y is given in its own
    dtype.
    """
    xp = y.__array_namespace__()
    exists, named = _named_rows(y, slots)
    total: Array = barrier(xp.zeros((*slots.shape[:-1], y.shape[1]), xp.float64))  # XLA would drop a known 0
    for place in range(slots.shape[-1]):
        more = fma(weights[..., place, None], load(named(place)), total)
        total = barrier(xp.where(exists[..., place, None], more, total))
    return total


def _named_rows(y: Array, slots: Array) -> tuple[Array, Callable[[Any], Array]]:
    """Which slots name a row of y, and a function of a place in the last axis of the slots: the rows that they name."""
    xp = y.__array_namespace__()
    exists = (slots >= 0) & (slots < y.shape[0])
    bits = y.view(getattr(xp, f"uint{8 * y.dtype.itemsize}"))  # as numbers XLA may flush subnormal ones
    bits = xp.concatenate((xp.zeros((1, y.shape[1]), bits.dtype), bits))  # so that there is a row to read in any case
    rows = xp.where(exists, slots + 1, 0)
    return exists, lambda place: bits[rows[..., place]].view(y.dtype)


def _by_row(slots: Array, rows: int) -> tuple[Array, Array, Array]:
    """The slots in the order of the rows that they name, and for each row its first one in it and the end of its own.

    They are numbered from 1: there is one more, of number 0, which names none, so that there always is one.
    """
    xp = slots.__array_namespace__()
    exists = (slots >= 0) & (slots < rows)
    keys = xp.concatenate((xp.full((1,), rows, slots.dtype), xp.where(exists, slots, rows).reshape(-1)))
    order, numbers = xp.argsort(keys, stable=True), xp.arange(rows + 1, dtype=keys.dtype)
    # Sorted among the keys a row comes after those of the rows before it: that many are before its first.
    places = xp.argsort(xp.argsort(xp.concatenate((numbers, keys)), stable=True))[: rows + 1] - numbers
    return order, places[:-1], places[1:]


def slots_of_rows(slots: Array, rows: int) -> tuple[Array, Array]:
    """How many slots name each of so many rows, and the number of the first of these, which is of no use where none
    does.
    """
    order, first, end = _by_row(slots, rows)
    return end - first, order[first] - 1


def combine_backward(y: Array, slots: Array, weights: Array, grad: Array, *, scale: float) -> tuple[Array, Array]:
    """The gradients of y and of the weights of ``scale *`` :func:`combine` from that of the result, ``[..., N]``.

    That of a row of y is a chain of fma from +0, ``weights * scale`` times the gradient, over the slots that name it in
    their order, of which there is one as a rule. That of a weight is ``scale`` times a :func:`dot`.
    """
    xp = y.__array_namespace__()
    exists, named = _named_rows(y, slots)
    of_weights = round32(dot(grad[..., None, :], load(named(slice(None)))) * scale)
    of_weights = xp.where(exists, of_weights, xp.zeros_like(of_weights))
    order, first, end = _by_row(slots, y.shape[0])
    factors = xp.concatenate((xp.zeros((1,), xp.float64), round32(weights * scale).reshape(-1)))
    tokens = grad.reshape(math.prod(slots.shape[:-1]), y.shape[1])
    grads = xp.concatenate((xp.zeros((1, y.shape[1]), xp.float64), tokens))

    def step(number: Array, total: Array) -> Array:
        slot = order[xp.where(first + number < end, first + number, 0)]
        more = fma(factors[slot][:, None], grads[(slot + slots.shape[-1] - 1) // slots.shape[-1]], total)
        return xp.where((first + number < end)[:, None], more, total)

    zeros = barrier(xp.zeros_like(y, dtype=xp.float64))  # XLA would drop a known 0
    return repeat(xp.max(end - first, initial=0), step, zeros), of_weights
