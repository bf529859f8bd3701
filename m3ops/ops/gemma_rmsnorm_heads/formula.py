"""The QK norm, with and without rotary embedding and a cache, as a user of PyTorch or JAX would write it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from m3ops.ops.gemma_rmsnorm.formula import norm_jax, norm_torch
from m3ops.ops.gemma_rmsnorm_heads import GemmaRMSNormRopeHeads

USUAL = GemmaRMSNormRopeHeads.of()


def _heads_torch(qkv: Any, *weights: Any, turn: Callable[[Any], Any] = lambda norm: norm) -> Any:
    import torch

    kinds = USUAL.kinds(*weights)
    parts = qkv.unflatten(-1, (-1, weights[0].shape[-1])).split([number for _, number, _ in kinds], -2)
    weighted = zip(parts, (weight for *_, weight in kinds), strict=True)
    normed = [x if w is None else turn(norm_torch(x.float(), w)).bfloat16() for x, w in weighted]
    return torch.cat(normed, -2).flatten(-2)


def _rope_torch(qkv: Any, weight_q: Any, weight_k: Any, cos_sin: Any, positions: Any, *of_index: Any) -> Any:
    import torch

    cos, sin = cos_sin[positions].float().unsqueeze(-2).chunk(2, -1)

    def turn(norm: Any) -> Any:
        half = cos.shape[-1]
        x, y, rest = norm.split([half, half, norm.shape[-1] - 2 * half], -1)
        return torch.cat([x * cos - y * sin, y * cos + x * sin, rest], -1)

    return _heads_torch(qkv, weight_q, weight_k, *of_index, turn=turn)


def _insert_torch(qkv: Any, *operands: Any) -> tuple[Any, ...]:
    *of_rope, key_cache, value_cache, slots = operands
    norm = _rope_torch(qkv, *of_rope)
    _, k, v = norm.unflatten(-1, (-1, key_cache.shape[-1])).split([n for _, n, _ in USUAL.kinds(None, None)], -2)
    pairs = ((key_cache, k), (value_cache, v))
    return norm, *(to.flatten(0, 1).index_copy(0, slots.long(), heads).view_as(to) for to, heads in pairs)


def _heads_jax(qkv: Any, *weights: Any, turn: Callable[[Any], Any] = lambda norm: norm) -> Any:
    import jax.numpy as jnp

    kinds = USUAL.kinds(*weights)
    heads = qkv.reshape(*qkv.shape[:-1], -1, weights[0].shape[-1])
    parts = jnp.split(heads, [*itertools.accumulate(number for _, number, _ in kinds[:-1])], axis=-2)
    weighted = zip(parts, (weight for *_, weight in kinds), strict=True)
    normed = [x if w is None else turn(norm_jax(x.astype(jnp.float32), w)).astype(jnp.bfloat16) for x, w in weighted]
    return jnp.concatenate(normed, axis=-2).reshape(qkv.shape)


def _rope_jax(qkv: Any, weight_q: Any, weight_k: Any, cos_sin: Any, positions: Any, *of_index: Any) -> Any:
    import jax.numpy as jnp

    cos, sin = jnp.split(cos_sin[positions].astype(jnp.float32)[..., None, :], 2, axis=-1)

    def turn(norm: Any) -> Any:
        half = cos.shape[-1]
        x, y, rest = jnp.split(norm, [half, 2 * half], axis=-1)
        return jnp.concatenate([x * cos - y * sin, y * cos + x * sin, rest], axis=-1)

    return _heads_jax(qkv, weight_q, weight_k, *of_index, turn=turn)


def _insert_jax(qkv: Any, *operands: Any) -> tuple[Any, ...]:
    import jax.numpy as jnp

    *of_rope, key_cache, value_cache, slots = operands
    norm = _rope_jax(qkv, *of_rope)
    heads = norm.reshape(*norm.shape[:-1], -1, key_cache.shape[-1])
    _, k, v = jnp.split(heads, [USUAL.num_heads_q, USUAL.num_heads_q + USUAL.num_heads_k], axis=-2)
    pairs = ((key_cache, k), (value_cache, v))
    return norm, *(to.reshape(-1, *to.shape[2:]).at[slots].set(heads).reshape(to.shape) for to, heads in pairs)


TORCH = {
    "gemma_rmsnorm_heads": _heads_torch,
    "gemma_rmsnorm_rope_heads": _rope_torch,
    "gemma_rmsnorm_rope_kv_insert": _insert_torch,
}
JAX = {
    "gemma_rmsnorm_heads": _heads_jax,
    "gemma_rmsnorm_rope_heads": _rope_jax,
    "gemma_rmsnorm_rope_kv_insert": _insert_jax,
}
