"""fp32 arithmetic and conversions on tiles, for Triton kernels, to the bits of exact/fp32.py.

Additions, products, ``tl.fma``, division and square root are Triton's own, which IEEE 754 rounds correctly on every
target. Constexpr arguments are upper case.
"""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl

from m3ops.numerics.formats import FP8_FORMATS

MAGNITUDE = tl.constexpr(0x7FFFFFFF)
INFINITY = tl.constexpr(0x7F800000)
QUIET_NAN = tl.constexpr(0x7FC00000)


@triton.jit
def bits32(x):
    return x.to(tl.int32, bitcast=True)


@triton.jit
def from_bits32(bits):
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def minimum(x, y):
    return tl.minimum(x, y, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def maximum(x, y):
    return tl.maximum(x, y, propagate_nan=tl.PropagateNan.ALL)


@triton.constexpr_function
def _e4m3_constants(FP8):
    """(exponent rebias in code units, smallest normal, 2**23 subnormal units and their fp32 bits, NaN code)."""
    fmt = FP8_FORMATS[FP8]
    units = fmt.min_exponent + 23 - fmt.mantissa_bits
    return (127 - fmt.bias) << 3, 2.0**fmt.min_exponent, 2.0**units, (127 + units) << 23, fmt.nan_code


@triton.jit
def encode_e4m3(x, broken, FP8: tl.constexpr, CAST: tl.constexpr):
    """fp32 to E4M3 codes (uint8), ties to even; the NaN code where ``broken``.

    Args:
        x: Magnitudes at most the format's largest number, but where ``broken``.
        broken: Whether an element belongs to a block with a NaN or an infinity.
        FP8: ``"e4m3fn"`` or ``"e4m3fnuz"``.
        CAST: How to convert. ``"nvidia"`` and ``"amd"``: in hardware; on NVIDIA x has to be NaN where ``broken``.
            ``"fnuz"``: to E4M3FN by hardware that knows E4M3FNUZ only. ``"integer"``: anywhere.
    """
    constants: tl.constexpr = _e4m3_constants(FP8)
    if CAST == "integer":
        bits = bits32(x)
        magnitude = bits & MAGNITUDE
        normal = ((magnitude + 0x7FFFF + ((magnitude >> 20) & 1)) >> 20) - constants[0]
        # Subnormals: adding a number whose unit in the last place is theirs rounds them to their grid.
        subnormal = bits32(from_bits32(magnitude) + constants[2]) - constants[3]
        codes = tl.where(from_bits32(magnitude) < constants[1], subnormal, normal)
        sign = (bits >> 24) & 0x80
        if FP8 == "e4m3fnuz":  # no negative zero: its code is the NaN
            sign = tl.where(codes == 0, 0, sign)
        codes = tl.where(broken, constants[4], codes | sign).to(tl.uint8)
    elif CAST == "fnuz":
        # E4M3FNUZ has one more exponent bias: its code of x / 2 is the E4M3FN code of x, but for the sign of zero. The
        # NaN code 0x7F would be 480 if it were a number, and E4M3FNUZ has that.
        x = tl.where(broken, 480.0, x)
        codes = (x * 0.5).to(tl.float8e4b8).to(tl.uint8, bitcast=True) | ((bits32(x) >> 24) & 0x80).to(tl.uint8)
    else:
        if CAST == "amd":  # the sign of a NaN would stay
            x = tl.where(broken, from_bits32(tl.full((1, 1, 1), QUIET_NAN, tl.int32)), x)
        if FP8 == "e4m3fn":
            codes = x.to(tl.float8e4nv).to(tl.uint8, bitcast=True)
        else:
            codes = x.to(tl.float8e4b8).to(tl.uint8, bitcast=True)
    return codes


@triton.jit
def decode_e4m3(codes, FP8: tl.constexpr, CAST: tl.constexpr):
    """E4M3 codes (uint8) to fp32, exactly; CAST as for :func:`encode_e4m3`."""
    if CAST == "integer" or CAST == "fnuz":
        fmt: tl.constexpr = _decode_constants(FP8)
        magnitude = (codes & 0x7F).to(tl.int32)
        # Shifted into fp32's fields the code is the number times 2**(bias - 127), a subnormal one where the code's is.
        number = from_bits32((magnitude << 20) | ((codes & 0x80).to(tl.int32) << 24)) * fmt[0]
        nan = (magnitude if FP8 == "e4m3fn" else codes) == fmt[1]
        number = tl.where(nan, from_bits32(tl.full(codes.shape, QUIET_NAN, tl.int32)), number)
    elif FP8 == "e4m3fn":
        number = codes.to(tl.float8e4nv, bitcast=True).to(tl.float32)
    else:
        number = codes.to(tl.float8e4b8, bitcast=True).to(tl.float32)
    return number


@triton.constexpr_function
def _decode_constants(FP8):
    fmt = FP8_FORMATS[FP8]
    return 2.0 ** (127 - fmt.bias), fmt.nan_code


@dataclass(frozen=True)
class Narrowing:
    """What a target does where IEEE 754 would round fp32 to an activation dtype, a constexpr.

    Attributes:
        fuses: Whether it may round while it multiplies, and then lose the sign of a zero.
        saturates: Whether it may saturate where infinity is due: AMD devices run kernels with fp8 conversions in a mode
            (FP16_OVFL) in which fp16 does, and on gfx950 by some sources bf16 too. Infinities stay what they are.
    """

    fuses: bool = False
    saturates: bool = False


@triton.jit
def narrow(x, DTYPE: tl.constexpr, NARROWING: tl.constexpr):
    """fp32 rounded to an activation dtype as IEEE 754 does."""
    if NARROWING.saturates:  # what rounds to infinity is made infinite before
        if tl.float16 == DTYPE:
            x = tl.where(tl.abs(x) < 65520.0, x, x * float("inf"))
        elif tl.bfloat16 == DTYPE:
            x = tl.where(tl.abs(x) < 3.3961775292304602e38, x, x * float("inf"))
    if NARROWING.fuses:
        # LLVM folds a product and its rounding into v_fma_mixlo with an addend of +0, which loses the sign of zero
        # (llvm/llvm-project#214544). It cannot look through this empty instruction.
        x = tl.inline_asm_elementwise("", "=v,0", [x], dtype=tl.float32, is_pure=True, pack=1)
    return x.to(DTYPE)


@triton.jit
def round_to(x, DTYPE: tl.constexpr, NARROWING: tl.constexpr):
    """fp32 rounded to an activation dtype and read back."""
    return narrow(x, DTYPE, NARROWING).to(tl.float32)
