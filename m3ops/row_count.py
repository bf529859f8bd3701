"""``num_rows``: how many of its rows count, read by an op on the device, as buffers padded for the worst case need it.

Rows are the leading axes, flattened. From row ``num_rows`` on nothing is read or computed: results are zero there, or,
in memory that was given for them, left as they were, the padding of a row in a tiled scale layout included. A count
below zero is taken for zero and one past the last row for all rows: the device cannot raise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from m3ops.array import ArraySpec
from m3ops.numerics.formats import BLOCK
from m3ops.numerics.scale_layouts import ROW_MAJOR, arrange, stored_shape

if TYPE_CHECKING:
    from m3ops.op import Op

NAME = "num_rows"
"""The operand that every op may have beside its inputs."""

Array = Any
Arrays = Mapping[str, Array]


def check(num_rows: ArraySpec) -> None:
    """Raises unless this can be a number of rows."""
    if num_rows.dtype != "int32":
        raise TypeError(f"num_rows must have dtype int32, got {num_rows.dtype}")
    if num_rows.size != 1:
        raise ValueError(f"num_rows must have one element, got shape {num_rows.shape}")


def zero_the_rest(results: Arrays, num_rows: Array, op: Op) -> dict[str, Array]:
    """The results with zeros in the rows that do not count."""
    xp, masks = num_rows.__array_namespace__(), written_masks(results, num_rows, op)
    return {name: xp.where(masks[name], result, xp.zeros_like(result)) for name, result in results.items()}


def written_masks(results: Arrays, num_rows: Array, op: Op) -> dict[str, Array]:
    """For each result a mask of what is written: the rows that count, and the padding rows of tiled scales."""
    xp = num_rows.__array_namespace__()
    first = next(iter(results.values()))
    leading = first.shape[:-1]
    counts = (xp.arange(math.prod(leading)) < num_rows.reshape(())).reshape(*leading, 1)
    masks = dict.fromkeys(results, counts)
    layout = getattr(op, "scale_layout", ROW_MAJOR)
    if "scales" in results and layout != ROW_MAJOR:
        blocks = stored_shape((*leading, first.shape[-1] // BLOCK), layout)[-1]
        rest = xp.broadcast_to(~counts, (*leading, blocks)).astype(xp.uint8)
        masks["scales"] = arrange(rest, layout) == 0
    return masks
