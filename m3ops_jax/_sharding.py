"""How an op's arrays are divided among devices, from the line that names its axes (:mod:`m3ops.axes`)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from m3ops import row_count
from m3ops.axes import Division, Names
from m3ops_jax._call import Call


def names_of(call: Call, arrays: Sequence[Any]) -> tuple[list[Names], list[Names]]:
    """The factors along the axes of the operands and of the results that may be divided."""
    return row_count.names_of(call.axes, [array.shape for array in arrays])


def divide(arrays: Sequence[Names], specs: Sequence[Sequence[Any]]) -> Division:
    """How to divide the factors, given how each array is divided: for each the first array that does decides."""
    division: dict[str, Any] = {}
    used: set[str] = set()
    for names, spec in zip(arrays, specs, strict=True):
        for factor, mesh_axes in zip(names, spec, strict=False):  # a spec may leave out trailing axes
            wanted = {mesh_axes} if isinstance(mesh_axes, str) else set(mesh_axes or ())
            if factor is not None and factor not in division and wanted and not wanted & used:
                division[factor] = mesh_axes
                used |= wanted
    return division


def in_whole_steps(call: Call, arrays: Sequence[Any], division: Division, devices: Mapping[str, int]) -> Division:
    """The division without factors of which a device would get a part of a step, as of a block of 32.

    Args:
        call: The call.
        arrays: Its operands.
        division: What divides the factors.
        devices: How many devices there are along each axis of the mesh.
    """
    steps = [
        (axis.name, axis.multiple, size)
        for operand, array in zip(call.axes.inputs, arrays, strict=False)
        for axis, size in zip(reversed(operand.axes), reversed(array.shape), strict=False)
        if axis.multiple > 1
    ]

    def whole(factor: str, mesh_axes: Any) -> bool:
        number = math.prod(devices[axis] for axis in ((mesh_axes,) if isinstance(mesh_axes, str) else mesh_axes))
        return not any(name == factor and size % (number * multiple) for name, multiple, size in steps)

    return {factor: mesh_axes for factor, mesh_axes in division.items() if whole(factor, mesh_axes)}


def spec_of(names: Names, division: Division) -> PartitionSpec:
    """How an array is divided when the factors are."""
    return PartitionSpec(*(None if factor is None else division.get(factor) for factor in names))


def summed_over(names: Names, division: Division) -> tuple[str, ...]:
    """The mesh axes whose devices each hold a part of a sum with these factors."""
    groups = [mesh_axes for factor, mesh_axes in division.items() if factor not in names]
    return tuple(axis for group in groups for axis in ((group,) if isinstance(group, str) else group))


def result_types(*avals: Any, call: Call) -> list[jax.core.ShapedArray]:
    """Abstract evaluation: on explicit meshes results are divided as the operands are.

    Raises:
        ValueError: What has to be whole is divided, a block of 32 too, or operands divide a factor differently.
    """
    specs = call.results(avals)
    on_mesh = [aval for aval in avals if not aval.sharding.mesh.empty]
    if not on_mesh:
        return [jax.core.ShapedArray(spec.shape, jax.numpy.dtype(spec.dtype)) for spec in specs.values()]
    inputs, results = names_of(call, avals)
    division = divide(inputs, [aval.sharding.spec for aval in avals])
    mesh, update = on_mesh[0].sharding.mesh, on_mesh[0].update  # keeps what it varies along in a shard_map
    in_steps = in_whole_steps(call, avals, division, mesh.shape)
    for name, aval, own in zip(call.operands, avals, inputs, strict=True):
        _check(name, aval, own, division)
        if spec_of(own, in_steps) != spec_of(own, division):
            raise ValueError(
                f"{name} must be sharded in whole blocks, got {aval.str_short(True)}; use jax.sharding.reshard"
            )
    return [
        update(
            shape=spec.shape,
            dtype=jax.numpy.dtype(spec.dtype),
            weak_type=False,
            sharding=NamedSharding(mesh, spec_of(own, division)),
        )
        for spec, own in zip(specs.values(), results, strict=True)
    ]


def _check(name: str, aval: Any, names: Names, division: Division) -> None:
    """Undivided axes can be divided without communication; anything else is the user's decision, as in jax.numpy."""
    given, wanted = aval.sharding.spec, spec_of(names, division)
    if given.unreduced or any(one not in (None, other) for one, other in zip(given, wanted, strict=False)):
        whole = next((i for i, factor in enumerate(reversed(names)) if factor is not None), len(names))
        raise ValueError(
            f"{name} must be sharded as {wanted}, not along its last {'axis' if whole == 1 else f'{whole} axes'}, and "
            f"along the others as the other operands are, got {aval.str_short(True)}; use jax.sharding.reshard"
        )


def like_type(gradient: Any, operand: Any) -> Any:
    """A gradient, divided as its operand is where types tell: a weight's need not be as the rows are."""
    wanted = jax.typeof(operand).sharding
    return gradient if jax.typeof(gradient).sharding == wanted else jax.sharding.reshard(gradient, wanted)


def whole(array: Any) -> Any:
    """An array that types do not divide."""
    sharding = jax.typeof(array).sharding
    if sharding.mesh.empty or not any(sharding.spec):
        return array
    return jax.sharding.reshard(array, sharding.update(spec=PartitionSpec(*(None for _ in sharding.spec))))


def whole_along_first_axis(array: Any) -> Any:
    """An array that types do not divide along its first axis."""
    sharding = jax.typeof(array).sharding
    if sharding.mesh.empty or sharding.spec[0] is None:
        return array
    return jax.sharding.reshard(array, sharding.update(spec=PartitionSpec(None, *sharding.spec[1:])))


def divided_alike(call: Call, arrays: Sequence[Any]) -> list[Any]:
    """Operands divided as a call takes them, where types tell: in a backward pass no user could reshard them."""
    inputs, _ = names_of(call, arrays)
    shardings = [jax.typeof(array).sharding for array in arrays]
    division = divide(inputs, [sharding.spec for sharding in shardings])
    wanted = [sharding.update(spec=spec_of(own, division)) for sharding, own in zip(shardings, inputs, strict=True)]
    return [
        array if own == other or own.mesh.empty else jax.sharding.reshard(array, other)
        for array, own, other in zip(arrays, shardings, wanted, strict=True)
    ]
