"""MXFP8 quantization and dequantization, for JAX.

Generated from m3ops/ops/mxfp8/spec.py by ``python -m m3ops.tools.front_ends``.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from m3ops.ops.mxfp8 import MXFP8Dequantize, MXFP8Quantize, MXFP8QuantizeBoth, MXFP8QuantizeTransposed
from m3ops_jax._call import dtype_name, run
from m3ops_jax._mxfp8 import MXFP8, quantized


def mxfp8_dequantize(
    q: MXFP8,
    group_sizes: jax.Array | None = None,
    *,
    out_dtype: DTypeLike = jnp.bfloat16,
    num_rows: jax.Array | None = None,
) -> jax.Array:
    """MXFP8 back to a wider float: ``values * 2**(scales - 127)``, block by block; NaN where the scale byte is 255.

    Args:
        q: An ``MXFP8``, as :func:`mxfp8_quantize` returns it: values ``[..., I]`` with I a multiple of 32.
        group_sizes: How many rows each group has, int32 ``[G]``, on the device of the others; for a ``q.scale_layout``
            of groups alone. Sizes below zero are taken for zero. Rows past the last group are not read, and their
            results are zero. The array then has two axes, and ``num_rows`` is None.
        out_dtype: bfloat16, float16 or float32.
        num_rows: How many rows count, with the leading axes flattened: an int32 array of one element, clamped to the
            rows that exist. Or one number for each expert, ``[E]`` for arrays ``[E, max_rows, ...]``. The other rows
            are not read, and their results are zero.

    Returns:
        Shape ``[..., I]``, rounded to fp32 and then to ``out_dtype``.

    Raises:
        TypeError: A dtype is not supported, or a parameter has the wrong type.
        ValueError: The shapes do not fit each other, or tiled scales are not contiguous, or a parameter is out of
            range.
    """
    q = quantized("q", q)
    op = MXFP8Dequantize.of(out_dtype=dtype_name(out_dtype), scale_layout=q.scale_layout)
    result: jax.Array = run(op, q.values, q.scales, group_sizes, num_rows=num_rows)
    return result


def mxfp8_quantize(
    x: jax.Array,
    group_sizes: jax.Array | None = None,
    *,
    scale_rule: str = "rceil",
    fp8_format: str = "e4m3fn",
    scale_layout: str = "row_major",
    square_blocks: bool = False,
    num_rows: jax.Array | None = None,
) -> MXFP8:
    """MXFP8 quantization: E4M3 values with one E8M0 scale for each 32 elements of the last axis (OCP MX v1.0).

    Args:
        x: Shape ``[..., I]`` with I a multiple of 32; bfloat16, float16 or float32.
        group_sizes: How many rows each group has, int32 ``[G]``, on the device of the others; for a ``scale_layout`` of
            groups alone. Sizes below zero are taken for zero. Rows past the last group are not read, and their values
            are zero. The array then has two axes, and ``num_rows`` is None.
        scale_rule: ``"rceil"``, the smallest power of two with which no value of the block saturates, or ``"floor"``,
            the rule of OCP MX v1.0, section 6.3.
        fp8_format: ``"e4m3fn"``, or ``"e4m3fnuz"`` for the matrix cores of gfx942.
        scale_layout: How scales are stored: ``"row_major"``; ``"swizzle_128x4"``, as NVIDIA's products read them,
            ``"swizzle_8x4"`` for few rows, or ``"packed_ue8m0"`` for DeepGEMM; or, as AMD's do, ``"shuffle_32x8"`` on
            gfx950 and ``"shuffle_32x4"`` on gfx1250. For all but the first, the last two axes form one matrix. In
            ``"swizzle_128x4_groups"``, for grouped products by PyTorch and torchao, and
            ``"swizzle_128x4_spread_groups"``, by FlashInfer, each of ``group_sizes`` is a matrix of its own.
        square_blocks: True gives 32 x 32 elements one scale, which is stored for each of their rows, so that the
            transposed matrix has the same numbers. Both axes of the matrix are then multiples of 32, and ``num_rows``
            is None.
        num_rows: How many rows count, with the leading axes flattened: an int32 array of one element, clamped to the
            rows that exist. Or one number for each expert, ``[E]`` for arrays ``[E, max_rows, ...]``. The other rows
            are not read, and their results are zero.

    Returns:
        Values ``[..., I]`` and scales ``[..., I / 32]``, padded in a tiled layout; ``values * 2**(scales - 127)``
        approximates x. A block with a NaN or an infinity has scale byte 255 and NaN values.

    Raises:
        TypeError: A dtype is not supported, or a parameter has the wrong type.
        ValueError: I is not a multiple of 32, or a parameter is out of range.
    """
    op = MXFP8Quantize.of(
        scale_rule=scale_rule, fp8_format=fp8_format, scale_layout=scale_layout, square_blocks=square_blocks
    )
    result: MXFP8 = run(op, x, group_sizes, num_rows=num_rows)
    return result


def mxfp8_quantize_both(
    x: jax.Array,
    *,
    scale_rule: str = "rceil",
    fp8_format: str = "e4m3fn",
    scale_layout: str = "row_major",
    square_blocks: bool = False,
) -> tuple[MXFP8, MXFP8]:
    """MXFP8 quantization of a matrix and of the transposed one, of one read: what a training step multiplies.

    Args:
        x: Shape ``[..., M, N]`` with M and N multiples of 32; bfloat16, float16 or float32.
        scale_rule: ``"rceil"``, the smallest power of two with which no value of the block saturates, or ``"floor"``,
            the rule of OCP MX v1.0, section 6.3.
        fp8_format: ``"e4m3fn"``, or ``"e4m3fnuz"`` for the matrix cores of gfx942.
        scale_layout: How scales are stored: ``"row_major"``; ``"swizzle_128x4"``, as NVIDIA's products read them,
            ``"swizzle_8x4"`` for few rows, or ``"packed_ue8m0"`` for DeepGEMM; or, as AMD's do, ``"shuffle_32x8"`` on
            gfx950 and ``"shuffle_32x4"`` on gfx1250. For all but the first, the last two axes form one matrix.
        square_blocks: True gives 32 x 32 elements one scale, which is stored for each of their rows, so that the
            transposed matrix has the same numbers. Both axes of the matrix are then multiples of 32, and ``num_rows``
            is None.

    Returns:
        What :func:`mxfp8_quantize` gives, values ``[..., M, N]``, and what :func:`mxfp8_quantize_transposed` gives,
        values ``[..., N, M]``.

    Raises:
        TypeError: A dtype is not supported, or a parameter has the wrong type.
        ValueError: x has fewer than two axes, M or N is not a multiple of 32, or a parameter is out of range.
    """
    op = MXFP8QuantizeBoth.of(
        scale_rule=scale_rule, fp8_format=fp8_format, scale_layout=scale_layout, square_blocks=square_blocks
    )
    result: tuple[MXFP8, MXFP8] = run(op, x)
    return result


def mxfp8_quantize_transposed(
    x: jax.Array,
    *,
    scale_rule: str = "rceil",
    fp8_format: str = "e4m3fn",
    scale_layout: str = "row_major",
    square_blocks: bool = False,
) -> MXFP8:
    """MXFP8 quantization of the transposed matrix: blocks lie along the rows of x, as products of a backward pass sum.

    The bytes are those of :func:`mxfp8_quantize` of ``x.T``, which is not written in between.

    Args:
        x: Shape ``[..., M, N]`` with M a multiple of 32; bfloat16, float16 or float32.
        scale_rule: ``"rceil"``, the smallest power of two with which no value of the block saturates, or ``"floor"``,
            the rule of OCP MX v1.0, section 6.3.
        fp8_format: ``"e4m3fn"``, or ``"e4m3fnuz"`` for the matrix cores of gfx942.
        scale_layout: How scales are stored: ``"row_major"``; ``"swizzle_128x4"``, as NVIDIA's products read them,
            ``"swizzle_8x4"`` for few rows, or ``"packed_ue8m0"`` for DeepGEMM; or, as AMD's do, ``"shuffle_32x8"`` on
            gfx950 and ``"shuffle_32x4"`` on gfx1250. For all but the first, the last two axes form one matrix.
        square_blocks: True gives 32 x 32 elements one scale, which is stored for each of their rows, so that the
            transposed matrix has the same numbers. Both axes of the matrix are then multiples of 32, and ``num_rows``
            is None.

    Returns:
        Values ``[..., N, M]`` and scales ``[..., N, M / 32]``, padded in a tiled layout.

    Raises:
        TypeError: A dtype is not supported, or a parameter has the wrong type.
        ValueError: x has fewer than two axes, an axis along which blocks lie is not a multiple of 32, or a parameter is
            out of range.
    """
    op = MXFP8QuantizeTransposed.of(
        scale_rule=scale_rule, fp8_format=fp8_format, scale_layout=scale_layout, square_blocks=square_blocks
    )
    result: MXFP8 = run(op, x)
    return result
