"""Lowering an op for many devices: each computes the rows that it holds, without communication.

XLA cannot divide a custom call and would gather its operands on every device, so the division is stated here: by
``jax.shard_map`` where the arrays' types say how they are divided, and by ``custom_partitioning`` where XLA decides it.
The specification on the CPU goes the same way, so what many CPU devices show holds for the kernels too.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.custom_partitioning import custom_partitioning
from jax.experimental.xla_metadata import set_xla_metadata
from jax.interpreters import mlir
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from m3ops import __version__
from m3ops.axes import Division, Names
from m3ops_jax import _private
from m3ops_jax._call import Call
from m3ops_jax._sharding import divide, in_whole_steps, names_of, spec_of, summed_over

Compute = Callable[..., Sequence[jax.Array]]


def lower(compute: Compute, ctx: mlir.LoweringRuleContext, *args: Any, call: Call) -> Any:
    """Lowering rule of an op's primitive; ``compute(call, *arrays)`` gives the results of what one device holds."""
    on_device = functools.partial(compute, call)
    context = ctx.module_context.axis_context
    left_to_xla = _mesh_left_to_xla(context)
    several = left_to_xla is not None or _private.num_devices(context) > 1
    divided = functools.partial(_divided, call, on_device, several, _private.is_export(ctx.module_context))
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


def _divided(call: Call, compute: Compute, several: bool, exported: bool, *arrays: jax.Array) -> Sequence[jax.Array]:
    if xla_divides(arrays):
        if not several:
            return _whole(compute, *arrays)
        if exported:  # custom_partitioning would put a function of this process into the program
            raise NotImplementedError(
                f"{call.op.name}: a program whose sharding is left to XLA cannot be exported; export it from a mesh of "
                "jax.sharding.AxisType.Explicit, or with the op in a jax.shard_map over all mesh axes"
            )
        return _divided_by_xla(call, compute, arrays)
    if explicit := _mesh(arrays).explicit_axes:
        return _divided_by_types(call, compute, explicit, arrays)
    return compute(*arrays)


def _divided_by_types(
    call: Call, compute: Compute, explicit: tuple[str, ...], arrays: Sequence[jax.Array]
) -> Sequence[jax.Array]:
    """For explicit meshes. Unlike custom_partitioning, this is found in the persistent cache and can be exported."""
    inputs, results = names_of(call, arrays)
    mesh, division = _mesh(arrays), divide(inputs, [jax.typeof(a).sharding.spec for a in arrays])
    specs = tuple(spec_of(names, division) for names in inputs)
    on_shards = jax.shard_map(
        functools.partial(_on_shards, call, compute, results, division),
        mesh=mesh,
        in_specs=specs,
        out_specs=tuple(spec_of(names, division) for names in results),
        axis_names=set(explicit),
        check_vma=False,
    )
    divided = [jax.sharding.reshard(a, NamedSharding(mesh, spec)) for a, spec in zip(arrays, specs, strict=True)]
    return on_shards(*divided)


def _on_shards(
    call: Call, compute: Compute, names: Sequence[Names], division: Division, *shards: jax.Array
) -> tuple[jax.Array, ...]:
    """What one device computes, with sums completed by all-reduce."""
    results = list(compute(*shards))
    for number, operand in enumerate(call.axes.results):
        summed = [axis for axis in summed_over(names[number], division) if jax.lax.axis_size(axis) > 1]
        if operand.summed and summed:
            results[number] = jax.lax.psum(results[number], summed)
    return tuple(results)


def _divided_by_xla(call: Call, compute: Compute, arrays: Sequence[jax.Array]) -> Sequence[jax.Array]:
    """For meshes with automatic axes."""

    def partition(mesh: Mesh, arguments: Sequence[Any], results: Sequence[Any]) -> tuple[Any, ...]:
        inputs, outputs = names_of(call, arguments)
        every = [*inputs, *outputs]
        division = divide(every, [a.sharding.spec for a in (*arguments, *results)])
        division = in_whole_steps(call, arguments, division, mesh.shape)
        shardings = [NamedSharding(mesh, spec_of(names, division)) for names in every]
        body = functools.partial(on_shards, outputs, division)
        return mesh, body, tuple(shardings[len(inputs) :]), tuple(shardings[: len(inputs)])

    def on_shards(names: Sequence[Names], division: Division, *shards: jax.Array) -> tuple[jax.Array, ...]:
        # Called back with the user's mesh still set: its explicit axes would mark the shards as divided once more.
        mesh = jax.sharding.get_abstract_mesh()
        manual = mesh.update_axis_types(dict.fromkeys(mesh.axis_names, AxisType.Manual))
        with jax.sharding.use_abstract_mesh(manual):
            return _on_shards(call, compute, names, division, *shards)

    def results_like(*arrays: jax.Array) -> tuple[jax.Array, ...]:
        return tuple(jnp.zeros(spec.shape, jnp.dtype(spec.dtype)) for spec in call.results(arrays).values())

    partitioned = custom_partitioning(results_like)  # it is traced for the results' types; partition computes
    partitioned.def_partition(partition, sharding_rule=functools.partial(_sharding_rule, call))
    # The program names these functions by an address. What it computes has to stand in its text too, which is what a
    # compilation cache goes by.
    with set_xla_metadata(m3ops=f"{__version__} {call}"):
        results: Sequence[jax.Array] = partitioned(*arrays)
    return results


def _whole(compute: Compute, *arrays: jax.Array) -> tuple[jax.Array, ...]:
    """All rows on one device. Types that say how rows are divided would keep sums over rows from being that."""
    if (mesh := _mesh(arrays)).explicit_axes:
        arrays = tuple(jax.sharding.reshard(array, NamedSharding(mesh, PartitionSpec())) for array in arrays)
    return tuple(compute(*arrays))


def _sharding_rule(
    call: Call, mesh: Mesh, arguments: Sequence[Any], results: Sequence[Any]
) -> tuple[str, dict[str, Any]]:
    """``r0 r1 w0, w1 -> r0 r1 w2``: the factors r0 and r1 pass through; w0, w1 and w2 have to be whole."""
    whole: list[str] = []

    def factor(name: str | None) -> str:
        if name is not None:
            return name
        whole.append(f"w{len(whole)}")
        return whole[-1]

    left, right = (", ".join(" ".join(map(factor, names)) for names in arrays) for arrays in names_of(call, arguments))
    return f"{left} -> {right}", {"need_replication_factors": tuple(whole)}


def _mesh_left_to_xla(context: Any) -> Mesh | None:
    """Inside a shard_map that leaves some axes to XLA, the mesh of those."""
    manual = _private.manual_axes(context)
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
