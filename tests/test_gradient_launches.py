"""Gradients do not depend on tiles and warps, and PyTorch's checks of operators hold for them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch_launch
from backends import interpreted, no_gpu, planned, specs_of
from compare import assert_same_bytes
from differentiable import arguments, cotangents, every_differentiable_op, expected, floats

import m3ops_torch
from m3ops.op import bind
from m3ops.ops import EVERY_OP, OPS
from m3ops.plan import Launch, Plan
from m3ops.testing.arrays import normal
from m3ops.tools.run import to_numpy, to_tensor

OP = EVERY_OP["gemma_rmsnorm_backward"].of()


def operands(rows: int, size: int) -> dict[str, np.ndarray]:
    arrays = [normal((rows, size), "float32"), normal((size,), "float32", 0.5), normal((rows, size), "float32", 2.0)]
    return bind(OP, arrays)


def changed(plan: Plan, change: Callable[[Launch], Launch]) -> Plan:
    """The plan with a change to its first launch, which reads the rows."""
    first, *others = plan.launches
    return dataclasses.replace(plan, launches=(change(first), *others))


@pytest.mark.parametrize("cols", [32, 128, 512])
def test_any_tile_gives_the_same_gradients(cols: int) -> None:
    inputs = operands(5, 300)

    def narrowed(first: Launch) -> Launch:
        tile = dataclasses.replace(first.constants["TILE"], cols=cols, parts=-(-300 // cols))
        return dataclasses.replace(first, constants={**first.constants, "TILE": tile})

    forced = changed(planned(OP, inputs), narrowed)
    assert_same_bytes(interpreted(OP, inputs, forced), [*OP.reference(inputs).values()])


@pytest.mark.gpu
@pytest.mark.skipif(no_gpu() is not None, reason=str(no_gpu()))
@pytest.mark.parametrize(("rows", "size"), [(700, 128), (37, 1500), (50, 6144)])
def test_any_number_of_warps_gives_the_same_gradients(rows: int, size: int) -> None:
    inputs = operands(rows, size)
    plan = planned(OP, inputs, torch_launch.target())
    tensors = {name: to_tensor(array, "cuda") for name, array in inputs.items()}
    for warps in (1, 2, 4, 8, 16):
        results = torch_launch.empty(OP.check(specs_of(inputs)))
        forced = dataclasses.replace(
            plan, launches=tuple(dataclasses.replace(one, num_warps=warps) for one in plan.launches)
        )
        torch_launch.launch(forced, {**tensors, **results})
        assert_same_bytes([to_numpy(result) for result in results.values()], [*OP.reference(inputs).values()])


@every_differentiable_op
def test_torch_compile(name: str) -> None:
    inputs = arguments(name)
    grads = cotangents(name, inputs)
    tensors = [*map(to_tensor, inputs)]
    leaves = [tensor.requires_grad_() for tensor in floats(tensors)]
    results = floats(torch.compile(getattr(m3ops_torch, name), fullgraph=True)(*tensors))
    got = torch.autograd.grad(results, leaves, [to_tensor(g) for g in grads])
    assert_same_bytes([to_numpy(g) for g in got], expected(name, inputs, grads))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # PyTorch's own access to it
@every_differentiable_op
def test_opcheck(name: str) -> None:
    params = dataclasses.asdict(OPS[name].of())
    tensors = tuple(map(to_tensor, arguments(name)))
    for tensor in floats(tensors):
        tensor.requires_grad_()
    checks = ["test_schema", "test_autograd_registration", "test_faketensor"]
    if name != "moe_route":  # it would add the sum of weights to that of ids, in place
        checks.append("test_aot_dispatch_dynamic")
    torch.library.opcheck(getattr(torch.ops.m3ops, name).default, tensors, params, test_utils=checks)
