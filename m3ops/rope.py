"""The table of cosines and sines for rotary embedding, the same bytes on every machine.

Each entry is the fp32 number nearest to the true one, so no library's ``cos`` or ``sin`` shows in it. Frameworks round
the frequencies and the angles to fp32 first: for a position of a million their angles are off by up to 0.03.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext

import numpy as np

from m3ops import validate

DIGITS = 60
"""Of numbers that are computed in decimal."""

TURN = Decimal("6.28318530717958647692528676655900576839433879875021164194988918461563281257241799725606965068")
"""2 * pi."""

FLOAT64_ERROR = 2.0**-45
"""Relative error that NumPy's sine and cosine of at most pi / 4, times a factor, stay far below, a few 2**-53."""


@dataclass(frozen=True, kw_only=True)
class Yarn:
    """YaRN: frequencies for more positions than a model was trained with, as vLLM and Transformers define it.

    A pair that turns more than ``beta_fast`` times in the positions of the training keeps its frequency, one that turns
    less than ``beta_slow`` times has it divided by ``factor``, and between these a ramp leads from one to the other.
    The names are those of ``rope_scaling`` in a model's configuration. Source: arXiv 2309.00071.

    Attributes:
        factor: How many times as many positions, at least 1.
        original_max_position_embeddings: Positions of the training.
        attention_factor: What cosines and sines are multiplied by. None is ``0.1 * ln(factor) + 1``, or what the two
            ``mscale`` say.
        beta_fast: Turns from which on a pair keeps its frequency.
        beta_slow: Turns up to which it is divided; more than 0 and at most ``beta_fast``.
        mscale: With ``mscale_all_dim``: the attention factor is ``0.1 * mscale * ln(factor) + 1`` over the same of
            ``mscale_all_dim``.
        mscale_all_dim: See ``mscale``.
        truncate: Whether the ramp is widened until it begins and ends at a pair.

    Raises:
        TypeError: A parameter has the wrong type.
        ValueError: A parameter is out of range, or two of them exclude each other.
    """

    factor: float
    original_max_position_embeddings: int
    attention_factor: float | None = None
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float | None = None
    mscale_all_dim: float | None = None
    truncate: bool = True

    def __post_init__(self) -> None:
        beta_slow = validate.number("beta_slow", self.beta_slow, above=0.0)
        checked = {
            "factor": validate.number("factor", self.factor, low=1.0),
            "original_max_position_embeddings": validate.count(
                "original_max_position_embeddings", self.original_max_position_embeddings
            ),
            "beta_fast": validate.number("beta_fast", self.beta_fast, low=beta_slow),
            "beta_slow": beta_slow,
        }
        scales = {name: getattr(self, name) for name in ("attention_factor", "mscale", "mscale_all_dim")}
        given = {name: value for name, value in scales.items() if value is not None}
        if tuple(given) not in ((), ("attention_factor",), ("mscale", "mscale_all_dim")):
            raise ValueError(
                "attention_factor, or mscale and mscale_all_dim, or none of them must be given, "
                f"got {', '.join(f'{name}={value}' for name, value in given.items())}"
            )
        for name, value in given.items():  # within limits: DIGITS hold what is half way between two fp32 numbers
            checked[name] = validate.number(name, value, low=2.0**-32, high=2.0**32)
        validate.flag("truncate", self.truncate)
        for name, value in checked.items():
            object.__setattr__(self, name, value)


def rope_cos_sin(max_position: int, rotary_dim: int, *, theta: float = 5e6, yarn: Yarn | None = None) -> np.ndarray:
    """Cosines and sines of ``position * theta ** (-2 * i / rotary_dim)`` for i below ``rotary_dim / 2``.

    Args:
        max_position: Number of positions, from 0 on.
        rotary_dim: Elements of a head that are turned, an even number.
        theta: Base of the frequencies; MiniMax-M3's is 5e6.
        yarn: How the frequencies are changed for more positions than the model was trained with, a :class:`Yarn`.

    Returns:
        fp32 ``[max_position, rotary_dim]``, the cosines, then the sines.

    Raises:
        TypeError: A parameter has the wrong type.
        ValueError: A parameter is out of range.
    """
    max_position = validate.count("max_position", max_position)
    half, odd = divmod(validate.count("rotary_dim", rotary_dim, low=2), 2)
    if odd or max_position > 2**31:
        raise ValueError(f"rotary_dim must be even and max_position at most 2**31, got {rotary_dim} and {max_position}")
    if not isinstance(yarn, Yarn | None):
        raise TypeError(f"yarn must be a Yarn or None, got {type(yarn).__name__}")
    theta = validate.number("theta", theta, above=1.0 if yarn else 0.0)  # YaRN divides by its logarithm
    table = np.empty((max_position, 2, half), np.float32)
    with localcontext(prec=DIGITS):
        frequencies = [Decimal(theta) ** (Decimal(-2 * i) / rotary_dim) for i in range(half)]
        if yarn:
            slowed = _slowed(yarn, rotary_dim, theta)
            frequencies = [frequency * times for frequency, times in zip(frequencies, slowed, strict=True)]
        factor = _attention_factor(yarn) if yarn else Decimal(1)
    for i, frequency in enumerate(frequencies):
        table[:, 0, i], table[:, 1, i] = _cos_sin(max_position, frequency, factor)
    return table.reshape(max_position, rotary_dim)


