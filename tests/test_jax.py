"""What is particular to the JAX front end: transforms, tracing, 64-bit mode."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import parameterized
from compare import assert_same_bytes
from inputs import OPS_OF_ROWS, arguments, jax_function
from specification import reference

import m3ops_jax
from m3ops.op import Op
from m3ops.ops import OPS
from m3ops.testing.arrays import normal

ARGUMENTS = {name: arguments(name) for name in OPS}
every_op = pytest.mark.parametrize("name", OPS)
every_op_of_rows = pytest.mark.parametrize("name", OPS_OF_ROWS)


def same(actual: Any, expected: Any) -> None:
    chex.assert_trees_all_equal_shapes_and_dtypes(actual, expected)
    assert_same_bytes([*map(np.asarray, jax.tree.leaves(actual))], [*map(np.asarray, jax.tree.leaves(expected))])


def equations(jaxpr: Any) -> Iterator[Any]:
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(equation.params, is_leaf=lambda leaf: hasattr(leaf, "eqns")):
            if hasattr(inner, "eqns"):
                yield from equations(inner)


class TestVariants(chex.TestCase):
    """Jitted, eager and pmapped, from arrays of JAX and of NumPy."""

    @chex.all_variants
    @parameterized.parameters(*OPS)
    def test_the_specifications_bytes(self, name: str) -> None:
        arrays = ARGUMENTS[name]
        results = jax.tree.leaves(self.variant(jax_function(name))(*arrays))
        assert_same_bytes([*map(np.asarray, results)], reference(name, *arrays))


@every_op
def test_disabled_jit(name: str) -> None:
    op, arrays = jax_function(name), ARGUMENTS[name]
    with jax.disable_jit():
        same(op(*arrays), jax.jit(op)(*arrays))


@every_op
def test_eval_shape(name: str) -> None:
    op, arrays = jax_function(name), ARGUMENTS[name]
    shapes = jax.tree.leaves(jax.eval_shape(op, *arrays))
    results = jax.tree.leaves(op(*arrays))
    assert [(s.shape, s.dtype) for s in shapes] == [(r.shape, r.dtype) for r in results]


@every_op_of_rows
@pytest.mark.parametrize("axis", [0, 1])
def test_vmap_is_one_call_over_more_rows(name: str, axis: int) -> None:
    op, arrays = jax_function(name), ARGUMENTS[name]
    in_axes = tuple(axis if a.ndim == 3 else None for a in arrays)
    batched = jax.vmap(op, in_axes, axis)
    same(batched(*arrays), op(*arrays))
    calls = [e for e in equations(jax.make_jaxpr(batched)(*arrays).jaxpr) if e.primitive.name == name]
    assert len(calls) == 1


@every_op_of_rows
def test_nested_vmap(name: str) -> None:
    op, arrays = jax_function(name), ARGUMENTS[name]
    in_axes = tuple(0 if a.ndim == 3 else None for a in arrays)
    same(jax.jit(jax.vmap(jax.vmap(op, in_axes), in_axes))(*arrays), op(*arrays))


@every_op_of_rows
def test_nested_vmap_along_any_axes_is_one_call(name: str) -> None:
    op, arrays = jax_function(name), ARGUMENTS[name]
    rows = [a.ndim == 3 for a in arrays]
    turned = [np.moveaxis(a, 0, -1) if of_rows else a for a, of_rows in zip(arrays, rows, strict=True)]  # [6, N, 4]
    inner = jax.vmap(op, tuple(0 if of_rows else None for of_rows in rows), -1)
    batched = jax.vmap(inner, tuple(-1 if of_rows else None for of_rows in rows), 1)
    same(batched(*turned), jax.tree.map(lambda r: jnp.moveaxis(r, -1, 0), op(*arrays)))  # [N, 4, 6]
    calls = [e for e in equations(jax.make_jaxpr(batched)(*turned).jaxpr) if e.primitive.name == name]
    assert len(calls) == 1


@pytest.mark.parametrize("in_axes", [(0, 0), (None, 0), (1, 0), (0, 1)])
def test_vmap_over_the_weight(in_axes: tuple[int | None, int]) -> None:
    x = normal((3, 3, 64), "bfloat16") if in_axes[0] is not None else normal((3, 64), "bfloat16")
    weight = normal((3, 64), "float32") if in_axes[1] == 0 else normal((64, 3), "float32")
    got = jax.vmap(m3ops_jax.gemma_rmsnorm, in_axes)(x, weight)
    for i in range(3):
        own_x = x if in_axes[0] is None else np.take(x, i, in_axes[0])
        same(got[i], m3ops_jax.gemma_rmsnorm(own_x, np.take(weight, i, in_axes[1])))


def test_vmap_over_x_but_not_the_residual() -> None:
    x, residual, weight = normal((3, 5, 64), "bfloat16"), normal((5, 64), "bfloat16"), normal((64,), "bfloat16")
    got = jax.vmap(m3ops_jax.gemma_fused_add_rmsnorm, (0, None, None))(x, residual, weight)
    want = m3ops_jax.gemma_fused_add_rmsnorm(x, np.broadcast_to(residual, x.shape), weight)
    same(got, want)


def test_inside_scan_and_cond() -> None:
    weight = jnp.zeros(64, jnp.float32)

    def step(x: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        x = jax.lax.cond(x[0, 0] > 0, lambda x: m3ops_jax.gemma_rmsnorm(x, weight), lambda x: -x, x)
        return x, x

    first = jnp.asarray(normal((2, 64), "float32"))
    _, scanned = jax.lax.scan(step, first, length=4)
    for got in scanned:
        first, want = step(first, None)
        same(got, want)


@every_op
def test_64_bit_mode_changes_nothing(name: str) -> None:
    op, arrays = jax_function(name), ARGUMENTS[name]
    narrow = jax.jit(op)(*arrays)
    with jax.enable_x64(True):
        same(jax.jit(op)(*arrays), narrow)


EACH_WAY = [(name, 0) for name in OPS] + [(name, 1) for name, op in OPS.items() if op.counts_rows]


@pytest.mark.parametrize(("name", "counts"), EACH_WAY)
def test_strict_promotion_changes_nothing(name: str, counts: int) -> None:
    """These settings are about the user's code. With and without a count of rows."""
    op, arrays, count = jax_function(name), ARGUMENTS[name], [jnp.array([5], jnp.int32)] * counts
    absent = [None] * (len(OPS[name].inputs) - len(arrays)) * counts
    wanted = reference(name, *arrays, *absent, *map(np.asarray, count))
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        results = jax.tree.leaves(jax.jit(op)(*arrays, *absent, *count))
    assert_same_bytes([*map(np.asarray, results)], wanted)


