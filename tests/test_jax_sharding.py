"""Sharded rows cost no communication, whichever way JAX is told how they are sharded, and change no byte.

The collectives are counted in the compiled program. The tests run on the GPUs of a machine that has several, else on
the eight CPU devices that conftest.py asks for; both go through the same partitioning.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from compare import assert_same_bytes
from inputs import ROWS_FIRST, jax_function
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from specification import reference
from test_jax import ARGUMENTS, every_op_of_rows

import m3ops_jax
from m3ops.axes import Axes
from m3ops.ops import OPS
from m3ops.testing.arrays import normal
from m3ops_jax._sharding import divide, spec_of, summed_over

DEVICES = jax.devices() if len(jax.devices()) > 1 else jax.devices("cpu")
COLLECTIVE = re.compile(r" (all-gather|all-reduce|all-to-all|collective-\w+|reduce-scatter)(?:-start)?\(")
AUTO, EXPLICIT = AxisType.Auto, AxisType.Explicit
every_kind = pytest.mark.parametrize("kinds", [(AUTO, AUTO), (EXPLICIT, EXPLICIT), (EXPLICIT, AUTO)], ids=str)

pytestmark = pytest.mark.skipif(len(DEVICES) < 2, reason="needs several devices")


def mesh_of(*kinds: AxisType) -> Mesh:
    return jax.make_mesh((len(DEVICES) // 2, 2), ("a", "b"), axis_types=kinds, devices=DEVICES)


def arguments(name: str) -> list[np.ndarray]:
    """Rows enough for every way to shard them: shape [8, 16, N]."""
    return [np.tile(a, (2, 3, 1))[:, :16] if a.ndim == 3 else a for a in ARGUMENTS[name]]


def put(mesh: Mesh, spec: P, *arrays: np.ndarray) -> list[jax.Array]:
    """Shards what has rows; the others, weights, are on every device."""
    return [jax.device_put(a, NamedSharding(mesh, spec if a.ndim == 3 else P())) for a in arrays]


def run(fn: Callable[..., Any], *arrays: Any) -> tuple[Any, Counter[str]]:
    """The results and the collectives of a jitted function."""
    compiled = jax.jit(fn).lower(*arrays).compile()
    return compiled(*arrays), Counter(COLLECTIVE.findall(compiled.as_text()))


def expect(name: str, results: Any, arrays: list[np.ndarray]) -> None:
    assert_same_bytes([*map(np.asarray, jax.tree.leaves(results))], reference(name, *arrays))


def check_rows(name: str, spec: P, kinds: tuple[AxisType, AxisType]) -> None:
    mesh, arrays = mesh_of(*kinds), arguments(name)
    with jax.set_mesh(mesh):
        results, collectives = run(jax_function(name), *put(mesh, spec, *arrays))
    assert not collectives
    expect(name, results, arrays)
    for result in jax.tree.leaves(results):
        assert result.sharding.is_equivalent_to(NamedSharding(mesh, spec), 3)


@every_op_of_rows
@every_kind
def test_rows(name: str, kinds: tuple[AxisType, AxisType]) -> None:
    check_rows(name, P("a", "b"), kinds)


@every_kind
@pytest.mark.parametrize("spec", [P("b"), P(("a", "b")), P(None, ("b", "a")), P("b", "a"), P()], ids=str)
def test_rows_on_any_mesh_axes(kinds: tuple[AxisType, AxisType], spec: P) -> None:
    check_rows("gemma_fused_add_rmsnorm", spec, kinds)


@every_op_of_rows
@pytest.mark.parametrize("kind", [AUTO, EXPLICIT], ids=str)
def test_rows_without_a_mesh_in_context(name: str, kind: AxisType) -> None:
    op, arrays = jax_function(name), arguments(name)
    sharded = put(mesh_of(kind, kind), P("a", "b"), *arrays)
    results, collectives = run(op, *sharded)
    assert not collectives
    expect(name, results, arrays)
    expect(name, op(*sharded), arrays)


@every_op_of_rows
@every_kind
def test_vmap(name: str, kinds: tuple[AxisType, AxisType]) -> None:
    mesh, arrays = mesh_of(*kinds), arguments(name)
    batched = jax.vmap(jax_function(name), tuple(1 if a.ndim == 3 else None for a in arrays), 1)
    with jax.set_mesh(mesh):
        results, collectives = run(batched, *put(mesh, P("a", "b"), *arrays))
    assert not collectives
    expect(name, results, arrays)


@every_op_of_rows
@every_kind
def test_scan(name: str, kinds: tuple[AxisType, AxisType]) -> None:
    mesh, op, arrays = mesh_of(*kinds), jax_function(name), arguments(name)

    def loop(*arrays: jax.Array) -> Any:
        def step(carry: None, rows: tuple[jax.Array, ...]) -> Any:
            left = iter(rows)
            return carry, op(*(next(left) if a.ndim == 3 else a for a in arrays))

        return jax.lax.scan(step, None, tuple(a for a in arrays if a.ndim == 3))[1]

    with jax.set_mesh(mesh):
        results, collectives = run(loop, *put(mesh, P(None, "b"), *arrays))
    assert not collectives
    expect(name, results, arrays)


@every_op_of_rows
@pytest.mark.parametrize(
    ("kind", "manual", "check_vma"),
    [(AUTO, "ab", True), (EXPLICIT, "ab", False), (AUTO, "a", True), (AUTO, "b", False), (EXPLICIT, "b", True)],
)
def test_shard_map(name: str, kind: AxisType, manual: str, check_vma: bool) -> None:
    """Over all mesh axes, and over one with the other left to XLA or to the types."""
    mesh, arrays = mesh_of(kind, kind), arguments(name)
    rows = P(*(n if n in manual else None for n in "ab"))
    mapped = jax.shard_map(
        jax_function(name),
        mesh=mesh,
        in_specs=tuple(rows if a.ndim == 3 else P() for a in arrays),
        out_specs=rows,
        axis_names=set(manual),
        check_vma=check_vma,
    )
    with jax.set_mesh(mesh):
        results, collectives = run(mapped, *put(mesh, P("a", "b"), *arrays))
    assert not collectives
    expect(name, results, arrays)


@every_op_of_rows
def test_shard_map_that_leaves_xla_an_axis_of_one_device(name: str) -> None:
    """XLA has nothing to divide there, and would leave a custom_partitioning as it is."""
    arrays = arguments(name)
    mesh = jax.make_mesh((1, 2), ("a", "b"), axis_types=(AUTO, AUTO), devices=DEVICES[:2])
    rows = tuple(P("b") if a.ndim == 3 else P() for a in arrays)
    mapped = jax.shard_map(
        jax_function(name), mesh=mesh, in_specs=rows, out_specs=P("b"), axis_names={"b"}, check_vma=False
    )
    expect(name, jax.jit(mapped)(*arrays), arrays)


def test_shard_map_over_the_weight_alone() -> None:
    """The result differs between devices although x does not, and JAX's check of that knows."""
    mesh, x, weight = mesh_of(AUTO, AUTO), normal((16, 128), "bfloat16"), normal((2, 128), "float32")

    def mapped(out: P) -> Callable[..., jax.Array]:
        return jax.shard_map(m3ops_jax.gemma_rmsnorm, mesh=mesh, in_specs=(P(), P("b")), out_specs=out)

    result = jax.jit(mapped(P("b")))(x, weight)
    expect("gemma_rmsnorm", result.reshape(2, 16, 128), [np.stack([x, x]), weight[:, None]])
    with pytest.raises(ValueError, match="out_specs"):
        jax.jit(mapped(P()))(x, weight)


