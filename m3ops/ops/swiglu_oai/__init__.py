"""SwiGLU-OAI."""

from m3ops.op import Backward, Op
from m3ops.ops import swiglu_oai_backward
from m3ops.ops.swiglu_oai.plan import plan
from m3ops.ops.swiglu_oai.spec import compute, infer

OP = Op("swiglu_oai", ("gate_up",), infer, compute, plan, backward=Backward(swiglu_oai_backward.OP, (0,)))
