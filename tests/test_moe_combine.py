"""``moe_combine`` beside a float64 sum and the formula, and after ``moe_sort``; its bytes are in the named cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from specification import reference

import m3ops_torch
from m3ops.ops.moe.cases_combine import inputs, shared_of
from m3ops.testing import formulas
from m3ops.testing.arrays import normal

SHAPE, SIZE = (200, 4), 512


def test_a_sum_is_within_its_bound() -> None:
    """Each of the four fma rounds a partial sum, and what adds shared rounds once more; the result is fp32."""
    y, slots, weights = inputs(SHAPE, SIZE, "bfloat16")
    shared = shared_of(SHAPE, SIZE, "bfloat16")
    terms = 2.0 * y.astype(np.float64)[slots] * weights[..., None]
    magnitudes = np.abs(terms).sum(-2) + np.abs(shared.astype(np.float64))
    (result,) = reference("moe_combine", y, slots, weights, shared, out_dtype="float32")
    wrong = np.abs(result - (terms.sum(-2) + shared.astype(np.float64)))
    assert (wrong <= 5 * 2.0**-24 * magnitudes).all()


@pytest.mark.parametrize("framework", ["torch", "jax"])
@pytest.mark.parametrize("shared", [False, True])
def test_a_formula_is_within_the_bound(shared: bool, framework: str) -> None:
    """It rounds each product too. Both round to bfloat16: half a unit in the last place, up to 2**-8 of it."""
    arrays = [*inputs(SHAPE, SIZE, "bfloat16"), shared_of(SHAPE, SIZE, "bfloat16")][: 3 + shared]
    y, slots, weights, *beside = arrays
    magnitudes = np.abs(2.0 * y.astype(np.float64)[slots] * weights[..., None]).sum(-2) + np.abs(sum(beside, 0.0))
    if framework == "torch":
        tensors = [
            torch.from_numpy(a.view(np.int16)).view(torch.bfloat16) if a.itemsize == 2 else torch.from_numpy(a)
            for a in arrays
        ]
        got = formulas.TORCH["moe_combine"](*tensors).float().numpy()
    else:
        got = np.asarray(formulas.JAX["moe_combine"](*map(np.asarray, arrays))).astype(np.float32)
    (want,) = (result.astype(np.float64) for result in reference("moe_combine", *arrays))
    assert (np.abs(got - want) <= 2.0**-7 * np.abs(want) + 16 * 2.0**-24 * magnitudes).all()


def test_the_order_of_rows_in_memory_does_not_matter() -> None:
    """Rows sorted by expert, and rows as the tokens have them: the same bytes."""
    ids, weights = m3ops_torch.moe_route(torch.from_numpy(normal((50, 16), "float32")), torch.zeros(16))
    order, slots, _ = m3ops_torch.moe_sort(ids, 16)
    y = torch.from_numpy(normal((200, 64), "float32")).bfloat16()
    as_they_are = torch.arange(200, dtype=torch.int32).reshape(50, 4)
    wanted = m3ops_torch.moe_combine(y, as_they_are, weights)
    assert torch.equal(m3ops_torch.moe_combine(y[order], slots, weights), wanted)