whole_last_axis = pytest.mark.parametrize("name", ROWS_FIRST)


@whole_last_axis
def test_a_sharded_last_axis_is_gathered_once(name: str) -> None:
    mesh, op, arrays = mesh_of(AUTO, AUTO), jax_function(name), arguments(name)
    last = [P("a", None, "b") if a.ndim == 3 else P("b") if a.size > 1 else P() for a in arrays]
    sharded = [jax.device_put(a, NamedSharding(mesh, spec)) for a, spec in zip(arrays, last, strict=True)]
    results, collectives = run(op, *sharded)
    assert set(collectives) == {"all-gather"}
    assert collectives["all-gather"] <= len(arrays)
    expect(name, results, arrays)


@whole_last_axis
def test_a_sharded_last_axis_is_refused_where_types_tell(name: str) -> None:
    mesh, op, arrays = mesh_of(EXPLICIT, EXPLICIT), jax_function(name), arguments(name)
    first = next(iter(OPS[name].inputs))
    sharded = put(mesh, P("a", None, "b"), arrays[0]) + put(mesh, P("a"), *arrays[1:])
    message = rf"{first} must be sharded as P\('a', None, None\), not along its last axis, .* got \w+\[8@a,16,\d+@b\]"
    with pytest.raises(ValueError, match=message):
        jax.jit(op)(*sharded)
    with pytest.raises(ValueError, match=message):
        op(*sharded)
    resharded = [jax.sharding.reshard(sharded[0], NamedSharding(mesh, P("a"))), *sharded[1:]]
    expect(name, op(*resharded), arrays)


