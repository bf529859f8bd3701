"""Named cases of every op: what the tests check on each backend and ``python -m m3ops selftest`` on any device.

Each case pins a numeric corner or a way of passing arrays. Its inputs are made from integers by a generator whose
stream NumPy guarantees, so the digests in golden.json hold on every machine.
"""

from __future__ import annotations

from m3ops.cases import (
    backward,
    gemma_rmsnorm_heads,
    mxfp8_dequantize,
    mxfp8_quantize,
    norms,
    norms_quantize,
    row_count,
    scale_layouts,
    swiglu_oai,
    swiglu_oai_quantize,
)
from m3ops.cases.case import Case, digest

CASES: tuple[Case, ...] = (
    *swiglu_oai.CASES,
    *swiglu_oai_quantize.CASES,
    *mxfp8_quantize.CASES,
    *mxfp8_dequantize.CASES,
    *norms.CASES,
    *norms_quantize.CASES,
    *gemma_rmsnorm_heads.CASES,
    *scale_layouts.CASES,
    *backward.CASES,
    *row_count.CASES,
)

__all__ = ["CASES", "Case", "digest"]
