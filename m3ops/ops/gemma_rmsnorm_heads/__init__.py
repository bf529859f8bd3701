"""Gemma's RMSNorm of the heads of a packed qkv, with and without rotary embedding and a paged cache."""

from m3ops.ops.gemma_rmsnorm_heads.insert_spec import GemmaRMSNormRopeKVInsert
from m3ops.ops.gemma_rmsnorm_heads.spec import GemmaRMSNormHeads, GemmaRMSNormRopeHeads

__all__ = ["GemmaRMSNormHeads", "GemmaRMSNormRopeHeads", "GemmaRMSNormRopeKVInsert"]
