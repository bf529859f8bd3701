"""Cases of mxfp8_grouped_matmul."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from m3ops.numerics.exact.scale_groups import arrange_groups
from m3ops.numerics.formats import ACTIVATION_DTYPES, FP8_FORMATS
from m3ops.numerics.scale_layouts import OF_GROUPS, TILES, arrange
from m3ops.ops.mxfp8_matmul.cases import CHUNK, Quantized, integers, matrix, unscaled
from m3ops.testing.arrays import Inputs
from m3ops.testing.case import Case

case = partial(Case, "mxfp8_grouped_matmul")

FAST = {"arithmetic": "fast"}

SIZES = (2, 0, 5, 1)
"""Of groups: one is empty, and of ten rows two are in none."""


_MANY = (*(0,) * 250, *(1,) * 20, *(0,) * 230, *(2,) * 5, *(0,) * 95)
"""More groups than a program looks at together. Two of 32 rows are in none."""


def grouped(
    x: tuple[int, int],
    columns: int,
    sizes: Sequence[int],
    rows: Sequence[int] | None = None,
    num_rows: int | None = None,
    small: bool = False,
    **of_both: Any,
) -> tuple[Any, ...]:
    """Operands of a product: x, a weight of so many columns for each group, and what says which rows are whose."""
    make = partial(_integers, **of_both) if small else partial(matrix, **of_both)
    operands = (*make(x, "x"), *make((len(sizes), columns, x[-1]), "w"), np.array(sizes, np.int32))
    gathered = None if rows is None else np.array(rows, np.int32)
    if num_rows is not None:
        return *operands, gathered, np.array([num_rows], np.int32)
    return operands if gathered is None else (*operands, gathered)


def _integers(shape: tuple[int, ...], seed: str, **of_both: Any) -> Quantized:
    """Numbers whose sums no tensor core rounds."""
    values, scales, *_ = integers(shape, 1, **of_both)
    return values, scales


def _operands(*args: Any, **kwargs: Any) -> Inputs:
    return partial(grouped, *args, **kwargs)


def _sizes() -> Iterator[Case]:
    """Which rows are whose."""
    x = (10, 64)
    yield case("a group without rows, rows without a group", _operands(x, 9, SIZES))
    yield case("one group", _operands(x, 9, [10]))
    yield case("one row each", _operands(x, 9, [1] * 10))
    yield case("all rows in the last group", _operands(x, 9, [0, 0, 0, 10]))
    yield case("all groups empty", _operands(x, 9, [0, 0, 0]))
    yield case("sizes below zero, and more rows than there are", _operands(x, 9, [-3, 4, 2**31 - 1, 5, 2**31 - 1]))
    yield case("groups of several tiles", _operands((150, 32), 9, [70, 0, 17, 40, 1]))
    yield case("140 groups", _operands((30, 32), 5, [0] * 50 + [1] * 20 + [0] * 65 + [2] * 5))
    yield case("256 groups", _operands((6, 32), 5, [1] + [0] * 253 + [2, 2]))
    yield case("600 groups", _operands((32, 32), 5, _MANY))
    yield case("fast, 600 groups", _operands((32, 32), 5, _MANY, small=True), FAST)
    yield case("23 of 32 rows of 600 groups", _operands((32, 32), 5, _MANY, num_rows=23))
    yield case("no groups", _operands(x, 9, []))
    yield case("no rows", _operands((0, 64), 9, SIZES))
    yield case("K = 0", _operands((10, 0), 9, SIZES))


def _gathered() -> Iterator[Case]:
    rows = [3, 3, 0, 9, -1, 10, 4, 2**31 - 1, -(2**31), 7, 5, 5]
    yield case("rows that are gathered, rows that there are not", _operands((10, 64), 9, [4, 0, 5], rows))
    yield case("one row for each group", _operands((1, 96), 40, [1, 1, 1], [0, 0, 0]))
    yield case("rows of an x without rows", _operands((0, 64), 9, [2, 1], [0, 1, -1]))
    yield case("no rows that are gathered", _operands((4, 64), 9, [2, 1], []))
    yield case("5 of 12 gathered rows", _operands((10, 64), 9, [4, 0, 5], rows, 5))
    yield case("fast, rows that are gathered", _operands((10, 64), 9, [4, 0, 5], rows, small=True), FAST)
    nan = np.full((1, 9, 2), 255, np.uint8)
    x, w = _integers((4, 64), "x"), _integers((1, 9, 64), "w")
    absent = (*x, w[0], nan, np.array([3], np.int32), np.array([0, -1, 9], np.int32))
    yield case("rows that there are not by a weight of NaN", lambda: absent)
    yield case("fast, rows that there are not by a weight of NaN", lambda: absent, FAST)


def _counted() -> Iterator[Case]:
    for count in (0, 3, 9, 12, -1):
        yield case(f"{count} of 10 rows", _operands((10, 64), 9, SIZES, num_rows=count))
    yield case("2 of 40 rows of 2048", _operands((40, 2048), 9, [1, 30], num_rows=2))
    # There could be many more tiles of rows than there are, and each has several columns of tiles.
    for size in (32, CHUNK + 32):
        few_groups = _operands((40, size), 192, [25] + [0] * 15, num_rows=16)
        yield case(f"16 of 40 rows, 192 columns of a few groups, K = {size}", few_groups)
    few_groups = _operands((40, 64), 192, [25] + [0] * 15, num_rows=16, small=True)
    yield case("fast, 16 of 40 rows, 192 columns of a few groups", few_groups, FAST)
    yield case("fast, 6 of 10 rows", _operands((10, 64), 9, SIZES, num_rows=6, small=True), FAST)


def _views() -> Iterator[Case]:
    x, x_scales = matrix((10, 128), "x")
    w, w_scales = matrix((8, 18, 128), "w")
    sizes = np.array(SIZES, np.int32)
    columns = x[:, 32:96], x_scales[:, 1:3], w[::2, :9, 64:], w_scales[::2, :9, 2:], sizes
    yield case("columns sliced out of wider rows", lambda: columns)
    inside = (array.transpose(1, 0, 2)[:4] for array in (w, w_scales))
    transposed = x, x_scales, *inside, sizes
    yield case("the weights' rows in turn", lambda: transposed)
    other = *unscaled(x[:, ::2]), *unscaled(w[:4, :, ::2]), sizes
    yield case("every other column", lambda: other)


def _fast() -> Iterator[Case]:
    """Inputs for which it is exact, so that its bytes are known."""
    for rows, sizes in ((3, [1, 1, 1]), (60, [20, 0, 33]), (150, [70, 64]), (260, [200, 1])):
        yield case(f"fast, {rows} rows", _operands((rows, 96), 70, sizes, small=True), FAST)
    for size in (32, 256, 1280):
        yield case(f"fast, K = {size}", _operands((10, size), 24, SIZES, small=True), FAST)
    for layout in TILES:
        yield case(
            f"fast, {layout}", partial(_tiled, layout, small=True), {**FAST, "x_layout": layout, "w_layout": layout}
        )


def _tiled(layout: str, *, small: bool = False) -> tuple[Any, ...]:
    """Operands whose scales are in a layout, those of each weight on their own."""
    x, x_scales, w, w_scales, *others = grouped((10, 96), 40, SIZES, small=small)
    return x, arrange(x_scales, layout), w, arrange(w_scales, layout), *others


def _in_groups() -> Iterator[Case]:
    """Scales of x that have a padding for each group."""
    for layout in OF_GROUPS:
        of_x = {"x_layout": layout}
        yield case(layout, partial(_scales_of_groups, layout, (300, 96), (5, 0, 129, -1, 128)), of_x)
        exact = partial(_scales_of_groups, layout, (10, 64), SIZES, small=True)
        yield case(f"fast, {layout}", exact, {**of_x, **FAST})
    layout = OF_GROUPS[0]
    of_x = {"x_layout": layout}
    yield case(f"{layout}, tiled weights", partial(_all_tiled, layout), {**of_x, "w_layout": "swizzle_128x4"})
    for number in (0, 6, 9):
        made = partial(_scales_of_groups, layout, (10, 64), SIZES, num_rows=number)
        yield case(f"{layout}, {number} of 10 rows", made, of_x)
    for name, x, sizes in (
        ("no groups", (200, 64), ()),
        ("no rows", (0, 64), SIZES),
        ("K = 0", (10, 0), SIZES),
        ("all groups empty", (10, 64), (0, 0)),
        ("more rows than there are", (140, 64), (3, 2**31 - 1, 0, 2**31 - 1, 1)),
    ):
        yield case(f"{layout}, {name}", partial(_scales_of_groups, layout, x, sizes), of_x)


def _scales_of_groups(layout: str, x: tuple[int, int], sizes: Sequence[int], **others: Any) -> tuple[Any, ...]:
    """Operands of which x has scales in groups of these sizes. Those of no row are NaN."""
    values, scales, w, w_scales, given, *rest = grouped(x, 9, sizes, **others)
    padding = arrange_groups(np.ones_like(scales), layout, given) == 0
    stored = np.where(padding, np.uint8(255), arrange_groups(scales, layout, given))
    return values, stored, w, w_scales, given, *rest


def _all_tiled(layout: str) -> tuple[Any, ...]:
    values, scales, w, w_scales, *others = _scales_of_groups(layout, (10, 96), SIZES)
    return values, scales, w, arrange(w_scales, "swizzle_128x4"), *others


def _cases() -> Iterator[Case]:
    yield from _sizes()
    yield from _in_groups()
    yield from _gathered()
    yield from _counted()
    yield from _views()
    for dtype in ACTIVATION_DTYPES:
        yield case(f"to {dtype}", _operands((10, 96), 40, SIZES), {"out_dtype": dtype})
    for size in (CHUNK, CHUNK + 32, 3 * CHUNK):
        yield case(f"K = {size}", _operands((10, size), 24, SIZES), {"out_dtype": "float32"})
    for fp8 in FP8_FORMATS:
        yield case(fp8, _operands((10, 96), 40, SIZES, fp8=fp8))
    for layout in TILES:
        yield case(layout, partial(_tiled, layout), {"x_layout": layout, "w_layout": layout})
    yield from _fast()


CASES = tuple(_cases())
