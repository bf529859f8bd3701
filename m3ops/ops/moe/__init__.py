"""The choice of experts, and the sum of what they return."""

from m3ops.ops.moe.scatter_spec import MoEScatterQuantize
from m3ops.ops.moe.spec import (
    MoECombine,
    MoECombineBackward,
    MoELogits,
    MoELogitsBackward,
    MoERoute,
    MoERouteBackward,
    MoESort,
)

__all__ = [
    "MoECombine",
    "MoECombineBackward",
    "MoELogits",
    "MoELogitsBackward",
    "MoERoute",
    "MoERouteBackward",
    "MoEScatterQuantize",
    "MoESort",
]
