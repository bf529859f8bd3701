"""MXFP8 quantization: E4M3 values with one E8M0 scale for each 32 elements of the last axis.

    values = round(x / 2**e) to E4M3, ties to even, saturating;  scales = e + 127

``scale_rule="rceil"`` takes the smallest e for which no value of the block saturates, ``"floor"`` that of OCP MX v1.0,
section 6.3. A block that holds a NaN or an infinity gets scale byte 255 and NaN values. The rules in full are in
m3ops/numerics/README.md. ``[..., I] -> values [..., I], scales [..., I / 32]``; ``scale_layout`` is one of those in
m3ops/numerics/scale_layouts.py, the tiled ones with scales ``[..., padded M, padded I / 32]`` of ``[..., M, I]``.
"""

from __future__ import annotations

from m3ops import validate
from m3ops.numerics import exact
from m3ops.numerics.formats import BLOCK, FP8_FORMATS, SCALE_RULES
from m3ops.numerics.scale_layouts import ROW_MAJOR, SCALE_LAYOUTS, stored_shape
from m3ops.op import Array, Arrays, ArraySpec


def check_format(scale_rule: str, fp8_format: str) -> None:
    validate.choice("scale_rule", scale_rule, SCALE_RULES)
    validate.choice("fp8_format", fp8_format, FP8_FORMATS)


def check_layout(scale_layout: str, name: str, spec: ArraySpec) -> None:
    """A tiled layout takes matrices."""
    validate.choice("scale_layout", scale_layout, SCALE_LAYOUTS)
    if scale_layout != ROW_MAJOR and len(spec.shape) < 2:
        raise ValueError(
            f"{name} must have at least two axes for scale_layout={scale_layout!r}, got shape {spec.shape}"
        )


def mxfp8_specs(shape: tuple[int, ...], fp8_format: str, scale_layout: str) -> tuple[ArraySpec, ArraySpec]:
    """Values and scales of an activation of this shape."""
    scales = stored_shape((*shape[:-1], shape[-1] // BLOCK), scale_layout)
    return ArraySpec(shape, FP8_FORMATS[fp8_format].name), ArraySpec(scales, "uint8")


def infer(
    x: ArraySpec, *, scale_rule: str = "rceil", fp8_format: str = "e4m3fn", scale_layout: str = "row_major"
) -> tuple[ArraySpec, ArraySpec]:
    validate.array("x", x)
    validate.blocks("the last axis of x", x.shape[-1])
    check_format(scale_rule, fp8_format)
    check_layout(scale_layout, "x", x)
    return mxfp8_specs(x.shape, fp8_format, scale_layout)


def compute(x: Array, *, scale_rule: str, fp8_format: str, scale_layout: str) -> Arrays:
    return exact.quantize(exact.load(x), scale_rule, FP8_FORMATS[fp8_format], scale_layout)
