"""Cases of swiglu_oai, and with whole blocks those of swiglu_oai_quantize too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from m3ops.numerics.constants import sigmoid_constants
from m3ops.numerics.formats import ACTIVATION_DTYPES
from m3ops.testing.arrays import (
    SPECIALS,
    Inputs,
    bit_patterns,
    neighbours,
    normal,
    one,
    subnormals,
    views,
    with_specials,
)
from m3ops.testing.case import Case, counted, counting

# Every parameter away from its default, and from values at which it would not matter.
UNUSUAL = {"alpha": 1.3, "beta": -0.75, "limit": 2.3}

ROWS_AND_COLUMNS = ("transposed leading axes", "every other column")
"""The views that a gradient is tried with."""

case = partial(Case, "swiglu_oai")


def together(make: Inputs) -> Callable[[], tuple[Any, ...]]:
    """These inputs, and None for the ups, for what comes after them."""
    return lambda: (*make(), None)


def apart(make: Callable[..., np.ndarray], *args: Any) -> Inputs:
    """The halves of ``make(*args)`` as two arrays, each contiguous."""

    def halves() -> tuple[np.ndarray, ...]:
        gate, up = np.split(make(*args), 2, axis=-1)
        return gate.copy(), up.copy()

    return halves


def clamp_edges() -> np.ndarray:
    """Gates and ups at the clamps of the inputs and of the sigmoid's exponent, one ulp beside, and far past them."""
    _, bound = sigmoid_constants(1.702)
    edges = neighbours(np.array([7.0, bound, 1e4, 3e38])).ravel()
    edges = np.concatenate([edges, -edges, [0.0, -0.0, 1e-30, -1e-30, 0.5, -0.5, 1.0, -1.0]]).astype(np.float32)
    gate, up = (grid.ravel() for grid in np.meshgrid(edges, edges))
    return np.stack([gate, up]).reshape(2, 32, 32).swapaxes(0, 1).reshape(32, 64)


def ups_of_negative_zero() -> np.ndarray:
    """-0.0 + 0.0 is +0.0: the results have the signs of the gates."""
    x = normal((3, 128), "float32")
    x[:, 64:] = -0.0
    return x


def of_whole_blocks() -> Iterator[Case]:
    """Cases in which whole MXFP8 blocks fill the activation."""
    yield from _dtypes()
    yield from _corners()
    yield from _shapes()
    yield from _groups()
    yield from _apart()
    for name, make in views("bfloat16", 128).items():
        yield case(name, one(make), gradient=name in ROWS_AND_COLUMNS)
        yield case(f"{name}, 2 groups", one(make), {"groups": 2}, gradient=False)
    yield from _interleaved()


def _dtypes() -> Iterator[Case]:
    for dtype in ACTIVATION_DTYPES:
        bits, tiny = one(bit_patterns, (32, 128), dtype), one(subnormals, (9, 128), dtype)
        fp32 = dtype == "float32"
        yield case(f"normal {dtype}", one(normal, (5, 192), dtype, 2.0))
        unusual = one(normal, (5, 192), dtype, 2.0)
        yield case(f"unusual parameters {dtype}", unusual, UNUSUAL, gradient=dtype == "bfloat16")
        yield case(f"random bits {dtype}", bits)
        yield case(f"random bits {dtype}, no limit", bits, {"limit": None}, gradient=fp32)
        yield case(f"subnormals {dtype}", tiny, gradient=False)
        yield case(f"subnormals {dtype}, beta 0", tiny, {"beta": 0.0, "limit": None}, gradient=fp32)


