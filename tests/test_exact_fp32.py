"""The specification's fp32 arithmetic agrees with code that others wrote: ml_dtypes, gfloat and the C library."""

from __future__ import annotations

import ctypes
import ctypes.util
from typing import Any

import gfloat
import jax
import numpy as np
import pytest
from gfloat import formats
from oracles import FP8, NAN_CODE, Array, canonical, f32, raw, same

from m3ops.numerics.exact import fp32, functions, namespaces
from m3ops.numerics.formats import FORMATS
from m3ops.testing.arrays import bit_patterns


def bits(rng: np.random.Generator, n: int) -> Array:
    """fp32 numbers with uniformly random bits: every exponent, subnormals, infinities and NaN."""
    return rng.integers(0, 2**32, n, dtype=np.uint32).view(np.float32)


# --- casts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", *FP8])
def test_load_of_every_code(dtype: str) -> None:
    size = np.dtype(dtype).itemsize
    codes = np.arange(256**size, dtype=f"uint{8 * size}").view(dtype)
    with np.errstate(invalid="ignore"):
        got, want = fp32.load(codes), codes.astype(np.float64)
    same(*(raw(np.where(np.isnan(x), np.nan, x)) for x in (got, want)), raw(codes))


def neighbourhood(x: Array) -> Array:
    """fp32 numbers, those one ulp beside them, and the negatives of all."""
    x = x.astype(np.float32)
    near = np.concatenate([x, np.nextafter(x, f32(0)), np.nextafter(x, f32(np.inf))])
    return np.concatenate([near, -near])


