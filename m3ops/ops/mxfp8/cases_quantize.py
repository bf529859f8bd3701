"""Cases of mxfp8_quantize."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from m3ops.numerics.exact import fp32
from m3ops.numerics.formats import ACTIVATION_DTYPES, FP8_FORMATS, SCALE_RULES
from m3ops.numerics.scale_layouts import TILES
from m3ops.ops.mxfp8.cases_groups import counted, counting
from m3ops.testing.arrays import (
    ALIKE,
    SPECIALS,
    bit_patterns,
    matrices,
    neighbours,
    normal,
    one,
    subnormals,
    views,
    with_specials,
)
from m3ops.testing.case import Case, counts_of

case = partial(Case, "mxfp8_quantize")


def around_scale_steps(fp8: str) -> np.ndarray:
    """Blocks whose largest magnitude is one ulp below, at and above ``max * 2**k``, for every k in the fp32 range.

    ceil(log2(amax / max)) in fp32 rounds the scale down just above such a step, and the value overflows.
    """
    steps: np.ndarray = FP8_FORMATS[fp8].max * 2.0 ** np.arange(-140, 119)
    amax = neighbours(steps).ravel()
    blocks = normal((amax.size, 32), "float32") * amax[:, None] / 4
    row = np.arange(amax.size)
    blocks[row, row % 32] = np.where(row % 2, amax, -amax)
    return np.asarray(blocks, np.float32)


def around_rounding_ties(fp8: str) -> np.ndarray:
    """Every midpoint between neighbouring values, one ulp beside it, in blocks whose scale is 1."""
    fmt = FP8_FORMATS[fp8]
    values = fp32.load(np.arange(fmt.max_code + 1, dtype=np.uint8).view(np.dtype(fmt.name)))
    ties = neighbours((values[:-1] + values[1:]) / 2).ravel()
    signed = np.concatenate([ties, -ties]).astype(np.float32)
    blocks = np.resize(signed, (-(-signed.size // 31), 31))
    return np.concatenate([blocks, np.full((len(blocks), 1), fmt.max, np.float32)], axis=1)


def powers_of_two() -> np.ndarray:
    """Each row is all one power of two, over the whole fp32 range, subnormal ones included."""
    return np.repeat(np.exp2(np.arange(-149, 128)), 32).reshape(-1, 32).astype(np.float32)


def around_powers_of_two() -> np.ndarray:
    """Blocks whose largest magnitude is one ulp below, at and above a power of two, where ``"floor"`` steps."""
    amax = neighbours(np.exp2(np.arange(-125.0, 127.0))).ravel()
    blocks = normal((amax.size, 32), "float32") * amax[:, None] / 4
    blocks[:, 9] = amax
    return np.asarray(blocks, np.float32)


def _cases() -> Iterator[Case]:
    for dtype, rule, fp8 in product(ACTIVATION_DTYPES, SCALE_RULES, FP8_FORMATS):
        given = {"scale_rule": rule, "fp8_format": fp8}
        yield case(f"normal {dtype}, {rule}, {fp8}", one(normal, (5, 96), dtype, 2.0), given)
        yield case(f"random bits {dtype}, {rule}, {fp8}", one(bit_patterns, (8, 96), dtype), given)
        yield case(f"subnormals {dtype}, {rule}, {fp8}", one(subnormals, (5, 96), dtype), given)
    for rule, fp8 in product(SCALE_RULES, FP8_FORMATS):
        given = {"scale_rule": rule, "fp8_format": fp8}
        yield case(f"one ulp around max * 2**k, {rule}, {fp8}", one(around_scale_steps, fp8), given)
        yield case(f"rounding ties, {rule}, {fp8}", one(around_rounding_ties, fp8), given)
        yield case(f"one ulp around powers of two, {rule}, {fp8}", one(around_powers_of_two), given)
        yield case(f"powers of two, {rule}, {fp8}", one(powers_of_two), given)
        specials = one(with_specials, normal((6, 128), "float32"), SPECIALS)
        yield case(f"NaN and infinities, {rule}, {fp8}", specials, given)
        yield case(f"zeros, {rule}, {fp8}", one(np.zeros, (2, 64), np.float32), given)
        yield case(f"negative zeros, {rule}, {fp8}", one(np.full, (2, 64), np.float32(-0.0)), given)
    yield case("no rows", one(normal, (0, 64), "bfloat16"))
    yield case("one row", one(normal, (1, 64), "bfloat16"))
    yield case("no leading axis", one(normal, (64,), "bfloat16"))
    yield case("an empty last axis", one(normal, (3, 0), "bfloat16"))
    yield case("rows and columns that divide nothing", one(normal, (37, 224), "bfloat16"))
    yield case("M3 hidden, N = 6144", one(normal, (3, 6144), "bfloat16"))
    for name, make in views("float32", 64).items():
        yield case(name, one(make))
    yield from _counts()
    for layout in TILES:
        yield from _tiled(layout)


def _counts() -> Iterator[Case]:
    yield from counted("mxfp8_quantize", lambda shape: one(normal, shape, "bfloat16", 3.0))
    rows = one(normal, (6, 1024), "bfloat16")
    for count in (0, 6, 7, 2**31 - 1, -1, -(2**31)):
        yield case(f"{count} of 6 rows", partial(counting, rows, count))
    yield case("the one row counts", partial(counting, one(normal, (64,), "bfloat16"), 1))
    yield case("the one row does not count", partial(counting, one(normal, (64,), "bfloat16"), 0))
    yield case("none of no rows", partial(counting, one(normal, (0, 64), "bfloat16"), 0))
    view = one(lambda: normal((5, 4, 96), "bfloat16").swapaxes(0, 1))
    yield case("9 of transposed rows", partial(counting, view, 9))
    yield case("2, 5, 0 and 3 of transposed rows", partial(counting, view, 2, 5, 0, 3))
    yield from _counts_of_experts()


def _counts_of_experts() -> Iterator[Case]:
    buffers = one(normal, (4, 6, 1024), "bfloat16")
    clamped = -(2**31), 2**31 - 1, 7, -1
    for counts in ((6, 0, 6, 1), (0,) * 4, (6,) * 4, clamped):
        yield case(f"experts: {counts_of((4, 6), counts)}", partial(counting, buffers, *counts))
    for name, shape, several in (
        ("one full expert of 64", (64, 8, 64), [8 * (expert == 40) for expert in range(64)]),
        ("one expert", (1, 6, 64), [4]),
        ("no expert", (0, 6, 64), []),
        ("no rows", (3, 0, 64), [0, 1, 2]),
        ("a count for each row", (2, 3, 64), [[1, 0, 2], [-1, 1, 1]]),
    ):
        yield case(f"experts: {name}", partial(_with_counts, shape, several))


def _with_counts(shape: tuple[int, ...], counts: list[Any]) -> tuple[Any, ...]:
    return normal(shape, "bfloat16"), None, np.array(counts, np.int32)


def _tiled(layout: str) -> Iterator[Case]:
    for name, make in (*matrices(), *(() if layout in ALIKE else _whole_and_empty_matrices())):
        yield case(f"{layout}: {name}", one(make), {"scale_layout": layout})
    matrix, batch = one(normal, (133, 224), "bfloat16"), one(normal, (3, 5, 96), "bfloat16")
    experts = one(normal, (2, 133, 96), "bfloat16")
    counted_rows = (
        (matrix, (133,), (40,)),
        (experts, (2, 133), (130, 33)),
        (matrix, (133,), (133,)),
        (batch, (3, 5), (7,)),
        (batch, (3, 5), (5, 0, 2)),
    )
    for inputs, rows, counts in counted_rows[:2] if layout in ALIKE else counted_rows:
        name = f"{layout}: {counts_of(rows, counts)}"
        yield case(name, partial(counting, inputs, *counts), {"scale_layout": layout})
    if layout in ALIKE:
        return
    full = one(normal, (2, 256, 64), "bfloat16")
    yield case(f"{layout}: experts without padding", partial(counting, full, 200, 256), {"scale_layout": layout})


def _whole_and_empty_matrices() -> Iterator[tuple[str, Callable[[], np.ndarray]]]:
    yield "whole tiles", partial(normal, (256, 256), "bfloat16")
    yield "half a tile, whole ones of the kernel", partial(normal, (64, 256), "bfloat16")
    yield "no rows", partial(normal, (0, 64), "bfloat16")
    yield "no matrix", partial(normal, (0, 3, 64), "bfloat16")
    yield "an empty last axis", partial(normal, (3, 0), "bfloat16")
    yield "NaN and infinities", partial(with_specials, normal((6, 96), "float32"), SPECIALS)
    yield "transposed leading axes", lambda: normal((5, 3, 64), "bfloat16").swapaxes(0, 1)


CASES = tuple(_cases())
