"""Cases of swiglu_oai, and the activations that swiglu_oai_quantize shares."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from m3ops.cases.case import SPECIALS, Case, bit_patterns, neighbours, normal, one, subnormals, views, with_specials
from m3ops.numerics.constants import sigmoid_constants
from m3ops.numerics.formats import ACTIVATION_DTYPES

# Every parameter away from its default, and from values at which it would not matter.
UNUSUAL = {"alpha": 1.3, "beta": -0.75, "limit": 2.3}


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


def activations() -> Iterator[tuple[str, Callable[[], np.ndarray], dict[str, Any]]]:
    """(name, array, params) for ops that take ``gate_up``; halves are multiples of 32."""
    for dtype in ACTIVATION_DTYPES:
        yield f"normal {dtype}", partial(normal, (5, 192), dtype, 2.0), {}
        yield f"unusual parameters {dtype}", partial(normal, (5, 192), dtype, 2.0), UNUSUAL
        yield f"random bits {dtype}", partial(bit_patterns, (32, 128), dtype), {}
        yield f"random bits {dtype}, no limit", partial(bit_patterns, (32, 128), dtype), {"limit": None}
        yield f"subnormals {dtype}", partial(subnormals, (9, 128), dtype), {}
        yield f"subnormals {dtype}, beta 0", partial(subnormals, (9, 128), dtype), {"beta": 0.0, "limit": None}
    specials = partial(with_specials, normal((12, 256), "bfloat16"), (*SPECIALS, *SPECIALS))
    yield "NaN and infinities", specials, {}
    yield "NaN and infinities, no limit", specials, {"limit": None}
    yield (
        "SiLU: alpha 1, beta 0, no limit",
        partial(normal, (4, 128), "bfloat16", 6.0),
        {"alpha": 1.0, "beta": 0.0, "limit": None},
    )
    yield "clamp edges", clamp_edges, {}
    yield "clamp edges, no limit", clamp_edges, {"limit": None}
    yield "a limit past the exponent's clamp", clamp_edges, {"limit": 1e30}
    yield "a subnormal limit", clamp_edges, {"limit": 1e-40}
    yield "the smallest alpha", clamp_edges, {"alpha": 2.0**-64, "limit": None}
    yield "the largest alpha", clamp_edges, {"alpha": 2.0**64, "limit": None}
    yield "zeros", partial(np.zeros, (3, 128), np.float32), {}
    yield "negative zeros", lambda: -np.zeros((3, 128), np.float32), {}
    yield "ups of -0.0, beta 0", ups_of_negative_zero, {"beta": 0.0}
    yield "no rows", partial(normal, (0, 128), "bfloat16"), {}
    yield "one row", partial(normal, (1, 128), "bfloat16"), {}
    yield "no leading axis", partial(normal, (128,), "bfloat16"), {}
    yield "an empty last axis", partial(normal, (3, 0), "bfloat16"), {}
    yield "five axes", partial(normal, (2, 1, 3, 2, 64), "bfloat16"), {}
    yield "rows and columns that divide nothing", partial(normal, (37, 448), "bfloat16"), {}
    yield "M3 MoE, I = 3072", partial(normal, (3, 6144), "bfloat16", 3.0), {}
    yield "M3 dense, I = 12288", partial(normal, (1, 24576), "bfloat16", 3.0), {}
    yield "tensor parallel slice, I = 384", partial(normal, (40, 768), "bfloat16", 3.0), {}
    yield "tensor parallel slice, I = 1536", partial(normal, (3, 3072), "bfloat16", 3.0), {}
    yield "4 groups", partial(normal, (5, 512), "bfloat16", 2.0), {"groups": 4}
    yield "3 groups of random bits", partial(bit_patterns, (8, 192), "float16"), {"groups": 3, "limit": None}
    yield "2 groups of nothing", partial(normal, (3, 0), "bfloat16"), {"groups": 2}
    yield "M3 dense in 8 groups", partial(normal, (2, 24576), "bfloat16", 3.0), {"groups": 8}
    for name, make in views("bfloat16", 128).items():
        yield name, make, {}
        yield f"{name}, 2 groups", make, {"groups": 2}
    for name, make, params in _interleaved():
        yield f"interleaved, {name}", make, {**params, "layout": "interleaved"}


def _interleaved() -> Iterator[tuple[str, Callable[[], np.ndarray], dict[str, Any]]]:
    for dtype in ACTIVATION_DTYPES:
        yield f"normal {dtype}", partial(normal, (5, 192), dtype, 2.0), UNUSUAL
        yield f"random bits {dtype}", partial(bit_patterns, (32, 128), dtype), {"limit": None}
    specials = partial(with_specials, normal((12, 256), "bfloat16"), (*SPECIALS, *SPECIALS))
    yield "NaN and infinities", specials, {}
    yield "no rows", partial(normal, (0, 128), "bfloat16"), {}
    yield "one row", partial(normal, (1, 128), "bfloat16"), {}
    yield "no leading axis", partial(normal, (128,), "bfloat16"), {}
    yield "an empty last axis", partial(normal, (3, 0), "bfloat16"), {}
    yield "rows and columns that divide nothing", partial(normal, (37, 448), "bfloat16"), {}
    yield "M3 MoE, I = 3072", partial(normal, (3, 6144), "bfloat16", 3.0), {}
    yield "tensor parallel slice, I = 384", partial(normal, (40, 768), "bfloat16", 3.0), {}
    yield "2 groups", partial(normal, (5, 256), "bfloat16", 2.0), {"groups": 2}
    for name in ("columns sliced out of wider rows", "transposed leading axes", "every other column"):
        yield name, views("bfloat16", 128)[name], {}


def _cases() -> Iterator[Case]:
    for name, make, params in activations():
        yield Case("swiglu_oai", name, one(make), params)
    for dtype in ACTIVATION_DTYPES:
        for out_dtype in ACTIVATION_DTYPES:
            params = {"out_dtype": out_dtype, "limit": None}
            yield Case("swiglu_oai", f"{dtype} to {out_dtype}", one(bit_patterns, (8, 128), dtype), params)
            alternating = {"out_dtype": out_dtype, "layout": "interleaved"}
            wide = one(normal, (4, 192), dtype, 3.0)
            yield Case("swiglu_oai", f"interleaved, {dtype} to {out_dtype}", wide, alternating)
    yield Case("swiglu_oai", "I = 1", one(normal, (5, 2), "bfloat16"))
    yield Case("swiglu_oai", "I = 5 in 5 groups", one(normal, (3, 10), "float32"), {"groups": 5})
    for size in (1, 3):
        made = one(normal, (5, 2 * size), "bfloat16")
        yield Case("swiglu_oai", f"interleaved, I = {size}", made, {"layout": "interleaved"})
    yield Case("swiglu_oai", "I = 1000, no multiple of 32", one(normal, (3, 2000), "float16"))


CASES = tuple(_cases())