@pytest.mark.parametrize("disable_jit", [False, True])
def test_vmap_over_no_examples_with_num_rows(disable_jit: bool) -> None:
    x, count = jnp.zeros((4, 0, 6, 64)), jnp.array([5], jnp.int32)
    with jax.disable_jit(disable_jit):
        quantized = jax.vmap(lambda x: m3ops_jax.mxfp8_quantize(x, num_rows=count), 1)(x)
    assert (quantized.values.shape, quantized.values.dtype) == ((0, 4, 6, 64), jnp.float8_e4m3fn)
    assert (quantized.scales.shape, quantized.scales.dtype) == ((0, 4, 6, 2), jnp.uint8)


class WeightOfAModule:
    """What gives an array when it is asked for one, as ``nnx.Param`` does."""

    def __init__(self, array: jax.Array) -> None:
        self.array = array

    def __jax_array__(self) -> jax.Array:
        return self.array


def test_a_weight_that_turns_itself_into_an_array() -> None:
    x, weight = ARGUMENTS["gemma_rmsnorm"]
    wrapped = WeightOfAModule(jnp.asarray(weight))
    for op in (m3ops_jax.gemma_rmsnorm, lambda x, w: jax.jit(lambda x: m3ops_jax.gemma_rmsnorm(x, w))(x)):
        same(op(x, wrapped), m3ops_jax.gemma_rmsnorm(x, weight))


@pytest.mark.parametrize("name", ["swiglu_oai", "gemma_rmsnorm", "mxfp8_dequantize"])
def test_a_result_with_two_uses_is_computed_once(name: str) -> None:
    """On a CPU, where XLA sees the specification. It would put all of it into each use, and compile for minutes."""

    def normalized(*arrays: jax.Array) -> jax.Array:
        result = jax_function(name)(*arrays)
        return result / result.max(axis=-1, keepdims=True)

    op, both = (jax.jit(f).lower(*ARGUMENTS[name]).compile() for f in (jax_function(name), normalized))
    instructions, more = (program.as_text().count(" = ") for program in (op, both))
    assert more < instructions + 100  # division and maximum are 36; a second computation begins at 145


