"""Launch plan of MXFP8 dequantization."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from m3ops.numerics.formats import FP8_FORMATS
from m3ops.op import ArraySpec, LaunchPlan
from m3ops.ops.mxfp8_dequantize.kernel import _mxfp8_dequantize_kernel
from m3ops.ops.mxfp8_quantize.plan import cast
from m3ops.rows import row_layout
from m3ops.scales import scale_layout
from m3ops.target import Target
from m3ops.tiling import column_tiling


def plan(
    inputs: tuple[ArraySpec, ...], outputs: tuple[ArraySpec, ...], params: Mapping[str, Any], target: Target
) -> LaunchPlan:
    (values, scales), (out,) = inputs, outputs
    layout = scale_layout(params, values, scales)
    rows = row_layout(values, out, *layout.operands.values())
    size = out.shape[-1]
    tiling = column_tiling(rows.num_rows, size, target)
    fp8 = next(name for name, fmt in FP8_FORMATS.items() if fmt.name == values.dtype)
    return LaunchPlan(
        kernel=_mxfp8_dequantize_kernel,
        grid=tiling.grid,
        num_rows=rows.num_rows,
        constants={
            "SIZE": size,
            **rows.constants("values", "out", *layout.operands),
            **layout.constants,
            "FP8": fp8,
            "CAST": cast(fp8, target),
            **tiling.constants,
            "MIXED_FMA": out.dtype in target.mixed_fma,
        },
        num_warps=tiling.num_warps,
        bytes_moved=values.nbytes + scales.nbytes + out.nbytes,
        flops=2 * out.size,
    )
