"""The gradients of residual add and Gemma's RMSNorm."""

from m3ops.op import Op
from m3ops.ops.gemma_fused_add_rmsnorm_backward.plan import plan
from m3ops.ops.gemma_fused_add_rmsnorm_backward.spec import compute, infer

OP = Op(
    "gemma_fused_add_rmsnorm_backward",
    ("x", "residual", "weight", "grad", "grad_new_residual"),
    infer,
    compute,
    plan,
    shared=frozenset({"weight"}),
    row_sums={1: "weight"},
)
