"""The gradient of SwiGLU-OAI."""

from m3ops.op import Op
from m3ops.ops.swiglu_oai_backward.plan import plan
from m3ops.ops.swiglu_oai_backward.spec import compute, infer

OP = Op("swiglu_oai_backward", ("gate_up", "grad"), infer, compute, plan)
