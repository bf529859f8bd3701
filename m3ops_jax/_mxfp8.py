"""The quantized container of this front end: to JAX a tree of two arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.export import register_pytree_node_serialization
from jax.tree_util import GetAttrKey, register_pytree_with_keys

from m3ops import mxfp8


@dataclass(frozen=True, eq=False)
class MXFP8(mxfp8.MXFP8):
    """Values and scales of a quantized array, and how the scales are stored.

    ``values, scales = q`` unpacks it, ``q[rows]`` slices leading axes, and ``q.scale_layout`` names the layout of the
    scales. To ``jax.jit``, ``jax.vmap``, ``jax.export`` and ``jax.tree`` it is a tree of two arrays, in which the
    layout is static.
    """

    values: jax.Array
    scales: jax.Array

    @property
    def e8m0(self) -> jax.Array:
        """The scales as numbers, ``float8_e8m0fnu``, as ``jax.nn.scaled_matmul`` wants them."""
        return self.scales.view(jnp.float8_e8m0fnu)


MXFP8.__module__ = "m3ops_jax"  # what exported programs call it


def quantized(name: str, q: Any) -> MXFP8:
    """An argument that has to be quantized.

    Raises:
        TypeError: It is not.
    """
    mxfp8.require(name, q, MXFP8)
    given: MXFP8 = q
    return given


def _children(q: MXFP8) -> tuple[tuple[Any, Any], str]:
    return (q.values, q.scales), q.scale_layout


def _named_children(q: MXFP8) -> tuple[tuple[tuple[Any, Any], ...], str]:
    return ((GetAttrKey("values"), q.values), (GetAttrKey("scales"), q.scales)), q.scale_layout


def _with_children(scale_layout: str, children: Any) -> MXFP8:
    values, scales = children
    return MXFP8(values, scales, scale_layout)


register_pytree_with_keys(MXFP8, _named_children, _with_children, _children)
# Exported programs name the containers of their results; a process that loads one has to know the name too.
register_pytree_node_serialization(
    MXFP8,
    serialized_name="m3ops.MXFP8",
    serialize_auxdata=str.encode,
    deserialize_auxdata=bytes.decode,
)
