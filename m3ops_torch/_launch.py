"""Launches an op's plan on a CUDA or HIP device, on the current stream of the current device."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch

from m3ops.plan import Launch, Plan
from m3ops.target import Target

Launcher = Callable[[Sequence[torch.Tensor]], None]
"""Launches a compiled kernel on tensors of the kind that it was compiled for, in the order in which they were given."""


def launch(plan: Plan, names: Sequence[str], tensors: Sequence[torch.Tensor]) -> list[Launcher]:
    """Launches a plan by way of Triton, which compiles what it has not yet, and returns how to do so again.

    Args:
        plan: The plan.
        names: What the plan calls the tensors.
        tensors: Operands, results and scratch memory.
    """
    arrays = {name: _raw(tensor) for name, tensor in zip(names, tensors, strict=True)}
    overlaps = target_of(tensors[0].device).overlaps_launches
    return [_launched(part.overlapping() if overlaps else part, arrays) for part in plan.launches]


def _launched(launch: Launch, arrays: dict[str, torch.Tensor]) -> Launcher:
    compiled = launch.kernel[launch.grid](**launch.bound(arrays), **launch.constants, **launch.compiler_options)
    places = {name: _Place(number) for number, name in enumerate(arrays)}
    return _launcher(compiled[(*launch.grid, 1, 1)[:3]], launch.ordered(places))


class _Place(int):
    """The number of a tensor, where arguments of a kernel are listed."""


def _launcher(compiled: Callable[..., None], arguments: list[Any]) -> Launcher:
    """A launcher that asks tensors for nothing but their address: all else is as it was in the first launch."""
    places = [(position, value) for position, value in enumerate(arguments) if isinstance(value, _Place)]

    def launch(tensors: Sequence[torch.Tensor]) -> None:
        given = arguments.copy()
        for position, number in places:
            given[position] = tensors[number]
        compiled(*given)

    return launch


def _raw(tensor: torch.Tensor) -> torch.Tensor:
    """8-bit floats reach a kernel as bytes: not every target and Triton release has a pointer type for each."""
    return tensor.view(torch.uint8) if tensor.dtype.is_floating_point and tensor.itemsize == 1 else tensor


@functools.cache
def target_of(device: torch.device) -> Target:
    """The target of a CUDA or HIP device."""
    properties = torch.cuda.get_device_properties(device)
    if torch.version.hip:
        return Target("amd", properties.gcnArchName.split(":")[0], properties.multi_processor_count)
    return Target("nvidia", f"sm_{properties.major}{properties.minor}", properties.multi_processor_count)
