"""The arithmetic of every op, as an executable specification over NumPy or jax.numpy arrays.

An fp32 number is held in a float64 array, and each fp32 operation is a float64 operation whose result is rounded to
fp32 by :func:`round32`, once, where the formula says so. That makes every rounding visible, leaves a compiler nothing
to contract (an fp32 product is exact in float64), and keeps subnormal numbers where the processor flushes fp32
subnormals to zero, as XLA's CPU code does. Rounding float64 to fp32 after +, -, *, / or sqrt equals the fp32
operation, because 53 bits are at least 2 * 24 + 2 (Figueroa, "When is double rounding innocuous?", 1995); fma needs
:func:`fma`.

m3ops/numerics/README.md states the same rules in prose. Under JAX, 64-bit types have to be enabled around the call.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

import ml_dtypes  # noqa: F401  (gives NumPy the names of the small dtypes)
import numpy as np

from m3ops.numerics import constants as c
from m3ops.numerics.formats import BLOCK, FLOAT32, FORMATS, SCALE_BIAS, SCALE_NAN, Format
from m3ops.numerics.scale_layouts import arrange

Array = Any  # numpy.ndarray or jax.Array; the namespace is the array's own


def except_where(
    condition: Array, usual: Array, exception: Callable[..., Array | float], *args: Array | float
) -> Array:
    """``where(condition, exception(*args), usual)`` for a condition that is rare; may overwrite ``usual``.

    NumPy computes the exception only for the elements that need it. A program that XLA compiles has no such choice.
    """
    if (xp := condition.__array_namespace__()) is not np:
        return xp.where(condition, exception(*args), usual)
    if condition.any():
        usual = np.asarray(usual)
        at = np.flatnonzero(np.broadcast_to(condition, usual.shape))
        usual.put(at, exception(*(np.broadcast_to(arg, usual.shape).take(at) for arg in args)))
    return usual


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
    is rounded to odd first.
    """
    product = a * b
    total = product + addend
    xp = total.__array_namespace__()
    halfway = ((total.view(xp.int64) & (2**29 - 1)) == 2**28) | (xp.abs(total) < 2.0**-126)
    return round32(except_where(halfway, total, sum_to_odd, product, addend))


def sum_to_odd(x: Array, y: Array) -> Array:
    """``x + y`` rounded to odd in float64: an inexact sum gets an odd last bit.

    Rounding that to fp32 equals rounding the exact sum (Boldo and Melquiond, "Emulation of FMA", 2008).
    """
    total = x + y
    xp = total.__array_namespace__()
    rest = total - x
    error = (x - (total - rest)) + (y - rest)  # TwoSum: x + y == total + error
    bits = total.view(xp.int64)
    make_odd = (error != 0) & ((bits & 1) == 0) & xp.isfinite(total)
    odd = bits + xp.where((error > 0) == (total > 0), 1, -1)
    return xp.where(make_odd, odd, bits).view(xp.float64)


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


def plus(x: Array, number: float) -> Array:
    """``x + number``, a sum of zero being +0.0. (XLA would drop ``+ 0.0``, which turns -0.0 into +0.0.)"""
    total = x + number
    return except_where(total == 0, total, lambda: 0.0)


def max_magnitude(x: Array) -> Array:
    """``max(abs(x))`` along the last axis, which is kept; NaN if there is one: as bits, NaN is the largest of all."""
    xp = x.__array_namespace__()
    return xp.max(xp.abs(x).view(xp.int64), axis=-1, keepdims=True).view(xp.float64)


BARRIERS: dict[ModuleType, Callable[[Array], Array]] = {}
"""For an array namespace whose compiler fuses operations, what keeps an intermediate result out of that."""


def settled(x: Array) -> Array:
    """``x``, computed once. XLA would fuse an activation into each use: 7 s of compiling instead of 0.2 s."""
    return BARRIERS.get(x.__array_namespace__(), lambda array: array)(x)


LOOPS: dict[ModuleType, Callable[..., Array]] = {}
"""For an array namespace whose programs are compiled, :func:`fold` as a loop of the program."""


