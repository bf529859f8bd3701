"""How results are rounded to an activation dtype on a target."""

from __future__ import annotations

from m3ops.numerics.tile.fp32 import Narrowing
from m3ops.target import Target


def narrowing(dtype: str, target: Target, *, beside_fp8: bool) -> Narrowing:
    """The constexpr of a kernel that rounds to this dtype, with fp8 conversions in it or without."""
    return Narrowing(
        fuses=dtype in target.mixed_fma,
        saturates=beside_fp8 and dtype in target.saturates_beside_fp8,
    )
