"""Floating point that NumPy lacks: exact fma, AMD's NaN and min/max rules, narrow formats, the division helpers."""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np

u8, u16, u32, u64, i32, i64, f16, f32, f64 = (
    np.uint8, np.uint16, np.uint32, np.uint64, np.int32, np.int64, np.float16, np.float32, np.float64,
)  # fmt: skip

_QUIET = {f16: 0x0200, f32: 0x00400000, f64: 0x0008000000000000}
_DEFAULT_NAN = {f16: 0x7E00, f32: 0x7FC00000, f64: 0x7FF8000000000000}
_BITS = {f16: u16, f32: u32, f64: u64}


def quiet_nans(result: np.ndarray, *sources: np.ndarray) -> np.ndarray:
    """The NaN of a result: the first NaN source, made quiet; +qNaN where the operation itself made it."""
    nan = np.isnan(result)
    if not nan.any():
        return result
    kind = result.dtype.type
    bits = _BITS[kind]
    out = np.full(result.shape, _DEFAULT_NAN[kind], bits)
    for source in reversed(sources):
        source = np.broadcast_to(source, result.shape)
        out = np.where(np.isnan(source), np.ascontiguousarray(source).view(bits) | bits(_QUIET[kind]), out)
    return np.where(nan, out, result.view(bits)).view(kind)


