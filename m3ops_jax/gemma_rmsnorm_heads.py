"""Gemma's RMSNorm of the heads of a packed qkv, with and without rotary embedding and a paged cache, for JAX.

Generated from m3ops/ops/gemma_rmsnorm_heads/spec.py by ``python -m m3ops.tools.front_ends``.
"""

from __future__ import annotations

import jax
from jax.typing import DTypeLike

from m3ops.ops.gemma_rmsnorm_heads import GemmaRMSNormHeads, GemmaRMSNormRopeHeads, GemmaRMSNormRopeKVInsert
from m3ops_jax._call import dtype_name, run


def gemma_rmsnorm_heads(
    qkv: jax.Array,
    weight_q: jax.Array,
    weight_k: jax.Array,
    *,
    num_heads_q: int = 64,
    num_heads_k: int = 4,
    num_heads_v: int = 4,
    eps: float = 1e-6,
    weight_offset: float = 1.0,
    num_rows: jax.Array | None = None,
) -> jax.Array:
    """QK norm: :func:`gemma_rmsnorm` of each q and k head of a packed qkv in one launch; v keeps its bytes.

    Args:
        qkv: Shape ``[..., (num_heads_q + num_heads_k + num_heads_v) * head_dim]``; bfloat16, float16 or float32.
        weight_q: Shape ``[head_dim]``, or with leading axes that broadcast against those of qkv; any of these dtypes.
        weight_k: Shape ``[head_dim]``, or with leading axes that broadcast against those of qkv; any of these dtypes.
        num_heads_q: Number of q heads, at least 1.
        num_heads_k: Number of k heads, at least 1.
        num_heads_v: Number of v heads, 0 if there are none.
        eps: Added to the mean square, at least 0.
        weight_offset: Added to the weight: 1 where a model stores offsets from 1, as Gemma does; 0 for the ordinary
            RMSNorm.
        num_rows: How many rows count, with the leading axes flattened: an int32 array of one element, clamped to the
            rows that exist. Or one number for each expert, ``[E]`` for arrays ``[E, max_rows, ...]``. The other rows
            are not read, and their results are zero.

    Returns:
        The shape and dtype of qkv, with q and k rounded once from fp32.

    Raises:
        TypeError: A dtype is not supported, or a parameter has the wrong type.
        ValueError: The shapes do not fit each other, or a parameter is out of range.
    """
    op = GemmaRMSNormHeads.of(
        num_heads_q=num_heads_q, num_heads_k=num_heads_k, num_heads_v=num_heads_v, eps=eps, weight_offset=weight_offset
    )
    result: jax.Array = run(op, qkv, weight_q, weight_k, num_rows=num_rows)
    return result


