"""SwiGLU-OAI of gates and ups in two arrays: the bytes of one array that has both, forward and backward."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from compare import assert_same_bytes
from differentiable import arguments, cotangents, expected
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from specification import reference
from test_gradients import of_jax, of_torch
from test_jax_sharding import every_kind, mesh_of, put, run

import m3ops_jax
import m3ops_torch
from m3ops.testing.arrays import normal
from m3ops.testing.cases import CASES
from m3ops.tools.run import to_numpy, to_tensor

ACTIVATIONS = ("swiglu_oai", "swiglu_oai_quantize", "swiglu_oai_fake_quant")
ONE_ARRAY = [
    case
    for case in CASES
    if case.op in ACTIVATIONS and len(case.operands()) == 1 and not {"groups", "layout"} & case.given.keys()
]
DIFFERENTIABLE = pytest.mark.parametrize("name", ["swiglu_oai", "swiglu_oai_fake_quant"])


def halves(gate_up: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gates and ups, each contiguous."""
    gate, up = np.split(gate_up, 2, axis=-1)
    return gate.copy(), up.copy()


@pytest.mark.parametrize("case", ONE_ARRAY, ids=lambda case: case.id)
def test_two_arrays_have_the_bytes_of_one(case: Any) -> None:
    (gate_up,) = case.make()
    assert_same_bytes([*reference(case.op, *halves(gate_up), **case.given)], [*case.expected()])


@DIFFERENTIABLE
@pytest.mark.parametrize("given", [{}, {"alpha": 1.3, "beta": -0.5, "limit": None}], ids=str)
def test_gradients_are_the_halves_of_one(name: str, given: dict[str, Any]) -> None:
    (gate_up,) = arguments(name)
    grads = cotangents(name, (gate_up,), **given)
    want = [*halves(*expected(name, (gate_up,), grads, **given))]
    assert_same_bytes(expected(name, halves(gate_up), grads, **given), want)
    assert_same_bytes(of_jax(name, halves(gate_up), grads, **given), want)
    assert_same_bytes(of_torch(name, halves(gate_up), grads, **given), want)


@DIFFERENTIABLE
@pytest.mark.parametrize("which", [0, 1], ids=["gate", "up"])
def test_the_gradient_of_one_of_them(name: str, which: int) -> None:
    (gate_up,) = arguments(name)
    arrays, grads = halves(gate_up), cotangents(name, (gate_up,))
    want = expected(name, arrays, grads)[which]
    weights = jnp.asarray(grads[0])
    loss = jax.jit(jax.grad(lambda *a: jnp.sum(getattr(m3ops_jax, name)(*a) * weights), which))
    assert_same_bytes([np.asarray(loss(*arrays))], [want])
    tensors = [to_tensor(array).requires_grad_(place == which) for place, array in enumerate(arrays)]
    getattr(m3ops_torch, name)(*tensors).backward(to_tensor(grads[0]))
    assert_same_bytes([to_numpy(tensors[which].grad)], [want])
    assert tensors[1 - which].grad is None


def test_compiled_gradients() -> None:
    (gate_up,) = arguments("swiglu_oai")
    (grad,) = cotangents("swiglu_oai", (gate_up,))
    tensors = [to_tensor(array).requires_grad_() for array in halves(gate_up)]
    compiled = torch.compile(lambda gate, up: m3ops_torch.swiglu_oai(gate, up=up), fullgraph=True, backend="aot_eager")
    compiled(*tensors).backward(to_tensor(grad))
    assert_same_bytes([to_numpy(t.grad) for t in tensors], expected("swiglu_oai", halves(gate_up), (grad,)))


@pytest.mark.parametrize("mapped", [(0, 0), (0, None), (None, 0)], ids=str)
def test_vmap(mapped: tuple[int | None, int | None]) -> None:
    arrays = normal((3, 5, 64), "bfloat16", 2.0), normal((3, 5, 64), "bfloat16", 3.0)
    given = tuple(array if own == 0 else array[0] for array, own in zip(arrays, mapped, strict=True))
    whole = tuple(np.broadcast_to(array, (3, 5, 64)) for array in given)
    want = [*reference("swiglu_oai", *whole)]
    assert_same_bytes([np.asarray(jax.vmap(m3ops_jax.swiglu_oai, mapped)(*given))], want)
    in_torch = torch.func.vmap(m3ops_torch.swiglu_oai, mapped)(*map(to_tensor, given))
    assert_same_bytes([to_numpy(in_torch)], want)


@every_kind
def test_the_last_axis_is_divided(kinds: tuple[AxisType, AxisType]) -> None:
    """As tensor parallelism divides the two projections: neither the op nor its gradient communicates."""
    arrays = normal((8, 16, 128), "bfloat16", 2.0), normal((8, 16, 128), "bfloat16", 3.0)
    grad = normal((8, 16, 128), "bfloat16", 0.5)

    def with_gradients(gate: jax.Array, up: jax.Array, grad: jax.Array) -> Any:
        result, pull = jax.vjp(m3ops_jax.swiglu_oai, gate, up)
        return result, *pull(grad)

    mesh = mesh_of(*kinds)
    with jax.set_mesh(mesh):
        results, collectives = run(with_gradients, *put(mesh, P("a", None, "b"), *arrays, grad))
    assert not collectives
    want = [*reference("swiglu_oai", *arrays), *expected("swiglu_oai", arrays, (grad,))]
    assert_same_bytes([*map(np.asarray, results)], want)
    assert {result.sharding.spec for result in results} == {P("a", None, "b")}


def test_memory_for_the_result() -> None:
    gate, up = map(to_tensor, halves(normal((5, 128), "bfloat16", 2.0)))
    out = torch.empty_like(gate)
    assert m3ops_torch.swiglu_oai(gate, up, out=out) is out
    assert torch.equal(out, m3ops_torch.swiglu_oai(torch.cat([gate, up], -1)))
    with pytest.raises(ValueError, match="out must not overlap up"):
        m3ops_torch.swiglu_oai(gate, up, out=up)


@pytest.mark.parametrize("rows", [0, 5])
def test_counted_rows(rows: int) -> None:
    gate_up, number = normal((9, 128), "bfloat16", 2.0), np.array([rows], np.int32)
    want = reference("swiglu_oai_quantize", gate_up, None, None, number)
    in_jax = partial(m3ops_jax.swiglu_oai_quantize, num_rows=number)(*halves(gate_up))
    assert_same_bytes([*map(np.asarray, in_jax)], [*want])
