"""Cases of gemma_rmsnorm_heads and gemma_rmsnorm_rope_heads."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from m3ops.numerics.formats import ACTIVATION_DTYPES, FP8_FORMATS
from m3ops.ops.gemma_rmsnorm.cases import outliers
from m3ops.testing.arrays import SPECIALS, Inputs, bit_patterns, normal, one, subnormals, views, with_specials
from m3ops.testing.case import Case, counted, counting, counts_of

Heads = tuple[int, ...]
"""How many heads are q, k and v, and index_q and index_k where there are such."""
KINDS = ("q", "k", "v", "index_q", "index_k")


def _rows() -> Iterator[tuple[str, Inputs, Heads]]:
    """Cases of which ``qkv`` is made alone: name, array, and how many heads are q, k and v."""
    for dtype in ACTIVATION_DTYPES:
        yield f"normal {dtype}", one(normal, (5, 8 * 64), dtype), (4, 2, 2)
        yield f"random bits {dtype}", one(bit_patterns, (9, 6 * 32), dtype), (3, 2, 1)
        yield f"subnormals {dtype}", one(subnormals, (5, 3 * 64), dtype), (1, 1, 1)
    yield "NaN and infinities", one(with_specials, normal((6, 4 * 32), "float32"), SPECIALS), (1, 1, 2)
    yield "outliers", one(outliers), (1, 1, 1)
    yield "zeros", one(np.zeros, (2, 128), np.float32), (2, 1, 1)
    yield "no rows", one(normal, (0, 128), "bfloat16"), (2, 1, 1)
    yield "no leading axis", one(normal, (128,), "bfloat16"), (2, 1, 1)
    yield "no v heads", one(normal, (3, 128), "bfloat16"), (2, 2, 0)
    yield "head_dim 1", one(normal, (3, 7), "float32"), (4, 2, 1)
    yield "head_dim 80", one(normal, (5, 8 * 80), "bfloat16"), (4, 2, 2)
    yield "head_dim 1000", one(normal, (3, 3000), "bfloat16"), (1, 1, 1)
    yield "M3, a prefill of 37 tokens", one(normal, (37, 72 * 128), "bfloat16"), (64, 4, 4)
    yield "M3, one token", one(normal, (1, 72 * 128), "bfloat16"), (64, 4, 4)
    yield "M3 on 4 devices", one(normal, (21, 18 * 128), "bfloat16"), (16, 1, 1)
    for name, make in views("bfloat16", 128).items():
        yield name, one(make), (2, 1, 1)


def _cases() -> Iterator[Case]:
    for name, make, heads in _rows():
        yield _case(name, partial(_inputs, make, sum(heads)), heads)
    yield _case(
        "eps 0 and zeros", lambda: (np.zeros((2, 64), np.float32), *_weights(32, "float32")), (1, 1, 0), eps=0.0
    )
    plain = partial(_inputs, one(normal, (5, 128), "bfloat16"), 4)
    yield _case("plain weights", plain, (2, 1, 1), weight_offset=0.0)
    mixed = lambda: (normal((5, 128), "bfloat16"), normal((32,), "float32"), normal((32,), "float16"))  # noqa: E731
    yield _case("weights of other dtypes", mixed, (2, 1, 1))
    batch = lambda: (normal((3, 5, 128), "bfloat16"), normal((3, 1, 32), "float32"), normal((5, 32), "float32"))  # noqa: E731
    yield _case("weights for each batch and for each token", batch, (2, 1, 1))
    yield from counted("gemma_rmsnorm_heads", lambda shape: partial(_of_shape, shape), _counts((2, 1, 1)))


def _case(name: str, make: Inputs, heads: Heads, **given: float) -> Case:
    return Case("gemma_rmsnorm_heads", name, make, {**_counts(heads), "eps": 1e-6, **given})


def _counts(heads: Heads) -> dict[str, Any]:
    return dict(zip((f"num_heads_{kind}" for kind in KINDS), heads, strict=False))


def _inputs(make: Inputs, num_heads: int) -> tuple[np.ndarray, ...]:
    (qkv,) = make()
    return qkv, *_weights(qkv.shape[-1] // num_heads, qkv.dtype.name)


def _weights(size: int, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    both = normal((2, size), dtype, 0.5)
    return both[0], both[1]


def _of_shape(shape: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """A qkv of four heads, with weights of two dtypes."""
    qkv = normal(shape, "bfloat16", 3.0)
    return qkv, *(normal((shape[-1] // 4,), dtype, 0.5) for dtype in ("bfloat16", "float32"))


def _rope_cases() -> Iterator[Case]:
    for dtype in ACTIVATION_DTYPES:
        shape = (5, 8 * 64)
        yield _rope(f"normal {dtype}", one(normal, shape, dtype), (4, 2, 2))
        yield _rope(f"random bits {dtype}", one(bit_patterns, (9, 6 * 32), dtype), (3, 2, 1), 16)
        yield _rope(f"subnormals {dtype}, eps 0", one(subnormals, (5, 3 * 64), dtype), (1, 1, 1), 32, eps=0.0)
    yield _rope("NaN and infinities", one(with_specials, normal((6, 4 * 32), "float32"), SPECIALS), (1, 1, 2), 16)
    yield _rope("outliers", one(outliers), (1, 1, 1), 16)
    yield _rope("zeros", one(np.zeros, (2, 128), np.float32), (2, 1, 1), 32)
    yield _rope("negative zeros", one(np.full, (2, 128), np.float32(-0.0)), (2, 1, 1), 32)
    yield _rope("no rows", one(normal, (0, 128), "bfloat16"), (2, 1, 1), 32)
    yield _rope("no leading axis", one(normal, (128,), "bfloat16"), (2, 1, 1), 32)
    yield _rope("no v heads", one(normal, (3, 128), "bfloat16"), (2, 2, 0), 16)
    yield _rope("plain weights", one(normal, (5, 128), "bfloat16"), (2, 1, 1), 32, weight_offset=0.0)
    yield _rope("32 of 80", one(normal, (5, 8 * 80), "bfloat16"), (4, 2, 2), 32)
    yield _rope("48 of 80", one(normal, (5, 8 * 80), "bfloat16"), (4, 2, 2), 48)
    yield _rope("64 of 100", one(normal, (5, 400), "bfloat16"), (2, 1, 1))
    yield _rope("M3, a prefill of 37 tokens", one(normal, (37, 72 * 128), "bfloat16"), (64, 4, 4))
    yield _rope("M3, one token", one(normal, (1, 72 * 128), "bfloat16"), (64, 4, 4))
    yield _rope("M3 on 4 devices", one(normal, (21, 18 * 128), "bfloat16"), (16, 1, 1))
    for name, make in views("bfloat16", 128).items():
        yield _rope(name, one(make), (2, 1, 1), 32)
    yield from _tables()
    given = {**_counts((2, 1, 1)), "rotary_dim": 16}
    of_shape = lambda shape: partial(rope_inputs, one(normal, shape, "bfloat16", 3.0), 4, 16)  # noqa: E731
    yield from counted("gemma_rmsnorm_rope_heads", of_shape, given, absent=3)
    yield from _index_cases()
    yield from _q_cases()


def _index_cases() -> Iterator[Case]:
    """Rows of which the last heads are an indexer's."""

    def case(name: str, make: Inputs, heads: Heads, rotary_dim: int = 64, **given: float) -> Case:
        inputs = partial(_index_inputs, make, sum(heads), rotary_dim)
        given = {**_counts(heads), "rotary_dim": rotary_dim, **given}
        return Case("gemma_rmsnorm_rope_heads", f"index heads, {name}", inputs, given)

    for dtype in ACTIVATION_DTYPES:
        yield case(f"normal {dtype}", one(normal, (5, 12 * 64), dtype), (4, 2, 2, 2, 2))
        yield case(f"random bits {dtype}", one(bit_patterns, (9, 9 * 32), dtype), (3, 2, 1, 2, 1), 16)
        yield case(f"subnormals {dtype}, eps 0", one(subnormals, (5, 5 * 64), dtype), (1, 1, 1, 1, 1), 32, eps=0.0)
    yield case("NaN and infinities", one(with_specials, normal((6, 6 * 32), "float32"), SPECIALS), (1, 1, 2, 1, 1), 16)
    yield case("zeros", one(np.zeros, (2, 160), np.float32), (1, 1, 1, 1, 1), 32)
    yield case("no rows", one(normal, (0, 160), "bfloat16"), (1, 1, 1, 1, 1), 32)
    yield case("no leading axis", one(normal, (160,), "bfloat16"), (1, 1, 1, 1, 1), 32)
    yield case("no v heads", one(normal, (3, 160), "bfloat16"), (2, 1, 0, 1, 1), 16)
    yield case("plain weights", one(normal, (5, 192), "bfloat16"), (2, 1, 1, 1, 1), 32, weight_offset=0.0)
    yield case("48 of 80", one(normal, (5, 10 * 80), "bfloat16"), (4, 2, 2, 1, 1), 48)
    yield case("64 of 100", one(normal, (5, 700), "bfloat16"), (2, 1, 1, 2, 1))
    yield case("M3, a prefill of 37 tokens", one(normal, (37, 77 * 128), "bfloat16"), (64, 4, 4, 4, 1))
    yield case("M3, one token", one(normal, (1, 77 * 128), "bfloat16"), (64, 4, 4, 4, 1))
    yield case("M3 on 4 devices", one(normal, (21, 20 * 128), "bfloat16"), (16, 1, 1, 1, 1))
    for name, make in views("bfloat16", 192).items():
        yield case(name, one(make), (2, 1, 1, 1, 1), 32)

    def of_other_kinds() -> tuple[np.ndarray, ...]:
        *others, _, _ = _index_inputs(one(normal, (3, 5, 192), "bfloat16"), 6, 32)
        return *others, normal((3, 1, 32), "float32"), normal((5, 32), "float16")

    given = {**_counts((2, 1, 1, 1, 1)), "rotary_dim": 32}
    yield Case(
        "gemma_rmsnorm_rope_heads", "index heads, weights of each batch and of each token", of_other_kinds, given
    )
    given = {**_counts((4, 2, 2, 2, 2)), "rotary_dim": 16}
    for count, shape in ((10, (3, 7, 12 * 16)), (3, (300, 12 * 16))):
        inputs = partial(_index_inputs, one(normal, shape, "bfloat16", 3.0), 12, 16)
        name = f"index heads, {count} of {' x '.join(map(str, shape[:-1]))} rows"
        yield Case("gemma_rmsnorm_rope_heads", name, partial(counting, inputs, count, absent=1), given)


