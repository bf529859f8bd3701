"""The ops, one folder each: ``spec.py`` (truth), ``kernel.py`` (Triton), ``plan.py`` (launch)."""

from collections.abc import Sequence
from typing import Any

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
from m3ops.row_count import counted

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

COUNTED: dict[str, Op] = {name: counted(op) for name, op in OPS.items()}
"""The ops with a number of rows that is read on the device, by the names of those without."""


def op_of(name: str, arrays: Sequence[Any]) -> Op:
    """The op that takes these arrays: if they are one more than its inputs, the last is the number of rows."""
    return EVERY_OP[name] if len(arrays) == len(EVERY_OP[name].inputs) else COUNTED[name]
