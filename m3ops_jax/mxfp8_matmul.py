"""Matrix products of MXFP8, for JAX.

Generated from m3ops/ops/mxfp8_matmul/spec.py by ``python -m m3ops.tools.front_ends``.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from m3ops.ops.mxfp8_matmul import MXFP8GroupedMatmul, MXFP8KGroupedMatmul, MXFP8Matmul
from m3ops_jax._call import dtype_name, run
from m3ops_jax._mxfp8 import MXFP8, quantized


def mxfp8_grouped_matmul(
    x: MXFP8,
    w: MXFP8,
    group_sizes: jax.Array,
    rows: jax.Array | None = None,
    *,
    arithmetic: str = "exact",
    out_dtype: DTypeLike = jnp.bfloat16,
    num_rows: jax.Array | None = None,
) -> jax.Array:
    """``x @ w[g].T`` of MXFP8 matrices for consecutive groups of rows, as the experts of a layer need it.

    The first ``group_sizes[0]`` rows of the product are of group 0, the next ``group_sizes[1]`` of group 1, and so on,
    as in ``jax.lax.ragged_dot``. Rows past the last group are zero. A row's bytes are those that :func:`mxfp8_matmul`
    gives for it and its group's weight.

    Args:
        x: An ``MXFP8`` of values ``[T, K]``, as :func:`mxfp8_quantize` returns it; in a layout of groups they are those
            of ``group_sizes``, and ``rows`` has to be None.
        w: The weights, an ``MXFP8`` of values ``[G, N, K]``, quantized along K too. In a tiled layout each group's
            scales are a matrix of their own.
        group_sizes: How many rows each group has, int32 ``[G]``, on the device of the others. Sizes below zero are
            taken for zero, and rows that do not exist are in no group.
        rows: For each row of the product the row of x that it is of, int32 ``[R]``, so that x need not be copied for
            each expert; None for the rows of x as they are. Where there is no such row the product's is zero.
        arithmetic: ``"exact"``: the same bytes on every machine. ``"fast"``: the sums of a tensor core of bfloat16,
            within ``error_bound`` of the op in :mod:`m3ops.ops.mxfp8_matmul`. A row's bytes then depend on the kind of
            GPU, but not on the other rows; a CPU gives the bytes of ``"exact"``.
        out_dtype: bfloat16, float16 or float32.
        num_rows: How many rows count, with the leading axes flattened: an int32 array of one element, clamped to the
            rows that exist. The other rows are not read, and their results are zero.

    Returns:
        The product, shape ``[R, N]``, or ``[T, N]``, rounded once from fp32.

    Raises:
        TypeError: A dtype is not supported, or a parameter has the wrong type.
        ValueError: The shapes do not fit each other, or tiled scales, ``group_sizes`` or ``rows`` are not contiguous,
            or a parameter is out of range.
    """
    x = quantized("x", x)
    w = quantized("w", w)
    op = MXFP8GroupedMatmul.of(
        arithmetic=arithmetic, out_dtype=dtype_name(out_dtype), x_layout=x.scale_layout, w_layout=w.scale_layout
    )
    result: jax.Array = run(op, x.values, x.scales, w.values, w.scales, group_sizes, rows, num_rows=num_rows)
    return result


def mxfp8_k_grouped_matmul(
    x: MXFP8,
    w: MXFP8,
    group_sizes: jax.Array,
    *,
    arithmetic: str = "exact",
    out_dtype: DTypeLike = jnp.bfloat16,
    num_rows: jax.Array | None = None,
) -> jax.Array:
    """``x[:, g] @ w[:, g].T`` of MXFP8 matrices for consecutive groups along K, as the gradient of weights needs it.

    A group begins with a block of 32. The first ``ceil(group_sizes[0] / 32)`` blocks are of group 0, the next
    ``ceil(group_sizes[1] / 32)`` of group 1, and so on; what a group lacks to whole blocks should be zeros. Blocks past
    the last group are in none. The product of a group has the bytes that :func:`mxfp8_matmul` gives for its blocks
    alone, and that of an empty group is zero.

    Args:
        x: An ``MXFP8`` of values ``[M, K]``, as :func:`mxfp8_quantize` returns it.
        w: An ``MXFP8`` of values ``[N, K]``, quantized along K too.
        group_sizes: How many elements along K each group has, int32 ``[G]``, on the device of the others. Sizes below
            zero are taken for zero, and blocks that do not exist are in no group.
        arithmetic: ``"exact"``: the same bytes on every machine. ``"fast"``: the sums of a tensor core of bfloat16,
            within ``error_bound`` of the op in :mod:`m3ops.ops.mxfp8_matmul`. A row's bytes then depend on the kind of
            GPU, but not on the other rows; a CPU gives the bytes of ``"exact"``.
        out_dtype: bfloat16, float16 or float32.
        num_rows: How many rows count, with the leading axes flattened: an int32 array of one element, clamped to the
            rows that exist. The other rows are not read, and their results are zero.

    Returns:
        The products, shape ``[G, M, N]``, rounded once from fp32.

    Raises:
        TypeError: A dtype is not supported, or a parameter has the wrong type.
        ValueError: The shapes do not fit each other, or tiled scales or ``group_sizes`` are not contiguous, or a
            parameter is out of range.
    """
    x = quantized("x", x)
    w = quantized("w", w)
    op = MXFP8KGroupedMatmul.of(
        arithmetic=arithmetic, out_dtype=dtype_name(out_dtype), x_layout=x.scale_layout, w_layout=w.scale_layout
    )
    result: jax.Array = run(op, x.values, x.scales, w.values, w.scales, group_sizes, num_rows=num_rows)
    return result


def mxfp8_matmul(
    x: MXFP8,
    w: MXFP8,
    *,
    arithmetic: str = "exact",
    out_dtype: DTypeLike = jnp.bfloat16,
    num_rows: jax.Array | None = None,
) -> jax.Array:
    """``x @ w.T`` of MXFP8 matrices with the same bytes on every machine, for any number of rows.

    Each product of two blocks of 32 is exact. These products are added in fp32, in the order of K.

    Args:
        x: An ``MXFP8`` of values ``[..., K]``, as :func:`mxfp8_quantize` returns it.
        w: The weight, an ``MXFP8`` of values ``[N, K]``, quantized along K too.
        arithmetic: ``"exact"``: the same bytes on every machine. ``"fast"``: the sums of a tensor core of bfloat16,
            within ``error_bound`` of the op in :mod:`m3ops.ops.mxfp8_matmul`. A row's bytes then depend on the kind of
            GPU, but not on the other rows; a CPU gives the bytes of ``"exact"``.
        out_dtype: bfloat16, float16 or float32.
        num_rows: How many rows count, with the leading axes flattened: an int32 array of one element, clamped to the
            rows that exist. The other rows are not read, and their results are zero.

    Returns:
        The product, shape ``[..., N]``, rounded once from fp32.

    Raises:
        TypeError: A dtype is not supported, or a parameter has the wrong type.
        ValueError: The shapes do not fit each other, or tiled scales are not contiguous, or a parameter is out of
            range.
    """
    x = quantized("x", x)
    w = quantized("w", w)
    op = MXFP8Matmul.of(
        arithmetic=arithmetic, out_dtype=dtype_name(out_dtype), x_layout=x.scale_layout, w_layout=w.scale_layout
    )
    result: jax.Array = run(op, x.values, x.scales, w.values, w.scales, num_rows=num_rows)
    return result