def boundaries(dtype: str) -> Array:
    """Every number of a dtype, every midpoint (one beyond the largest number too), and one ulp beside each."""
    size = np.dtype(dtype).itemsize
    numbers = np.arange(256**size // 2, dtype=f"uint{8 * size}").view(dtype)
    numbers = numbers[np.isfinite(numbers)].astype(np.float64)
    beyond = 2 * numbers[-1] - numbers[-2]
    midpoints = (numbers + np.append(numbers[1:], beyond)) / 2
    with np.errstate(over="ignore"):
        return neighbourhood(np.concatenate([numbers, midpoints, [beyond, 2 * beyond]]))


def cast_inputs(dtype: str) -> Array:
    rng = np.random.default_rng(1)
    special = np.array([0x7F800001, 0x7FC00000, 0x7FFFFFFF, 0x7F800000, 0x7F7FFFFF, 0], np.uint32).view(np.float32)
    subnormal = rng.integers(0, 2**23, 20_000, dtype=np.uint32).view(np.float32)
    around_one = np.ldexp(rng.standard_normal(100_000), rng.integers(-16, 16, 100_000)).astype(np.float32)
    near_zero = neighbourhood(np.ldexp(1.0, np.arange(-149, -126)))
    return np.concatenate(
        [boundaries(dtype), special, -special, subnormal, near_zero, around_one, bits(rng, 1_000_000)]
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", *FP8])
def test_encode_as_ml_dtypes(dtype: str) -> None:
    x = cast_inputs(dtype)
    # ml_dtypes turns what is too large for E4M3 into NaN; m3ops saturates, so its oracle is clipped first.
    largest = FP8.get(dtype, np.inf)
    with np.errstate(all="ignore"):
        got = fp32.encode(fp32.load(x), FORMATS[dtype])
        want = np.clip(x, -largest, largest).astype(dtype)
    same(got, canonical(want), x)


@pytest.mark.parametrize("dtype", FP8)
def test_encode_as_gfloat(dtype: str) -> None:
    # IEEE P3109's signed finite binary8 with four bits of precision is E4M3FNUZ: bias 8, largest 240, NaN 0x80.
    p3109 = formats.format_info_p3109(8, 4, domain=formats.Domain.Finite)
    info = formats.format_info_ocp_e4m3 if dtype == "float8_e4m3fn" else p3109
    with np.errstate(all="ignore"):
        x = cast_inputs(dtype).astype(np.float64)
        got = fp32.encode(x, FORMATS[dtype])
        want = gfloat.encode_ndarray(info, gfloat.round_ndarray(info, x, gfloat.RoundMode.TiesToEven, sat=True))
    same(got, np.where(np.isnan(x), NAN_CODE[dtype], want).astype(np.uint8), x)


@pytest.mark.parametrize("shape", [(), (5,), (3, 4), (4, 0)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_exceptions_are_computed_where_they_are(shape: tuple[int, ...], order: Any) -> None:
    """For every kind of array: arguments may be numbers and have fewer axes, and so may the condition."""
    x = np.array(np.arange(np.prod(shape)).reshape(shape) - 3.0, order=order)
    row = np.arange(5.0)[: shape[-1]] if shape else np.array(2.0)
    computed = 0

    def exception(x: Any, row: Any, number: Any) -> Any:
        nonlocal computed
        computed += x.size
        return x + row + number

    for condition in (x < 0, x > 1e9, row % 2 == 0):
        computed = 0
        got = namespaces.except_where(condition, x + 1, exception, x, row, 5.0)
        np.testing.assert_array_equal(got, np.where(condition, x + row + 5.0, x + 1))
        assert computed == np.count_nonzero(np.broadcast_to(condition, shape))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_numbers_that_are_looked_up(dtype: str) -> None:
    """Of many numbers the results are those of a few, which are computed, whatever was asked before."""
    x = bit_patterns((16, 2**13), dtype)[:, ::2]
    for alpha, limit in ((1.702, 7.0), (1.0, 7.0), (1.702, None), (1.702, 7.0)):
        with np.errstate(all="ignore"):
            many = fp32.of_each(functions.gate_factor, x, alpha, limit)
            few = np.stack([functions.gate_factor(fp32.load(row), alpha, limit) for row in x])
        same(*(raw(np.where(np.isnan(factors), np.nan, factors)) for factors in (many, few)), raw(x))


def test_few_numbers_are_not_looked_up() -> None:
    sizes = []
    for rows in (1, 2, 3):
        fp32.of_each(lambda numbers: sizes.append(numbers.size) or numbers, np.zeros((rows, 2**14), np.float16))
    assert sizes == [2**14, 2**16, 2**16]


# --- fused multiply-add ----------------------------------------------------------------------------------------------

N_FMA = 50_000


def normals(rng: np.random.Generator, low: int, high: int, n: int = N_FMA) -> Array:
    """fp32 numbers of random sign and significand with exponents in ``low .. high - 1``."""
    significand = rng.integers(2**23, 2**24, n) * rng.choice([-1, 1], n)
    return np.ldexp(significand.astype(np.float64), rng.integers(low, high, n) - 23).astype(np.float32)


def fma_cancelling(rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """The addend is the rounded product, or a few ulp off: what remains is the product's rounding error."""
    a, b = normals(rng, -40, 40), normals(rng, -40, 40)
    product = a * b
    return a, b, -(product.view(np.int32) + rng.integers(-2, 3, N_FMA, dtype=np.int32)).view(np.float32)


def fma_ties(rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """The product is half an ulp of the addend but for its bits 23 to 46: rounding twice goes wrong."""
    addend = normals(rng, -60, 60)
    half_ulp = np.ldexp(0.5, np.frexp(addend)[1] - 24) * rng.choice([1, 3], N_FMA)
    epsilon = 2.0**-23
    a = rng.choice(f32(1, 1 + epsilon, 1 - epsilon, 1 - epsilon / 2), N_FMA)
    b = rng.choice(f32(1, -1, 1 + epsilon, 1 - epsilon, 1 - epsilon / 2), N_FMA)
    return a, (b * half_ulp).astype(np.float32), addend


def fma_subnormal(rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Results on the grid of 2**-149, half of them with an addend there too."""
    a, b = normals(rng, -100, -50), normals(rng, -90, -50)
    addend = rng.integers(-(2**23), 2**23, N_FMA) * rng.choice([0, 1], N_FMA) * 2.0**-149
    return a, b, addend.astype(np.float32)


def fma_large(rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Products and sums around the largest number, on both sides of overflow."""
    return normals(rng, 60, 66), normals(rng, 60, 65), normals(rng, 120, 128)


def fma_special(_: np.random.Generator) -> tuple[Array, Array, Array]:
    numbers = f32(0, 2.0**-149, 2.0**-126, 1, 1.5, 3.4028234663852886e38, np.inf)
    a, b, addend = np.meshgrid(*[np.concatenate([numbers, -numbers, f32(np.nan)])] * 3)
    return a.ravel(), b.ravel(), addend.ravel()


def fma_any(rng: np.random.Generator) -> tuple[Array, Array, Array]:
    return bits(rng, N_FMA), bits(rng, N_FMA), bits(rng, N_FMA)


FMA_CASES = (fma_cancelling, fma_ties, fma_subnormal, fma_large, fma_special, fma_any)


@pytest.mark.parametrize("compiled", [False, True], ids=["numpy", "xla"])
@pytest.mark.parametrize("case", FMA_CASES, ids=lambda case: case.__name__)
def test_fma_as_c(case: Any, compiled: bool) -> None:
    """About 250,000 cases against the C library's fmaf."""
    fmaf = ctypes.CDLL(ctypes.util.find_library("m")).fmaf
    fmaf.argtypes, fmaf.restype = [ctypes.c_float] * 3, ctypes.c_float
    fma = jax.jit(fp32.fma) if compiled else fp32.fma
    with np.errstate(all="ignore"), jax.enable_x64(True):
        operands = case(np.random.default_rng(2))
        got = np.asarray(fma(*(x.astype(np.float64) for x in operands))).astype(np.float32)
    want = np.array([fmaf(*row) for row in zip(*(x.tolist() for x in operands), strict=True)], np.float32)
    same(canonical(got), canonical(want), *operands)
