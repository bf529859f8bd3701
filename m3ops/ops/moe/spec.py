"""What MiniMax-M3's mixture of experts does around its matrix products.

    score   = sigmoid(logit)
    ids     = the top_k indices with the largest score + bias, the largest first
    weights = score[ids] / sum(score[ids])

in fp32. The bias takes part in the choice alone (``use_routing_bias``). Among equal sums the lower index comes first. A
NaN is larger than infinity here, as it is to ``jax.lax.top_k`` and ``torch.topk``, so that it is seen in the weights.
Source: MiniMax-M3 in Transformers and in vLLM, whose choice among equal sums is not specified. The factor
``routed_scaling_factor`` belongs to the sum of what the experts return, not to the weights.
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
from m3ops.plan import Plan
from m3ops.target import Target

MAX_EXPERTS = 4096
"""Logits that a program keeps in registers."""

MAX_TOP_K = 32
"""A kernel goes through its row once for each expert that it chooses."""


@dataclass(frozen=True)
class MoERoute(Op):
    """The experts of each token: the ``top_k`` largest of ``sigmoid(logits) + bias``, and their weights, in fp32.

    The largest comes first, and among equal ones the lower index. A NaN is larger than infinity. A weight is the
    sigmoid, without the bias, over the sum of the sigmoids that are chosen.
    """

    name: ClassVar[str] = "moe_route"
    inputs: ClassVar[Mapping[str, str]] = {
        "logits": "The router's logits, shape ``[..., E]``, E at most 4096; bfloat16, float16 or float32.",
        "bias": "Shape ``[E]``, or with leading axes that broadcast against those of logits; any of these dtypes.",
    }
    returns: ClassVar[str] = "``(ids, weights)``, int32 and float32, both of shape ``[..., top_k]``."
    result_type: ClassVar[str] = "tuple[{array}, {array}]"

    top_k: int = parameter(4, "Number of experts of a token, 1 to 32, and at most E.")

    def __post_init__(self) -> None:
        self._canonical(top_k=validate.count("top_k", self.top_k))
        if self.top_k > MAX_TOP_K:
            raise ValueError(f"top_k must be at most {MAX_TOP_K}, got {self.top_k}")
        super().__post_init__()

    @property
    def axes(self) -> Axes:
        return Axes.of("*r E!, *r? E! -> *r k!, *r k!")

    def infer(self, logits: ArraySpec, bias: ArraySpec) -> dict[str, ArraySpec]:
        check_logits(logits, bias, self.top_k)
        shape = (*logits.shape[:-1], self.top_k)
        return {"ids": ArraySpec(shape, "int32"), "weights": ArraySpec(shape, "float32")}

    def compute(self, logits: Array, bias: Array) -> Arrays:
        ids, weights, _, _ = functions.route(fp32.load(logits), fp32.load(bias), self.top_k)
        return {"ids": ids.astype("int32"), "weights": fp32.store(weights, "float32")}

    def plan(self, specs: Specs, target: Target, *, keep: Collection[str] = ()) -> Plan:
        from m3ops.ops.moe.plan import route_plan

        return route_plan(self, specs, target, keep=keep)


def check_logits(logits: ArraySpec, bias: ArraySpec, top_k: int) -> None:
    """Validates what a choice of experts takes."""
    validate.array("logits", logits)
    validate.array("bias", bias)
    experts = logits.shape[-1]
    if not top_k <= experts <= MAX_EXPERTS:
        raise ValueError(
            f"logits must have a last axis of {top_k} (top_k) to {MAX_EXPERTS} elements, got shape {logits.shape}"
        )
    if bias.shape[-1] != experts or not validate.broadcasts(bias.shape[:-1], logits.shape[:-1]):
        raise ValueError(
            f"bias must have shape ({experts},) or broadcast against logits {logits.shape}, got {bias.shape}"
        )
