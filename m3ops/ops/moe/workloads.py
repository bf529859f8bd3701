"""MiniMax-M3's choice of experts, and the sum of what they return."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from m3ops.array import ArraySpec
from m3ops.testing.model import (
    COMBINE_PREFILL,
    COMBINE_TRAINING,
    EXPERT_ROWS,
    EXPERTS,
    HIDDEN,
    ROUTER_PREFILL,
    ROUTER_TRAINING,
    TOKENS,
    TOP_K,
)
from m3ops.testing.workload import Workload, rows


def _logits(num_rows: int, size: int) -> tuple[ArraySpec, ...]:
    return rows(num_rows, HIDDEN), ArraySpec((size, HIDDEN), "float32")


def _logits_backward(num_rows: int, size: int) -> tuple[ArraySpec, ...]:
    return *_logits(num_rows, size), ArraySpec((num_rows, size), "float32")


def _route(num_rows: int, size: int) -> tuple[ArraySpec, ...]:
    return ArraySpec((num_rows, size), "float32"), ArraySpec((size,), "float32")


def _route_backward(num_rows: int, size: int) -> tuple[ArraySpec, ...]:
    return *_route(num_rows, size), ArraySpec((num_rows, TOP_K), "float32")


def _combine_routed(num_rows: int, size: int) -> tuple[ArraySpec, ...]:
    slots = (num_rows, TOP_K)
    return rows(TOP_K * num_rows, size), ArraySpec(slots, "int32"), ArraySpec(slots, "float32")


def _combine(num_rows: int, size: int) -> tuple[ArraySpec, ...]:
    return *_combine_routed(num_rows, size), rows(num_rows, size)


def _sort(num_rows: int, size: int) -> tuple[ArraySpec, ...]:
    return (ArraySpec((num_rows, TOP_K), "int32"),)


def _scatter(num_rows: int, size: int) -> tuple[ArraySpec, ...]:
    tokens = max(num_rows // TOP_K, 1)
    return rows(tokens, size), ArraySpec((tokens, TOP_K), "int32")


def _tokens_of_rows(inputs: Any, some: np.ndarray) -> tuple[Any, ...]:
    """The tokens of some rows of the result, each written to one."""
    x, slots = inputs
    return x[np.argsort(slots.ravel())[some] // slots.shape[1]], np.arange(len(some), dtype=np.int32)[:, None]


def _named_rows(inputs: Any, _: np.ndarray) -> tuple[Any, ...]:
    """The operands with no rows of y but those that slots name."""
    y, slots, *others = inputs
    return y[slots.ravel()], np.arange(slots.size, dtype=np.int32).reshape(slots.shape), *others


def _workloads() -> Iterator[Workload]:
    logits = partial(Workload, "moe_logits", inputs_of=_logits)
    yield logits("router's product prefill", TOKENS, EXPERTS)
    for num_rows in (1, 64):
        yield logits(f"router's product decode, M = {num_rows}", num_rows, EXPERTS, small=True)
    yield Workload("moe_logits_backward", "router's product training step", TOKENS, EXPERTS, _logits_backward)
    route = partial(Workload, "moe_route", inputs_of=_route)
    yield route(*ROUTER_PREFILL)
    for num_rows in (1, 64):
        yield route(f"router decode, M = {num_rows}", num_rows, EXPERTS, small=True)
    yield Workload("moe_route_backward", *ROUTER_TRAINING, _route_backward)
    combine = partial(Workload, "moe_combine", inputs_of=_combine)
    name, num_rows, size = COMBINE_PREFILL
    yield combine(name, num_rows, size)
    yield Workload("moe_combine", f"{name}, no shared expert", num_rows, size, _combine_routed)
    name, num_rows, size = COMBINE_TRAINING
    yield Workload("moe_combine_backward", name, num_rows, size, _combine, some_rows=_named_rows)
    for num_rows in (8192, 256, 16, 1):
        name, given = f"experts' order, M = {num_rows}", {"num_experts": EXPERTS}
        small = num_rows < 8192
        yield Workload("moe_sort", name, num_rows, EXPERTS, _sort, given, small=small, below=EXPERTS)
    for num_rows in (1, 64):
        yield combine(f"MoE output decode, M = {num_rows}", num_rows, HIDDEN, small=True)
    scatter = partial(Workload, "moe_scatter_quantize", inputs_of=_scatter, some_rows=_tokens_of_rows)
    yield scatter("MoE input prefill", EXPERT_ROWS, HIDDEN)
    for num_rows in (1, 64):
        yield scatter(f"MoE input decode, M = {num_rows}", TOP_K * num_rows, HIDDEN, small=True)


WORKLOADS = tuple(_workloads())
