"""The choice of experts, and the sum of what they return, for JAX.

Generated from m3ops/ops/moe/spec.py by ``python -m m3ops.tools.front_ends``.
"""

from __future__ import annotations

import jax
from jax.typing import DTypeLike

from m3ops.ops.moe import MoECombine, MoELogits, MoERoute, MoEScatterQuantize, MoESort
from m3ops_jax._call import dtype_name, run
from m3ops_jax._mxfp8 import MXFP8


def moe_combine(
    y: jax.Array,
    slots: jax.Array,
    weights: jax.Array,
    shared: jax.Array | None = None,
    *,
    scale: float = 2.0,
    out_dtype: DTypeLike | None = None,
    num_rows: jax.Array | None = None,
) -> jax.Array:
    """The sum of what each token's experts return: ``scale * sum(weights * y[slots]) + shared``, in the order of the
    slots.

    Args:
        y: What the experts return, a row for each token and expert in any order, ``[R, N]``; bfloat16, float16 or
            float32.
        slots: Which row of y each expert of a token returned, int32 ``[..., k]``, k at most 32. A number that is no
            row's, such as -1, contributes nothing.
        weights: The weight of each, float32, of the shape of slots.
        shared: What is added to each sum, such as the result of an expert that all tokens have, ``[..., N]`` in any of
            these dtypes; None for nothing.
        scale: Factor of the sum, MiniMax-M3's ``routed_scaling_factor``.
        out_dtype: bfloat16, float16 or float32; by default the dtype of y.
        num_rows: How many rows count, with the leading axes flattened: an int32 array of one element, clamped to the
            rows that exist. Or one number for each expert, ``[E]`` for arrays ``[E, max_rows, ...]``. The other rows
            are not read, and their results are zero.

    Returns:
        The sums, shape ``[..., N]``, rounded once from fp32.

    Raises:
        TypeError: A dtype is not supported, or a parameter has the wrong type.
        ValueError: The shapes do not fit each other, or a parameter is out of range.
    """
    op = MoECombine.of(scale=scale, out_dtype=dtype_name(out_dtype))
    result: jax.Array = run(op, y, slots, weights, shared, num_rows=num_rows)
    return result


def moe_logits(
    x: jax.Array,
    w: jax.Array,
    *,
    num_rows: jax.Array | None = None,
) -> jax.Array:
    """The router's product ``x @ w.T`` in fp32 and one order, so that a token gets the same experts on every machine.

    A result is a sum of 128 chains of fma, each over every 128th element, which are added by halves.

    Args:
        x: The tokens, shape ``[..., H]``; bfloat16, float16 or float32.
        w: The router's weight, ``[E, H]`` in any of these dtypes; MiniMax-M3's is float32.
        num_rows: How many rows count, with the leading axes flattened: an int32 array of one element, clamped to the
            rows that exist. Or one number for each expert, ``[E]`` for arrays ``[E, max_rows, ...]``. The other rows
            are not read, and their results are zero.

    Returns:
        The logits, float32 ``[..., E]``.

    Raises:
        TypeError: A dtype is not supported, or a parameter has the wrong type.
        ValueError: The shapes do not fit each other, or a parameter is out of range.
    """
    op = MoELogits.of()
    result: jax.Array = run(op, x, w, num_rows=num_rows)
    return result


