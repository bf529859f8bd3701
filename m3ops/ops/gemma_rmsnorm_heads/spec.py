"""Gemma's RMSNorm of the q and k heads of a packed qkv: MiniMax-M3's QK norm.

    out = [norm(q_0) ... norm(q_last) | norm(k_0) ... norm(k_last) | v]

with the norm of :mod:`m3ops.ops.gemma_rmsnorm.spec` over each head by itself, ``weight_q`` for all q heads and
``weight_k`` for all k heads; the v heads keep their bytes. Source: ``qk_norm_type = "per_head"`` with
``use_gemma_norm`` in MiniMax-M3's configuration, as vLLM's ``vllm/models/minimax_m3`` reads it.
``qkv [..., (num_heads_q + num_heads_k + num_heads_v) * head_dim], weight_q [head_dim], weight_k [head_dim] -> `` the
shape of qkv; leading axes of the weights broadcast against those of qkv.
"""

from __future__ import annotations

from m3ops import validate
from m3ops.numerics import exact
from m3ops.op import Array, Arrays, ArraySpec
from m3ops.ops.gemma_rmsnorm.spec import broadcasts

MAX_HEAD_DIM = 1024


def infer(
    qkv: ArraySpec,
    weight_q: ArraySpec,
    weight_k: ArraySpec,
    *,
    num_heads_q: int = 64,
    num_heads_k: int = 4,
    num_heads_v: int = 4,
    eps: float = 1e-6,
) -> tuple[ArraySpec]:
    for name, spec in (("qkv", qkv), ("weight_q", weight_q), ("weight_k", weight_k)):
        validate.array(name, spec)
    validate.count("num_heads_q", num_heads_q)
    validate.count("num_heads_k", num_heads_k)
    validate.count("num_heads_v", num_heads_v, low=0)
    size, heads = weight_q.shape[-1], num_heads_q + num_heads_k + num_heads_v
    if not 0 < size <= MAX_HEAD_DIM:
        raise ValueError(
            f"weight_q must have a last axis, head_dim, of 1 to {MAX_HEAD_DIM} elements, got shape {weight_q.shape}"
        )
    if qkv.shape[-1] != heads * size:
        raise ValueError(
            f"qkv must have a last axis of {num_heads_q} q, {num_heads_k} k and {num_heads_v} v heads of {size}, "
            f"{heads * size}, got shape {qkv.shape}"
        )
    for name, spec in (("weight_q", weight_q), ("weight_k", weight_k)):
        if spec.shape[-1] != size or not broadcasts(spec.shape[:-1], qkv.shape[:-1]):
            raise ValueError(f"{name} must have shape ({size},) or broadcast against qkv {qkv.shape}, got {spec.shape}")
    validate.number("eps", eps, low=0.0)
    return (ArraySpec(qkv.shape, qkv.dtype),)


def compute(
    qkv: Array,
    weight_q: Array,
    weight_k: Array,
    *,
    num_heads_q: int,
    num_heads_k: int,
    num_heads_v: int,
    eps: float,
) -> Arrays:
    xp, num_heads = qkv.__array_namespace__(), num_heads_q + num_heads_k + num_heads_v
    heads = qkv.reshape(*qkv.shape[:-1], num_heads, weight_q.shape[-1])

    def norm(part: Array, weight: Array) -> Array:
        return exact.store(exact.rmsnorm(exact.load(part), exact.load(weight)[..., None, :], eps), qkv.dtype.name)

    v = num_heads_q + num_heads_k
    parts = norm(heads[..., :num_heads_q, :], weight_q), norm(heads[..., num_heads_q:v, :], weight_k), heads[..., v:, :]
    return (xp.concatenate(parts, axis=-2).reshape(qkv.shape),)
