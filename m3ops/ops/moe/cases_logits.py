"""Cases of moe_logits."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product

import numpy as np

from m3ops.numerics.formats import ACTIVATION_DTYPES
from m3ops.testing.arrays import SPECIALS, bit_patterns, normal, subnormals, views, with_specials
from m3ops.testing.case import COUNTS, Case, counting, counts_of

case = partial(Case, "moe_logits")


def inputs(
    shape: tuple[int, ...], experts: int, dtype: str = "bfloat16", of_w: str = "float32"
) -> tuple[np.ndarray, ...]:
    """Tokens and a router's weight."""
    return normal(shape, dtype), normal((experts, shape[-1]), of_w, 0.1)


def _bits(dtype: str) -> tuple[np.ndarray, ...]:
    return bit_patterns((7, 160), dtype), bit_patterns((9, 160), "float32")


def _tiny(dtype: str) -> tuple[np.ndarray, ...]:
    return subnormals((5, 160), dtype), normal((9, 160), "float32", 1e-20)


def _specials() -> tuple[np.ndarray, ...]:
    """NaN and infinities in tokens and weights, infinities that cancel, products past the largest number."""
    x, w = inputs((8, 256), 6, "float32")
    x, w[1] = with_specials(x, SPECIALS), np.where(np.arange(256) == 9, np.inf, w[1])
    x[5, :2], w[2, :2] = np.inf, (1.0, -1.0)
    x[6], w[3] = 3e38, 2.0
    x[7, ::2], x[7, 1::2], w[4] = 3e38, -3e38, 1.0
    return x, w


def _zeros() -> tuple[np.ndarray, ...]:
    """Sums of zeros of both signs, and of products too small for a number."""
    x = np.where(np.arange(128) % 2, -0.0, 0.0).astype(np.float32) * np.ones((4, 1), np.float32)
    x[2], x[3, 5] = -1e-30, -1e-30
    return x, np.stack([np.ones(128), np.full(128, 1e-30), np.zeros(128)]).astype(np.float32)


def _order() -> tuple[np.ndarray, ...]:
    """Numbers of magnitudes so different that another order gives another sum."""
    magnitudes = np.exp2(np.arange(640) * 37 % 29).astype(np.float32)
    return normal((4, 640), "float32") * magnitudes, normal((8, 640), "float32")


def _view_of_x(name: str) -> tuple[np.ndarray, ...]:
    return views("bfloat16", 160)[name](), normal((6, 160), "float32", 0.1)


def _view_of_w(name: str) -> tuple[np.ndarray, ...]:
    return normal((4, 160), "bfloat16"), views("float32", 160)[name]()


def _cases() -> Iterator[Case]:
    for dtype, of_w in product(ACTIVATION_DTYPES, ACTIVATION_DTYPES):
        yield case(f"{dtype} and {of_w}", partial(inputs, (3, 200), 5, dtype, of_w))
    for dtype in ACTIVATION_DTYPES:
        yield case(f"random bits {dtype}", partial(_bits, dtype))
        yield case(f"subnormals {dtype}", partial(_tiny, dtype))
    yield case("NaN and infinities", _specials)
    yield case("zeros", _zeros)
    yield case("an order that matters", _order)
    for size in (1, 5, 128, 129):
        yield case(f"H = {size}", partial(inputs, (5, size), 6))
    for experts in (1, 3, 128):
        yield case(f"{experts} experts", partial(inputs, (9, 128), experts))
    yield case("M3, 2 tokens", partial(inputs, (2, 6144), 128))
    yield case("no tokens", partial(inputs, (0, 64), 4))
    yield case("no experts", partial(inputs, (3, 64), 0))
    yield case("an empty last axis", partial(inputs, (3, 0), 4))
    yield case("one token, no leading axis", partial(inputs, (64,), 4))
    yield case("three leading axes", partial(inputs, (2, 3, 5, 64), 4))
    for name in views("bfloat16", 160):
        yield case(f"x, {name}", partial(_view_of_x, name))
    for name in ("columns sliced out of wider rows", "every other row", "every other column", "one row repeated"):
        yield case(f"w, {name}", partial(_view_of_w, name))
    for rows, counts in COUNTS:
        shape = (*rows, 192 if len(rows) > 1 else 64)
        yield case(counts_of(rows, counts), partial(counting, partial(inputs, shape, 6), *counts))


CASES = tuple(_cases())
