"""Cases of the gradient of moe_route: those of the op with gradients of the weights beside them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from m3ops.ops.moe.cases_route import ROUTES
from m3ops.testing.arrays import SPECIALS, Inputs, gradients, normal, with_specials
from m3ops.testing.case import Case

case = partial(Case, "moe_route_backward")


def _with_gradients(make: Inputs, top_k: int) -> tuple[np.ndarray, ...]:
    logits, bias = make()
    return logits, bias, gradients((*logits.shape[:-1], top_k), "float32")


def _special_gradients() -> tuple[np.ndarray, ...]:
    grad = with_specials(gradients((8, 4), "float32"), SPECIALS)
    return normal((8, 64), "float32"), normal((64,), "float32", 0.25), grad


def _one_gradient_for_all() -> tuple[np.ndarray, ...]:
    """It changes nothing, since the weights have the sum 1, but for rounding."""
    return normal((5, 64), "bfloat16"), np.zeros(64, np.float32), np.broadcast_to(np.float32(1.0), (5, 4))


def _cases() -> Iterator[Case]:
    for route in ROUTES:
        if route.gradient:
            yield case(route.name, partial(_with_gradients, route.make, route.given.get("top_k", 4)), route.given)
    yield case("NaN and infinite gradients", _special_gradients)
    yield case("one gradient for all", _one_gradient_for_all)


CASES = tuple(_cases())
