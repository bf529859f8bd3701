"""MiniMax-M3's products."""

from __future__ import annotations

from functools import partial

from m3ops.array import ArraySpec
from m3ops.numerics.formats import BLOCK
from m3ops.testing.model import HIDDEN
from m3ops.testing.workload import Workload


def _quantized(num_rows: int) -> tuple[ArraySpec, ArraySpec]:
    return ArraySpec((num_rows, HIDDEN), "float8_e4m3fn"), ArraySpec((num_rows, HIDDEN // BLOCK), "uint8")


def _inputs(num_rows: int, size: int) -> tuple[ArraySpec, ...]:
    return *_quantized(num_rows), *_quantized(size)


_at = partial(Workload, "mxfp8_matmul", inputs_of=_inputs)

WORKLOADS = (
    _at("square prefill", 8192, HIDDEN),
    *(_at(f"decode, M = {num_rows}", num_rows, HIDDEN, small=True) for num_rows in (1, 16)),
)
