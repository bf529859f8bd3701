"""Gemma's RMSNorm of the q and k heads of a packed qkv."""

from m3ops.op import Op
from m3ops.ops.gemma_rmsnorm_heads.plan import plan
from m3ops.ops.gemma_rmsnorm_heads.spec import compute, infer

OP = Op(
    "gemma_rmsnorm_heads",
    ("qkv", "weight_q", "weight_k"),
    infer,
    compute,
    plan,
    shared=frozenset({"weight_q", "weight_k"}),
    in_place=True,
)
