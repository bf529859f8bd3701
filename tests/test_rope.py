"""The table of rotary embedding: correctly rounded, so the same bytes everywhere; and what positions do to an op."""

from __future__ import annotations

import hashlib
import math
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
from m3ops.ops import EVERY_OP
from m3ops.rope import Yarn, rope_cos_sin
from m3ops.testing.arrays import normal
from m3ops.testing.case import operands
from m3ops.tools.run import to_numpy, to_tensor

THETAS = (5e6, 1e4, 10.0, 0.3)
YARNS = (
    Yarn(factor=4, original_max_position_embeddings=131072),
    Yarn(factor=32, original_max_position_embeddings=4096, truncate=False),
    Yarn(factor=40, original_max_position_embeddings=4096, mscale=1.0, mscale_all_dim=0.707, beta_fast=64.5),
    Yarn(factor=8, original_max_position_embeddings=200, beta_slow=0.25),
    Yarn(factor=2.5, original_max_position_embeddings=8192, attention_factor=0.75, beta_fast=3, beta_slow=3),
    Yarn(factor=3, original_max_position_embeddings=300, beta_fast=300, beta_slow=60),  # the ramp is a step at 0
)


def test_published_bytes() -> None:
    tables = [(4096, 64, 5e6), (300, 128, 1e4), (1, 2, 1.0)]
    digests = [hashlib.sha256(rope_cos_sin(n, d, theta=t).tobytes()).hexdigest()[:16] for n, d, t in tables]
    assert digests == ["b3cca904d40e9fd4", "54e967a23bb10f23", "434b26042aff3fb8"]


@pytest.mark.parametrize("theta", THETAS)
def test_entries_are_the_nearest_numbers(theta: float) -> None:
    """By mpmath, at positions near and far."""
    table = rope_cos_sin(2**17, 32, theta=theta)
    with mpmath.workprec(200):
        assert_nearest(table, [mpmath.mpf(theta) ** (mpmath.mpf(-2 * i) / 32) for i in range(16)], 1)


def assert_nearest(table: np.ndarray, frequencies: list[Any], factor: Any) -> None:
    """At 63 positions of a table each entry is at least as near as its two neighbours."""
    end, half = len(table), len(frequencies)
    for position in (0, 1, 2, *map(int, np.random.default_rng(1).integers(0, end, 60)), end - 1):
        for i, frequency in enumerate(frequencies):
            for got, function in ((table[position, i], mpmath.cos), (table[position, half + i], mpmath.sin)):
                want = factor * function(position * frequency)
                off = abs(mpmath.mpf(float(got)) - want)
                neighbours = (np.nextafter(got, np.float32(side)) for side in (-2, 2))
                assert all(off <= abs(mpmath.mpf(float(n)) - want) for n in neighbours)


