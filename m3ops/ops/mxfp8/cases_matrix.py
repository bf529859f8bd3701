"""Cases of what quantizes matrices: along columns, along rows and columns, and in square blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from m3ops.numerics.formats import ACTIVATION_DTYPES, BLOCK, FP8_FORMATS, SCALE_RULES
from m3ops.numerics.scale_layouts import TILES
from m3ops.ops.mxfp8.cases_quantize import around_rounding_ties, around_scale_steps, powers_of_two
from m3ops.testing.arrays import SPECIALS, bit_patterns, neighbours, normal, one, subnormals
from m3ops.testing.case import Case

SQUARE = {"square_blocks": True}
WAYS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("mxfp8_quantize", SQUARE),
    ("mxfp8_quantize_transposed", {}),
    ("mxfp8_quantize_transposed", SQUARE),
    ("mxfp8_quantize_both", {}),
    ("mxfp8_quantize_both", SQUARE),
)


def columns(make: Callable[..., np.ndarray], *args: Any) -> np.ndarray:
    """Blocks, each a column of a matrix, and some of them again so that whole blocks fill its rows too."""
    blocks = make(*args)
    return np.resize(blocks, (-(-len(blocks) // BLOCK) * BLOCK, BLOCK)).T.copy()


def in_squares(make: Callable[..., np.ndarray], *args: Any) -> np.ndarray:
    """The same blocks, of which the rows of a square have one each, and some again: ``[32 n, 32]``."""
    return np.ascontiguousarray(columns(make, *args).T)


def around_steps_of_squares(fp8: str) -> np.ndarray:
    """Square blocks whose largest magnitude, in any row and column, is one ulp below, at and above ``max * 2**k``."""
    steps = FP8_FORMATS[fp8].max * 2.0 ** np.array([-140, -135, -134, -127, -1, 0, 1, 117, 118])
    amax = neighbours(steps).ravel()
    squares = normal((BLOCK, amax.size, BLOCK), "float32") * (amax[:, None] / 8)
    number = np.arange(amax.size)
    squares[number * 7 % BLOCK, number, number * 5 % BLOCK] = np.where(number % 2, amax, -amax)
    return np.asarray(squares.reshape(BLOCK, -1), np.float32)


def with_special_squares() -> np.ndarray:
    """One special number in each of some square blocks, and blocks without one beside, above and below."""
    x = normal((96, 128), "float32")
    for number, special in enumerate(SPECIALS):
        x[32 + 9 * number, 33 * number % 96] = special
    return x


VIEWS: dict[str, Callable[[], np.ndarray]] = {
    "columns sliced out of wider rows": lambda: normal((64, 112), "float32")[:, 16:80],
    "every other row": lambda: normal((64, 64), "float32")[::2],
    "a transposed matrix": lambda: normal((96, 64), "float32").T,
    "transposed leading axes": lambda: normal((2, 3, 32, 64), "float32").swapaxes(0, 1),
    "matrices whose rows alternate": lambda: normal((32, 2, 64), "float32").swapaxes(0, 1),
    "every other column": lambda: normal((32, 128), "float32")[:, ::2],
    "one row repeated": lambda: np.broadcast_to(normal((1, 64), "float32"), (32, 64)),
    "one column repeated": lambda: np.broadcast_to(normal((32, 1), "float32"), (32, 64)),
}


def _cases() -> Iterator[Case]:
    for op, given in WAYS:
        made = partial(_named, op, given)
        for dtype in ACTIVATION_DTYPES:
            yield made(f"normal {dtype}", one(normal, (64, 96), dtype, 2.0))
            yield made(f"random bits {dtype}", one(bit_patterns, (64, 96), dtype))
            yield made(f"subnormals {dtype}", one(subnormals, (32, 64), dtype))
        for rule, fp8 in product(SCALE_RULES, FP8_FORMATS) if op == "mxfp8_quantize_both" else [("rceil", "e4m3fn")]:
            also = {"scale_rule": rule, "fp8_format": fp8}
            yield made(f"random bits, {rule}, {fp8}", one(bit_patterns, (32, 96), "float32"), also)
            yield made(f"NaN and infinities, {rule}, {fp8}", one(with_special_squares), also)
            steps = one(around_steps_of_squares, fp8) if given else one(columns, around_scale_steps, fp8)
            yield made(f"one ulp around max * 2**k, {rule}, {fp8}", steps, also)
            yield made(f"rounding ties, {rule}, {fp8}", one(in_squares, around_rounding_ties, fp8), also)
            yield made(f"zeros, {rule}, {fp8}", one(np.full, (32, 64), np.float32(-0.0)), also)
        yield made("powers of two", one(columns, powers_of_two))
        yield from (made(name, one(make)) for name, make in VIEWS.items())
        yield made("one block", one(normal, (32, 32), "bfloat16"))
        yield made("no rows", one(normal, (0, 64), "bfloat16"))
        yield made("no columns", one(normal, (64, 0), "bfloat16"))
        yield made("no matrix", one(normal, (0, 32, 64), "bfloat16"))
        yield made("several matrices", one(normal, (2, 3, 32, 96), "bfloat16", 3.0))
        for layout in TILES if op == "mxfp8_quantize_both" and not given else ("swizzle_128x4",):
            yield from _tiled(made, layout)
    made = partial(_named, "mxfp8_quantize_transposed", {})
    for size in (1, 37, 200):
        yield made(f"{size} columns", one(normal, (64, size), "bfloat16"))
    yield made("swizzle_128x4: 37 columns", one(normal, (64, 37), "bfloat16"), {"scale_layout": "swizzle_128x4"})


def _named(op: str, given: dict[str, Any], name: str, make: Any, also: dict[str, Any] | None = None) -> Case:
    return Case(op, f"{'square blocks: ' if given else 'matrix: '}{name}", make, {**given, **(also or {})})


def _tiled(made: Callable[..., Case], layout: str) -> Iterator[Case]:
    also = {"scale_layout": layout}
    yield made(f"{layout}: rows and columns that divide nothing", one(normal, (96, 160), "bfloat16", 3.0), also)
    yield made(f"{layout}: several matrices", one(normal, (2, 32, 64), "bfloat16", 3.0), also)
    if layout == "swizzle_128x4":
        yield made(f"{layout}: whole tiles", one(normal, (128, 128), "bfloat16", 3.0), also)
        yield made(f"{layout}: one row repeated", one(VIEWS["one row repeated"]), also)
        yield made(f"{layout}: no rows", one(normal, (0, 64), "bfloat16"), also)
        yield made(f"{layout}: no columns", one(normal, (64, 0), "bfloat16"), also)


CASES = tuple(_cases())
