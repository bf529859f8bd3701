"""The operands of a call by name, as the core sees them, and memory for results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from m3ops.array import ArraySpec
from m3ops.op import Op, bind

Tensors = dict[str, torch.Tensor]
Specs = dict[str, ArraySpec]
Kinds = tuple[tuple[tuple[int, ...], torch.dtype], ...]
"""Shapes and dtypes of new tensors."""


def named(op: Op, tensors: Sequence[Any]) -> dict[str, Any]:
    """The operands by name. What is optional, ``num_rows`` too, may be None or missing at the end."""
    count = len(op.inputs)
    missing = (None,) * (count - len(tensors))
    return bind(op, (*tensors[:count], *missing), *tensors[count:])


def spec_of(tensor: torch.Tensor) -> ArraySpec:
    return ArraySpec(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), tensor.stride())


def require_tensors(arrays: Mapping[str, Any]) -> None:
    """Raises unless all of these are tensors."""
    for name, array in arrays.items():
        if not isinstance(array, torch.Tensor):
            kind = type(array)
            if kind.__module__ == "numpy":
                raise TypeError(f"{name} must be a tensor, got a NumPy {kind.__name__}: see torch.from_numpy")
            raise TypeError(f"{name} must be an array, got {kind.__name__}")


def check(op: Op, operands: Tensors) -> Specs:
    """Raises unless the op takes these operands, and returns what its results are like."""
    results = op.check({name: spec_of(tensor) for name, tensor in operands.items()})
    one_device(operands)
    return results


def one_device(tensors: Tensors) -> None:
    """Raises unless all are on the device of the first."""
    first, *others = tensors
    for name in others:
        same_device(name, tensors[name], first, tensors[first])


def same_device(name: str, tensor: torch.Tensor, other_name: str, other: torch.Tensor) -> None:
    """Raises unless both are on one device."""
    if tensor.device != other.device:
        raise ValueError(f"{name} must be on the device of {other_name}, {other.device}, got {tensor.device}")


def kinds_of(specs: Mapping[str, ArraySpec]) -> Kinds:
    return tuple((spec.shape, getattr(torch, spec.dtype)) for spec in specs.values())


def empty(kinds: Kinds, device: torch.device) -> list[torch.Tensor]:
    """Uninitialized tensors."""
    return [torch.empty(shape, dtype=dtype, device=device) for shape, dtype in kinds]
