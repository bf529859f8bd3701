"""The specification by NumPy over pieces of the results, which stay in the cache and may be computed by threads.

NumPy passes over whole arrays once for each operation, of which there are hundreds, and a float64 array is four times a
bfloat16 one. So that they need not come from memory each time, a few rows are computed at once wherever a row of the
results follows from the same row of the operands, and of a product a few columns, which :mod:`m3ops.axes` tells.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from typing import TYPE_CHECKING

import numpy as np

from m3ops.array import ArraySpec
from m3ops.axes import Axes, Operand, Shape
from m3ops.numerics.formats import BLOCK
from m3ops.numerics.scale_layouts import ROW_MAJOR, TILES, arrange, restore

if TYPE_CHECKING:
    from m3ops.op import Op

Arrays = dict[str, np.ndarray]

ELEMENTS = 131072
"""Elements of the first operand in a piece: 1 MiB in float64.

On a Zen 3 server with 512 KiB of L2 and 32 MiB of L3 cache, pieces of 98304 to 196608 elements were the fastest for
each op; with 24576 the calls of NumPy took as long again, with 393216 memory came and went with each of them.
"""

RESULTS = 15360
"""Results of a product in a piece.

Over a block of 32 these take less than 2**19 multiplications. Products of more are divided by OpenBLAS among threads of
its own, which spin while they wait: several times the processor time. Half as many took a third more in NumPy's calls.
"""


def compute(op: Op, inputs: Mapping[str, np.ndarray], threads: int = 1) -> Arrays:
    """``op.compute(**inputs)``, by at most so many threads."""
    tiled = [field.name for field in fields(op) if getattr(op, field.name) in TILES]
    if tiled:  # there the rows of a matrix belong together, but only in the order of the scales
        by_rows = replace(op, **dict.fromkeys(tiled, ROW_MAJOR))
        results = compute(by_rows, _with_restored_scales(op, inputs), threads)
        layout = getattr(op, "scale_layout", ROW_MAJOR)
        return {n: arrange(array, layout) if n.endswith("scales") else array for n, array in results.items()}
    return _in_pieces(op, inputs, threads) if _row_by_row(op.axes) else op.compute(**inputs)


def _with_restored_scales(op: Op, inputs: Mapping[str, np.ndarray]) -> Arrays:
    restored = dict(inputs)
    for field in fields(op):
        carrier = field.metadata["carried_by"]
        if carrier and getattr(op, field.name) in TILES:
            values, scales = op.quantized[carrier.removesuffix(".scale_layout")]
            *leading, size = inputs[values].shape
            restored[scales] = restore(inputs[scales], (*leading, size // BLOCK), getattr(op, field.name))
    return restored


def _row_by_row(axes: Axes) -> bool:
    """Whether each row of the results follows from one row of the operands. A weight's gradient is a sum over rows."""
    rows = [axes.inputs[0], *(operand for operand in axes.inputs if operand.rows), *axes.results]
    return all(operand.rows and not operand.summed and len(operand.axes) <= 1 for operand in rows)


def _column(axes: Axes) -> str | None:
    """The factor along a product's columns: it may be divided in the results, and the first operand lacks it."""
    own = {axis.name for axis in axes.inputs[0].axes}
    return next((axis.name for axis in axes.results[0].axes if not axis.whole and axis.name not in own), None)


def _in_pieces(op: Op, inputs: Mapping[str, np.ndarray], threads: int) -> Arrays:
    axes, column = op.axes_of(inputs), _column(op.axes)
    *leading, size = next(iter(inputs.values())).shape
    specs = op.infer(**{name: ArraySpec(array.shape, array.dtype.name) for name, array in inputs.items()})
    total, width = math.prod(leading), next(iter(specs.values())).shape[-1] if column else 1
    sizes = _size_of_a_product(total, width) if column else (max(ELEMENTS // max(size, 1), 1), 1)
    starts = [*itertools.product(range(0, total, sizes[0]), range(0, width, sizes[1]))]
    if len(starts) <= 1:
        return op.compute(**inputs)
    results: Arrays = {name: np.empty(spec.shape, spec.dtype) for name, spec in specs.items()}
    places = {name: array.reshape(total, array.shape[-1]) for name, array in results.items()}
    operands = dict(zip((*inputs, *results), (*axes.inputs, *axes.results), strict=True))
    given = {name: _by_row(array, (*leading,), operands[name]) for name, array in inputs.items()}

    def piece(start: tuple[int, int]) -> None:
        rows, columns = (slice(at, at + count) for at, count in zip(start, sizes, strict=True))

        def own(name: str, array: np.ndarray) -> np.ndarray:
            trailing = [columns if axis.name == column else slice(None) for axis in operands[name].axes]
            missing = 1 + len(trailing) - array.ndim  # what all rows share has no axis of them
            return array[tuple([rows, *trailing][missing:])]

        with np.errstate(all="ignore"):  # which is of each thread
            computed = op.compute(**{name: own(name, array) for name, array in given.items()})
            for name, result in computed.items():
                own(name, places[name])[:] = result

    with ThreadPoolExecutor(min(threads, len(starts))) as pool:
        list(pool.map(piece, starts))
    return results


def _size_of_a_product(rows: int, columns: int) -> tuple[int, int]:
    """Rows and columns of a piece: as square as they can be, so that each operand is read the fewest times."""
    height = min(max(RESULTS // max(columns, 1), math.isqrt(RESULTS)), max(rows, 1))
    return height, RESULTS // height


def _by_row(array: np.ndarray, leading: Shape, operand: Operand) -> np.ndarray:
    """The rows of an array one after another. A single one, a weight that all rows share, stays that."""
    own = array.ndim - len(operand.axes)
    size = array.shape[own:]
    if not operand.rows or math.prod(array.shape[:own]) == 1:
        return array.reshape(size) if operand.rows else array
    return np.broadcast_to(array, (*leading, *size)).reshape(math.prod(leading), *size)
