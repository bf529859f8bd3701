"""Scales in the layouts of groups of rows: their rows among those of one tiled matrix, and from there back."""

from __future__ import annotations

from typing import Any

from m3ops.numerics.exact.groups import Groups
from m3ops.numerics.scale_layouts import (
    SPREAD_GROUPS,
    TILES,
    TILES_OF_GROUPS,
    Shape,
    arrange,
    restore,
    stored_shape_of_groups,
)

Array = Any

_PAD_ROWS = TILES[TILES_OF_GROUPS].pad_rows


def arrange_groups(scales: Array, layout: str, sizes: Array) -> Array:
    """Scales ``[rows, blocks]`` as they are stored. Those of rows in no group are not."""
    xp = scales.__array_namespace__()
    rows, blocks = scales.shape
    stored_rows, _ = stored_shape_of_groups(scales.shape, len(sizes))
    if rows == 0 or len(sizes) == 0:
        return arrange(xp.zeros((stored_rows, blocks), scales.dtype), TILES_OF_GROUPS)
    groups, first_rows = Groups.of(sizes, rows), _first_rows(sizes, rows, layout)
    row = xp.arange(stored_rows)
    group = xp.searchsorted(first_rows, row, side="right") - 1
    source = groups.starts[group] + row - first_rows[group]
    there = source < groups.ends[group]
    matrix = xp.where(there[:, None], scales[xp.where(there, source, 0)], xp.zeros((), scales.dtype))
    return arrange(matrix, TILES_OF_GROUPS)


def restore_groups(stored: Array, shape: Shape, layout: str, sizes: Array) -> Array:
    """The scales of this shape, ``[rows, blocks]``, from their stored form; zeros for rows in no group."""
    xp = stored.__array_namespace__()
    rows, blocks = shape
    if rows == 0 or len(sizes) == 0:
        return xp.zeros(shape, stored.dtype)
    groups, first_rows = Groups.of(sizes, rows), _first_rows(sizes, rows, layout)
    matrix = restore(stored, (stored.shape[0], blocks), TILES_OF_GROUPS)
    row = xp.arange(rows)
    group = xp.minimum(xp.searchsorted(groups.ends, row, side="right"), len(sizes) - 1)
    there = row < groups.ends[-1]
    place = first_rows[group] + row - groups.starts[group]
    return xp.where(there[:, None], matrix[xp.where(there, place, 0)], xp.zeros((), stored.dtype))


def in_a_group(sizes: Array, rows: int) -> Array:
    """Which of so many rows are in a group, ``[rows, 1]``."""
    xp = sizes.__array_namespace__()
    return (xp.arange(rows) < xp.sum(xp.maximum(sizes, 0).astype(xp.int64)))[:, None]


def _first_rows(sizes: Array, rows: int, layout: str) -> Array:
    """The row of the tiled matrix where each group begins."""
    xp, groups = sizes.__array_namespace__(), Groups.of(sizes, rows)
    if layout == SPREAD_GROUPS:
        return (groups.starts + (_PAD_ROWS - 1) * xp.arange(len(sizes))) // _PAD_ROWS * _PAD_ROWS
    padded = -(-(groups.ends - groups.starts) // _PAD_ROWS) * _PAD_ROWS
    return xp.cumsum(padded) - padded
