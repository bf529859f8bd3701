"""How an op of the core becomes operators, ``torch.ops.m3ops.NAME`` and ``NAME_out``: schemas and implementations."""

from __future__ import annotations

import dataclasses
import threading
import typing
from collections.abc import Sequence
from functools import partial
from types import NoneType
from typing import Any, Protocol

import torch

from m3ops import row_count
from m3ops.op import Op
from m3ops.ops import EVERY_OP
from m3ops_torch import _autograd, _direct, _operands, _out, _private, _reference, _sharding, _vmap

_LIBRARY = torch.library.Library("m3ops", "DEF")
_DEFINED: set[type[Op]] = set()
_DEFINING = threading.Lock()


def call(op: Op, *operands: torch.Tensor | None) -> list[torch.Tensor]:
    """Calls the operator of an op."""
    operator = getattr(torch.ops.m3ops, define(type(op))).default
    results: list[torch.Tensor] = operator(*operands, **parameters(op))
    return results


def call_out(op: Op, *operands: torch.Tensor | None, out: list[torch.Tensor]) -> None:
    """Calls the operator that writes into ``out``."""
    operator = getattr(torch.ops.m3ops, f"{define(type(op))}_out").default
    operator(*operands, **parameters(op), into=out)


@_private.constant_while_traced
def define(op_type: type[Op]) -> str:
    """Defines the operators of an op unless that is done, and returns their name."""
    if op_type not in _DEFINED:
        with _DEFINING:
            if op_type not in _DEFINED:
                _define(op_type)
                _define_out(op_type)
                _DEFINED.add(op_type)
    return op_type.name


def parameters(op: Op) -> dict[str, Any]:
    """The parameters of an op by name."""
    return {field.name: getattr(op, field.name) for field in dataclasses.fields(op)}


def _define(op_type: type[Op]) -> None:
    name = op_type.name
    _LIBRARY.define(f"{name}({_arguments(op_type)}) -> Tensor[]")
    operator = getattr(torch.ops.m3ops, name).default
    torch.library.register_fake(f"m3ops::{name}", partial(_fake, op_type, operator), lib=_LIBRARY)
    _LIBRARY.impl(name, partial(_computed, op_type, _reference), "CPU")
    _LIBRARY.impl(name, partial(_computed, op_type, _direct), "CUDA")  # ROCm builds of PyTorch use this key too
    _LIBRARY.impl(name, _autograd.implementation(op_type, operator, call), "Autograd", with_keyset=True)
    torch.library.register_vmap(f"m3ops::{name}", partial(_vmap.batched, op_type, operator), lib=_LIBRARY)
    _LIBRARY.impl(name, partial(_vmap.refused, op_type), "Batched")


def _define_out(op_type: type[Op]) -> None:
    """``torch.compile`` knows from the schema that this operator writes. An ``out`` it would want contiguous."""
    name = f"{op_type.name}_out"
    _LIBRARY.define(f"{name}({_arguments(op_type)}, Tensor(a!)[] into) -> ()")
    torch.library.register_fake(f"m3ops::{name}", partial(_fake_out, op_type), lib=_LIBRARY)
    _LIBRARY.impl(name, partial(_written, op_type, _reference), "CPU")
    _LIBRARY.impl(name, partial(_written, op_type, _direct), "CUDA")


def _arguments(op_type: type[Op]) -> str:
    """As a schema writes them."""
    tensors = [f"Tensor? {n}=None" if n in op_type.optional else f"Tensor {n}" for n in op_type.inputs]
    hints = typing.get_type_hints(op_type)
    fields = [f"{_schema_type(hints[field.name])} {field.name}" for field in dataclasses.fields(op_type)]
    return ", ".join([*tensors, f"Tensor? {row_count.NAME}=None", "*", *fields])


def _schema_type(hint: Any) -> str:
    parts = typing.get_args(hint) or (hint,)
    (kind,) = (part for part in parts if part is not NoneType)
    return f"{kind.__name__}?" if NoneType in parts else str(kind.__name__)


class _Device(Protocol):
    """A module that computes on one kind of device."""

    def compute(
        self, op: Op, operands: _operands.Tensors, out: Sequence[torch.Tensor] | None = None
    ) -> Sequence[torch.Tensor]: ...


def _computed(op_type: type[Op], device: _Device, *tensors: torch.Tensor | None, **params: Any) -> list[torch.Tensor]:
    op = op_type.of(**params)
    return list(device.compute(op, _operands.named(op, tensors)))


def _written(
    op_type: type[Op], device: _Device, *tensors: torch.Tensor | None, into: Sequence[torch.Tensor], **params: Any
) -> None:
    op = op_type.of(**params)
    device.compute(op, _operands.named(op, tensors), into)


def _fake(op_type: type[Op], operator: Any, *tensors: torch.Tensor | None, **params: Any) -> list[torch.Tensor]:
    _sharding.register_if_wanted(op_type, operator)
    op = op_type.of(**params)
    operands = _operands.named(op, tensors)
    kinds = _operands.kinds_of(_operands.check(op, operands))
    return _operands.empty(kinds, next(iter(operands.values())).device)


def _fake_out(op_type: type[Op], *tensors: torch.Tensor | None, into: Sequence[torch.Tensor], **params: Any) -> None:
    op = op_type.of(**params)
    operands = _operands.named(op, tensors)
    _out.refuse(operands, dict(zip(_out.names(len(into)), into, strict=True)))
    _out.check(op, operands, into, _operands.check(op, operands))


for _op_type in EVERY_OP.values():
    define(_op_type)