def fma_odd(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """A * b + c of float32 (or float16) as float64 rounded to odd, so that one further rounding is exact.

    The product of two 24-bit numbers is exact in float64; TwoSum gives the sum and its error; where the error is not
    zero the even neighbour is replaced by the odd one on the other side of the exact value (Boldo and Melquiond 2008:
    round to odd with two spare bits makes double rounding harmless).
    """
    product, addend = np.broadcast_arrays(a.astype(f64) * b.astype(f64), c.astype(f64))
    total = product + addend
    other = total - product
    error = (product - (total - other)) + (addend - other)
    bits = total.view(i64)
    # error is NaN beside an infinity, and abs(NaN) > 0 is false
    inexact_even = (np.abs(error) > 0) & ((bits & 1) == 0)
    away = np.where((error > 0) == (total > 0), i64(1), i64(-1))
    return np.where(inexact_even, bits + away, bits).view(f64)


def fma32(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    return fma_odd(a, b, c).astype(f32)


def exponent(x: np.ndarray) -> np.ndarray:
    """Biased exponent field of float32."""
    return ((x.view(u32) >> u32(23)) & u32(255)).astype(i32)


def is_denormal(x: np.ndarray) -> np.ndarray:
    return (x != 0) & (np.abs(x) < f32(2.0**-126))


def flush(x: np.ndarray) -> np.ndarray:
    return np.where(is_denormal(x), np.copysign(f32(0), x), x)


# ---- minimum and maximum


def extremum(a: np.ndarray, b: np.ndarray, largest: bool) -> np.ndarray:
    """v_max/v_min, IEEE 754 maxNum/minNum: a number beats a NaN; +0 is above -0; two NaNs give the first, made quiet.

    A signaling NaN would give a quiet NaN in IEEE mode on gfx9 and gfx11; compilers quieten operands first, and a NaN
    that stays signaling after arithmetic cannot occur, so that rule is not needed here.
    """
    kind = np.result_type(a, b).type
    bits = _BITS[kind]
    a, b = np.broadcast_arrays(a, b)
    ab, bb = np.ascontiguousarray(a).view(bits), np.ascontiguousarray(b).view(bits)
    equal = (ab & bb) if largest else (ab | bb)  # differs from both only for +0 and -0
    a_wins = (a > b) if largest else (a < b)
    b_wins = (b > a) if largest else (b < a)
    out = np.where(a_wins, ab, np.where(b_wins, bb, equal))
    a_nan, b_nan = np.isnan(a), np.isnan(b)
    if a_nan.any() or b_nan.any():
        out = np.where(b_nan, ab, np.where(a_nan, bb, out))
        out = np.where(a_nan & b_nan, ab | bits(_QUIET[kind]), out)
    return out.view(kind)


def extremum_nan(a: np.ndarray, b: np.ndarray, largest: bool) -> np.ndarray:
    """v_maximum/v_minimum, IEEE 754-2019: a NaN wins; +0 is above -0."""
    out = extremum(a, b, largest)
    out = np.where(np.isnan(a) | np.isnan(b), out.dtype.type(np.nan), out)
    return quiet_nans(out, a, b)


# ---- conversions


def to_bf16(x: np.ndarray, saturate: np.ndarray | bool = False) -> np.ndarray:
    """float32 -> bfloat16 bits, nearest even; a NaN keeps its top bits and becomes quiet.

    Where `saturate`, finite values stay finite.
    """
    bits = x.view(u32)
    rounded = (bits + u32(0x7FFF) + ((bits >> u32(16)) & u32(1))) >> u32(16)
    overflow = ((rounded & u32(0x7FFF)) == 0x7F80) & np.isfinite(x) & saturate
    rounded = np.where(overflow, rounded - u32(1), rounded)
    return np.where(np.isnan(x), (bits >> u32(16)) | u32(0x40), rounded).astype(u16)


def from_bf16(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(u32) << u32(16)).view(f32)


def to_f16(x: np.ndarray, saturate: np.ndarray) -> np.ndarray:
    """float32 or float64 -> float16, nearest even. FP16_OVFL keeps finite values finite."""
    out = quiet_nans(x.astype(f16), x.astype(f16))
    overflow = np.isinf(out) & np.isfinite(x) & saturate
    return np.where(overflow, np.copysign(f16(65504), out), out)


def to_integer(x: np.ndarray, low: float, high: float, dtype: type) -> np.ndarray:
    """Towards zero, saturating; NaN gives 0."""
    whole = np.clip(np.trunc(x.astype(f64)), low, high)
    return np.where(np.isnan(whole), 0.0, whole).astype(i64).astype(dtype)


@dataclasses.dataclass(frozen=True)
class Fp8:
    """An E4M3 format. OCP ("fn"): bias 7, NaN 0x7f and 0xff. FNUZ: bias 8, one zero, NaN 0x80."""

    bias: int
    largest_code: int
    fnuz: bool

    @cache  # noqa: B019  (two instances live for ever)
    def decode_table(self) -> np.ndarray:
        code = np.arange(256)
        field, mantissa = (code >> 3) & 15, code & 7
        significand = np.where(field == 0, mantissa, mantissa + 8)
        value = np.ldexp(significand.astype(f64), np.maximum(field, 1) - self.bias - 3)
        value = np.where(code >= 128, -value, value).astype(f32)
        if self.fnuz:
            value[0x80] = np.nan
        else:
            value[[0x7F, 0xFF]] = np.nan
        return value

    def decode(self, code: np.ndarray) -> np.ndarray:
        return self.decode_table()[code]

    def encode(self, x: np.ndarray, saturate: np.ndarray) -> np.ndarray:
        """float32 -> code, nearest even. Beyond the largest number: NaN, or that number where `saturate`."""
        magnitude = np.where(np.isfinite(x), np.abs(x), 0).astype(f64)
        _, power = np.frexp(np.where(magnitude > 0, magnitude, 2.0**-126))
        scale = np.maximum(power - 1, 1 - self.bias) - 3  # exponent of the last mantissa bit
        steps = np.rint(np.ldexp(magnitude, -scale)).astype(i64)
        # steps is 0..16; 8 marks a normal number, and 16 carries into the exponent by itself
        code = steps + (scale + 2 + self.bias) * 8
        overflow = (code > self.largest_code) | np.isinf(x)
        nan_code = 0x80 if self.fnuz else 0x7F
        code = np.where(overflow, np.where(saturate, self.largest_code, nan_code), code)
        code = np.where(np.isnan(x), nan_code, code)
        negative = np.signbit(x)
        if self.fnuz:  # no negative zero, and 0x80 already is the NaN
            negative = negative & (code != 0) & (code != 0x80)
        return np.where(negative, code | 0x80, code).astype(u8)


OCP = Fp8(bias=7, largest_code=0x7E, fnuz=False)
FNUZ = Fp8(bias=8, largest_code=0x7F, fnuz=True)


# ---- division: V_DIV_SCALE_F32, V_DIV_FMAS_F32, V_DIV_FIXUP_F32


def div_scale(s0: np.ndarray, s1: np.ndarray, s2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """s0 (which repeats the denominator s1 or the numerator s2) scaled so that the division sequence stays in range.

    The flag tells v_div_fmas to scale the quotient back. The conditions are on encoded exponents, as gfx1100 and
    gfx1201 have them; the ISA documents' conditions on denormal quotients do not give the hardware's results.
    """
    s0, s1, s2 = (np.ascontiguousarray(x) for x in np.broadcast_arrays(s0, s1, s2))
    wide = s0.astype(f64)
    up, down = (wide * 2.0**64).astype(f32), (wide * 2.0**-64).astype(f32)
    is_denominator, is_numerator = s0.view(u32) == s1.view(u32), s0.view(u32) == s2.view(u32)
    denominator = exponent(s1)
    distance = exponent(s2) - denominator
    cases = [
        (distance >= 96, np.where(is_denominator, up, s0), True),
        (denominator == 0, up, False),
        ((denominator >= 253) & (distance <= -96), np.where(is_denominator, down, s0), True),
        (denominator >= 253, down, False),
        (distance <= -96, np.where(is_numerator, up, s0), True),
        (exponent(s2) <= 24, up, False),
    ]
    conditions = [case[0] for case in cases]
    value = np.select(conditions, [case[1] for case in cases], s0).astype(f32)
    flag = np.select(conditions, [np.full(s0.shape, case[2]) for case in cases], False)
    return np.where((s1 == 0) | (s2 == 0), -f32(np.nan), value), flag


def div_fmas(a: np.ndarray, b: np.ndarray, c: np.ndarray, scaled: np.ndarray) -> np.ndarray:
    """fma, then times 2^64 or 2^-64 (by the exponent of the quotient c) where div_scale raised the flag."""
    back = np.where(exponent(c) > 127, 2.0**64, 2.0**-64)
    return (fma_odd(a, b, c) * np.where(scaled, back, 1.0)).astype(f32)


def div_fixup(s0: np.ndarray, s1: np.ndarray, s2: np.ndarray) -> np.ndarray:
    """The quotient s0 of s2 / s1, with the special cases of IEEE division put right."""
    s0, s1, s2 = (np.ascontiguousarray(x) for x in np.broadcast_arrays(s0, s1, s2))
    sign = (s1.view(u32) ^ s2.view(u32)) & u32(0x80000000)
    infinity, quiet = u32(0x7F800000), u32(0x00400000)
    cases = [
        (np.isnan(s2), s2.view(u32) | quiet),
        (np.isnan(s1), s1.view(u32) | quiet),
        ((s1 == 0) & (s2 == 0), u32(0xFFC00000)),
        (np.isinf(s1) & np.isinf(s2), u32(0xFFC00000)),
        ((s1 == 0) | np.isinf(s2), sign | infinity),
        (np.isinf(s1) | (s2 == 0), sign),
        (exponent(s2) - exponent(s1) < -150, sign),
        # a quotient beyond the largest number leaves a NaN behind in the refinement steps
        (np.isnan(s0), sign | infinity),
    ]
    ordinary = sign | (s0.view(u32) & u32(0x7FFFFFFF))
    return np.select([c for c, _ in cases], [v for _, v in cases], ordinary).astype(u32).view(f32)
