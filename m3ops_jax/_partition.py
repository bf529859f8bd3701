"""Lowering an op for many devices: each computes the rows that it holds, without communication.

XLA cannot divide a custom call and would gather its operands on every device, so the division is stated here: by
``jax.shard_map`` where the arrays' types say how they are divided, and by ``custom_partitioning`` where XLA decides it.
The specification on the CPU goes the same way, so what many CPU devices show holds for the kernels too.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
from jax.experimental.custom_partitioning import custom_partitioning
from jax.interpreters import mlir
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from m3ops.op import Op
from m3ops_jax._row_axes import Axes, Division, divide, result_axes, row_axes, spec_of, summed_over
from m3ops_jax._types import array_spec

Compute = Callable[..., Sequence[jax.Array]]
Params = Mapping[str, Any]


def lower(op: Op, compute: Compute, ctx: mlir.LoweringRuleContext, *args: Any, **params: Any) -> Any:
    """Lowering rule of an op's primitive; ``compute`` gives the results of whole rows on one device."""
    on_device = functools.partial(compute, **params)
    divided = functools.partial(_divided, op, params, on_device)
    left_to_xla = _mesh_left_to_xla(ctx.module_context.axis_context)
    if left_to_xla is None:
        return mlir.lower_fun(divided, multiple_results=True)(ctx, *args)
    if left_to_xla.size == 1:  # nothing to divide, and XLA would not expand a custom_partitioning
        return mlir.lower_fun(on_device, multiple_results=True)(ctx, *args)
    with _entered(left_to_xla):
        return mlir.lower_fun(divided, multiple_results=True)(ctx, *args)


def xla_divides(arrays: Sequence[jax.Array]) -> bool:
    """Whether it is left to XLA how arrays are divided; on a mesh without automatic axes their types say it."""
    mesh = _mesh(arrays)
    return mesh.empty or AxisType.Auto in mesh.axis_types


def _mesh(arrays: Sequence[jax.Array]) -> AbstractMesh:
    meshes: list[AbstractMesh] = [jax.typeof(array).sharding.mesh for array in arrays]
    return next((mesh for mesh in meshes if not mesh.empty), meshes[0])


def _divided(op: Op, params: Params, compute: Compute, *arrays: jax.Array) -> Sequence[jax.Array]:
    if xla_divides(arrays):
        return _divided_by_xla(op, params, compute, arrays)
    if explicit := _mesh(arrays).explicit_axes:
        return _divided_by_types(op, params, compute, explicit, arrays)
    return compute(*arrays)


def _divided_by_types(
    op: Op, params: Params, compute: Compute, explicit: tuple[str, ...], arrays: Sequence[jax.Array]
) -> Sequence[jax.Array]:
    """For explicit meshes. Unlike custom_partitioning, this is found in the persistent cache and can be exported."""
    axes, mesh = row_axes(op, [a.shape for a in arrays], params), _mesh(arrays)
    results = result_axes(op, axes, params, _count(op, arrays, params))
    division = divide(axes, [jax.typeof(a).sharding.spec for a in arrays])
    specs = tuple(spec_of(a, division) for a in axes)
    on_shards = jax.shard_map(
        functools.partial(_on_shards, op, compute, results, division),
        mesh=mesh,
        in_specs=specs,
        out_specs=tuple(spec_of(a, division) for a in results),
        axis_names=set(explicit),
        check_vma=False,
    )
    divided = [jax.sharding.reshard(a, NamedSharding(mesh, spec)) for a, spec in zip(arrays, specs, strict=True)]
    return on_shards(*divided)


def _on_shards(
    op: Op, compute: Compute, axes: Sequence[Axes], division: Division, *shards: jax.Array
) -> tuple[jax.Array, ...]:
    """What one device computes, with sums over rows completed by all-reduce."""
    results = list(compute(*shards))
    for number in op.row_sums:
        if names := [name for name in summed_over(axes[number], division) if jax.lax.axis_size(name) > 1]:
            results[number] = jax.lax.psum(results[number], names)
    return tuple(results)


