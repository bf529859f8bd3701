"""Launch plans of MXFP8 quantization and dequantization."""

from __future__ import annotations

from collections.abc import Collection

from m3ops.numerics.formats import fp8_format_of
from m3ops.op import Specs
from m3ops.ops.mxfp8.kernel import Mxfp8At, _mxfp8_dequantize_kernel, _mxfp8_quantize_kernel
from m3ops.ops.mxfp8.spec import MXFP8Dequantize, MXFP8Quantize
from m3ops.plan import Plan
from m3ops.planning.launch import bytes_moved, counts_rows, tiled_launch
from m3ops.planning.mx import FLOPS_PER_ELEMENT, cast, mx, scale_plan
from m3ops.planning.narrowing import narrowing
from m3ops.planning.rows import rows_of
from m3ops.planning.scale_groups import in_groups
from m3ops.planning.tiling import block_tiling
from m3ops.target import Target
from m3ops.tiles.mx import Mx


def quantize_plan(op: MXFP8Quantize, specs: Specs, target: Target, *, keep: Collection[str]) -> Plan:
    scales = scale_plan(op.scale_layout, specs["values"], specs["scales"])
    total_rows, rows = rows_of(scales.rows(specs))
    tiling = block_tiling(total_rows, scales.size, target, decode=counts_rows(specs))
    constants = {"AT": Mxfp8At(**scales.at(rows)), "MX": mx(op.fp8_format, op.scale_rule, scales, target)}
    launch = tiled_launch(
        _mxfp8_quantize_kernel, op, specs, target, tiling, total_rows, constants, keep=keep, scales=scales
    )
    launches, scratch = in_groups(launch, op.scale_layout, specs, "scales", target)
    return Plan(launches, bytes_moved(specs), FLOPS_PER_ELEMENT * specs["x"].size, scratch)


def dequantize_plan(op: MXFP8Dequantize, specs: Specs, target: Target, *, keep: Collection[str]) -> Plan:
    scales = scale_plan(op.scale_layout, specs["values"], specs["scales"])
    total_rows, rows = rows_of(scales.rows(specs))
    tiling = block_tiling(total_rows, specs["x"].shape[-1], target, decode=counts_rows(specs))
    fp8 = fp8_format_of(specs["values"].dtype)
    constants = {
        "AT": Mxfp8At(**scales.at(rows)),
        "MX": Mx(fp8, cast(fp8, target), scale_tiles=scales.tiles),
        # Values of E4M3 are exact in bfloat16 or past its range, so they never round to infinity there.
        "NARROWING": narrowing(op.out_dtype, target, beside_fp8=op.out_dtype != "bfloat16"),
    }
    launch = tiled_launch(_mxfp8_dequantize_kernel, op, specs, target, tiling, total_rows, constants, keep=keep)
    launches, scratch = in_groups(launch, op.scale_layout, specs, "scales", target)
    return Plan(launches, bytes_moved(specs), 2 * specs["x"].size, scratch)
