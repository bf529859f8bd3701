"""The specification by NumPy over pieces of rows, which stay in a processor's cache and may be computed by threads.

NumPy passes over whole arrays once for each operation, of which there are hundreds, and a float64 array is four times a
bfloat16 one. So that they need not come from memory each time, a few rows are computed at once wherever a row of the
results follows from the same row of the operands, which :mod:`m3ops.axes` tells.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from m3ops.array import ArraySpec
from m3ops.axes import Axes, Shape
from m3ops.numerics.formats import BLOCK
from m3ops.numerics.scale_layouts import ROW_MAJOR, arrange, restore

if TYPE_CHECKING:
    from m3ops.op import Op

Arrays = dict[str, np.ndarray]

ELEMENTS = 131072
"""Elements of the first operand in a piece: 1 MiB in float64.

On a Zen 3 server with 512 KiB of L2 and 32 MiB of L3 cache, pieces of 98304 to 196608 elements were the fastest for
each op; with 24576 the calls of NumPy took as long again, with 393216 memory came and went with each of them.
"""


def compute(op: Op, inputs: Mapping[str, np.ndarray], threads: int = 1) -> Arrays:
    """``op.compute(**inputs)``, by at most so many threads."""
    first = next(iter(inputs.values()))
    if math.prod(first.shape[:-1]) <= _rows_of_a_piece(first):
        return op.compute(**inputs)
    layout = getattr(op, "scale_layout", ROW_MAJOR)
    if layout != ROW_MAJOR:  # in tiles the rows of a matrix belong together, but only in the order of the scales
        by_rows = replace(op, scale_layout=ROW_MAJOR)  # type: ignore[call-arg]
        results = compute(by_rows, _with_restored_scales(inputs, layout), threads)
        return {name: arrange(array, layout) if name == "scales" else array for name, array in results.items()}
    return _by_rows(op, inputs, threads) if _row_by_row(op.axes) else op.compute(**inputs)


def _rows_of_a_piece(first: np.ndarray) -> int:
    return max(ELEMENTS // max(int(first.shape[-1]), 1), 1)


def _with_restored_scales(inputs: Mapping[str, np.ndarray], layout: str) -> Arrays:
    if "scales" not in inputs:
        return dict(inputs)
    *leading, size = inputs["values"].shape
    return {**inputs, "scales": restore(inputs["scales"], (*leading, size // BLOCK), layout)}


def _row_by_row(axes: Axes) -> bool:
    """Whether each row of the results follows from one row of the operands. A weight's gradient is a sum over rows."""
    rows = [axes.inputs[0], *(operand for operand in axes.inputs if operand.rows), *axes.results]
    return all(operand.rows and not operand.summed and len(operand.axes) == 1 for operand in rows)


def _by_rows(op: Op, inputs: Mapping[str, np.ndarray], threads: int) -> Arrays:
    first = next(iter(inputs.values()))
    leading, step = first.shape[:-1], _rows_of_a_piece(first)
    total = math.prod(leading)
    specs = op.infer(**{name: ArraySpec(array.shape, array.dtype.name) for name, array in inputs.items()})
    results: Arrays = {name: np.empty(spec.shape, spec.dtype) for name, spec in specs.items()}
    places = {name: array.reshape(total, array.shape[-1]) for name, array in results.items()}
    has_rows = dict(zip(inputs, (operand.rows for operand in op.axes.inputs), strict=True))
    given = {name: _matrix(array, leading) if has_rows[name] else array for name, array in inputs.items()}
    divided = [name for name in inputs if has_rows[name] and given[name].ndim == 2]

    def piece(start: int) -> None:
        at = slice(start, start + step)
        own = {name: array[at] if name in divided else array for name, array in given.items()}
        with np.errstate(all="ignore"):  # which is of each thread
            for name, result in op.compute(**own).items():
                places[name][at] = result

    starts = range(0, total, step)
    with ThreadPoolExecutor(min(threads, len(starts))) as pool:
        list(pool.map(piece, starts))
    return results


def _matrix(array: np.ndarray, leading: Shape) -> np.ndarray:
    """The rows of an array one after another. A single one, a weight that all rows share, stays that."""
    size = array.shape[-1]
    if math.prod(array.shape[:-1]) == 1:
        return array.reshape(size)
    return np.broadcast_to(array, (*leading, size)).reshape(math.prod(leading), size)
