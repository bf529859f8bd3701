"""MXFP8 quantization for PyTorch."""

from __future__ import annotations

import torch

from m3ops.numerics.formats import MXFP8
from m3ops_torch._library import call


def mxfp8_quantize(x: torch.Tensor, *, scale_rule: str = "rceil", fp8_format: str = "e4m3fn") -> MXFP8:
    """E4M3 values with one power-of-two scale for each 32 elements of the last axis (OCP MX v1.0).

    ``x ~ values * 2**(scales - 127)``. Values are rounded to nearest, ties to even; a block that holds a NaN or an
    infinity gets scale byte 255 and NaN values.

    Args:
        x: Shape ``[..., I]`` with I a multiple of 32; bfloat16, float16 or float32.
        scale_rule: ``"rceil"`` takes the smallest scale under which no value saturates; ``"floor"`` is OCP's
            ``2**(floor(log2(amax)) - emax)``, under which the largest values may saturate.
        fp8_format: ``"e4m3fn"`` (largest value 448) or ``"e4m3fnuz"`` (240, for the matrix cores of gfx942).

    Returns:
        ``MXFP8(values, scales)``: values ``[..., I]`` in ``float8_e4m3fn`` or ``float8_e4m3fnuz``, scales ``[..., I /
        32]`` in uint8; ``scales.view(torch.float8_e8m0fnu)`` shows them as numbers.

    Raises:
        TypeError: The dtype is not one of these, or a parameter is no string.
        ValueError: I is no multiple of 32, or a parameter is not one of those named.
    """
    return MXFP8(*call("mxfp8_quantize", x, scale_rule=scale_rule, fp8_format=fp8_format))
