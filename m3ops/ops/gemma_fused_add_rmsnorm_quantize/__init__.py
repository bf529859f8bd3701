"""Residual add, Gemma's RMSNorm and MXFP8 quantization in one pass."""

from m3ops.numerics.scale_layouts import core_rank
from m3ops.op import Op
from m3ops.ops.gemma_fused_add_rmsnorm_quantize.plan import plan
from m3ops.ops.gemma_fused_add_rmsnorm_quantize.spec import compute, infer

OP = Op(
    "gemma_fused_add_rmsnorm_quantize",
    ("x", "residual", "weight"),
    infer,
    compute,
    plan,
    shared=frozenset({"weight"}),
    differentiable=False,
    core_rank=core_rank,
    in_place=True,
)
