"""Residual add and Gemma's RMSNorm in one pass."""

from m3ops.op import Op
from m3ops.ops.gemma_fused_add_rmsnorm.plan import plan
from m3ops.ops.gemma_fused_add_rmsnorm.spec import compute, infer

OP = Op(
    "gemma_fused_add_rmsnorm",
    ("x", "residual", "weight"),
    infer,
    compute,
    plan,
    shared=frozenset({"weight"}),
    in_place=True,
)
