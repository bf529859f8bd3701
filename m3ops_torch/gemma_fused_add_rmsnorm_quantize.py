"""Residual add, Gemma's RMSNorm and MXFP8 quantization for PyTorch."""

from __future__ import annotations

import torch

from m3ops.numerics.formats import MXFP8
from m3ops_torch._library import call


def gemma_fused_add_rmsnorm_quantize(
    x: torch.Tensor,
    residual: torch.Tensor,
    weight: torch.Tensor,
    *,
    eps: float = 1e-6,
    scale_rule: str = "rceil",
    fp8_format: str = "e4m3fn",
    round_activation: bool = False,
    out_norm: bool = False,
    scale_layout: str = "row_major",
    num_rows: torch.Tensor | None = None,
    out: tuple[MXFP8, torch.Tensor] | tuple[MXFP8, torch.Tensor, torch.Tensor] | None = None,
) -> tuple[MXFP8, torch.Tensor] | tuple[MXFP8, torch.Tensor, torch.Tensor]:
    """:func:`gemma_fused_add_rmsnorm` and :func:`mxfp8_quantize` of its norm in one pass over memory.

    Args:
        x: Shape ``[..., N]`` with N a multiple of 32; bfloat16, float16 or float32.
        residual: The shape and dtype of x.
        weight: Shape ``[N]``, or with leading axes that broadcast against those of x; any of these dtypes.
        eps: Added to the mean square, at least 0.
        scale_rule: ``"rceil"`` or ``"floor"``, see :func:`mxfp8_quantize`.
        fp8_format: ``"e4m3fn"`` or ``"e4m3fnuz"``, see :func:`mxfp8_quantize`.
        round_activation: False quantizes the fp32 norm. True rounds it to the dtype of x first, and then the
            result equals ``mxfp8_quantize`` of the norm to the bit.
        out_norm: Whether to return the norm too, rounded to the dtype of x.
        scale_layout: ``"row_major"``, ``"swizzle_128x4"`` or ``"shuffle_32x8"``, see :func:`mxfp8_quantize`.
        num_rows: int32 tensor of one element on the device of the inputs: from this row on, the leading axes flattened,
            nothing is read or computed; new results are zero there, those in ``out`` left as they were. Below 0 it
            counts as 0, past the last row as all rows. The default is all rows.
        out: Where to write the results: tensors of their shapes, dtypes and device, nested as they are, with contiguous
            rows, apart from the inputs and each other. The default is new ones. One may take the memory of x, one of
            residual.

    Returns:
        ``(MXFP8(values, scales), new residual)``, with ``out_norm`` ``(MXFP8(values, scales), new residual, norm)``.
        Shapes ``[..., N]``, scales ``[..., N / 32]``; new residual and norm have the dtype of x.

    Raises:
        TypeError: A dtype is not one of these, or a parameter has the wrong type.
        ValueError: The shapes do not fit each other, N is no multiple of 32, or a parameter is out of range.
    """
    values, scales, new_residual, *norm = call(
        "gemma_fused_add_rmsnorm_quantize",
        x,
        residual,
        weight,
        eps=eps,
        scale_rule=scale_rule,
        fp8_format=fp8_format,
        round_activation=round_activation,
        out_norm=out_norm,
        scale_layout=scale_layout,
        num_rows=num_rows,
        out=out,
    )
    quantized = MXFP8(values, scales)
    return (quantized, new_residual, norm[0]) if norm else (quantized, new_residual)
