"""Cases of gemma_rmsnorm and gemma_fused_add_rmsnorm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from m3ops.cases.case import SPECIALS, Case, bit_patterns, normal, subnormals, views, with_specials
from m3ops.numerics.formats import ACTIVATION_DTYPES

Rows = Callable[[], np.ndarray]


def outliers() -> np.ndarray:
    """Rows with one element far above the others, up to where squares overflow fp32 and down to where they vanish."""
    x = normal((64, 96), "float32")
    x[np.arange(64), np.arange(64)] = 2.0 ** np.linspace(-80, 127, 64).round()
    return x


def scaled_rows() -> np.ndarray:
    """Rows of one magnitude each, over the whole fp32 range."""
    return np.asarray(normal((56, 64), "float64") * np.exp2(np.arange(-150, 130, 5))[:, None], np.float32)


def _rows() -> Iterator[tuple[str, Rows, dict[str, Any]]]:
    for dtype in ACTIVATION_DTYPES:
        yield f"normal {dtype}", partial(normal, (5, 160), dtype), {}
        yield f"random bits {dtype}", partial(bit_patterns, (40, 64), dtype), {}
        yield f"subnormals {dtype}", partial(subnormals, (5, 64), dtype), {}
        yield f"subnormals {dtype}, eps 0", partial(subnormals, (5, 64), dtype), {"eps": 0.0}
    yield "a large eps", partial(normal, (4, 96), "bfloat16"), {"eps": 0.37}
    yield "a subnormal eps", partial(subnormals, (4, 64), "float32"), {"eps": 1e-40}
    yield "NaN and infinities", partial(with_specials, normal((6, 96), "float32"), SPECIALS), {}
    yield "outliers", outliers, {}
    yield "rows of every magnitude, eps 0", scaled_rows, {"eps": 0.0}
    yield "zeros", partial(np.zeros, (2, 64), np.float32), {}
    yield "zeros, eps 0", partial(np.zeros, (2, 64), np.float32), {"eps": 0.0}
    yield "negative zeros", partial(np.full, (2, 64), np.float32(-0.0)), {}
    yield "no rows", partial(normal, (0, 64), "bfloat16"), {}
    yield "no leading axis", partial(normal, (64,), "bfloat16"), {}
    yield "N = 1", partial(normal, (3, 1), "float32"), {}
    yield "N = 13", partial(normal, (3, 13), "float32"), {}
    yield "rows and columns that divide nothing", partial(normal, (37, 300), "bfloat16"), {}
    yield "M3 hidden, N = 6144", partial(normal, (3, 6144), "bfloat16"), {}
    yield "several tiles a row, N = 20000", partial(normal, (2, 20000), "bfloat16"), {}
    yield "QK norm, rows of 128", partial(normal, (50, 4, 128), "bfloat16"), {}
    for name, make in views("bfloat16", 96).items():
        yield name, make, {}


def _cases() -> Iterator[Case]:
    for name, make, params in _rows():
        yield Case("gemma_rmsnorm", name, partial(norm_inputs, make), params)
        yield Case("gemma_fused_add_rmsnorm", name, partial(fused_inputs, make), params)
    heads = lambda: (normal((5, 3, 64), "bfloat16"), normal((3, 64), "float32"))  # noqa: E731
    yield Case("gemma_rmsnorm", "a weight for each head, fp32", heads)
    batch = lambda: (normal((3, 5, 64), "bfloat16"), normal((3, 1, 64), "float16"))  # noqa: E731
    yield Case("gemma_rmsnorm", "a weight for each batch, fp16", batch)
    cancel = lambda: (x := normal((4, 64), "bfloat16"), -x, _weight(x))  # noqa: E731
    yield Case("gemma_fused_add_rmsnorm", "a residual that cancels x", cancel)


def norm_inputs(make: Rows) -> tuple[np.ndarray, ...]:
    x = make()
    return x, _weight(x)


def fused_inputs(make: Rows) -> tuple[np.ndarray, ...]:
    x = make()
    return x, _residual(x), _weight(x)


def _weight(x: np.ndarray) -> np.ndarray:
    return normal((x.shape[-1],), x.dtype.name, 0.5)


def _residual(x: np.ndarray) -> np.ndarray:
    return normal(x.shape, x.dtype.name, 0.75)


CASES = tuple(_cases())
