"""Gradients under JAX's transforms, and of sharded rows."""

from __future__ import annotations

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compare import assert_same_bytes
from differentiable import DIFFERENTIABLE, arguments, every_differentiable_op, expected, floats, places
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from test_jax import equations, same
from test_jax_sharding import DEVICES, every_kind, mesh_of, put, run

import m3ops_jax
from m3ops.axes import Axes
from m3ops.ops import OPS
from m3ops.testing.arrays import normal

several_devices = pytest.mark.skipif(len(DEVICES) < 2, reason="needs several devices")


def loss(name: str) -> Any:
    """A function of all inputs whose cotangents differ from element to element."""

    def of(*arrays: jax.Array) -> jax.Array:
        results = floats(getattr(m3ops_jax, name)(*arrays))
        weights = [jnp.arange(r.size, dtype=jnp.float32).reshape(r.shape) % 7 - 2.5 for r in results]
        return sum(jnp.sum(r.astype(jnp.float32) * w) for r, w in zip(results, weights, strict=True))  # type: ignore[return-value]

    return of


def gradients(name: str) -> Any:
    return jax.grad(loss(name), places(arguments(name)))


def of_loss(name: str, inputs: Any) -> tuple[np.ndarray, ...]:
    """The cotangents that ``loss`` gives the results."""
    results = jax.eval_shape(getattr(m3ops_jax, name), *inputs)
    return tuple((np.arange(r.size) % 7 - 2.5).reshape(r.shape).astype(r.dtype) for r in floats(results))


def want(name: str, inputs: Any) -> list[np.ndarray]:
    """The specification's gradients of ``loss``."""
    return expected(name, inputs, of_loss(name, inputs))


def check(got: Any, wanted: list[np.ndarray]) -> None:
    assert_same_bytes([*map(np.asarray, got)], wanted)


def check_in_parts(got: Any, name: str, inputs: Any, grads: Any, parts: tuple[int, int]) -> None:
    """Gradients of rows in ``parts[0]`` x ``parts[1]`` parts: of the rows to the byte, of a weight a sum of the parts'.

    Those are added in an order that is XLA's: each addition rounds by at most 2**-24 of a sum that is no larger than
    that of the magnitudes.
    """

    def part(arrays: Any, i: int, j: int) -> tuple[np.ndarray, ...]:
        cut = [np.array_split(a, parts[0])[i] if a.ndim == 3 else a for a in arrays]
        return tuple(np.array_split(a, parts[1], axis=1)[j] if a.ndim == 3 else a for a in cut)

    each = [expected(name, part(inputs, i, j), part(grads, i, j)) for i, j in np.ndindex(parts)]
    rounding = (len(each) - 1) * 2.0**-24
    for number, exact in enumerate(expected(name, inputs, grads)):
        if exact.ndim == 3:
            assert_same_bytes([np.asarray(got[number])], [exact])
        else:
            summands = np.stack([result[number] for result in each]).astype(np.float64)
            error = np.abs(np.asarray(got[number], np.float64) - summands.sum(0))
            assert (error <= rounding / (1 - rounding) * np.abs(summands).sum(0)).all()


@every_differentiable_op
def test_numerical_gradients(name: str) -> None:
    """Coarse, as differences of fp32 results are; bounds against float64 are in test_gradients.py."""
    inputs = [jnp.asarray(a[0, :3, ...] if a.ndim == 3 else a) for a in arguments(name, "float32")]

    def of_floats(*arrays: jax.Array) -> jax.Array:
        given = dict(zip(places(inputs), arrays, strict=True))
        return loss(name)(*(given.get(place, array) for place, array in enumerate(inputs)))

    chex.assert_numerical_grads(of_floats, floats(inputs), 1, modes=("rev",), atol=0.02, rtol=0.02)


