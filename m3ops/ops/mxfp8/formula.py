"""MXFP8 as a user of PyTorch or JAX would write it.

The scale of a block comes from the bits of its amax, which is both right and cheaper than ``ceil(log2(...))``.
"""

from __future__ import annotations

from typing import Any

from m3ops.numerics.formats import BLOCK, E4M3FN, FLOAT32, SCALE_BIAS

FRACTION = FLOAT32.mantissa_bits
# An amax above 1.75 * 2**k carries into the exponent: 1.75 is the fraction of E4M3's largest number, 448.
CARRY = (1 << FRACTION) - 1 - int((E4M3FN.max / 2.0**E4M3FN.max_exponent - 1) * (1 << FRACTION))


def quantize_torch(x: Any, square_blocks: bool = False) -> tuple[Any, Any]:
    """Values and scales of fp32 numbers."""
    import torch

    blocks = x.unflatten(-1, (-1, BLOCK))
    amax = blocks.abs().amax(-1, keepdim=True)
    if square_blocks:
        of_rows = amax.unflatten(-3, (-1, BLOCK))
        amax = of_rows.amax(-3, keepdim=True).expand(of_rows.shape).flatten(-4, -3)
    scale = (((amax.view(torch.int32) + CARRY) >> FRACTION) - E4M3FN.max_exponent).clamp(min=0)
    inv_scale = ((2 * SCALE_BIAS - scale) << FRACTION).view(torch.float32)
    return (blocks * inv_scale).to(torch.float8_e4m3fn).flatten(-2), scale.squeeze(-1).to(torch.uint8)


def quantize_both_torch(x: Any, square_blocks: bool = False) -> tuple[Any, ...]:
    """Those of a matrix and of the transposed one."""
    x = x.float()
    return *quantize_torch(x, square_blocks), *_contiguous(quantize_torch(x.mT, square_blocks))


def _contiguous(tensors: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(tensor.contiguous() for tensor in tensors)


def dequantize_torch(values: Any, scales: Any) -> Any:
    """The bfloat16 numbers of values and scales."""
    import torch

    scale = (scales.int() << FRACTION).view(torch.float32)
    return (values.float().unflatten(-1, (-1, BLOCK)) * scale.unsqueeze(-1)).flatten(-2).bfloat16()


def quantize_jax(x: Any, square_blocks: bool = False) -> tuple[Any, Any]:
    """The same for JAX."""
    import jax.numpy as jnp

    blocks = x.reshape(*x.shape[:-1], -1, BLOCK)
    amax = jnp.max(jnp.abs(blocks), axis=-1, keepdims=True)
    if square_blocks:
        of_rows = amax.reshape(-1, BLOCK, *amax.shape[1:])
        amax = jnp.broadcast_to(jnp.max(of_rows, axis=1, keepdims=True), of_rows.shape).reshape(amax.shape)
    scale = jnp.maximum(((amax.view(jnp.int32) + CARRY) >> FRACTION) - E4M3FN.max_exponent, 0)
    inv_scale = ((2 * SCALE_BIAS - scale) << FRACTION).view(jnp.float32)
    return (blocks * inv_scale).astype(jnp.float8_e4m3fn).reshape(x.shape), scale[..., 0].astype(jnp.uint8)


def quantize_both_jax(x: Any, square_blocks: bool = False) -> tuple[Any, ...]:
    """The same for JAX."""
    x = x.astype("float32")
    return *quantize_jax(x, square_blocks), *quantize_jax(x.T, square_blocks)


def dequantize_jax(values: Any, scales: Any) -> Any:
    """The same for JAX."""
    import jax.numpy as jnp

    scale = (scales.astype(jnp.int32) << FRACTION).view(jnp.float32)
    blocks = values.astype(jnp.float32).reshape(*scales.shape, BLOCK)
    return (blocks * scale[..., None]).reshape(values.shape).astype(jnp.bfloat16)


TORCH = {
    "mxfp8_quantize": lambda x, **given: quantize_torch(x.float(), **given),
    "mxfp8_quantize_transposed": lambda x: _contiguous(quantize_torch(x.float().mT)),
    "mxfp8_quantize_both": quantize_both_torch,
    "mxfp8_dequantize": dequantize_torch,
}
JAX = {
    "mxfp8_quantize": lambda x, **given: quantize_jax(x.astype("float32"), **given),
    "mxfp8_quantize_transposed": lambda x: quantize_jax(x.astype("float32").T),
    "mxfp8_quantize_both": quantize_both_jax,
    "mxfp8_dequantize": dequantize_jax,
}
