"""Gradients do not depend on tiles and warps, and PyTorch's checks of operators hold for them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from backends import array_spec, no_gpu, poisoned
from compare import assert_same_bytes
from differentiable import arguments, cotangents, every_differentiable_op, expected
from interpreter import launch

import m3ops_torch
from m3ops.cases.case import normal
from m3ops.cases.run import flat, to_numpy, to_tensor
from m3ops.op import LaunchPlan
from m3ops.ops import EVERY_OP, OPS
from m3ops.target import Target
from m3ops_torch import _launch

NAME = "gemma_rmsnorm_backward"


def planned(arrays: list[np.ndarray], target: Target) -> LaunchPlan:
    specs, op = tuple(map(array_spec, arrays)), EVERY_OP[NAME]
    return op.plan(specs, op.infer(*specs, **op.filled({})), op.filled({}), target)


def operands(rows: int, size: int) -> list[np.ndarray]:
    return [normal((rows, size), "float32"), normal((size,), "float32", 0.5), normal((rows, size), "float32", 2.0)]


@pytest.mark.parametrize("cols", [32, 128, 512])
def test_any_tile_gives_the_same_gradients(cols: int) -> None:
    arrays = operands(5, 300)
    want = EVERY_OP[NAME].reference(*arrays, eps=1e-6)
    plan = planned(arrays, Target("nvidia", "sm_90", 132))
    forced = dataclasses.replace(plan, constants={**plan.constants, "COLS": cols, "TILES": -(-300 // cols)})
    results = [poisoned(spec) for spec in map(array_spec, want)]
    for one in forced.launches(arrays, results, poisoned):
        launch(*one)
    assert_same_bytes(results, want)


@pytest.mark.gpu
@pytest.mark.skipif(no_gpu() is not None, reason=str(no_gpu()))
@pytest.mark.parametrize(("rows", "size"), [(700, 128), (37, 1500), (50, 6144)])
def test_any_number_of_warps_gives_the_same_gradients(rows: int, size: int) -> None:
    arrays = operands(rows, size)
    want = EVERY_OP[NAME].reference(*arrays, eps=1e-6)
    plan = planned(arrays, _launch.target_of(torch.device("cuda", 0)))
    for warps in (1, 2, 4, 8, 16):
        inputs = [to_tensor(a, "cuda") for a in arrays]
        results = _launch.allocate([array_spec(a) for a in want], torch.device("cuda", 0))
        forced = dataclasses.replace(plan, num_warps=warps)
        for one, given, made in forced.launches(
            inputs, results, lambda spec: _launch.allocate([spec], torch.device("cuda", 0))[0]
        ):
            one.kernel[(one.grid,)](*given, one.num_rows, *made, **one.constants, num_warps=one.num_warps)
        assert_same_bytes([to_numpy(r) for r in results], want)


@every_differentiable_op
def test_torch_compile(name: str) -> None:
    inputs = arguments(name)
    grads = cotangents(name, inputs)
    tensors = [to_tensor(a).requires_grad_() for a in inputs]
    results = flat(torch.compile(getattr(m3ops_torch, name), fullgraph=True)(*tensors))
    got = torch.autograd.grad(results, tensors, [to_tensor(g) for g in grads])
    assert_same_bytes([to_numpy(g) for g in got], expected(name, inputs, grads))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # PyTorch's own access to it
@every_differentiable_op
def test_opcheck(name: str) -> None:
    params = {k: "bfloat16" if k == "out_dtype" else p.default for k, p in OPS[name].params.items()}
    tensors = tuple(to_tensor(a).requires_grad_() for a in arguments(name))
    checks = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
    torch.library.opcheck(getattr(torch.ops.m3ops, name).default, tensors, params, test_utils=checks)
