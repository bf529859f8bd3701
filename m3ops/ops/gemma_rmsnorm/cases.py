"""Cases of gemma_rmsnorm and gemma_fused_add_rmsnorm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import permutations

import numpy as np

from m3ops.numerics.formats import ACTIVATION_DTYPES
from m3ops.testing.arrays import (
    SPECIALS,
    Inputs,
    InputsOfShape,
    bit_patterns,
    normal,
    one,
    subnormals,
    views,
    with_specials,
)
from m3ops.testing.case import Case, counted, counting

case = partial(Case, "gemma_rmsnorm")


def norm_inputs(rows: Inputs) -> tuple[np.ndarray, ...]:
    """``x`` with a weight."""
    (x,) = rows()
    return x, _weight(x)


def fused_inputs(rows: Inputs) -> tuple[np.ndarray, ...]:
    """``x`` with a residual and a weight."""
    (x,) = rows()
    return x, normal(x.shape, x.dtype.name, 0.75), _weight(x)


def of_two_dtypes(of_x: str, of_residual: str, scale: float = 1.0) -> tuple[np.ndarray, ...]:
    """``x``, a residual of another dtype and a weight."""
    return normal((5, 160), of_x, scale), normal((5, 160), of_residual, 0.75 * scale), normal((160,), "float32", 0.5)


def residuals_of_other_dtypes() -> Iterator[tuple[str, Inputs]]:
    """Inputs of norms with residual add."""
    for of_x, of_residual in permutations(ACTIVATION_DTYPES, 2):
        yield f"{of_x} and a residual of {of_residual}", partial(of_two_dtypes, of_x, of_residual)


def of_shape(inputs: Callable[[Inputs], tuple[np.ndarray, ...]]) -> InputsOfShape:
    """Such inputs for rows of any shape."""
    return lambda shape: partial(inputs, one(normal, shape, "bfloat16", 3.0))


def _weight(x: np.ndarray) -> np.ndarray:
    return normal((x.shape[-1],), x.dtype.name, 0.5)


def _special_weight() -> np.ndarray:
    weight = normal((64,), "float32", 0.5)
    weight[:6] = [-0.0, 0.0, *SPECIALS]
    return weight


def _cancelling() -> np.ndarray:
    return np.where(np.arange(64) % 3, normal((64,), "float32", 2.0**-30) - 1, -1).astype(np.float32)


def outliers() -> np.ndarray:
    """Rows with one element far above the others, up to where squares overflow fp32 and down to where they vanish."""
    x = normal((64, 96), "float32")
    x[np.arange(64), np.arange(64)] = 2.0 ** np.linspace(-80, 127, 64).round()
    return x


def scaled_rows() -> np.ndarray:
    """Rows of one magnitude each, over the whole fp32 range."""
    return np.asarray(normal((56, 64), "float64") * np.exp2(np.arange(-150, 130, 5))[:, None], np.float32)


def _rows() -> Iterator[Case]:
    """Cases of either norm, of which ``x`` is made alone."""
    for dtype in ACTIVATION_DTYPES:
        tiny = one(subnormals, (5, 64), dtype)
        yield case(f"normal {dtype}", one(normal, (5, 160), dtype))
        yield case(f"random bits {dtype}", one(bit_patterns, (40, 64), dtype))
        yield case(f"subnormals {dtype}", tiny, gradient=False)
        yield case(f"subnormals {dtype}, eps 0", tiny, {"eps": 0.0}, gradient=dtype == "float32")
    yield case("a large eps", one(normal, (4, 96), "bfloat16"), {"eps": 0.37})
    yield case("a subnormal eps", one(subnormals, (4, 64), "float32"), {"eps": 1e-40}, gradient=False)
    yield case("plain weights", one(normal, (5, 160), "bfloat16"), {"weight_offset": 0.0})
    yield case("another offset of the weight", one(normal, (4, 96), "float16"), {"weight_offset": -0.37})
    yield case("NaN and infinities", one(with_specials, normal((6, 96), "float32"), SPECIALS))
    yield case("outliers", one(outliers))
    yield case("rows of every magnitude, eps 0", one(scaled_rows), {"eps": 0.0})
    yield case("zeros", one(np.zeros, (2, 64), np.float32), gradient=False)
    yield case("zeros, eps 0", one(np.zeros, (2, 64), np.float32), {"eps": 0.0})
    yield case("negative zeros", one(np.full, (2, 64), np.float32(-0.0)), gradient=False)
    yield case("no rows", one(normal, (0, 64), "bfloat16"))
    yield case("no leading axis", one(normal, (64,), "bfloat16"))
    yield case("N = 1", one(normal, (3, 1), "float32"))
    yield case("N = 13", one(normal, (3, 13), "float32"))
    yield case("rows and columns that divide nothing", one(normal, (37, 300), "bfloat16"), gradient=False)
    yield case("M3 hidden, N = 6144", one(normal, (3, 6144), "bfloat16"))
    yield case("several tiles a row, N = 20000", one(normal, (2, 20000), "bfloat16"), gradient=False)
    yield case("QK norm, rows of 128", one(normal, (50, 4, 128), "bfloat16"))
    for name, make in views("bfloat16", 96).items():
        yield case(name, one(make), gradient=name in ("transposed leading axes", "every other column"))


def _norms() -> Iterator[Case]:
    for rows in _rows():
        yield replace(rows, make=partial(norm_inputs, rows.make))
        yield replace(rows, op="gemma_fused_add_rmsnorm", make=partial(fused_inputs, rows.make))
    fused = partial(Case, "gemma_fused_add_rmsnorm")
    for name, inputs in residuals_of_other_dtypes():
        yield fused(name, inputs)
    heads = lambda: (normal((5, 3, 64), "bfloat16"), normal((3, 64), "float32"))  # noqa: E731
    yield case("a weight for each head, fp32", heads, gradient=False)
    batch = lambda: (normal((3, 5, 64), "bfloat16"), normal((3, 1, 64), "float16"))  # noqa: E731
    yield case("a weight for each batch, fp16", batch, gradient=False)
    zeros = lambda: (normal((3, 64), "float32"), _special_weight())  # noqa: E731
    yield case("plain weights of -0.0, NaN and infinity", zeros, {"weight_offset": 0.0})
    yield case("weights that cancel their offset", lambda: (normal((3, 64), "float32"), _cancelling()))
    tiny = lambda: (normal((3, 64), "float32", 2.0**60), subnormals((64,), "float32"))  # noqa: E731
    yield case("subnormal weights and offset, eps 0", tiny, {"weight_offset": 1e-40, "eps": 0.0})
    cancel = lambda: (x := normal((4, 64), "bfloat16"), -x, _weight(x))  # noqa: E731
    yield Case("gemma_fused_add_rmsnorm", "a residual that cancels x", cancel)


def _counts() -> Iterator[Case]:
    yield from counted("gemma_rmsnorm", of_shape(norm_inputs))
    yield from counted("gemma_fused_add_rmsnorm", of_shape(fused_inputs))
    wide = partial(norm_inputs, one(normal, (3, 20000), "bfloat16"))
    yield case("1 of 3 wide rows", partial(counting, wide, 1))


NORMS = tuple(_norms())
"""Those whose inputs the gradients may be tried with."""

CASES = (*NORMS, *_counts())