def moe_route(
    logits: jax.Array,
    bias: jax.Array,
    *,
    top_k: int = 4,
    shared_experts: int = 0,
    num_rows: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """The experts of each token: the ``top_k`` largest of ``sigmoid(logits) + bias``, and their weights, in fp32.

    The largest comes first, and among equal ones the lower index. A NaN is larger than infinity. A weight is the
    sigmoid, without the bias, over the sum of the sigmoids that are chosen.

    Args:
        logits: The router's logits, shape ``[..., E]``, E at most 4096; bfloat16, float16 or float32.
        bias: Shape ``[E]``, or with leading axes that broadcast against those of logits; any of these dtypes.
        top_k: Number of experts of a token, 1 to 32, and at most E.
        shared_experts: Number of experts that every token has. Numbered from E on, they follow the chosen ones in ids,
            and have no weight.
        num_rows: How many rows count, with the leading axes flattened: an int32 array of one element, clamped to the
            rows that exist. Or one number for each expert, ``[E]`` for arrays ``[E, max_rows, ...]``. The other rows
            are not read, and their results are zero.

    Returns:
        ``(ids, weights)``, int32 ``[..., top_k + shared_experts]`` and float32 ``[..., top_k]``.

    Raises:
        TypeError: A dtype is not supported, or a parameter has the wrong type.
        ValueError: The shapes do not fit each other, or a parameter is out of range.
    """
    op = MoERoute.of(top_k=top_k, shared_experts=shared_experts)
    result: tuple[jax.Array, jax.Array] = run(op, logits, bias, num_rows=num_rows)
    return result


def moe_scatter_quantize(
    x: jax.Array,
    slots: jax.Array,
    *,
    scale_rule: str = "rceil",
    fp8_format: str = "e4m3fn",
    scale_layout: str = "row_major",
    rows: int | None = None,
    num_experts: int | None = None,
    num_rows: jax.Array | None = None,
) -> MXFP8:
    """Each token in MXFP8, quantized once and written to the rows of all of its experts.

    A row has the bytes that :func:`mxfp8_quantize` gives for its token. A row that several slots name would lose a
    token: its values are NaN and its scales 255. A row that none names is zero, or stays as it was in memory that is
    given for it. ``num_rows`` counts tokens; those that do not count write no row.

    Args:
        x: The tokens, ``[T, K]`` with K a multiple of 32; bfloat16, float16 or float32.
        slots: Which rows of the result each token is written to, int32 ``[T, k]``, k at most 32, as :func:`moe_combine`
            takes them. A number that is no row's, such as -1, writes nothing.
        scale_rule: ``"rceil"``, the smallest power of two with which no value of the block saturates, or ``"floor"``,
            the rule of OCP MX v1.0, section 6.3.
        fp8_format: ``"e4m3fn"``, or ``"e4m3fnuz"`` for the matrix cores of gfx942.
        scale_layout: How scales are stored: ``"row_major"``; ``"swizzle_128x4"``, as NVIDIA's products read them,
            ``"swizzle_8x4"`` for few rows, or ``"packed_ue8m0"`` for DeepGEMM; or, as AMD's do, ``"shuffle_32x8"`` on
            gfx950 and ``"shuffle_32x4"`` on gfx1250. For all but the first, the last two axes form one matrix.
        rows: Rows of the result, R, or of each expert's buffer; None for as many as there are slots, without buffers.
        num_experts: E, for a buffer of R rows for each expert: a slot then is the number of the expert times R and that
            of the row. None for rows without buffers.
        num_rows: How many rows count, with the leading axes flattened: an int32 array of one element, clamped to the
            rows that exist. The other rows are not read, and their results are zero.

    Returns:
        Values ``[R, K]`` and scales ``[R, K / 32]``, or ``[E, R, K]`` and ``[E, R, K / 32]``; scales are padded in a
        tiled layout.

    Raises:
        TypeError: A dtype is not supported, or a parameter has the wrong type.
        ValueError: The shapes do not fit each other, or K is not a multiple of 32, or a parameter is out of range.
    """
    op = MoEScatterQuantize.of(
        scale_rule=scale_rule, fp8_format=fp8_format, scale_layout=scale_layout, rows=rows, num_experts=num_experts
    )
    result: MXFP8 = run(op, x, slots, num_rows=num_rows)
    return result


def moe_sort(
    ids: jax.Array,
    num_experts: int,
    *,
    tokens: bool = False,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Sorts the slots of all tokens by expert: slot ``t * k + j`` is the j-th expert of token t.

    Slots of one expert keep their order. Those whose id is no expert's, below 0 or not below ``num_experts``, come last
    and are not counted, so a device can leave out the experts of other devices. The call does not wait for the device.

    Args:
        ids: Shape ``[..., k]``, int32, as :func:`moe_route` returns them.
        num_experts: Number of experts, 1 to 4096.
        tokens: Whether ``order`` lists the token of each slot in its place, as ``rows`` of a grouped product.

    Returns:
        ``(order, slots, group_sizes)``, int32. ``order`` lists the slots by expert; ``slots``, of the shape of ids, is
        the place of each slot in ``order``. ``group_sizes``, ``[num_experts]``, says how many slots each expert has.

    Raises:
        TypeError: A dtype is not supported, or a parameter has the wrong type.
        ValueError: ids has no axis, or a parameter is out of range.
    """
    op = MoESort.of(num_experts=num_experts, tokens=tokens)
    result: tuple[jax.Array, jax.Array, jax.Array] = run(op, ids)
    return result
