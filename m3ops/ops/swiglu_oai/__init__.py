"""SwiGLU-OAI."""

from m3ops.op import Op
from m3ops.ops.swiglu_oai.plan import plan
from m3ops.ops.swiglu_oai.spec import compute, infer

OP = Op("swiglu_oai", ("gate_up",), infer, compute, plan)
