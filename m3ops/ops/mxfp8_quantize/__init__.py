"""MXFP8 quantization."""

from m3ops.numerics.scale_layouts import core_rank
from m3ops.op import Op
from m3ops.ops.mxfp8_quantize.plan import plan
from m3ops.ops.mxfp8_quantize.spec import compute, infer

OP = Op("mxfp8_quantize", ("x",), infer, compute, plan, differentiable=False, core_rank=core_rank)
