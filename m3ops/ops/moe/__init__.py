"""The choice of experts."""

from m3ops.ops.moe.spec import MoERoute

__all__ = ["MoERoute"]
