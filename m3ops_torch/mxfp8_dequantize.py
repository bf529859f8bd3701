"""MXFP8 dequantization for PyTorch."""

from __future__ import annotations

import torch

from m3ops_torch._library import call, dtype_name


def mxfp8_dequantize(
    values: torch.Tensor,
    scales: torch.Tensor,
    *,
    out_dtype: torch.dtype = torch.bfloat16,
    scale_layout: str = "row_major",
    num_rows: torch.Tensor | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """``values * 2**(scales - 127)``, block by block; NaN where the scale byte is 255.

    Args:
        values: Shape ``[..., I]`` with I a multiple of 32; float8_e4m3fn or float8_e4m3fnuz.
        scales: Shape ``[..., I / 32]``, uint8; in a tiled layout padded, as :func:`mxfp8_quantize` gives them.
        out_dtype: bfloat16, float16 or float32.
        scale_layout: ``"row_major"``, ``"swizzle_128x4"`` or ``"shuffle_32x8"``, that of the scales.
        num_rows: int32 tensor of one element on the device of the inputs: from this row on, the leading axes flattened,
            nothing is read or computed; new results are zero there, those in ``out`` left as they were. Below 0 it
            counts as 0, past the last row as all rows. The default is all rows.
        out: Where to write the result: a tensor of its shape, dtype and device with contiguous rows, apart from the
            inputs. The default is a new one.

    Returns:
        Shape ``[..., I]``, rounded once from fp32.

    Raises:
        TypeError: A dtype is not one of these.
        ValueError: The shapes do not fit each other, or tiled scales are not contiguous.
    """
    (result,) = call(
        "mxfp8_dequantize",
        values,
        scales,
        out_dtype=dtype_name(out_dtype),
        scale_layout=scale_layout,
        num_rows=num_rows,
        out=out,
    )
    return result