def gemma_rmsnorm_rope_heads(
    qkv: jax.Array,
    weight_q: jax.Array,
    weight_k: jax.Array,
    cos_sin: jax.Array,
    positions: jax.Array,
    weight_index_q: jax.Array | None = None,
    weight_index_k: jax.Array | None = None,
    q_scale: jax.Array | None = None,
    *,
    num_heads_q: int = 64,
    num_heads_k: int = 4,
    num_heads_v: int = 4,
    eps: float = 1e-6,
    weight_offset: float = 1.0,
    rotary_dim: int = 64,
    num_heads_index_q: int = 4,
    num_heads_index_k: int = 1,
    q_dtype: DTypeLike | None = None,
    num_rows: jax.Array | None = None,
) -> jax.Array | tuple[jax.Array, jax.Array]:
    """QK norm and rotary embedding: :func:`gemma_rmsnorm` of each q and k head of a packed qkv, turned by the angles of
    its position before it is rounded, in one launch; v keeps its bytes. With the weights of an indexer the row is
    ``[q | k | v | index_q | index_k]``, and its heads are normed and turned likewise.

    Args:
        qkv: Shape ``[..., (num_heads_q + num_heads_k + num_heads_v) * head_dim]``; bfloat16, float16 or float32. With
            index heads these are in the last axis too.
        weight_q: Shape ``[head_dim]``, or with leading axes that broadcast against those of qkv; any of these dtypes.
        weight_k: Shape ``[head_dim]``, or with leading axes that broadcast against those of qkv; any of these dtypes.
        cos_sin: Shape ``[max_position, rotary_dim]``, in each row the cosines of the angles, then their sines; any of
            these dtypes. ``m3ops.rope.rope_cos_sin`` makes it.
        positions: The rows of cos_sin: int32 or int64 of the leading axes of qkv, or of axes that broadcast against
            those. At a position that the table does not have, what is turned is NaN.
        weight_index_q: For the index_q heads of an indexer, which follow v in the row: as weight_q; None where there
            are none. It is given with weight_index_k or not at all.
        weight_index_k: For the index_k heads of an indexer, which follow v in the row: as weight_q; None where there
            are none. It is given with weight_index_q or not at all.
        q_scale: What q is divided by where it has a q_dtype: float32 of one element, ``[1]``; None for 1.
        num_heads_q: Number of q heads, at least 1.
        num_heads_k: Number of k heads, at least 1.
        num_heads_v: Number of v heads, 0 if there are none.
        eps: Added to the mean square, at least 0.
        weight_offset: Added to the weight: 1 where a model stores offsets from 1, as Gemma does; 0 for the ordinary
            RMSNorm.
        rotary_dim: How many elements of a head are turned, the first ones: a multiple of 16.
        num_heads_index_q: Number of index_q heads where there are any, at least 1.
        num_heads_index_k: Number of index_k heads where there are any, at least 1.
        q_dtype: An E4M3 dtype in which q is a result of its own; None for q in the row, as the other heads are.
        num_rows: How many rows count, with the leading axes flattened: an int32 array of one element, clamped to the
            rows that exist. Or one number for each expert, ``[E]`` for arrays ``[E, max_rows, ...]``. The other rows
            are not read, and their results are zero.

    Returns:
        The shape and dtype of qkv, with the heads of every kind but v rounded once from fp32. With ``q_dtype``, ``(qkv,
        q)``: q has shape ``[..., num_heads_q * head_dim]``, and in qkv it keeps its bytes.

    Raises:
        TypeError: A dtype is not supported, or a parameter has the wrong type.
        ValueError: The shapes do not fit each other, or a parameter is out of range.
    """
    op = GemmaRMSNormRopeHeads.of(
        num_heads_q=num_heads_q,
        num_heads_k=num_heads_k,
        num_heads_v=num_heads_v,
        eps=eps,
        weight_offset=weight_offset,
        rotary_dim=rotary_dim,
        num_heads_index_q=num_heads_index_q,
        num_heads_index_k=num_heads_index_k,
        q_dtype=dtype_name(q_dtype),
    )
    result: jax.Array | tuple[jax.Array, jax.Array] = run(
        op, qkv, weight_q, weight_k, cos_sin, positions, weight_index_q, weight_index_k, q_scale, num_rows=num_rows
    )
    return result


