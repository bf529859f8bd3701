"""MXFP8 back to a wider float: ``values * 2**(scales - 127)``, block by block.

The product is rounded to fp32 (exact but at the ends of the fp32 range), then to ``out_dtype``. A block with scale
byte 255 is NaN (OCP MX v1.0, section 5.4.1). ``values [..., I], scales [..., I / 32] -> [..., I]``; scales in a tiled
``scale_layout`` have the padded shape that ``mxfp8_quantize`` gives them.
"""

from __future__ import annotations

from m3ops import validate
from m3ops.numerics import exact
from m3ops.numerics.formats import BLOCK, FP8_FORMATS
from m3ops.numerics.scale_layouts import ROW_MAJOR, restore, stored_shape
from m3ops.op import Array, Arrays, ArraySpec
from m3ops.ops.mxfp8_quantize.spec import check_layout


def infer(
    values: ArraySpec, scales: ArraySpec, *, out_dtype: str = "bfloat16", scale_layout: str = "row_major"
) -> tuple[ArraySpec]:
    validate.array("values", values, [fmt.name for fmt in FP8_FORMATS.values()])
    validate.array("scales", scales, ["uint8"])
    validate.blocks("the last axis of values", values.shape[-1])
    check_layout(scale_layout, "values", values)
    wanted = stored_shape((*values.shape[:-1], values.shape[-1] // BLOCK), scale_layout)
    if scales.shape != wanted:
        raise ValueError(f"scales must have shape {wanted} for values of shape {values.shape}, got {scales.shape}")
    if scale_layout != ROW_MAJOR:
        validate.contiguous("scales", scales)
    validate.output_dtype("out_dtype", out_dtype)
    return (ArraySpec(values.shape, out_dtype),)


def compute(values: Array, scales: Array, *, out_dtype: str, scale_layout: str) -> Arrays:
    scales = restore(scales, (*values.shape[:-1], values.shape[-1] // BLOCK), scale_layout)
    return (exact.store(exact.dequantize_blocks(values, scales), out_dtype),)
