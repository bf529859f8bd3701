"""Gemma's RMSNorm, with and without residual add and MXFP8 quantization, for JAX.

Generated from m3ops/ops/gemma_rmsnorm/spec.py by ``python -m m3ops.tools.front_ends``.
"""

from __future__ import annotations

import jax

from m3ops.ops.gemma_rmsnorm import (
    GemmaFusedAddRMSNorm,
    GemmaFusedAddRMSNormQuantize,
    GemmaRMSNorm,
    GemmaRMSNormQuantize,
)
from m3ops_jax._call import run
from m3ops_jax._mxfp8 import MXFP8


def gemma_fused_add_rmsnorm(
    x: jax.Array,
    residual: jax.Array | jax.Ref,
    weight: jax.Array,
    *,
    eps: float = 1e-6,
    weight_offset: float = 1.0,
    num_rows: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Residual add and :func:`gemma_rmsnorm` of the unrounded fp32 sum in one pass over memory.

    Args:
        x: Shape ``[..., N]``; bfloat16, float16 or float32.
        residual: The residual stream, of the shape of x; any of these dtypes, such as float32 beside x in bfloat16. A
            ``jax.Ref`` is updated: the new residual is also written there, and under jit its memory is reused.
        weight: Shape ``[N]``, or with leading axes that broadcast against those of x; any of these dtypes.
        eps: Added to the mean square, at least 0.
        weight_offset: Added to the weight: 1 where a model stores offsets from 1, as Gemma does; 0 for the ordinary
            RMSNorm.
        num_rows: How many rows count, with the leading axes flattened: an int32 array of one element, clamped to the
            rows that exist. Or one number for each expert, ``[E]`` for arrays ``[E, max_rows, ...]``. The other rows
            are not read, and their results are zero.

    Returns:
        ``(norm, x + residual)``, both of the shape of x and rounded once from fp32: the norm to the dtype of x, the sum
        to that of residual.

    Raises:
        TypeError: A dtype is not supported, or a parameter has the wrong type.
        ValueError: The shapes do not fit each other, or a parameter is out of range.
    """
    op = GemmaFusedAddRMSNorm.of(eps=eps, weight_offset=weight_offset)
    result: tuple[jax.Array, jax.Array] = run(op, x, residual, weight, num_rows=num_rows)
    return result


def gemma_fused_add_rmsnorm_quantize(
    x: jax.Array,
    residual: jax.Array | jax.Ref,
    weight: jax.Array,
    *,
    eps: float = 1e-6,
    weight_offset: float = 1.0,
    scale_rule: str = "rceil",
    fp8_format: str = "e4m3fn",
    round_activation: bool = False,
    scale_layout: str = "row_major",
    out_norm: bool = False,
    num_rows: jax.Array | None = None,
) -> tuple[MXFP8, jax.Array] | tuple[MXFP8, jax.Array, jax.Array]:
    """:func:`gemma_fused_add_rmsnorm` and :func:`mxfp8_quantize` of its norm in one pass over memory.

    Args:
        x: Shape ``[..., N]`` with N a multiple of 32; bfloat16, float16 or float32.
        residual: The residual stream, of the shape of x; any of these dtypes, such as float32 beside x in bfloat16. A
            ``jax.Ref`` is updated: the new residual is also written there, and under jit its memory is reused.
        weight: Shape ``[N]``, or with leading axes that broadcast against those of x; any of these dtypes.
        eps: Added to the mean square, at least 0.
        weight_offset: Added to the weight: 1 where a model stores offsets from 1, as Gemma does; 0 for the ordinary
            RMSNorm.
        scale_rule: ``"rceil"``, the smallest power of two with which no value of the block saturates, or ``"floor"``,
            the rule of OCP MX v1.0, section 6.3.
        fp8_format: ``"e4m3fn"``, or ``"e4m3fnuz"`` for the matrix cores of gfx942.
        round_activation: False quantizes the fp32 result. True rounds it to the dtype of the input first; the result
            then equals ``mxfp8_quantize`` of the unfused op bit for bit.
        scale_layout: How scales are stored: ``"row_major"``; ``"swizzle_128x4"``, as NVIDIA's products read them,
            ``"swizzle_8x4"`` for few rows, or ``"packed_ue8m0"`` for DeepGEMM; or, as AMD's do, ``"shuffle_32x8"`` on
            gfx950 and ``"shuffle_32x4"`` on gfx1250. For all but the first, the last two axes form one matrix.
        out_norm: Whether to return the norm too, rounded to the dtype of x: MiniMax-M3's router reads it.
        num_rows: How many rows count, with the leading axes flattened: an int32 array of one element, clamped to the
            rows that exist. The other rows are not read, and their results are zero.

    Returns:
        ``(MXFP8, x + residual)``; with ``out_norm``, ``(MXFP8, x + residual, norm)``. The ``MXFP8`` has values ``[...,
        N]`` and scales ``[..., N / 32]``, padded in a tiled layout. The sum has the dtype of residual, the norm that of
        x.

    Raises:
        TypeError: A dtype is not supported, or a parameter has the wrong type.
        ValueError: The shapes do not fit each other, or N is not a multiple of 32, or a parameter is out of range.
    """
    op = GemmaFusedAddRMSNormQuantize.of(
        eps=eps,
        weight_offset=weight_offset,
        scale_rule=scale_rule,
        fp8_format=fp8_format,
        round_activation=round_activation,
        scale_layout=scale_layout,
        out_norm=out_norm,
    )
    result: tuple[MXFP8, jax.Array] | tuple[MXFP8, jax.Array, jax.Array] = run(
        op, x, residual, weight, num_rows=num_rows
    )
    return result


def gemma_rmsnorm(
    x: jax.Array,
    weight: jax.Array,
    *,
    eps: float = 1e-6,
    weight_offset: float = 1.0,
    num_rows: jax.Array | None = None,
) -> jax.Array:
    """Gemma's RMSNorm, ``x / sqrt(mean(x**2) + eps) * (weight + weight_offset)`` along the last axis, in fp32.

    Args:
        x: Shape ``[..., N]``; bfloat16, float16 or float32.
        weight: Shape ``[N]``, or with leading axes that broadcast against those of x; any of these dtypes.
        eps: Added to the mean square, at least 0.
        weight_offset: Added to the weight: 1 where a model stores offsets from 1, as Gemma does; 0 for the ordinary
            RMSNorm.
        num_rows: How many rows count, with the leading axes flattened: an int32 array of one element, clamped to the
            rows that exist. Or one number for each expert, ``[E]`` for arrays ``[E, max_rows, ...]``. The other rows
            are not read, and their results are zero.

    Returns:
        The norm, of the shape and dtype of x, rounded once from fp32.

    Raises:
        TypeError: A dtype is not supported, or a parameter has the wrong type.
        ValueError: The shapes do not fit each other, or a parameter is out of range.
    """
    op = GemmaRMSNorm.of(eps=eps, weight_offset=weight_offset)
    result: jax.Array = run(op, x, weight, num_rows=num_rows)
    return result


def gemma_rmsnorm_quantize(
    x: jax.Array,
    weight: jax.Array,
    *,
    eps: float = 1e-6,
    weight_offset: float = 1.0,
    scale_rule: str = "rceil",
    fp8_format: str = "e4m3fn",
    round_activation: bool = False,
    scale_layout: str = "row_major",
    out_norm: bool = False,
    num_rows: jax.Array | None = None,
) -> MXFP8 | tuple[MXFP8, jax.Array]:
    """:func:`gemma_rmsnorm` and :func:`mxfp8_quantize` of the norm in one pass over memory.

    Args:
        x: Shape ``[..., N]`` with N a multiple of 32; bfloat16, float16 or float32.
        weight: Shape ``[N]``, or with leading axes that broadcast against those of x; any of these dtypes.
        eps: Added to the mean square, at least 0.
        weight_offset: Added to the weight: 1 where a model stores offsets from 1, as Gemma does; 0 for the ordinary
            RMSNorm.
        scale_rule: ``"rceil"``, the smallest power of two with which no value of the block saturates, or ``"floor"``,
            the rule of OCP MX v1.0, section 6.3.
        fp8_format: ``"e4m3fn"``, or ``"e4m3fnuz"`` for the matrix cores of gfx942.
        round_activation: False quantizes the fp32 result. True rounds it to the dtype of the input first; the result
            then equals ``mxfp8_quantize`` of the unfused op bit for bit.
        scale_layout: How scales are stored: ``"row_major"``; ``"swizzle_128x4"``, as NVIDIA's products read them,
            ``"swizzle_8x4"`` for few rows, or ``"packed_ue8m0"`` for DeepGEMM; or, as AMD's do, ``"shuffle_32x8"`` on
            gfx950 and ``"shuffle_32x4"`` on gfx1250. For all but the first, the last two axes form one matrix.
        out_norm: Whether to return the norm too, rounded to the dtype of x: MiniMax-M3's router reads it.
        num_rows: How many rows count, with the leading axes flattened: an int32 array of one element, clamped to the
            rows that exist. The other rows are not read, and their results are zero.

    Returns:
        An ``MXFP8`` of values ``[..., N]`` and scales ``[..., N / 32]``, padded in a tiled layout; with ``out_norm``,
        ``(MXFP8, norm)``. The norm has the dtype of x.

    Raises:
        TypeError: A dtype is not supported, or a parameter has the wrong type.
        ValueError: The shapes do not fit each other, or N is not a multiple of 32, or a parameter is out of range.
    """
    op = GemmaRMSNormQuantize.of(
        eps=eps,
        weight_offset=weight_offset,
        scale_rule=scale_rule,
        fp8_format=fp8_format,
        round_activation=round_activation,
        scale_layout=scale_layout,
        out_norm=out_norm,
    )
    result: MXFP8 | tuple[MXFP8, jax.Array] = run(op, x, weight, num_rows=num_rows)
    return result
