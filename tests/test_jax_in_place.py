"""The norms with residual add update a residual that is a ``jax.Ref``, in its own memory."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rocm_lowering
from compare import assert_same_bytes
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from rocm import jax_device
from test_jax import ARGUMENTS, same

import m3ops_jax
from m3ops.ops import OPS
from m3ops.target import Target
from m3ops_jax._call import array_spec

NAMES = ["gemma_fused_add_rmsnorm", "gemma_fused_add_rmsnorm_quantize"]
either_op = pytest.mark.parametrize("name", NAMES)
either_platform = pytest.mark.parametrize(("platform", "arch"), [("cuda", "sm_90"), ("rocm", "gfx950")])


def update(name: str) -> Any:
    """Takes x, a residual to donate and the weight; the new residual is the first result, which donation pairs."""

    def step(x: jax.Array, residual: jax.Array, weight: jax.Array) -> tuple[jax.Array, Any]:
        ref = jax.new_ref(residual)
        result, _ = getattr(m3ops_jax, name)(x, ref, weight)
        return jax.freeze(ref), result

    return step


def arguments(name: str, num_rows: int = 24) -> list[jax.Array]:
    x, residual, weight = ARGUMENTS[name]
    return [jnp.asarray(np.resize(a, (num_rows, a.shape[-1]))) for a in (x, residual)] + [jnp.asarray(weight)]


@either_op
def test_a_ref_is_updated(name: str) -> None:
    op, (x, residual, weight) = getattr(m3ops_jax, name), arguments(name)
    expected = op(x, residual, weight)
    for run in (op, jax.jit(op)):
        ref = jax.new_ref(residual)
        same(run(x, ref, weight), expected)
        same(ref[...], expected[1])
    donated = jax.jit(update(name), donate_argnums=1)(x, residual + 0, weight)
    same(donated, expected[::-1])
    batched = jax.vmap(update(name), (0, 0, None))(x[None], residual[None], weight)
    same(jax.tree.map(lambda a: a[0], batched), expected[::-1])


def update_counted(name: str) -> Any:
    """The same with a number of rows that count."""

    def step(x: jax.Array, residual: jax.Array, weight: jax.Array, count: jax.Array) -> tuple[jax.Array, Any]:
        ref = jax.new_ref(residual)
        result, _ = getattr(m3ops_jax, name)(x, ref, weight, num_rows=count)
        return jax.freeze(ref), result

    return step


@either_op
@pytest.mark.parametrize("count", [0, 10, 99])
def test_rows_that_do_not_count_keep_what_the_ref_held(name: str, count: int) -> None:
    op, (x, residual, weight), number = getattr(m3ops_jax, name), arguments(name), jnp.array([count], jnp.int32)
    result, new_residual = op(x, residual, weight, num_rows=number)
    kept = jnp.concatenate([new_residual[:count], residual[count:]])
    for run in (op, jax.jit(op)):
        ref = jax.new_ref(residual)
        same(run(x, ref, weight, num_rows=number), (result, kept))
        same(ref[...], kept)
    same(jax.jit(update_counted(name), donate_argnums=1)(x, residual + 0, weight, number), (kept, result))


@either_op
@pytest.mark.parametrize("arch", ["gfx942", "gfx950"])
@pytest.mark.parametrize("count", [0, 4])
def test_rows_that_do_not_count_in_amd_code(name: str, arch: str, count: int) -> None:
    rocm_lowering.require_plugin()
    given = [*map(np.asarray, arguments(name, 6)), np.array([count], np.int32)]
    with m3ops_jax.compile_for(arch):
        lowered = jax.jit(update_counted(name)).trace(*given).lower(lowering_platforms=("rocm",))
    expected = jax.tree.leaves(jax.jit(update_counted(name))(*given))
    assert_same_bytes(jax_device.execute_program(lowered, given), [*map(np.asarray, expected)])


def test_the_residual_of_each_layer_in_a_scan() -> None:
    x, residual, weight = arguments(NAMES[0])
    want_x, want = x, residual
    for _ in range(3):
        want_x, want = m3ops_jax.gemma_fused_add_rmsnorm(want_x, want, weight)

    @jax.jit
    def layers(x: jax.Array, ref: Any) -> jax.Array:
        return jax.lax.scan(lambda x, _: (m3ops_jax.gemma_fused_add_rmsnorm(x, ref, weight)[0], None), x, length=3)[0]

    ref = jax.new_ref(residual)
    same(layers(x, ref), want_x)
    same(ref[...], want)


@either_op
def test_stacked_residuals_with_rows_that_do_not_count(name: str) -> None:
    """XLA makes one step of a call and the slices around it where it may, which it must not for such a residual."""
    op, (x, residual, weight), count = getattr(m3ops_jax, name), arguments(name), jnp.array([10], jnp.int32)
    stacks = [jnp.stack([a, -a, a[::-1]]) for a in (x, residual)]

    def layer(_: Any, of_layer: Any) -> Any:
        residual, result = update_counted(name)(*of_layer, weight, count)
        return None, (result, residual)

    got = jax.jit(lambda stacks: jax.lax.scan(layer, None, stacks)[1])(stacks)
    for i, (x, residual) in enumerate(zip(*stacks, strict=True)):
        result, new_residual = op(x, residual, weight, num_rows=count)
        wanted = result, jnp.concatenate([new_residual[:10], residual[10:]])
        same(jax.tree.map(lambda a, i=i: a[i], got), wanted)


def test_gradients_through_a_ref() -> None:
    x, residual, weight = (a.astype(jnp.float32) for a in arguments(NAMES[0]))

    def loss(step: Any) -> Any:
        return lambda *args: sum(jnp.sum(jnp.sin(a)) for a in step(*args))

    got = jax.grad(loss(update(NAMES[0])), (0, 1, 2))(x, residual, weight)
    same(got, jax.grad(loss(m3ops_jax.gemma_fused_add_rmsnorm), (0, 1, 2))(x, residual, weight))


@pytest.mark.skipif(len(jax.devices()) < 8, reason="needs 8 devices")
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_divided_rows(kind: AxisType) -> None:
    mesh = jax.make_mesh((8,), ("a",), axis_types=(kind,))
    x, residual, weight = arguments(NAMES[0])
    expected = m3ops_jax.gemma_fused_add_rmsnorm(x, residual, weight)
    rows, whole = NamedSharding(mesh, P("a")), NamedSharding(mesh, P())
    given = (jax.device_put(x, rows), jax.device_put(residual, rows), jax.device_put(weight, whole))
    with jax.set_mesh(mesh):
        compiled = jax.jit(update(NAMES[0]), donate_argnums=1).lower(*given).compile()
        assert not re.findall(r"all-\w+|collective-\w+", compiled.as_text())
        residual, norm = compiled(*given)
    same((np.asarray(norm), np.asarray(residual)), expected)


def aliases(text: str) -> list[str]:
    return re.findall(r"output_tuple_indices = \[(\d*)\],\s*operand_index = (\d+)", text)


@either_op
@either_platform
def test_the_call_says_which_result_is_in_the_residuals_memory(name: str, platform: str, arch: str) -> None:
    rocm_lowering.require_plugin()
    op, specs = OPS[name].of(), dict(zip(OPS[name].inputs, map(array_spec, arguments(name)), strict=True))
    (kernel,) = op.plan({**specs, **op.check(specs)}, Target.named(arch)).launches
    result = str(kernel.writes.index("new_residual"))
    for function, expected in ((update(name), [(result, "1")]), (getattr(m3ops_jax, name), [])):
        with m3ops_jax.compile_for(arch):
            traced = jax.jit(function, donate_argnums=1).trace(*arguments(name))
            text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert aliases(text) == expected
        # Nothing but the kernel makes an array of the residual's type; the bytes of MXFP8 are called E4M3.
        assert set(re.findall(r" stablehlo\.(\w+)", text)) <= {"custom_call", "bitcast_convert", "optimization_barrier"}


@pytest.mark.gpu
@pytest.mark.skipif(jax.default_backend() == "cpu", reason="no GPU")
@either_op
def test_no_copy_is_in_the_compiled_module(name: str) -> None:
    x, residual, weight = arguments(name, 4096)
    expected = getattr(m3ops_jax, name)(x, residual, weight)
    compiled = jax.jit(update(name), donate_argnums=1).lower(x, residual, weight).compile()
    assert not re.findall(r"\bcopy(?:-start)?\(", compiled.as_text())
    memory = compiled.memory_analysis()
    assert memory.alias_size_in_bytes == residual.nbytes
    assert memory.temp_size_in_bytes < residual.nbytes
    address = residual.unsafe_buffer_pointer()
    new_residual, result = compiled(x, residual, weight)
    assert new_residual.unsafe_buffer_pointer() == address
    same((result, new_residual), expected)


@pytest.mark.gpu
@pytest.mark.skipif(jax.default_backend() == "cpu", reason="no GPU")
@either_op
def test_a_residual_that_lives_on_is_copied_first(name: str) -> None:
    x, residual, weight = arguments(name, 4096)
    before = np.asarray(residual)
    expected = getattr(m3ops_jax, name)(x, residual, weight)
    same(jax.jit(update(name))(x, residual, weight), expected[::-1])
    same(residual, before)
