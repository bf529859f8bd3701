"""Dot products of matrix instructions: what one of them adds up, as far as it is known.

Every function here takes a[wave, m, k] and b[wave, n, k] as float64, in which every product is exact, the accumulator
c[wave, m, n] as float32, and returns float32. How hardware rounds within one instruction is not documented, so that
there are two ways to run a kernel: with sums that need no rounding, or with a model of the rounding.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from . import fp
from .errors import AmdgcnError

A = np.ndarray
f32, f64, i64 = np.float32, np.float64, np.int64
# A zero has no lowest bit: any power that is above all others.
_NO_BIT = 2.0**900


def exact(a: A, b: A, c: A) -> A:
    """The sum, where no order of additions could round it; raises for any other.

    All terms are multiples of the lowest bit among them. While neither the positive nor the negative terms add up to
    more than 2^24 of it, every partial sum is a float32, and nothing can depend on the order. The converse does not
    hold for some sums with gaps between their bits: those are refused all the same. Infinities and NaNs propagate in
    any order, so that only the finite terms beside them are looked at.
    """
    total = _sum(a, b, c)
    doubtful = ~_surely_exact(a, b, c)
    if doubtful.any():
        wave, m, n = np.nonzero(doubtful)
        terms = np.concatenate([a[wave, m] * b[wave, n], c[wave, m, n, None].astype(f64)], axis=1)
        inexact = ~_order_free(terms)
        if inexact.any():
            i = np.flatnonzero(inexact)[0]
            raise AmdgcnError(
                f"element ({m[i]}, {n[i]}) of wave {wave[i]}: a partial sum is not representable in float32"
            )
    return fp.quiet_nans(total.astype(f32))


def _sum(a: A, b: A, c: A) -> A:
    """The sum in float64. Only the sign of a zero needs care: IEEE adds zeros to +0 unless all are negative."""
    return a @ b.swapaxes(1, 2) + c


def _surely_exact(a: A, b: A, c: A) -> A:
    """A quick test that is often enough: the sum of magnitudes against the product of the lowest bits of a and b."""
    largest = np.abs(a) @ np.abs(b).swapaxes(1, 2) + np.abs(c)
    rows, columns = _lowest_bit(a).min(axis=2), _lowest_bit(b).min(axis=2)
    unit = np.minimum(rows[:, :, None] * columns[:, None, :], _lowest_bit(c.astype(f64)))
    return (largest > 0) & _fits(largest, unit)


def _order_free(terms: A) -> A:
    """Whether every sum of some of the terms [sum, term] is representable."""
    finite = np.where(np.isfinite(terms), terms, 0.0)
    unit = _lowest_bit(finite).min(axis=1)
    largest = np.maximum(np.maximum(finite, 0).sum(axis=1), np.maximum(-finite, 0).sum(axis=1))
    signs = np.signbit(terms)
    clear_zero = (largest > 0) | ~signs.all(axis=1)  # whether hardware keeps -0 of nothing but -0 is not known
    return clear_zero & ((largest == 0) | _fits(largest, unit))


def _fits(largest: A, unit: A) -> A:
    """Normal numbers alone: units may flush subnormal ones."""
    return (largest <= unit * 2.0**24) & (unit >= 2.0**-126) & (largest < 2.0**128)


def _lowest_bit(x: A) -> A:
    """The value of the lowest bit of each finite float64."""
    fraction, exponent = np.frexp(np.where(np.isfinite(x), x, 0.0))
    bits = np.ldexp(np.abs(fraction), 53).astype(i64)
    return np.where(bits == 0, _NO_BIT, np.ldexp((bits & -bits).astype(f64), exponent - 53))


def jittered(a: A, b: A, c: A, rng: np.random.Generator) -> A:
    """The sum with an error such as float32 additions in any order may leave: gamma_k times the sum of magnitudes.

    For hardware whose rounding is unknown. Sums that no order could round stay as they are.
    """
    total = _sum(a, b, c)
    magnitude = np.abs(a) @ np.abs(b).swapaxes(1, 2) + np.abs(c)
    error = rng.uniform(-1, 1, total.shape) * magnitude * (a.shape[2] * 2.0**-24)
    moved = np.where(_surely_exact(a, b, c) | ~np.isfinite(total), total, total + error)
    return fp.quiet_nans(moved.astype(f32))


# ---- CDNA3, by the rules of MMA-Sim (arXiv:2511.10909), which its authors found to give the hardware's bits


@dataclasses.dataclass(frozen=True)
class Cdna3:
    """Fused sums of `group` products and the accumulator, one group after the other.

    `smallest` is the exponent of the format's smallest normal number: subnormal inputs keep it. `interleaved`: even and
    odd products are summed apart, and an accumulator far below them is dropped.
    """

    group: int
    smallest: int
    interleaved: bool = False

    def __call__(self, a: A, b: A, c: A) -> A:
        (a, a_power), (b, b_power) = _split(a, self.smallest), _split(b, self.smallest)
        for first in range(0, a.shape[2], self.group):
            k = slice(first, first + self.group)
            products = a[:, :, None, k] * b[:, None, :, k]
            powers = a_power[:, :, None, k] + b_power[:, None, :, k]
            c = self._add_group(products, powers, c)
        return c

    def _add_group(self, products: A, powers: A, c: A) -> A:
        too_large = powers + (np.abs(products) >= 2) >= 128
        products = np.where(too_large, np.copysign(np.inf, products), products)
        if self.interleaved:
            halves = [_truncated_sum(products[..., i::2], powers[..., i::2]) for i in range(2)]
            power = np.maximum(halves[0][1], halves[1][1])
            dot = sum(_floor(part, part_power - power, 24) for part, part_power in halves)
        else:
            dot, power = _truncated_sum(products, powers)
        return self._add_accumulator(dot, power, c)

    def _add_accumulator(self, dot: A, power: A, c: A) -> A:
        c, c_power = _split(c.astype(f64), -126)
        top = np.maximum(power, c_power)
        addend = _floor(c, c_power - top, 24)
        if self.interleaved:
            addend = np.where(c_power < top - 25, 0.0, addend)
        total, total_power = _split(np.ldexp(_floor(dot, power - top, 32) + addend, top), -126)
        return fp.quiet_nans(np.ldexp(_floor(total, 0, 31), total_power).astype(f32))


def _split(x: A, smallest: int) -> tuple[A, A]:
    """Significands in [1, 2) and exponents; below the smallest exponent the significand shrinks instead."""
    _, exponent = np.frexp(x)
    exponent = np.where(x == 0, smallest, np.maximum(exponent - 1, smallest))
    return np.ldexp(x, -exponent), exponent


def _floor(x: A, shift: A | int, bits: int) -> A:
    """X * 2^shift, rounded down to `bits` fraction bits."""
    return np.ldexp(np.floor(np.ldexp(x, shift + bits)), -bits)


def _truncated_sum(products: A, powers: A) -> tuple[A, A]:
    """Products cut towards zero 24 bits below the largest exponent among them, then added."""
    powers = np.where(products == 0, -999, powers)
    top = powers.max(axis=-1)
    cut = np.trunc(np.ldexp(products, powers - top[..., None] + 24))
    return np.ldexp(cut.sum(axis=-1), -24), top