def test_one_trace_serves_all_calls() -> None:
    """In a new process: what the first call imports brings no setting that is part of jit's key."""
    code = """
import chex, jax, m3ops_jax
jitted = jax.jit(chex.assert_max_traces(m3ops_jax.swiglu_oai_quantize, n=1))
for _ in range(3):
    jitted(jax.numpy.ones((4, 64)))
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_one_trace_serves_all_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate, traced = Op.evaluate, []
    monkeypatch.setattr(Op, "evaluate", lambda op, operands: traced.append(op) or evaluate(op, operands))
    op = functools.partial(m3ops_jax.swiglu_oai, alpha=1.25)  # a call that no other test has
    for program in (op, lambda x: -op(x), jax.vmap(op)):
        jax.jit(program).lower(*ARGUMENTS["swiglu_oai"])
    assert len(traced) == 1


def test_mxfp8_is_a_pytree_and_unpacks() -> None:
    values, scales = result = m3ops_jax.swiglu_oai_quantize(*ARGUMENTS["swiglu_oai_quantize"])
    assert isinstance(jax.tree.map(lambda leaf: leaf, result), m3ops_jax.MXFP8)
    assert values.dtype == jnp.float8_e4m3fn
    assert scales.dtype == jnp.uint8
    numbers = result.e8m0.astype(jnp.float32)
    np.testing.assert_array_equal(numbers, 2.0 ** (np.asarray(scales).astype(np.float32) - 127))


def test_fused_equals_unfused() -> None:
    (gate_up,) = ARGUMENTS["swiglu_oai"]
    fused = m3ops_jax.swiglu_oai_quantize(gate_up, round_activation=True)
    same(fused, m3ops_jax.mxfp8_quantize(m3ops_jax.swiglu_oai(gate_up)))


@pytest.mark.parametrize("parameter", ["alpha", "beta", "limit", "groups"])
def test_traced_parameters_are_refused(parameter: str) -> None:
    (gate_up,) = ARGUMENTS["swiglu_oai"]
    call = jax.jit(lambda value: m3ops_jax.swiglu_oai(gate_up, **{parameter: value}))
    wanted = "integer" if parameter == "groups" else "number"
    message = f"{parameter} must be a Python {wanted}, known before the kernel is compiled, got an array"
    with pytest.raises(TypeError, match=message):
        call(2)


def test_whole_numbers_and_floats_are_one_parameter() -> None:
    """Else ``limit=7`` would compile a second kernel."""
    (gate_up,) = ARGUMENTS["swiglu_oai"]
    jaxprs = {str(jax.make_jaxpr(functools.partial(m3ops_jax.swiglu_oai, limit=n))(gate_up)) for n in (7, 7.0)}
    assert len(jaxprs) == 1


@every_op
def test_while_loop(name: str) -> None:
    op, arrays = jax_function(name), ARGUMENTS[name]

    def last_of_three(*arrays: jax.Array) -> Any:
        start = jax.tree.map(jnp.zeros_like, op(*arrays))
        return jax.lax.while_loop(lambda state: state[0] < 3, lambda state: (state[0] + 1, op(*arrays)), (0, start))[1]

    same(jax.jit(last_of_three)(*arrays), op(*arrays))


@every_op
def test_checkpoint(name: str) -> None:
    op, arrays = jax_function(name), ARGUMENTS[name]
    same(jax.jit(jax.checkpoint(op))(*arrays), op(*arrays))


def loss(name: str) -> Any:
    """The sum of an op's floating-point results, a function of its first input."""
    op, (_, *others) = jax_function(name), ARGUMENTS[name]
    return lambda x: sum(jnp.sum(leaf.astype(jnp.float32)) for leaf in jax.tree.leaves(op(x, *others)))


