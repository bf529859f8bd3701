"""How an op of the core becomes a JAX primitive: the rules for each transformation and platform, put together."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax._src.dispatch import prim_requires_devices_during_lowering
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir, xla

from m3ops.numerics import exact
from m3ops.op import ArraySpec, Op
from m3ops.ops import OPS
from m3ops_jax import _launch, _partition
from m3ops_jax._types import array_spec, result_types, split_groups
from m3ops_jax.compile_for import current_targets

exact.BARRIERS[jnp] = jax.lax.optimization_barrier


def call(op_name: str, *arrays: Any, **params: Any) -> tuple[jax.Array, ...]:
    """Validates the arguments of an op and binds its primitive."""
    op = OPS[op_name]
    specs = [_spec(name, array) for name, array in zip(op.inputs, arrays, strict=True)]
    op.infer(*specs, **params)
    operands = _vary_alike(list(map(jnp.asarray, arrays)))
    primitive = _primitive(op_name, _partition.xla_divides(operands))
    plain = op.canonical(params)
    if (groups := plain.get("groups", 1)) == 1:
        return tuple(primitive.bind(*operands, targets=current_targets(), **plain))
    rows = [split_groups(name, a, groups) for name, a in zip(op.inputs, operands, strict=True)]
    results = primitive.bind(*rows, targets=current_targets(), **plain | {"groups": 1})
    return tuple(r.reshape(*r.shape[:-2], groups * r.shape[-1]) for r in results)


def dtype_name(dtype: Any) -> str | None:
    """The name of a dtype argument; what is no dtype keeps its own text, for the core to reject."""
    try:
        return None if dtype is None else jnp.dtype(dtype).name
    except TypeError:
        return repr(dtype)


def _spec(name: str, array: Any) -> ArraySpec:
    if not isinstance(array, jax.Array | np.ndarray):
        raise TypeError(f"{name} must be an array, got {type(array).__name__}")
    return array_spec(array)


def _vary_alike(arrays: list[jax.Array]) -> list[jax.Array]:
    """In a shard_map, where a weight may be the same on all devices and x is not: what jax.numpy does to operands."""
    varying = [jax.typeof(array).manual_axis_type.varying for array in arrays]
    every = frozenset().union(*varying)
    return [
        jax.lax.pcast(array, tuple(every - own), to="varying") if own != every else array
        for array, own in zip(arrays, varying, strict=True)
    ]


@functools.cache
def _primitive(op_name: str, needs_devices: bool) -> Primitive:
    op = OPS[op_name]
    primitive = Primitive(op_name)
    primitive.multiple_results = True
    primitive.def_impl(functools.partial(xla.apply_primitive, primitive))
    primitive.def_abstract_eval(functools.partial(result_types, op))
    batching.primitive_batchers[primitive] = functools.partial(_batch, op, primitive)
    ad.primitive_jvps[primitive] = functools.partial(_no_derivative, op)
    specification = functools.partial(_compute, op)
    mlir.register_lowering(primitive, functools.partial(_partition.lower, op, specification))
    for platform in ("cuda", "rocm"):
        launch = functools.partial(_launch.launch, op, platform)
        mlir.register_lowering(primitive, functools.partial(_partition.lower, op, launch), platform=platform)
    if needs_devices:
        # jit tells a lowering rule the devices, as custom_partitioning needs, only for the primitives in this set; and
        # a program with one of them cannot be lowered for an abstract mesh.
        prim_requires_devices_during_lowering.add(primitive)
    return primitive


def _batch(op: Op, primitive: Primitive, args: Sequence[Any], dims: Sequence[Any], **params: Any) -> tuple[Any, Any]:
    """Batch axes become leading axes of one call: the rows of all examples run in one launch."""
    size = next(a.shape[d] for a, d in zip(args, dims, strict=True) if d is not None)
    rank = 1 + max(a.ndim - (d is not None) for a, d in zip(args, dims, strict=True))
    batched = []
    for name, arg, dim in zip(op.inputs, args, dims, strict=True):
        if dim is not None:
            arg = jnp.moveaxis(arg, dim, 0)
            arg = jnp.expand_dims(arg, range(1, 1 + rank - arg.ndim))
        elif name not in op.shared:
            arg = jnp.broadcast_to(arg, (size, *arg.shape))
        batched.append(arg)
    outputs = primitive.bind(*batched, **params)
    return outputs, (0,) * len(outputs)


def _no_derivative(op: Op, *_: Any, **__: Any) -> NoReturn:
    raise op.derivative_error("jax.lax.stop_gradient", "jax.custom_vjp")


def _compute(op: Op, *arrays: jax.Array, targets: tuple[str, ...], **params: Any) -> tuple[Any, ...]:
    """The specification under XLA, where there is no kernel. It needs 64-bit types, whatever the user chose."""
    with jax.enable_x64(True):
        return op.compute(*arrays, **params)
