"""MXFP8 as a user of PyTorch or JAX would write it.

The scale of a block comes from the bits of its amax, which is both right and cheaper than ``ceil(log2(...))``.
"""

from __future__ import annotations

from typing import Any

from m3ops.numerics.formats import BLOCK, E4M3FN, FLOAT32, SCALE_BIAS

FRACTION = FLOAT32.mantissa_bits
# An amax above 1.75 * 2**k carries into the exponent: 1.75 is the fraction of E4M3's largest number, 448.
CARRY = (1 << FRACTION) - 1 - int((E4M3FN.max / 2.0**E4M3FN.max_exponent - 1) * (1 << FRACTION))


def quantize_torch(x: Any) -> tuple[Any, Any]:
    """Values and scales of fp32 numbers."""
    import torch

    blocks = x.unflatten(-1, (-1, BLOCK))
    amax = blocks.abs().amax(-1, keepdim=True)
    scale = (((amax.view(torch.int32) + CARRY) >> FRACTION) - E4M3FN.max_exponent).clamp(min=0)
    inv_scale = ((2 * SCALE_BIAS - scale) << FRACTION).view(torch.float32)
    return (blocks * inv_scale).to(torch.float8_e4m3fn).flatten(-2), scale.squeeze(-1).to(torch.uint8)


def dequantize_torch(values: Any, scales: Any) -> Any:
    """The bfloat16 numbers of values and scales."""
    import torch

    scale = (scales.int() << FRACTION).view(torch.float32)
    return (values.float().unflatten(-1, (-1, BLOCK)) * scale.unsqueeze(-1)).flatten(-2).bfloat16()


def quantize_jax(x: Any) -> tuple[Any, Any]:
    """The same for JAX."""
    import jax.numpy as jnp

    blocks = x.reshape(*x.shape[:-1], -1, BLOCK)
    amax = jnp.max(jnp.abs(blocks), axis=-1, keepdims=True)
    scale = jnp.maximum(((amax.view(jnp.int32) + CARRY) >> FRACTION) - E4M3FN.max_exponent, 0)
    inv_scale = ((2 * SCALE_BIAS - scale) << FRACTION).view(jnp.float32)
    return (blocks * inv_scale).astype(jnp.float8_e4m3fn).reshape(x.shape), scale[..., 0].astype(jnp.uint8)


def dequantize_jax(values: Any, scales: Any) -> Any:
    """The same for JAX."""
    import jax.numpy as jnp

    scale = (scales.astype(jnp.int32) << FRACTION).view(jnp.float32)
    blocks = values.astype(jnp.float32).reshape(*scales.shape, BLOCK)
    return (blocks * scale[..., None]).reshape(values.shape).astype(jnp.bfloat16)


TORCH = {"mxfp8_quantize": lambda x: quantize_torch(x.float()), "mxfp8_dequantize": dequantize_torch}
JAX = {"mxfp8_quantize": lambda x: quantize_jax(x.astype("float32")), "mxfp8_dequantize": dequantize_jax}
