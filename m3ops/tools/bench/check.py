"""Whether results are right, on rows spread over the whole array: ours to the byte, rivals roughly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from m3ops import row_count
from m3ops.numerics.formats import BLOCK, SCALE_BIAS
from m3ops.op import bind
from m3ops.testing.workload import Workload

Arrays = Sequence[np.ndarray]

ELEMENTS = 2**18
"""Elements of the rows that the specification computes: a fraction of a second in NumPy."""

MOST_COUNTED = 256
"""Rows that count of which each is checked."""

TOLERANCE = 0.05
"""Relative error, in the norm, that a rival may have. One that rounds to bfloat16 before it quantizes moves a value in
thirty to the neighbouring E4M3 number, a tenth away: 0.02. A wrong operation gives far more."""


class CheckFailed(Exception):
    """A result differs from what it has to be."""


def sample_rows(workload: Workload) -> np.ndarray:
    """Row numbers from the first to the last; where few rows of a buffer count, with all that do. All rows where no
    result follows from some of them.
    """
    if _needs_all_rows(workload):
        return np.arange(workload.num_rows)
    count = min(max(ELEMENTS // workload.inputs[0].shape[-1], 4), 64, workload.num_rows)
    if (block := _rows_of_a_block(workload)) > 1:  # whole blocks
        first = np.linspace(0, workload.num_rows // block - 1, max(count // block, 2)).round().astype(np.int64)
        return (np.unique(first)[:, None] * block + np.arange(block)).ravel()
    spread = np.linspace(0, workload.num_rows - 1, count).round().astype(np.int64)
    return np.union1d(np.flatnonzero(_counts(workload, np.arange(workload.num_rows)))[:MOST_COUNTED], spread)


def _needs_all_rows(workload: Workload) -> bool:
    return workload.axes.gathers_rows and workload.some_rows is None and not workload.call.counts_rows


def _rows_of_a_block(workload: Workload) -> int:
    """How many rows share blocks, in a matrix that is quantized along its columns."""
    x = workload.axes.inputs[0]
    return x.axes[0].multiple if x.rows and len(x.axes) > 1 else 1


def picked(workload: Workload, pick: Callable[..., Arrays], results: Sequence[Any], rows: np.ndarray) -> Arrays:
    """What these rows of the operands tell of each result: rows, or columns of a transposed one.

    Args:
        workload: The call.
        pick: Gives rows of arrays of the side that has the results.
        results: The results.
        rows: Whole blocks, where there are such.
    """
    if _rows_of_a_block(workload) == 1:
        return pick(results, rows)
    (m, _), told = workload.axes.inputs[0].axes, []
    for result, own in zip(results, workload.axes.results, strict=True):
        transposed = own.axes[1].name == m.name
        of_rows = result.T if transposed else result
        (part,) = pick([of_rows], np.unique(rows * of_rows.shape[0] // workload.num_rows))
        told.append(part.T if transposed else part)
    return told


def _counts(workload: Workload, rows: np.ndarray) -> np.ndarray:
    """Which of these rows count, of those of calls in which some do not."""
    counts: np.ndarray = rows % (workload.num_rows // workload.experts) < (workload.live or 0)
    return counts


def expected(workload: Workload, inputs: Arrays) -> Arrays:
    """The specification's results for these rows."""
    given = bind(workload.call, inputs)
    if workload.live is not None:
        given[row_count.NAME] = _counts(workload, sample_rows(workload)).astype(np.int32)
    return tuple(workload.call.reference(given).values())


def error_bound(workload: Workload, inputs: Arrays) -> np.ndarray | None:
    """By how much our results may differ from the specification's; None where each byte has to be the same."""
    if workload.given.get("arithmetic") != "fast":
        return None
    bound: np.ndarray = workload.call.error_bound(*inputs)  # type: ignore[attr-defined]
    return bound


def within(got: Arrays, want: Arrays, bound: np.ndarray) -> None:
    """Raises CheckFailed if an element of the result is off by more than its bound."""
    for name, (result, reference) in _named(got, want):
        wrong = ~(np.abs(result.astype(np.float64) - reference.astype(np.float64)) <= bound)
        if wrong.any():
            raise CheckFailed(f"{np.count_nonzero(wrong)} of {wrong.size} checked elements of {name} are too far off")


def of_rows(workload: Workload, results: Arrays) -> Arrays:
    """The results that some of the rows tell.

    No sum over all of them, nor what lacks them but needs all: that is only compared between front ends.
    """
    if _needs_all_rows(workload):
        return results
    axes = workload.axes
    told = [not own.summed and (own.rows or not axes.gathers_rows) for own in axes.results]
    return [result for result, own in zip(results, told, strict=True) if own]


def same_bytes(got: Arrays, want: Arrays) -> None:
    """Raises CheckFailed unless every byte is equal."""
    for name, (result, reference) in _named(got, want):
        wrong = int(np.count_nonzero(_bits(result) != _bits(reference)))
        if wrong:
            raise CheckFailed(f"{wrong} of {reference.size} checked elements of {name} differ from the specification")


def close(got: Arrays, want: Arrays) -> None:
    """Raises CheckFailed if a result is off by more than TOLERANCE."""
    _named(got, want)
    for number, (result, exact) in enumerate(zip(_numbers(got), _numbers(want), strict=True)):
        error = float(np.linalg.norm(result - exact) / np.linalg.norm(exact))
        if not error <= TOLERANCE:
            raise CheckFailed(f"result {number} is off by {error:.2g} of its norm")


def _numbers(results: Arrays) -> Arrays:
    """Results as float64, quantized ones dequantized: a scale may be one off where the values make up for it."""
    if len(results) > 1 and results[1].dtype == np.uint8:
        values, scales, *others = results
        exponents = np.repeat(scales.astype(np.int64) - SCALE_BIAS, BLOCK, axis=-1)
        return [np.ldexp(values.astype(np.float64), exponents), *_numbers(others)]
    return [result.astype(np.float64) for result in results]


def _named(got: Arrays, want: Arrays) -> list[tuple[str, tuple[np.ndarray, np.ndarray]]]:
    shapes = [(a.shape, a.dtype.name) for a in got], [(a.shape, a.dtype.name) for a in want]
    if shapes[0] != shapes[1]:
        raise CheckFailed(f"results have shapes {shapes[0]} instead of {shapes[1]}")
    return [(f"result {number}", pair) for number, pair in enumerate(zip(got, want, strict=True))]


def _bits(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).view(f"u{array.itemsize}")
