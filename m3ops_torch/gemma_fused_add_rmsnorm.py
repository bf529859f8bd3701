"""Residual add and Gemma's RMSNorm for PyTorch."""

from __future__ import annotations

import torch

from m3ops_torch._library import call


def gemma_fused_add_rmsnorm(
    x: torch.Tensor,
    residual: torch.Tensor,
    weight: torch.Tensor,
    *,
    eps: float = 1e-6,
    num_rows: torch.Tensor | None = None,
    out: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """``gemma_rmsnorm(x + residual, weight)`` and ``x + residual`` in one pass over memory.

    The norm sees the unrounded fp32 sum; each result is rounded once.

    Args:
        x: Shape ``[..., N]``; bfloat16, float16 or float32.
        residual: The shape and dtype of x.
        weight: Shape ``[N]``, or with leading axes that broadcast against those of x; any of these dtypes.
        eps: Added to the mean square, at least 0.
        num_rows: int32 tensor of one element on the device of the inputs: from this row on, the leading axes flattened,
            nothing is read or computed; new results are zero there, those in ``out`` left as they were. Below 0 it
            counts as 0, past the last row as all rows. The default is all rows.
        out: Where to write the results: tensors of their shapes, dtypes and device, nested as they are, with contiguous
            rows, apart from the inputs and each other. The default is new ones. One may take the memory of x, one of
            residual.

    Returns:
        ``(normalized, new residual)``, both with the shape and dtype of x.

    Raises:
        TypeError: A dtype is not one of these, or eps is no Python number.
        ValueError: The shapes do not fit each other, or eps is out of range.
    """
    norm, new_residual = call("gemma_fused_add_rmsnorm", x, residual, weight, eps=eps, num_rows=num_rows, out=out)
    return norm, new_residual