@pytest.mark.parametrize("name", [name for name, op in OPS.items() if not op.differentiable])
def test_a_derivative_is_refused(name: str) -> None:
    """Where MXFP8 is involved, whose rounding has no useful derivative."""
    x = jnp.asarray(ARGUMENTS[name][0])
    message = f"{name} has no derivative: rounding to MXFP8 is a step function"
    for differentiate in (jax.grad(loss(name)), jax.jit(jax.grad(jax.checkpoint(loss(name))))):
        with pytest.raises(TypeError, match=message):
            differentiate(x)


@every_op
def test_a_derivative_that_does_not_go_through_the_op(name: str) -> None:
    x, of = jnp.asarray(ARGUMENTS[name][0]), loss(name)
    slope = jax.grad(lambda scale: scale * of(jax.lax.stop_gradient(x)))(2.0)
    same(slope, of(x))


def test_a_straight_through_derivative() -> None:
    """What the error message advises."""

    @jax.custom_vjp
    def rounded(x: jax.Array) -> jax.Array:
        return m3ops_jax.mxfp8_dequantize(m3ops_jax.mxfp8_quantize(x), out_dtype=x.dtype)

    rounded.defvjp(lambda x: (rounded(x), None), lambda _, cotangent: (cotangent,))
    x = jnp.asarray(ARGUMENTS["mxfp8_quantize"][0])
    same(jax.jit(jax.grad(lambda x: rounded(x).sum()))(x), jnp.ones_like(x))


@every_op
def test_ahead_of_time(name: str) -> None:
    op, arrays = jax_function(name), ARGUMENTS[name]
    avals = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in arrays]
    same(jax.jit(op).lower(*avals).compile()(*map(jnp.asarray, arrays)), op(*arrays))


@pytest.mark.parametrize("name", ["swiglu_oai", "mxfp8_quantize"])
def test_weak_types_become_strong(name: str) -> None:
    """Else ``result + 1.5`` would depend on how the input came about."""
    op = jax_function(name)
    weak = jax.jit(lambda: jnp.broadcast_to(jnp.asarray(1.5), (2, 64)))()
    assert jax.typeof(weak).weak_type
    for results in (op(weak), jax.jit(op)(weak)):
        assert not any(jax.typeof(leaf).weak_type for leaf in jax.tree.leaves(results))
        same(results, op(np.full((2, 64), 1.5, np.float32)))


@every_op
def test_constants_of_a_program(name: str) -> None:
    op, arrays = jax_function(name), ARGUMENTS[name]
    same(jax.jit(lambda: op(*arrays))(), op(*arrays))


@pytest.mark.parametrize("kind", [float, np.float32, np.float64])
def test_parameters_may_be_numpy_numbers(kind: Any) -> None:
    x, weight = ARGUMENTS["gemma_rmsnorm"]
    same(m3ops_jax.gemma_rmsnorm(x, weight, eps=kind(0.25)), m3ops_jax.gemma_rmsnorm(x, weight, eps=0.25))


@pytest.mark.parametrize("scalar", [jnp.float32(1.0), np.array(1.0, np.float32)], ids=["jax", "numpy"])
def test_a_scalar_is_refused(scalar: Any) -> None:
    with pytest.raises(ValueError, match="gate_up must have at least one axis"):
        m3ops_jax.swiglu_oai(scalar)


def test_a_donated_qkv() -> None:
    arrays = ARGUMENTS["gemma_rmsnorm_heads"]
    heads = jax_function("gemma_rmsnorm_heads")
    donating = jax.jit(heads, donate_argnums=0)
    qkv, *weights = map(jnp.asarray, arrays)
    memory = donating.lower(qkv, *weights).compile().memory_analysis()
    assert memory is not None
    assert memory.alias_size_in_bytes == qkv.nbytes
    same(donating(qkv, *weights), heads(*arrays))
    assert qkv.is_deleted()


def test_a_donated_residual() -> None:
    """XLA reuses its memory for a result, and the bytes stay right."""
    arrays = ARGUMENTS["gemma_fused_add_rmsnorm"]
    donating = jax.jit(m3ops_jax.gemma_fused_add_rmsnorm, donate_argnums=1)
    x, residual, weight = map(jnp.asarray, arrays)
    memory = donating.lower(x, residual, weight).compile().memory_analysis()
    assert memory is not None
    assert memory.alias_size_in_bytes == residual.nbytes
    same(donating(x, residual, weight), m3ops_jax.gemma_fused_add_rmsnorm(*arrays))
    assert residual.is_deleted()
    assert not x.is_deleted()
