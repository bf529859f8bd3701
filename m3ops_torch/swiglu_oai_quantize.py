"""SwiGLU-OAI with MXFP8 quantization for PyTorch."""

from __future__ import annotations

import torch

from m3ops.numerics.formats import MXFP8
from m3ops_torch._library import call


def swiglu_oai_quantize(
    gate_up: torch.Tensor,
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
    num_rows: torch.Tensor | None = None,
    out: MXFP8 | None = None,
) -> MXFP8:
    """:func:`swiglu_oai` and :func:`mxfp8_quantize` in one pass over memory.

    Args:
        gate_up: ``[gate | up]`` along the last axis, shape ``[..., 2 * I]`` with I / groups a multiple of 32; bfloat16,
            float16 or float32.
        alpha: Slope of the sigmoid, a Python number above 0.
        beta: Offset of ``up``.
        limit: Clamp bound above 0, or None for no clamp.
        layout: ``"split"`` for ``[gate | up]``, ``"interleaved"`` where they alternate, ``[g0, u0, g1, u1, ...]``.
        groups: Number of pairs ``[gate | up]`` along the last axis, one after another, as the shards of a
            tensor-parallel projection make them; the result has the activations in the same order.
        scale_rule: ``"rceil"`` or ``"floor"``, see :func:`mxfp8_quantize`.
        fp8_format: ``"e4m3fn"`` or ``"e4m3fnuz"``, see :func:`mxfp8_quantize`.
        round_activation: False quantizes the fp32 activation. True rounds it to the dtype of ``gate_up`` first, and
            then the result equals ``mxfp8_quantize(swiglu_oai(gate_up))`` to the bit.
        scale_layout: ``"row_major"``, ``"swizzle_128x4"`` or ``"shuffle_32x8"``, see :func:`mxfp8_quantize`.
        num_rows: int32 tensor of one element on the device of the inputs: from this row on, the leading axes flattened,
            nothing is read or computed; new results are zero there, those in ``out`` left as they were. Below 0 it
            counts as 0, past the last row as all rows. The default is all rows.
        out: Where to write the results: tensors of their shapes, dtypes and device, nested as they are, with contiguous
            rows, apart from the inputs and each other. The default is new ones.

    Returns:
        ``MXFP8(values, scales)``, shapes ``[..., I]`` and ``[..., I / 32]``.

    Raises:
        TypeError: A dtype is not one of these, or a parameter has the wrong type.
        ValueError: I / groups is no multiple of 32, or a parameter is out of range.
    """
    return MXFP8(
        *call(
            "swiglu_oai_quantize",
            gate_up,
            alpha=alpha,
            beta=beta,
            limit=limit,
            layout=layout,
            groups=groups,
            scale_rule=scale_rule,
            fp8_format=fp8_format,
            round_activation=round_activation,
            scale_layout=scale_layout,
            num_rows=num_rows,
            out=out,
        )
    )
