"""MXFP8 quantization for PyTorch."""

from __future__ import annotations

import torch

from m3ops.numerics.formats import MXFP8
from m3ops_torch._library import call


def mxfp8_quantize(
    x: torch.Tensor,
    *,
    scale_rule: str = "rceil",
    fp8_format: str = "e4m3fn",
    scale_layout: str = "row_major",
    num_rows: torch.Tensor | None = None,
    out: MXFP8 | None = None,
) -> MXFP8:
    """E4M3 values with one power-of-two scale for each 32 elements of the last axis (OCP MX v1.0).

    ``x ~ values * 2**(scales - 127)``. Values are rounded to nearest, ties to even; a block that holds a NaN or an
    infinity gets scale byte 255 and NaN values.

    Args:
        x: Shape ``[..., I]`` with I a multiple of 32; bfloat16, float16 or float32.
        scale_rule: ``"rceil"`` takes the smallest scale under which no value saturates; ``"floor"`` is OCP's
            ``2**(floor(log2(amax)) - emax)``, under which the largest values may saturate.
        fp8_format: ``"e4m3fn"`` (largest value 448) or ``"e4m3fnuz"`` (240, for the matrix cores of gfx942).
        scale_layout: ``"row_major"``; ``"swizzle_128x4"``, tiles of 128 rows x 4 blocks, which cuBLAS, PyTorch's
            ``scaled_mm`` and FlashInfer read; or ``"shuffle_32x8"``, tiles of 32 rows x 8 blocks, which aiter and
            hipBLASLt read. Tiled scales are those of whole matrices ``[..., M, I]``.
        num_rows: int32 tensor of one element on the device of the inputs: from this row on, the leading axes flattened,
            nothing is read or computed; new results are zero there, those in ``out`` left as they were. Below 0 it
            counts as 0, past the last row as all rows. The default is all rows.
        out: Where to write the results: tensors of their shapes, dtypes and device, nested as they are, with contiguous
            rows, apart from the inputs and each other. The default is new ones.

    Returns:
        ``MXFP8(values, scales)``: values ``[..., I]`` in ``float8_e4m3fn`` or ``float8_e4m3fnuz``, scales ``[..., I /
        32]`` in uint8; ``scales.view(torch.float8_e8m0fnu)`` shows them as numbers.
        Tiled scales have the shape ``[..., M, I / 32]`` padded to multiples of 128 and 4 (``"shuffle_32x8"``: 256 and
        8); their bytes are in the order of the tiles, zero where they pad.

    Raises:
        TypeError: The dtype is not one of these, or a parameter is no string.
        ValueError: I is no multiple of 32, a parameter is not one of those named, or a vector is to have tiled scales.
    """
    return MXFP8(
        *call(
            "mxfp8_quantize",
            x,
            scale_rule=scale_rule,
            fp8_format=fp8_format,
            scale_layout=scale_layout,
            num_rows=num_rows,
            out=out,
        )
    )
