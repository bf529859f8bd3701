"""Runs a case through a front end. The front ends are imported when first used: the core does not need them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from m3ops.ops import OPS

Arrays = Sequence[np.ndarray]
_UNSIGNED = {1: "uint8", 2: "uint16", 4: "uint32"}


def run_jax(platform: str, op: str, arrays: Arrays, params: Mapping[str, Any]) -> Arrays:
    """An op of m3ops_jax, jitted, on the first device of a platform (``"cpu"``, ``"cuda"``, ``"rocm"``)."""
    import jax

    call = _jitted(op, tuple(params.items()))
    with jax.default_device(jax.local_devices(backend=platform)[0]):
        results = call(*map(np.ascontiguousarray, arrays))
    return [np.asarray(out) for out in jax.tree.leaves(results)]


@functools.lru_cache(maxsize=16)
def _jitted(op: str, params: tuple[tuple[str, Any], ...]) -> Any:
    """One function for all arrays, so that those of one kind are compiled once."""
    import jax

    return jax.jit(functools.partial(jax_function(op), **dict(params)))


def run_torch(device: str, op: str, arrays: Arrays, params: Mapping[str, Any]) -> Arrays:
    """An op of m3ops_torch on tensors with the strides of the arrays."""
    import torch

    dtypes = {k: getattr(torch, v) for k, v in params.items() if k == "out_dtype" and v}
    results = torch_function(op)(*(to_tensor(a, device) for a in arrays), **{**params, **dtypes})
    return [to_numpy(out) for out in flat(results)]


def jax_function(op: str) -> Callable[..., Any]:
    """An op of m3ops_jax. One that only derivatives call has no name there."""
    import m3ops_jax
    from m3ops_jax._primitive import call

    return _counting(op, getattr(m3ops_jax, op)) if op in OPS else functools.partial(call, op)


def torch_function(op: str) -> Callable[..., Any]:
    """An op of m3ops_torch, likewise."""
    import m3ops_torch
    from m3ops_torch._library import call

    return _counting(op, getattr(m3ops_torch, op)) if op in OPS else functools.partial(call, op)


def _counting(op: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with ``num_rows`` as one more array."""

    def call(*arrays: Any, **params: Any) -> Any:
        operands, count = arrays[: len(OPS[op].inputs)], arrays[len(OPS[op].inputs) :]
        return function(*operands, **params, **({"num_rows": count[0]} if count else {}))

    return call


def flat(results: Any) -> tuple[Any, ...]:
    """The arrays of an op's result: one array, or a tuple of arrays and tuples."""
    if isinstance(results, tuple | list):
        return tuple(array for result in results for array in flat(result))
    return (results,)


def to_tensor(array: np.ndarray, device: str = "cpu") -> Any:
    """A tensor with the bytes and the strides of an array."""
    import torch

    strides = tuple(stride // array.itemsize for stride in array.strides)
    tensor = torch.empty_strided(array.shape, strides, dtype=getattr(torch, array.dtype.name), device=device)
    raw = torch.from_numpy(np.array(array, order="C").view(_UNSIGNED[array.itemsize])).view(tensor.dtype).to(device)
    for row in np.ndindex(*(min(n, 1) if s == 0 else n for n, s in zip(array.shape[:-1], strides, strict=False))):
        own = (*row, slice(1 if strides[-1] == 0 else None))
        tensor[own] = raw[own]  # a repeated row or element is written once
    return tensor


def to_numpy(tensor: Any) -> np.ndarray:
    """An array with the bytes of a tensor."""
    import torch

    raw = tensor.cpu().view(getattr(torch, _UNSIGNED[tensor.itemsize])).numpy()
    return np.asarray(raw.view(np.dtype(str(tensor.dtype).removeprefix("torch."))))
