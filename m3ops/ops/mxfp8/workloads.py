"""MiniMax-M3's quantized activations."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from m3ops.array import ArraySpec
from m3ops.numerics.formats import BLOCK
from m3ops.testing.model import (
    DENSE_PREFILL,
    HIDDEN,
    HIDDEN_TRAINING,
    MOE_PREFILL,
    MOE_SIZE,
    SHARED_PREFILL,
    SLICE_PREFILL,
    TENSOR_PARALLEL_SIZE,
    TOKENS,
)
from m3ops.testing.workload import Workload, rows


def _numbers(num_rows: int, size: int) -> tuple[ArraySpec, ...]:
    return (rows(num_rows, size),)


def _quantized(num_rows: int, size: int) -> tuple[ArraySpec, ...]:
    return ArraySpec((num_rows, size), "float8_e4m3fn"), ArraySpec((num_rows, size // BLOCK), "uint8")


def _workloads() -> Iterator[Workload]:
    at = partial(Workload, "mxfp8_quantize", inputs_of=_numbers)
    for prefill in (MOE_PREFILL, DENSE_PREFILL, SHARED_PREFILL, SLICE_PREFILL):
        yield at(*prefill)
    for num_rows in (1, 4, 32):
        yield at(f"decode, M = {num_rows}", num_rows, MOE_SIZE, small=True)
        yield at(f"decode, M = {num_rows}, TP 8", num_rows, TENSOR_PARALLEL_SIZE, small=True)
    for prefill in (MOE_PREFILL, SHARED_PREFILL):
        yield Workload("mxfp8_dequantize", *prefill, _quantized)
    for op in ("mxfp8_quantize_transposed", "mxfp8_quantize_both"):
        of_matrices = partial(Workload, op, inputs_of=_numbers)
        yield of_matrices(*HIDDEN_TRAINING)
        yield of_matrices("half a hidden training step", TOKENS // 2, HIDDEN)
        yield of_matrices("a weight", HIDDEN, HIDDEN)
    for op in ("mxfp8_quantize", "mxfp8_quantize_both"):
        yield Workload(op, "a weight, square blocks", HIDDEN, HIDDEN, _numbers, {"square_blocks": True})


WORKLOADS = tuple(_workloads())
