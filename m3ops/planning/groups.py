"""Where the rows lie that share a row of a weight."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from m3ops.array import ArraySpec
from m3ops.numerics.row_sums import kept_axes
from m3ops.planning.rows import rows_of
from m3ops.tiles.rows import Rows


@dataclass(frozen=True)
class GroupedRows:
    """The groups of rows of a call.

    Attributes:
        count: Rows of the weight: so many groups.
        total_rows: Rows of a group.
        first_rows: Where the first row of each group is in each operand, the weight among them.
        rows: How the rows of one group lie in each operand.
    """

    count: int
    total_rows: int
    first_rows: dict[str, Rows]
    rows: dict[str, Rows]


def groups_of(weight: ArraySpec, rows: Mapping[str, ArraySpec]) -> GroupedRows:
    """The groups of a weight and of arrays of rows, all of one shape."""
    shape = next(iter(rows.values())).shape
    kept = kept_axes(shape, weight.shape)
    summed = [axis for axis in range(len(shape) - 1) if axis not in kept]
    own = [axis for axis, size in enumerate(weight.shape[:-1]) if size != 1]
    _, first_rows = rows_of(
        {"weight": _along(weight, own), **{name: _along(spec, kept) for name, spec in rows.items()}}
    )
    total_rows, within = rows_of(
        {"weight": _along(weight, []), **{name: _rows_along(spec, summed) for name, spec in rows.items()}}
    )
    return GroupedRows(math.prod(weight.shape[:-1]), total_rows, first_rows, within)


def _along(spec: ArraySpec, axes: list[int]) -> ArraySpec:
    """The array along these leading axes alone, and its last one."""
    every = (*axes, -1)
    return ArraySpec(tuple(spec.shape[a] for a in every), spec.dtype, tuple(spec.strides[a] for a in every))


def _rows_along(spec: ArraySpec, axes: list[int]) -> ArraySpec:
    """The same, but always with an axis of rows, even of size 1."""
    size = spec.shape[-1]
    return _along(spec, axes) if axes else ArraySpec((1, size), spec.dtype, (size, spec.strides[-1]))
