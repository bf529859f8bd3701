"""Launch plan of MXFP8 quantization."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from m3ops.numerics.formats import FP8_FORMATS
from m3ops.op import ArraySpec, LaunchPlan
from m3ops.ops.mxfp8_quantize.kernel import _mxfp8_quantize_kernel
from m3ops.rows import row_layout
from m3ops.scales import scale_layout
from m3ops.target import Target
from m3ops.tiling import column_tiling

FLOPS_PER_ELEMENT = 4


def cast(fp8_format: str, target: Target) -> str:
    """How a target converts to and from a format, the CAST of ``tile.encode_e4m3``."""
    wanted = FP8_FORMATS[fp8_format].name
    if wanted in target.hardware_fp8:
        return target.vendor
    return "fnuz" if wanted == "float8_e4m3fn" and "float8_e4m3fnuz" in target.hardware_fp8 else "integer"


def format_constants(params: Mapping[str, Any], target: Target) -> dict[str, Any]:
    """Constexpr arguments of ``tile.quantize_blocks``."""
    fp8_format = params["fp8_format"]
    return {"FP8": fp8_format, "RULE": params["scale_rule"], "CAST": cast(fp8_format, target)}


def plan(
    inputs: tuple[ArraySpec, ...], outputs: tuple[ArraySpec, ...], params: Mapping[str, Any], target: Target
) -> LaunchPlan:
    (x,), (values, scales) = inputs, outputs
    layout = scale_layout(params, values, scales)
    rows = row_layout(x, values, *layout.operands.values())
    size = values.shape[-1]
    tiling = column_tiling(rows.num_rows, layout.padded(values).shape[-1], target)
    return LaunchPlan(
        kernel=_mxfp8_quantize_kernel,
        grid=tiling.grid + layout.padding,
        num_rows=rows.num_rows,
        constants={
            "SIZE": size,
            **rows.constants("x", "values", *layout.operands),
            **layout.constants,
            **format_constants(params, target),
            **tiling.constants,
            **layout.masked(values, tiling.masked),
        },
        num_warps=tiling.num_warps,
        bytes_moved=x.nbytes + values.nbytes + scales.nbytes,
        flops=FLOPS_PER_ELEMENT * x.size,
    )
