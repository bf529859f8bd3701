"""Launches an op's plan on a CUDA or HIP device."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch

from m3ops.op import ArraySpec, Op
from m3ops.target import Target


def run(op: Op, *tensors: torch.Tensor, **params: Any) -> list[torch.Tensor]:
    """The GPU implementation of an op: allocate, plan, launch."""
    inputs = tuple(spec_of(t) for t in tensors)
    outputs = op.infer(*inputs, **params)
    results = allocate(outputs, tensors[0].device)
    if any(spec.size for spec in outputs):
        plan = op.plan(inputs, outputs, params, target_of(tensors[0].device))
        with torch.cuda.device(tensors[0].device):
            plan.kernel[(plan.grid,)](
                *map(_to_raw, tensors),
                plan.num_rows,
                *map(_to_raw, results),
                **plan.constants,
                num_warps=plan.num_warps,
                num_stages=1,
            )
    return results


def spec_of(tensor: torch.Tensor) -> ArraySpec:
    return ArraySpec(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), tensor.stride())


def allocate(outputs: Sequence[ArraySpec], device: torch.device) -> list[torch.Tensor]:
    """Uninitialized tensors for these specs."""
    return [torch.empty(spec.shape, dtype=getattr(torch, spec.dtype), device=device) for spec in outputs]


@functools.cache
def target_of(device: torch.device) -> Target:
    """The target of a CUDA or HIP device."""
    properties = torch.cuda.get_device_properties(device)
    if torch.version.hip:
        return Target("amd", properties.gcnArchName.split(":")[0], properties.multi_processor_count)
    return Target("nvidia", f"sm_{properties.major}{properties.minor}", properties.multi_processor_count)


def _to_raw(tensor: torch.Tensor) -> torch.Tensor:
    """8-bit floats reach a kernel as bytes: not every target and Triton release has a pointer type for each."""
    return tensor.view(torch.uint8) if tensor.dtype.is_floating_point and tensor.itemsize == 1 else tensor
