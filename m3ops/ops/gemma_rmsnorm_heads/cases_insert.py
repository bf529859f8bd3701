"""Cases of gemma_rmsnorm_rope_kv_insert."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from m3ops.numerics.formats import ACTIVATION_DTYPES
from m3ops.ops.gemma_rmsnorm_heads.cases import KINDS, Heads, rope_inputs
from m3ops.testing.arrays import SPECIALS, Inputs, bit_patterns, normal, one, random_bits, views, with_specials
from m3ops.testing.case import COUNTS, Case, counting, counts_of

OP = "gemma_rmsnorm_rope_kv_insert"
E4M3 = ("float8_e4m3fn", "float8_e4m3fnuz")
SMALL: Heads = (2, 1, 1)
Change = Callable[[dict[str, Any]], dict[str, Any]]


def inputs(
    make: Inputs,
    heads: Heads,
    rotary_dim: int = 32,
    *,
    cache: str = "bfloat16",
    block_size: int = 16,
    index: bool = False,
    q_dtype: str | None = None,
    change: Change = lambda given: {},
) -> tuple[Any, ...]:
    """A qkv with all that it needs: caches with more slots than rows, which go to any of them, and every fifth nowhere.

    Args:
        make: Gives qkv.
        heads: Its heads.
        rotary_dim: How many elements of each are turned.
        cache: The dtype of the caches.
        block_size: Slots of a block.
        index: Whether the index_k heads have a cache.
        q_dtype: That of the call.
        change: Gives other arrays for some of these, by name.
    """
    qkv, weight_q, weight_k, cos_sin, positions = rope_inputs(make, sum(heads), rotary_dim)
    weights = normal((2, *weight_q.shape), weight_q.dtype.name, 0.25) if len(heads) > 3 else (None, None)
    leading, dim = qkv.shape[:-1], weight_q.shape[-1]
    given = {
        "qkv": qkv,
        "weight_q": weight_q,
        "weight_k": weight_k,
        "cos_sin": cos_sin,
        "positions": positions,
        "key_cache": _cache(leading, block_size, heads[1], dim, cache),
        "value_cache": _cache(leading, block_size, heads[2], dim, cache)[::-1].copy(),
        "slot_mapping": slots(leading, block_size),
        "weight_index_q": weights[0],
        "weight_index_k": weights[1],
        "index_cache": _cache(leading, 2 * block_size, heads[4], dim, cache) if index else None,
        "index_slot_mapping": slots(leading, 2 * block_size).astype(np.int64)[::-1].copy() if index else None,
        "k_scale": np.array([0.3], np.float32) if cache in E4M3 else None,
        "v_scale": np.array([0.07], np.float32) if cache in E4M3 else None,
        "q_scale": np.array([0.2], np.float32) if q_dtype is not None else None,
    }
    return tuple((given | change(given)).values())


def _blocks(leading: tuple[int, ...], block_size: int) -> int:
    return 2 + math.prod(leading) // block_size


def _cache(leading: tuple[int, ...], block_size: int, heads: int, dim: int, dtype: str) -> np.ndarray:
    return normal((_blocks(leading, block_size), block_size, heads, dim), "float32").astype(dtype)


def slots(leading: tuple[int, ...], block_size: int) -> np.ndarray:
    """Different slots in no order; each fifth row has none."""
    total = math.prod(leading)
    order = np.argsort(random_bits((_blocks(leading, block_size) * block_size,), "slots"), kind="stable")[:total]
    return np.where(np.arange(total) % 5 == 3, -1, order).astype(np.int32).reshape(leading)


def _case(name: str, make: Inputs, heads: Heads = SMALL, rotary_dim: int = 32, eps: float = 1e-6, **kind: Any) -> Case:
    counts = dict(zip((f"num_heads_{kind}" for kind in KINDS), heads, strict=False))
    given = {**counts, "rotary_dim": rotary_dim, "eps": eps}
    if "q_dtype" in kind:
        given["q_dtype"] = kind["q_dtype"]
    return Case(OP, name, partial(inputs, make, heads, rotary_dim, **kind), given)


def _cases() -> Iterator[Case]:
    for dtype in ACTIVATION_DTYPES:
        yield _case(f"normal {dtype}", one(normal, (13, 8 * 64), dtype), (4, 2, 2))
        yield _case(f"random bits {dtype} to E4M3", one(bit_patterns, (9, 6 * 32), dtype), (3, 2, 1), 16, cache=E4M3[0])
        for cache in (*ACTIVATION_DTYPES, *E4M3):
            yield _case(f"{dtype} to {cache}", one(normal, (13, 4 * 32), dtype, 30.0), cache=cache)
    for block_size in (1, 12, 16, 64, 128):
        yield _case(f"blocks of {block_size}", one(normal, (37, 8 * 64), "bfloat16"), (4, 2, 2), block_size=block_size)
    for heads in ((16, 4, 4), (4, 1, 1)):
        for dtype in ("bfloat16", E4M3[0]):
            name = f"M3, {heads[0]} q heads, 21 tokens to {dtype}"
            yield _case(name, one(normal, (21, sum(heads) * 128), "bfloat16"), heads, 64, cache=dtype)
    yield _case("M3, one token", one(normal, (1, 72 * 128), "bfloat16"), (64, 4, 4), 64)
    yield _case("48 of 80", one(normal, (5, 8 * 80), "bfloat16"), (4, 2, 2), 48, cache=E4M3[0])
    yield _case("64 of 100", one(normal, (5, 400), "bfloat16"), rotary_dim=64)
    for q_dtype, cache in zip(E4M3, ("bfloat16", E4M3[1]), strict=True):
        large = one(normal, (13, 8 * 64), "bfloat16", 30.0)
        yield _case(f"q in {q_dtype}, a cache of {cache}", large, (4, 2, 2), cache=cache, q_dtype=q_dtype)
    yield _case("no rows", one(normal, (0, 128), "bfloat16"))
    yield _case("no leading axis", one(normal, (128,), "bfloat16"))
    for name, make in views("bfloat16", 128).items():
        yield _case(name, one(make))
    yield from _slot_cases()
    yield from _rounding_cases()
    yield from _index_cases()
    for rows, counts in COUNTS:
        arrays = partial(inputs, one(normal, (*rows, 64), "bfloat16", 3.0), SMALL, 16)
        given = {"num_heads_q": 2, "num_heads_k": 1, "num_heads_v": 1, "rotary_dim": 16}
        yield Case(OP, counts_of(rows, counts), partial(counting, arrays, *counts), given)


def _slot_cases() -> Iterator[Case]:
    """What slots and caches may be."""
    make = one(normal, (6, 128), "bfloat16")

    def case(name: str, change: Change, make: Inputs = make) -> Case:
        return _case(name, make, change=change)

    edges = np.array([31, -1, 0, 15, 16, -(2**31)], np.int32)
    yield case("first and last slots of blocks", lambda _: {"slot_mapping": edges})
    yield case("int64 slots", lambda _: {"slot_mapping": edges.astype(np.int64)})
    yield case("no slot for any row", lambda _: {"slot_mapping": np.full(6, -1, np.int32)})
    yield case("every other slot", lambda given: {"slot_mapping": np.repeat(given["slot_mapping"], 2)[::2]})
    yield case("three axes", lambda _: {}, one(normal, (2, 3, 4, 128), "bfloat16"))

    def of_one(given: dict[str, Any]) -> dict[str, Any]:
        pair = np.concatenate([given["key_cache"], given["value_cache"]], 3).transpose(0, 2, 1, 3).copy()
        return {"key_cache": pair[..., :32].swapaxes(1, 2), "value_cache": pair[..., 32:].swapaxes(1, 2)}

    yield case("k and v side by side, heads before slots", of_one)
    yield case("every other element of a cache", lambda g: {"key_cache": np.repeat(g["key_cache"], 2, 3)[..., ::2]})
    halves = lambda g: {"key_cache": g["key_cache"].astype("float16"), "value_cache": g["value_cache"].astype(E4M3[0])}  # noqa: E731
    yield case("caches of two dtypes", halves)


def _rounding_cases() -> Iterator[Case]:
    """What becomes of numbers that E4M3 has not."""
    specials = one(with_specials, normal((6, 4 * 32), "float32"), SPECIALS)
    large = one(normal, (7, 128), "bfloat16", 2.0**9)
    for cache in E4M3:
        yield _case(f"NaN and infinities to {cache}", specials, (1, 1, 2), 16, cache=cache)
        for scale in (2.0**-20, 2.0**9, 2.0**-140, 3e38, 0.0, -0.7, np.inf, np.nan):
            both = dict.fromkeys(("k_scale", "v_scale"), np.array([scale], np.float32))
            yield _case(f"{cache} with a scale of {scale:g}", large, cache=cache, change=lambda _, own=both: own)
        yield _case(
            f"{cache} without scales", large, cache=cache, change=lambda _: dict.fromkeys(("k_scale", "v_scale"))
        )
        zeros = one(np.full, (2, 128), np.float32(-0.0))
        yield _case(f"negative zeros to {cache}", zeros, cache=cache)
    for scale in (3.0, 0.07, -0.3, 1.3 * 2.0**-60, 2.0**-60 / 1.3, 2.0**61 / 1.3, 1.3 * 2.0**61):
        beside = one(_quotients_beside_midpoints, np.float32(scale))
        for cache in E4M3:
            own = {"v_scale": np.array([scale], np.float32)}
            name = f"quotients by {scale:.4g} beside the midpoints of {cache}"
            yield _case(name, beside, cache=cache, change=lambda _, own=own: own)
    yield _case("float32 too large for float16", one(normal, (5, 128), "float32", 1e5), cache="float16")
    yield _case("NaN and infinities to bfloat16", specials, (1, 1, 2), 16)


def _quotients_beside_midpoints(scale: np.float32) -> np.ndarray:
    """A qkv of 4 heads of 32, whose v divided by the scale is beside the midpoints of E4M3 numbers."""
    numbers = np.arange(127, dtype=np.uint8).view("float8_e4m3fn").astype(np.float64)
    middles = np.concatenate([(numbers[:-1] + numbers[1:]) / 2, [464.0, 2.0**20]])
    near = (middles * float(scale)).astype(np.float32)
    beside = (near.view(np.int32)[:, None] + np.arange(-4, 4, dtype=np.int32)).view(np.float32).reshape(32, 32)
    return np.concatenate([normal((32, 96), "float32"), beside], 1)


def _index_cases() -> Iterator[Case]:
    heads = (4, 2, 2, 2, 2)
    for dtype in ACTIVATION_DTYPES:
        make = one(normal, (13, 12 * 64), dtype)
        yield _case(f"index heads, normal {dtype}", make, heads, index=True)
        yield _case(f"index heads, {dtype} to E4M3", make, heads, index=True, cache=E4M3[0])
    make = one(normal, (21, 77 * 128), "bfloat16")
    yield _case("index heads, M3", make, (64, 4, 4, 4, 1), 64, index=True)
    yield _case("index heads, M3 to E4M3", make, (64, 4, 4, 4, 1), 64, index=True, cache=E4M3[0])
    yield _case("index heads, M3, all in E4M3", make, (64, 4, 4, 4, 1), 64, index=True, cache=E4M3[0], q_dtype=E4M3[0])
    yield _case("index heads without a cache", one(normal, (5, 12 * 32), "bfloat16"), heads, 16)
    yield _case("index heads, no rows", one(normal, (0, 12 * 32), "bfloat16"), heads, 16, index=True)
    counts = dict(zip((f"num_heads_{kind}" for kind in KINDS), heads, strict=True))
    arrays = partial(inputs, one(normal, (3, 7, 12 * 16), "bfloat16", 3.0), heads, 16, index=True)
    yield Case(OP, "index heads, 10 of 3 x 7 rows", partial(counting, arrays, 10), {**counts, "rotary_dim": 16})


CASES = tuple(_cases())
