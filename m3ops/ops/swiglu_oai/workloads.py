"""MiniMax-M3's activations."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from m3ops.array import ArraySpec
from m3ops.testing.model import (
    DENSE_PREFILL,
    INTERLEAVED_PREFILL,
    MOE_PREFILL,
    MOE_SIZE,
    SHARED_PREFILL,
    SLICE_PREFILL,
    TENSOR_PARALLEL_SIZE,
    TRAINING,
)
from m3ops.testing.workload import Workload, of_experts, padded, rows


def _inputs(num_rows: int, size: int) -> tuple[ArraySpec, ...]:
    return (rows(num_rows, 2 * size),)


def _apart(num_rows: int, size: int) -> tuple[ArraySpec, ...]:
    return rows(num_rows, size), rows(num_rows, size)


def _backward(num_rows: int, size: int) -> tuple[ArraySpec, ...]:
    return *_inputs(num_rows, size), rows(num_rows, size)


def _backward_apart(num_rows: int, size: int) -> tuple[ArraySpec, ...]:
    return (rows(num_rows, size),) * 3


def _workloads() -> Iterator[Workload]:
    for op in ("swiglu_oai_quantize", "swiglu_oai"):
        at = partial(Workload, op, inputs_of=_inputs)
        for prefill in (MOE_PREFILL, DENSE_PREFILL, SHARED_PREFILL, SLICE_PREFILL):
            yield at(*prefill)
        for num_rows in (1, 4, 32):
            yield at(f"decode, M = {num_rows}", num_rows, MOE_SIZE, small=True)
            yield at(f"decode, M = {num_rows}, TP 8", num_rows, TENSOR_PARALLEL_SIZE, small=True)
        interleaved = {"layout": "interleaved"}
        yield at(*INTERLEAVED_PREFILL, given=interleaved)
        yield at("decode, M = 32, interleaved", 32, MOE_SIZE, given=interleaved, small=True)
        name, num_rows, size = DENSE_PREFILL
        yield Workload(op, f"{name}, gate and up apart", num_rows, size, _apart)
    yield Workload("swiglu_oai_fake_quant", *TRAINING, _inputs)
    yield Workload("swiglu_oai_backward", *TRAINING, _backward)
    name, num_rows, size = TRAINING
    yield Workload("swiglu_oai_backward", f"{name}, gate and up apart", num_rows, size, _backward_apart)
    yield from padded("swiglu_oai_quantize", MOE_SIZE, _inputs)
    yield from of_experts("swiglu_oai_quantize", MOE_SIZE, _inputs)


WORKLOADS = tuple(_workloads())