@every_differentiable_op
def test_transforms_give_the_same_bytes(name: str) -> None:
    inputs = arguments(name)
    wanted = want(name, inputs)
    with jax.disable_jit():
        check(gradients(name)(*inputs), wanted)
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        check(jax.jit(gradients(name))(*inputs), wanted)
    with jax.enable_x64(True):
        check(jax.jit(jax.grad(jax.checkpoint(loss(name)), places(inputs)))(*inputs), wanted)


@every_differentiable_op
def test_vmap_of_grad_is_one_call(name: str) -> None:
    inputs = arguments(name)
    in_axes = tuple(0 if a.ndim == 3 else None for a in inputs)
    batched = jax.vmap(gradients(name), in_axes)
    each = [want(name, [a[i] if a.ndim == 3 else a for a in inputs]) for i in range(5)]
    check(jax.jit(batched)(*inputs), [np.stack(g) for g in zip(*each, strict=True)])
    calls = [e.primitive.name for e in equations(jax.make_jaxpr(batched)(*inputs).jaxpr)]
    derivative = OPS[name].of().derivative
    assert derivative is not None
    assert calls.count(derivative.op.name) == 1


def test_nested_vmap_of_grad_over_x_and_weight() -> None:
    x, weight = normal((3, 4, 6, 64), "bfloat16"), normal((4, 64), "float32")
    inner = jax.vmap(gradients("gemma_rmsnorm"), (0, 0))
    got = jax.jit(jax.vmap(inner, (0, None)))(x, weight)
    for i in range(3):
        for j in range(4):
            check([g[i, j] for g in got], want("gemma_rmsnorm", (x[i, j], weight[j])))


@every_differentiable_op
def test_grad_of_vmap(name: str) -> None:
    """A shared weight's gradient is a sum of those of the examples."""
    inputs = arguments(name)

    def op(*arrays: jax.Array) -> Any:
        return floats(getattr(m3ops_jax, name)(*arrays))

    batched = jax.vmap(op, tuple(0 if a.ndim == 3 else None for a in inputs))
    results, pull = jax.vjp(batched, *inputs)
    same(results, op(*inputs))
    pulled = [gradient for gradient in pull(results) if gradient.dtype != jax.dtypes.float0]
    check_in_parts(pulled, name, inputs, tuple(map(np.asarray, jax.tree.leaves(results))), (5, 1))


PAIRS = [{"groups": 4}, {"layout": "interleaved"}, {"layout": "interleaved", "groups": 2}]


@pytest.mark.parametrize("given", PAIRS, ids=str)
def test_gates_and_ups_that_lie_otherwise(given: dict[str, Any]) -> None:
    """The gradient of one pair ``[gate | up]`` is where that lies, alone and under vmap on either side of it."""
    (gate_up,) = arguments("swiglu_oai")
    grad = normal((5, 6, 64), "bfloat16", 0.5)
    op = functools.partial(m3ops_jax.swiglu_oai, **given)

    def plain(array: np.ndarray) -> np.ndarray:
        pairs = array.reshape(5, 6, given.get("groups", 1), -1)
        alternating = pairs.reshape(*pairs.shape[:-1], -1, 2).swapaxes(-1, -2).reshape(pairs.shape)
        return alternating if "layout" in given else pairs

    def pull(op: Any, gate_up: jax.Array, grad: jax.Array) -> Any:
        return jax.vjp(op, gate_up)[1](grad)[0]

    (wanted,) = expected("swiglu_oai", (plain(gate_up),), (grad.reshape(*plain(gate_up).shape[:-1], -1),))
    of_grad = jax.vmap(functools.partial(pull, op), 1, 1)
    both = jax.jit(lambda *arrays: (of_grad(*arrays), pull(jax.vmap(op, 1, 1), *arrays)))
    check(map(plain, map(np.asarray, both(gate_up, grad))), [wanted, wanted])
    calls = [e.primitive.name for e in equations(jax.make_jaxpr(of_grad)(gate_up, grad).jaxpr)]
    assert calls.count("swiglu_oai_backward") == 1


