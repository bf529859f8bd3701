"""The types of an op's results, which on explicit meshes say how the arrays are divided among devices."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray
from jax.sharding import NamedSharding, PartitionSpec

from m3ops.op import ArraySpec, Op
from m3ops_jax._row_axes import divide, result_axes, row_axes, spec_of


def array_spec(aval: Any) -> ArraySpec:
    """What the core knows of an array: shape and dtype."""
    return ArraySpec(tuple(aval.shape), np.dtype(aval.dtype).name)


def result_types(op: Op, *avals: Any, targets: tuple[str, ...], **params: Any) -> list[ShapedArray]:
    """Abstract evaluation of an op's primitive: results are divided as the rows are, their last axis is whole.

    Raises:
        ValueError: On an explicit mesh, a last axis is divided, or arrays divide the rows differently.
    """
    outputs = op.infer(*map(array_spec, avals), **params)
    on_mesh = [aval for aval in avals if not aval.sharding.mesh.empty]
    if not on_mesh:
        return [ShapedArray(s.shape, jnp.dtype(s.dtype)) for s in outputs]
    axes = row_axes(op, [aval.shape for aval in avals], params)
    results = result_axes(op, axes, params, len(outputs))
    division = divide(axes, [aval.sharding.spec for aval in avals])
    for name, aval, own in zip(op.inputs, avals, axes, strict=True):
        _check(name, aval, spec_of(own, division), min(op.core_rank(params), len(own)))
    mesh, update = on_mesh[0].sharding.mesh, on_mesh[0].update  # keeps what it varies along in a shard_map
    return [
        update(
            shape=s.shape,
            dtype=jnp.dtype(s.dtype),
            weak_type=False,
            sharding=NamedSharding(mesh, spec_of(own, division)),
        )
        for s, own in zip(outputs, results, strict=True)
    ]


def like_type(gradient: Any, operand: Any) -> Any:
    """A gradient, divided as its operand is where types tell: a weight's need not be as the rows are."""
    wanted = jax.typeof(operand).sharding
    return gradient if jax.typeof(gradient).sharding == wanted else jax.sharding.reshard(gradient, wanted)


def split_groups(name: str, array: jax.Array, groups: int) -> jax.Array:
    """Makes the groups along the last axis rows, which may be divided among devices; to XLA that is a bitcast.

    Raises:
        ValueError: On an explicit mesh, the devices that divide the last axis do not divide the groups.
    """
    aval = jax.typeof(array)
    names = aval.sharding.spec[-1] or ()
    devices = math.prod(aval.sharding.mesh.shape[n] for n in ((names,) if isinstance(names, str) else names))
    if groups % devices:
        raise ValueError(
            f"groups must be a multiple of the {devices} devices that divide the last axis of {name}, got {groups} "
            f"and {aval.str_short(True)}"
        )
    return array.reshape(*array.shape[:-1], groups, array.shape[-1] // groups)


def _check(name: str, aval: Any, wanted: PartitionSpec, core: int) -> None:
    """Undivided axes can be divided without communication; anything else is the user's decision, as in jax.numpy."""
    given = aval.sharding.spec
    if given.unreduced or any(one not in (None, other) for one, other in zip(given, wanted, strict=False)):
        raise ValueError(
            f"{name} must be sharded as {wanted}, whole along its last {'axis' if core == 1 else f'{core} axes'} and "
            f"alike along the others, "
            f"got {aval.str_short(True)}; use jax.sharding.reshard"
        )
