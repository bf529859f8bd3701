"""``moe_combine`` and its gradient beside float64 and the formula; their bytes are in the named cases."""

from __future__ import annotations

from itertools import product
from typing import Any

import jax
import numpy as np
import pytest
import torch
from backends import H100, interpreted, planned
from compare import assert_same_bytes
from specification import reference

import m3ops_jax
import m3ops_torch
from m3ops.array import ArraySpec
from m3ops.numerics.exact import fp32
from m3ops.numerics.formats import ACTIVATION_DTYPES
from m3ops.op import bind
from m3ops.ops import EVERY_OP
from m3ops.ops.moe import plan
from m3ops.ops.moe.cases_combine import inputs, shared_of
from m3ops.target import Target
from m3ops.testing import formulas
from m3ops.testing.arrays import bit_patterns, gradients, normal, subnormals
from m3ops.tools.run import to_numpy, to_tensor

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


# The gradient.

U = 2.0**-24


def test_the_gradient_is_that_of_the_formula() -> None:
    """In U: a weight times the scale rounds once, and each of the m slots that name a row adds an fma to its sum.

    A weight's sum is 4 products long in each of 128 chains of fma, then 7 times added by halves, then scaled.
    """
    y, slots, weights = inputs(SHAPE, SIZE, "float32")
    slots[1], slots[5, 2:], slots[:, 0] = slots[0], slots[5, 1], slots[0, 0]
    slots[7, 1:], grad = (-1, len(y), -(2**31)), gradients((SHAPE[0], SIZE), "float32")
    of_y, of_weights = reference("moe_combine_backward", y, slots, weights, grad, scale=1.7)
    exists = (slots >= 0) & (slots < len(y))
    exact = [torch.from_numpy(array.astype(np.float64)).requires_grad_() for array in (y, weights)]
    rows = exact[0][torch.from_numpy(np.where(exists, slots, 0).astype(np.int64))]
    factors = exact[1] * torch.from_numpy(np.where(exists, np.float64(np.float32(1.7)), 0.0))
    result = (rows * factors[..., None]).sum(-2)
    want_y, want_weights = (g.numpy() for g in torch.autograd.grad(result, exact, torch.from_numpy(grad.astype(float))))
    magnitude, named = np.zeros(y.shape), np.zeros((len(y), 1))
    terms = np.abs(factors.detach().numpy()[..., None] * grad[:, None].astype(np.float64))
    np.add.at(magnitude, slots[exists], terms[exists])
    np.add.at(named, slots[exists], 1)
    assert (np.abs(of_y - want_y) <= (named + 1) * U * magnitude).all()
    assert named.max() == SHAPE[0]
    sums = np.abs(rows.detach().numpy() * grad[:, None] * 1.7).sum(-1) * exists
    assert (np.abs(of_weights - want_weights) <= (SIZE // 128 + 8) * U * sums).all()


def pulled(front_end: str, arrays: list[np.ndarray], grad: np.ndarray, **given: Any) -> list[np.ndarray]:
    """The gradients of y, of the weights, and of shared where it is given."""
    y, slots, *others = arrays
    if front_end == "jax":
        _, pull = jax.vjp(lambda y, *others: m3ops_jax.moe_combine(y, slots, *others, **given), y, *others)
        return [*map(np.asarray, pull(grad))]
    leaves = [to_tensor(array).requires_grad_() for array in (y, *others)]
    result = m3ops_torch.moe_combine(leaves[0], to_tensor(slots), *leaves[1:], **given)
    return [*map(to_numpy, torch.autograd.grad(result, leaves, to_tensor(grad)))]


@pytest.mark.parametrize("front_end", ["torch", "jax"])
def test_a_gradient_without_a_shared_result(front_end: str) -> None:
    """Of rows that several slots name too, and where an example is a single token."""
    for shape in ((7, 4), (4,)):
        arrays = [*inputs(shape, 96, "bfloat16")]
        arrays[1][..., 2] = arrays[1][..., 1]
        grad = gradients((*shape[:-1], 96), "bfloat16")
        assert_same_bytes(pulled(front_end, arrays, grad), reference("moe_combine_backward", *arrays, grad))


@pytest.mark.parametrize("front_end", ["torch", "jax"])
@pytest.mark.parametrize(("dtype", "of_shared"), [*product(ACTIVATION_DTYPES, ACTIVATION_DTYPES)])
def test_the_gradient_of_a_shared_result(dtype: str, of_shared: str, front_end: str) -> None:
    """Any number in the dtype of the result, rounded as the specification does to that of the shared one."""
    arrays = [*inputs((18, 2), 64, dtype), shared_of((18, 2), 64, of_shared)]
    grad = np.concatenate((bit_patterns((9, 64), dtype), subnormals((9, 64), dtype)))
    assert_same_bytes(pulled(front_end, arrays, grad)[2:], [fp32.store(fp32.load(grad), of_shared)])


def test_few_rows_and_slots_for_each_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many programs as there are of many rows, and more slots than a program looks at together."""
    op, (y, slots, weights) = EVERY_OP["moe_combine_backward"].of(), inputs((30, 5), 7, "float32")
    slots[3], slots[20, 2], slots[:, 0], slots[8, 1:] = slots[4], slots[21, 2], slots[0, 0], -1
    given = bind(op, (y, slots, weights, gradients((30, 7), "float32")))
    for name, value in {"FEWEST_ROWS": 1, "OWNERS_THREADS": 32, "SLOTS_OF_A_THREAD": 1, "ROWS_TOGETHER": 4}.items():
        monkeypatch.setattr(plan, name, value)
    made = planned(op, given, H100)
    assert [launch.grid for launch in made.launches] == [(75,), (75,), (30 + 38,)]
    assert_same_bytes(interpreted(op, given, made), [*op.reference(given).values()])


def test_more_slots_than_there_are_numbers() -> None:
    op, slots = EVERY_OP["moe_combine_backward"].of(), ArraySpec((2**27, 16), "int32")
    specs = bind(
        op, (ArraySpec((8, 1), "float32"), slots, ArraySpec(slots.shape, "float32"), ArraySpec((2**27, 1), "float32"))
    )
    with pytest.raises(ValueError, match=r"2147483648 slots of 8 rows are more than a kernel numbers \(2\*\*30\)"):
        op.plan({**specs, **op.check(specs)}, Target.named("sm_90"))
