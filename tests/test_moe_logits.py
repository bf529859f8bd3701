"""``moe_logits`` beside a float64 product; its bytes are in the named cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from specification import reference

from m3ops.numerics.constants import LANES
from m3ops.testing import formulas
from m3ops.testing.arrays import normal

HIDDEN, EXPERTS = 6144, 128


def operands() -> tuple[np.ndarray, np.ndarray]:
    return normal((40, HIDDEN), "bfloat16"), normal((EXPERTS, HIDDEN), "float32", 0.02)


def test_a_product_is_within_its_bound() -> None:
    """Each fma of a chain rounds once, and so does each of the additions by halves."""
    x, w = operands()
    (got,) = reference("moe_logits", x, w)
    exact, magnitudes = x.astype(np.float64) @ w.T.astype(np.float64), np.abs(x.astype(np.float64)) @ np.abs(w).T
    roundings = HIDDEN // LANES + np.log2(LANES)
    assert (np.abs(got - exact) <= roundings * 2.0**-24 * magnitudes).all()


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_a_formula_is_within_the_bound_of_any_order(framework: str) -> None:
    x, w = operands()
    if framework == "torch":
        tensors = torch.from_numpy(x.view(np.int16)).view(torch.bfloat16), torch.from_numpy(w)
        got = formulas.TORCH["moe_logits"](*tensors).numpy()
    else:
        got = np.asarray(formulas.JAX["moe_logits"](x, w))
    (want,) = reference("moe_logits", x, w)
    magnitudes = np.abs(x.astype(np.float64)) @ np.abs(w).T
    assert (np.abs(got - want) <= 2 * HIDDEN * 2.0**-24 * magnitudes).all()


def test_gradients_are_within_their_bounds() -> None:
    """Sums over the experts and over the tokens, each number of them rounded as a logit is."""
    x, w = normal((4, 75, 96), "float32"), normal((EXPERTS, 96), "float32", 0.02)
    grad = normal((4, 75, EXPERTS), "float32")
    rows, grads = x.reshape(300, 96), grad.reshape(300, EXPERTS)
    of_x, of_w = reference("moe_logits_backward", x, w, grad)
    for got, left, right, steps in ((of_x.reshape(300, 96), grads, w, 1), (of_w, grads.T, rows, 3)):
        exact, magnitudes = (a.astype(np.float64) @ b for a, b in ((left, right), (np.abs(left), np.abs(right))))
        assert (np.abs(got - exact) <= (steps + np.log2(LANES)) * 2.0**-24 * magnitudes).all()


def test_the_order_is_what_is_specified() -> None:
    """In another order 2**24 would swallow what is added to it: in float32 ``2**24 + 1 == 2**24``."""
    x = np.zeros((1, 3 * LANES), np.float32)
    x[0, [0, LANES, 2 * LANES]] = 2.0**24, 1.0, -(2.0**24)  # one chain, in this order: the 1 is lost
    x[0, [1, LANES // 2 + 1]] = 1.0, 2.0**-24  # lanes that meet in the first halving
    (got,) = reference("moe_logits", x, np.ones((1, 3 * LANES), np.float32))
    assert got.item() == 1.0
    x[0, LANES], x[0, 2] = 0.0, 1.0  # another chain: it is added after the large ones have met
    (got,) = reference("moe_logits", x, np.ones((1, 3 * LANES), np.float32))
    assert got.item() == 2.0
