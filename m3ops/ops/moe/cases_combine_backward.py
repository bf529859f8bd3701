"""Cases of the gradient of moe_combine."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from m3ops.numerics.formats import ACTIVATION_DTYPES
from m3ops.ops.moe import cases_combine as combine
from m3ops.ops.moe.cases_combine import Shape, inputs, permuted, weights_of
from m3ops.testing.arrays import SPECIALS, Inputs, bit_patterns, gradients, normal, subnormals, views, with_specials
from m3ops.testing.case import Case

case = partial(Case, "moe_combine_backward")


def _with_gradient(make: Inputs, dtype: str) -> tuple[np.ndarray, ...]:
    y, slots, weights = make()
    return y, slots, weights, gradients((*slots.shape[:-1], y.shape[1]), dtype)


def _bits(dtype: str) -> tuple[np.ndarray, ...]:
    return bit_patterns((36, 96), dtype), permuted((9, 4)), bit_patterns((9, 4), "float32"), _bits_of(dtype)


def _bits_of(dtype: str) -> np.ndarray:
    return bit_patterns((9, 96), dtype)


def _tiny(dtype: str) -> tuple[np.ndarray, ...]:
    """Subnormal rows and gradients, whose products are zeros of both signs or, times large weights, are not."""
    weights = weights_of((5, 4)) * np.where(np.arange(4) % 2, 1e30, 1.0).astype(np.float32)
    return subnormals((20, 64), dtype), permuted((5, 4)), weights, subnormals((5, 64), dtype)


def _some_missing() -> tuple[np.ndarray, ...]:
    """Rows that no slot names, and slots that name no row: of a token some, and all; others of these hold NaN."""
    y, slots, weights = combine._some_missing()
    grad = gradients((6, 96), "bfloat16")
    y[:2], grad[3] = np.nan, np.inf
    return y, slots, weights, grad


def _named_by_several(shape: Shape, size: int) -> tuple[np.ndarray, ...]:
    """Rows that two tokens name, that one names twice, and that all name; the sum depends on the order of the slots."""
    y, slots, weights = inputs(shape, size, "float32")
    slots[1], slots[2, 1], slots[:, -1] = slots[-1], slots[2, 0], slots[0, -1]
    scales = np.exp2(np.arange(len(slots)) * 7 % 23).astype(np.float32)[:, None]
    return y, slots, weights * scales, _grads(len(slots), size)


def _grads(tokens: int, size: int) -> np.ndarray:
    return gradients((tokens, size), "float32")


def _specials() -> tuple[np.ndarray, ...]:
    """NaN and infinities in each operand, infinities that cancel in a sum, and numbers past the largest."""
    y, slots, weights = inputs((8, 2), 160, "float32")
    y, grad = with_specials(y, SPECIALS), with_specials(_grads(8, 160), SPECIALS)
    weights[4], weights[5], weights[6] = (np.nan, np.inf), (-np.inf, 0.0), (3e38, 1e30)
    grad[5, ::2], grad[6] = 0.0, 1e20
    y[slots[7]], grad[7] = np.where(np.arange(160) % 2, 3e38, -3e38), 1.0
    return y, slots, weights, grad


def _zeros() -> tuple[np.ndarray, ...]:
    """Products of both zeros: each gradient is a sum from +0."""
    y, slots, weights = inputs((4, 2), 32, "float32")
    y[:] = np.where(np.arange(32) % 2, 0.0, -0.0)
    weights[0], weights[1] = (1.0, -1.0), (0.0, -0.0)
    grad = np.where(np.arange(4 * 32).reshape(4, 32) % 3, 0.0, -0.0).astype(np.float32)
    grad[2:] = _grads(4, 32)[2:]
    return y, slots, weights, grad


def _order() -> tuple[np.ndarray, ...]:
    """Numbers of magnitudes so different that another order of a weight's sum gives another one."""
    magnitudes = np.exp2(np.arange(640) * 37 % 29).astype(np.float32)
    return normal((12, 640), "float32") * magnitudes, permuted((4, 3)), weights_of((4, 3)), _grads(4, 640)


def _views() -> Iterator[tuple[str, Inputs]]:
    for name in views("bfloat16", 128):
        yield f"gradients, {name}", partial(_view_of_gradients, name)
    for name in ("slots and weights, transposed leading axes", "y, every other column"):
        make = dict(combine._views())[name]
        yield name, partial(_with_gradient, make, "bfloat16")


def _view_of_gradients(name: str) -> tuple[np.ndarray, ...]:
    grad = views("bfloat16", 128)[name]()
    shape = (*grad.shape[:-1], 2)
    return *inputs(shape, 128, "bfloat16"), grad


def _cases() -> Iterator[tuple[str, Inputs, dict[str, Any]]]:
    def of(shape: Shape, size: int, dtype: str = "bfloat16", grad: str | None = None) -> Any:
        return partial(_with_gradient, partial(inputs, shape, size, dtype), grad or dtype)

    for dtype in ACTIVATION_DTYPES:
        yield f"normal {dtype}", of((13, 4), 192, dtype), {}
        yield f"random bits {dtype}", partial(_bits, dtype), {}
        yield f"subnormals {dtype}", partial(_tiny, dtype), {}
    for dtype, out_dtype in product(ACTIVATION_DTYPES, ACTIVATION_DTYPES):
        if dtype != out_dtype:
            yield f"{dtype} to {out_dtype}", of((3, 4), 96, dtype, out_dtype), {"out_dtype": out_dtype, "scale": 1.7}
    yield "rows without a slot and slots without a row", _some_missing, {}
    yield "rows that several slots name", partial(_named_by_several, (7, 4), 96), {}
    yield "more slots than are looked at together", partial(_named_by_several, (130, 32), 5), {}
    yield "NaN and infinities", _specials, {}
    yield "zeros", _zeros, {}
    yield "an order that matters", _order, {}
    for scale in (0.0, -1.0, 1e-40, 3e38):
        yield f"scale {scale:g}", of((5, 4), 64), {"scale": scale}
    for slots in (1, 2, 3, 8, 32):
        yield f"{slots} slots", of((5, slots), 64), {}
    for size in (1, 5, 128, 129, 1000):
        yield f"N = {size}", of((5, 4), size), {}
    yield "M3, 3 tokens", of((3, 4), 6144), {}
    yield "no tokens", lambda: (normal((3, 64), "bfloat16"), *of((0, 4), 64)()[1:]), {}
    yield "no rows of y", lambda: (normal((0, 64), "bfloat16"), *of((3, 4), 64)()[1:]), {}
    yield "an empty last axis", of((3, 4), 0), {}
    yield "one token, no leading axis", of((4,), 64), {}
    yield "three leading axes", of((2, 3, 5, 4), 64), {}


def _all() -> Iterator[Case]:
    for name, make, given in _cases():
        yield case(name, make, given)
    for name, make in _views():
        yield case(name, make)


CASES = tuple(_all())
