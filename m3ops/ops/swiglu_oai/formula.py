"""SwiGLU-OAI as a user of PyTorch or JAX would write it."""

from __future__ import annotations

import math
from typing import Any

from m3ops.ops.mxfp8.formula import dequantize_jax, dequantize_torch, quantize_jax, quantize_torch
from m3ops.ops.swiglu_oai import SwigluOAI

USUAL = SwigluOAI.of()
ALPHA, BETA, LIMIT = USUAL.alpha, USUAL.beta, USUAL.limit or math.inf


def activation_torch(gate_up: Any, up: Any = None, layout: str = "split") -> Any:
    """The fp32 activation."""
    x = gate_up.float()
    if up is not None:
        gate, up = x, up.float()
    else:
        gate, up = x.chunk(2, -1) if layout == "split" else x.unflatten(-1, (-1, 2)).unbind(-1)
    gate, up = gate.clamp(max=LIMIT), up.clamp(-LIMIT, LIMIT)
    return gate * (ALPHA * gate).sigmoid() * (up + BETA)


def activation_jax(gate_up: Any, up: Any = None, layout: str = "split") -> Any:
    """The same for JAX."""
    import jax
    import jax.numpy as jnp

    x = gate_up.astype(jnp.float32)
    if up is not None:
        gate, up = x, up.astype(jnp.float32)
    else:
        gate, up = jnp.split(x, 2, axis=-1) if layout == "split" else (x[..., 0::2], x[..., 1::2])
    gate, up = jnp.minimum(gate, LIMIT), jnp.clip(up, -LIMIT, LIMIT)
    return gate * jax.nn.sigmoid(ALPHA * gate) * (up + BETA)


TORCH = {
    "swiglu_oai": lambda *arrays, **given: activation_torch(*arrays, **given).bfloat16(),
    "swiglu_oai_quantize": lambda *arrays, **given: quantize_torch(activation_torch(*arrays, **given)),
    "swiglu_oai_fake_quant": lambda *arrays: dequantize_torch(*quantize_torch(activation_torch(*arrays))),
}
JAX = {
    "swiglu_oai": lambda *arrays, **given: activation_jax(*arrays, **given).astype("bfloat16"),
    "swiglu_oai_quantize": lambda *arrays, **given: quantize_jax(activation_jax(*arrays, **given)),
    "swiglu_oai_fake_quant": lambda *arrays: dequantize_jax(*quantize_jax(activation_jax(*arrays))),
}