def _q_cases() -> Iterator[Case]:
    """A result of its own for q."""

    def case(name: str, make: Inputs, heads: Heads, scale: float | None = 0.3, **given: Any) -> Case:
        given = {**_counts(heads), "rotary_dim": 32, "q_dtype": "float8_e4m3fn", **given}
        inputs = partial(_q_inputs, make, heads, given["rotary_dim"], scale)
        return Case("gemma_rmsnorm_rope_heads", f"q in E4M3, {name}", inputs, given)

    for dtype in ACTIVATION_DTYPES:
        yield case(f"random bits {dtype}", one(bit_patterns, (9, 6 * 32), dtype), (3, 2, 1), rotary_dim=16)
    for q_dtype in (fmt.name for fmt in FP8_FORMATS.values()):
        yield case(f"{q_dtype}", one(normal, (13, 8 * 64), "bfloat16", 30.0), (4, 2, 2), q_dtype=q_dtype)
        specials = one(with_specials, normal((6, 4 * 32), "float32"), SPECIALS)
        yield case(f"{q_dtype}, NaN and infinities", specials, (1, 1, 2), q_dtype=q_dtype)
        for scale in (None, 2.0**-9, 0.0, np.nan):
            made = one(normal, (5, 128), "bfloat16")
            yield case(f"{q_dtype}, a scale of {scale}", made, (2, 1, 1), scale, q_dtype=q_dtype)
    yield case("index heads", one(normal, (5, 12 * 64), "float16"), (4, 2, 2, 2, 2))
    yield case("48 of 80", one(normal, (5, 8 * 80), "bfloat16"), (4, 2, 2), rotary_dim=48)
    yield case("no rows", one(normal, (0, 128), "bfloat16"), (2, 1, 1))
    yield case("M3, a prefill of 37 tokens", one(normal, (37, 72 * 128), "bfloat16"), (64, 4, 4), rotary_dim=64)
    yield case("M3, one token", one(normal, (1, 72 * 128), "bfloat16"), (64, 4, 4), rotary_dim=64)
    made = partial(_q_inputs, one(normal, (3, 7, 64), "bfloat16", 3.0), (2, 1, 1), 16, 0.3)
    given = {**_counts((2, 1, 1)), "rotary_dim": 16, "q_dtype": "float8_e4m3fn"}
    for counts in ((10,), (7, 0, 4)):
        name = f"q in E4M3, {counts_of((3, 7), counts)}"
        yield Case("gemma_rmsnorm_rope_heads", name, partial(counting, made, *counts), given)


