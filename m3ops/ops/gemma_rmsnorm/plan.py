"""Launch plan of Gemma's RMSNorm, with or without residual add and MXFP8 quantization."""

from __future__ import annotations

from collections.abc import Collection

from m3ops.numerics.constants import float32
from m3ops.op import Specs
from m3ops.ops.gemma_rmsnorm import kernel
from m3ops.ops.gemma_rmsnorm.kernel import NormAt, _gemma_rmsnorm_kernel
from m3ops.ops.gemma_rmsnorm.spec import Norm, QuantizedNorm
from m3ops.plan import Plan
from m3ops.planning.launch import bytes_moved, counts_rows, tiled_launch
from m3ops.planning.mx import FLOPS_PER_ELEMENT as QUANTIZE_FLOPS
from m3ops.planning.mx import mx, scale_plan
from m3ops.planning.narrowing import narrowing
from m3ops.planning.rows import rows_of
from m3ops.planning.tiling import row_block_tiling, row_tiling
from m3ops.target import Target

FLOPS_PER_ELEMENT = 6


def norm_plan(op: Norm, specs: Specs, target: Target, *, keep: Collection[str]) -> Plan:
    if isinstance(op, QuantizedNorm):
        return _quantized_plan(op, specs, target, keep=keep)
    x, summands = specs["x"], 1 + ("residual" in specs)
    total_rows, rows = rows_of({name: spec for name, spec in specs.items() if name != "num_rows"})
    tiling = row_tiling(total_rows, x.shape[-1], summands, target, decode=counts_rows(specs))
    constants = {"AT": NormAt(**rows), "NORM": norm_constants(op, specs, target), "MX": None}
    launch = tiled_launch(_gemma_rmsnorm_kernel, op, specs, target, tiling, total_rows, constants, keep=keep)
    return Plan((launch,), bytes_moved(specs), (FLOPS_PER_ELEMENT + summands - 1) * x.size)


def _quantized_plan(op: QuantizedNorm, specs: Specs, target: Target, *, keep: Collection[str]) -> Plan:
    x, summands = specs["x"], 1 + ("residual" in specs)
    scales = scale_plan(op.scale_layout, specs["values"], specs["scales"])
    total_rows, rows = rows_of(scales.rows(specs))
    tiling = row_block_tiling(total_rows, scales.size, target, decode=counts_rows(specs))
    constants = {
        "AT": NormAt(**scales.at(rows)),
        "NORM": norm_constants(op, specs, target),
        "MX": mx(op.fp8_format, op.scale_rule, scales, target, round_activation=op.round_activation),
    }
    launch = tiled_launch(
        _gemma_rmsnorm_kernel, op, specs, target, tiling, total_rows, constants, keep=keep, scales=scales
    )
    return Plan((launch,), bytes_moved(specs), (FLOPS_PER_ELEMENT + summands - 1 + QUANTIZE_FLOPS) * x.size)


def norm_constants(op: Norm, specs: Specs, target: Target) -> kernel.Norm:
    x = specs["x"]
    results = (specs.get("grad_x", x), specs.get("new_residual", x))
    rounded = (narrowing(result.dtype, target, beside_fp8="values" in specs) for result in results)
    return kernel.Norm(float32(1.0 / x.shape[-1]), float32(op.eps), float32(op.weight_offset), *rounded)
