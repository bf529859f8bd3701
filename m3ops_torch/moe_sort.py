"""The rows of a mixture of experts in the order of their experts, by PyTorch's own operators."""

from __future__ import annotations

import torch

from m3ops import validate
from m3ops_torch import _operands


def moe_sort(ids: torch.Tensor, num_experts: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sorts the slots of all tokens by expert: slot ``t * k + j`` is the j-th expert of token t.

    Slots of one expert keep their order. Those whose id is no expert's, below 0 or not below ``num_experts``, come last
    and count for nobody: so a device leaves out experts of others. Nothing waits for the device, so CUDA graphs can
    have it.

    Args:
        ids: Shape ``[..., k]``, int32, as :func:`moe_route` returns them.
        num_experts: Number of experts, at least 1.

    Returns:
        ``(order, slots, group_sizes)``, int32. ``order``, one for each slot, has the slots by expert, and ``slots``, of
        the shape of ids, at which place of it each slot is. ``group_sizes``, ``[num_experts]``, says how many slots
        each expert has.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: ids has no axis, or ``num_experts`` is below 1.
    """
    _operands.require_tensors({"ids": ids})
    validate.array("ids", _operands.spec_of(ids), ("int32",))
    num_experts = validate.count("num_experts", num_experts)
    flat = ids.reshape(-1)
    experts, order = torch.where((flat >= 0) & (flat < num_experts), flat, num_experts).sort(stable=True)
    place = torch.arange(flat.numel(), dtype=torch.int32, device=ids.device)
    slots = torch.empty_like(place).scatter(0, order, place)
    firsts = torch.arange(num_experts + 1, dtype=torch.int32, device=ids.device)
    group_sizes = torch.searchsorted(experts, firsts, out_int32=True).diff()
    return order.int(), slots.reshape(ids.shape), group_sizes
