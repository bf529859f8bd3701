"""The choice of experts, and the sum of what they return, as a user of PyTorch or JAX would write them."""

from __future__ import annotations

from typing import Any

from m3ops.ops.moe import MoECombine, MoERoute
from m3ops.ops.mxfp8.formula import quantize_jax, quantize_torch

TOP_K = MoERoute.of().top_k
SCALE = MoECombine.of().scale


def _logits_torch(x: Any, w: Any) -> Any:
    return x.float() @ w.float().T


def _logits_jax(x: Any, w: Any) -> Any:
    import jax
    import jax.numpy as jnp

    return jax.lax.dot_general(
        x.astype(jnp.float32), w.astype(jnp.float32), (((x.ndim - 1,), (1,)), ((), ())), precision="highest"
    )


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


def _sort_torch(ids: Any, *, num_experts: int) -> Any:
    """Sizes without ``bincount``, which waits for the device and does not compile."""
    import torch

    experts, order = ids.flatten().sort(stable=True)
    slots = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=ids.device))
    firsts = torch.searchsorted(experts, torch.arange(num_experts + 1, dtype=ids.dtype, device=ids.device))
    return order.int(), slots.int().reshape(ids.shape), firsts.diff().int()


def _sort_jax(ids: Any, *, num_experts: int) -> Any:
    import jax.numpy as jnp

    order = jnp.argsort(ids.ravel(), stable=True)
    slots = jnp.zeros_like(order).at[order].set(jnp.arange(order.size, dtype=order.dtype))
    sizes = jnp.bincount(ids.ravel(), length=num_experts)
    return order.astype(jnp.int32), slots.astype(jnp.int32).reshape(ids.shape), sizes.astype(jnp.int32)


def _combine_torch(y: Any, slots: Any, weights: Any, shared: Any = None) -> Any:
    result = SCALE * (y[slots].float() * weights[..., None]).sum(-2)
    return (result if shared is None else result + shared).to(y.dtype)


def _combine_jax(y: Any, slots: Any, weights: Any, shared: Any = None) -> Any:
    import jax.numpy as jnp

    result = SCALE * (y[slots].astype(jnp.float32) * weights[..., None]).sum(-2)
    return (result if shared is None else result + shared).astype(y.dtype)


def _scatter_torch(x: Any, slots: Any) -> Any:
    import torch

    values, scales = quantize_torch(x.float())
    of_rows = torch.empty_like(slots.flatten(), dtype=torch.int64)
    of_rows[slots.flatten().long()] = torch.arange(slots.numel(), device=x.device) // slots.shape[-1]
    return values.view(torch.uint8)[of_rows].view(values.dtype), scales[of_rows]


def _scatter_jax(x: Any, slots: Any) -> Any:
    import jax.numpy as jnp

    values, scales = quantize_jax(x.astype(jnp.float32))
    of_rows = jnp.zeros(slots.size, jnp.int32).at[slots.ravel()].set(jnp.arange(slots.size) // slots.shape[-1])
    return values[of_rows], scales[of_rows]


TORCH = {
    "moe_logits": _logits_torch,
    "moe_route": _route_torch,
    "moe_sort": _sort_torch,
    "moe_combine": _combine_torch,
    "moe_scatter_quantize": _scatter_torch,
}
JAX = {
    "moe_logits": _logits_jax,
    "moe_route": _route_jax,
    "moe_sort": _sort_jax,
    "moe_combine": _combine_jax,
    "moe_scatter_quantize": _scatter_jax,
}
