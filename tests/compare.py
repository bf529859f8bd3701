"""Comparison of results as bytes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from m3ops.testing.case import first_difference


def assert_same_bytes(actual: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> None:
    """Every byte equal (NaNs of wider floats: both NaN); reports how many differ and the first of them."""
    difference = first_difference(actual, expected)
    assert difference is None, difference
