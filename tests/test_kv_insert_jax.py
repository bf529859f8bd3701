"""Caches of ``gemma_rmsnorm_rope_kv_insert`` in JAX: in place, in loops, and where rows are divided."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rocm_lowering
from compare import assert_same_bytes
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from test_jax_in_place import aliases
from test_kv_insert import every_dtype, expected, in_jax, made

import m3ops_jax


def test_one_ref_for_both_caches_is_an_error() -> None:
    """It would have the values alone."""
    given = list(made())
    given[5] = given[6] = jax.new_ref(jnp.asarray(given[5]))
    with pytest.raises(ValueError, match="value_cache must not be the Ref that key_cache is"):
        in_jax(*given)


def step(key_cache: Any, value_cache: Any, *others: Any) -> Any:
    """Takes caches to donate."""
    key, value = jax.new_ref(key_cache), jax.new_ref(value_cache)
    norm, _, _ = in_jax(*others[:5], key, value, *others[5:])
    return jax.freeze(key), jax.freeze(value), norm


@every_dtype
def test_refs_are_updated(dtype: str) -> None:
    given = made(dtype)
    key_cache, value_cache, *others = (*given[5:7], *given[:5], *given[7:])
    for run in (in_jax, jax.jit(in_jax)):
        refs = [jax.new_ref(jnp.asarray(cache)) for cache in (key_cache, value_cache)]
        norm, _, _ = run(*given[:5], *refs, *given[7:])
        assert_same_bytes([np.asarray(norm), *(np.asarray(ref[...]) for ref in refs)], expected(given))
    donated = [jnp.asarray(cache) for cache in (key_cache, value_cache)]
    *caches, norm = jax.jit(step, donate_argnums=(0, 1))(*donated, *others)
    assert_same_bytes([np.asarray(norm), *map(np.asarray, caches)], expected(given))


@pytest.mark.parametrize("unroll", [1, 3])
def test_caches_of_each_layer_in_a_scan(unroll: int) -> None:
    """XLA makes one step of a call and the slices around it where it may, which it must not for these caches."""
    given = made()
    stacks = [np.stack([cache, cache[::-1], -cache]) for cache in given[5:7]]

    def layer(qkv: Any, caches: Any) -> Any:
        qkv, *caches = in_jax(qkv, *given[1:5], *caches, *given[7:])
        return qkv, caches

    got, of_layers = jax.jit(partial(jax.lax.scan, layer, unroll=unroll))(given[0], stacks)
    qkv, wanted = given[0], []
    for caches in zip(*stacks, strict=True):
        qkv, *new = expected((qkv, *given[1:5], *caches, *given[7:]))
        wanted.append(new)
    assert_same_bytes([*map(np.asarray, (got, *of_layers))], [qkv, *map(np.stack, zip(*wanted, strict=True))])


@pytest.mark.parametrize("refs", [False, True])
def test_rows_of_each_step_in_a_scan(refs: bool) -> None:
    """Rows are slices and results a stack, while the caches go from step to step."""
    given = made(total=12)
    steps = [given[place].reshape(3, 4, *given[place].shape[1:]) for place in (0, 4, 7)]

    @jax.jit
    def all_steps(caches: Any, steps: Any) -> Any:
        if refs:
            held = [*map(jax.new_ref, caches)]

        def one(caches: Any, step: Any) -> Any:
            qkv, positions, slots = step
            own = held if refs else caches
            qkv, *caches = in_jax(qkv, *given[1:4], positions, *own, slots, *given[8:])
            return (() if refs else caches), qkv

        caches, qkv = jax.lax.scan(one, () if refs else caches, steps)
        return qkv, *(map(jax.freeze, held) if refs else caches)

    got = all_steps([*map(jnp.asarray, given[5:7])], steps)
    want = expected(given)
    assert_same_bytes([*map(np.asarray, got)], [want[0].reshape(steps[0].shape), *want[1:]])


@pytest.mark.parametrize(("platform", "arch"), [("cuda", "sm_90"), ("rocm", "gfx950")])
@every_dtype
def test_the_call_says_which_results_are_in_the_caches_memory(platform: str, arch: str, dtype: str) -> None:
    """Of arrays that are no Refs too: XLA copies those that live on."""
    rocm_lowering.require_plugin()
    given = made(dtype)
    for function, arguments in ((step, (*given[5:7], *given[:5], *given[7:])), (in_jax, given)):
        with m3ops_jax.compile_for(arch):
            lowered = jax.jit(function).trace(*arguments).lower(lowering_platforms=(platform,))
        text = lowered.as_text()
        assert aliases(text) == [("1", "5"), ("2", "6")]
        assert set(re.findall(r" stablehlo\.(\w+)", text)) <= {"custom_call", "bitcast_convert", "optimization_barrier"}


@pytest.mark.gpu
@pytest.mark.skipif(jax.default_backend() == "cpu", reason="no GPU")
def test_no_copy_is_in_the_compiled_module() -> None:
    given = made(total=512)
    caches = [jnp.asarray(cache) for cache in given[5:7]]
    others = [None if array is None else jnp.asarray(array) for array in (*given[:5], *given[7:])]
    compiled = jax.jit(step, donate_argnums=(0, 1)).lower(*caches, *others).compile()
    assert not re.findall(r"\bcopy(?:-start)?\(", compiled.as_text())
    assert compiled.memory_analysis().alias_size_in_bytes == sum(cache.nbytes for cache in caches)
    *new, norm = compiled(*caches, *others)
    assert_same_bytes([np.asarray(norm), *map(np.asarray, new)], expected(given))


@pytest.mark.skipif(len(jax.devices()) < 4, reason="needs 4 devices")
def test_rows_are_not_divided() -> None:
    """Each device would have caches of its own."""
    given = made(total=12)
    for kind in (AxisType.Auto, AxisType.Explicit):
        mesh = jax.make_mesh((4,), ("a",), axis_types=(kind,), devices=jax.devices()[:4])
        place = lambda axes: partial(jax.device_put, device=NamedSharding(mesh, axes))  # noqa: E731, B023
        on_mesh = [None if array is None else place(P())(array) for array in given]
        on_mesh[0] = place(P("a"))(given[0])
        with jax.set_mesh(mesh):
            if kind == AxisType.Auto:
                assert_same_bytes([*map(np.asarray, jax.jit(in_jax)(*on_mesh))], expected(given))
            else:
                with pytest.raises(ValueError, match="qkv must be sharded as"):
                    jax.jit(in_jax)(*on_mesh)