def test_inside_scan() -> None:
    weights, x = normal((3, 64), "float32", 0.3), normal((5, 64), "float32")

    def scanned(x: Any, weights: Any) -> Any:
        return jnp.sum(jax.lax.scan(lambda x, w: (m3ops_jax.gemma_rmsnorm(x, w), None), x, weights)[0] ** 2)

    def unrolled(x: Any, weights: Any) -> Any:
        for weight in weights:
            x = m3ops_jax.gemma_rmsnorm(x, weight)
        return jnp.sum(x**2)

    of_x, of_weights = jax.grad(unrolled, (0, 1))(x, list(weights))  # eagerly: one compilation serves all three
    same(jax.jit(jax.grad(scanned, (0, 1)))(x, weights), (of_x, jnp.stack(of_weights)))
    assert np.asarray(of_weights).all()


@every_differentiable_op
def test_forward_mode_is_refused(name: str) -> None:
    inputs = [*map(jnp.asarray, arguments(name))]
    tangents = [a if floats(a) else np.zeros(a.shape, jax.dtypes.float0) for a in inputs]
    op = getattr(m3ops_jax, name)
    with pytest.raises(TypeError, match=f"{name} has no forward-mode derivative .* reverse mode"):
        jax.jvp(op, inputs, tangents)
    with pytest.raises(TypeError, match=f"{name} has no forward-mode derivative"):
        jax.jacfwd(op)(*inputs)
    with pytest.raises(TypeError, match="can't apply forward-mode"):  # JAX's own words: it works on a program then
        jax.jvp(jax.jit(op), inputs, tangents)


@every_differentiable_op
def test_a_derivative_with_num_rows_is_refused(name: str) -> None:
    first, *others = map(jnp.asarray, arguments(name))
    counted = functools.partial(getattr(m3ops_jax, name), num_rows=jnp.array([3], jnp.int32))
    with pytest.raises(NotImplementedError, match=f"{name} has no derivative with num_rows; define one with jax.cust"):
        jax.vjp(lambda x: counted(x, *others), first)


# --- sharded rows ----------------------------------------------------------------------------------------------------


def sharded_arguments(name: str) -> list[np.ndarray]:
    return [*arguments(name, rows=(8, 16))]


def axes_of_gradient(name: str) -> Axes:
    derivative = OPS[name].of().derivative
    assert derivative is not None
    return derivative.op.axes


def gathered(name: str) -> int:
    """How many operands a gradient needs the rows of that are divided."""
    axes = axes_of_gradient(name)
    return sum(operand.rows for operand in axes.inputs) if axes.gathers_rows else 0


@several_devices
@every_differentiable_op
@every_kind
def test_sharded_rows(name: str, kinds: tuple[AxisType, AxisType]) -> None:
    """No communication but one all-reduce of a weight's gradient, and what gathers the rows where all are needed."""
    mesh, arrays = mesh_of(*kinds), sharded_arguments(name)
    with jax.set_mesh(mesh):
        got, collectives = run(gradients(name), *put(mesh, P("a", "b"), *arrays))
    assert collectives.pop("all-gather", 0) <= gathered(name) * len(mesh.axis_names)
    assert dict(collectives) == ({"all-reduce": 1} if axes_of_gradient(name).sums_rows else {})
    check_in_parts(got, name, arrays, of_loss(name, arrays), mesh.axis_sizes)
    if gathered(name) and AxisType.Auto in kinds:
        return  # each device has all of them, and XLA leaves them there
    for gradient in got:
        rows = P("a", "b") if gradient.ndim == 3 else P()
        assert gradient.sharding.is_equivalent_to(NamedSharding(mesh, rows), gradient.ndim)