def fold(step: Callable[..., Array], total: Array, *terms: Array) -> Array:
    """``step(total, *term)`` for each term along the first axes, in their order."""
    if loop := LOOPS.get(total.__array_namespace__()):
        return loop(step, total, *terms)
    for term in zip(*terms, strict=True):
        total = step(total, *term)
    return total


CHOICES: dict[ModuleType, Callable[..., Array]] = {}
"""For an array namespace whose sizes may be symbols (jax.export), ``functions[b](*arrays)`` of the arguments ``(size,
bounds, functions, *arrays)``, b being how many of the bounds the size reaches."""


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


@functools.cache
def _every(dtype: np.dtype) -> np.ndarray:
    return np.asarray(load(np.arange(2**8, dtype=np.uint8).view(dtype)))


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


def sigmoid(gate: Array, alpha: float) -> tuple[Array, Array, Array, Array]:
    """``sigmoid(alpha * gate)`` by explicit fp32 fma.

    ``sigmoid(z) = 1 / (1 + 2**(n + f))`` with ``n + f = -z * log2(e)``, n an integer and |f| <= 1/2; 2**f by a
    polynomial, 2**n by adding n to the exponent, the reciprocal by an integer seed, one cubic and one quadratic
    Newton step.

    Returns:
        ``(gate, y, exp2, sigmoid)``: the gate clamped from below by -bound and from both sides by bound (see
        :func:`constants.sigmoid_constants`), ``exp(-alpha * y)``, and the sigmoid.
    """
    slope, bound = c.sigmoid_constants(alpha)
    gate = at_least(gate, -bound)
    y = at_most(gate, bound)
    shifted = fma(y, slope, c.ROUND_TO_INTEGER)
    f = fma(y, slope, c.ROUND_TO_INTEGER - shifted)
    p = fma(f, c.EXP2_POLYNOMIAL[5], c.EXP2_POLYNOMIAL[4])
    for coefficient in c.EXP2_POLYNOMIAL[3::-1]:
        p = fma(f, p, coefficient)
    exp2 = from_bits32(bits32(p) + (bits32(shifted) << 23))
    d = round32(exp2 + 1.0)
    r = from_bits32(c.RECIPROCAL_SEED - bits32(d))
    h = fma(-d, r, 1.0)
    r = fma(r, fma(h, h, h), r)
    return gate, y, exp2, fma(r, fma(-d, r, 1.0), r)


def swish(gate: Array, alpha: float) -> Array:
    """``gate * sigmoid(alpha * gate)``: the gate factor of SwiGLU-OAI."""
    gate, _, _, r = sigmoid(gate, alpha)
    return round32(gate * r)


def gate_factor(gate: Array, alpha: float, limit: float | None) -> Array:
    """:func:`swish` of a clamped gate."""
    return swish(gate if limit is None else at_most(gate, c.float32(limit)), alpha)


def up_factor(up: Array, beta: float, limit: float | None) -> Array:
    """``up + beta`` of a clamped up."""
    if limit is not None:
        bound = c.float32(limit)
        up = at_most(at_least(up, -bound), bound)
    return round32(plus(up, c.float32(beta)))


def swiglu_oai(gate: Array, up: Array, alpha: float, beta: float, limit: float | None) -> Array:
    """The fp32 activation ``(gate * sigmoid(alpha * gate)) * (up + beta)`` of clamped inputs. NaN propagates.

    Gates and ups are given in their own dtype.
    """
    return round32(of_each(gate_factor, gate, alpha, limit) * of_each(up_factor, up, beta, limit))


