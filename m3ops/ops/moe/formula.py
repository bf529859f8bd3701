"""The choice of experts as a user of PyTorch or JAX would write it."""

from __future__ import annotations

from typing import Any

from m3ops.ops.moe import MoERoute

TOP_K = MoERoute.of().top_k


def _route_torch(logits: Any, bias: Any) -> Any:
    scores = logits.float().sigmoid()
    ids = (scores + bias).topk(TOP_K, -1).indices
    chosen = scores.gather(-1, ids)
    return ids.int(), chosen / chosen.sum(-1, keepdim=True)


def _route_jax(logits: Any, bias: Any) -> Any:
    import jax
    import jax.numpy as jnp

    scores = jax.nn.sigmoid(logits.astype(jnp.float32))
    _, ids = jax.lax.top_k(scores + bias, TOP_K)
    chosen = jnp.take_along_axis(scores, ids, axis=-1)
    return ids, chosen / chosen.sum(-1, keepdims=True)


TORCH = {"moe_route": _route_torch}
JAX = {"moe_route": _route_jax}
