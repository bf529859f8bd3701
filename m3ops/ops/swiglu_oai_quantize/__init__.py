"""SwiGLU-OAI and MXFP8 quantization in one pass."""

from m3ops.numerics.scale_layouts import core_rank
from m3ops.op import Op
from m3ops.ops.swiglu_oai_quantize.plan import plan
from m3ops.ops.swiglu_oai_quantize.spec import compute, infer

OP = Op("swiglu_oai_quantize", ("gate_up",), infer, compute, plan, differentiable=False, core_rank=core_rank)