def swiglu_oai_backward(
    gate: Array, up: Array, grad: Array, alpha: float, beta: float, limit: float | None
) -> tuple[Array, Array]:
    """The fp32 gradients of gate and up of :func:`swiglu_oai`, 0 where a clamp cut something off.

    With s = sigmoid(alpha * gate) the slope of the gate factor is ``s * (1 + alpha * gate * (1 - s))``, where ``1 - s``
    is ``exp(-alpha * gate) * s``, which does not cancel.
    """
    xp = gate.__array_namespace__()
    cut_gate, cut_up = xp.asarray(False), xp.asarray(False)
    if limit is not None:
        bound = c.float32(limit)
        cut_gate, cut_up = gate > bound, xp.abs(up) > bound
        gate = at_most(gate, bound)
        up = at_most(at_least(up, -bound), bound)
    gate, y, exp2, s = map(settled, sigmoid(gate, alpha))
    slope = round32(s * fma(round32(y * round32(exp2 * s)), c.float32(alpha), 1.0))
    grad_gate = round32(grad * round32(slope * round32(plus(up, c.float32(beta)))))
    grad_up = round32(grad * round32(gate * s))
    return xp.where(cut_gate, 0.0, grad_gate), xp.where(cut_up, 0.0, grad_up)


def scale_exponents(amax: Array, rule: str, fmt: Format) -> Array:
    """E8M0 bytes (as int32) of blocks with these largest magnitudes, from the bits of amax.

    ``"rceil"``: the smallest power of two s with ``amax / s <= fmt.max``. ``"floor"``: ``2**(floor(log2(amax)) -
    emax)`` (OCP MX v1.0, section 6.3), under which the largest values may saturate. Both stop at byte 0, 2**-127.
    """
    xp = amax.__array_namespace__()
    # fmt.max is 1.75 * 2**8 or 1.875 * 2**7: a mantissa above .75 (.875) carries into the exponent.
    carry = (1 << 23) - 1 - ((fmt.max_code << (23 - fmt.mantissa_bits)) & 0x7FFFFF) if rule == "rceil" else 0
    exponent = ((bits32(amax) + carry) >> 23) - fmt.max_exponent
    return xp.where(amax <= c.FLOAT32_MAX, xp.maximum(exponent, 0), SCALE_NAN)


