"""A plan launched on a GPU by hand, as the PyTorch front end launches it."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from m3ops.array import ArraySpec
from m3ops.plan import Plan
from m3ops.target import Target
from m3ops_torch import _launch, _operands

DEVICE = torch.device("cuda", 0)


def target() -> Target:
    return _launch.target_of(DEVICE)


def empty(specs: Mapping[str, ArraySpec]) -> dict[str, torch.Tensor]:
    return dict(zip(specs, _operands.empty(_operands.kinds_of(specs), DEVICE), strict=True))


def launch(plan: Plan, tensors: Mapping[str, torch.Tensor]) -> None:
    """Launches a plan on its operands and results; its scratch memory is new."""
    every = {**tensors, **empty(plan.scratch)}
    _launch.launch(plan, tuple(every), tuple(every.values()))