@pytest.mark.parametrize("yarn", [None, YARNS[0]])
def test_what_float64_cannot_tell_is_told_by_decimals(yarn: Yarn | None, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    nearer = rope._nearer
    monkeypatch.setattr(rope, "_nearer", lambda *given: asked.append(given) or nearer(*given))
    want = rope_cos_sin(1000, 32, yarn=yarn)
    assert not asked
    monkeypatch.setattr(rope, "FLOAT64_ERROR", 2.0**-30)
    assert_same_bytes([rope_cos_sin(1000, 32, yarn=yarn)], [want])
    assert len(asked) > 100


def test_published_bytes_of_yarn() -> None:
    tables = [rope_cos_sin(4096, 64, yarn=yarn) for yarn in YARNS]
    digests = [hashlib.sha256(table.tobytes()).hexdigest()[:16] for table in tables]
    assert digests == [
        "c58f972427999efc",
        "b27e10af72f701b5",
        "a15005728fb6d1d2",
        "33419f421cb9d6ee",
        "8ffcee9d0dcfe9e6",
        "d8c5d368d28ce952",
    ]


@pytest.mark.parametrize(("theta", "rotary_dim"), [(5e6, 64), (1e4, 32)])
@pytest.mark.parametrize("yarn", YARNS)
def test_entries_of_yarn_are_the_nearest_numbers(yarn: Yarn, theta: float, rotary_dim: int) -> None:
    """By mpmath, with logarithms of turns in place of powers of theta."""
    table = rope_cos_sin(2**17, rotary_dim, theta=theta, yarn=yarn)
    with mpmath.workprec(250):
        step = 2 * mpmath.log(theta) / rotary_dim  # from a pair to the next one the logarithm of the turns falls by it
        turns = mpmath.log(yarn.original_max_position_embeddings) - mpmath.log(2 * mpmath.pi)  # those of the first pair
        begin, end = ((turns - mpmath.log(limit)) / step for limit in (yarn.beta_fast, yarn.beta_slow))
        if yarn.truncate:
            begin, end = mpmath.floor(begin), mpmath.ceil(end)
        begin, end = max(begin, 0), min(end, rotary_dim - 1)
        frequencies = []
        for i in range(rotary_dim // 2):
            kept = min(max((end - i) / (end - begin), 0), 1) if end > begin else int(i <= begin)
            frequencies.append(mpmath.exp(-step * i) * (1 + kept * (yarn.factor - 1)) / yarn.factor)
        grown = mpmath.log(yarn.factor) / 10
        factor = (1 + grown * (yarn.mscale or 1)) / (1 + grown * (yarn.mscale_all_dim or 0))
        assert_nearest(table, frequencies, yarn.attention_factor or factor)


@pytest.mark.parametrize("yarn", YARNS)
def test_yarn_beside_the_formula_in_fp32(yarn: Yarn) -> None:
    """The formula of vLLM and Transformers, computed in fp32 as they do. In units of 2**-24, with s the factor:

    A power is 2 off, its reciprocal 3, that of s times the power 4. The ramp is r off: 1 by its quotient and, where its
    ends are no integers, 2 by the differences and low / (high - low) by the ends. So the part of a frequency that is
    kept is r + 1 off and the other r + 2, both of what the frequency was, at most s times what it is. A product and the
    sum are 2 more, and the angle is 1 more off: 9 + r + (r + 1) s. NumPy's fp32 cosine is 3 off at most, the attention
    factor and its product 2.
    """
    positions, rotary_dim, theta = np.arange(65536, dtype=np.float32), 64, 5e6
    one = np.float32(1)
    powers = np.float32(theta) ** (np.arange(0, rotary_dim, 2, dtype=np.float32) / np.float32(rotary_dim))
    places = [
        rotary_dim * math.log(yarn.original_max_position_embeddings / (turns * 2 * math.pi)) / (2 * math.log(theta))
        for turns in (yarn.beta_fast, yarn.beta_slow)
    ]
    low, high = (math.floor(places[0]), math.ceil(places[1])) if yarn.truncate else places
    low, high = max(low, 0), min(high, rotary_dim - 1)
    high += 0.001 * (low == high)
    ramp = np.clip((np.arange(rotary_dim // 2, dtype=np.float32) - np.float32(low)) / np.float32(high - low), 0, 1)
    kept = one - ramp
    frequencies = one / (np.float32(yarn.factor) * powers) * (one - kept) + one / powers * kept
    angles = positions[:, None] * frequencies
    factor = 0.1 * (yarn.mscale or 1) * math.log(yarn.factor) + 1
    factor /= 0.1 * (yarn.mscale_all_dim or 0) * math.log(yarn.factor) + 1
    factor = np.float32(yarn.attention_factor or factor)
    want = np.concatenate([np.cos(angles) * factor, np.sin(angles) * factor], axis=1)
    off = 1 if yarn.truncate else 3 + low / (high - low)
    of_angle = (9 + off + (off + 1) * yarn.factor) * np.concatenate([angles, angles], axis=1)
    allowed = 2.0**-24 * factor * (of_angle + 5)
    error = np.abs(rope_cos_sin(len(positions), rotary_dim, theta=theta, yarn=yarn).astype(np.float64) - want)
    assert 0.1 < (error / allowed).max() <= 1


def test_yarn_of_factor_1_changes_nothing() -> None:
    yarn = Yarn(factor=1, original_max_position_embeddings=4096, truncate=False)
    assert_same_bytes([rope_cos_sin(2048, 64, yarn=yarn)], [rope_cos_sin(2048, 64)])


@pytest.mark.parametrize(("half", "even"), [(1, 0), (3, 4), (5, 4)])
def test_an_attention_factor_half_way_goes_to_the_even_number(half: int, even: int) -> None:
    yarn = Yarn(factor=2, original_max_position_embeddings=4096, attention_factor=1 + half * 2.0**-24)
    assert rope_cos_sin(1, 2, yarn=yarn)[0, 0] == 1 + even * 2.0**-24


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"factor": 0.5}, "factor must be a finite fp32 number and >= 1, got 0.5"),
        ({"original_max_position_embeddings": 0}, "original_max_position_embeddings must be at least 1, got 0"),
        ({"original_max_position_embeddings": 4096.0}, "original_max_position_embeddings must be a Python integer"),
        ({"beta_slow": 0}, "beta_slow must be a finite fp32 number and > 0, got 0"),
        ({"beta_fast": 0.5}, "beta_fast must be a finite fp32 number and >= 1, got 0.5"),
        ({"attention_factor": 0}, "attention_factor must be a finite fp32 number and >= 2.3"),
        ({"mscale": 1.0}, "mscale and mscale_all_dim, or none of them must be given, got mscale=1.0"),
        (
            {"attention_factor": 1, "mscale": 1, "mscale_all_dim": 1},
            "got attention_factor=1, mscale=1, mscale_all_dim=1",
        ),
        ({"truncate": 1}, "truncate must be True or False, got int"),
    ],
)
def test_wrong_yarn(given: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        Yarn(**{"factor": 4, "original_max_position_embeddings": 4096, **given})


@pytest.mark.parametrize(
    ("trained", "given", "message"),
    [
        (4096, {"theta": 1.0}, "theta must be a finite fp32 number and > 1, got 1.0"),
        (3, {"theta": 10.0}, "must leave YaRN a ramp among the pairs, got 3, 32.0 and 1.0 with theta 10.0"),
        (2**31, {"theta": 10.0}, "must leave YaRN a ramp among the pairs, got 2147483648, 32.0 and 1.0"),
    ],
)
def test_yarn_without_a_ramp(trained: int, given: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rope_cos_sin(4, 64, yarn=Yarn(factor=4, original_max_position_embeddings=trained), **given)


def test_yarn_of_a_configuration() -> None:
    with pytest.raises(TypeError, match="yarn must be a Yarn or None, got dict"):
        rope_cos_sin(4, 64, yarn={"factor": 4.0})  # type: ignore[arg-type]
    config = {"factor": np.float32(4), "original_max_position_embeddings": np.int64(131072)}
    assert Yarn(**config) == YARNS[0]


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
    inputs = operands(op, (QKV, *WEIGHTS, TABLE, far))
    (got,) = interpreted(op, inputs, planned(op, inputs))
    front_ends = np.asarray(of_jax(QKV, far)), to_numpy(of_torch(to_tensor(QKV), to_tensor(far)))
    for each in (got, *front_ends):  # JAX has 32-bit numbers here
        assert_same_bytes([each], [*op.reference(inputs).values()])
    assert (np.isnan(got.astype(np.float32)).any(axis=-1) == (far != 5)).all()


def test_compiled_by_torch() -> None:
    compiled = torch.compile(of_torch, fullgraph=True, backend="aot_eager")
    assert_same_bytes([to_numpy(compiled(to_tensor(QKV), to_tensor(POSITIONS)))], WANTED)


def test_in_place() -> None:
    qkv = to_tensor(QKV.copy())
    assert of_torch(qkv, to_tensor(POSITIONS), out=qkv) is qkv
    assert_same_bytes([to_numpy(qkv)], WANTED)