def quantize_blocks(x: Array, rule: str, fmt: Format) -> tuple[Array, Array]:
    """MXFP8 of fp32 numbers: codes of the values and E8M0 bytes, both uint8."""
    xp = x.__array_namespace__()
    blocks = settled(x).reshape(*x.shape[:-1], x.shape[-1] // BLOCK, BLOCK)
    scale = scale_exponents(max_magnitude(blocks), rule, fmt)
    codes = encode(blocks * power_of_two(SCALE_BIAS - scale), fmt)
    codes = except_where(scale == SCALE_NAN, codes, lambda: fmt.nan_code)
    return codes.reshape(x.shape), scale[..., 0].astype(xp.uint8)


def quantize(x: Array, rule: str, fmt: Format, layout: str) -> tuple[Array, Array]:
    """MXFP8 of fp32 numbers, the values in their own dtype, the scales as they are stored."""
    codes, scales = quantize_blocks(x, rule, fmt)
    return codes.view(np.dtype(fmt.name)), arrange(scales, layout)


def dequantize_blocks(values: Array, scales: Array) -> Array:
    """``values * 2**(scales - 127)`` rounded to fp32; blocks with scale byte 255 are NaN."""
    blocks = load(values).reshape(*scales.shape, BLOCK)
    return round32(blocks * scale_factors(scales)[..., None]).reshape(values.shape)


def scale_factors(scales: Array) -> Array:
    """``2**(scales - 127)`` of E8M0 bytes; NaN for 255."""
    xp = scales.__array_namespace__()
    return xp.where(scales == SCALE_NAN, xp.nan, power_of_two(scales.astype(xp.int64) - SCALE_BIAS))


def matmul(x: Array, x_scales: Array, w: Array, w_scales: Array) -> Array:
    """``x @ w.T`` of MXFP8 matrices ``[M, K]`` and ``[N, K]`` in fp32, with sums that no order of addition can change.

    Each number is the sum of two digits, an integer and a rest of at most 1/2. Over a block of 32 the products of high
    and high digits, of high and low, and of low and low each have a sum that fits into 24 bits. Those three, smallest
    first, are scaled and added to the sum of a chunk of ``c.CHUNK_BLOCKS`` blocks by fma, and the chunks are added.
    """
    operands = [_blocks_first(*operand) for operand in ((x, x_scales), (w, w_scales))]
    total: Array = 0.0
    for first in range(0, x_scales.shape[-1], c.CHUNK_BLOCKS):
        at = slice(first, first + c.CHUNK_BLOCKS)
        chunk = [part for values, scales in operands for part in (load(values[at]), scale_factors(scales[at]))]
        start = _plus_block(0.0, *(part[0] for part in chunk))
        total = round32(total + fold(_plus_block, start, *(part[1:] for part in chunk)))
    xp = x.__array_namespace__()
    return plus(total, 0.0) if x_scales.shape[-1] else xp.zeros((x.shape[0], w.shape[0]), xp.float64)


def _blocks_first(values: Array, scales: Array) -> tuple[Array, Array]:
    """Values ``[B, M, 32]`` and scales ``[B, M]`` of a matrix of B blocks a row."""
    xp = values.__array_namespace__()
    return xp.moveaxis(values.reshape(*scales.shape, BLOCK), -2, 0), xp.moveaxis(scales, -1, 0)


def _plus_block(total: Array, x: Array, x_scale: Array, w: Array, w_scale: Array) -> Array:
    """``total`` and the products of one block: its sums are exact in float64, and in fp32."""
    xp = x.__array_namespace__()
    x_high, w_high = xp.rint(x), xp.rint(w)
    x_low, w_low = x - x_high, w - w_high
    scale = settled(round32(x_scale[:, None] * w_scale[None, :]))
    for products in (x_low @ w_low.T, x_high @ w_low.T + x_low @ w_high.T, x_high @ w_high.T):
        total = settled(fma(settled(products), scale, total))
    return total


def sum_squares(x: Array) -> Array:
    """Row sums of squares in fp32 that no order of addition can change; shape ``[..., N] -> [..., 1]``.

    Neighbouring squares are added in groups of 8 as a fixed tree. The group sums are scaled by a power of two to
    below 1, split onto the grids 2**-16 and 2**-33, and added as integers. A group of 2**126 or more is an overflow.
    """
    xp = x.__array_namespace__()
    groups = _product_groups(x, x)
    total, largest, fits = _sum_exactly(groups)
    return xp.where(fits, total, xp.where(xp.isnan(largest), xp.nan, xp.inf))


def sum_products(x: Array, y: Array) -> Array:
    """The same for products, which may be negative; NaN where a group of products reaches 2**126 or is NaN."""
    xp = x.__array_namespace__()
    total, _, fits = _sum_exactly(_product_groups(x, y))
    return xp.where(fits, total, xp.nan)


def _product_groups(x: Array, y: Array) -> Array:
    xp = x.__array_namespace__()
    if missing := -x.shape[-1] % c.SUM_GROUP:
        x, y = (xp.pad(a, [(0, 0)] * (x.ndim - 1) + [(0, missing)]) for a in (x, y))
    shape = (*x.shape[:-1], x.shape[-1] // c.SUM_GROUP, c.SUM_GROUP // 2, 2)
    x, y = x.reshape(shape), y.reshape(shape)
    total = fma(x[..., 1], y[..., 1], round32(x[..., 0] * y[..., 0]))
    while total.shape[-1] > 1:
        total = round32(total[..., 0::2] + total[..., 1::2])
    return total[..., 0]


def _sum_exactly(groups: Array) -> tuple[Array, Array, Array]:
    """Sum along the last axis, the largest magnitude, and whether that is below 2**126."""
    xp = groups.__array_namespace__()
    groups = settled(groups)
    largest = max_magnitude(groups)
    exponent = bits32(largest) >> 23
    scaled = groups * power_of_two(xp.clip(253 - exponent, 1, 253) - 127)  # exact, and below 1
    coarse = xp.rint(scaled / c.SUM_COARSE_GRID)
    fine = xp.rint((scaled - coarse * c.SUM_COARSE_GRID) / c.SUM_FINE_GRID)
    coarse, fine = (  # integers: exact in any order, and zero has no sign
        xp.sum(grid.astype(xp.int64), axis=-1, keepdims=True).astype(xp.float64) for grid in (coarse, fine)
    )
    total = fma(round32(fine), c.SUM_FINE_GRID, round32(coarse) * c.SUM_COARSE_GRID)
    return round32(total * power_of_two(exponent - 126)), largest, exponent < 253


def reciprocal_rms(x: Array, eps: float) -> Array:
    """``1 / sqrt(mean(x**2) + eps)`` along the last axis, which is kept."""
    variance = fma(sum_squares(x), c.float32(1.0 / x.shape[-1]), c.float32(eps))
    return round32(1.0 / round32(x.__array_namespace__().sqrt(variance)))


def rmsnorm(x: Array, weight: Array, eps: float) -> Array:
    """Gemma's RMSNorm in fp32: ``x / sqrt(mean(x**2) + eps) * (1 + weight)``."""
    return round32(round32(x * reciprocal_rms(x, eps)) * round32(weight + 1.0))


def rmsnorm_backward(x: Array, weight: Array, grad: Array, eps: float) -> tuple[Array, Array, Array]:
    """The gradient of x of :func:`rmsnorm` is ``rstd * inner``.

    Returns:
        ``(rstd, inner, normalized)``, fp32, with ``normalized = x * rstd``, ``h = grad * (1 + weight)`` and
        ``inner = h - normalized * mean(h * normalized)``.
    """
    rstd = reciprocal_rms(x, eps)
    normalized = settled(round32(x * rstd))
    h = settled(round32(grad * round32(weight + 1.0)))
    mean = round32(sum_products(h, normalized) * c.float32(1.0 / x.shape[-1]))
    return rstd, fma(-normalized, mean, h), normalized


def sum_rows(x: Array, y: Array) -> Array:
    """Sums of ``x * y`` over rows, shape ``[..., R, N] -> [..., N]``, in fp32 and in one order.

    Row r belongs to the partial sum r % P, P being :func:`constants.partials`; it is a chain of fma in the order of its
    rows, from +0. Then P partial sums become P / ``c.FAN_IN`` in the same way, from +0, again and again until that
    many are left at most; and those are added by halves, each to the one half as many further on.
    """
    num_rows, size = x.shape[-2:]
    if isinstance(num_rows, int):
        return _sum_rows(x, y, c.partials(num_rows, size))
    numbers = c.partials_of_any(size)
    functions = [functools.partial(_sum_rows, number=number) for number in numbers]
    bounds = [c.FEWEST_ROWS * number for number in numbers[1:]]
    return CHOICES[x.__array_namespace__()](num_rows, bounds, functions, x, y)


def _sum_rows(x: Array, y: Array, number: int) -> Array:
    """The same with so many partial sums."""
    xp = x.__array_namespace__()
    *leading, num_rows, _ = x.shape
    links = max(-(-num_rows // number), 1)
    pad = [(0, 0)] * len(leading) + [(0, links * number - num_rows), (0, 0)]
    x, y = (_dealt(xp.pad(a, pad), number) for a in (x, y))
    total = fold(lambda total, x, y: fma(x, y, total), xp.zeros_like(x[0]), x, y)
    while True:
        number = max(number // c.FAN_IN, 1)
        parts = _dealt(total, number)
        total = fold(lambda total, part: round32(total + part), plus(parts[0], 0.0), parts[1:])
        if number <= c.FAN_IN:
            break
    while number > 1:
        number //= 2
        total = round32(total[..., :number, :] + total[..., number:, :])
    return total[..., 0, :]


def _dealt(rows: Array, number: int) -> Array:
    """The links of so many chains that rows are dealt to in turn: ``[..., R, N] -> [R / number, ..., number, N]``."""
    *leading, num_rows, size = rows.shape
    return rows.__array_namespace__().moveaxis(rows.reshape(*leading, num_rows // number, number, size), -3, 0)


def round_to(x: Array, dtype: str) -> Array:
    """``x`` rounded to a dtype and read back."""
    return x if dtype == FLOAT32.name else load(store(x, dtype))
