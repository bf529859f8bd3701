"""fp32 arithmetic and conversions over NumPy or jax.numpy arrays, each operation rounded as IEEE 754 says.

An fp32 number is held in a float64 array, and each fp32 operation is a float64 operation whose result is rounded to
fp32 by :func:`round32`, once, where the formula says so. That makes every rounding visible, leaves a compiler nothing
to contract (an fp32 product is exact in float64), and keeps subnormal numbers where the processor flushes fp32
subnormals to zero, as XLA's CPU code does. Rounding float64 to fp32 after +, -, *, / or sqrt equals the fp32
operation, because 53 bits are at least 2 * 24 + 2 (Figueroa, "When is double rounding innocuous?", 1995); fma needs
:func:`fma`.

Under JAX, 64-bit types have to be enabled around the call.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import ml_dtypes  # noqa: F401  (gives NumPy the names of the small dtypes)
import numpy as np

from m3ops.numerics.exact.namespaces import Array, except_where
from m3ops.numerics.formats import FLOAT32, FORMATS, Format


def round32(x: Array) -> Array:
    """``x`` rounded to the nearest fp32 number, ties to even."""
    xp = x.__array_namespace__()
    nearest = x.astype(xp.float32).astype(xp.float64)
    # The cast may flush subnormal results, so those are placed on their grid of 2**-149 by hand.
    return except_where(xp.abs(x) < 2.0**-126, nearest, lambda x: xp.rint(x * 2.0**149) * 2.0**-149, x)


def fma(a: Array, b: Array, addend: Array) -> Array:
    """``a * b + addend`` with one rounding: the fp32 fused multiply-add.

    The product is exact in float64. Rounding the sum to float64 and then to fp32 is wrong at most where the float64 sum
    is halfway between two fp32 numbers, since rounding is monotonic: a sum on one side of such a point is not rounded
    past it. These points have bits 1000... below the mantissa of fp32, or are below its normal numbers. There the sum
    is rounded to odd first; everywhere in a program, which would be longer with both sums and a choice between them.
    """
    product = a * b
    if product.__array_namespace__() is not np:
        return round32(sum_to_odd(product, addend))
    total = product + addend
    halfway = ((total.view(np.int64) & (2**29 - 1)) == 2**28) | (np.abs(total) < 2.0**-126)
    return round32(except_where(halfway, total, sum_to_odd, product, addend))


def sum_to_odd(x: Array, y: Array) -> Array:
    """``x + y`` rounded to odd in float64: of the two numbers around an inexact sum, the one with an odd last bit.

    Rounding that to fp32 equals rounding the exact sum (Boldo and Melquiond, "Emulation of FMA", 2008).
    """
    total = x + y
    xp = total.__array_namespace__()
    rest = total - x
    error = (x - (total - rest)) + (y - rest)  # TwoSum: x + y == total + error
    bits = total.view(xp.int64)
    truncated = bits + ((bits ^ error.view(xp.int64)) >> 63)  # - 1 where the signs differ: it was rounded up
    return xp.where(xp.abs(error) > 0, truncated | 1, bits).view(xp.float64)  # the error of an infinity is NaN


def bits32(x: Array) -> Array:
    """The bits of a normal fp32 number (or zero, infinity, NaN) as int32."""
    xp = x.__array_namespace__()
    return x.astype(xp.float32).view(xp.int32)


def from_bits32(bits: Array) -> Array:
    """The fp32 number with these int32 bits; normal numbers only."""
    xp = bits.__array_namespace__()
    return bits.view(xp.float32).astype(xp.float64)


def power_of_two(exponent: Array) -> Array:
    """``2**exponent`` for integers in -1022..1023."""
    xp = exponent.__array_namespace__()
    return ((exponent.astype(xp.int64) + 1023) << 52).view(xp.float64)


def at_most(x: Array, bound: float) -> Array:
    """``min(x, bound)``; NaN stays NaN. (XLA's own minimum may drop it on the CPU.)"""
    return x.__array_namespace__().where(x > bound, bound, x)


def at_least(x: Array, bound: float) -> Array:
    """``max(x, bound)``; NaN stays NaN."""
    return x.__array_namespace__().where(x < bound, bound, x)


def add_scalar(x: Array, number: float) -> Array:
    """``x + number``, a sum of zero being +0.0. (XLA would drop ``+ 0.0``, which turns -0.0 into +0.0.)"""
    total = x + number
    return except_where(total == 0, total, lambda: 0.0)


def max_magnitude(x: Array) -> Array:
    """``max(abs(x))`` along the last axis, which is kept; NaN if there is one: as bits, NaN is the largest of all."""
    xp = x.__array_namespace__()
    return xp.max(xp.abs(x).view(xp.int64), axis=-1, keepdims=True).view(xp.float64)


def load(x: Array) -> Array:
    """The numbers in an array of any of :data:`FORMATS`, exactly. NumPy looks those of 8 bits up."""
    xp = x.__array_namespace__()
    if xp is np and x.dtype.itemsize == 1 and x.size > 2**8:
        return _every(x.dtype)[x.view(np.uint8)]
    fmt = FORMATS[x.dtype.name]
    codes = x.view(getattr(xp, f"uint{fmt.bits}")).astype(xp.int64)
    magnitude = codes & ((1 << (fmt.bits - 1)) - 1)
    # A normal number has the same mantissa in float64, and its exponent has another bias.
    number = ((magnitude << (52 - fmt.mantissa_bits)) + ((1023 - fmt.bias) << 52)).view(xp.float64)
    unit = 2.0 ** (fmt.min_exponent - fmt.mantissa_bits)
    number = except_where(magnitude < 1 << fmt.mantissa_bits, number, lambda m: m.astype(xp.float64) * unit, magnitude)
    number = except_where(magnitude > fmt.max_code, number, lambda: xp.nan)
    if fmt.inf_code is not None:
        number = except_where(magnitude == fmt.inf_code, number, lambda: xp.inf)
    number = (number.view(xp.int64) | (codes >> (fmt.bits - 1) << 63)).view(xp.float64)
    return number if fmt.signed_zero else except_where(codes == fmt.nan_code, number, lambda: xp.nan)


@functools.cache
def _every(dtype: np.dtype) -> np.ndarray:
    return np.asarray(load(np.arange(2**8, dtype=np.uint8).view(dtype)))


def of_each(function: Callable[..., Array], x: Array, *params: Any) -> Array:
    """``function(load(x), *params)`` for a function of each number by itself.

    There are 65536 numbers of 16 bits. For about as many, or more, NumPy looks them up.
    """
    if x.__array_namespace__() is np and x.dtype.itemsize == 2 and x.size >= 2**15:
        return _of_every(function, x.dtype, params)[x.view(np.uint16)]
    return function(load(x), *params)


@functools.lru_cache(maxsize=16)
def _of_every(function: Callable[..., Array], dtype: np.dtype, params: tuple[Any, ...]) -> np.ndarray:
    return np.asarray(function(load(np.arange(2**16, dtype=np.uint16).view(dtype)), *params))


def encode(x: Array, fmt: Format) -> Array:
    """``x`` rounded to the nearest number of a format, ties to even, as unsigned integer codes.

    Past the largest finite number: infinity where the format has one, else saturation. NaN gives ``fmt.nan_code``.
    """
    xp = x.__array_namespace__()
    magnitude = xp.abs(x)
    bits = magnitude.view(xp.int64)
    # Of a normal number the upper bits, after adding half a unit of the last of them, or the number next to that where
    # it is even. A carry into the exponent adds up by itself.
    drop = 52 - fmt.mantissa_bits
    rounded = (bits + ((bits >> drop) & 1) + ((1 << (drop - 1)) - 1)) >> drop
    code = rounded - ((fmt.min_exponent + 1022) << fmt.mantissa_bits)
    units = 2.0 ** (fmt.mantissa_bits - fmt.min_exponent)
    code = except_where(
        magnitude < 2.0**fmt.min_exponent, code, lambda m: xp.rint(m * units).astype(xp.int64), magnitude
    )
    largest = fmt.max_code if fmt.inf_code is None else fmt.inf_code
    code = except_where(code > largest, code, lambda: largest)
    code = code | ((x.view(xp.int64) >> 63) & (1 << (fmt.bits - 1)))
    if not fmt.signed_zero:
        code = except_where(code == 1 << (fmt.bits - 1), code, lambda: 0)
    return except_where(xp.isnan(x), code, lambda: fmt.nan_code).astype(getattr(xp, f"uint{fmt.bits}"))


def store(x: Array, dtype: str) -> Array:
    """``x`` rounded to a dtype of :data:`FORMATS` (given by name)."""
    return encode(x, FORMATS[dtype]).view(np.dtype(dtype))


def round_to(x: Array, dtype: str) -> Array:
    """``x`` rounded to a dtype and read back."""
    return x if dtype == FLOAT32.name else load(store(x, dtype))
