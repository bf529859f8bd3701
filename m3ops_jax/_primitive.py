"""How an op of the core becomes a JAX primitive: abstract evaluation, batching, and lowering per platform."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir, xla

from m3ops.numerics import exact
from m3ops.op import ArraySpec, Op
from m3ops.ops import OPS
from m3ops_jax import _launch
from m3ops_jax.compile_for import current_targets

exact.BARRIERS[jnp] = jax.lax.optimization_barrier


def call(op_name: str, *arrays: Any, **params: Any) -> tuple[jax.Array, ...]:
    """Validates the arguments of an op and binds its primitive."""
    op = OPS[op_name]
    specs = [_spec(name, array) for name, array in zip(op.inputs, arrays, strict=True)]
    op.infer(*specs, **params)
    outputs = _primitive(op_name).bind(*map(jnp.asarray, arrays), targets=current_targets(), **op.canonical(params))
    return tuple(outputs)


def dtype_name(dtype: Any) -> str | None:
    """The name of a dtype argument; what is no dtype keeps its own text, for the core to reject."""
    try:
        return None if dtype is None else jnp.dtype(dtype).name
    except TypeError:
        return repr(dtype)


def _spec(name: str, array: Any) -> ArraySpec:
    if not isinstance(array, jax.Array | np.ndarray):
        raise TypeError(f"{name} must be an array, got {type(array).__name__}")
    return _aval_spec(array)


def _aval_spec(aval: Any) -> ArraySpec:
    return ArraySpec(tuple(aval.shape), np.dtype(aval.dtype).name)


@functools.cache
def _primitive(op_name: str) -> Primitive:
    op = OPS[op_name]
    primitive = Primitive(op_name)
    primitive.multiple_results = True
    primitive.def_impl(functools.partial(xla.apply_primitive, primitive))
    primitive.def_abstract_eval(functools.partial(_abstract_eval, op))
    batching.primitive_batchers[primitive] = functools.partial(_batch, op, primitive)
    mlir.register_lowering(primitive, mlir.lower_fun(functools.partial(_compute, op), multiple_results=True))
    for platform in ("cuda", "rocm"):
        mlir.register_lowering(primitive, functools.partial(_launch.lower, op, platform), platform=platform)
    return primitive


def _abstract_eval(op: Op, *avals: Any, targets: tuple[str, ...], **params: Any) -> list[ShapedArray]:
    return [ShapedArray(s.shape, jnp.dtype(s.dtype)) for s in op.infer(*map(_aval_spec, avals), **params)]


def _batch(op: Op, primitive: Primitive, args: Sequence[Any], dims: Sequence[Any], **params: Any) -> tuple[Any, Any]:
    """Batch axes become leading axes of one call: the rows of all examples run in one launch."""
    size = next(a.shape[d] for a, d in zip(args, dims, strict=True) if d is not None)
    rank = 1 + max(a.ndim - (d is not None) for a, d in zip(args, dims, strict=True))
    batched = []
    for name, arg, dim in zip(op.inputs, args, dims, strict=True):
        if dim is not None:
            arg = jnp.moveaxis(arg, dim, 0)
            arg = arg.reshape(size, *(1,) * (rank - arg.ndim), *arg.shape[1:])
        elif name not in op.shared:
            arg = jnp.broadcast_to(arg, (size, *arg.shape))
        batched.append(arg)
    outputs = primitive.bind(*batched, **params)
    return outputs, (0,) * len(outputs)


def _compute(op: Op, *arrays: jax.Array, targets: tuple[str, ...], **params: Any) -> tuple[Any, ...]:
    """The specification under XLA, where there is no kernel. It needs 64-bit types, whatever the user chose."""
    with jax.enable_x64(True):
        return op.compute(*arrays, **params)
