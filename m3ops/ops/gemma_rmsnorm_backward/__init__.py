"""The gradients of Gemma's RMSNorm."""

from m3ops.op import Op
from m3ops.ops.gemma_rmsnorm_backward.plan import plan
from m3ops.ops.gemma_rmsnorm_backward.spec import compute, infer

OP = Op(
    "gemma_rmsnorm_backward",
    ("x", "weight", "grad"),
    infer,
    compute,
    plan,
    shared=frozenset({"weight"}),
    row_sums={1: "weight"},
)
