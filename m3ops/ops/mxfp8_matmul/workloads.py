"""MiniMax-M3's products."""

from __future__ import annotations

from m3ops.array import ArraySpec
from m3ops.numerics.formats import BLOCK
from m3ops.testing.model import HIDDEN
from m3ops.testing.workload import Workload

WIDE = 8 * HIDDEN
"""Rows of a weight that does not fit into the L2 cache; no layer of the model has so many."""


def _quantized(num_rows: int) -> tuple[ArraySpec, ArraySpec]:
    return ArraySpec((num_rows, HIDDEN), "float8_e4m3fn"), ArraySpec((num_rows, HIDDEN // BLOCK), "uint8")


def _inputs(num_rows: int, size: int) -> tuple[ArraySpec, ...]:
    return *_quantized(num_rows), *_quantized(size)


def _rows(num_rows: int, size: int, suffix: str = "", **given: str) -> Workload:
    small = num_rows <= 16 and size == HIDDEN
    name = f"M = {num_rows}, N = {size}{suffix}"
    return Workload("mxfp8_matmul", name, num_rows, size, _inputs, given, small=small)


SIZES = ((8192, HIDDEN), (16, WIDE), (1, HIDDEN), (16, HIDDEN))
WORKLOADS = (
    *(_rows(*sizes) for sizes in SIZES),
    *(_rows(*sizes, ", fast", arithmetic="fast") for sizes in SIZES),
)
