"""The functions that AMD's pseudocode calls, as the manuals describe them."""

import math
from collections.abc import Callable
from fractions import Fraction

import ml_dtypes
import numpy as np

from .pseudo_values import Value, floating, integer, multiply_add, truth


def _quiet_bit(value: Value) -> int:
    return 1 << (value.format[0] - 2)


def _is_nan(value: Value) -> bool:
    return math.isnan(value.number)


def _to_float(value: Value, width: int) -> Value:
    """Another float format. A NaN keeps its sign, the top of its payload and whether it is quiet."""
    if not _is_nan(value):
        return floating("f", width, value.number)
    there = floating("f", width, math.nan)
    payload = value.bits & ((1 << (value.format[0] - 1)) - 1)
    shift = there.format[0] - value.format[0]
    moved = payload << shift if shift >= 0 else payload >> -shift
    return Value("f", width, _infinity(there) | moved | (value.bits >> (value.width - 1)) << (width - 1))


def _infinity(like: Value) -> int:
    return floating(like.kind, like.width, math.inf).bits


def _quietened(value: Value) -> Value:
    return value._replace(bits=value.bits | _quiet_bit(value))


def _exponent(value: Value) -> Value:
    precision = value.format[0]
    return integer("i", 32, value.bits >> (precision - 1) & ((1 << (value.width - precision)) - 1))


def _sign_extend_from(value: Value, width: Value) -> Value:
    bits = width.number
    low = value.bits & ((1 << bits) - 1)
    return integer("i", value.width, low - ((low >> (bits - 1) & 1) << bits) if bits else 0)


def _square_root(value: Value) -> Value:
    x = value.number
    if x < 0:
        return floating(value.kind, value.width, math.nan)
    if not x or not math.isfinite(x):
        return value
    # 300 bits below one and half of one more: a root is never half way between two floats, so this rounds as it does
    exact = Fraction(x)
    root = math.isqrt((exact.numerator << 600) // exact.denominator)
    return floating(value.kind, value.width, Fraction(2 * root + 1, 2 << 300))


def _narrowed(kind: str, width: int) -> Callable[[Value], Value]:
    return lambda value: _quietened(_to_float(value, width)) if _is_nan(value) and kind == "f" else (
        Value("bf", 16, value.bits >> 16 | 0x40) if _is_nan(value) else floating(kind, width, value.number)
    )  # fmt: skip


def _from_fp8(value: Value, scale: Value | None = None) -> Value:
    number = float(np.uint8(value.bits & 255).view(ml_dtypes.float8_e4m3fn))
    power = scale.number - 127 if scale else 0
    return floating("f", 32, number if not math.isfinite(number) else Fraction(number) * Fraction(2) ** power or number)


def _to_fp8(value: Value, scale: Value | None = None) -> Value:
    number = np.uint32(value.bits).view(np.float32) / np.float32(2.0 ** (scale.number - 127 if scale else 0))
    return Value("u", 8, int(np.asarray(number).astype(ml_dtypes.float8_e4m3fn).view(np.uint8)))


FUNCTIONS: dict[str, Callable[..., Value]] = {
    "to_float": _to_float,
    "fma": multiply_add,
    "abs": lambda v: v._replace(bits=v.bits & ((1 << (v.width - 1)) - 1)),
    "sign": lambda v: truth(v.bits >> (v.width - 1)),
    "exponent": _exponent,
    "isNAN": lambda v: truth(_is_nan(v)),
    "isSignalNAN": lambda v: truth(_is_nan(v) and not v.bits & _quiet_bit(v)),
    "isQuietNAN": lambda v: truth(_is_nan(v) and v.bits & _quiet_bit(v)),
    "cvtToQuietNAN": _quietened,
    "signext": lambda v: integer("i", 64, v.as_type("i", v.width).number),
    "signext_from_bit": _sign_extend_from,
    "sqrt": _square_root,
    "f32_to_f16": _narrowed("f", 16),
    "f32_to_bf16": _narrowed("bf", 16),
    "f16_to_f32": lambda v: _quietened(_to_float(v, 32)) if _is_nan(v) else _to_float(v, 32),
    "i32_to_f32": lambda v: floating("f", 32, Fraction(v.number)) if v.number else floating("f", 32, 0.0),
    "u32_to_f32": lambda v: floating("f", 32, Fraction(v.number)) if v.number else floating("f", 32, 0.0),
    "fp8_to_f32": _from_fp8,
    "fp8_to_f32_scale": _from_fp8,
    "f32_to_fp8": _to_fp8,
    "f32_to_fp8_scale": _to_fp8,
    "s_ff1_i32_b64": lambda v: integer("i", 32, (v.bits & -v.bits).bit_length() - 1),
}
