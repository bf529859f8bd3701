"""Comparison of results as bytes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from m3ops.cases.case import canonical_bytes


def assert_same_bytes(actual: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> None:
    """Every byte equal (NaNs of wider floats: both NaN); reports how many differ and the first of them."""
    assert len(actual) == len(expected)
    for number, (got, want) in enumerate(zip(actual, expected, strict=True)):
        assert (got.shape, got.dtype) == (want.shape, want.dtype), f"result {number}"
        got_bits, want_bits = canonical_bytes(got), canonical_bytes(want)
        wrong = np.argwhere(got_bits != want_bits)
        if len(wrong):
            at = tuple(wrong[0])
            raise AssertionError(
                f"result {number}: {len(wrong)} of {want.size} elements differ, first at {tuple(map(int, at))}: "
                f"got {got_bits[at]:#x} ({got[at]}), want {want_bits[at]:#x} ({want[at]})"
            )
