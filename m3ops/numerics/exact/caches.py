"""Insertion into a paged cache, ``[num_blocks, block_size, ...]``, over NumPy or JAX arrays."""

from __future__ import annotations

from m3ops.numerics.exact.namespaces import Array
from m3ops.numerics.formats import FORMATS


def rows_of_slots(slots: Array, blocks: tuple[int, int]) -> Array:
    """For each slot of a cache the number of the row that goes there, -1 for none; shape ``[num_blocks, block_size]``.

    Slots that the cache does not have get nothing. Of a slot that several rows name, the last one is meant.
    """
    xp = slots.__array_namespace__()
    named = xp.concatenate((xp.full(1, -1, xp.int64), slots.reshape(-1).astype(xp.int64)))
    order = xp.argsort(named, stable=True)
    places = xp.arange(blocks[0] * blocks[1])
    last = xp.searchsorted(named[order], places, side="right") - 1
    return xp.where(named[order[last]] == places, order[last] - 1, -1).reshape(blocks)


def insert(cache: Array, rows: Array, slots: Array) -> Array:
    """The cache with the rows, ``[..., heads, head_dim]`` of its dtype, in their slots; all other bytes are kept."""
    xp = cache.__array_namespace__()
    bits = getattr(xp, f"uint{FORMATS[cache.dtype.name].bits}")
    flat = rows.view(bits).reshape(-1, *cache.shape[2:])
    padded = xp.concatenate((flat, xp.zeros((1, *cache.shape[2:]), bits)))
    source = rows_of_slots(slots, cache.shape[:2])
    inserted = xp.where((source >= 0)[..., None, None], padded[source], cache.view(bits))
    return inserted.view(cache.dtype)
