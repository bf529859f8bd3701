"""Launch plan of SwiGLU-OAI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from m3ops.numerics.constants import float32, sigmoid_constants
from m3ops.op import ArraySpec, LaunchPlan
from m3ops.ops.swiglu_oai.kernel import _swiglu_oai_kernel
from m3ops.rows import row_layout, split_rows
from m3ops.target import Target
from m3ops.tiling import element_tiling

FLOPS_PER_ELEMENT = 30


def activation_constants(params: Mapping[str, Any]) -> dict[str, Any]:
    """Constexpr arguments of ``rows.load_halves`` and ``tile.swiglu_oai``."""
    slope, bound = sigmoid_constants(params["alpha"])
    limit = params["limit"]
    return {
        "SLOPE": slope,
        "BOUND": bound,
        "BETA": float32(params["beta"]),
        "LIMIT": None if limit is None else float32(limit),
        "INTERLEAVED": params["layout"] == "interleaved",
    }


def plan(
    inputs: tuple[ArraySpec, ...], outputs: tuple[ArraySpec, ...], params: Mapping[str, Any], target: Target
) -> LaunchPlan:
    gate_up, out = (split_rows(spec, params["groups"]) for spec in (*inputs, *outputs))
    rows = row_layout(gate_up, out)
    size = out.shape[-1]
    tiling = element_tiling(rows.num_rows, size, target)
    return LaunchPlan(
        kernel=_swiglu_oai_kernel,
        grid=tiling.grid,
        num_rows=rows.num_rows,
        constants={
            "SIZE": size,
            **rows.constants("gate_up", "out"),
            **activation_constants(params),
            **tiling.constants,
            "MIXED_FMA": out.dtype in target.mixed_fma,
        },
        num_warps=tiling.num_warps,
        bytes_moved=gate_up.nbytes + out.nbytes,
        flops=FLOPS_PER_ELEMENT * out.size,
    )
