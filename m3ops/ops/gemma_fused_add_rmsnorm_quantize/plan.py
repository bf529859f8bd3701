"""Launch plan of residual add, Gemma's RMSNorm and MXFP8 quantization."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from m3ops.op import LaunchPlan
from m3ops.ops.gemma_fused_add_rmsnorm_quantize.kernel import _gemma_fused_add_rmsnorm_quantize_kernel
from m3ops.ops.gemma_rmsnorm.plan import Specs
from m3ops.ops.gemma_rmsnorm_quantize.plan import norm_quantize_plan
from m3ops.target import Target

NAMES = ("x", "residual", "weight", "values", "new_residual")


def plan(inputs: Specs, outputs: Specs, params: Mapping[str, Any], target: Target) -> LaunchPlan:
    return norm_quantize_plan(_gemma_fused_add_rmsnorm_quantize_kernel, NAMES, inputs, outputs, params, target)
