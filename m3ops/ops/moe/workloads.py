"""MiniMax-M3's choice of experts."""

from __future__ import annotations

from functools import partial

from m3ops.array import ArraySpec
from m3ops.testing.model import EXPERTS, ROUTER_PREFILL
from m3ops.testing.workload import Workload


def _route(num_rows: int, size: int) -> tuple[ArraySpec, ...]:
    return ArraySpec((num_rows, size), "float32"), ArraySpec((size,), "float32")


_route_at = partial(Workload, "moe_route", inputs_of=_route)

WORKLOADS = (
    _route_at(*ROUTER_PREFILL),
    *(_route_at(f"router decode, M = {num_rows}", num_rows, EXPERTS, small=True) for num_rows in (1, 64)),
)
