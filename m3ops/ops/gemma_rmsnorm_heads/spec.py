"""Gemma's RMSNorm of the q and k heads of a packed qkv: MiniMax-M3's QK norm.

    norm = [norm(q_0) ... norm(q_last) | norm(k_0) ... norm(k_last) | v]

with the norm of :mod:`m3ops.ops.gemma_rmsnorm.spec` over each head by itself, ``weight_q`` for all q heads and
``weight_k`` for all k heads; the v heads keep their bytes. Source: ``qk_norm_type = "per_head"`` with
``use_gemma_norm`` in MiniMax-M3's configuration, as vLLM's ``vllm/models/minimax_m3`` reads it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar

from m3ops import validate
from m3ops.array import ArraySpec
from m3ops.axes import Axes
from m3ops.numerics.exact import fp32, functions
from m3ops.op import Array, Arrays, Op, Specs, parameter
from m3ops.ops.gemma_rmsnorm.spec import EPS, WEIGHT_OFFSET
from m3ops.plan import Plan
from m3ops.target import Target

MAX_HEAD_DIM = 1024
WEIGHT = "Shape ``[head_dim]``, or with leading axes that broadcast against those of qkv; any of these dtypes."


@dataclass(frozen=True)
class GemmaRMSNormHeads(Op):
    """QK norm: :func:`gemma_rmsnorm` of each q and k head of a packed qkv in one launch; v keeps its bytes."""

    name: ClassVar[str] = "gemma_rmsnorm_heads"
    inputs: ClassVar[Mapping[str, str]] = {
        "qkv": "Shape ``[..., (num_heads_q + num_heads_k + num_heads_v) * head_dim]``; bfloat16, float16 or float32.",
        "weight_q": WEIGHT,
        "weight_k": WEIGHT,
    }
    returns: ClassVar[str] = "The shape and dtype of qkv, with q and k rounded once from fp32."
    in_place: ClassVar[bool] = True

    num_heads_q: int = parameter(64, "Number of q heads, at least 1.")
    num_heads_k: int = parameter(4, "Number of k heads, at least 1.")
    num_heads_v: int = parameter(4, "Number of v heads, 0 if there are none.")
    eps: float = parameter(1e-6, EPS)
    weight_offset: float = parameter(1.0, WEIGHT_OFFSET)

    def __post_init__(self) -> None:
        self._canonical(
            num_heads_q=validate.count("num_heads_q", self.num_heads_q),
            num_heads_k=validate.count("num_heads_k", self.num_heads_k),
            num_heads_v=validate.count("num_heads_v", self.num_heads_v, low=0),
            eps=validate.number("eps", self.eps, low=0.0),
            weight_offset=validate.number("weight_offset", self.weight_offset),
        )
        super().__post_init__()

    @property
    def num_heads(self) -> int:
        return self.num_heads_q + self.num_heads_k + self.num_heads_v

    @property
    def axes(self) -> Axes:
        return Axes.of("*r N!, *r? H!, *r? H! -> *r N!")

    def infer(self, qkv: ArraySpec, weight_q: ArraySpec, weight_k: ArraySpec) -> dict[str, ArraySpec]:
        for name, spec in (("qkv", qkv), ("weight_q", weight_q), ("weight_k", weight_k)):
            validate.array(name, spec)
        size = weight_q.shape[-1]
        if not 0 < size <= MAX_HEAD_DIM:
            raise ValueError(
                f"weight_q must have a last axis, head_dim, of 1 to {MAX_HEAD_DIM} elements, got shape {weight_q.shape}"
            )
        if qkv.shape[-1] != self.num_heads * size:
            raise ValueError(
                f"qkv must have a last axis of {self.num_heads * size}, for {self.num_heads_q} q, {self.num_heads_k} k "
                f"and {self.num_heads_v} v heads of {size}, got shape {qkv.shape}"
            )
        for name, spec in (("weight_q", weight_q), ("weight_k", weight_k)):
            if spec.shape[-1] != size or not validate.broadcasts(spec.shape[:-1], qkv.shape[:-1]):
                raise ValueError(
                    f"{name} must have shape ({size},) or broadcast against qkv {qkv.shape}, got {spec.shape}"
                )
        return {"norm": ArraySpec(qkv.shape, qkv.dtype)}

    def compute(self, qkv: Array, weight_q: Array, weight_k: Array) -> Arrays:
        xp = qkv.__array_namespace__()
        heads = qkv.reshape(*qkv.shape[:-1], self.num_heads, weight_q.shape[-1])
        k, v = self.num_heads_q, self.num_heads_q + self.num_heads_k
        normed = (self._norm(heads[..., :k, :], weight_q), self._norm(heads[..., k:v, :], weight_k))
        return {"norm": xp.concatenate((*normed, heads[..., v:, :]), axis=-2).reshape(qkv.shape)}

    def _norm(self, heads: Array, weight: Array) -> Array:
        weight = fp32.load(weight)[..., None, :]
        norm = functions.rmsnorm(fp32.load(heads), weight, self.eps, self.weight_offset)
        return fp32.store(norm, heads.dtype.name)

    def plan(self, specs: Specs, target: Target, *, keep: Collection[str] = ()) -> Plan:
        from m3ops.ops.gemma_rmsnorm_heads.plan import heads_plan

        return heads_plan(self, specs, target, keep=keep)
