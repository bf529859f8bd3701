"""Whether results are right, on rows spread over the whole array: ours to the byte, rivals roughly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from m3ops.ops import OPS
from m3ops.workloads import Workload

Arrays = Sequence[np.ndarray]

ELEMENTS = 2**18
"""Elements of the rows that the specification computes: a fraction of a second in NumPy."""

TOLERANCE = 0.01
"""Relative error, in the norm, that a rival may have: bfloat16 alone gives 0.002, one wrong operation far more."""


class CheckFailed(Exception):
    """A result differs from what it has to be."""


def sample_rows(workload: Workload) -> np.ndarray:
    """Row numbers from the first to the last."""
    count = min(max(ELEMENTS // workload.inputs[0].shape[-1], 4), 64, workload.num_rows)
    return np.unique(np.linspace(0, workload.num_rows - 1, count).round().astype(np.int64))


def expected(workload: Workload, inputs: Arrays) -> Arrays:
    """The specification's results for these rows."""
    return OPS[workload.op].reference(*inputs, **workload.params)


def same_bytes(got: Arrays, want: Arrays) -> None:
    """Raises CheckFailed unless every byte is equal."""
    for name, (result, reference) in _named(got, want):
        wrong = int(np.count_nonzero(_bits(result) != _bits(reference)))
        if wrong:
            raise CheckFailed(f"{wrong} of {reference.size} checked elements of {name} differ from the specification")


def close(got: Arrays, want: Arrays) -> None:
    """Raises CheckFailed if a result is off by more than TOLERANCE."""
    for name, (result, reference) in _named(got, want):
        exact = reference.astype(np.float64)
        error = float(np.linalg.norm(result.astype(np.float64) - exact) / np.linalg.norm(exact))
        if not error <= TOLERANCE:
            raise CheckFailed(f"{name} is off by {error:.2g} of its norm")


def _named(got: Arrays, want: Arrays) -> list[tuple[str, tuple[np.ndarray, np.ndarray]]]:
    shapes = [(a.shape, a.dtype.name) for a in got], [(a.shape, a.dtype.name) for a in want]
    if shapes[0] != shapes[1]:
        raise CheckFailed(f"results have shapes {shapes[0]} instead of {shapes[1]}")
    return [(f"result {number}", pair) for number, pair in enumerate(zip(got, want, strict=True))]


def _bits(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).view(f"u{array.itemsize}")
