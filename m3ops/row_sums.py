"""Sums over the rows that share a weight: which rows those are, and how operands are laid out for them.

A weight's own leading axes are the *kept* ones, over the others is summed. So rows come in groups, one for each row of
the weight; within a group they are in row-major order. How a group is summed is ``exact.sum_rows``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from m3ops.op import Array, ArraySpec
from m3ops.rows import RowLayout, row_layout

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


@dataclass(frozen=True)
class GroupLayout:
    """How the rows of each group are found.

    Attributes:
        groups: Rows of the weight.
        kept: Where the first row of each group is in each operand.
        summed: How the rows of one group lie in each operand.
    """

    groups: int
    kept: RowLayout
    summed: RowLayout

    def constants(self, *names: str) -> dict[str, Any]:
        """Constexpr arguments: those of ``RowLayout`` for the rows of a group, and the same for the groups."""
        kept = {f"{name.upper()}_KEPT": strides for name, strides in zip(names, self.kept.strides, strict=True)}
        return {
            "GROUPS": self.groups,
            "KEPT_SIZES": self.kept.inner_sizes,
            **kept,
            **self.summed.constants(*names),
        }


def group_layout(weight: ArraySpec, *rows: ArraySpec) -> GroupLayout:
    """The common layout of the weight and of arrays of rows, all of one shape."""
    kept = kept_axes(rows[0].shape, weight.shape)
    summed = [axis for axis in range(len(rows[0].shape) - 1) if axis not in kept]
    own = [axis for axis, size in enumerate(weight.shape[:-1]) if size != 1]
    return GroupLayout(
        math.prod(weight.shape[:-1]),
        row_layout(_only(weight, own), *(_only(spec, kept) for spec in rows)),
        row_layout(_only(weight, []), *(_rows(spec, summed) for spec in rows)),
    )


def _only(spec: ArraySpec, axes: list[int]) -> ArraySpec:
    """The array with these leading axes alone, and its last one."""
    every = (*axes, -1)
    return ArraySpec(tuple(spec.shape[a] for a in every), spec.dtype, tuple(spec.strides[a] for a in every))


def _rows(spec: ArraySpec, axes: list[int]) -> ArraySpec:
    """The same for operands of which a group has rows, if only one, at some distance from each other."""
    size = spec.shape[-1]
    return _only(spec, axes) if axes else ArraySpec((1, size), spec.dtype, (size, spec.strides[-1]))