def _tables() -> Iterator[Case]:
    """Positions and tables of every kind."""
    qkv = one(normal, (6, 128), "bfloat16")

    def case(name: str, change: Callable[..., tuple[np.ndarray, np.ndarray]], make: Inputs = qkv) -> Case:
        def inputs() -> tuple[np.ndarray, ...]:
            *others, cos_sin, positions = rope_inputs(make, 4, 32)
            return *others, *change(cos_sin, positions)

        return Case("gemma_rmsnorm_rope_heads", name, inputs, {**_counts((2, 1, 1)), "rotary_dim": 32})

    edges = np.array([0, 18, 19, -1, 2**31 - 1, -(2**31)], np.int32)
    yield case("positions past the table", lambda table, _: (table, edges))
    far = np.array([0, 18, 19, 2**31, 2**63 - 1, -1], np.int64)  # JAX may cut them to 32 bits: outside all the same
    yield case("int64 positions past the table", lambda table, _: (table, far))
    yield case("int64 positions", lambda table, at: (table, at.astype(np.int64)))
    yield case("every other position", lambda table, at: (table, np.repeat(at, 2)[::2]))
    yield case("a bfloat16 table", lambda table, at: (table.astype("bfloat16"), at))
    yield case("a table of wider rows", lambda table, at: (np.concatenate([table, table], 1)[:, 16:48], at))
    yield case("every other column of a table", lambda table, at: (np.repeat(table, 2, 1)[:, ::2], at))
    yield case("one angle for each row", lambda table, at: (np.broadcast_to(table[:, :1], table.shape), at))
    yield case("NaN and infinities in the table", lambda table, at: (with_specials(table[5:], SPECIALS), at % 4))
    batch = one(normal, (3, 5, 128), "bfloat16")
    yield case("one position a sequence", lambda table, _: (table, np.array([[3], [1], [20]], np.int32)), batch)
    yield case("the same positions for each sequence", lambda table, _: (table, np.arange(5, dtype=np.int32)), batch)


