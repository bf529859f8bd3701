"""The table of rotary embedding: correctly rounded, so the same bytes everywhere; and what positions do to an op."""

from __future__ import annotations

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import torch
from backends import interpreted, planned
from compare import assert_same_bytes
from specification import reference

import m3ops_jax
import m3ops_torch
from m3ops import rope
from m3ops.op import bind
from m3ops.ops import EVERY_OP
from m3ops.rope import rope_cos_sin
from m3ops.testing.arrays import normal
from m3ops.tools.run import to_numpy, to_tensor

THETAS = (5e6, 1e4, 10.0, 0.3)


def test_published_bytes() -> None:
    tables = [(4096, 64, 5e6), (300, 128, 1e4), (1, 2, 1.0)]
    digests = [hashlib.sha256(rope_cos_sin(n, d, theta=t).tobytes()).hexdigest()[:16] for n, d, t in tables]
    assert digests == ["b3cca904d40e9fd4", "54e967a23bb10f23", "434b26042aff3fb8"]


@pytest.mark.parametrize("theta", THETAS)
def test_entries_are_the_nearest_numbers(theta: float) -> None:
    """By mpmath, at positions near and far."""
    table, rng = rope_cos_sin(2**17, 32, theta=theta), np.random.default_rng(1)
    with mpmath.workprec(200):
        for position in (0, 1, 2, *map(int, rng.integers(0, 2**17, 60)), 2**17 - 1):
            for i in range(16):
                angle = position * mpmath.mpf(theta) ** (mpmath.mpf(-2 * i) / 32)
                for got, want in (
                    (table[position, i], mpmath.cos(angle)),
                    (table[position, 16 + i], mpmath.sin(angle)),
                ):
                    off = abs(mpmath.mpf(float(got)) - want)
                    neighbours = (np.nextafter(got, np.float32(side)) for side in (-2, 2))
                    assert all(off <= abs(mpmath.mpf(float(n)) - want) for n in neighbours)


def test_what_float64_cannot_tell_is_told_by_decimals(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    nearer = rope._nearer
    monkeypatch.setattr(rope, "_nearer", lambda *given: asked.append(given) or nearer(*given))
    want = rope_cos_sin(1000, 32)
    assert not asked
    monkeypatch.setattr(rope, "FLOAT64_ERROR", 2.0**-30)
    assert_same_bytes([rope_cos_sin(1000, 32)], [want])
    assert len(asked) > 100


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((0, 64), "max_position must be at least 1, got 0"),
        ((4, 7), "rotary_dim must be even"),
        ((2**40, 64), "max_position at most 2\\*\\*31"),
        ((4, 64, -1.0), "theta must be a finite fp32 number and > 0, got -1.0"),
    ],
)
def test_wrong_tables(given: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rope_cos_sin(*given[:2], **({"theta": given[2]} if given[2:] else {}))


# Positions are one number a row.

QKV = normal((4, 6, 4 * 64), "bfloat16", 2.0)
WEIGHTS = normal((64,), "bfloat16", 0.5), normal((64,), "float32", 0.5)
TABLE = rope_cos_sin(50, 32)
POSITIONS = (np.arange(24, dtype=np.int32) * 7 % 50).reshape(4, 6)
GIVEN = {"num_heads_q": 2, "num_heads_k": 1, "num_heads_v": 1, "rotary_dim": 32}
WANTED = reference("gemma_rmsnorm_rope_heads", QKV, *WEIGHTS, TABLE, POSITIONS, **GIVEN)


def of_jax(qkv: Any, positions: Any, table: Any = TABLE) -> Any:
    return m3ops_jax.gemma_rmsnorm_rope_heads(qkv, *WEIGHTS, table, positions, **GIVEN)


FIXED = [to_tensor(array) for array in (*WEIGHTS, TABLE)]


def of_torch(qkv: Any, positions: Any, **out: Any) -> Any:
    return m3ops_torch.gemma_rmsnorm_rope_heads(qkv, *FIXED, positions, **GIVEN, **out)


@pytest.mark.parametrize("axes", [(0, 0), (1, 1)])
def test_vmap_with_positions_of_each_example(axes: tuple[int, int]) -> None:
    got = jax.vmap(of_jax, axes, axes[0])(jnp.asarray(QKV), jnp.asarray(POSITIONS))
    assert_same_bytes([np.asarray(got)], WANTED)
    mapped = torch.func.vmap(of_torch, axes, axes[0])(to_tensor(QKV), to_tensor(POSITIONS))
    assert_same_bytes([to_numpy(mapped)], WANTED)


def test_vmap_over_every_row() -> None:
    assert_same_bytes([np.asarray(jax.vmap(jax.vmap(of_jax))(jnp.asarray(QKV), jnp.asarray(POSITIONS)))], WANTED)
    mapped = torch.func.vmap(torch.func.vmap(of_torch))(to_tensor(QKV), to_tensor(POSITIONS))
    assert_same_bytes([to_numpy(mapped)], WANTED)


def test_vmap_with_shared_positions_and_with_tables() -> None:
    (want,) = reference("gemma_rmsnorm_rope_heads", QKV, *WEIGHTS, TABLE, POSITIONS[2], **GIVEN)
    shared = jax.vmap(of_jax, (0, None))(jnp.asarray(QKV), jnp.asarray(POSITIONS[2]))
    assert_same_bytes([np.asarray(shared)], [want])
    tables = jnp.stack([TABLE] * 4)
    each = jax.vmap(of_jax)(jnp.asarray(QKV), jnp.asarray(POSITIONS), tables)
    assert_same_bytes([np.asarray(each)], WANTED)


@pytest.mark.parametrize("kind", [jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit])
def test_positions_are_divided_with_the_rows(kind: Any) -> None:
    mesh = jax.make_mesh((2, 2), ("a", "b"), (kind, kind), devices=jax.devices("cpu")[:4])
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("a", "b"))
    qkv, positions = jax.device_put(QKV, place), jax.device_put(POSITIONS, place)
    with jax.set_mesh(mesh):
        compiled = jax.jit(of_jax).lower(qkv, positions).compile()
        got = compiled(qkv, positions)
    assert got.sharding.shard_shape(got.shape) == (2, 3, 256)
    assert not [line for line in compiled.as_text().splitlines() if "all-gather" in line or "all-reduce" in line]
    assert_same_bytes([np.asarray(got)], WANTED)


def test_positions_past_32_bits() -> None:
    far = np.array([5, 2**32, 2**32 + 5, -(2**63), 2**31, -(2**31)] * 4, np.int64).reshape(4, 6)
    op = EVERY_OP["gemma_rmsnorm_rope_heads"].of(**GIVEN)
    inputs = bind(op, (QKV, *WEIGHTS, TABLE, far))
    (got,) = interpreted(op, inputs, planned(op, inputs))
    assert_same_bytes([got], [*op.reference(inputs).values()])
    assert (np.isnan(got.astype(np.float32)).any(axis=-1) == (far != 5)).all()


def test_compiled_by_torch() -> None:
    compiled = torch.compile(of_torch, fullgraph=True, backend="aot_eager")
    assert_same_bytes([to_numpy(compiled(to_tensor(QKV), to_tensor(POSITIONS)))], WANTED)


def test_in_place() -> None:
    qkv = to_tensor(QKV.copy())
    assert of_torch(qkv, to_tensor(POSITIONS), out=qkv) is qkv
    assert_same_bytes([to_numpy(qkv)], WANTED)
