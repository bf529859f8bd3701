"""What the tests of the specification's arithmetic share: comparisons of bytes, bounds, and inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

FP8 = {"float8_e4m3fn": 448.0, "float8_e4m3fnuz": 240.0}
"""The two E4M3 formats and their largest numbers."""

U = 2.0**-24
"""Unit roundoff of fp32: the largest relative error of one rounding."""


def f32(*numbers: float) -> Array:
    return np.array(numbers, np.float32)


def report(problems: Sequence[str]) -> None:
    """Fails with every mismatch counted and the first ones spelled out."""
    assert not problems, f"{len(problems)} mismatches:\n" + "\n".join(problems[:20])


def same(got: Array, want: Array, *inputs: Array) -> None:
    """Fails where two arrays of codes differ, naming the inputs there."""
    assert (got.shape, got.dtype) == (want.shape, want.dtype)
    got, want, inputs = got.ravel(), want.ravel(), tuple(x.ravel() for x in inputs)
    bad = np.flatnonzero(got != want)
    report([f"[{i}] got {got[i]:#x}, want {want[i]:#x}, from {[x[i] for x in inputs]}" for i in bad])


def raw(x: Array) -> Array:
    """The bytes of an array as unsigned integers."""
    return x.view(f"uint{8 * x.dtype.itemsize}")


NAN_CODE = {
    "float32": 0x7FC00000,
    "bfloat16": 0x7FC0,
    "float16": 0x7E00,
    "float8_e4m3fn": 0x7F,
    "float8_e4m3fnuz": 0x80,
}


def canonical(x: Array) -> Array:
    """The codes of ``x`` with every NaN made the one that m3ops writes: no rule covers its sign and payload."""
    return np.where(np.isnan(x), raw(x).dtype.type(NAN_CODE[x.dtype.name]), raw(x))


SMALLEST_WORST = 0.35
"""A bound means something if some input comes this close to it."""


def gate_bound(gate: Array, alpha: float) -> Array:
    """Relative error of the gate factor in units of U, with z = alpha * gate and s = sigmoid(z).

    An error in 2**(n + f) = exp(-z) reaches s times 1 - s. It has three parts: slope = -alpha * log2(e) rounded to fp32
    is off by d * U, which exp(-z) feels |z| times; f, at most 1/2, is rounded to 2**-26, which costs
    2**-26 * ln(2) < 0.2 U; the polynomial with its roundings is within 1.6e-7 < 2.7 U. Then 1 + exp(-z) is rounded (1);
    the reciprocal is rounded (1) after a step that squares the 0.0506**3 of the cubic one (0.3); so is the product (1).
    """
    slope = -alpha / np.log(2.0)
    d = abs(float(np.float32(slope)) / slope - 1) / U
    z = alpha * gate.astype(np.float64)
    with np.errstate(over="ignore"):
        return np.asarray((2.9 + d * np.abs(z)) / (1 + np.exp(z)) + 3.3)


def tail(gate: Array, alpha: float) -> Array:
    """Absolute error: half the smallest subnormal; past the clamp of the exponent at 125, the whole factor."""
    clamped = -gate.astype(np.float64) * alpha / np.log(2.0) > 124.99
    return np.where(clamped, 125 / alpha * 2.0**-125, 2.0**-150)


def norm_rows(rng: np.random.Generator, n: int, rows: int) -> Array:
    """Random rows, rows with one large element, and two where all groups but one are half a grid step, or one step."""
    plain, spiked, tied = rng.standard_normal((3, rows, n)).astype(np.float32)
    spiked[:, 0] *= 1000
    tied[:] = 0
    tied[:, 0] = 1  # beside it the grid's step is 2**-32
    tied[:, 8::8] = tied[:, 9::8] = 2.0**-17  # half a step, a tie: every group is lost, as the bound allows
    tied[1, 10::8] = tied[1, 11::8] = 2.0**-17  # one step: no group may be lost
    return np.concatenate([plain, spiked, tied[:2]])
