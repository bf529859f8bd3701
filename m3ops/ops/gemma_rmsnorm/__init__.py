"""Gemma's RMSNorm, with and without residual add and MXFP8 quantization."""

from m3ops.ops.gemma_rmsnorm.spec import (
    GemmaFusedAddRMSNorm,
    GemmaFusedAddRMSNormBackward,
    GemmaFusedAddRMSNormQuantize,
    GemmaRMSNorm,
    GemmaRMSNormBackward,
    GemmaRMSNormQuantize,
)

__all__ = [
    "GemmaFusedAddRMSNorm",
    "GemmaFusedAddRMSNormBackward",
    "GemmaFusedAddRMSNormQuantize",
    "GemmaRMSNorm",
    "GemmaRMSNormBackward",
    "GemmaRMSNormQuantize",
]
