"""Cases of gemma_rmsnorm_heads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from m3ops.cases.case import SPECIALS, Case, bit_patterns, normal, subnormals, views, with_specials
from m3ops.cases.norms import outliers
from m3ops.numerics.formats import ACTIVATION_DTYPES

Rows = Callable[[], np.ndarray]
Heads = tuple[int, int, int]


def _rows() -> Iterator[tuple[str, Rows, Heads]]:
    for dtype in ACTIVATION_DTYPES:
        yield f"normal {dtype}", partial(normal, (5, 8 * 64), dtype), (4, 2, 2)
        yield f"random bits {dtype}", partial(bit_patterns, (9, 6 * 32), dtype), (3, 2, 1)
        yield f"subnormals {dtype}", partial(subnormals, (5, 3 * 64), dtype), (1, 1, 1)
    yield "NaN and infinities", partial(with_specials, normal((6, 4 * 32), "float32"), SPECIALS), (1, 1, 2)
    yield "outliers", outliers, (1, 1, 1)
    yield "zeros", partial(np.zeros, (2, 128), np.float32), (2, 1, 1)
    yield "no rows", partial(normal, (0, 128), "bfloat16"), (2, 1, 1)
    yield "no leading axis", partial(normal, (128,), "bfloat16"), (2, 1, 1)
    yield "no v heads", partial(normal, (3, 128), "bfloat16"), (2, 2, 0)
    yield "head_dim 1", partial(normal, (3, 7), "float32"), (4, 2, 1)
    yield "head_dim 80", partial(normal, (5, 8 * 80), "bfloat16"), (4, 2, 2)
    yield "head_dim 1000", partial(normal, (3, 3000), "bfloat16"), (1, 1, 1)
    yield "M3, a prefill of 37 tokens", partial(normal, (37, 72 * 128), "bfloat16"), (64, 4, 4)
    yield "M3, one token", partial(normal, (1, 72 * 128), "bfloat16"), (64, 4, 4)
    yield "M3 on 4 devices", partial(normal, (21, 18 * 128), "bfloat16"), (16, 1, 1)
    for name, make in views("bfloat16", 128).items():
        yield name, make, (2, 1, 1)


def _cases() -> Iterator[Case]:
    for name, make, heads in _rows():
        yield _case(name, partial(_inputs, make, sum(heads)), heads)
    yield _case("eps 0 and zeros", lambda: (np.zeros((2, 64), np.float32), *_weights(32, "float32")), (1, 1, 0), 0.0)
    mixed = lambda: (normal((5, 128), "bfloat16"), normal((32,), "float32"), normal((32,), "float16"))  # noqa: E731
    yield _case("weights of other dtypes", mixed, (2, 1, 1))
    batch = lambda: (normal((3, 5, 128), "bfloat16"), normal((3, 1, 32), "float32"), normal((5, 32), "float32"))  # noqa: E731
    yield _case("weights for each batch and for each token", batch, (2, 1, 1))


def _case(name: str, make: Callable[[], tuple[np.ndarray, ...]], heads: Heads, eps: float = 1e-6) -> Case:
    counts = dict(zip(("num_heads_q", "num_heads_k", "num_heads_v"), heads, strict=True))
    return Case("gemma_rmsnorm_heads", name, make, {**counts, "eps": eps})


def _inputs(make: Rows, num_heads: int) -> tuple[np.ndarray, ...]:
    qkv = make()
    return qkv, *_weights(qkv.shape[-1] // num_heads, qkv.dtype.name)


def _weights(size: int, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    both = normal((2, size), dtype, 0.5)
    return both[0], both[1]


CASES = tuple(_cases())
