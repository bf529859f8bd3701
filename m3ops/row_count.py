"""``num_rows``: how many of its rows count, read by an op on the device, as buffers padded for the worst case need it.

Rows are the leading axes, flattened. From row ``num_rows`` on nothing is read or computed: results are zero there, or,
in memory that was given for them, left as they were, the padding of a row in a tiled scale layout included. A count
below zero is taken for zero and one past the last row for all rows: the device cannot raise.

Several counts have the shape of the first leading axes: ``[E]`` for ``[E, max_rows, ...]``, the buffers of E experts.
Each is that of its buffer alone, whose rows are the other leading axes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from m3ops import validate
from m3ops.array import ArraySpec
from m3ops.axes import Axes, Names, Shape
from m3ops.numerics.formats import BLOCK
from m3ops.numerics.scale_layouts import ROW_MAJOR, arrange, stored_shape

if TYPE_CHECKING:
    from m3ops.op import Op

NAME = "num_rows"
"""The operand that nearly every op may have beside its inputs."""

MOST_BUFFERS = 1024
"""Counts that a program may hold in registers, to find its tiles."""

Array = Any
Arrays = Mapping[str, Array]


def check(num_rows: ArraySpec, leading: Shape) -> None:
    """Raises unless this can be a number of rows, or one for each index of the first leading axes."""
    if num_rows.dtype != "int32":
        raise TypeError(f"num_rows must have dtype int32, got {num_rows.dtype}")
    axes = counted_axes(num_rows.shape)
    if axes > 0 and num_rows.shape != leading[:axes]:
        several = f", or the shape of the first of the leading axes {leading}" if leading else ""
        raise ValueError(f"num_rows must have one element{several}, got shape {num_rows.shape}")
    if not can_be(num_rows.size, symbols=True):
        raise ValueError(f"num_rows must have at most {MOST_BUFFERS} elements, got shape {num_rows.shape}")
    validate.contiguous(NAME, num_rows)


def can_be(buffers: int, *, symbols: bool = False) -> bool:
    """Whether so many buffers may have counts; of a symbolic number ``symbols`` says it."""
    return buffers <= MOST_BUFFERS if isinstance(buffers, int) else symbols


def counted_axes(shape: Shape) -> int:
    """How many leading axes have a count for each index, for a ``num_rows`` of this shape."""
    return len(shape) if math.prod(shape) != 1 else 0


def names_of(axes: Axes, shapes: Sequence[Shape]) -> tuple[list[Names], list[Names]]:
    """:meth:`Axes.of_arrays` for operands of which the last may be ``num_rows``.

    The rows of a buffer are counted from its first: a device has all of them. Several buffers may be divided, and the
    counts with them.
    """
    inputs, results = axes.of_arrays(shapes[: len(axes.inputs)])
    if len(shapes) == len(inputs):
        return inputs, results
    counted = counted_axes(shapes[-1])
    buffers = tuple(f"r{axis}" for axis in range(counted))
    inputs, results = ([tuple(n if n in buffers else None for n in of) for of in every] for every in (inputs, results))
    return [*inputs, buffers or (None,) * len(shapes[-1])], results


def zero_the_rest(results: Arrays, num_rows: Array, op: Op) -> dict[str, Array]:
    """The results with zeros in the rows that do not count."""
    xp, masks = num_rows.__array_namespace__(), written_masks(results, num_rows, op)
    return {
        name: xp.where(masks[name], result, xp.zeros_like(result)) if name in masks else result
        for name, result in results.items()
    }


def rows_that_count(leading: Shape, num_rows: Array) -> Array:
    """A mask of the rows with these leading axes."""
    xp = num_rows.__array_namespace__()
    of_buffer = leading[counted_axes(num_rows.shape) :]
    rows = xp.arange(math.prod(of_buffer)).reshape(of_buffer)
    each = num_rows.reshape((*leading[: len(leading) - len(of_buffer)], *(1,) * len(of_buffer)))
    return xp.broadcast_to(rows < each, leading)


def written_masks(results: Arrays, num_rows: Array, op: Op) -> dict[str, Array]:
    """For each result of rows a mask of what is written: those that count, and the padding rows of tiled scales."""
    leading = next(iter(results.values())).shape[:-1]
    return masks(results, rows_that_count(leading, num_rows)[..., None], op)


def masks(results: Arrays, counts: Array, op: Op) -> dict[str, Array]:
    """The same from a mask of the rows that count, ``[..., 1]``."""
    xp, first = counts.__array_namespace__(), next(iter(results.values()))
    leading = first.shape[:-1]
    masks = dict.fromkeys((name for name in results if not op.inserts or name not in op.updates.values()), counts)
    layout = getattr(op, "scale_layout", ROW_MAJOR)
    if "scales" in results and layout != ROW_MAJOR:
        blocks = stored_shape((*leading, first.shape[-1] // BLOCK), layout)[-1]
        rest = xp.broadcast_to(~counts, (*leading, blocks)).astype(xp.uint8)
        masks["scales"] = arrange(rest, layout) == 0
    return masks
