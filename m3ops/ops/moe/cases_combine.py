"""Cases of moe_combine, each with and without a shared result."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from m3ops.numerics.formats import ACTIVATION_DTYPES
from m3ops.testing.arrays import SPECIALS, Inputs, bit_patterns, normal, random_bits, subnormals, views, with_specials
from m3ops.testing.case import COUNTS, Case, counting, counts_of

combine = partial(Case, "moe_combine")

Shape = tuple[int, ...]


def permuted(shape: Shape) -> np.ndarray:
    """Slots that name as many rows as there are, each once."""
    return np.argsort(random_bits((math.prod(shape),), f"slots {shape}"), stable=True).astype(np.int32).reshape(shape)


def weights_of(shape: Shape) -> np.ndarray:
    """Weights of both signs, for the sum is defined for any."""
    return normal(shape, "float32")


def inputs(shape: Shape, size: int, dtype: str) -> tuple[np.ndarray, ...]:
    """Rows, slots and weights for slots of a shape."""
    return normal((math.prod(shape), size), dtype, 2.0), permuted(shape), weights_of(shape)


def shared_of(shape: Shape, size: int, dtype: str) -> np.ndarray:
    """What is added."""
    return normal((*shape[:-1], size), dtype)


def with_shared(make: Inputs, dtype: str) -> Inputs:
    """The same inputs, and a row to add for each token."""

    def both() -> tuple[np.ndarray, ...]:
        y, slots, weights = make()
        return y, slots, weights, shared_of(slots.shape, y.shape[1], dtype)

    return both


def without_shared(make: Inputs) -> tuple[Any, ...]:
    """The same inputs, and nothing to add."""
    return (*make(), None)


def _some_missing() -> tuple[np.ndarray, ...]:
    """Slots that are no row's: of a token some, the first, the last, and all; what they weigh is not looked at."""
    y, slots, weights = inputs((6, 4), 96, "bfloat16")
    slots[0, 1], slots[1, 0], slots[2, 3] = -1, len(y), 2**31 - 1
    slots[3], slots[4, :3] = -(2**31), -1
    weights[3], weights[0, 1] = np.nan, np.inf
    return y, slots, weights


def _rows_named_twice() -> tuple[np.ndarray, ...]:
    """Fewer rows than slots."""
    slots = (random_bits((7, 4), "slots") % np.uint64(5)).astype(np.int32)
    return normal((5, 96), "float32"), slots, weights_of((7, 4))


def _specials() -> tuple[np.ndarray, ...]:
    """NaN and infinities in rows and weights, infinities that cancel, and sums past the largest number."""
    y, slots, weights = inputs((5, 4), 64, "float32")
    y = with_specials(y, SPECIALS)
    y[slots[3, :2]], weights[3, :2] = np.inf, (1.0, -1.0)
    y[slots[4]], weights[4] = 3e38, (1.0, 1.0, -1.0, -1.0)
    weights[0], weights[1, 2] = (np.nan, np.inf, -np.inf, 0.0), np.inf
    return y, slots, weights


def _zeros() -> tuple[np.ndarray, ...]:
    """Products of both zeros: a sum of zeros is +0, and its sign that of the scale."""
    y, slots, weights = inputs((4, 2), 32, "float32")
    y[:] = np.where(np.arange(32) % 2, 0.0, -0.0)
    weights[0], weights[1] = (1.0, 1.0), (-1.0, 1.0)
    return y, slots, weights


def _bits(dtype: str) -> tuple[np.ndarray, ...]:
    return bit_patterns((36, 96), dtype), permuted((9, 4)), bit_patterns((9, 4), "float32")


def _tiny(dtype: str) -> tuple[np.ndarray, ...]:
    return subnormals((20, 64), dtype), permuted((5, 4)), weights_of((5, 4))


def _views() -> Iterator[tuple[str, Inputs]]:
    for name in views("bfloat16", 128):
        yield f"slots and weights, {name}", partial(_views_of_slots, name)
    for name in ("columns sliced out of wider rows", "every other row", "every other column", "one row repeated"):
        yield f"y, {name}", partial(_view_of_y, name)


def _view_of_y(name: str) -> tuple[np.ndarray, ...]:
    y = views("bfloat16", 128)[name]()
    shape = (len(y) // 2, 2)
    return y, permuted(shape), weights_of(shape)


def _views_of_slots(name: str) -> tuple[np.ndarray, ...]:
    weights = views("float32", 4)[name]()
    slots = (views("float32", 4)[name]() * 8).astype(np.int32) % np.int32(20)
    return normal((20, 64), "bfloat16"), slots, weights


def _view_of_shared() -> tuple[np.ndarray, ...]:
    return *inputs((5, 4), 96, "bfloat16"), shared_of((5, 4), 192, "bfloat16")[:, ::2]


def _cases() -> Iterator[tuple[str, Inputs, dict[str, Any]]]:
    for dtype in ACTIVATION_DTYPES:
        yield f"normal {dtype}", partial(inputs, (13, 4), 192, dtype), {}
        yield f"random bits {dtype}", partial(_bits, dtype), {}
        yield f"subnormals {dtype}", partial(_tiny, dtype), {}
    for dtype, out_dtype in product(ACTIVATION_DTYPES, ACTIVATION_DTYPES):
        yield f"{dtype} to {out_dtype}", partial(inputs, (3, 4), 96, dtype), {"out_dtype": out_dtype, "scale": 1.7}
    yield "slots without a row", _some_missing, {}
    yield "rows named twice", _rows_named_twice, {}
    yield "NaN and infinities", _specials, {}
    yield "zeros", _zeros, {}
    for scale in (0.0, -1.0, 1e-40, 3e38):
        yield f"scale {scale:g}", partial(inputs, (5, 4), 64, "bfloat16"), {"scale": scale}
    for slots in (1, 2, 3, 8, 32):
        yield f"{slots} slots", partial(inputs, (5, slots), 64, "bfloat16"), {}
    for size in (1, 5, 1000):
        yield f"N = {size}", partial(inputs, (5, 4), size, "bfloat16"), {}
    yield "M3, 3 tokens", partial(inputs, (3, 4), 6144, "bfloat16"), {}
    yield "no tokens", partial(inputs, (0, 4), 64, "bfloat16"), {}
    yield "no rows of y", lambda: (normal((0, 64), "bfloat16"), permuted((3, 4)), weights_of((3, 4))), {}
    yield "an empty last axis", partial(inputs, (3, 4), 0, "bfloat16"), {}
    yield "one token", partial(inputs, (1, 4), 64, "bfloat16"), {}
    yield "no leading axis", partial(inputs, (4,), 64, "bfloat16"), {}
    yield "three leading axes", partial(inputs, (2, 3, 5, 4), 64, "bfloat16"), {}
    for rows, counts in COUNTS:
        shape = (*rows, 4 if len(rows) > 1 else 2)
        yield counts_of(rows, counts), partial(inputs, shape, 192, "bfloat16"), {"num_rows": counts}


def _both() -> Iterator[Case]:
    for name, make, given in _cases():
        counts = given.pop("num_rows", None)
        added = with_shared(make, "float32" if "bfloat16" in name else "bfloat16")
        if counts is not None:
            make, added = partial(counting, partial(without_shared, make), *counts), partial(counting, added, *counts)
        yield combine(name, make, given)
        yield combine(f"{name}, shared", added, given)
    for name, make in _views():
        yield combine(name, make)
    yield combine("a shared result in every other column", _view_of_shared)


CASES = tuple(_both())