def _rope(name: str, make: Inputs, heads: Heads, rotary_dim: int = 64, **given: float) -> Case:
    inputs = partial(rope_inputs, make, sum(heads), rotary_dim)
    return Case("gemma_rmsnorm_rope_heads", name, inputs, {**_counts(heads), "rotary_dim": rotary_dim, **given})


def rope_inputs(make: Inputs, num_heads: int, rotary_dim: int) -> tuple[np.ndarray, ...]:
    """A qkv with weights, a table of 19 positions and some of them."""
    qkv, *weights = _inputs(make, num_heads)
    positions = 7 * np.arange(math.prod(qkv.shape[:-1]), dtype=np.int32) % 19
    return qkv, *weights, normal((19, rotary_dim), "float32", 0.6), positions.reshape(qkv.shape[:-1])


def _index_inputs(make: Inputs, num_heads: int, rotary_dim: int) -> tuple[np.ndarray, ...]:
    """The same with weights of index heads."""
    inputs = rope_inputs(make, num_heads, rotary_dim)
    of_index_q, of_index_k = normal((2, *inputs[1].shape), inputs[1].dtype.name, 0.25)
    return *inputs, of_index_q, of_index_k


def _q_inputs(make: Inputs, heads: Heads, rotary_dim: int, scale: float | None) -> tuple[Any, ...]:
    """The same with a scale of q, and with weights of index heads if there are such heads."""
    inputs = (_index_inputs if len(heads) > 3 else rope_inputs)(make, sum(heads), rotary_dim)
    absent = (None,) * (7 - len(inputs))
    return *inputs, *absent, None if scale is None else np.array([scale], np.float32)


CASES = (*_cases(), *_rope_cases())
