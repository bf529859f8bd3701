"""``moe_sort`` in both front ends: slots by expert, and how many each expert has."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from backends import no_gpu

import m3ops_jax
import m3ops_torch
from m3ops.testing.arrays import random_bits

Results = list[np.ndarray]


def some_ids(shape: tuple[int, ...], low: int, high: int) -> np.ndarray:
    """Random ids, ``high`` not among them."""
    bits = random_bits(shape, f"ids {shape}") % np.uint64(high - low)
    return bits.astype(np.int32) + np.int32(low)


IDS = {
    "random": (some_ids((37, 4), 0, 16), 16),
    "experts without a slot": (some_ids((9, 4), 3, 7), 128),
    "one expert": (np.zeros((5, 2), np.int32), 1),
    "all tokens to one expert": (np.full((40, 4), 5, np.int32), 8),
    "no tokens": (np.zeros((0, 4), np.int32), 8),
    "no slots": (np.zeros((3, 0), np.int32), 8),
    "one token": (np.array([[3, 0, 2, 1]], np.int32), 4),
    "experts of other devices": (some_ids((23, 4), -1, 9), 4),
    "none of these experts": (np.array([[-1, 4, -(2**31), 2**31 - 1]], np.int32), 4),
    "one axis": (some_ids((11,), 0, 3), 3),
    "three axes": (some_ids((2, 3, 4), 0, 6), 6),
    "a transposed view": (some_ids((4, 12), 0, 6).T, 6),
    "many": (some_ids((4096, 4), 0, 128), 128),
}
every_kind = pytest.mark.parametrize(("ids", "num_experts"), IDS.values(), ids=IDS)


def expected(ids: np.ndarray, num_experts: int) -> Results:
    """One slot after the other, expert by expert."""
    flat = ids.ravel().tolist()
    of_experts = [[slot for slot, of in enumerate(flat) if of == expert] for expert in range(num_experts)]
    others = [slot for slot, of in enumerate(flat) if not 0 <= of < num_experts]
    order = [slot for slots in (*of_experts, others) for slot in slots]
    slots = np.zeros(len(flat), np.int32)
    for place, slot in enumerate(order):
        slots[slot] = place
    return [np.array(order, np.int32), slots.reshape(ids.shape), np.array([*map(len, of_experts)], np.int32)]


def in_torch(sort: Callable[..., Any], ids: np.ndarray, num_experts: int) -> Results:
    return [result.numpy() for result in sort(torch.from_numpy(ids), num_experts)]


def in_jax(sort: Callable[..., Any], ids: np.ndarray, num_experts: int) -> Results:
    return [np.asarray(result) for result in sort(jnp.asarray(ids), num_experts)]


WAYS: dict[str, Callable[[np.ndarray, int], Results]] = {
    "torch": partial(in_torch, m3ops_torch.moe_sort),
    "torch, captured whole": partial(
        in_torch, torch.compile(m3ops_torch.moe_sort, fullgraph=True, backend="aot_eager", dynamic=True)
    ),
    "jax": partial(in_jax, m3ops_jax.moe_sort),
    "jax, jit": partial(in_jax, jax.jit(m3ops_jax.moe_sort, static_argnums=1)),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@every_kind
def test_slots_by_expert(ids: np.ndarray, num_experts: int, way: Callable[[np.ndarray, int], Results]) -> None:
    for got, want in zip(way(ids, num_experts), expected(ids, num_experts), strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want)


@pytest.mark.filterwarnings("ignore:torch.searchsorted")  # it copies what vmap repeats for each example
@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_vmap(framework: str) -> None:
    ids = IDS["three axes"][0]
    if framework == "torch":
        results = torch.func.vmap(partial(m3ops_torch.moe_sort, num_experts=6))(torch.from_numpy(ids))
    else:
        results = jax.vmap(partial(m3ops_jax.moe_sort, num_experts=6))(ids)
    for example in range(2):
        for got, want in zip(results, expected(ids[example], 6), strict=True):
            np.testing.assert_array_equal(np.asarray(got[example]), want)


@pytest.mark.gpu
@pytest.mark.skipif(no_gpu() is not None, reason=str(no_gpu()))
def test_a_graph_replays_with_other_ids() -> None:
    ids, num_experts = IDS["many"]
    given = torch.from_numpy(ids).cuda()
    m3ops_torch.moe_sort(given, num_experts)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = m3ops_torch.moe_sort(given, num_experts)
    for changed in (ids, np.full_like(ids, 5), some_ids(ids.shape, -1, 9)):
        given.copy_(torch.from_numpy(changed))
        graph.replay()
        torch.cuda.synchronize()
        for got, want in zip(results, expected(changed, num_experts), strict=True):
            np.testing.assert_array_equal(got.cpu().numpy(), want)
