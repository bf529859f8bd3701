"""Gemma's RMSNorm."""

from m3ops.op import Backward, Op
from m3ops.ops import gemma_rmsnorm_backward
from m3ops.ops.gemma_rmsnorm.plan import plan
from m3ops.ops.gemma_rmsnorm.spec import compute, infer

OP = Op(
    "gemma_rmsnorm",
    ("x", "weight"),
    infer,
    compute,
    plan,
    shared=frozenset({"weight"}),
    in_place=True,
    backward=Backward(gemma_rmsnorm_backward.OP, (0, 1)),
)
