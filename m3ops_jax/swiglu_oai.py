"""SwiGLU-OAI, with and without MXFP8 quantization, for JAX.

Generated from m3ops/ops/swiglu_oai/spec.py by ``python -m m3ops.tools.front_ends``.
"""

from __future__ import annotations

import jax
from jax.typing import DTypeLike

from m3ops.ops.swiglu_oai import SwigluOAI, SwigluOAIFakeQuant, SwigluOAIQuantize
from m3ops_jax._call import dtype_name, run
from m3ops_jax._mxfp8 import MXFP8


def swiglu_oai(
    gate_up: jax.Array,
    up: jax.Array | None = None,
    *,
    alpha: float = 1.702,
    beta: float = 1.0,
    limit: float | None = 7.0,
    layout: str = "split",
    groups: int = 1,
    out_dtype: DTypeLike | None = None,
    num_rows: jax.Array | None = None,
) -> jax.Array:
    """SwiGLU-OAI: ``(gate * sigmoid(alpha * gate)) * (up + beta)`` of clamped gates and ups.

    Args:
        gate_up: ``[gate | up]`` along the last axis, shape ``[..., 2 * I]``; bfloat16, float16 or float32. With ``up``
            the gates alone, ``[..., I]``.
        up: The ups where they are an array of their own, like ``gate_up``; None where they are a part of it. With it
            ``groups`` is 1 and ``layout`` is ``"split"``.
        alpha: Slope of the sigmoid, a Python number, 0 or at least 2**-64; 0 makes the sigmoid 1/2.
        beta: Offset of ``up``.
        limit: Clamp bound above 0, or None for no clamp.
        layout: ``"split"`` for ``[gate | up]``, ``"interleaved"`` where they alternate, ``[g0, u0, g1, u1, ...]``.
        groups: Number of pairs ``[gate | up]`` along the last axis: the number of devices among which tensor
            parallelism divides I.
        out_dtype: bfloat16, float16 or float32; by default the dtype of ``gate_up``.
        num_rows: How many rows count, with the leading axes flattened: an int32 array of one element, clamped to the
            rows that exist. Or one number for each expert, ``[E]`` for arrays ``[E, max_rows, ...]``. The other rows
            are not read, and their results are zero.

    Returns:
        The activation, shape ``[..., I]``, rounded once from fp32.

    Raises:
        TypeError: A dtype is not supported, or a parameter has the wrong type.
        ValueError: The last axis does not hold whole groups of pairs, or up has another shape, or a parameter is out of
            range.
    """
    op = SwigluOAI.of(
        alpha=alpha, beta=beta, limit=limit, layout=layout, groups=groups, out_dtype=dtype_name(out_dtype)
    )
    result: jax.Array = run(op, gate_up, up, num_rows=num_rows)
    return result


def swiglu_oai_fake_quant(
    gate_up: jax.Array,
    up: jax.Array | None = None,
    *,
    alpha: float = 1.702,
    beta: float = 1.0,
    limit: float | None = 7.0,
    layout: str = "split",
    groups: int = 1,
    out_dtype: DTypeLike | None = None,
    scale_rule: str = "rceil",
    fp8_format: str = "e4m3fn",
    round_activation: bool = False,
    num_rows: jax.Array | None = None,
) -> jax.Array:
    """:func:`swiglu_oai` after a round trip through MXFP8, for training with quantized activations.

    The result is ``mxfp8_dequantize(swiglu_oai_quantize(gate_up))``. Its gradient is that of :func:`swiglu_oai`: it
    passes straight through the rounding.

    Args:
        gate_up: ``[gate | up]`` along the last axis, shape ``[..., 2 * I]`` with I / groups a multiple of 32; bfloat16,
            float16 or float32. With ``up`` the gates alone, ``[..., I]``.
        up: The ups where they are an array of their own, like ``gate_up``; None where they are a part of it. With it
            ``groups`` is 1 and ``layout`` is ``"split"``.
        alpha: Slope of the sigmoid, a Python number, 0 or at least 2**-64; 0 makes the sigmoid 1/2.
        beta: Offset of ``up``.
        limit: Clamp bound above 0, or None for no clamp.
        layout: ``"split"`` for ``[gate | up]``, ``"interleaved"`` where they alternate, ``[g0, u0, g1, u1, ...]``.
        groups: Number of pairs ``[gate | up]`` along the last axis: the number of devices among which tensor
            parallelism divides I.
        out_dtype: bfloat16, float16 or float32; by default the dtype of ``gate_up``.
        scale_rule: ``"rceil"``, the smallest power of two with which no value of the block saturates, or ``"floor"``,
            the rule of OCP MX v1.0, section 6.3.
        fp8_format: ``"e4m3fn"``, or ``"e4m3fnuz"`` for the matrix cores of gfx942.
        round_activation: False quantizes the fp32 result. True rounds it to the dtype of the input first; the result
            then equals ``mxfp8_quantize`` of the unfused op bit for bit.
        num_rows: How many rows count, with the leading axes flattened: an int32 array of one element, clamped to the
            rows that exist. Or one number for each expert, ``[E]`` for arrays ``[E, max_rows, ...]``. The other rows
            are not read, and their results are zero.

    Returns:
        The activation, shape ``[..., I]``.

    Raises:
        TypeError: A dtype is not supported, or a parameter has the wrong type.
        ValueError: I / groups is not a multiple of 32, or up has another shape, or a parameter is out of range.
    """
    op = SwigluOAIFakeQuant.of(
        alpha=alpha,
        beta=beta,
        limit=limit,
        layout=layout,
        groups=groups,
        out_dtype=dtype_name(out_dtype),
        scale_rule=scale_rule,
        fp8_format=fp8_format,
        round_activation=round_activation,
    )
    result: jax.Array = run(op, gate_up, up, num_rows=num_rows)
    return result