def _slowed(yarn: Yarn, rotary_dim: int, theta: float) -> list[Decimal]:
    """What YaRN multiplies the frequencies by.

    An end of the ramp is no integer before it is truncated: L / (2 pi turns) is no algebraic number, a power of theta
    is. So there is one integer below it and one above.
    """
    first, last = (_pair_of(Decimal(turns), yarn, rotary_dim, theta) for turns in (yarn.beta_fast, yarn.beta_slow))
    if yarn.truncate:
        first, last = first.to_integral_value(ROUND_FLOOR), last.to_integral_value(ROUND_CEILING)
    first, last = max(first, Decimal(0)), min(last, Decimal(rotary_dim - 1))
    if first > last:
        raise ValueError(
            "original_max_position_embeddings, beta_fast and beta_slow must leave YaRN a ramp among the pairs, "
            f"got {yarn.original_max_position_embeddings}, {yarn.beta_fast} and {yarn.beta_slow} with theta {theta}"
        )
    if first == last:
        last += Decimal("0.001")  # as upstream: a step
    ramp = (min(max((i - first) / (last - first), Decimal(0)), Decimal(1)) for i in range(rotary_dim // 2))
    return [1 - part + part / Decimal(yarn.factor) for part in ramp]


def _pair_of(turns: Decimal, yarn: Yarn, rotary_dim: int, theta: float) -> Decimal:
    """Which pair turns so many times in the positions of the training, as a fraction."""
    return rotary_dim * (yarn.original_max_position_embeddings / (turns * TURN)).ln() / (2 * Decimal(theta).ln())


def _attention_factor(yarn: Yarn) -> Decimal:
    if yarn.attention_factor is not None:
        return Decimal(yarn.attention_factor)
    grown = Decimal(yarn.factor).ln() / 10
    if yarn.mscale is None or yarn.mscale_all_dim is None:
        return grown + 1
    return (grown * Decimal(yarn.mscale) + 1) / (grown * Decimal(yarn.mscale_all_dim) + 1)


def _cos_sin(max_position: int, frequency: Decimal, factor: Decimal) -> tuple[np.ndarray, np.ndarray]:
    """The column of one frequency, times the attention factor.

    float64 tells the nearest fp32 number of nearly all entries, decimals that of the rest.
    """
    positions = np.arange(max_position, dtype=np.uint64)
    with localcontext(prec=DIGITS):
        turns = int(frequency / TURN % 1 * 2**96)
    high, low = np.uint64(turns >> 32), np.uint64(turns & 0xFFFFFFFF)
    # The fraction of a turn in units of 2**-96: of the product the integer part is what overflows.
    rest = positions * low
    angle = positions * high + (rest >> np.uint64(32))
    quadrant = (angle + np.uint64(2**61)) >> np.uint64(62)
    within = (angle - (quadrant << np.uint64(62))).view(np.int64)  # at most an eighth of a turn
    eighth = (within * 2.0**-64 + (rest & np.uint64(0xFFFFFFFF)) * 2.0**-96) * (2 * np.pi)
    cos, sin = np.cos(eighth), np.sin(eighth)
    swapped, first, second = quadrant % 2 == 1, (quadrant + 1) // 2 % 2 == 1, quadrant // 2 % 2 == 1
    cos, sin = np.where(swapped, sin, cos), np.where(swapped, cos, sin)
    found = []
    for number, negative, name in ((cos, first, "cos"), (sin, second, "sin")):
        number = np.where(negative, -number, number) * float(factor)
        # Of the function and the factor, and of the frequency.
        error = np.abs(number) * FLOAT64_ERROR + positions * (float(factor) * 2.0**-93)
        below, above = (number - error).astype(np.float32), (number + error).astype(np.float32)
        for at in np.flatnonzero(below != above):
            below[at] = _nearer(int(at), frequency, factor, name, (below[at], above[at]))
        found.append(below)
    return found[0], found[1]


def _nearer(
    position: int, frequency: Decimal, factor: Decimal, name: str, numbers: tuple[np.float32, np.float32]
) -> np.float32:
    """The nearer of two neighbours, and of two as near the even one.

    A factor that is given may be half way at position 0. Else one is nearer where the frequency is algebraic and the
    factor rational, 1 or given: sine and cosine of an algebraic number but 0 are never rational. With logarithms in the
    factor or the ramp nobody has proved that; there the decimals decide, the same on every machine.
    """
    with localcontext(prec=DIGITS):
        below, above = (Decimal(float(number)) for number in numbers)
        beyond = factor * _series(position * frequency % TURN, name) - (below + above) / 2
    return numbers[beyond > 0] if beyond else min(numbers, key=lambda number: number.view(np.int32) & 1)


def _series(x: Decimal, name: str) -> Decimal:
    """Cosine or sine by its series."""
    term = Decimal(1) if name == "cos" else x
    number = 0 if name == "cos" else 1
    total = Decimal(0)
    while abs(term) > Decimal(10) ** -DIGITS:
        total += term
        term *= -x * x / ((number + 1) * (number + 2))
        number += 2
    return total
