"""The table of cosines and sines for rotary embedding, the same bytes on every machine.

Each entry is the fp32 number nearest to the true one, so no library's ``cos`` or ``sin`` shows in it. Frameworks round
the frequencies and the angles to fp32 first: for a position of a million their angles are off by up to 0.03.
"""

from __future__ import annotations

from decimal import Decimal, localcontext

import numpy as np

from m3ops import validate

DIGITS = 60
"""Of numbers that are computed in decimal."""

TURN = Decimal("6.28318530717958647692528676655900576839433879875021164194988918461563281257241799725606965068")
"""2 * pi."""

FLOAT64_ERROR = 2.0**-45
"""Relative error that NumPy's sine and cosine of at most pi / 4 stay far below, a few 2**-53."""


def rope_cos_sin(max_position: int, rotary_dim: int, *, theta: float = 5e6) -> np.ndarray:
    """Cosines and sines of ``position * theta ** (-2 * i / rotary_dim)`` for i below ``rotary_dim / 2``.

    Args:
        max_position: Number of positions, from 0 on.
        rotary_dim: Elements of a head that are turned, an even number.
        theta: Base of the frequencies; MiniMax-M3's is 5e6.

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
    theta = validate.number("theta", theta, above=0.0)
    table = np.empty((max_position, 2, half), np.float32)
    for i in range(half):
        with localcontext(prec=DIGITS):
            frequency = Decimal(theta) ** (Decimal(-2 * i) / rotary_dim)
        table[:, 0, i], table[:, 1, i] = _cos_sin(max_position, frequency)
    return table.reshape(max_position, rotary_dim)


def _cos_sin(max_position: int, frequency: Decimal) -> tuple[np.ndarray, np.ndarray]:
    """The column of one frequency: float64 tells the nearest fp32 number of nearly all, decimals that of the rest."""
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
        number = np.where(negative, -number, number)
        error = np.abs(number) * FLOAT64_ERROR + positions * 2.0**-93  # of the function, and of the frequency
        below, above = (number - error).astype(np.float32), (number + error).astype(np.float32)
        for at in np.flatnonzero(below != above):
            below[at] = _nearer(int(at), frequency, name, (below[at], above[at]))
        found.append(below)
    return found[0], found[1]


def _nearer(position: int, frequency: Decimal, name: str, numbers: tuple[np.float32, np.float32]) -> np.float32:
    """The nearer of two neighbours. One is: sine and cosine of an algebraic number but 0 are never rational."""
    with localcontext(prec=DIGITS):
        below, above = (Decimal(float(number)) for number in numbers)
        return numbers[_series(position * frequency % TURN, name) > (below + above) / 2]


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
