"""Launch plan of the gradient of SwiGLU-OAI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from m3ops.numerics.constants import float32
from m3ops.op import ArraySpec, LaunchPlan
from m3ops.ops.swiglu_oai.plan import activation_constants
from m3ops.ops.swiglu_oai_backward.kernel import _swiglu_oai_backward_kernel
from m3ops.rows import row_layout, split_rows
from m3ops.target import Target
from m3ops.tiling import element_tiling

FLOPS_PER_ELEMENT = 36


def plan(
    inputs: tuple[ArraySpec, ...], outputs: tuple[ArraySpec, ...], params: Mapping[str, Any], target: Target
) -> LaunchPlan:
    gate_up, grad, grad_gate_up = (split_rows(spec, params["groups"]) for spec in (*inputs, *outputs))
    rows = row_layout(gate_up, grad, grad_gate_up)
    size = grad.shape[-1]
    tiling = element_tiling(rows.num_rows, size, target)
    return LaunchPlan(
        kernel=_swiglu_oai_backward_kernel,
        grid=tiling.grid,
        num_rows=rows.num_rows,
        constants={
            "SIZE": size,
            **rows.constants("gate_up", "grad", "grad_gate_up"),
            **activation_constants(params),
            "ALPHA": float32(params["alpha"]),
            **tiling.constants,
            "MIXED_FMA": gate_up.dtype in target.mixed_fma,
        },
        num_warps=tiling.num_warps,
        bytes_moved=gate_up.nbytes + grad.nbytes + grad_gate_up.nbytes,
        flops=FLOPS_PER_ELEMENT * grad.size,
    )
