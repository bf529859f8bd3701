"""The rows of a mixture of experts in the order of their experts, by JAX's own operations."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from m3ops import validate
from m3ops_jax._call import spec_of


def moe_sort(ids: jax.Array, num_experts: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Sorts the slots of all tokens by expert: slot ``t * k + j`` is the j-th expert of token t.

    Slots of one expert keep their order. Those whose id is no expert's, below 0 or not below ``num_experts``, come last
    and count for nobody: so a device leaves out experts of others.

    Args:
        ids: Shape ``[..., k]``, int32, as :func:`moe_route` returns them.
        num_experts: Number of experts, at least 1.

    Returns:
        ``(order, slots, group_sizes)``, int32. ``order``, one for each slot, has the slots by expert, and ``slots``, of
        the shape of ids, at which place of it each slot is. ``group_sizes``, ``[num_experts]``, says how many slots
        each expert has.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: ids has no axis, or ``num_experts`` is below 1.
    """
    validate.array("ids", spec_of("ids", ids), ("int32",))
    num_experts = validate.count("num_experts", num_experts)
    flat = jnp.asarray(ids).reshape(-1)
    experts = jnp.where((flat >= 0) & (flat < num_experts), flat, num_experts)
    place = jnp.arange(flat.size, dtype=jnp.int32)
    experts, order = jax.lax.sort((experts, place), num_keys=1, is_stable=True)
    slots = jnp.zeros_like(place).at[order].set(place, unique_indices=True)
    group_sizes = jnp.bincount(experts, length=num_experts + 1)[:num_experts].astype(jnp.int32)
    return order, slots.reshape(ids.shape), group_sizes
