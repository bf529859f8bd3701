"""``out=``: results written into tensors that the caller has, checked before anything is launched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.autograd import forward_ad
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from m3ops import validate
from m3ops.op import Op
from m3ops_torch._launch import layout_of


def flattened(out: Any) -> list[Any]:
    """The tensors of ``out``, which is one tensor or a tuple of tensors and tuples, as the result is."""
    if isinstance(out, tuple | list):
        return [tensor for part in out for tensor in flattened(part)]
    return [out]


def check(op: Op, tensors: Sequence[torch.Tensor], out: Sequence[Any], params: Mapping[str, Any]) -> None:
    """Raises unless the op, whose inputs are valid, can write its results there."""
    wanted = op.infer(*(layout_of(tensor).spec for tensor in tensors), **params)
    if len(out) != len(wanted):
        raise ValueError(f"out must hold {len(wanted)} tensors, as the result does, got {len(out)}")
    for name, tensor, spec in zip(_names(out), out, wanted, strict=True):
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"{name} must be an array, got {type(tensor).__name__}")
        validate.output(name, layout_of(tensor).spec, spec, contiguous_only=op.core_rank(params) > 1)
        if tensor.device != tensors[0].device:
            raise ValueError(
                f"{name} must be on the device of {op.inputs[0]}, {tensors[0].device}, got {tensor.device}"
            )
    if _differentiated((*tensors, *out)):
        raise ValueError("out has no derivative: call under torch.no_grad(), or with tensors that require none")
    for name, tensor in zip((*op.inputs, *_names(out)), (*tensors, *out), strict=True):
        if torch._C._functorch.is_batchedtensor(tensor):
            raise ValueError("out has no rule for torch.func.vmap: call on all examples, their axis a leading one")
        if is_traceable_wrapper_subclass(tensor):
            raise ValueError(f"{name} must be a plain tensor where out is given, got {type(tensor).__name__}")


def _differentiated(tensors: Sequence[torch.Tensor]) -> bool:
    """Whether a derivative would go through the call, backward or forward."""
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return True
    forward = forward_ad._current_level >= 0
    return forward and any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors)


def check_overlap(op: Op, tensors: Sequence[torch.Tensor], out: Sequence[torch.Tensor]) -> None:
    """Raises if a result would be written where something else is, but for in-place use that the op allows."""
    names = _names(out)
    outputs = [(name, tensor, *_extent(tensor)) for name, tensor in zip(names, out, strict=True)]
    for number, (name, tensor, start, end) in enumerate(outputs):
        for other_name, _, other_start, other_end in outputs[:number]:
            if start < other_end and other_start < end:
                raise ValueError(f"{name} must not overlap {other_name}")
        for input_name, other in zip(op.inputs, tensors, strict=True):
            other_start, other_end = _extent(other)
            if start < other_end and other_start < end and not _in_place(op, tensor, input_name, other):
                same = ", unless it is the same tensor" if op.in_place and input_name not in op.shared else ""
                raise ValueError(f"{name} must not overlap {input_name}{same}")


def _in_place(op: Op, result: torch.Tensor, name: str, given: torch.Tensor) -> bool:
    """Whether a result takes the place of an input, element by element, and the op reads it before it writes."""
    same = result.data_ptr() == given.data_ptr() and layout_of(result) == layout_of(given)
    return same and op.in_place and name not in op.shared


def _extent(tensor: torch.Tensor) -> tuple[int, int]:
    """The first byte and that after the last; an empty tensor has none."""
    start = tensor.data_ptr()
    if tensor.numel() == 0:
        return start, start
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return start, start + (last + 1) * tensor.itemsize


def _names(out: Sequence[Any]) -> list[str]:
    return [f"out[{number}]" for number in range(len(out))] if len(out) > 1 else ["out"]
