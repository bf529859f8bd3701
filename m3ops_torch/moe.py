"""The choice of experts for PyTorch.

Generated from m3ops/ops/moe/spec.py by ``python -m m3ops.tools.front_ends``.
"""

from __future__ import annotations

import torch

from m3ops.ops.moe import MoERoute
from m3ops_torch._call import run


def moe_route(
    logits: torch.Tensor,
    bias: torch.Tensor,
    *,
    top_k: int = 4,
    num_rows: torch.Tensor | None = None,
    out: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The experts of each token: the ``top_k`` largest of ``sigmoid(logits) + bias``, and their weights, in fp32.

    The largest comes first, and among equal ones the lower index. A NaN is larger than infinity. A weight is the
    sigmoid, without the bias, over the sum of the sigmoids that are chosen.

    Args:
        logits: The router's logits, shape ``[..., E]``, E at most 4096; bfloat16, float16 or float32.
        bias: Shape ``[E]``, or with leading axes that broadcast against those of logits; any of these dtypes.
        top_k: Number of experts of a token, 1 to 32, and at most E.
        num_rows: How many rows count, with the leading axes flattened: an int32 tensor of one element, clamped to the
            rows that exist. The other rows are not read. Their results are zero in a new tensor and stay as they were
            in ``out``.
        out: Where to write: tensors of the results' shapes, dtypes and device, nested as the results are. Their rows
            must be contiguous, and they must not overlap the inputs or each other.

    Returns:
        ``(ids, weights)``, int32 and float32, both of shape ``[..., top_k]``.

    Raises:
        TypeError: A dtype is not supported, or a parameter has the wrong type.
        ValueError: The shapes do not fit each other, or a parameter is out of range.
    """
    op = MoERoute.of(top_k=top_k)
    result: tuple[torch.Tensor, torch.Tensor] = run(op, logits, bias, num_rows=num_rows, out=out)
    return result
