"""The one door to names of JAX that are not public, each with its reason. A test imports them all."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import jaxlib.gpu_triton
from jax._src.dispatch import prim_requires_devices_during_lowering


def give_devices(primitive: Any) -> None:
    """Has jit tell the primitive's lowering rule the devices, which custom_partitioning needs.

    jit does so only for the primitives in this set, since a program with one of them cannot be lowered for an abstract
    mesh. There is no public way.
    """
    prim_requires_devices_during_lowering.add(primitive)


def manual_axes(context: Any) -> frozenset[str]:
    """The mesh axes of the shard_map around what is lowered; outside one the context has no such field."""
    axes: frozenset[str] = getattr(context, "manual_axes", frozenset())
    return axes


def is_export(context: Any) -> bool:
    """Whether a lowering, of which this is the module context, is for ``jax.export``."""
    for_export: bool = context.lowering_parameters.for_export
    return for_export


def num_devices(context: Any) -> int:
    """For how many devices a program is lowered outside any shard_map; in one the context has no such field."""
    number: int = getattr(context, "num_devices", 1)
    return number


def missing_plugin() -> str | None:
    """What to install to lower a kernel, or None where it is there.

    jaxlib takes the class that describes a kernel's launch from the GPU plugin that it finds; without one the attribute
    is missing, which is all that says so.
    """
    if hasattr(jaxlib.gpu_triton, "TritonKernel"):
        return None
    return (
        "lowering a kernel for a GPU needs JAX's GPU plugin, of either vendor and without a device too: "
        f"pip install --no-deps jax-cuda13-plugin=={version('jaxlib')}; or, in a checkout, pip install '.[export]'"
    )
