"""The ops that have a gradient, arguments for them, and what the specification says it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from specification import reference

from m3ops.op import bind
from m3ops.ops import OPS
from m3ops.testing.arrays import normal
from m3ops.tools.run import flat

Array = np.ndarray
DIFFERENTIABLE = [name for name, op in OPS.items() if op.of().derivative]
every_differentiable_op = pytest.mark.parametrize("name", DIFFERENTIABLE)


def arguments(name: str, dtype: str = "bfloat16") -> tuple[Array, ...]:
    """Inputs of [5, 6, 64] rows."""
    rows = {"x": normal((5, 6, 64), dtype), "residual": normal((5, 6, 64), dtype, 2.0)}
    given = rows | {"gate_up": normal((5, 6, 128), dtype, 3.0), "weight": normal((64,), "float32", 0.5)}
    given |= {"logits": normal((5, 6, 64), dtype), "bias": normal((64,), "float32", 0.5)}
    return tuple(given[input_name] for input_name in OPS[name].inputs)


def floats(results: Any) -> list[Any]:
    """Those of an op's results that have gradients, of either framework."""
    return [result for result in flat(results) if "float" in str(result.dtype)]


def cotangents(name: str, inputs: tuple[Array, ...], **given: Any) -> tuple[Array, ...]:
    """Gradients of the results, rows in another order than those of the inputs, of which they would be multiples."""
    results = floats(reference(name, *inputs, **given))
    return tuple(np.roll(normal(r.shape, r.dtype.name, 0.5 + i), 1, axis=0) for i, r in enumerate(results))


def expected(name: str, inputs: tuple[Array, ...], grads: tuple[Array, ...], **given: Any) -> list[Array]:
    """The specification's gradients of all inputs, zeros of one that only decides a choice."""
    derivative = OPS[name].of(**given).derivative
    assert derivative is not None
    results = derivative.op.reference(bind(derivative.op, (*inputs, *grads)))
    of = derivative.gradients
    arrays = zip(OPS[name].inputs, inputs, strict=True)
    return [results[of[argument]] if argument in of else np.zeros_like(array) for argument, array in arrays]
