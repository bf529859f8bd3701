"""Products of groups of rows, each with a weight of its own, as the specification computes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from m3ops.numerics.exact import functions
from m3ops.numerics.exact.namespaces import each

Array = Any

MOST_ROWS = 64
"""Rows of a tile at most: a program of XLA has one product of this size, whatever the sizes of the groups."""


@dataclass(frozen=True)
class Groups:
    """Consecutive groups of rows.

    Attributes:
        starts: The first row of each, int64.
        ends: The row after the last of each. Rows from the last end on belong to none.
    """

    starts: Array
    ends: Array

    @classmethod
    def of(cls, sizes: Array, num_rows: int) -> Groups:
        """Groups of these sizes, int32. A size below zero is taken for zero; rows that do not exist belong to none."""
        xp = sizes.__array_namespace__()
        ends = xp.minimum(xp.cumsum(xp.maximum(sizes, 0).astype(xp.int64)), num_rows)
        return cls(xp.concatenate([xp.zeros((1,), xp.int64), ends[:-1]]), ends)


def matmul(x: Array, x_scales: Array, w: Array, w_scales: Array, sizes: Array, rows: Array) -> Array:
    """:func:`functions.matmul` of row ``rows[r]`` of x and the weight of the group that r is in, ``[R, N]``.

    A row without a group is zero, and so is one whose row of x does not exist.

    The number of tiles must not depend on the sizes, which a compiled program does not know: a tile has rows of one
    group, and there are enough tiles for each group to end in one that is not full.
    """
    xp = x.__array_namespace__()
    total, columns = rows.shape[0], w.shape[1]
    if not (total and len(x) and len(w)):
        return xp.zeros((total, columns), xp.float64)
    groups = Groups.of(sizes, total)
    height = min(-(-total // len(w)), MOST_ROWS)
    tiles = -(-(groups.ends - groups.starts) // height)
    ends = xp.cumsum(tiles)
    tile = xp.arange(total // height + min(len(w), total))
    group = xp.minimum(xp.searchsorted(ends, tile, side="right"), len(w) - 1)
    first_row = groups.starts[group] + (tile - ends[group] + tiles[group]) * height
    source = rows[xp.clip(first_row[:, None] + xp.arange(height), 0, total - 1)]

    def product(source: Array, group: Array) -> Array:
        return functions.matmul(x[source], x_scales[source], w[group], w_scales[group])

    products = each(product, xp.clip(source, 0, len(x) - 1), group).reshape(-1, columns)
    row = xp.arange(total)
    own = xp.minimum(xp.searchsorted(groups.ends, row, side="right"), len(w) - 1)
    place = (ends[own] - tiles[own]) * height + row - groups.starts[own]
    there = (row < groups.ends[-1]) & (rows >= 0) & (rows < len(x))
    return xp.where(there[:, None], products[xp.where(there, place, 0)], 0.0)
