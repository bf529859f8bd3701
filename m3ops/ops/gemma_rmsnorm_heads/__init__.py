"""Gemma's RMSNorm of the q and k heads of a packed qkv."""

from m3ops.ops.gemma_rmsnorm_heads.spec import GemmaRMSNormHeads

__all__ = ["GemmaRMSNormHeads"]
