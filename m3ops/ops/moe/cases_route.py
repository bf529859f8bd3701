"""Cases of moe_route."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from m3ops.numerics.formats import ACTIVATION_DTYPES
from m3ops.testing.arrays import SPECIALS, Inputs, bit_patterns, neighbours, normal, subnormals, views, with_specials
from m3ops.testing.case import Case, counted

case = partial(Case, "moe_route")


def routed(make: Callable[[], np.ndarray], dtype: str = "float32") -> Inputs:
    """Logits and a bias of this dtype that changes the choice."""

    def inputs() -> tuple[np.ndarray, ...]:
        logits = np.asarray(make())
        return logits, normal((logits.shape[-1],), dtype, 0.25)

    return inputs


def _equal_sums() -> tuple[np.ndarray, ...]:
    """Few logits and biases, so that many sums are equal; the last rows are all the same, at both ends too."""
    logits = np.rint(normal((9, 128), "float32")).astype(np.float32)
    logits[5:] = np.array([0.0, 200.0, -200.0, -np.inf], np.float32)[:, None]
    return logits, np.where(np.arange(128) % 3 == 0, 0.5, 0.0).astype(np.float32)


def _neighbouring_sums() -> tuple[np.ndarray, ...]:
    """Logits one ulp apart, whose sums round to few numbers, positive and negative ones, and to zero."""
    near = np.tile(neighbours(np.linspace(0.5, 3.0, 16)).ravel(), (4, 1))
    score = np.float32(0.5)
    bias = np.array([0.0, -1.0, -score, -30.0], np.float32)[:, None] + np.zeros((4, 48), np.float32)
    near[2, ::5] = 0.0
    return near.astype(np.float32), bias


def _infinite_biases() -> tuple[np.ndarray, ...]:
    """Experts that every token takes, that none takes unless it has to, and of which neither can be said."""
    bias = normal((64,), "float32", 0.25)
    bias[[3, 40]], bias[10:62], bias[7] = np.inf, -np.inf, np.nan
    return normal((6, 64), "float32", 2.0), bias


def _specials() -> tuple[np.ndarray, ...]:
    """NaN of both signs and infinities; rows of nothing else."""
    logits = with_specials(normal((16, 96), "float32"), SPECIALS)
    logits[8], logits[9], logits[10], logits[11] = np.nan, -np.inf, np.inf, -np.nan
    logits[12, ::2], logits[13, 5::7], logits[14, 90:] = np.nan, -np.nan, np.inf
    return logits, normal((96,), "float32", 0.25)


def _small_scores() -> tuple[np.ndarray, ...]:
    """The smallest sigmoids there are, and weights that are subnormal."""
    logits = np.full((4, 32), -1e4, np.float32)
    logits[1, 3], logits[2, 5], logits[3] = 0.0, -86.0, -np.inf
    return logits, np.zeros(32, np.float32)


def _given(*arrays: np.ndarray) -> Inputs:
    """Inputs that are these arrays."""
    return lambda: arrays


def _cases() -> Iterator[Case]:
    for dtype in ACTIVATION_DTYPES:
        yield case(f"normal {dtype}", routed(partial(normal, (37, 128), dtype, 2.0)))
        yield case(f"random bits {dtype}", routed(partial(bit_patterns, (9, 96), dtype), dtype))
        yield case(f"subnormals {dtype}", routed(partial(subnormals, (5, 64), dtype), "bfloat16"))
    yield case("equal sums", _equal_sums)
    yield case("neighbouring sums", _neighbouring_sums)
    yield case("infinite and NaN biases", _infinite_biases)
    yield case("NaN and infinities", _specials)
    yield case("all experts of NaN rows", _specials, {"top_k": 32})
    yield case("the smallest scores", _small_scores)
    for top_k in (1, 2, 3, 6, 8):
        yield case(f"top {top_k}", routed(partial(normal, (21, 64), "float32")), {"top_k": top_k})
    for given in ({"shared_experts": 1}, {"top_k": 3, "shared_experts": 1}, {"top_k": 1, "shared_experts": 31}):
        name = ", ".join(f"{name} {number}" for name, number in given.items())
        yield case(name, routed(partial(normal, (21, 40), "bfloat16")), given, gradient=False)
    for experts in (4, 5, 33, 100, 384, 1000):
        yield case(f"{experts} experts", routed(partial(normal, (5, experts), "bfloat16")))
    yield case("one expert", routed(partial(normal, (7, 1), "float32")), {"top_k": 1})
    yield case("all of 8 experts", routed(partial(normal, (7, 8), "float32")), {"top_k": 8})
    yield case("no rows", routed(partial(normal, (0, 128), "float32")))
    yield case("one row", routed(partial(normal, (1, 128), "float32")))
    yield case("no leading axis", routed(partial(normal, (128,), "float32")))
    batch = _given(normal((3, 5, 64), "float32"), normal((3, 1, 64), "bfloat16", 0.25))
    yield case("a bias for each batch", batch)
    yield case("a bias of one number", _given(normal((5, 64), "float32"), np.broadcast_to(np.float32(0.5), (64,))))
    for name, make in views("float32", 128).items():
        yield case(name, routed(make), gradient=name == "transposed leading axes")


ROUTES = tuple(_cases())
"""Those whose inputs the gradient may be tried with."""

COUNTED = tuple(counted("moe_route", lambda shape: routed(partial(normal, shape, "float32", 2.0))))

CASES = (
    *ROUTES,
    *COUNTED,
    *(replace(counts, name=f"{counts.name}, a shared expert", given={"shared_experts": 1}) for counts in COUNTED),
)
