"""``moe_sort`` beside a loop, in transformations, and with as many slots a program as a small GPU gives it."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from backends import H100, interpreted, no_gpu, planned
from compare import assert_same_bytes
from rocm import torch_device
from test_torch import arrays

import m3ops_jax
import m3ops_torch
from m3ops.array import ArraySpec
from m3ops.ops.moe import MoESort
from m3ops.ops.moe.cases_sort import CASES, some_ids
from m3ops.target import Target
from m3ops.testing.case import Case
from m3ops.tools.run import to_tensor
from m3ops_jax._call import run as in_jax
from m3ops_torch import _launch
from m3ops_torch._call import run as in_torch

Results = list[np.ndarray]
MANY = some_ids((600, 4), -1, 17)
"""Slots that are counted."""


def expected(ids: np.ndarray, num_experts: int, *, tokens: bool = False) -> Results:
    """One slot after the other, expert by expert."""
    of_experts: list[list[int]] = [[] for _ in range(num_experts + 1)]
    for slot, expert in enumerate(ids.ravel().tolist()):
        of_experts[expert if 0 <= expert < num_experts else num_experts].append(slot)
    order = [slot for slots in of_experts for slot in slots]
    slots = np.zeros(ids.size, np.int32)
    slots[order] = np.arange(ids.size, dtype=np.int32)
    sizes = [len(slots) for slots in of_experts[:num_experts]]
    order = [slot // ids.shape[-1] for slot in order] if tokens else order
    return [np.array(order, np.int32), slots.reshape(ids.shape), np.array(sizes, np.int32)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_specification_is_a_loop(case: Case) -> None:
    (ids,) = case.make()
    assert_same_bytes(case.expected(), expected(ids, **case.given))


def test_the_specification_takes_milliseconds() -> None:
    """Forty times what it takes, of the processor."""
    ids = some_ids((8192, 4), 0, 128)
    begun = time.process_time()
    MoESort.of(num_experts=128).reference({"ids": ids})
    assert time.process_time() - begun < 0.3


@pytest.mark.parametrize("multiprocessors", [1, 2, 8])
def test_several_hundred_slots_a_program(multiprocessors: int) -> None:
    op, ids = MoESort.of(num_experts=16), {"ids": MANY}
    plan = planned(op, ids, replace(H100, multiprocessors=multiprocessors))
    assert plan.launches[1].grid <= (multiprocessors,)
    assert_same_bytes(interpreted(op, ids, plan), expected(MANY, 16))


@pytest.mark.parametrize("arch", ["gfx942", "gfx950"])
def test_several_hundred_slots_a_program_on_amd(arch: str) -> None:
    small = replace(Target.named(arch), multiprocessors=2)
    with torch_device.device(arch), mock.patch.object(_launch, "target_of", return_value=small):
        assert_same_bytes(arrays(m3ops_torch.moe_sort(to_tensor(MANY), 16)), expected(MANY, 16))


def test_programs_and_scratch_stay_few() -> None:
    """Whatever the numbers of slots and experts: each program reads what all have counted."""
    for slots, experts in ((2049, 128), (32768, 128), (2**20, 128), (2**27, 1), (40000, 1024), (2**24, 4096)):
        op, ids = MoESort.of(num_experts=experts), {"ids": ArraySpec((slots,), "int32")}
        plan = op.plan({**ids, **op.check(ids)}, H100)
        assert plan.launches[1].grid <= (H100.multiprocessors,)
        assert plan.scratch["counts"].size <= 2**18


def test_more_slots_than_a_kernel_numbers() -> None:
    op, ids = MoESort.of(num_experts=8), {"ids": ArraySpec((2**29, 4), "int32")}
    with pytest.raises(ValueError, match=r"2147483648 slots are more than a kernel numbers \(2\*\*30\)"):
        op.plan({**ids, **op.check(ids)}, H100)


def test_a_kernel_is_the_same_for_other_numbers_of_tokens() -> None:
    """Their number is no part of what is compiled, from as many slots on as are compared at a time."""
    op = MoESort.of(num_experts=128)

    def constants(tokens: int) -> list[Any]:
        ids = {"ids": ArraySpec((tokens, 4), "int32")}
        return [launch.constants for launch in op.plan({**ids, **op.check(ids)}, H100).launches]

    assert constants(64) == constants(65) == constants(512)
    assert constants(513) == constants(10000)


@pytest.mark.parametrize(("run", "made"), [(in_torch, to_tensor), (in_jax, jnp.asarray)], ids=["torch", "jax"])
def test_rows_are_not_counted(run: Any, made: Any) -> None:
    """The public functions have no such argument."""
    with pytest.raises(TypeError, match="moe_sort takes no num_rows"):
        run(MoESort.of(num_experts=8), made(MANY), num_rows=made(np.ones(1, np.int32)))


# --- Transformations -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 2])
@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_vmap_sorts_each_example(framework: str, axis: int) -> None:
    ids = some_ids((2, 3, 4), 0, 6)
    if framework == "torch":
        results = torch.func.vmap(partial(m3ops_torch.moe_sort, num_experts=6), axis)(torch.from_numpy(ids))
    else:
        results = jax.vmap(partial(m3ops_jax.moe_sort, num_experts=6), axis)(ids)
    for example, own in enumerate(np.moveaxis(ids, axis, 0)):
        assert_same_bytes([np.asarray(result[example]) for result in results], expected(own, 6))


def test_one_graph_for_all_numbers_of_tokens() -> None:
    torch._dynamo.reset()
    compiled = torch.compile(m3ops_torch.moe_sort, fullgraph=True, backend="aot_eager", dynamic=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for tokens in (5, 17, 600):
            ids = some_ids((tokens, 4), -1, 9)
            assert_same_bytes(arrays(compiled(torch.from_numpy(ids), 8)), expected(ids, 8))


def test_a_program_for_any_number_of_tokens() -> None:
    (tokens,) = jax.export.symbolic_shape("tokens")
    sort = jax.jit(partial(m3ops_jax.moe_sort, num_experts=8))
    program = jax.export.export(sort, platforms=["cpu"])(jax.ShapeDtypeStruct((tokens, 4), np.int32))
    for number in (1, 7, 600):
        ids = some_ids((number, 4), -1, 9)
        assert_same_bytes([*map(np.asarray, program.call(ids))], expected(ids, 8))


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_a_gradient_goes_by(framework: str) -> None:
    """What is sorted by whole numbers alone has none, and does not keep that of the weights from passing."""
    logits, y = some_ids((5, 16), -9, 9).astype(np.float32), some_ids((20, 8), -3, 3).astype(np.float32)

    def loss(m: Any, logits: Any, y: Any, bias: Any) -> Any:
        ids, weights = m.moe_route(logits, bias)
        order, slots, _ = m.moe_sort(ids, 16)
        return m.moe_combine(y[order], slots, weights).sum()

    if framework == "jax":
        got = jax.jit(jax.grad(partial(loss, m3ops_jax), (0, 1)))(logits, y, jnp.zeros(16))
    else:
        leaves = [to_tensor(array).requires_grad_() for array in (logits, y)]
        loss(m3ops_torch, *leaves, torch.zeros(16)).backward()
        got = [leaf.grad for leaf in leaves]
    of_logits, of_y = map(np.asarray, got)
    assert of_logits.any()
    np.testing.assert_allclose(of_y.sum(axis=0), 2 * 5, rtol=1e-5)  # the weights of a token add up to 1


@pytest.mark.gpu
@pytest.mark.skipif(no_gpu() is not None, reason=str(no_gpu()))
@pytest.mark.parametrize("tokens", [1, 16, 256, 4096])
def test_a_graph_replays_with_other_ids(tokens: int) -> None:
    ids = some_ids((tokens, 4), 0, 128)
    given = torch.from_numpy(ids).cuda()
    m3ops_torch.moe_sort(given, 128)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = m3ops_torch.moe_sort(given, 128)
    for changed in (ids, np.full_like(ids, 5), some_ids(ids.shape, -1, 9)):
        given.copy_(torch.from_numpy(changed))
        graph.replay()
        torch.cuda.synchronize()
        assert_same_bytes([result.cpu().numpy() for result in results], expected(changed, 128))