def _count(op: Op, arrays: Sequence[Any], params: Params) -> int:
    given = {name: value for name, value in params.items() if name in op.params}
    return len(op.infer(*map(array_spec, arrays), **given))


def _divided_by_xla(op: Op, params: Params, compute: Compute, arrays: Sequence[jax.Array]) -> Sequence[jax.Array]:
    """For meshes with automatic axes."""

    def partition(mesh: Mesh, arguments: Sequence[Any], results: Sequence[Any]) -> tuple[Any, ...]:
        inputs = row_axes(op, [a.shape for a in arguments], params)
        outputs = result_axes(op, inputs, params, len(results))
        every = [*inputs, *outputs]
        division = divide(every, [a.sharding.spec for a in (*arguments, *results)])
        shardings = [NamedSharding(mesh, spec_of(axes, division)) for axes in every]
        body = functools.partial(on_shards, outputs, division)
        return mesh, body, tuple(shardings[len(inputs) :]), tuple(shardings[: len(inputs)])

    def on_shards(axes: Sequence[Axes], division: Division, *shards: jax.Array) -> tuple[jax.Array, ...]:
        # Called back with the user's mesh still set: its explicit axes would mark the shards as divided once more.
        mesh = jax.sharding.get_abstract_mesh()
        manual = mesh.update_axis_types(dict.fromkeys(mesh.axis_names, AxisType.Manual))
        with jax.sharding.use_abstract_mesh(manual):
            return _on_shards(op, compute, axes, division, *shards)

    def whole(*arrays: jax.Array) -> tuple[jax.Array, ...]:
        # Traced for the results' shapes. Types that say how rows are divided would keep sums over rows from being that.
        if (mesh := _mesh(arrays)).explicit_axes:
            arrays = tuple(jax.sharding.reshard(array, NamedSharding(mesh, PartitionSpec())) for array in arrays)
        return tuple(compute(*arrays))

    call = custom_partitioning(whole)
    call.def_partition(partition, sharding_rule=functools.partial(_sharding_rule, op, params))
    results: Sequence[jax.Array] = call(*arrays)
    return results


def _sharding_rule(
    op: Op, params: Params, mesh: Mesh, arguments: Sequence[Any], results: Sequence[Any]
) -> tuple[str, dict[str, Any]]:
    """``r0 r1 w0, w1 -> r0 r1 w2``: the row axes r0 and r1 pass through; w0, w1 and w2 have to be whole."""
    inputs = row_axes(op, [tuple(a.shape) for a in arguments], params)
    whole: list[str] = []

    def factor(axis: int | None) -> str:
        if axis is not None:
            return f"r{axis}"
        whole.append(f"w{len(whole)}")
        return whole[-1]

    left, right = (
        ", ".join(" ".join(map(factor, axes)) for axes in arrays)
        for arrays in (inputs, result_axes(op, inputs, params, len(results)))
    )
    return f"{left} -> {right}", {"need_replication_factors": tuple(whole)}


def _mesh_left_to_xla(context: Any) -> Mesh | None:
    """Inside a shard_map that leaves some axes to XLA, the mesh of those."""
    manual: frozenset[str] = getattr(context, "manual_axes", frozenset())
    if not manual or manual == set(context.mesh.axis_names):
        return None
    names = context.mesh.axis_names
    devices = context.mesh.devices[tuple(0 if name in manual else slice(None) for name in names)]
    return Mesh(devices, [name for name in names if name not in manual])


@contextlib.contextmanager
def _entered(mesh: Mesh) -> Iterator[None]:
    """With this mesh as the current one.

    XLA divides among its devices alone, and custom_partitioning can only name the mesh axes of what it is asked to
    divide if it finds a mesh of that size.
    """
    with contextlib.ExitStack() as stack:
        with warnings.catch_warnings():  # deprecated for jax.set_mesh, which custom_partitioning does not look at
            warnings.simplefilter("ignore", DeprecationWarning)
            stack.enter_context(mesh)
        yield