def _corners() -> Iterator[Case]:
    specials = one(with_specials, normal((12, 256), "bfloat16"), (*SPECIALS, *SPECIALS))
    yield case("NaN and infinities", specials)
    yield case("NaN and infinities, no limit", specials, {"limit": None})
    silu = {"alpha": 1.0, "beta": 0.0, "limit": None}
    yield case("SiLU: alpha 1, beta 0, no limit", one(normal, (4, 128), "bfloat16", 6.0), silu)
    edges = one(clamp_edges)
    yield case("clamp edges", edges)
    yield case("clamp edges, no limit", edges, {"limit": None})
    yield case("a limit past the exponent's clamp", edges, {"limit": 1e30})
    yield case("a subnormal limit", edges, {"limit": 1e-40})
    yield case("the smallest alpha", edges, {"alpha": 2.0**-64, "limit": None})
    yield case("the largest alpha", edges, {"alpha": 2.0**64, "limit": None})
    yield case("alpha 0", edges, {"alpha": 0.0})
    yield case("alpha 0, no limit", specials, {"alpha": 0.0, "limit": None})
    yield case("zeros", one(np.zeros, (3, 128), np.float32), gradient=False)
    yield case("negative zeros", one(lambda: -np.zeros((3, 128), np.float32)), gradient=False)
    yield case("ups of -0.0, beta 0", one(ups_of_negative_zero), {"beta": 0.0})


def _shapes() -> Iterator[Case]:
    yield case("no rows", one(normal, (0, 128), "bfloat16"))
    yield case("one row", one(normal, (1, 128), "bfloat16"))
    yield case("no leading axis", one(normal, (128,), "bfloat16"))
    yield case("an empty last axis", one(normal, (3, 0), "bfloat16"), gradient=False)
    yield case("five axes", one(normal, (2, 1, 3, 2, 64), "bfloat16"), gradient=False)
    yield case("rows and columns that divide nothing", one(normal, (37, 448), "bfloat16"), gradient=False)
    yield case("M3 MoE, I = 3072", one(normal, (3, 6144), "bfloat16", 3.0))
    yield case("M3 dense, I = 12288", one(normal, (1, 24576), "bfloat16", 3.0), gradient=False)
    yield case("tensor parallel slice, I = 384", one(normal, (40, 768), "bfloat16", 3.0), gradient=False)
    yield case("tensor parallel slice, I = 1536", one(normal, (3, 3072), "bfloat16", 3.0), gradient=False)


def _groups() -> Iterator[Case]:
    yield case("4 groups", one(normal, (5, 512), "bfloat16", 2.0), {"groups": 4})
    yield case("3 groups of random bits", one(bit_patterns, (8, 192), "float16"), {"groups": 3, "limit": None})
    yield case("2 groups of nothing", one(normal, (3, 0), "bfloat16"), {"groups": 2}, gradient=False)
    yield case("M3 dense in 8 groups", one(normal, (2, 24576), "bfloat16", 3.0), {"groups": 8}, gradient=False)


def _apart() -> Iterator[Case]:
    for dtype in ACTIVATION_DTYPES:
        yield case(f"apart, normal {dtype}", apart(normal, (5, 192), dtype, 2.0), UNUSUAL, gradient=False)
        yield case(f"apart, random bits {dtype}", apart(bit_patterns, (32, 128), dtype), {"limit": None})
    specials = with_specials, normal((12, 256), "bfloat16"), (*SPECIALS, *SPECIALS)
    yield case("apart, NaN and infinities", apart(*specials))
    yield case("apart, no rows", apart(normal, (0, 128), "bfloat16"))
    yield case("apart, one row", apart(normal, (1, 128), "bfloat16"), gradient=False)
    yield case("apart, no leading axis", apart(normal, (128,), "bfloat16"))
    yield case("apart, an empty last axis", apart(normal, (3, 0), "bfloat16"), gradient=False)
    yield case("apart, rows and columns that divide nothing", apart(normal, (37, 448), "bfloat16"))
    yield case("apart, M3 MoE, I = 3072", apart(normal, (3, 6144), "bfloat16", 3.0))
    yield case("apart, halves of one array", lambda: tuple(np.split(normal((5, 128), "bfloat16", 2.0), 2, axis=-1)))
    yield case("apart, other strides", _of_other_strides)
    yield case("apart, one gate for all rows", _of_repeated_gates, gradient=False)


def _of_other_strides() -> tuple[np.ndarray, ...]:
    """Gates in transposed rows, ups in every other column."""
    return normal((3, 5, 64), "bfloat16", 2.0).swapaxes(0, 1), normal((5, 3, 128), "bfloat16", 2.0)[..., ::2]


def _of_repeated_gates() -> tuple[np.ndarray, ...]:
    return np.broadcast_to(normal((64,), "bfloat16", 2.0), (5, 64)), normal((5, 64), "bfloat16", 2.0)