@several_devices
@every_differentiable_op
@every_kind
def test_sharded_examples(name: str, kinds: tuple[AxisType, AxisType]) -> None:
    """A loop over the examples, where one is needed, has all of them on each device."""
    mesh, arrays = mesh_of(*kinds), sharded_arguments(name)
    axes = [0 if array.ndim == 3 else None for array in arrays]
    with jax.set_mesh(mesh):
        got = [*map(np.asarray, jax.jit(jax.vmap(gradients(name), axes))(*put(mesh, P("a"), *arrays)))]
    for i in range(8):
        check([gradient[i] for gradient in got], want(name, [a[i] if a.ndim == 3 else a for a in arrays]))


@several_devices
@every_differentiable_op
def test_a_sharded_last_axis_is_gathered_once(name: str) -> None:
    mesh, arrays = mesh_of(AxisType.Auto, AxisType.Auto), sharded_arguments(name)
    specs = [P("a", None, "b") if a.ndim == 3 else P("b") for a in arrays]
    sharded = [jax.device_put(a, NamedSharding(mesh, spec)) for a, spec in zip(arrays, specs, strict=True)]
    got, collectives = run(gradients(name), *sharded)
    assert collectives["all-gather"] <= len(arrays) + gathered(name)
    assert collectives["all-reduce"] <= axes_of_gradient(name).sums_rows
    assert set(collectives) <= {"all-gather", "all-reduce"}
    check_in_parts(got, name, arrays, of_loss(name, arrays), (mesh.shape["a"], 1))


@several_devices
@every_kind
def test_sharded_heads_with_weights_of_their_own(kinds: tuple[AxisType, AxisType]) -> None:
    """Over the heads nothing is summed; the weight is sharded as they are, or whole."""
    x, weight = normal((8, 4, 64), "bfloat16"), normal((4, 64), "float32")
    mesh = mesh_of(*kinds)
    for spec in (P("b"), P()):
        sharded = put(mesh, P("a", "b"), x) + [jax.device_put(weight, NamedSharding(mesh, spec))]
        with jax.set_mesh(mesh):
            got, collectives = run(gradients("gemma_rmsnorm"), *sharded)
        assert collectives["all-reduce"] == (mesh.shape["a"] > 1)
        assert set(collectives) <= {"all-reduce", "all-gather"}
        assert spec != P("b") or "all-gather" not in collectives
        # One head, one row of the weight: each is a call of its own.
        for head in range(4):
            own = x[:, head : head + 1], weight[head]
            grads = (of_loss("gemma_rmsnorm", (x, weight))[0][:, head : head + 1],)
            of_head = np.asarray(got[0])[:, head : head + 1], np.asarray(got[1])[head]
            check_in_parts(of_head, "gemma_rmsnorm", own, grads, (mesh.shape["a"], 1))


@several_devices
@pytest.mark.parametrize("name", DIFFERENTIABLE)
@pytest.mark.parametrize("check_vma", [True, False])
def test_grad_inside_and_around_shard_map(name: str, check_vma: bool) -> None:
    mesh, arrays = mesh_of(AxisType.Auto, AxisType.Auto), sharded_arguments(name)
    rows = tuple(P("a", "b") if a.ndim == 3 else P() for a in arrays)
    op = getattr(m3ops_jax, name)

    def total(*arrays: jax.Array) -> Any:
        mapped = jax.shard_map(op, mesh=mesh, in_specs=rows, out_specs=P("a", "b"), check_vma=check_vma)
        results = jax.tree.leaves(mapped(*arrays))
        return sum(jnp.sum(r.astype(jnp.float32) * (jnp.arange(r.size).reshape(r.shape) % 7 - 2.5)) for r in results)

    with jax.set_mesh(mesh):
        got, collectives = run(jax.grad(total, places(arrays)), *put(mesh, P("a", "b"), *arrays))
    assert set(collectives) <= {"all-reduce"}
    check_in_parts(got, name, arrays, of_loss(name, arrays), mesh.axis_sizes)
