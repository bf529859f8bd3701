"""Launch plan of the gradients of residual add and Gemma's RMSNorm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from m3ops.op import ArraySpec, LaunchPlan
from m3ops.ops.gemma_fused_add_rmsnorm_backward.kernel import _gemma_fused_add_rmsnorm_backward_kernel
from m3ops.ops.gemma_rmsnorm.plan import norm_constants
from m3ops.ops.gemma_rmsnorm_backward.plan import FLOPS_PER_ELEMENT, partial_sums, tile_constants
from m3ops.row_sums import group_layout
from m3ops.target import Target


def plan(
    inputs: tuple[ArraySpec, ...], outputs: tuple[ArraySpec, ...], params: Mapping[str, Any], target: Target
) -> LaunchPlan:
    (x, residual, weight, grad, grad_new_residual), (grad_x, grad_weight) = inputs, outputs
    layout = group_layout(weight, x, residual, grad, grad_new_residual, grad_x)
    return LaunchPlan(
        kernel=_gemma_fused_add_rmsnorm_backward_kernel,
        constants={
            **layout.constants("weight", "x", "residual", "grad", "grad_new_residual", "grad_x"),
            **norm_constants(x.shape[-1], params),
            **tile_constants(x, layout.summed.num_rows),
            "MIXED_FMA": x.dtype in target.mixed_fma,
        },
        bytes_moved=sum(spec.nbytes for spec in (*inputs, *outputs)),
        flops=(FLOPS_PER_ELEMENT + 1) * x.size,
        **partial_sums(x, grad_weight, layout.summed.num_rows, layout.groups, target),
    )
