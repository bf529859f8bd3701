"""Sums over the rows that share a row of a weight: which rows those are.

A weight's own leading axes are the *kept* ones, over the others is summed. So rows come in groups, one for each row of
the weight; within a group they are in row-major order. How a group is summed is ``exact.sum_rows``.
"""

from __future__ import annotations

import math
from typing import Any

Array = Any
Shape = tuple[int, ...]


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
