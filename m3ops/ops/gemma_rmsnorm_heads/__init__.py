"""Gemma's RMSNorm of the q and k heads of a packed qkv, with and without rotary embedding."""

from m3ops.ops.gemma_rmsnorm_heads.spec import GemmaRMSNormHeads, GemmaRMSNormRopeHeads

__all__ = ["GemmaRMSNormHeads", "GemmaRMSNormRopeHeads"]