@every_kind
def test_the_columns_of_experts_results_are_divided(kinds: tuple[AxisType, AxisType]) -> None:
    """And the tokens: only the rows of y, which any token may want, are whole."""
    mesh, arrays = mesh_of(*kinds), arguments("moe_combine")
    specs = [P(None, "b"), P("a"), P("a"), P("a", None, "b")]
    placed = [jax.device_put(a, NamedSharding(mesh, spec)) for a, spec in zip(arrays, specs, strict=True)]
    with jax.set_mesh(mesh):
        results, collectives = run(jax_function("moe_combine"), *placed)
    assert not collectives
    wanted = NamedSharding(mesh, P("a", None, "b"))  # of an axis of one device XLA says nothing
    assert results.sharding.is_equivalent_to(wanted, results.ndim)
    expect("moe_combine", results, arrays)


def test_inputs_that_are_sharded_differently() -> None:
    """As in jax.numpy: types that contradict each other are refused, an undivided array follows, XLA decides alone."""
    name = "gemma_fused_add_rmsnorm"
    x, residual, weight = arguments(name)
    mesh = mesh_of(EXPLICIT, EXPLICIT)
    (on_b,), (on_a,), (whole,) = put(mesh, P("b"), x), put(mesh, P(None, "b"), residual), put(mesh, P(), residual)
    with pytest.raises(ValueError, match=r"residual must be sharded as P\('b', None, None\)"):
        m3ops_jax.gemma_fused_add_rmsnorm(on_b, on_a, weight)
    results, collectives = run(m3ops_jax.gemma_fused_add_rmsnorm, on_b, whole, weight)
    assert not collectives
    expect(name, results, [x, residual, weight])
    mesh = mesh_of(AUTO, AUTO)
    arrays = [*put(mesh, P("b"), x), *put(mesh, P(None, "b"), residual), *put(mesh, P(), weight)]
    expect(name, jax.jit(m3ops_jax.gemma_fused_add_rmsnorm)(*arrays), [x, residual, weight])


@every_kind
@pytest.mark.parametrize("shape", [(8, 1, 128), (8, 16, 128), (1, 16, 128), (16, 128), (1, 128)])
def test_a_weight_with_rows_of_its_own(kinds: tuple[AxisType, AxisType], shape: tuple[int, ...]) -> None:
    mesh, x, weight = mesh_of(*kinds), arguments("gemma_rmsnorm")[0], normal(shape, "float32")
    names = ("a", "b", None)[-len(shape) :]
    spec = P(*(name if size > 1 else None for name, size in zip(names, shape, strict=True)))
    sharded = [*put(mesh, P("a", "b"), x), jax.device_put(weight, NamedSharding(mesh, spec))]
    with jax.set_mesh(mesh):
        result, collectives = run(m3ops_jax.gemma_rmsnorm, *sharded)
    assert not collectives
    expect("gemma_rmsnorm", result, [x, weight])


@every_kind
def test_vmap_over_the_weight(kinds: tuple[AxisType, AxisType]) -> None:
    mesh, x, weight = mesh_of(*kinds), arguments("gemma_rmsnorm")[0], normal((8, 128), "float32")
    sharded = [*put(mesh, P("a", "b"), x), jax.device_put(weight, NamedSharding(mesh, P("a")))]
    with jax.set_mesh(mesh):
        result, collectives = run(jax.vmap(m3ops_jax.gemma_rmsnorm), *sharded)
    assert not collectives
    expect("gemma_rmsnorm", result, [x, weight[:, None]])


@pytest.mark.parametrize("rows", [1, 3, 13])
def test_rows_that_do_not_divide_evenly(rows: int) -> None:
    mesh, x = mesh_of(AUTO, AUTO), normal((rows, 256), "bfloat16")

    def padded(x: jax.Array) -> Any:
        return m3ops_jax.swiglu_oai_quantize(jax.lax.with_sharding_constraint(x, NamedSharding(mesh, P(("a", "b")))))

    expect("swiglu_oai_quantize", jax.jit(padded)(x), [x])


