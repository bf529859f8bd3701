"""The ops as modules."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn

import m3ops_torch
from m3ops.checkpoint import MoEWeights
from m3ops.ops import swiglu_oai as ops
from m3ops_torch._mxfp8 import MXFP8

__all__ = ["GemmaRMSNorm", "MoE", "SwigluOAI"]


class GemmaRMSNorm(nn.Module):
    """Gemma's RMSNorm, with residual add if a residual is given.

    Args:
        hidden_size: Size N of the last axis.
        eps: Added to the mean square.
        weight_offset: Added to the weight; 0 for the ordinary RMSNorm.
        device: Where the weight is.
        dtype: Dtype of the weight: bfloat16, float16 or float32.

    Attributes:
        weight: Shape ``[N]``, initially 1 less the offset.
        variance_epsilon: eps, under the name that vLLM and Transformers use.
    """

    def __init__(
        self,
        hidden_size: int,
        eps: float = 1e-6,
        *,
        weight_offset: float = 1.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(hidden_size, device=device, dtype=dtype))
        self.variance_epsilon = float(eps)
        self.weight_offset = float(weight_offset)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Sets the weight so that the norm is multiplied by 1."""
        nn.init.constant_(self.weight, 1.0 - self.weight_offset)

    def forward(
        self, x: torch.Tensor, residual: torch.Tensor | None = None
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """:func:`m3ops_torch.gemma_rmsnorm`, or with a residual :func:`m3ops_torch.gemma_fused_add_rmsnorm`."""
        eps, offset = self.variance_epsilon, self.weight_offset
        if residual is None:
            return m3ops_torch.gemma_rmsnorm(x, self.weight, eps=eps, weight_offset=offset)
        return m3ops_torch.gemma_fused_add_rmsnorm(x, residual, self.weight, eps=eps, weight_offset=offset)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, eps={self.variance_epsilon}, weight_offset={self.weight_offset}"


class MoE(nn.Module):
    """MiniMax-M3's mixture of experts: :func:`m3ops_torch.moe_logits` and :func:`m3ops_torch.moe_layer`.

    Its weights are buffers: rounded to MXFP8 they have no gradient. Those in MXFP8 are kept as bytes, so that a change
    of the module's dtype leaves them alone; the router's, float32 in MiniMax-M3, it would round.

    Args:
        weights: What :func:`m3ops_torch.moe_weights` returns, or other tensors in its place; with ``group`` the whole
            router and bias, and of w13 and w2 the experts of this process.
        top_k: Experts of a token.
        scale: What the sum of their results is multiplied by.
        arithmetic: That of the products, ``"exact"`` or ``"fast"``.
        shared_in_stack: Whether the last expert of w13 and w2 is the shared one.
        group: The processes among which the experts are divided; None if all are here.
    """

    def __init__(
        self,
        weights: MoEWeights,
        *,
        top_k: int = 4,
        scale: float = 2.0,
        arithmetic: str = "exact",
        shared_in_stack: bool = False,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("router", weights.router)
        self.register_buffer("bias", weights.bias)
        self.experts = _Pair(weights.w13, weights.w2)
        self.shared = None if weights.shared is None else _Pair(*weights.shared)
        self.top_k, self.scale, self.arithmetic, self.group = top_k, scale, arithmetic, group
        self.shared_in_stack = shared_in_stack

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The output for tokens ``[..., H]``, in bfloat16."""
        logits = m3ops_torch.moe_logits(x, self.get_buffer("router"))
        return m3ops_torch.moe_layer(
            x,
            logits,
            self.get_buffer("bias"),
            *self.experts.whole(),
            None if self.shared is None else self.shared.whole(),
            top_k=self.top_k,
            scale=self.scale,
            arithmetic=self.arithmetic,
            shared_in_stack=self.shared_in_stack,
            group=self.group,
        )

    def extra_repr(self) -> str:
        return f"top_k={self.top_k}, scale={self.scale}, arithmetic={self.arithmetic!r}"


class _Pair(nn.Module):
    """The weights of an MLP, or of a stack of them."""

    def __init__(self, w13: MXFP8, w2: MXFP8) -> None:
        super().__init__()
        self.w13, self.w2 = _Weight(w13), _Weight(w2)

    def whole(self) -> tuple[MXFP8, MXFP8]:
        return self.w13.whole(), self.w2.whole()


class _Weight(nn.Module):
    """An ``MXFP8`` as buffers of bytes."""

    def __init__(self, q: MXFP8) -> None:
        super().__init__()
        self.register_buffer("codes", q.values.view(torch.uint8))
        self.register_buffer("scales", q.scales)
        self.dtype, self.scale_layout = q.values.dtype, q.scale_layout

    def whole(self) -> MXFP8:
        return MXFP8(self.get_buffer("codes").view(self.dtype), self.get_buffer("scales"), self.scale_layout)


class SwigluOAI(nn.Module):
    """:func:`m3ops_torch.swiglu_oai` with fixed parameters: ``[..., 2 * I] -> [..., I]``."""

    def __init__(self, alpha: float = 1.702, beta: float = 1.0, limit: float | None = 7.0) -> None:
        super().__init__()
        op = ops.SwigluOAI.of(alpha=alpha, beta=beta, limit=limit)  # checked and converted to Python numbers
        self.alpha, self.beta, self.limit = op.alpha, op.beta, op.limit

    def forward(self, gate_up: torch.Tensor) -> torch.Tensor:
        return m3ops_torch.swiglu_oai(gate_up, alpha=self.alpha, beta=self.beta, limit=self.limit)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}, beta={self.beta}, limit={self.limit}"
