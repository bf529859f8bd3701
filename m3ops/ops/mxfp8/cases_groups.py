"""Cases of mxfp8_quantize and mxfp8_dequantize whose rows are in groups."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from m3ops.numerics.formats import ACTIVATION_DTYPES, BLOCK, FP8_FORMATS
from m3ops.numerics.scale_layouts import OF_GROUPS, stored_shape_of_groups
from m3ops.testing import case
from m3ops.testing.arrays import SPECIALS, Shape, normal, random_bits, views, with_specials
from m3ops.testing.case import Case

EDGES = (0, 1, 127, 128, 0, 129)
"""Sizes of groups around a tile's 128 rows, 385 in all."""

counting, counted = partial(case.counting, absent=1), partial(case.counted, absent=1)
"""Those of :mod:`m3ops.testing.case` for an op that may have groups and has none, so that rows can be counted."""

Sizes = Sequence[int]
Make = Callable[[Shape, Sizes], tuple[np.ndarray, ...]]


def numbers(shape: Shape, sizes: Sizes, dtype: str = "bfloat16") -> tuple[np.ndarray, ...]:
    """What is quantized, and the sizes of its groups."""
    return normal(shape, dtype, 3.0), np.array(sizes, np.int32)


def quantized(shape: Shape, sizes: Sizes) -> tuple[np.ndarray, ...]:
    """Any values and scales, those that no row has among them."""
    values = random_bits(shape, f"values {shape}").astype(np.uint8).view(FP8_FORMATS["e4m3fn"].name)
    stored = stored_shape_of_groups((shape[0], shape[1] // BLOCK), len(sizes))
    return values, random_bits(stored, f"scales {stored}").astype(np.uint8), np.array(sizes, np.int32)


def of_groups(op: str, make: Make, width: int = 1) -> Iterator[Case]:
    """What every op with such scales is tried with: rows of ``width`` times the elements that are quantized."""
    sizes: dict[str, tuple[Shape, Sizes]] = {
        "groups around a tile, rows past them": ((390, 96), EDGES),
        "sizes below zero, and more rows than there are": ((300, 64), (-3, 4, 2**31 - 1, 5, 2**31 - 1)),
    }
    more: dict[str, tuple[Shape, Sizes]] = {
        "one group": ((133, 224), (133,)),
        "one row": ((1, 64), (0, 1, 0)),
        "groups of one row": ((5, 64), (1,) * 5),
        "whole tiles": ((384, 128), (128, 256)),
        "all groups empty": ((20, 64), (0, 0, 0)),
        "140 groups": ((60, 32), (*(0,) * 50, *(1,) * 20, *(0,) * 65, *(2,) * 5)),
        "no groups": ((130, 64), ()),
        "no rows": ((0, 64), (0, 3)),
        "an empty last axis": ((20, 0), (3, 5)),
    }
    for layout in OF_GROUPS:
        for name, ((rows, size), each) in (sizes if layout != OF_GROUPS[0] else sizes | more).items():
            made = partial(make, (rows, width * size), each)
            yield Case(op, f"{layout}: {name}", made, {"scale_layout": layout})


def _cases() -> Iterator[Case]:
    for op, make in (("mxfp8_quantize", numbers), ("mxfp8_dequantize", quantized)):
        yield from of_groups(op, make)
    given = {"scale_layout": OF_GROUPS[0]}
    for dtype in ACTIVATION_DTYPES:
        yield Case("mxfp8_quantize", f"groups of {dtype}", partial(numbers, (150, 64), (140, 3), dtype), given)
        to = {**given, "out_dtype": dtype}
        yield Case("mxfp8_dequantize", f"groups to {dtype}", partial(quantized, (150, 64), (140, 3)), to)
    for fp8 in FP8_FORMATS:
        made = partial(numbers, (9, 96), (2, 0, 5))
        yield Case("mxfp8_quantize", f"groups in {fp8}", made, {**given, "fp8_format": fp8, "scale_rule": "floor"})
    yield Case("mxfp8_quantize", "groups: NaN and infinities, in no group too", _specials, given)
    for name in ("columns sliced out of wider rows", "every other column", "every other row"):
        yield Case("mxfp8_quantize", f"groups: {name}", partial(_view, name), given)


def _specials() -> tuple[np.ndarray, ...]:
    rows = with_specials(normal((4, 96), "float32"), SPECIALS)
    return np.concatenate([rows, rows]), np.array([3, 2], np.int32)


def _view(name: str) -> tuple[np.ndarray, ...]:
    return views("float32", 64)[name](), np.array([1, 3], np.int32)


CASES = tuple(_cases())
