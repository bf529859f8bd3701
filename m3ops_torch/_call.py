"""The way of every call of a public function."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from m3ops.op import Op
from m3ops_torch import _direct, _operands, _out, _private
from m3ops_torch._mxfp8 import packed
from m3ops_torch._operators import call, call_out


def run(op: Op, *tensors: Any, num_rows: Any = None, out: Any = None) -> Any:
    """Computes an op.

    Args:
        op: The op.
        tensors: Its inputs in order.
        num_rows: How many rows count: an int32 tensor of one element; None for all.
        out: Memory for the results, structured as they are; None for new tensors.

    Returns:
        The results as the public function returns them; those in ``out`` are the tensors given there.
    """
    operands = (*tensors, num_rows)
    given = None if out is None else _out.flattened(op, out)
    results = None
    if not torch.compiler.is_compiling():  # else the fake implementation checks the call while a graph is traced
        results = _direct.attempt(op, operands, given)
        if results is None:
            _check(op, operands, given)
    if results is None:
        results = call(op, *operands) if given is None else _into(op, operands, given)
    return packed(op, results)


def _check(op: Op, operands: Sequence[Any], out: list[Any] | None) -> None:
    """What only the caller's own arguments tell; all else is checked where it is computed."""
    named = _operands.named(op, operands)
    _operands.require_tensors(named)
    if out is not None:
        places = dict(zip(_out.names(len(out)), out, strict=True))
        _operands.require_tensors(places)
        _out.refuse(named, places)


def _into(op: Op, operands: Sequence[Any], out: list[torch.Tensor]) -> list[torch.Tensor]:
    call_out(op, *operands, out=out)
    return out


def dtype_name(dtype: Any) -> Any:
    """The name of a dtype argument; what is no dtype keeps its own text, for the core to reject."""
    if dtype is None:
        return None
    return str(dtype).removeprefix("torch.") if isinstance(dtype, torch.dtype) else repr(dtype)


def _unchecked(cls: type[Op], **params: Any) -> Op:
    """What ``torch.compile`` traces for :meth:`Op.of`: the fake implementation checks the parameters.

    Numbers of NumPy are arrays there, of values that it does not know, and the operator would take True for 1.
    """
    op = object.__new__(cls)
    for name, value in params.items():
        if refusal := _refusal(cls, name, type(value).__name__):
            raise TypeError(refusal)
        if isinstance(value, (np.ndarray, np.generic)):
            raise TypeError(f"{name} must be a Python number in a compiled function, got a NumPy one: use float or int")
        object.__setattr__(op, name, value)
    return op


@_private.constant_while_traced
def _refusal(cls: type[Op], name: str, kind: str) -> str:
    """What there is to say of a bool for a number, or of another type for a bool, in the words of the core."""
    (wanted,) = (str(field.type).removesuffix(" | None") for field in dataclasses.fields(cls) if field.name == name)
    if (kind == "bool") == (wanted == "bool") or wanted not in _WANTED:
        return ""
    return f"{name} must be {_WANTED[wanted]}, got {kind}"


_WANTED = {
    "bool": "True or False",
    "int": "a Python integer, known before the kernel is compiled",
    "float": "a Python number, known before the kernel is compiled",
}

_private.trace_instead(Op.of.__func__, _unchecked)  # type: ignore[attr-defined]
