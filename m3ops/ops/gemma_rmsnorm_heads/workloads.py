"""MiniMax-M3's QK norm of a packed qkv, with and without rotary embedding and a paged cache."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

from m3ops.array import ArraySpec
from m3ops.testing.model import CACHE_BLOCK, HEAD_DIM, HEADS_KV, INDEX_PREFILL, QKV_PREFILL, QKV_SIZE, ROTARY_DIM
from m3ops.testing.workload import Workload, rows, weight


def _inputs(num_rows: int, size: int) -> tuple[ArraySpec, ...]:
    return rows(num_rows, size), weight(HEAD_DIM), weight(HEAD_DIM)


def _rope_inputs(num_rows: int, size: int) -> tuple[ArraySpec, ...]:
    """With a table of as many positions as there are rows: each is read once."""
    table, positions = ArraySpec((num_rows, ROTARY_DIM), "float32"), ArraySpec((num_rows,), "int32")
    return *_inputs(num_rows, size), table, positions


def _index_inputs(num_rows: int, size: int) -> tuple[ArraySpec, ...]:
    return *_rope_inputs(num_rows, size), weight(HEAD_DIM), weight(HEAD_DIM)


def _insert_inputs(num_rows: int, size: int) -> tuple[ArraySpec, ...]:
    """With caches of as many slots as there are rows: each is written once."""
    block_size = math.gcd(num_rows, CACHE_BLOCK)
    cache = ArraySpec((num_rows // block_size, block_size, HEADS_KV, HEAD_DIM), "bfloat16")
    return *_rope_inputs(num_rows, size), cache, cache, ArraySpec((num_rows,), "int32")


def _workloads() -> Iterator[Workload]:
    ways = {
        "gemma_rmsnorm_heads": _inputs,
        "gemma_rmsnorm_rope_heads": _rope_inputs,
        "gemma_rmsnorm_rope_kv_insert": _insert_inputs,
    }
    for op, inputs_of in ways.items():
        at = partial(Workload, op, inputs_of=inputs_of)
        yield at(*QKV_PREFILL)
        for num_rows in (1, 64):
            yield at(f"packed QK norm decode, M = {num_rows}", num_rows, QKV_SIZE, small=True)
    yield Workload("gemma_rmsnorm_rope_heads", *INDEX_PREFILL, _index_inputs)


WORKLOADS = tuple(_workloads())
