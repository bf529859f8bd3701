"""Vectors with a number for each group or buffer."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def only(x, mask):
    """The one element that the mask has, or 0."""
    return tl.sum(tl.where(mask, x, 0))
