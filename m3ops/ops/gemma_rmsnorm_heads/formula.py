"""The QK norm as a user of PyTorch or JAX would write it."""

from __future__ import annotations

from typing import Any

from m3ops.ops.gemma_rmsnorm.formula import norm_jax, norm_torch
from m3ops.ops.gemma_rmsnorm_heads import GemmaRMSNormHeads

USUAL = GemmaRMSNormHeads.of()
HEADS = [USUAL.num_heads_q, USUAL.num_heads_k, USUAL.num_heads_v]


def _heads_torch(qkv: Any, weight_q: Any, weight_k: Any) -> Any:
    import torch

    q, k, v = qkv.unflatten(-1, (-1, weight_q.shape[-1])).split(HEADS, -2)
    q, k = norm_torch(q.float(), weight_q).bfloat16(), norm_torch(k.float(), weight_k).bfloat16()
    return torch.cat([q, k, v], -2).flatten(-2)


def _heads_jax(qkv: Any, weight_q: Any, weight_k: Any) -> Any:
    import jax.numpy as jnp

    heads = qkv.reshape(*qkv.shape[:-1], -1, weight_q.shape[-1])
    q, k, v = jnp.split(heads, [HEADS[0], HEADS[0] + HEADS[1]], axis=-2)
    q, k = (norm_jax(x.astype(jnp.float32), w).astype(jnp.bfloat16) for x, w in ((q, weight_q), (k, weight_k)))
    return jnp.concatenate([q, k, v], axis=-2).reshape(qkv.shape)


TORCH = {"gemma_rmsnorm_heads": _heads_torch}
JAX = {"gemma_rmsnorm_heads": _heads_jax}