@every_kind
def test_a_block_of_a_model(kinds: tuple[AxisType, AxisType]) -> None:
    """Tokens are sharded, weights are not: nothing is communicated from the first matrix product to the last norm."""
    mesh, hidden, inner = mesh_of(*kinds), 128, 64
    x, up = normal((8, 16, hidden), "bfloat16"), normal((hidden, 2 * inner), "bfloat16", 0.1)
    down, weight = normal((inner, hidden), "bfloat16", 0.1), normal((hidden,), "float32")

    def block(x: jax.Array, up: jax.Array, down: jax.Array, weight: jax.Array) -> Any:
        quantized = m3ops_jax.swiglu_oai_quantize(x @ up)
        y = m3ops_jax.mxfp8_dequantize(quantized) @ down
        return quantized.values, m3ops_jax.gemma_fused_add_rmsnorm(y, x, weight)

    sharded = put(mesh, P("a", "b"), x, up, down, weight)
    with jax.set_mesh(mesh):
        results, collectives = run(block, *sharded)
    assert not collectives
    results = jax.tree.leaves(results)
    assert all(r.sharding.is_equivalent_to(NamedSharding(mesh, P("a", "b")), 3) for r in results)
    if DEVICES[0].platform == "cpu":  # elsewhere a matrix product may choose its algorithm by the number of rows
        alone = jax.jit(block)(*(jax.device_put(a, DEVICES[0]) for a in (x, up, down, weight)))
        assert_same_bytes([*map(np.asarray, results)], [*map(np.asarray, jax.tree.leaves(alone))])


@every_op_of_rows
def test_an_explicit_mesh_needs_no_devices(name: str) -> None:
    """A program for devices that this machine does not have."""
    op, arrays = jax_function(name), arguments(name)
    mesh = AbstractMesh((2, 2), ("a", "b"), axis_types=(EXPLICIT, EXPLICIT))
    avals = [
        jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=NamedSharding(mesh, P("a", "b") if a.ndim == 3 else P()))
        for a in arrays
    ]
    assert jax.export.export(jax.jit(op), platforms=["cpu"])(*avals).nr_devices == 4


NORM = Axes.of("*r N!, *r? N! -> *r N!")


def test_the_factors_of_rows() -> None:
    def inputs(*shapes: tuple[int, ...]) -> list[tuple[str | None, ...]]:
        return NORM.of_arrays(shapes)[0]

    assert inputs((4, 2, 64), (64,)) == [("r0", "r1", None), (None,)]
    assert inputs((4, 2, 64), (4, 1, 64)) == [("r0", "r1", None), ("r0", None, None)]
    assert inputs((4, 2, 64), (2, 64)) == [("r0", "r1", None), ("r1", None)]
    assert inputs((64,), (64,)) == [(None,), (None,)]
    matrices = Axes.of("*r M! N!, *r? N! -> *r M! N!")
    assert matrices.of_arrays([(4, 2, 64), (64,)]) == ([("r0", None, None), (None,)], [("r0", None, None)])
    backward = Axes.of("*r N!, *r? N!, *r N! -> *r N!, *r?+ N!")
    _, results = backward.of_arrays([(4, 2, 64), (2, 64), (4, 2, 64)])
    assert results == [("r0", "r1", None), ("r1", None)]
    assert summed_over(results[0], {"r0": "a", "r1": ("b", "c")}) == ()
    assert summed_over(results[1], {"r0": ("a", "d"), "r1": ("b", "c")}) == ("a", "d")


def test_the_first_array_that_divides_a_factor_decides() -> None:
    axes = Axes.of("*r N!, *r N!, *r? N! -> *r N!")
    inputs, results = axes.of_arrays([(4, 2, 64), (4, 2, 64), (64,)])

    def division(*specs: P) -> dict[str, Any]:
        return dict(divide([*inputs, *results], specs))

    assert division(P(None, "b"), P("a", "c"), P("d"), P()) == {"r0": "a", "r1": "b"}
    # A mesh axis divides one factor.
    assert division(P("a"), P(None, "a"), P(), P(None, "b")) == {"r0": "a", "r1": "b"}
    assert spec_of(inputs[0], {"r0": ("a", "b")}) == P(("a", "b"), None, None)
