"""The functions that the ops compute, as an executable specification: the truth that kernels are compared with.

m3ops/numerics/README.md states the same rules in prose.
"""

from __future__ import annotations

import functools

import numpy as np

from m3ops.numerics import constants as c
from m3ops.numerics.exact.fp32 import (
    add_scalar,
    at_least,
    at_most,
    bits32,
    encode,
    fma,
    from_bits32,
    load,
    max_magnitude,
    of_each,
    power_of_two,
    round32,
)
from m3ops.numerics.exact.namespaces import COMPILERS, Array, barrier, except_where, fold
from m3ops.numerics.formats import BLOCK, SCALE_BIAS, SCALE_NAN, Format
from m3ops.numerics.row_sums import FAN_IN, FEWEST_ROWS, partials, partials_of_any
from m3ops.numerics.scale_layouts import arrange


def sigmoid(gate: Array, alpha: float) -> tuple[Array, Array, Array, Array]:
    """``sigmoid(alpha * gate)`` by explicit fp32 fma.

    ``sigmoid(z) = 1 / (1 + 2**(n + f))`` with ``n + f = -z * log2(e)``, n an integer and |f| <= 1/2; 2**f by a
    polynomial, 2**n by adding n to the exponent, the reciprocal by an integer seed, one cubic and one quadratic
    Newton step.

    Returns:
        ``(gate, y, exp2, sigmoid)``: the gate clamped from below by -bound and from both sides by bound (see
        :func:`constants.sigmoid_constants`), ``exp(-alpha * y)``, and the sigmoid. Of a NaN the last two are not
        defined.
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
    return round32(add_scalar(up, c.float32(beta)))


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
    gate, y, exp2, s = map(barrier, sigmoid(gate, alpha))
    slope = round32(s * fma(round32(y * round32(exp2 * s)), c.float32(alpha), 1.0))
    grad_gate = round32(grad * round32(slope * round32(add_scalar(up, c.float32(beta)))))
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


def quantize_blocks(x: Array, rule: str, fmt: Format, square: bool = False) -> tuple[Array, Array]:
    """MXFP8 of fp32 numbers: codes of the values and E8M0 bytes, both uint8. In square blocks rows share scales."""
    xp = x.__array_namespace__()
    blocks = barrier(x).reshape(*x.shape[:-1], x.shape[-1] // BLOCK, BLOCK)
    amax = max_magnitude(blocks)
    scale = scale_exponents(_max_of_rows(amax) if square else amax, rule, fmt)
    codes = encode(blocks * power_of_two(SCALE_BIAS - scale), fmt)
    codes = except_where(scale == SCALE_NAN, codes, lambda: fmt.nan_code)
    return codes.reshape(x.shape), scale[..., 0].astype(xp.uint8)


def _max_of_rows(amax: Array) -> Array:
    """``[..., M, K, 1]``, each the largest of those of 32 rows."""
    *batch, rows, blocks, _ = amax.shape
    of_rows = amax.reshape(*batch, rows // BLOCK, BLOCK, blocks)
    largest = max_magnitude(of_rows.mT).mT
    return amax.__array_namespace__().broadcast_to(largest, of_rows.shape).reshape(amax.shape)


def quantize(x: Array, rule: str, fmt: Format, layout: str, square: bool = False) -> tuple[Array, Array]:
    """MXFP8 of fp32 numbers, the values in their own dtype, the scales as they are stored."""
    codes, scales = quantize_blocks(x, rule, fmt, square)
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
    operands = [blocks_first(*operand) for operand in ((x, x_scales), (w, w_scales))]
    total: Array = 0.0
    for first in range(0, x_scales.shape[-1], c.CHUNK_BLOCKS):
        at = slice(first, first + c.CHUNK_BLOCKS)
        chunk = [part for values, scales in operands for part in (load(values[at]), scale_factors(scales[at]))]
        start = add_block(0.0, *(part[0] for part in chunk))
        total = round32(total + fold(add_block, start, *(part[1:] for part in chunk)))
    xp = x.__array_namespace__()
    return add_scalar(total, 0.0) if x_scales.shape[-1] else xp.zeros((x.shape[0], w.shape[0]), xp.float64)


def blocks_first(values: Array, scales: Array) -> tuple[Array, Array]:
    """Values ``[B, M, 32]`` and scales ``[B, M]`` of a matrix of B blocks a row."""
    xp = values.__array_namespace__()
    return xp.moveaxis(values.reshape(*scales.shape, BLOCK), -2, 0), xp.moveaxis(scales, -1, 0)


def add_block(total: Array, x: Array, x_scale: Array, w: Array, w_scale: Array) -> Array:
    """``total`` and the products of one block: its sums are exact in float64, and in fp32."""
    xp = x.__array_namespace__()
    x_high, w_high = xp.rint(x), xp.rint(w)
    x_low, w_low = x - x_high, w - w_high
    scale = barrier(round32(x_scale[:, None] * w_scale[None, :]))
    for products in (x_low @ w_low.T, x_high @ w_low.T + x_low @ w_high.T, x_high @ w_high.T):
        total = barrier(fma(barrier(products), scale, total))
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
    groups = barrier(groups)
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


def weight_factor(weight: Array, offset: float) -> Array:
    """``weight + offset``, what a norm is multiplied by. With an offset of 0 nothing is added: -0.0 stays that."""
    offset = c.float32(offset)
    return round32(weight + offset) if offset else weight


def rmsnorm(x: Array, weight: Array, eps: float, offset: float) -> Array:
    """RMSNorm in fp32: ``x / sqrt(mean(x**2) + eps) * (weight + offset)``."""
    return round32(round32(x * reciprocal_rms(x, eps)) * weight_factor(weight, offset))


def cos_and_sin(table: Array, positions: Array) -> tuple[Array, Array]:
    """The halves of the rows of a table; NaN for a position that it does not have."""
    xp = table.__array_namespace__()
    inside = (positions >= 0) & (positions < table.shape[0])
    rows = xp.where(inside[..., None], load(table[xp.where(inside, positions, 0)]), xp.nan)
    half = rows.shape[-1] // 2
    return rows[..., :half], rows[..., half:]


def rotate(x: Array, y: Array, cos: Array, sin: Array) -> tuple[Array, Array]:
    """The points (x, y) turned: ``(x cos - y sin, y cos + x sin)``, the second product of each sum rounded."""
    return fma(x, cos, -round32(y * sin)), fma(y, cos, round32(x * sin))


def rotate_halves(x: Array, cos: Array, sin: Array) -> Array:
    """:func:`rotate` of the first elements along the last axis and as many after them; those beyond stay."""
    half = cos.shape[-1]
    turned = rotate(x[..., :half], x[..., half : 2 * half], cos, sin)
    return x.__array_namespace__().concatenate((*turned, x[..., 2 * half :]), axis=-1)


def rmsnorm_backward(x: Array, weight: Array, grad: Array, eps: float, offset: float) -> tuple[Array, Array, Array]:
    """The gradient of x of :func:`rmsnorm` is ``rstd * inner``.

    Returns:
        ``(rstd, inner, normalized)``, fp32, with ``normalized = x * rstd``, ``h = grad * (weight + offset)`` and
        ``inner = h - normalized * mean(h * normalized)``.
    """
    rstd = reciprocal_rms(x, eps)
    normalized = barrier(round32(x * rstd))
    h = barrier(round32(grad * weight_factor(weight, offset)))
    mean = round32(sum_products(h, normalized) * c.float32(1.0 / x.shape[-1]))
    return rstd, fma(-normalized, mean, h), normalized


def sum_rows(x: Array, y: Array) -> Array:
    """Sums of ``x * y`` over rows, shape ``[..., R, N] -> [..., N]``, in fp32 and in one order.

    Row r belongs to the partial sum r % P, P being :func:`.row_sums.partials`; it is a chain of fma in the order of its
    rows, from +0. Then P partial sums become P / ``FAN_IN`` in the same way, from +0, again and again until that
    many are left at most; and those are added by halves, each to the one half as many further on.
    """
    num_rows, size = x.shape[-2:]
    if isinstance(num_rows, int):
        return _sum_rows(x, y, partials(num_rows, size))
    numbers = partials_of_any(size)
    functions = [functools.partial(_sum_rows, number=number) for number in numbers]
    bounds = [FEWEST_ROWS * number for number in numbers[1:]]
    return COMPILERS[x.__array_namespace__()].choose(num_rows, bounds, functions, x, y)


def _sum_rows(x: Array, y: Array, number: int) -> Array:
    """The same with so many partial sums."""
    xp = x.__array_namespace__()
    *leading, num_rows, _ = x.shape
    links = max(-(-num_rows // number), 1)
    pad = [(0, 0)] * len(leading) + [(0, links * number - num_rows), (0, 0)]
    x, y = (_dealt(xp.pad(a, pad), number) for a in (x, y))
    total = fold(lambda total, x, y: fma(x, y, total), xp.zeros_like(x[0]), x, y)
    while True:
        number = max(number // FAN_IN, 1)
        parts = _dealt(total, number)
        total = fold(lambda total, part: round32(total + part), add_scalar(parts[0], 0.0), parts[1:])
        if number <= FAN_IN:
            break
    while number > 1:
        number //= 2
        total = round32(total[..., :number, :] + total[..., number:, :])
    return total[..., 0, :]


def _dealt(rows: Array, number: int) -> Array:
    """The links of so many chains that rows are dealt to in turn: ``[..., R, N] -> [R / number, ..., number, N]``."""
    *leading, num_rows, size = rows.shape
    return rows.__array_namespace__().moveaxis(rows.reshape(*leading, num_rows // number, number, size), -3, 0)
