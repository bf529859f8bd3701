"""Gemma's RMSNorm of q and k heads for JAX."""

from __future__ import annotations

import jax

from m3ops_jax._primitive import call


def gemma_rmsnorm_heads(
    qkv: jax.Array,
    weight_q: jax.Array,
    weight_k: jax.Array,
    *,
    num_heads_q: int = 64,
    num_heads_k: int = 4,
    num_heads_v: int = 4,
    eps: float = 1e-6,
    num_rows: jax.Array | None = None,
) -> jax.Array:
    """:func:`gemma_rmsnorm` of each q and each k head of a packed qkv, in one launch: MiniMax-M3's QK norm.

    The result of a head is that of ``gemma_rmsnorm(head, weight)`` to the bit; v heads keep their bytes. The numbers of
    heads default to MiniMax-M3's; under tensor parallelism give those of a rank. It has no derivative: to train, call
    :func:`gemma_rmsnorm` of the heads.

    Args:
        qkv: ``[q heads | k heads | v heads]`` along the last axis, each head_dim long, shape
            ``[..., (num_heads_q + num_heads_k + num_heads_v) * head_dim]``; bfloat16, float16 or float32.
        weight_q: Weight of the q heads, shape ``[head_dim]``, or with leading axes that broadcast against those of
            qkv; any of these dtypes. head_dim is at most 1024.
        weight_k: Weight of the k heads, likewise.
        num_heads_q: Number of q heads, at least 1.
        num_heads_k: Number of k heads, at least 1.
        num_heads_v: Number of v heads, or of whatever else is to be left alone; may be 0.
        eps: Added to the mean square, at least 0.
        num_rows: int32 array of one element: from this row on, the leading axes flattened, nothing is read or computed,
            and the results are zero. Below 0 it counts as 0, past the last row as all rows. The default is all rows.

    Returns:
        The packed qkv with q and k normalized, with the shape and dtype of qkv.

    Raises:
        TypeError: A dtype is not one of these, or a parameter has the wrong type.
        ValueError: The shapes do not fit each other, or a parameter is out of range.
    """
    (result,) = call(
        "gemma_rmsnorm_heads",
        qkv,
        weight_q,
        weight_k,
        num_heads_q=num_heads_q,
        num_heads_k=num_heads_k,
        num_heads_v=num_heads_v,
        eps=eps,
        num_rows=num_rows,
    )
    return result
