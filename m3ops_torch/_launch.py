"""Launches an op's plan on a CUDA or HIP device.

What a call needs besides allocating and launching (output shapes, plan, compiled kernel) depends only on the layouts of
its tensors and on its parameters, and is kept from one call to the next.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from m3ops.op import COMPILER_OPTIONS, ArraySpec, LaunchPlan, Op
from m3ops.row_count import keeping
from m3ops.target import Target

MOST_KEPT = 4096
"""Kinds of calls that are remembered; a serving loop has one for each op and batch size."""


class Layout(NamedTuple):
    """All of a tensor but its address and data."""

    shape: torch.Size
    strides: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @property
    def spec(self) -> ArraySpec:
        return ArraySpec(tuple(self.shape), str(self.dtype).removeprefix("torch."), self.strides)


def layout_of(tensor: torch.Tensor) -> Layout:
    return Layout(tensor.shape, tensor.stride(), tensor.dtype, tensor.device)


def run(op: Op, *tensors: torch.Tensor, **params: Any) -> list[torch.Tensor]:
    """The GPU implementation of an op."""
    return list(_launch_of(op, tensors, params)(tensors))


def run_out(op: Op, *tensors: torch.Tensor, out: list[torch.Tensor], **params: Any) -> None:
    """The GPU implementation of an op that writes into ``out``."""
    _launch_of(op, tensors, params, out)(tensors, out)


def key_of(op_name: str, tensors: Sequence[Any], params: Mapping[str, Any]) -> tuple[Any, ...] | None:
    """What tells one kind of call from another, types of parameters included; None for a call that is not direct.

    Direct is a call whose way through PyTorch's dispatcher nobody would notice: on plain tensors of a GPU, with no
    dispatch mode (fake tensors, counters), function transform, profiler or derivative at work.
    """
    if (
        torch._C._len_torch_dispatch_stack()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch._C._autograd._profiler_enabled()
        or torch.autograd.forward_ad._current_level >= 0
    ):
        return None
    key: list[Any] = [op_name]
    for t in tensors:
        if (type(t) is not torch.Tensor and type(t) is not torch.nn.Parameter) or not t.is_cuda:
            return None
        if t.requires_grad and torch.is_grad_enabled():
            return None
        key += (t.shape, t.stride(), t.dtype, t.device, _pointer_facts(t))
    values = params.values()
    return (*key, *values, *map(type, values))


kept: dict[tuple[Any, ...], _Launch] = {}
"""Launches of direct calls, by :func:`key_of`."""


def keep(
    key: tuple[Any, ...],
    op: Op,
    tensors: Sequence[torch.Tensor],
    params: Mapping[str, Any],
    out: Sequence[torch.Tensor] = (),
) -> None:
    """Keeps the launch of a call that was valid, for the next calls of its kind."""
    if len(kept) >= MOST_KEPT:
        kept.clear()
    kept[key] = _launch_of(op, tensors, params, out)


def _launch_of(
    op: Op, tensors: Sequence[torch.Tensor], params: Mapping[str, Any], out: Sequence[torch.Tensor] = ()
) -> _Launch:
    pointers = tuple(map(_pointer_facts, (*tensors, *out)))
    layouts = tuple(map(layout_of, tensors)), tuple(map(layout_of, out))
    return _prepare(op, *layouts, pointers, target_of(tensors[0].device), **params)


def allocate(outputs: Sequence[ArraySpec], device: torch.device) -> list[torch.Tensor]:
    """Uninitialized tensors for these specs."""
    return [torch.empty(spec.shape, dtype=getattr(torch, spec.dtype), device=device) for spec in outputs]


def _pointer_facts(tensor: torch.Tensor) -> tuple[bool, ...]:
    """What Triton specializes kernels by: alignment to 16 bytes; for AMD, whether 32-bit offsets reach all of it."""
    aligned = tensor.data_ptr() % 16 == 0
    return (aligned, tensor.untyped_storage().nbytes() < 2**31) if torch.version.hip else (aligned,)


class _Launch:
    """What does not change between calls of one kind; ``plan`` is None where there is nothing to compute."""

    def __init__(self, outputs: tuple[ArraySpec, ...], plan: LaunchPlan | None) -> None:
        self.outputs = outputs
        self.plan = plan
        self._starts: list[tuple[Callable[..., None], tuple[Any, ...], tuple[Any, ...]]] = []

    def __call__(
        self, tensors: Sequence[torch.Tensor], results: Sequence[torch.Tensor] | None = None
    ) -> Sequence[torch.Tensor]:
        """Launches on the current stream of the tensors' device, into new results unless some are given."""
        device = tensors[0].device
        if results is None:
            results = allocate(self.outputs, device)
        if self.plan is None:
            return results
        if device.index == torch.cuda.current_device():
            self._launch(tensors, results)
        else:
            with torch.cuda.device(device):
                self._launch(tensors, results)
        return results

    def _launch(self, tensors: Sequence[torch.Tensor], results: Sequence[torch.Tensor]) -> None:
        assert self.plan is not None
        launches = self.plan.launches(tensors, results, lambda spec: allocate((spec,), tensors[0].device)[0])
        if self._starts:  # these ask tensors for nothing but their address: each is aligned as that of the first call
            for (start, between, constants), (_, inputs, outputs) in zip(self._starts, launches, strict=True):
                start(*inputs, *between, *outputs, *constants)
            return
        for plan, inputs, outputs in launches:
            raw = plan.arguments(list(map(_to_raw, inputs)), list(map(_to_raw, outputs)))
            kernel = plan.kernel[(plan.grid,)]
            compiled = kernel(*raw, **plan.constants, num_warps=plan.num_warps, **COMPILER_OPTIONS)
            between = plan.arguments((), ())  # with a None where all rows count, and another at the end for LIVE
            constants = (*plan.constants.values(), *between[:-1])
            self._starts.append((compiled[(plan.grid, 1, 1)], between, constants))


@functools.lru_cache(maxsize=MOST_KEPT, typed=True)
def _prepare(
    op: Op,
    layouts: tuple[Layout, ...],
    out: tuple[Layout, ...],
    pointers: tuple[tuple[bool, ...], ...],
    target: Target,
    **params: Any,
) -> _Launch:
    inputs = tuple(layout.spec for layout in layouts)
    outputs = tuple(layout.spec for layout in out) or op.infer(*inputs, **params)
    plan = op.plan(inputs, outputs, params, target) if any(spec.size for spec in outputs) else None
    return _Launch(outputs, keeping(plan) if plan is not None and plan.counted and out else plan)


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
