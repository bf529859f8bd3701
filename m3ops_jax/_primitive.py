"""How an op of the core becomes a JAX primitive: the rules for each transformation and platform, put together."""

from __future__ import annotations

import functools
import math
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
from m3ops.ops import COUNTED, EVERY_OP
from m3ops_jax import _launch, _partition
from m3ops_jax._types import array_spec, like_type, result_types, split_groups
from m3ops_jax.compile_for import current_targets

Params = tuple[tuple[str, Any], ...]

exact.BARRIERS[jnp] = jax.lax.optimization_barrier
exact.LOOPS[jnp] = lambda step, total, *terms: jax.lax.scan(lambda t, term: (step(t, *term), None), total, terms)[0]


def call(
    op_name: str, *arrays: Any, num_rows: Any = None, in_place: tuple[tuple[int, int], ...] = (), **params: Any
) -> tuple[jax.Array, ...]:
    """Validates the arguments of an op and binds its primitive."""
    op = EVERY_OP[op_name]
    if num_rows is not None:
        op, arrays = COUNTED[op_name], (*arrays, num_rows)
    specs = [_spec(name, array) for name, array in zip(op.inputs, arrays, strict=True)]
    op.infer(*specs, **params)
    operands = _vary_alike(list(map(jnp.asarray, arrays)))
    if op.counted:
        operands[-1] = operands[-1].reshape(1)
    plain = op.canonical(params) | ({"in_place": in_place} if in_place else {})
    bind = _differentiable if op.backward else _bind
    if (groups := plain.get("groups", 1)) == 1:
        return bind(op, _static(plain), *operands)
    rows = [split_groups(name, a, groups) for name, a in zip(EVERY_OP[op_name].inputs, operands, strict=False)]
    if op.counted:
        rows.append(jnp.clip(operands[-1], 0, math.prod(operands[0].shape[:-1])) * groups)
    results = bind(op, _static(plain | {"groups": 1}), *rows)
    return tuple(r.reshape(*r.shape[:-2], groups * r.shape[-1]) for r in results)


def _static(params: dict[str, Any]) -> Params:
    return (("targets", current_targets()), *params.items())


def _bind(op: Op, params: Params, *operands: jax.Array) -> tuple[jax.Array, ...]:
    primitive = _primitive(op, _partition.xla_divides(operands))
    return tuple(primitive.bind(*operands, **dict(params)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _differentiable(op: Op, params: Params, *operands: jax.Array) -> tuple[jax.Array, ...]:
    return _bind(op, params, *operands)


def _forward(op: Op, params: Params, *operands: jax.Array) -> tuple[Any, Any]:
    return _bind(op, params, *operands), operands


def _backward(
    op: Op, params: Params, operands: Sequence[jax.Array], grads: Sequence[jax.Array]
) -> tuple[jax.Array, ...]:
    backward, given = op.backward, dict(params)
    assert backward is not None
    static = {"targets": given["targets"], **backward.params(given)}
    gradients = _bind(backward.op, tuple(static.items()), *operands, *grads)
    return tuple(
        like_type(gradients[number], operand) for number, operand in zip(backward.gradients, operands, strict=True)
    )


_differentiable.defvjp(_forward, _backward)


def call_in_place(op_name: str, *arrays: Any, updated: str, result: int, **params: Any) -> tuple[jax.Array, ...]:
    """:func:`call`, and where the input named ``updated`` is a Ref, that result is written there.

    The kernel's call then says that the result takes that input's memory, for which XLA makes a copy if the input is
    used once more. Without a Ref it does not say so, which would be a copy of every input that is.
    """
    op = EVERY_OP[op_name]
    number = op.inputs.index(updated)
    if not isinstance(ref := arrays[number], jax.Ref):
        return call(op_name, *arrays, **params)
    assert op.in_place
    assert updated not in op.shared
    given = (*arrays[:number], ref[...], *arrays[number + 1 :])
    results = call(op_name, *given, in_place=((number, result),), **params)
    ref[...] = results[result]
    return results


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
def _primitive(op: Op, needs_devices: bool) -> Primitive:
    primitive = Primitive(op.name)
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
    """Batch axes become leading axes of one call: the rows of all examples run in one launch.

    Not where the number of rows is counted: those of several examples are no first rows of anything. They run one after
    another.
    """
    if op.counted:
        mapped = [d is not None for d in dims]
        rows = [jnp.moveaxis(a, d, 0) for a, d in zip(args, dims, strict=True) if d is not None]

        def one(rows: Sequence[Any]) -> Any:
            left = iter(rows)
            return primitive.bind(*(next(left) if m else a for a, m in zip(args, mapped, strict=True)), **params)

        results = jax.lax.map(one, rows)
        return results, (0,) * len(results)
    size = next(a.shape[d] for a, d in zip(args, dims, strict=True) if d is not None)
    ranks = {name: a.ndim - (d is not None) for name, a, d in zip(op.inputs, args, dims, strict=True)}
    rank = 1 + max(ranks.values())
    summed = set(op.row_sums.values())  # over the rows of one example: so each has an input of its own
    batched = []
    for name, arg, dim in zip(op.inputs, args, dims, strict=True):
        if dim is None and (name not in op.shared or name in summed):
            arg, dim = jnp.broadcast_to(arg, (size, *arg.shape)), 0
        if dim is not None:
            arg = jnp.moveaxis(arg, dim, 0)
            arg = jnp.expand_dims(arg, range(1, 1 + rank - arg.ndim))
        batched.append(arg)
    outputs = list(primitive.bind(*batched, **params))
    for number, name in op.row_sums.items():
        outputs[number] = jnp.squeeze(outputs[number], range(1, rank - ranks[name]))
    return outputs, (0,) * len(outputs)


def _no_derivative(op: Op, *_: Any, **__: Any) -> NoReturn:
    raise op.derivative_error("jax.lax.stop_gradient", "jax.custom_vjp")


def _compute(
    op: Op, *arrays: jax.Array, targets: tuple[str, ...], in_place: tuple[tuple[int, int], ...] = (), **params: Any
) -> tuple[Any, ...]:
    """The specification under XLA, where there is no kernel. It needs 64-bit types, whatever the user chose."""
    with jax.enable_x64(True):
        return op.compute(*arrays, **params)
