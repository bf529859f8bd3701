"""The functions of exact/functions.py on tiles, for Triton kernels.

Every multiply that feeds an add is an explicit fma, so no compiler flag can change a bit, and only operations are
used that IEEE 754 rounds correctly on every target. m3ops/numerics/README.md states the rules; constexpr arguments
are upper case.
"""

from __future__ import annotations

import triton
import triton.language as tl

from m3ops.numerics import constants as c
from m3ops.numerics.formats import BLOCK, FP8_FORMATS
from m3ops.numerics.tile.fp32 import (
    INFINITY,
    MAGNITUDE,
    QUIET_NAN,
    bits32,
    decode_e4m3,
    encode_e4m3,
    from_bits32,
    maximum,
    minimum,
)

_ROUND_TO_INTEGER = tl.constexpr(c.ROUND_TO_INTEGER)
_EXP2_POLYNOMIAL = tl.constexpr(c.EXP2_POLYNOMIAL)
_RECIPROCAL_SEED = tl.constexpr(c.RECIPROCAL_SEED)
_SUM_COARSE = tl.constexpr(c.SUM_COARSE)
_SUM_FINE = tl.constexpr(c.SUM_FINE)
_SUM_COARSE_BITS = tl.constexpr(c.float32_bits(c.SUM_COARSE))
_SUM_FINE_BITS = tl.constexpr(c.float32_bits(c.SUM_FINE))
_SUM_COARSE_GRID = tl.constexpr(c.SUM_COARSE_GRID)
_SUM_FINE_GRID = tl.constexpr(c.SUM_FINE_GRID)
_GROUP = tl.constexpr(c.SUM_GROUP)
_BLOCK = tl.constexpr(BLOCK)
_DIGIT_ROUNDING = tl.constexpr(c.DIGIT_ROUNDING)


@triton.jit
def sigmoid(gate, SLOPE: tl.constexpr, BOUND: tl.constexpr, CLAMP_ABOVE: tl.constexpr):
    """The results of the specification's ``sigmoid``. SLOPE and BOUND are ``constants.sigmoid_constants(alpha)``."""
    gate = maximum(gate, -BOUND)
    y = minimum(gate, BOUND) if CLAMP_ABOVE else gate
    shifted = tl.fma(y, SLOPE, _ROUND_TO_INTEGER)
    f = tl.fma(y, SLOPE, _ROUND_TO_INTEGER - shifted)
    p = tl.fma(f, _EXP2_POLYNOMIAL[5], _EXP2_POLYNOMIAL[4])
    p = tl.fma(f, p, _EXP2_POLYNOMIAL[3])
    p = tl.fma(f, p, _EXP2_POLYNOMIAL[2])
    p = tl.fma(f, p, _EXP2_POLYNOMIAL[1])
    p = tl.fma(f, p, _EXP2_POLYNOMIAL[0])
    # The low bits of `shifted` are the integer n: added to the exponent of p they make 2**n * p.
    exp2 = from_bits32(bits32(p) + (bits32(shifted) << 23))
    d = exp2 + 1.0
    r = from_bits32(_RECIPROCAL_SEED - bits32(d))
    h = tl.fma(-d, r, 1.0)
    r = tl.fma(r, tl.fma(h, h, h), r)
    return gate, y, exp2, tl.fma(r, tl.fma(-d, r, 1.0), r)


@triton.jit
def swish(gate, SLOPE: tl.constexpr, BOUND: tl.constexpr, CLAMP_ABOVE: tl.constexpr):
    """``gate * sigmoid(alpha * gate)``, fp32."""
    gate, _, _, s = sigmoid(gate, SLOPE, BOUND, CLAMP_ABOVE)
    return gate * s


@triton.jit
def swiglu_oai(gate, up, SLOPE: tl.constexpr, BOUND: tl.constexpr, BETA: tl.constexpr, LIMIT: tl.constexpr):
    """``(gate * sigmoid(alpha * gate)) * (up + beta)`` of clamped fp32 inputs. LIMIT is None for no clamp."""
    if LIMIT is not None:
        limit = tl.full((), LIMIT, tl.float32)  # Triton would take a bare subnormal number for fp64
        gate = minimum(gate, limit)
        up = minimum(maximum(up, -limit), limit)
    CLAMP_ABOVE: tl.constexpr = LIMIT is None or LIMIT > BOUND
    return swish(gate, SLOPE, BOUND, CLAMP_ABOVE) * (up + BETA)


