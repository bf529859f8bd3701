"""``torch.func.vmap``: the rows of all examples run in one launch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from m3ops.op import Op


def batched(
    op: Op,
    operator: Callable[..., Sequence[torch.Tensor]],
    info: Any,
    dims: Sequence[int | None],
    *tensors: torch.Tensor,
    **params: Any,
) -> tuple[Sequence[torch.Tensor], list[int]]:
    """Calls an operator on operands with a batch axis each, or none where all examples share the operand.

    Batch axes become leading axes. A shared weight stays as it is, for its leading axes broadcast; other operands that
    all examples share are repeated by a stride of zero, and so is a weight whose gradient is asked for, of which each
    example has its own. Nothing is copied.

    Args:
        op: What the operator computes.
        operator: The operator.
        info: ``batch_size`` is the size of the batch axes.
        dims: For each operand its batch axis, or None.
        tensors: The operands.
        params: The parameters.

    Returns:
        The results and their batch axes, all 0.
    """
    if op.counted:  # the first rows of each example are no first rows of all: one after another
        each = [
            operator(*(t if d is None else t.select(d, i) for t, d in zip(tensors, dims, strict=True)), **params)
            for i in range(info.batch_size)
        ]
        stacked = [torch.stack([part.view(torch.uint8) for part in parts]) for parts in zip(*each, strict=True)]
        return [raw.view(part.dtype) for raw, part in zip(stacked, each[0], strict=True)], [0] * len(stacked)
    ranks = {name: tensor.ndim - (dim is not None) for name, tensor, dim in zip(op.inputs, tensors, dims, strict=True)}
    rank = 1 + max(ranks.values())
    summed = set(op.row_sums.values())
    operands = []
    for name, tensor, dim in zip(op.inputs, tensors, dims, strict=True):
        if dim is None and (name not in op.shared or name in summed):
            tensor, dim = tensor.expand(info.batch_size, *tensor.shape), 0
        if dim is not None:
            tensor = tensor.movedim(dim, 0)
            tensor = tensor[(slice(None), *(None,) * (rank - tensor.ndim))]
        operands.append(tensor)
    results = list(operator(*operands, **params))
    for number, name in op.row_sums.items():
        results[number] = results[number].flatten(0, rank - 1 - ranks[name])
    return results, [0] * len(results)
