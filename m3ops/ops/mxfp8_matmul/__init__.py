"""Matrix products of MXFP8."""

from m3ops.ops.mxfp8_matmul.k_grouped_spec import MXFP8KGroupedMatmul
from m3ops.ops.mxfp8_matmul.spec import MXFP8GroupedMatmul, MXFP8Matmul

__all__ = ["MXFP8GroupedMatmul", "MXFP8KGroupedMatmul", "MXFP8Matmul"]
