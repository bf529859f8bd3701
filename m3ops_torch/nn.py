"""The ops as modules."""

from __future__ import annotations

import torch
from torch import nn

import m3ops_torch
from m3ops.ops import swiglu_oai as ops

__all__ = ["GemmaRMSNorm", "SwigluOAI"]


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
