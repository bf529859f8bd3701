"""MiniMax-M3's QK norm of a packed qkv."""

from __future__ import annotations

from functools import partial

from m3ops.array import ArraySpec
from m3ops.testing.model import HEAD_DIM, QKV_PREFILL, QKV_SIZE
from m3ops.testing.workload import Workload, rows, weight


def _inputs(num_rows: int, size: int) -> tuple[ArraySpec, ...]:
    return rows(num_rows, size), weight(HEAD_DIM), weight(HEAD_DIM)


_at = partial(Workload, "gemma_rmsnorm_heads", inputs_of=_inputs)

WORKLOADS = (
    _at(*QKV_PREFILL),
    *(_at(f"packed QK norm decode, M = {num_rows}", num_rows, QKV_SIZE, small=True) for num_rows in (1, 64)),
)
