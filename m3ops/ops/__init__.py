"""The ops, one folder each: ``spec.py`` (truth), ``kernel.py`` (Triton), ``plan.py`` (launch)."""

from m3ops.op import Op
from m3ops.ops import (
    gemma_fused_add_rmsnorm,
    gemma_fused_add_rmsnorm_quantize,
    gemma_rmsnorm,
    gemma_rmsnorm_heads,
    gemma_rmsnorm_quantize,
    mxfp8_dequantize,
    mxfp8_quantize,
    swiglu_oai,
    swiglu_oai_quantize,
)

OPS: dict[str, Op] = {
    module.OP.name: module.OP
    for module in (
        swiglu_oai,
        swiglu_oai_quantize,
        mxfp8_quantize,
        mxfp8_dequantize,
        gemma_rmsnorm,
        gemma_fused_add_rmsnorm,
        gemma_rmsnorm_quantize,
        gemma_fused_add_rmsnorm_quantize,
        gemma_rmsnorm_heads,
    )
}

EVERY_OP: dict[str, Op] = OPS | {op.backward.op.name: op.backward.op for op in OPS.values() if op.backward}
"""The public ops, and those that only their derivatives call."""
