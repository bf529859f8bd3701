"""Launch plan of residual add and Gemma's RMSNorm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from m3ops.op import LaunchPlan
from m3ops.ops.gemma_fused_add_rmsnorm.kernel import _gemma_fused_add_rmsnorm_kernel
from m3ops.ops.gemma_rmsnorm.plan import Specs, norm_plan
from m3ops.target import Target

NAMES = ("x", "residual", "weight", "out", "new_residual")


def plan(inputs: Specs, outputs: Specs, params: Mapping[str, Any], target: Target) -> LaunchPlan:
    return norm_plan(_gemma_fused_add_rmsnorm_kernel, NAMES, inputs, outputs, params, target)
