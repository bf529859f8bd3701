"""Cases of mxfp8_k_grouped_matmul."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from m3ops.numerics.formats import ACTIVATION_DTYPES, FP8_FORMATS
from m3ops.numerics.scale_layouts import TILES
from m3ops.ops.mxfp8_matmul.cases import CHUNK, Quantized, cancelling, every_scale, integers, matrix, operands, unscaled
from m3ops.testing.arrays import Inputs
from m3ops.testing.case import Case, counting

case = partial(Case, "mxfp8_k_grouped_matmul")

FAST = {"arithmetic": "fast"}
FLOAT32 = {"out_dtype": "float32"}

SIZES = (40, 0, 96, 1)
"""Of groups along K, which take 2, 0, 3 and 1 blocks; of eight blocks two are in none."""


def k_grouped(
    rows: int, columns: int, sizes: Sequence[int], blocks: int = 8, *, small: bool = False, **of_both: Any
) -> tuple[np.ndarray, ...]:
    """Operands of products: matrices of so many rows each, and the sizes of the groups along K."""
    make = integers if small else operands
    return *make((rows, 32 * blocks), columns, **of_both), np.array(sizes, np.int32)


def _operands(*args: Any, **kwargs: Any) -> Inputs:
    return partial(k_grouped, *args, **kwargs)


def _sizes() -> Iterator[Case]:
    """Which blocks are whose."""
    yield case("a group without blocks, blocks without a group", _operands(10, 9, SIZES))
    yield case("one group", _operands(10, 9, [256]))
    yield case("one element each", _operands(10, 9, [1] * 8))
    yield case("all blocks in the last group", _operands(10, 9, [0, 0, 0, 256]))
    yield case("all groups empty", _operands(10, 9, [0, 0, 0]))
    yield case("sizes below zero, and more than there are", _operands(10, 9, [-33, 33, 2**31 - 1, 5, 2**31 - 1]))
    yield case("140 groups", _operands(5, 9, [0] * 50 + [1] * 4 + [0] * 84 + [64] * 2))
    yield case("no groups", _operands(10, 9, []))
    yield case("no rows of x", _operands(0, 9, SIZES))
    yield case("no rows of w", _operands(10, 0, SIZES))
    yield case("K = 0", _operands(10, 9, SIZES, 0))


def _chunks() -> Iterator[Case]:
    """Those of a group begin with its first block."""
    sizes = [CHUNK - 32, CHUNK, 32, CHUNK + 32, 3 * CHUNK]
    alike = partial(k_grouped, 5, 24, sizes, sum(sizes) // 32, scales=range(117, 123))
    yield case("groups of a chunk, of less and of more", alike, FLOAT32)
    yield case(
        "groups of blocks that cancel", lambda: (*cancelling(), np.array([32, 2 * CHUNK - 32], np.int32)), FLOAT32
    )


def _tiles() -> Iterator[Case]:
    for rows, columns in ((1, 1), (8, 65), (17, 64), (65, 130), (600, 33)):
        yield case(f"{rows} x {columns} each", _operands(rows, columns, [33, 0, 31], 4))


def _next_to_nan(*, small: bool = False) -> tuple[np.ndarray, ...]:
    """Groups beside blocks of NaN, which are another group's or in none."""
    x, scales, w, w_scales, sizes = k_grouped(10, 9, [64, 32, 64], 6, small=small)
    for each in (scales, w_scales):
        each[:, [2, 5]] = 255
    return x, scales, w, w_scales, sizes


def _views() -> Iterator[Case]:
    (x, scales), (w, w_scales) = matrix((20, 384), "x"), matrix((18, 384), "w")
    sizes = np.array(SIZES, np.int32)
    sliced = x[:, 96:352], scales[:, 3:11], w[::2, 32:288], w_scales[::2, 1:9], sizes
    yield case("columns sliced out of wider rows", lambda: sliced)
    other = *unscaled(x[::2, :256:2]), *unscaled(w[:, :256:2]), np.array([33, 64], np.int32)
    yield case("every other column", lambda: other)
    turned = (np.asfortranarray(array) for array in (x, scales, w, w_scales))
    columns = *turned, sizes
    yield case("transposed", lambda: columns)


def _with_scale_bytes() -> tuple[np.ndarray, ...]:
    """Each scale byte of x with some of w, in the second of three groups."""
    x, scales, w, w_scales = every_scale()
    tripled: list[Quantized] = [(np.tile(v, 3), np.tile(s, 3)) for v, s in ((x, scales), (w, w_scales))]
    return *tripled[0], *tripled[1], np.array([32, 32, 32], np.int32)


def _fast() -> Iterator[Case]:
    """Inputs for which it is exact, so that its bytes are known."""
    for rows, columns in ((1, 33), (17, 70), (70, 65), (300, 40)):
        yield case(f"fast, {rows} x {columns} each", _operands(rows, columns, SIZES, small=True), FAST)
    yield case("fast, all groups empty", _operands(10, 9, [0, 0], small=True), FAST)
    yield case("fast, K = 0", _operands(10, 9, [0, 5], 0, small=True), FAST)
    yield case("fast, more sizes than there are", _operands(10, 9, [-5, 70, 2**31 - 1, 9], small=True), FAST)
    yield case("fast, next to NaN", partial(_next_to_nan, small=True), FAST)
    yield case("fast, 25 of 40 rows", partial(counting, _operands(10, 9, SIZES, small=True), 25), FAST)
    for layout in TILES:
        given = {**FAST, "x_layout": layout, "w_layout": layout}
        yield case(f"fast, {layout}", _operands(37, 40, SIZES, small=True, layout=layout), given)


def _cases() -> Iterator[Case]:
    yield from _sizes()
    yield from _chunks()
    yield from _tiles()
    yield from _views()
    yield case("next to NaN", _next_to_nan)
    for dtype in ACTIVATION_DTYPES:
        yield case(f"to {dtype}", _operands(10, 40, SIZES), {"out_dtype": dtype})
    yield case("every scale byte", _with_scale_bytes, FLOAT32)
    for fp8 in FP8_FORMATS:
        yield case(fp8, _operands(10, 40, SIZES, fp8=fp8))
    for count in (0, 3, 25, 40, -1):
        yield case(f"{count} of 40 rows", partial(counting, _operands(10, 9, SIZES), count))
    yield case("70 of 90 rows, 200 columns", partial(counting, _operands(90, 200, [64, 0, 33], 4), 70))
    for layout in TILES:
        yield case(layout, _operands(37, 40, SIZES, layout=layout), {"x_layout": layout, "w_layout": layout})
    yield from _fast()


CASES = tuple(_cases())