def _interleaved() -> Iterator[Case]:
    layout = {"layout": "interleaved"}
    for dtype in ACTIVATION_DTYPES:
        unusual = one(normal, (5, 192), dtype, 2.0)
        yield case(f"interleaved, normal {dtype}", unusual, {**UNUSUAL, **layout}, gradient=False)
        bits = one(bit_patterns, (32, 128), dtype)
        yield case(f"interleaved, random bits {dtype}", bits, {"limit": None, **layout})
    specials = one(with_specials, normal((12, 256), "bfloat16"), (*SPECIALS, *SPECIALS))
    yield case("interleaved, NaN and infinities", specials, layout, gradient=False)
    yield case("interleaved, no rows", one(normal, (0, 128), "bfloat16"), layout, gradient=False)
    yield case("interleaved, one row", one(normal, (1, 128), "bfloat16"), layout)
    yield case("interleaved, no leading axis", one(normal, (128,), "bfloat16"), layout, gradient=False)
    yield case("interleaved, an empty last axis", one(normal, (3, 0), "bfloat16"), layout, gradient=False)
    yield case("interleaved, rows and columns that divide nothing", one(normal, (37, 448), "bfloat16"), layout)
    yield case("interleaved, M3 MoE, I = 3072", one(normal, (3, 6144), "bfloat16", 3.0), layout)
    tensor_parallel = one(normal, (40, 768), "bfloat16", 3.0)
    yield case("interleaved, tensor parallel slice, I = 384", tensor_parallel, layout, gradient=False)
    yield case("interleaved, 2 groups", one(normal, (5, 256), "bfloat16", 2.0), {"groups": 2, **layout})
    for name in ("columns sliced out of wider rows", *ROWS_AND_COLUMNS):
        rows = one(views("bfloat16", 128)[name])
        yield case(f"interleaved, {name}", rows, layout, gradient=name == "transposed leading axes")


def _of_any_size() -> Iterator[Case]:
    for dtype in ACTIVATION_DTYPES:
        for out_dtype in ACTIVATION_DTYPES:
            given = {"out_dtype": out_dtype, "limit": None}
            yield case(f"{dtype} to {out_dtype}", one(bit_patterns, (8, 128), dtype), given, gradient=False)
            alternating = {"out_dtype": out_dtype, "layout": "interleaved"}
            wide = one(normal, (4, 192), dtype, 3.0)
            yield case(f"interleaved, {dtype} to {out_dtype}", wide, alternating, gradient=False)
    yield case("I = 1", one(normal, (5, 2), "bfloat16"), gradient=False)
    yield case("I = 5 in 5 groups", one(normal, (3, 10), "float32"), {"groups": 5}, gradient=False)
    yield case("interleaved, I = 1", one(normal, (5, 2), "bfloat16"), {"layout": "interleaved"}, gradient=False)
    yield case("interleaved, I = 3", one(normal, (5, 6), "bfloat16"), {"layout": "interleaved"})
    yield case("I = 1000, no multiple of 32", one(normal, (3, 2000), "float16"))
    yield case("apart, I = 1", apart(normal, (5, 2), "bfloat16"))
    to_float32 = {"out_dtype": "float32"}
    yield case("apart, I = 1000, to float32", apart(normal, (3, 2000), "float16"), to_float32, gradient=False)


ACTIVATIONS = (*of_whole_blocks(), *_of_any_size())
"""Those whose inputs the gradient may be tried with."""


def _counted() -> Iterator[Case]:
    yield from counted("swiglu_oai", lambda shape: together(one(normal, shape, "bfloat16", 3.0)))
    gates_and_ups = apart(normal, (3, 6, 192), "bfloat16", 3.0)
    yield case("apart, 10 of 3 x 6 rows", partial(counting, gates_and_ups, 10))
    yield case("apart, 6, 0 and 4 of 3 x 6 rows", partial(counting, gates_and_ups, 6, 0, 4))
    yield case("2 of 5 rows of several tiles", partial(counting, together(one(normal, (5, 6144), "bfloat16", 3.0)), 2))


CASES = (*ACTIVATIONS, *_counted())
