"""MiniMax-M3's norms of the hidden state and of heads."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from m3ops.array import ArraySpec
from m3ops.testing.model import HIDDEN, HIDDEN_PREFILL, HIDDEN_TRAINING, QK_PREFILL, QK_TRAINING
from m3ops.testing.workload import Workload, padded, rows, weight


def _norm(num_rows: int, size: int) -> tuple[ArraySpec, ...]:
    return rows(num_rows, size), weight(size)


def _fused(num_rows: int, size: int) -> tuple[ArraySpec, ...]:
    return rows(num_rows, size), rows(num_rows, size), weight(size)


OPS = {
    "gemma_rmsnorm": (_norm, (HIDDEN_PREFILL, QK_PREFILL)),
    "gemma_fused_add_rmsnorm": (_fused, (HIDDEN_PREFILL, QK_PREFILL)),
    "gemma_rmsnorm_quantize": (_norm, (HIDDEN_PREFILL,)),
    "gemma_fused_add_rmsnorm_quantize": (_fused, (HIDDEN_PREFILL,)),
}
"""Inputs and prefills."""

GRADIENTS = {
    "gemma_rmsnorm_backward": lambda num_rows, size: (*_norm(num_rows, size), rows(num_rows, size)),
    "gemma_fused_add_rmsnorm_backward": lambda num_rows, size: (*_fused(num_rows, size), *[rows(num_rows, size)] * 2),
}


def _workloads() -> Iterator[Workload]:
    for op, (inputs_of, prefills) in OPS.items():
        at = partial(Workload, op, inputs_of=inputs_of)
        for prefill in prefills:
            yield at(*prefill)
        for num_rows in (1, 16, 64):
            yield at(f"hidden decode, M = {num_rows}", num_rows, HIDDEN, small=True)
    for op, inputs_of in GRADIENTS.items():
        for training in (HIDDEN_TRAINING, QK_TRAINING):
            yield Workload(op, *training, inputs_of)
    yield from padded("gemma_fused_add_rmsnorm_quantize", HIDDEN, _fused)


WORKLOADS = tuple(_workloads())