def gemma_rmsnorm_rope_kv_insert(
    qkv: jax.Array,
    weight_q: jax.Array,
    weight_k: jax.Array,
    cos_sin: jax.Array,
    positions: jax.Array,
    key_cache: jax.Array | jax.Ref,
    value_cache: jax.Array | jax.Ref,
    slot_mapping: jax.Array,
    weight_index_q: jax.Array | None = None,
    weight_index_k: jax.Array | None = None,
    index_cache: jax.Array | jax.Ref | None = None,
    index_slot_mapping: jax.Array | None = None,
    k_scale: jax.Array | None = None,
    v_scale: jax.Array | None = None,
    q_scale: jax.Array | None = None,
    *,
    num_heads_q: int = 64,
    num_heads_k: int = 4,
    num_heads_v: int = 4,
    eps: float = 1e-6,
    weight_offset: float = 1.0,
    rotary_dim: int = 64,
    num_heads_index_q: int = 4,
    num_heads_index_k: int = 1,
    q_dtype: DTypeLike | None = None,
    num_rows: jax.Array | None = None,
) -> tuple[jax.Array, ...]:
    """QK norm, rotary embedding and insertion into a paged cache in one launch: :func:`gemma_rmsnorm_rope_heads` of a
    packed qkv, whose k and v heads, and with ``index_cache`` index_k heads, also go to the slots of their rows.

    Args:
        qkv: Shape ``[..., (num_heads_q + num_heads_k + num_heads_v) * head_dim]``; bfloat16, float16 or float32. With
            index heads these are in the last axis too.
        weight_q: Shape ``[head_dim]``, or with leading axes that broadcast against those of qkv; any of these dtypes.
        weight_k: Shape ``[head_dim]``, or with leading axes that broadcast against those of qkv; any of these dtypes.
        cos_sin: Shape ``[max_position, rotary_dim]``, in each row the cosines of the angles, then their sines; any of
            these dtypes. ``m3ops.rope.rope_cos_sin`` makes it.
        positions: The rows of cos_sin: int32 or int64 of the leading axes of qkv, or of axes that broadcast against
            those. At a position that the table does not have, what is turned is NaN.
        key_cache: Shape ``[num_blocks, block_size, num_heads_k, head_dim]``; bfloat16, float16, float32 or an E4M3
            dtype. A ``jax.Ref`` is updated: the new key cache is also written there, and under jit its memory is
            reused.
        value_cache: Shape ``[num_blocks, block_size, num_heads_v, head_dim]``; bfloat16, float16, float32 or an E4M3
            dtype. It has as many blocks and slots as key_cache. A ``jax.Ref`` is updated: the new value cache is also
            written there, and under jit its memory is reused.
        slot_mapping: For each row the slot that its k and v heads go to: ``block * block_size + offset``, int32 or
            int64 of the leading axes of qkv. A negative slot inserts nothing. No slot may be named twice: which row it
            then gets is not defined on a GPU.
        weight_index_q: For the index_q heads of an indexer, which follow v in the row: as weight_q; None where there
            are none. It is given with weight_index_k or not at all.
        weight_index_k: For the index_k heads of an indexer, which follow v in the row: as weight_q; None where there
            are none. It is given with weight_index_q or not at all.
        index_cache: Shape ``[num_blocks, block_size, num_heads_index_k, head_dim]``; bfloat16, float16, float32 or an
            E4M3 dtype. In E4M3 it has no scale. None if the index_k heads go to no cache. A ``jax.Ref`` is updated: the
            new index cache is also written there, and under jit its memory is reused.
        index_slot_mapping: For each row the slot that its index_k heads go to in index_cache: ``block * block_size +
            offset``, int32 or int64 of the leading axes of qkv. A negative slot inserts nothing. No slot may be named
            twice: which row it then gets is not defined on a GPU. It is given with index_cache.
        k_scale: What k is divided by for a cache of E4M3: float32 of one element, ``[1]``; None for 1, and for a cache
            of another dtype.
        v_scale: What v is divided by for a cache of E4M3: float32 of one element, ``[1]``; None for 1, and for a cache
            of another dtype.
        q_scale: What q is divided by where it has a q_dtype: float32 of one element, ``[1]``; None for 1.
        num_heads_q: Number of q heads, at least 1.
        num_heads_k: Number of k heads, at least 1.
        num_heads_v: Number of v heads, at least 1.
        eps: Added to the mean square, at least 0.
        weight_offset: Added to the weight: 1 where a model stores offsets from 1, as Gemma does; 0 for the ordinary
            RMSNorm.
        rotary_dim: How many elements of a head are turned, the first ones: a multiple of 16.
        num_heads_index_q: Number of index_q heads where there are any, at least 1.
        num_heads_index_k: Number of index_k heads where there are any, at least 1.
        q_dtype: An E4M3 dtype in which q is a result of its own; None for q in the row, as the other heads are.
        num_rows: How many rows count, with the leading axes flattened: an int32 array of one element, clamped to the
            rows that exist. Or one number for each expert, ``[E]`` for arrays ``[E, max_rows, ...]``. The other rows
            are not read, and their results are zero.

    Returns:
        ``(qkv, key_cache, value_cache)``, and index_cache if that is given: the row as ``gemma_rmsnorm_rope_heads``
        returns it, followed by q with ``q_dtype``, and the caches with what was inserted.

    Raises:
        TypeError: A dtype is not supported, or a parameter has the wrong type.
        ValueError: The shapes do not fit each other, or a slot is past the cache or named twice, which is seen of slots
            in the host's memory, or a parameter is out of range.
    """
    op = GemmaRMSNormRopeKVInsert.of(
        num_heads_q=num_heads_q,
        num_heads_k=num_heads_k,
        num_heads_v=num_heads_v,
        eps=eps,
        weight_offset=weight_offset,
        rotary_dim=rotary_dim,
        num_heads_index_q=num_heads_index_q,
        num_heads_index_k=num_heads_index_k,
        q_dtype=dtype_name(q_dtype),
    )
    result: tuple[jax.Array, ...] = run(
        op,
        qkv,
        weight_q,
        weight_k,
        cos_sin,
        positions,
        key_cache,
        value_cache,
        slot_mapping,
        weight_index_q,
        weight_index_k,
        index_cache,
        index_slot_mapping,
        k_scale,
        v_scale,
        q_scale,
        num_rows=num_rows,
    )
    return result
