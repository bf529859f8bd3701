"""``groups``: a last axis that tensor parallelism divides, ``[gate | up]`` on each shard, is computed where it lies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compare import assert_same_bytes
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from specification import reference
from test_jax import equations, same
from test_jax_sharding import AUTO, DEVICES, EXPLICIT, every_kind, mesh_of, run

import m3ops_jax
from m3ops.testing.arrays import normal

GROUPS = 2 * (len(DEVICES) // 2)
X = normal((8, 16, 128 * GROUPS), "bfloat16", 2.0)

grouped_op = pytest.mark.parametrize("name", ["swiglu_oai", "swiglu_oai_quantize"])
pytestmark = pytest.mark.skipif(len(DEVICES) < 2, reason="needs several devices")


def grouped(name: str, groups: int = GROUPS) -> Callable[[Any], Any]:
    return lambda x: getattr(m3ops_jax, name)(x, groups=groups)


def expect(name: str, results: Any, groups: int = GROUPS) -> None:
    assert_same_bytes([*map(np.asarray, jax.tree.leaves(results))], reference(name, X, groups=groups))


@grouped_op
@every_kind
@pytest.mark.parametrize("spec", [P("a", None, "b"), P(None, "b", "a")], ids=str)
def test_a_sharded_last_axis(name: str, kinds: tuple[AxisType, AxisType], spec: P) -> None:
    mesh = mesh_of(*kinds)
    sharded = jax.device_put(X, NamedSharding(mesh, spec))
    for op in (grouped(name), jax.vmap(grouped(name), 1, 1)):
        with jax.set_mesh(mesh):
            results, collectives = run(op, sharded)
        assert not collectives
        expect(name, results)
        for result in jax.tree.leaves(results):
            assert result.sharding.is_equivalent_to(NamedSharding(mesh, spec), 3)


@grouped_op
@pytest.mark.parametrize("kind", [AUTO, EXPLICIT], ids=str)
def test_over_every_mesh_axis_and_eagerly(name: str, kind: AxisType) -> None:
    sharded = jax.device_put(X, NamedSharding(mesh_of(kind, kind), P(None, None, ("a", "b"))))
    results, collectives = run(grouped(name), sharded)
    assert not collectives
    expect(name, results)
    expect(name, grouped(name)(sharded))


@grouped_op
@pytest.mark.parametrize("kind", [AUTO, EXPLICIT], ids=str)
@pytest.mark.parametrize("manual", ["ab", "b"])
def test_shard_map(name: str, kind: AxisType, manual: str) -> None:
    """Each device has its own groups: one where as many devices as groups divide the axis, else several."""
    mesh = mesh_of(kind, kind)
    spec = P("a" if "a" in manual else None, None, "b")
    mapped = jax.shard_map(grouped(name, GROUPS // 2), mesh=mesh, in_specs=spec, out_specs=spec, axis_names=set(manual))
    with jax.set_mesh(mesh):
        results, collectives = run(mapped, jax.device_put(X, NamedSharding(mesh, P("a", None, "b"))))
    assert not collectives
    expect(name, results)


@every_kind
def test_tensor_parallel_layer(kinds: tuple[AxisType, AxisType]) -> None:
    """Column-parallel, activation, row-parallel: the one collective is the sum of the second matrix product."""
    mesh, hidden, inner = mesh_of(*kinds), 64, 64 * GROUPS
    x, up = normal((8, 16, hidden), "bfloat16"), normal((hidden, 2 * inner), "bfloat16")
    down, rows = normal((inner, hidden), "bfloat16"), P("a")
    placed = [jax.device_put(a, NamedSharding(mesh, s)) for a, s in ((x, rows), (up, P(None, "b")), (down, P("b")))]

    def layer(x: jax.Array, up: jax.Array, down: jax.Array) -> Any:
        quantized = grouped("swiglu_oai_quantize")(x @ up)
        act = grouped("swiglu_oai")(x @ up)
        y = jnp.einsum("bti,ih->bth", act, down, out_sharding=rows if EXPLICIT in kinds else None)
        return quantized, y

    with jax.set_mesh(mesh):
        (quantized, _), collectives = run(layer, *placed)
    assert collectives == {"all-reduce": 1}
    for result in quantized:
        assert result.sharding.is_equivalent_to(NamedSharding(mesh, P("a", None, "b")), 3)


@every_kind
def test_gradients(kinds: tuple[AxisType, AxisType]) -> None:
    """That of a weight is summed over the devices that divide the rows, and nothing else is communicated."""
    mesh = mesh_of(*kinds)
    x, up = normal((8, 16, 64), "bfloat16"), normal((64, X.shape[-1]), "bfloat16")
    grad = normal((*X.shape[:-1], X.shape[-1] // 2), "bfloat16", 0.5)
    specs = [(X, P("a", None, "b")), (grad, P("a", None, "b")), (x, P("a")), (up, P(None, "b"))]
    gate_up, sharded_grad, *layer = (jax.device_put(a, NamedSharding(mesh, spec)) for a, spec in specs)

    def of_gate_up(gate_up: jax.Array, grad: jax.Array) -> Any:
        return jax.vjp(grouped("swiglu_oai"), gate_up)[1](grad)

    def of_up(x: jax.Array, up: jax.Array, grad: jax.Array) -> Any:
        return jax.vjp(lambda up: grouped("swiglu_oai")(x @ up), up)[1](grad)

    with jax.set_mesh(mesh):
        (result,), collectives = run(of_gate_up, gate_up, sharded_grad)
        (of_weight,), of_weight_collectives = run(of_up, *layer, sharded_grad)
    assert not collectives
    assert_same_bytes([np.asarray(result)], reference("swiglu_oai_backward", X, grad, groups=GROUPS))
    assert result.sharding.is_equivalent_to(gate_up.sharding, 3)
    assert of_weight_collectives == ({"all-reduce": 1} if mesh.shape["a"] > 1 else {})
    assert of_weight.sharding.is_equivalent_to(layer[1].sharding, 2)


@grouped_op
def test_groups_are_calls_of_their_own_in_one_launch(name: str) -> None:
    alone = [grouped(name, 1)(x) for x in np.split(X, GROUPS, axis=-1)]
    together = grouped(name)(X)
    same(together, jax.tree.map(lambda *parts: np.concatenate([*map(np.asarray, parts)], -1), *alone))
    calls = [e for e in equations(jax.make_jaxpr(grouped(name))(X).jaxpr) if e.primitive.name == name]
    assert len(calls) == 1


def test_groups_that_devices_do_not_divide() -> None:
    """Automatic meshes communicate, explicit ones refuse, and the bytes stay right."""
    x = normal((8, 16, 3 * 128), "bfloat16", 2.0)
    (expected,) = reference("swiglu_oai", x, groups=3)
    spec = P(None, None, "b")
    on_auto = jax.device_put(x, NamedSharding(mesh_of(AUTO, AUTO), spec))
    assert_same_bytes([np.asarray(jax.jit(grouped("swiglu_oai", 3))(on_auto))], [expected])
    on_explicit = jax.device_put(x, NamedSharding(mesh_of(EXPLICIT, EXPLICIT), spec))
    message = r"groups must be a multiple of 2, .* that divide .* of gate_up, got 3 and bf16\[8,16,384@b\]"
    for op in (grouped("swiglu_oai", 3), jax.jit(grouped("swiglu_oai", 3))):
        with pytest.raises(ValueError, match=message):
            op(on_explicit)
