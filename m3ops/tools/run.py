"""Runs an op of a front end on NumPy arrays: those of a quantized argument one by one, ``num_rows`` as one more."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from m3ops.mxfp8 import MXFP8
from m3ops.numerics.scale_layouts import ROW_MAJOR
from m3ops.op import Op
from m3ops.ops import EVERY_OP, OPS
from m3ops.testing import layer
from m3ops.testing.case import operands

Arrays = Sequence[Any]
"""Arrays of NumPy; None for one that is optional."""
_UNSIGNED = {1: "uint8", 2: "uint16", 4: "uint32", 8: "uint64"}


def run_jax(platform: str, op: str, arrays: Arrays, given: Mapping[str, Any]) -> Arrays:
    """An op of m3ops_jax, jitted, on the first device of a platform (``"cpu"``, ``"cuda"``, ``"rocm"``)."""
    import jax

    call = _jitted(op, tuple(given.items()))
    with jax.default_device(jax.local_devices(backend=platform)[0]):
        results = call(*(array if array is None else np.asarray(array, order="C") for array in arrays))
    return [np.asarray(out) for out in jax.tree.leaves(results)]


@functools.lru_cache(maxsize=16)
def _jitted(op: str, given: tuple[tuple[str, Any], ...]) -> Any:
    """One function for all arrays, so that those of one kind are compiled once."""
    import jax

    return jax.jit(functools.partial(jax_function(op), **dict(given)))


def run_torch(device: str, op: str, arrays: Arrays, given: Mapping[str, Any], out: Arrays | None = None) -> Arrays:
    """An op of m3ops_torch on tensors with the strides of the arrays, ``out`` as memory for the results."""
    memory = None if out is None else tuple(to_tensor(array, device) for array in out)
    into = {} if memory is None else {"out": memory}
    tensors = (array if array is None else to_tensor(array, device) for array in arrays)
    results = torch_function(op)(*tensors, **given, **into)
    return [to_numpy(result) for result in memory or flat(results)]


def jax_function(op: str) -> Callable[..., Any]:
    """An op of m3ops_jax, or the layer, as a function of arrays."""
    import m3ops_jax
    from m3ops_jax._call import run

    if op == layer.NAME:
        return functools.partial(layer.compute, m3ops_jax)
    return functools.partial(_public, m3ops_jax, op) if op in OPS else functools.partial(_derivative, run, op)


def torch_function(op: str) -> Callable[..., Any]:
    """An op of m3ops_torch, or the layer, as a function of tensors. Dtypes are given by name."""
    import torch

    import m3ops_torch
    from m3ops_torch._call import run

    if op == layer.NAME:
        return functools.partial(layer.compute, m3ops_torch)

    def call(*tensors: Any, **given: Any) -> Any:
        dtypes = {name: getattr(torch, given[name]) for name in dtype_parameters(EVERY_OP[op]) if given.get(name)}
        return _public(m3ops_torch, op, *tensors, **{**given, **dtypes})

    return call if op in OPS else functools.partial(_derivative, run, op)


def dtype_parameters(op: type[Op]) -> list[str]:
    """The parameters that the front ends take as dtypes of their framework."""
    return [parameter.name for parameter in dataclasses.fields(op) if "DTypeName" in str(parameter.type)]


def _public(front_end: Any, name: str, *arrays: Any, **given: Any) -> Any:
    """A front end's public function, with the arrays of a quantized argument packed."""
    op, arguments = EVERY_OP[name], operands(EVERY_OP[name], arrays)
    for quantized, (values, scales) in op.quantized.items():
        carried = {field.metadata["carried_by"]: field.name for field in dataclasses.fields(op)}
        layout = given.pop(carried[f"{quantized}.scale_layout"], ROW_MAJOR)
        arguments[quantized] = front_end.MXFP8(arguments.pop(values), arguments.pop(scales), layout)
    return getattr(front_end, name)(**arguments, **given)


def _derivative(run: Callable[..., Any], name: str, *arrays: Any, **given: Any) -> Any:
    """An op that only derivatives call, which has no public function."""
    arguments = operands(EVERY_OP[name], arrays)
    num_rows = arguments.pop("num_rows", None)
    op = EVERY_OP[name].of(**given)
    return run(op, *(arguments.get(own) for own in op.inputs), num_rows=num_rows)


def flat(results: Any) -> tuple[Any, ...]:
    """The arrays of an op's result: one array or ``MXFP8``, or a tuple of them."""
    if isinstance(results, tuple | list | MXFP8):
        return tuple(array for result in results for array in flat(result))
    return (results,)


def to_tensor(array: np.ndarray, device: str = "cpu") -> Any:
    """A tensor with the bytes and the strides of an array."""
    import torch

    strides = tuple(stride // array.itemsize for stride in array.strides)
    tensor = torch.empty_strided(array.shape, strides, dtype=getattr(torch, array.dtype.name), device=device)
    raw = torch.from_numpy(np.array(array, order="C").view(_UNSIGNED[array.itemsize])).view(tensor.dtype).to(device)
    for row in np.ndindex(*(min(n, 1) if s == 0 else n for n, s in zip(array.shape[:-1], strides, strict=False))):
        own = (*row, *(slice(1 if stride == 0 else None) for stride in strides[-1:]))
        tensor[own] = raw[own]  # a repeated row or element is written once
    return tensor


def to_numpy(tensor: Any) -> np.ndarray:
    """An array with the bytes of a tensor."""
    import torch

    raw = tensor.cpu().view(getattr(torch, _UNSIGNED[tensor.itemsize])).numpy()
    return np.asarray(raw.view(np.dtype(str(tensor.dtype).removeprefix("torch."))))