def swiglu_oai_quantize(
    gate_up: jax.Array,
    up: jax.Array | None = None,
    group_sizes: jax.Array | None = None,
    *,
    alpha: float = 1.702,
    beta: float = 1.0,
    limit: float | None = 7.0,
    layout: str = "split",
    groups: int = 1,
    scale_rule: str = "rceil",
    fp8_format: str = "e4m3fn",
    round_activation: bool = False,
    scale_layout: str = "row_major",
    num_rows: jax.Array | None = None,
) -> MXFP8:
    """:func:`swiglu_oai` and :func:`mxfp8_quantize` of the activation in one pass over memory.

    Args:
        gate_up: ``[gate | up]`` along the last axis, shape ``[..., 2 * I]`` with I / groups a multiple of 32; bfloat16,
            float16 or float32. With ``up`` the gates alone, ``[..., I]``.
        up: The ups where they are an array of their own, like ``gate_up``; None where they are a part of it. With it
            ``groups`` is 1 and ``layout`` is ``"split"``.
        group_sizes: How many rows each group has, int32 ``[G]``, on the device of the others; for a ``scale_layout`` of
            groups alone. Sizes below zero are taken for zero. Rows past the last group are not read, and their values
            are zero. The array then has two axes, and ``num_rows`` is None.
        alpha: Slope of the sigmoid, a Python number, 0 or at least 2**-64; 0 makes the sigmoid 1/2.
        beta: Offset of ``up``.
        limit: Clamp bound above 0, or None for no clamp.
        layout: ``"split"`` for ``[gate | up]``, ``"interleaved"`` where they alternate, ``[g0, u0, g1, u1, ...]``.
        groups: Number of pairs ``[gate | up]`` along the last axis: the number of devices among which tensor
            parallelism divides I.
        scale_rule: ``"rceil"``, the smallest power of two with which no value of the block saturates, or ``"floor"``,
            the rule of OCP MX v1.0, section 6.3.
        fp8_format: ``"e4m3fn"``, or ``"e4m3fnuz"`` for the matrix cores of gfx942.
        round_activation: False quantizes the fp32 result. True rounds it to the dtype of the input first; the result
            then equals ``mxfp8_quantize`` of the unfused op bit for bit.
        scale_layout: How scales are stored: ``"row_major"``; ``"swizzle_128x4"``, as NVIDIA's products read them,
            ``"swizzle_8x4"`` for few rows, or ``"packed_ue8m0"`` for DeepGEMM; or, as AMD's do, ``"shuffle_32x8"`` on
            gfx950 and ``"shuffle_32x4"`` on gfx1250. For all but the first, the last two axes form one matrix. In
            ``"swizzle_128x4_groups"``, for grouped products by PyTorch and torchao, and
            ``"swizzle_128x4_spread_groups"``, by FlashInfer, each of ``group_sizes`` is a matrix of its own.
        num_rows: How many rows count, with the leading axes flattened: an int32 array of one element, clamped to the
            rows that exist. Or one number for each expert, ``[E]`` for arrays ``[E, max_rows, ...]``. The other rows
            are not read, and their results are zero.

    Returns:
        Values ``[..., I]`` and scales ``[..., I / 32]``, padded in a tiled layout.

    Raises:
        TypeError: A dtype is not supported, or a parameter has the wrong type.
        ValueError: I / groups is not a multiple of 32, or up has another shape, or a parameter is out of range.
    """
    op = SwigluOAIQuantize.of(
        alpha=alpha,
        beta=beta,
        limit=limit,
        layout=layout,
        groups=groups,
        scale_rule=scale_rule,
        fp8_format=fp8_format,
        round_activation=round_activation,
        scale_layout=scale_layout,
    )
    result: MXFP8 = run(op, gate_up, up, group_sizes, num_rows=num_rows)
    return result