@triton.jit
def swiglu_oai_backward(
    gate,
    up,
    grad,
    SLOPE: tl.constexpr,
    BOUND: tl.constexpr,
    BETA: tl.constexpr,
    LIMIT: tl.constexpr,
    ALPHA: tl.constexpr,
):
    """The fp32 gradients of gate and up, 0 where a clamp cut something off."""
    if LIMIT is not None:
        limit = tl.full((), LIMIT, tl.float32)
        cut_gate, cut_up = gate > limit, tl.abs(up) > limit
        gate = minimum(gate, limit)
        up = minimum(maximum(up, -limit), limit)
    CLAMP_ABOVE: tl.constexpr = LIMIT is None or LIMIT > BOUND
    gate, y, exp2, s = sigmoid(gate, SLOPE, BOUND, CLAMP_ABOVE)
    slope = s * tl.fma(y * (exp2 * s), ALPHA, 1.0)
    grad_gate = grad * (slope * (up + BETA))
    grad_up = grad * (gate * s)
    if LIMIT is not None:
        grad_gate, grad_up = tl.where(cut_gate, 0.0, grad_gate), tl.where(cut_up, 0.0, grad_up)
    return grad_gate, grad_up


@triton.jit
def sum_lanes(x):
    """[ROWS, COLS, LANES] -> [ROWS, COLS]: each lane plus the one half as many further on, until one is left."""
    if x.shape[2] > 1:
        halves = tl.permute(tl.reshape(x, (x.shape[0], x.shape[1], 2, x.shape[2] // 2)), (0, 1, 3, 2))
        first, second = tl.split(halves)
        total = sum_lanes(first + second)
    else:
        total = tl.reshape(x, (x.shape[0], x.shape[1]))
    return total


@triton.jit
def choice_keys(scores, bias):
    """int32 that order like the sums ``scores + bias``; NaN is the largest of all. None is the smallest int32."""
    choice = scores + bias
    bits = bits32(choice)
    keys = bits ^ ((bits >> 31) & MAGNITUDE)  # of negative numbers they grow the other way; no sum is -0
    return tl.where(choice == choice, keys, MAGNITUDE)


@triton.constexpr_function
def _scale_constants(FP8, RULE):
    """(carry, emax, largest number) of a format and a scale rule; see ``scale_exponents`` in exact/functions.py."""
    fmt = FP8_FORMATS[FP8]
    carry = 0x7FFFFF - ((fmt.max_code << (23 - fmt.mantissa_bits)) & 0x7FFFFF) if RULE == "rceil" else 0
    return carry, fmt.max_exponent, fmt.max


@triton.jit
def quantize_blocks(
    x,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    FP8: tl.constexpr,
    RULE: tl.constexpr,
    CAST: tl.constexpr,
    SQUARE: tl.constexpr = False,
):
    """MXFP8 of an fp32 tile: value codes [ROWS, COLS] and E8M0 bytes [ROWS, COLS / 32], both uint8.

    With SQUARE blocks each 32 rows share their scales.
    """
    constants: tl.constexpr = _scale_constants(FP8, RULE)
    blocks = tl.reshape(x, (ROWS, COLS // _BLOCK, _BLOCK))
    # As integers, magnitudes order like the numbers, and NaN is the largest of all.
    amax = tl.max(bits32(blocks) & MAGNITUDE, axis=2)
    if SQUARE:
        of_rows = tl.reshape(amax, (ROWS // _BLOCK, _BLOCK, COLS // _BLOCK))
        largest = tl.broadcast_to(tl.max(of_rows, axis=1)[:, None, :], of_rows.shape)
        amax = tl.reshape(largest, (ROWS, COLS // _BLOCK))
    broken = amax >= INFINITY
    exponent = tl.maximum(((amax + constants[0]) >> 23) - constants[1], 0)
    inv_scale = (254 - exponent) << 23
    if CAST == "nvidia":  # saturates, and converts any NaN to the NaN byte: as inverse scale it costs nothing
        scaled = blocks * from_bits32(tl.where(broken, QUIET_NAN, inv_scale))[:, :, None]
    else:
        scaled = blocks * from_bits32(inv_scale)[:, :, None]
        if RULE == "floor":
            scaled = tl.minimum(tl.maximum(scaled, -constants[2]), constants[2])
    codes = encode_e4m3(scaled, broken[:, :, None], FP8, CAST)
    scales = tl.where(broken, 255, exponent).to(tl.uint8)
    return tl.reshape(codes, (ROWS, COLS)), scales


@triton.jit
def e4m3_quotient(x, divisor):
    """``x / divisor`` of a tile by one number, fp32, as far as E4M3 can tell it from IEEE 754's.

    With the nearest number to ``1 / divisor``, one step from the product with it gives the nearest quotient
    (Markstein). Where the rest is too small for fp32, the quotient is below 2**-20, which E4M3 does not tell from zero.
    What has no step stays the product: a zero, whose sign the step would lose, infinity and NaN.
    """
    if tl.abs(((bits32(divisor) >> 23) & 0xFF) - 127) <= 60:  # 2**-60 <= abs(divisor) < 2**61
        inverse = tl.div_rn(1.0, divisor)
        product = x * inverse
        nearest = tl.fma(tl.fma(-product, divisor, x), inverse, product)
        quotient = tl.where(tl.abs(nearest) > 0.0, nearest, product)
    else:
        quotient = tl.div_rn(x, divisor)
    return quotient


@triton.jit
def quantize(x, FP8: tl.constexpr, CAST: tl.constexpr):
    """E4M3 codes (uint8) of an fp32 tile ``[R, H, C]``: too large numbers become the largest, NaN the NaN code."""
    broken = x != x
    if CAST != "nvidia":  # saturates by itself
        LARGEST: tl.constexpr = _scale_constants(FP8, "")[2]
        x = tl.minimum(tl.maximum(x, -LARGEST), LARGEST)
    return encode_e4m3(x, broken, FP8, CAST)


@triton.jit
def dequantize_blocks(codes, scales, ROWS: tl.constexpr, COLS: tl.constexpr, FP8: tl.constexpr, CAST: tl.constexpr):
    """``values * 2**(scales - 127)`` in fp32 from codes [ROWS, COLS] and E8M0 bytes [ROWS, COLS / 32]."""
    blocks = tl.reshape(decode_e4m3(codes, FP8, CAST), (ROWS, COLS // _BLOCK, _BLOCK))
    return tl.reshape(blocks * scale_factors(scales)[:, :, None], (ROWS, COLS))


@triton.jit
def bfloat16_blocks(codes, scales, ROWS: tl.constexpr, COLS: tl.constexpr, FP8: tl.constexpr, CAST: tl.constexpr):
    """The same numbers in bfloat16, rounded once."""
    if CAST == "nvidia":  # codes and factors are numbers of bfloat16, of which it multiplies two at a time
        blocks = tl.reshape(decode_e4m3(codes, FP8, CAST).to(tl.bfloat16), (ROWS, COLS // _BLOCK, _BLOCK))
        numbers = tl.reshape(blocks * scale_factors(scales).to(tl.bfloat16)[:, :, None], (ROWS, COLS))
    else:
        numbers = dequantize_blocks(codes, scales, ROWS, COLS, FP8, CAST).to(tl.bfloat16)
    return numbers


@triton.jit
def interleave(codes, ROWS: tl.constexpr, COLS: tl.constexpr):
    """The codes of each block of 32, ``[ROWS, COLS]``: first the first pairs of all fours, then the second pairs.

    An instruction of NVIDIA's tensor cores adds 16 products at once, and which 16 decides the bytes of a sum. For
    ``mma.sync`` Triton reads four codes in a row for each thread. The first pairs of a block's fours become the operand
    of one instruction, the second pairs that of the next. In this order all other instructions take the same.
    """
    pairs = tl.permute(tl.reshape(codes, (ROWS * COLS // _BLOCK, _BLOCK // 4, 2, 2)), (0, 2, 1, 3))
    return tl.reshape(pairs, (ROWS, COLS))


@triton.jit
def halves(x, ROWS: tl.constexpr, COLS: tl.constexpr):
    """Both halves of each block of 32 of :func:`interleave`, ``[ROWS, COLS / 2]`` each."""
    fours = tl.permute(tl.reshape(x, (ROWS, COLS // 4, 2, 2)), (0, 1, 3, 2))
    first, second = tl.split(fours)
    return tl.reshape(first, (ROWS, COLS // 2)), tl.reshape(second, (ROWS, COLS // 2))


@triton.jit
def scale_factors(scales):
    """``2**(scales - 127)`` of E8M0 bytes, fp32; NaN for 255."""
    exponent = scales.to(tl.int32)
    bits = tl.where(exponent == 0, 0x00400000, exponent << 23)  # 2**-127 is subnormal
    return from_bits32(tl.where(exponent == 255, QUIET_NAN, bits))


@triton.jit
def digits(codes, FP8: tl.constexpr, CAST: tl.constexpr):
    """E4M3 codes (uint8) as two fp16 numbers: the nearest integers, and the rests."""
    if FP8 == "e4m3fn" and CAST == "nvidia":
        number = codes.to(tl.float8e4nv, bitcast=True).to(tl.float16)
    else:
        constants: tl.constexpr = _digit_constants(FP8)
        magnitude = (codes & 0x7F).to(tl.int16)
        # Shifted into fp16's fields the code is the number times 2**(bias - 15), a subnormal one where the code's is.
        bits = (magnitude << 7) | ((codes & 0x80).to(tl.int16) << 8)
        number = bits.to(tl.float16, bitcast=True) * constants[0]
        nan = (magnitude if FP8 == "e4m3fn" else codes) == constants[1]
        number = tl.where(nan, float("nan"), number)
    high = (number + _DIGIT_ROUNDING) - _DIGIT_ROUNDING
    return high, number - high


@triton.constexpr_function
def _digit_constants(FP8):
    fmt = FP8_FORMATS[FP8]
    return 2.0 ** (15 - fmt.bias), fmt.nan_code


@triton.jit
def add_block(total, a, b, a_scale, b_scale, ROWS: tl.constexpr, COLS: tl.constexpr):
    """``total`` and the products of one block of 32, ``[ROWS, COLS]`` fp32.

    Args:
        total: The sum so far.
        a: The digits of the left matrix, a pair of ``[ROWS, 32]``.
        b: Those of the right one, ``[32, 2 COLS]``: columns of integers and of rests take turns.
        a_scale: The factors of the left one, ``[ROWS]``.
        b_scale: The same of the right one, ``[COLS]``.
        ROWS: Rows of the left one.
        COLS: Columns of the product.
    """
    high, mixed = tl.split(tl.reshape(tl.dot(a[0], b), (ROWS, COLS, 2)))
    other, low = tl.split(tl.reshape(tl.dot(a[1], b), (ROWS, COLS, 2)))
    scale = a_scale[:, None] * b_scale[None, :]
    # The sum of the mixed products is exact like each of them. What is no fma may be folded into a dot's accumulator,
    # but not past a split.
    return tl.fma(high, scale, tl.fma(mixed + other, scale, tl.fma(low, scale, total)))


@triton.jit
def square_groups(x, ROWS: tl.constexpr, COLS: tl.constexpr):
    """Sums of the squares of 8 neighbours each, [ROWS, COLS / 8], of an fp32 tile."""
    tl.static_assert(_GROUP == 8)
    first, second = tl.split(tl.reshape(x, (ROWS, COLS // 8, 4, 2)))
    even, odd = tl.split(tl.reshape(tl.fma(second, second, first * first), (ROWS, COLS // 8, 2, 2)))
    low, high = tl.split(even + odd)
    return low + high


@triton.jit
def product_groups(x, y, ROWS: tl.constexpr, COLS: tl.constexpr):
    """The same for the products of two tiles."""
    first_x, second_x = tl.split(tl.reshape(x, (ROWS, COLS // 8, 4, 2)))
    first_y, second_y = tl.split(tl.reshape(y, (ROWS, COLS // 8, 4, 2)))
    pairs = tl.fma(second_x, second_y, first_x * first_y)
    even, odd = tl.split(tl.reshape(pairs, (ROWS, COLS // 8, 2, 2)))
    low, high = tl.split(even + odd)
    return low + high


@triton.jit
def sum_exactly(groups, SIGNED: tl.constexpr = False):
    """Sum along the last axis, and over the tiles of a tuple, of fp32 numbers, [ROWS].

    Where one is too large the sum is infinity, or NaN if the numbers are SIGNED.

    They are rounded to two grids of the largest and added as integers: the same for every tile shape, warp count and
    vendor.
    """
    magnitudes = bits32(groups[0]) & MAGNITUDE
    for i in tl.static_range(1, len(groups)):
        magnitudes = tl.maximum(magnitudes, bits32(groups[i]) & MAGNITUDE)
    largest = tl.max(magnitudes, axis=1)
    exponent = largest >> 23
    scale = from_bits32(tl.maximum(253 - exponent, 1) << 23)[:, None]
    coarse, fine = _grid_units(groups[0], scale)
    for i in tl.static_range(1, len(groups)):
        more_coarse, more_fine = _grid_units(groups[i], scale)
        coarse += more_coarse
        fine += more_fine
    # Side by side they go through one exchange between warps.
    coarse, fine = tl.split(tl.sum(tl.join(coarse, fine), axis=1).to(tl.float32))
    total = tl.fma(fine, _SUM_FINE_GRID, coarse * _SUM_COARSE_GRID)
    total = total * from_bits32((tl.minimum(exponent, 252) + 1) << 23)
    if SIGNED:
        too_large = from_bits32(tl.full(largest.shape, QUIET_NAN, tl.int32))
    else:
        too_large = from_bits32(tl.where(largest > INFINITY, QUIET_NAN, INFINITY))
    return tl.where(exponent < 253, total, too_large)


@triton.jit
def _grid_units(x, scale):
    """``x * scale``, below 1, in units of the coarse grid, and what that leaves in units of the fine one."""
    shifted = tl.fma(x, scale, _SUM_COARSE)
    rest = tl.fma(x, scale, _SUM_COARSE - shifted)
    return bits32(shifted) - _SUM_COARSE_BITS, bits32(rest + _SUM_FINE) - _SUM_FINE_BITS


@triton.jit
def reciprocal_rms(groups, INV_SIZE: tl.constexpr, EPS: tl.constexpr):
    """``1 / sqrt(mean(x**2) + eps)``, [ROWS, 1], from the :func:`square_groups` of a row's tiles."""
    eps = tl.full((), EPS, tl.float32)  # Triton would take a bare subnormal number for fp64
    variance = tl.fma(sum_exactly(groups), INV_SIZE, eps)
    return tl.div_rn(1.0, tl.sqrt_rn(variance))[:, None]


@triton.jit
def weight_factor(weight, OFFSET: tl.constexpr):
    """``weight + offset`` in fp32, the weight itself for an offset of 0."""
    factor = weight.to(tl.float32)
    if OFFSET != 0:
        factor += tl.full((), OFFSET, tl.float32)  # Triton would take a bare subnormal number for fp64
    return factor


@triton.jit
def rotate(x, y, cos, sin):
    """The points (x, y) turned: ``(x cos - y sin, y cos + x sin)``, the second product of each sum rounded."""
    return tl.fma(x, cos, -(y * sin)), tl.fma(y, cos, x * sin)


@triton.jit
def rmsnorm_backward(
    x, rstd, factor, grad, total, first_row, num_rows, ROWS: tl.constexpr, COLS: tl.constexpr, MASKED: tl.constexpr
):
    """Of one tile of rows, fp32: ``n = x * rstd``, ``h = grad * factor``, their product groups, and
    ``total + grad * n`` in the rows that exist.
    """
    n = x * rstd
    h = grad * factor
    more = tl.fma(grad, n, total)
    if MASKED:
        more = tl.where(first_row + tl.arange(0, ROWS)[:, None] < num_rows, more, total)
    return n, h, product_groups(h, n, ROWS, COLS), more
