"""The QK norm, with and without rotary embedding, as a user of PyTorch or JAX would write it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from m3ops.ops.gemma_rmsnorm.formula import norm_jax, norm_torch
from m3ops.ops.gemma_rmsnorm_heads import GemmaRMSNormHeads

USUAL = GemmaRMSNormHeads.of()
HEADS = [USUAL.num_heads_q, USUAL.num_heads_k, USUAL.num_heads_v]


def _heads_torch(qkv: Any, weight_q: Any, weight_k: Any, turn: Callable[[Any], Any] = lambda norm: norm) -> Any:
    import torch

    q, k, v = qkv.unflatten(-1, (-1, weight_q.shape[-1])).split(HEADS, -2)
    q, k = (turn(norm_torch(x.float(), w)).bfloat16() for x, w in ((q, weight_q), (k, weight_k)))
    return torch.cat([q, k, v], -2).flatten(-2)


def _rope_torch(qkv: Any, weight_q: Any, weight_k: Any, cos_sin: Any, positions: Any) -> Any:
    import torch

    cos, sin = cos_sin[positions].float().unsqueeze(-2).chunk(2, -1)

    def turn(norm: Any) -> Any:
        half = cos.shape[-1]
        x, y, rest = norm.split([half, half, norm.shape[-1] - 2 * half], -1)
        return torch.cat([x * cos - y * sin, y * cos + x * sin, rest], -1)

    return _heads_torch(qkv, weight_q, weight_k, turn)


def _heads_jax(qkv: Any, weight_q: Any, weight_k: Any, turn: Callable[[Any], Any] = lambda norm: norm) -> Any:
    import jax.numpy as jnp

    heads = qkv.reshape(*qkv.shape[:-1], -1, weight_q.shape[-1])
    q, k, v = jnp.split(heads, [HEADS[0], HEADS[0] + HEADS[1]], axis=-2)
    q, k = (turn(norm_jax(x.astype(jnp.float32), w)).astype(jnp.bfloat16) for x, w in ((q, weight_q), (k, weight_k)))
    return jnp.concatenate([q, k, v], axis=-2).reshape(qkv.shape)


def _rope_jax(qkv: Any, weight_q: Any, weight_k: Any, cos_sin: Any, positions: Any) -> Any:
    import jax.numpy as jnp

    cos, sin = jnp.split(cos_sin[positions].astype(jnp.float32)[..., None, :], 2, axis=-1)

    def turn(norm: Any) -> Any:
        half = cos.shape[-1]
        x, y, rest = jnp.split(norm, [half, 2 * half], axis=-1)
        return jnp.concatenate([x * cos - y * sin, y * cos + x * sin, rest], axis=-1)

    return _heads_jax(qkv, weight_q, weight_k, turn)


TORCH = {"gemma_rmsnorm_heads": _heads_torch, "gemma_rmsnorm_rope_heads": _rope_torch}
JAX = {"gemma_rmsnorm_heads": _heads_jax, "gemma_rmsnorm_rope_heads": _rope_jax}
