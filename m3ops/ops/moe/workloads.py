"""MiniMax-M3's choice of experts, and the sum of what they return."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from m3ops.array import ArraySpec
from m3ops.testing.model import COMBINE_PREFILL, EXPERTS, HIDDEN, ROUTER_PREFILL, ROUTER_TRAINING, TOP_K
from m3ops.testing.workload import Workload, rows


def _route(num_rows: int, size: int) -> tuple[ArraySpec, ...]:
    return ArraySpec((num_rows, size), "float32"), ArraySpec((size,), "float32")


def _route_backward(num_rows: int, size: int) -> tuple[ArraySpec, ...]:
    return *_route(num_rows, size), ArraySpec((num_rows, TOP_K), "float32")


def _combine(num_rows: int, size: int) -> tuple[ArraySpec, ...]:
    slots = (num_rows, TOP_K)
    return rows(TOP_K * num_rows, size), ArraySpec(slots, "int32"), ArraySpec(slots, "float32")


def _combine_add(num_rows: int, size: int) -> tuple[ArraySpec, ...]:
    return *_combine(num_rows, size), rows(num_rows, size)


def _workloads() -> Iterator[Workload]:
    route = partial(Workload, "moe_route", inputs_of=_route)
    yield route(*ROUTER_PREFILL)
    for num_rows in (1, 64):
        yield route(f"router decode, M = {num_rows}", num_rows, EXPERTS, small=True)
    yield Workload("moe_route_backward", *ROUTER_TRAINING, _route_backward)
    for op, inputs in (("moe_combine", _combine), ("moe_combine_add", _combine_add)):
        at = partial(Workload, op, inputs_of=inputs)
        yield at(*COMBINE_PREFILL)
        for num_rows in (1, 64):
            yield at(f"MoE output decode, M = {num_rows}", num_rows, HIDDEN, small=True)


WORKLOADS = tuple(_workloads())
