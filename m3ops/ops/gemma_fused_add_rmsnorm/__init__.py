"""Residual add and Gemma's RMSNorm in one pass."""

from m3ops.op import Backward, Op
from m3ops.ops import gemma_fused_add_rmsnorm_backward
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
    backward=Backward(gemma_fused_add_rmsnorm_backward.OP, (0, 0, 1)),
)
