"""Which axes of an op's arrays are axes of its rows, and which mesh axes divide each of them.

An op works on each row, nearly always a vector along the last axis, by itself. Its row axes are the axes of its inputs
before those of a row, numbered from the left; a shared input (a weight) may lack some of them or have size 1 there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jax.sharding import PartitionSpec

from m3ops.op import Op

Shape = tuple[int, ...]
Axes = tuple[int | None, ...]  # for each axis of an array: the row axis that it is, or None
Division = dict[int, Any]  # row axis -> the mesh axes that divide it: a name or a tuple of names


def row_axes(op: Op, shapes: Sequence[Shape], params: Mapping[str, Any]) -> list[Axes]:
    """The row axes of each input."""
    core = op.core_rank(params)
    rows = next(s for name, s in zip(op.inputs, shapes, strict=True) if name not in op.shared)[:-core]
    return [_row_axes(shape, rows, core) for shape in shapes]


def _row_axes(shape: Shape, rows: Shape, core: int) -> Axes:
    leading = shape[:-core]
    first = len(rows) - len(leading)
    whole = (None,) * (len(shape) - len(leading))
    return (*(first + i if size == rows[first + i] else None for i, size in enumerate(leading)), *whole)


def result_axes(op: Op, inputs: Sequence[Axes], params: Mapping[str, Any], count: int) -> list[Axes]:
    """The row axes of each output: all of them, or those of the input that a sum over rows belongs to."""
    rank = max(map(len, inputs))
    core = min(op.core_rank(params), rank)
    rows = (*range(rank - core), *(None,) * core)
    return [inputs[op.inputs.index(op.row_sums[i])] if i in op.row_sums else rows for i in range(count)]


def summed_over(axes: Axes, division: Division) -> tuple[str, ...]:
    """The mesh axes whose devices each hold a part of a sum over rows with these row axes."""
    names = [names for axis, names in division.items() if axis not in axes]
    return tuple(name for group in names for name in ((group,) if isinstance(group, str) else group))


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
    """How an array is divided when the rows are; the axes of a row are whole."""
    return PartitionSpec(*(None if axis is None else division.get(axis) for axis in axes))
