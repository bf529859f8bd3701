"""SwiGLU-OAI, with and without MXFP8 quantization."""

from m3ops.ops.swiglu_oai.spec import SwigluOAI, SwigluOAIBackward, SwigluOAIFakeQuant, SwigluOAIQuantize

__all__ = ["SwigluOAI", "SwigluOAIBackward", "SwigluOAIFakeQuant", "SwigluOAIQuantize"]
