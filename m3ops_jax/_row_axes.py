"""Which axes of an op's arrays are axes of its rows, and which mesh axes divide each of them.

An op works on each row, a vector along the last axis, by itself. Its row axes are the leading axes of its inputs,
numbered from the left; a shared input (a weight) may lack some of them or have size 1 there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jax.sharding import PartitionSpec

from m3ops.op import Op

Shape = tuple[int, ...]
Axes = tuple[int | None, ...]  # for each axis of an array: the row axis that it is, or None
Division = dict[int, Any]  # row axis -> the mesh axes that divide it: a name or a tuple of names


def row_axes(op: Op, shapes: Sequence[Shape]) -> list[Axes]:
    """The row axes of each input."""
    rows = next(s for name, s in zip(op.inputs, shapes, strict=True) if name not in op.shared)[:-1]
    return [_row_axes(shape, rows) for shape in shapes]


def _row_axes(shape: Shape, rows: Shape) -> Axes:
    first = len(rows) + 1 - len(shape)
    return (*(first + i if size == rows[first + i] else None for i, size in enumerate(shape[:-1])), None)


def result_axes(inputs: Sequence[Axes]) -> Axes:
    """The row axes of an output, which are all of them."""
    return (*range(max(map(len, inputs)) - 1), None)


def divide(arrays: Sequence[Axes], specs: Sequence[Sequence[Any]]) -> Division:
    """How to divide the rows, given how each array is divided: for each row axis the first array that does decides."""
    division: Division = {}
    used: set[str] = set()
    for axes, spec in zip(arrays, specs, strict=True):
        for axis, names in zip(axes, spec, strict=False):  # a spec may leave out trailing axes
            wanted = {names} if isinstance(names, str) else set(names or ())
            if axis is not None and axis not in division and wanted and not wanted & used:
                division[axis] = names
                used |= wanted
    return division


def spec_of(axes: Axes, division: Division) -> PartitionSpec:
    """How an array is divided when the rows are; its last axis is whole."""
    return PartitionSpec(*(None if axis is None else division.get(axis) for axis in axes))
