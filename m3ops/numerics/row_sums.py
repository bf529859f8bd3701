"""Sums over the rows that share a row of a weight: which rows those are, and how many partial sums they have.

A weight's own leading axes are the *kept* ones, over the others is summed. So rows come in groups, one for each row of
the weight; within a group they are in row-major order. ``sum_rows`` in exact/functions.py says how
a group is summed. That order depends on the numbers below, so a change here changes published bytes.
"""

from __future__ import annotations

import math
from typing import Any

Array = Any
Shape = tuple[int, ...]

PARTIAL_ELEMENTS = 2**21
"""Elements of all partial sums over rows, in rows of a power of two: 8 MiB, which stay in the L2 cache. Of rows of 6144
these are 256, about two for each of the H100's 132 multiprocessors. Twice as many took 1 to 3 % longer there.
"""

FEWEST_ROWS = 4
"""Rows that a partial sum takes at least, where there are so many: with one each it would be half of what is moved."""

FEWEST_PARTIALS = 256
"""Partial sums of wide rows that are many: one at least for each multiprocessor of most GPUs."""

FAN_IN = 32
"""Partial sums added to one."""


def kept_axes(shape: Shape, weight: Shape) -> list[int]:
    """The leading axes of an array of rows that its weight has too."""
    first = len(shape) - len(weight)
    return [axis for axis in range(len(shape) - 1) if axis >= first and weight[axis - first] != 1]


def grouped(x: Array, weight: Shape) -> Array:
    """The rows by group: ``[kept axes, R, N]``."""
    kept = kept_axes(x.shape, weight)
    summed = [axis for axis in range(x.ndim - 1) if axis not in kept]
    shape = (*(x.shape[axis] for axis in kept), math.prod(x.shape[axis] for axis in summed), x.shape[-1])
    return x.__array_namespace__().permute_dims(x, (*kept, *summed, x.ndim - 1)).reshape(shape)


def lanes(size: int) -> int:
    """Neighbouring rows of ``size`` elements that a program works on at once: 1024 elements, or one row if longer."""
    return max(1024 // _padded(size), 1)


def partials(num_rows: int, size: int) -> int:
    """Partial sums that ``num_rows`` rows of ``size`` elements are dealt to in turn."""
    fewest, *more = partials_of_any(size)
    return max([fewest, *(number for number in more if FEWEST_ROWS * number <= num_rows)])


def partials_of_any(size: int) -> list[int]:
    """The same for any number of rows: powers of two, the more rows the larger."""
    most = max(PARTIAL_ELEMENTS // _padded(size), FEWEST_PARTIALS)
    return [lanes(size) << i for i in range((most // lanes(size)).bit_length())]


def _padded(size: int) -> int:
    return max(1 << (size - 1).bit_length(), 32)
