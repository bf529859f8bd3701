"""How an op of the core becomes a ``torch.ops.m3ops`` operator: schema, fake tensors, implementations, vmap."""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from m3ops.numerics.formats import MXFP8
from m3ops.op import Op
from m3ops.ops import COUNTED, EVERY_OP, OPS
from m3ops_torch import _autograd, _launch, _out, _reference, _sharding, _vmap
from m3ops_torch._launch import Layout, layout_of

_ALL = EVERY_OP | {op.name: op for op in COUNTED.values()}
_LIBRARY = torch.library.Library("m3ops", "DEF")
_SCHEMA_TYPES = {
    "float": "float",
    "float | None": "float?",
    "str": "str",
    "str | None": "str?",
    "bool": "bool",
    "int": "int",
}


def call(op_name: str, *tensors: Any, num_rows: Any = None, out: Any = None, **params: Any) -> tuple[torch.Tensor, ...]:
    """Validates the arguments of an op and calls its operator, or the one that writes into ``out``.

    A call of a kind that has been seen before, on plain GPU tensors and with nothing watching the dispatcher, goes to
    its launch directly: 21 us instead of 34 (H200's host).
    """
    if num_rows is not None:
        op_name, tensors = COUNTED[op_name].name, (*tensors, num_rows)
    if out is not None:
        return _call_out(_ALL[op_name], tensors, _out.flattened(out), params)
    op, operator = _ALL[op_name], _OPERATORS[op_name]
    if torch.compiler.is_compiling():  # the fake implementation validates while a graph is traced
        return tuple(operator(*tensors, **params))
    hashable = _hashable(params)
    key = _launch.key_of(op_name, tensors, params) if hashable else None
    if key is not None and (launch := _launch.kept.get(key)):
        return tuple(launch(tensors))
    plain = _validate(op, tensors, params, hashable)
    results = tuple(operator(*tensors, **plain))
    if key is not None:
        _launch.keep(key, op, tensors, plain)
    return results


def _call_out(op: Op, tensors: Any, out: list[Any], params: dict[str, Any]) -> tuple[torch.Tensor, ...]:
    """:func:`call` with results in the caller's tensors, by the same ways."""
    operator = _OUT_OPERATORS[op.name]
    if torch.compiler.is_compiling():
        operator(*tensors, **params, out=out)
        return tuple(out)
    hashable = _hashable(params)
    key = _launch.key_of(f"{op.name}.out", (*tensors, *out), params) if hashable else None
    if key is not None and (launch := _launch.kept.get(key)):
        _out.check_overlap(op, tensors, out)
        launch(tensors, out)
        return tuple(out)
    plain = _validate(op, tensors, params, hashable)
    _out.check(op, tensors, out, plain)
    _out.check_overlap(op, tensors, out)
    operator(*tensors, **plain, out=out)
    if key is not None:
        _launch.keep(key, op, tensors, plain, out)
    return tuple(out)


def _hashable(params: dict[str, Any]) -> bool:
    """Whether a call can be looked up; what cannot, such as a list, is no valid parameter either."""
    try:
        hash(tuple(params.values()))
    except TypeError:
        return False
    return True


def _validate(op: Op, tensors: Any, params: dict[str, Any], hashable: bool) -> dict[str, Any]:
    layouts = tuple(_layout(name, tensor) for name, tensor in zip(op.inputs, tensors, strict=True))
    return (_validated if hashable else _validated.__wrapped__)(op, layouts, **params)


@functools.lru_cache(maxsize=_launch.MOST_KEPT, typed=True)
def _validated(op: Op, layouts: tuple[Layout, ...], **params: Any) -> dict[str, Any]:
    """The parameters as plain Python values, if they and the tensors are what the op takes."""
    op.infer(*(layout.spec for layout in layouts), **params)
    for name, layout in zip(op.inputs, layouts, strict=True):
        if layout.device != layouts[0].device:
            raise ValueError(
                f"{name} must be on the device of {op.inputs[0]}, {layouts[0].device}, got {layout.device}"
            )
    return op.canonical(params)


def _layout(name: str, tensor: Any) -> Layout:
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"{name} must be an array, got {type(tensor).__name__}")
    return layout_of(tensor)


def dtype_name(dtype: Any) -> str | None:
    """The name of a dtype argument; what is no dtype keeps its own text, for the core to reject."""
    if dtype is None:
        return None
    return str(dtype).removeprefix("torch.") if isinstance(dtype, torch.dtype) else repr(dtype)


def _arguments(op: Op) -> str:
    """As a schema writes them."""
    tensors = [f"Tensor {name}" for name in op.inputs]
    params = [f"{_SCHEMA_TYPES[p.annotation]} {name}" for name, p in op.params.items()]
    return ", ".join([*tensors, "*", *params])


def _define(op: Op) -> Callable[..., Any]:
    _LIBRARY.define(f"{op.name}({_arguments(op)}) -> Tensor[]")
    torch.library.register_fake(f"m3ops::{op.name}", partial(_fake, op), lib=_LIBRARY)
    _LIBRARY.impl(op.name, partial(_reference.run, op), "CPU")
    _LIBRARY.impl(op.name, partial(_launch.run, op), "CUDA")  # ROCm builds of PyTorch use this key too
    operator: Callable[..., Any] = getattr(torch.ops.m3ops, op.name).default
    _LIBRARY.impl(op.name, _autograd.implementation(op, _OPERATORS), "Autograd", with_keyset=True)
    torch.library.register_vmap(f"m3ops::{op.name}", partial(_vmap.batched, op, operator), lib=_LIBRARY)
    return operator


def _define_out(op: Op) -> Callable[..., Any]:
    """The operator that writes into tensors it is given. ``torch.compile`` knows from its schema that it does."""
    name = f"{op.name}_out"
    _LIBRARY.define(f"{name}({_arguments(op)}, Tensor(a!)[] out) -> ()")
    torch.library.register_fake(f"m3ops::{name}", partial(_fake_out, op), lib=_LIBRARY)
    _LIBRARY.impl(name, partial(_reference.run_out, op), "CPU")
    _LIBRARY.impl(name, partial(_launch.run_out, op), "CUDA")
    operator: Callable[..., Any] = getattr(torch.ops.m3ops, name).default
    return operator


def _fake_out(op: Op, *tensors: torch.Tensor, out: list[torch.Tensor], **params: Any) -> None:
    _out.check(op, tensors, out, op.canonical(params))


def _fake(op: Op, *tensors: torch.Tensor, **params: Any) -> list[torch.Tensor]:
    _sharding.register_if_wanted()
    outputs = op.infer(*(layout_of(tensor).spec for tensor in tensors), **op.canonical(params))
    return _launch.allocate(outputs, tensors[0].device)


# Without a name torch.export can trace the tuple but not save it.
torch.utils._pytree._register_namedtuple(MXFP8, serialized_type_name="m3ops.MXFP8")

_OPERATORS: dict[str, Callable[..., Any]] = {}
_OPERATORS.update({name: _define(op) for name, op in _ALL.items()})
_OUT_OPERATORS = {op.name: _define_out(op) for op in (*OPS.values(), *COUNTED.values())}
