"""MXFP8 dequantization."""

from m3ops.numerics.scale_layouts import core_rank
from m3ops.op import Op
from m3ops.ops.mxfp8_dequantize.plan import plan
from m3ops.ops.mxfp8_dequantize.spec import compute, infer

OP = Op("mxfp8_dequantize", ("values", "scales"), infer, compute, plan, differentiable=False, core_rank=core_rank)
