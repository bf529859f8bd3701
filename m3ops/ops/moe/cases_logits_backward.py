"""Cases of the gradient of moe_logits: those of the op with gradients of the logits beside them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from m3ops.numerics.formats import ACTIVATION_DTYPES
from m3ops.ops.moe import cases_logits
from m3ops.ops.moe.cases_logits import inputs
from m3ops.row_count import NAME
from m3ops.testing.arrays import SPECIALS, Inputs, bit_patterns, gradients, normal, subnormals, views, with_specials
from m3ops.testing.case import Case

case = partial(Case, "moe_logits_backward")


def _with_gradients(make: Inputs) -> tuple[np.ndarray, ...]:
    x, w = make()
    return x, w, gradients((*x.shape[:-1], w.shape[0]), "float32")


def _bits(dtype: str) -> tuple[np.ndarray, ...]:
    return bit_patterns((7, 96), dtype), bit_patterns((9, 96), dtype), bit_patterns((7, 9), "float32")


def _tiny(dtype: str) -> tuple[np.ndarray, ...]:
    """Products that are subnormal, in fp32 or in the dtype of the results."""
    x, w = subnormals((5, 96), dtype), subnormals((9, 96), dtype)
    return x, w, gradients((5, 9), "float32") * np.float32(2.0**10)


def _negative_zeros(count: int) -> tuple[np.ndarray, ...]:
    """Sums of negative products too small for a number, of whole steps: nothing is added that makes them +0."""
    x, w = np.full((count, 3), 1e-30, np.float32), np.full((count, 3), 1e-30, np.float32)
    return x, w, np.full((count, count), -1e-30, np.float32)


def _special_gradients() -> tuple[np.ndarray, ...]:
    x, w = inputs((8, 64), 32, "float32")
    return x, w, with_specials(gradients((8, 32), "float32"), SPECIALS)


def _too_large(dtype: str) -> tuple[np.ndarray, ...]:
    """Gradients of both that are where the dtype's numbers begin to round to infinity, and one step below."""
    power, digits = (2.0**15, 11) if dtype == "float16" else (2.0**127, 8)
    x, w = np.zeros((2, 64), dtype), np.zeros((3, 64), dtype)
    x[0], w[0] = power, power
    limit = np.float32(2.0 - 2.0**-digits)
    below = np.nextafter(limit, np.float32(0.0))
    return x, w, np.array([[limit, below, -limit], [below, 0.0, 0.0]], np.float32)


def _order(tokens: int) -> tuple[np.ndarray, ...]:
    """Numbers of magnitudes so different that another order gives another sum; more tokens than lanes."""
    magnitudes = np.exp2(np.arange(tokens) * 37 % 29).astype(np.float32)
    return normal((tokens, 5), "float32") * magnitudes[:, None], normal((140, 5), "float32"), _grads(tokens)


def _grads(tokens: int) -> np.ndarray:
    return gradients((tokens, 140), "float32") * np.exp2(np.arange(140) * 11 % 23).astype(np.float32)


def _view_of_grad(name: str) -> tuple[np.ndarray, ...]:
    grad = views("float32", 64)[name]()
    return normal((*grad.shape[:-1], 96), "bfloat16"), normal((64, 96), "float32"), grad


def _cases() -> Iterator[Case]:
    for of in cases_logits.CASES:
        if NAME not in of.operands() and "M3" not in of.name:
            yield case(of.name, partial(_with_gradients, of.make))
    for dtype in ACTIVATION_DTYPES:
        yield case(f"random bits of all, {dtype}", partial(_bits, dtype))
        yield case(f"subnormals of all, {dtype}", partial(_tiny, dtype))
    for dtype in ("bfloat16", "float16"):
        yield case(f"just past the largest {dtype}", partial(_too_large, dtype))
    for count in (128, 256, 129):
        yield case(f"negative zeros, {count} tokens and experts", partial(_negative_zeros, count))
    yield case("no tokens, three axes", partial(_with_gradients, partial(inputs, (3, 0, 64), 4)))
    yield case("NaN and infinite gradients", _special_gradients)
    for tokens in (127, 128, 300):
        yield case(f"an order that matters, {tokens} tokens", partial(_order, tokens))
    yield case("2 tokens of 1536", partial(_with_gradients, partial(inputs, (2, 1536), 9)))
    for name in views("float32", 64):
        yield case(f"grad, {name}", partial(_view_of_grad, name))


CASES = tuple(_cases())
