"""MiniMax-M3's products."""

from __future__ import annotations

from typing import Any

import numpy as np

from m3ops.array import ArraySpec
from m3ops.numerics.formats import BLOCK
from m3ops.testing.model import HIDDEN
from m3ops.testing.workload import Workload

WIDE = 8 * HIDDEN
"""Rows of a weight that does not fit into the L2 cache; no layer of the model has so many."""

EXPERTS = 8
"""Of a layer's 128, so that the specification is done in seconds; together they do not fit into the L2 cache either."""

ROWS_EACH = (256, 8, 1)
_SIZES = ArraySpec((EXPERTS,), "int32")


def _quantized(*shape: int) -> tuple[ArraySpec, ArraySpec]:
    *leading, size = shape
    return ArraySpec(shape, "float8_e4m3fn"), ArraySpec((*leading, size // BLOCK), "uint8")


def _inputs(num_rows: int, size: int) -> tuple[ArraySpec, ...]:
    return *_quantized(num_rows, HIDDEN), *_quantized(size, HIDDEN)


def _grouped(num_rows: int, size: int) -> tuple[ArraySpec, ...]:
    return *_quantized(num_rows, HIDDEN), *_quantized(EXPERTS, size, HIDDEN), _SIZES


def _along_k(num_rows: int, size: int) -> tuple[ArraySpec, ...]:
    return *_quantized(num_rows, EXPERTS * ROWS_EACH[0]), *_quantized(size, EXPERTS * ROWS_EACH[0]), _SIZES


def _rows_of_x(inputs: Any, rows: np.ndarray) -> tuple[Any, ...]:
    """The operands of some rows of each group's product."""
    x, scales, *others = inputs
    return x[rows], scales[rows], *others


def _some_rows(inputs: Any, rows: np.ndarray) -> tuple[Any, ...]:
    """The operands of some rows of a grouped product, in their order."""
    *operands, sizes = inputs
    counts = np.diff(np.searchsorted(rows, np.cumsum(sizes)), prepend=0)
    return *operands, counts.astype(np.int32), rows.astype(np.int32)


def _rows(num_rows: int, size: int, suffix: str = "", **given: str) -> Workload:
    small = num_rows <= 16 and size == HIDDEN
    name = f"M = {num_rows}, N = {size}{suffix}"
    return Workload("mxfp8_matmul", name, num_rows, size, _inputs, given, small=small)


def _experts(rows_each: int, suffix: str = "", **given: str) -> Workload:
    name = f"{EXPERTS} experts, {rows_each} row{'s' * (rows_each > 1)} each{suffix}"
    return Workload(
        "mxfp8_grouped_matmul",
        name,
        rows_each * EXPERTS,
        HIDDEN,
        _grouped,
        given,
        small=rows_each == 1,
        some_rows=_some_rows,
        rows_each=rows_each,
    )


def _weights(num_rows: int, size: int, suffix: str = "", **given: str) -> Workload:
    name = f"{EXPERTS} experts' weights, M = {num_rows}, N = {size}{suffix}"
    some = {"small": num_rows < HIDDEN, "some_rows": _rows_of_x, "rows_each": ROWS_EACH[0]}
    return Workload("mxfp8_k_grouped_matmul", name, num_rows, size, _along_k, given, **some)  # type: ignore[arg-type]


SIZES = ((8192, HIDDEN), (16, WIDE), (1, HIDDEN), (16, HIDDEN))
WORKLOADS = (
    *(_rows(*sizes) for sizes in SIZES),
    *(_rows(*sizes, ", fast", arithmetic="fast") for sizes in SIZES),
    *(_experts(rows) for rows in ROWS_EACH),
    *(_experts(rows, ", fast", arithmetic="fast") for rows in ROWS_EACH),
    _weights(HIDDEN, HIDDEN),
    _weights(HIDDEN, HIDDEN, ", fast", arithmetic="fast"),
    _weights(128, 128),
)
