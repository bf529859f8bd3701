"""How an op of the core becomes a ``torch.ops.m3ops`` operator: schema, fake tensors, CPU and GPU implementations."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from m3ops.op import ArraySpec, Op
from m3ops.ops import OPS
from m3ops_torch import _launch, _reference

_LIBRARY = torch.library.Library("m3ops", "DEF")
_SCHEMA_TYPES = {"float": "float", "float | None": "float?", "str": "str", "str | None": "str?", "bool": "bool"}


def call(op_name: str, *tensors: Any, **params: Any) -> tuple[torch.Tensor, ...]:
    """Validates the arguments of an op and calls its operator."""
    op = OPS[op_name]
    if not torch.compiler.is_compiling():  # the fake implementation validates while a graph is traced
        op.infer(*(spec(name, tensor) for name, tensor in zip(op.inputs, tensors, strict=True)), **params)
        _same_device(op, tensors)
    return tuple(_OPERATORS[op_name](*tensors, **op.canonical(params)))


def dtype_name(dtype: Any) -> str | None:
    """The name of a dtype argument; what is no dtype keeps its own text, for the core to reject."""
    if dtype is None:
        return None
    return str(dtype).removeprefix("torch.") if isinstance(dtype, torch.dtype) else repr(dtype)


def spec(name: str, tensor: Any) -> ArraySpec:
    """Shape, dtype and strides of a tensor argument."""
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"{name} must be an array, got {type(tensor).__name__}")
    return _launch.spec_of(tensor)


def _same_device(op: Op, tensors: tuple[torch.Tensor, ...]) -> None:
    first, *others = tensors
    for name, tensor in zip(op.inputs[1:], others, strict=True):
        if tensor.device != first.device:
            raise ValueError(f"{name} must be on the device of {op.inputs[0]}, {first.device}, got {tensor.device}")


def _define(op: Op) -> Callable[..., Any]:
    tensors = [f"Tensor {name}" for name in op.inputs]
    params = [f"{_SCHEMA_TYPES[p.annotation]} {name}" for name, p in op.params.items()]
    _LIBRARY.define(f"{op.name}({', '.join(tensors)}, *, {', '.join(params)}) -> Tensor[]")
    torch.library.register_fake(f"m3ops::{op.name}", partial(_fake, op), lib=_LIBRARY)
    _LIBRARY.impl(op.name, partial(_reference.run, op), "CPU")
    _LIBRARY.impl(op.name, partial(_launch.run, op), "CUDA")  # ROCm builds of PyTorch use this key too
    operator: Callable[..., Any] = getattr(torch.ops.m3ops, op.name).default
    return operator


def _fake(op: Op, *tensors: torch.Tensor, **params: Any) -> list[torch.Tensor]:
    outputs = op.infer(*map(_launch.spec_of, tensors), **op.canonical(params))
    return _launch.allocate(outputs, tensors[0].device)


_OPERATORS = {name: _define(op) for name, op in OPS.items()}
