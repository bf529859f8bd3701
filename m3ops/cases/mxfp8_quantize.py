"""Cases of mxfp8_quantize."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product

import numpy as np

from m3ops.cases.case import SPECIALS, Case, bit_patterns, neighbours, normal, one, subnormals, views, with_specials
from m3ops.numerics import exact
from m3ops.numerics.formats import ACTIVATION_DTYPES, FP8_FORMATS, SCALE_RULES


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
    values = exact.load(np.arange(fmt.max_code + 1, dtype=np.uint8).view(np.dtype(fmt.name)))
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
    case = partial(Case, "mxfp8_quantize")
    for dtype, rule, fp8 in product(ACTIVATION_DTYPES, SCALE_RULES, FP8_FORMATS):
        params = {"scale_rule": rule, "fp8_format": fp8}
        yield case(f"normal {dtype}, {rule}, {fp8}", one(normal, (5, 96), dtype, 2.0), params)
        yield case(f"random bits {dtype}, {rule}, {fp8}", one(bit_patterns, (8, 96), dtype), params)
        yield case(f"subnormals {dtype}, {rule}, {fp8}", one(subnormals, (5, 96), dtype), params)
    for rule, fp8 in product(SCALE_RULES, FP8_FORMATS):
        params = {"scale_rule": rule, "fp8_format": fp8}
        yield case(f"one ulp around max * 2**k, {rule}, {fp8}", one(around_scale_steps, fp8), params)
        yield case(f"rounding ties, {rule}, {fp8}", one(around_rounding_ties, fp8), params)
        yield case(f"one ulp around powers of two, {rule}, {fp8}", one(around_powers_of_two), params)
        yield case(f"powers of two, {rule}, {fp8}", one(powers_of_two), params)
        specials = one(with_specials, normal((6, 128), "float32"), SPECIALS)
        yield case(f"NaN and infinities, {rule}, {fp8}", specials, params)
        yield case(f"zeros, {rule}, {fp8}", one(np.zeros, (2, 64), np.float32), params)
        yield case(f"negative zeros, {rule}, {fp8}", one(np.full, (2, 64), np.float32(-0.0)), params)
    yield case("no rows", one(normal, (0, 64), "bfloat16"))
    yield case("one row", one(normal, (1, 64), "bfloat16"))
    yield case("no leading axis", one(normal, (64,), "bfloat16"))
    yield case("an empty last axis", one(normal, (3, 0), "bfloat16"))
    yield case("rows and columns that divide nothing", one(normal, (37, 224), "bfloat16"))
    yield case("M3 hidden, N = 6144", one(normal, (3, 6144), "bfloat16"))
    for name, make in views("float32", 64).items():
        yield case(name, one(make))


CASES = tuple(_cases())
