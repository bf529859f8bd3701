"""The ops that have a gradient, arguments for them, and what the specification says it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from inputs import call_of
from specification import reference

from m3ops.ops import OPS
from m3ops.ops.moe.cases_combine import permuted
from m3ops.testing.arrays import normal
from m3ops.testing.case import operands
from m3ops.tools.run import flat

Array = np.ndarray
DIFFERENTIABLE = [name for name in OPS if call_of(name).derivative]
every_differentiable_op = pytest.mark.parametrize("name", DIFFERENTIABLE)


def arguments(name: str, dtype: str = "bfloat16", rows: tuple[int, ...] = (5, 6)) -> tuple[Array, ...]:
    """Inputs of rows of 64 elements. What has no rows has fewer axes than what does."""
    given = {"x": normal((*rows, 64), dtype), "residual": normal((*rows, 64), dtype, 2.0)}
    given |= {"gate_up": normal((*rows, 128), dtype, 3.0), "weight": normal((64,), "float32", 0.5)}
    given |= {"logits": normal((*rows, 64), dtype), "bias": normal((64,), "float32", 0.5)}
    given |= {"w": normal((48, 64), "float32", 0.5)}
    slots = permuted((*rows, 4))  # all but the first of them name one row each, and so not all rows are named
    given |= {"y": normal((slots.size, 64), dtype), "slots": np.where(slots == slots[0, 0, 0], np.int32(-1), slots)}
    given |= {"weights": normal((*rows, 4), "float32"), "shared": normal((*rows, 64), dtype)}
    return tuple(given[input_name] for input_name in OPS[name].inputs if input_name in given)


def floats(results: Any) -> list[Any]:
    """Those of an op's inputs or results that have gradients, of either framework."""
    return [result for result in flat(results) if "float" in str(result.dtype)]


def places(arrays: Any) -> tuple[int, ...]:
    """Which of them these are."""
    return tuple(place for place, array in enumerate(arrays) if "float" in str(array.dtype))


def cotangents(name: str, inputs: tuple[Array, ...], **given: Any) -> tuple[Array, ...]:
    """Gradients of the results, rows in another order than those of the inputs, of which they would be multiples."""
    results = floats(reference(name, *inputs, **given))
    return tuple(np.roll(normal(r.shape, r.dtype.name, 0.5 + i), 1, axis=0) for i, r in enumerate(results))


def expected(name: str, inputs: tuple[Array, ...], grads: tuple[Array, ...], **given: Any) -> list[Array]:
    """The specification's gradients of all inputs that are floats, zeros of one that only decides a choice."""
    derivative = OPS[name].of(**given).derivative
    assert derivative is not None
    named = operands(OPS[name], inputs)
    results = derivative.op.reference(derivative.operands(named, grads))
    gradients = {argument: results[of] for argument, of in derivative.gradients.items() if argument in named}
    gradients |= dict.fromkeys(derivative.added, grads[0])
    every = [gradients.get(argument, np.zeros_like(array)).astype(array.dtype) for argument, array in named.items()]
    return [every[place] for place in places(inputs)]
