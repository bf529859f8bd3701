"""Where the rows of a call's operands lie: all axes but the last, collapsed as far as every operand's strides allow."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from m3ops.array import ArraySpec
from m3ops.tiles.rows import Rows


def rows_of(operands: Mapping[str, ArraySpec]) -> tuple[int, dict[str, Rows]]:
    """The number of rows, and where those of each operand lie. Leading axes broadcast against each other.

    In nearly every call all leading axes collapse into one. They cannot where an operand is a transposed view, say;
    then a kernel splits the row number by the inner sizes.
    """
    specs = tuple(operands.values())
    shape = np.broadcast_shapes(*(spec.shape[:-1] for spec in specs))
    axes = [(size, *(_stride(spec, axis, len(shape)) for spec in specs)) for axis, size in enumerate(shape)]
    axes = [axis for axis in axes if axis[0] != 1]
    if not axes or 0 in shape:  # one row, or none: the strides that more rows would have
        axes = [(math.prod(shape), *(spec.shape[-1] if len(spec.shape) > 1 else 0 for spec in specs))]
    merged = axes[:1]
    for size, *inner in axes[1:]:
        if [size * stride for stride in inner] == list(merged[-1][1:]):
            merged[-1] = (merged[-1][0] * size, *inner)
        else:
            merged.append((size, *inner))
    inner_sizes = tuple(axis[0] for axis in merged[1:])
    strides = (
        (*(axis[1 + number] for axis in merged), spec.strides[-1] if spec.shape[-1] > 1 else 1)
        for number, spec in enumerate(specs)
    )
    at = {
        name: Rows(spec.shape[-1], inner_sizes, own)
        for (name, spec), own in zip(operands.items(), strides, strict=True)
    }
    return math.prod(shape), at


def split_rows(spec: ArraySpec, groups: int) -> ArraySpec:
    """The same array with each row as ``groups`` rows; needs no copy, whatever the strides."""
    if groups == 1:
        return spec
    size, stride = spec.shape[-1] // groups, spec.strides[-1]
    return ArraySpec((*spec.shape[:-1], groups, size), spec.dtype, (*spec.strides[:-1], size * stride, stride))


def _stride(spec: ArraySpec, axis: int, leading: int) -> int:
    own = axis - (leading - (len(spec.shape) - 1))  # axes align at the right
    return spec.strides[own] if own >= 0 and spec.shape[own] != 1 else 0
