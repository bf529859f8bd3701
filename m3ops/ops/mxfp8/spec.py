"""MXFP8: E4M3 values with one E8M0 scale for each 32 elements of the last axis.

    values = round(x / 2**e) to E4M3, ties to even, saturating;  scales = e + 127

``scale_rule="rceil"`` takes the smallest e for which no value of the block saturates, ``"floor"`` that of OCP MX v1.0,
section 6.3. A block that holds a NaN or an infinity gets scale byte 255 and NaN values. m3ops/numerics/README.md has
the rules in full, m3ops/numerics/scale_layouts.py the layouts of the scales: in a tiled one those of a matrix
``[..., M, I]`` have the shape ``[..., padded M, padded I / 32]``. In a layout of groups consecutive rows form groups,
as the rows of a layer's experts do, each with its own padding. Rows past the last group are in none and become zero.

A product sums along its blocks, and the products of a backward pass sum along the other axis of a weight, of
activations and of gradients. ``mxfp8_quantize_transposed`` gives the transposed matrix, ``mxfp8_quantize_both`` it and
the matrix itself, of one read. Transformer Engine calls the two "rowwise" and "columnwise", torchao "dim0" and "dim1".
With ``square_blocks`` 32 x 32 elements have one scale, so that the transposed matrix has the same numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from m3ops import row_count, validate
from m3ops.array import ArraySpec
from m3ops.axes import Axes
from m3ops.numerics.exact import fp32, functions, scale_groups
from m3ops.numerics.formats import FP8_FORMATS, SCALE_RULES
from m3ops.numerics.scale_layouts import OF_GROUPS, ROW_MAJOR, SCALE_LAYOUTS
from m3ops.op import Array, Arrays, DTypeName, Op, Specs, parameter
from m3ops.ops.mxfp8.scales_spec import (
    check_groups,
    check_layout,
    check_no_count,
    check_quantized,
    restored,
    rows_axes,
    stored_scales,
)
from m3ops.plan import Plan
from m3ops.target import Target

GROUP_SIZES = (
    "How many rows each group has, int32 ``[G]``, on the device of the others; for a {layout} of groups alone. Sizes "
    "below zero are taken for zero. Rows past the last group are not read, and their {results} are zero. The array "
    "then has two axes, and ``num_rows`` is None."
)


LAYOUTS = (
    'How scales are stored: ``"row_major"``; ``"swizzle_128x4"``, as NVIDIA\'s products read them, ``"swizzle_8x4"`` '
    'for few rows, or ``"packed_ue8m0"`` for DeepGEMM; or, as AMD\'s do, ``"shuffle_32x8"`` on gfx950 and '
    '``"shuffle_32x4"`` on gfx1250. For all but the first, the last two axes form one matrix.'
)


@dataclass(frozen=True)
class Rounding(Op):
    """How numbers become MXFP8, wherever the scales are stored."""

    scale_rule: str = parameter(
        "rceil",
        '``"rceil"``, the smallest power of two with which no value of the block saturates, or ``"floor"``, the rule '
        "of OCP MX v1.0, section 6.3.",
    )
    fp8_format: str = parameter("e4m3fn", '``"e4m3fn"``, or ``"e4m3fnuz"`` for the matrix cores of gfx942.')

    def __post_init__(self) -> None:
        validate.choice("scale_rule", self.scale_rule, SCALE_RULES)
        validate.choice("fp8_format", self.fp8_format, FP8_FORMATS)
        super().__post_init__()

    def quantize(
        self, x: Array, scale_layout: str = ROW_MAJOR, group_sizes: Array | None = None, *, square: bool = False
    ) -> Arrays:
        """Values and scales of fp32 numbers."""
        fmt = FP8_FORMATS[self.fp8_format]
        if group_sizes is None:
            values, scales = functions.quantize(x, self.scale_rule, fmt, scale_layout, square)
            return {"values": values, "scales": scales}
        values, scales = functions.quantize(x, self.scale_rule, fmt, ROW_MAJOR)
        xp, there = group_sizes.__array_namespace__(), scale_groups.in_a_group(group_sizes, values.shape[0])
        return {
            "values": xp.where(there, values, xp.zeros_like(values)),
            "scales": scale_groups.arrange_groups(scales, scale_layout, group_sizes),
        }

    def quantized_specs(
        self, spec: ArraySpec, scale_layout: str = ROW_MAJOR, group_sizes: ArraySpec | None = None
    ) -> dict[str, ArraySpec]:
        """Values and scales of an array like this."""
        values = ArraySpec(spec.shape, FP8_FORMATS[self.fp8_format].name)
        return {"values": values, "scales": stored_scales(values, scale_layout, group_sizes)}


@dataclass(frozen=True)
class FusedRounding(Rounding):
    """The same for an op that quantizes what it computes."""

    round_activation: bool = parameter(
        False,
        "False quantizes the fp32 result. True rounds it to the dtype of the input first; the result then equals "
        "``mxfp8_quantize`` of the unfused op bit for bit.",
    )

    def __post_init__(self) -> None:
        validate.flag("round_activation", self.round_activation)
        super().__post_init__()

    def rounded(self, x: Array, dtype: str) -> Array:
        """The fp32 numbers that are quantized."""
        return fp32.round_to(x, dtype) if self.round_activation else x


@dataclass(frozen=True)
class Quantization(Rounding):
    """What every op takes whose result is MXFP8."""

    differentiable: ClassVar[bool] = False
    layouts: ClassVar[Collection[str]] = SCALE_LAYOUTS

    scale_layout: str = parameter(ROW_MAJOR, LAYOUTS)

    def __post_init__(self) -> None:
        validate.choice("scale_layout", self.scale_layout, self.layouts)
        super().__post_init__()


@dataclass(frozen=True)
class MatrixQuantization(Quantization):
    """What the ops take that quantize a given array, whose last two axes may form a matrix."""

    square_blocks: bool = parameter(
        False,
        "True gives 32 x 32 elements one scale, which is stored for each of their rows, so that the transposed matrix "
        "has the same numbers. Both axes of the matrix are then multiples of 32, and ``num_rows`` is None.",
    )

    def __post_init__(self) -> None:
        validate.flag("square_blocks", self.square_blocks)
        if self.square_blocks and self.scale_layout in OF_GROUPS:
            raise ValueError(f"square_blocks must be False for scale_layout={self.scale_layout!r}: groups end anywhere")
        super().__post_init__()

    def _axes(self, *, rows: bool, columns: bool, beside: str = "") -> Axes:
        """Of a matrix, and what is beside it, and of what is made of it: itself, the transposed one, or both."""
        m, n, m_scales, n_scales = "(m 32!)", "(n 32!)" if rows or self.square_blocks else "n", "m", "n"
        if self.scale_layout != ROW_MAJOR:
            m, n = m_scales, n_scales = "M!", "N!"
        results = [f"*r {m} {n}", f"*r {m} {n_scales}"] * rows + [f"*r {n} {m}", f"*r {n} {m_scales}"] * columns
        return Axes.of(f"*r {m} {n}{beside} -> {', '.join(results)}")

    def _check(self, x: ArraySpec, *, rows: bool, columns: bool) -> None:
        """Raises unless whole blocks fill the axes along which they lie."""
        validate.array("x", x)
        if columns and len(x.shape) < 2:
            raise ValueError(f"x must have at least two axes, a matrix, got shape {x.shape}")
        if rows:
            validate.blocks("the last axis of x", x.shape[-1])
        if columns:
            validate.blocks("the second to last axis of x", x.shape[-2])
        check_layout(self.scale_layout, "x", x)

    def _transposed_specs(self, x: ArraySpec) -> dict[str, ArraySpec]:
        *batch, rows, size = x.shape
        return self.quantized_specs(ArraySpec((*batch, size, rows), x.dtype), self.scale_layout)

    def plan(self, specs: Specs, target: Target, *, keep: Collection[str] = ()) -> Plan:
        from m3ops.ops.mxfp8.matrix_plan import matrix_plan

        return matrix_plan(self, specs, target)


@dataclass(frozen=True)
class GroupedQuantization(Quantization):
    """The same for an op whose rows may be in groups, each with scales of its own."""

    layouts: ClassVar[Collection[str]] = (*SCALE_LAYOUTS, *OF_GROUPS)

    scale_layout: str = parameter(
        ROW_MAJOR,
        f'{LAYOUTS} In ``"swizzle_128x4_groups"``, for grouped products by PyTorch and torchao, and '
        '``"swizzle_128x4_spread_groups"``, by FlashInfer, each of ``group_sizes`` is a matrix of its own.',
    )

    def check(self, operands: Specs) -> dict[str, ArraySpec]:
        check_no_count(self.scale_layout, operands)
        return super().check(operands)


@dataclass(frozen=True)
class MXFP8Quantize(GroupedQuantization, MatrixQuantization):
    """MXFP8 quantization: E4M3 values with one E8M0 scale for each 32 elements of the last axis (OCP MX v1.0)."""

    name: ClassVar[str] = "mxfp8_quantize"
    inputs: ClassVar[Mapping[str, str]] = {
        "x": "Shape ``[..., I]`` with I a multiple of 32; bfloat16, float16 or float32.",
        "group_sizes": GROUP_SIZES.format(layout="``scale_layout``", results="values"),
    }
    optional: ClassVar[Collection[str]] = ("group_sizes",)
    returns: ClassVar[str] = (
        "Values ``[..., I]`` and scales ``[..., I / 32]``, padded in a tiled layout; "
        "``values * 2**(scales - 127)`` approximates x. A block with a NaN or an infinity has scale byte 255 and NaN "
        "values."
    )
    result_type: ClassVar[str] = "MXFP8"
    value_error: ClassVar[str] = "I is not a multiple of 32"

    @property
    def axes(self) -> Axes:
        if self.square_blocks:
            return self._axes(rows=True, columns=False, beside=", G!")
        own = rows_axes(self.scale_layout)
        return Axes.of(f"{own}, G! -> {own}, {own}")

    def check(self, operands: Specs) -> dict[str, ArraySpec]:
        if self.square_blocks and row_count.NAME in operands:
            raise ValueError("num_rows must be None with square_blocks: rows share scales")
        return super().check(operands)

    def infer(self, x: ArraySpec, group_sizes: ArraySpec | None = None) -> dict[str, ArraySpec]:
        self._check(x, rows=True, columns=self.square_blocks)
        check_groups(self.scale_layout, "x", x, group_sizes)
        return self.quantized_specs(x, self.scale_layout, group_sizes)

    def compute(self, x: Array, group_sizes: Array | None = None) -> Arrays:
        return self.quantize(fp32.load(x), self.scale_layout, group_sizes, square=self.square_blocks)

    def plan(self, specs: Specs, target: Target, *, keep: Collection[str] = ()) -> Plan:
        from m3ops.ops.mxfp8.plan import quantize_plan

        return super().plan(specs, target) if self.square_blocks else quantize_plan(self, specs, target, keep=keep)


@dataclass(frozen=True)
class MXFP8QuantizeTransposed(MatrixQuantization):
    """MXFP8 quantization of the transposed matrix: blocks lie along the rows of x, as products of a backward pass sum.

    The bytes are those of :func:`mxfp8_quantize` of ``x.T``, which is not written in between.
    """

    name: ClassVar[str] = "mxfp8_quantize_transposed"
    inputs: ClassVar[Mapping[str, str]] = {
        "x": "Shape ``[..., M, N]`` with M a multiple of 32; bfloat16, float16 or float32."
    }
    returns: ClassVar[str] = "Values ``[..., N, M]`` and scales ``[..., N, M / 32]``, padded in a tiled layout."
    result_type: ClassVar[str] = "MXFP8"
    value_error: ClassVar[str] = "x has fewer than two axes, an axis along which blocks lie is not a multiple of 32"
    counts_rows: ClassVar[bool] = False

    @property
    def axes(self) -> Axes:
        return self._axes(rows=False, columns=True)

    def infer(self, x: ArraySpec) -> dict[str, ArraySpec]:
        self._check(x, rows=self.square_blocks, columns=True)
        return self._transposed_specs(x)

    def compute(self, x: Array) -> Arrays:
        return self.quantize(fp32.load(x).mT, self.scale_layout, square=self.square_blocks)


@dataclass(frozen=True)
class MXFP8QuantizeBoth(MatrixQuantization):
    """MXFP8 quantization of a matrix and of the transposed one, of one read: what a training step multiplies."""

    name: ClassVar[str] = "mxfp8_quantize_both"
    inputs: ClassVar[Mapping[str, str]] = {
        "x": "Shape ``[..., M, N]`` with M and N multiples of 32; bfloat16, float16 or float32."
    }
    returns: ClassVar[str] = (
        "What :func:`mxfp8_quantize` gives, values ``[..., M, N]``, and what :func:`mxfp8_quantize_transposed` gives, "
        "values ``[..., N, M]``."
    )
    result_type: ClassVar[str] = "tuple[MXFP8, MXFP8]"
    value_error: ClassVar[str] = "x has fewer than two axes, M or N is not a multiple of 32"
    counts_rows: ClassVar[bool] = False

    @property
    def axes(self) -> Axes:
        return self._axes(rows=True, columns=True)

    def infer(self, x: ArraySpec) -> dict[str, ArraySpec]:
        self._check(x, rows=True, columns=True)
        return self.quantized_specs(x, self.scale_layout) | _transposed(self._transposed_specs(x))

    def compute(self, x: Array) -> Arrays:
        x = fp32.load(x)
        own, other = (self.quantize(a, self.scale_layout, square=self.square_blocks) for a in (x, x.mT))
        return own | _transposed(other)


def _transposed(results: Mapping[str, Any]) -> dict[str, Any]:
    """Values and scales by the names that they have beside those of the matrix itself."""
    return {f"transposed_{name}": result for name, result in results.items()}


@dataclass(frozen=True)
class MXFP8Dequantize(Op):
    """MXFP8 back to a wider float: ``values * 2**(scales - 127)``, block by block; NaN where the scale byte is 255."""

    name: ClassVar[str] = "mxfp8_dequantize"
    inputs: ClassVar[Mapping[str, str]] = {
        "values": "An ``MXFP8``, as :func:`mxfp8_quantize` returns it: values ``[..., I]`` with I a multiple of 32.",
        "scales": "",
        "group_sizes": GROUP_SIZES.format(layout="``q.scale_layout``", results="results"),
    }
    optional: ClassVar[Collection[str]] = ("group_sizes",)
    quantized: ClassVar[Mapping[str, tuple[str, str]]] = {"q": ("values", "scales")}
    returns: ClassVar[str] = "Shape ``[..., I]``, rounded to fp32 and then to ``out_dtype``."
    value_error: ClassVar[str] = "The shapes do not fit each other, or tiled scales are not contiguous"
    differentiable: ClassVar[bool] = False

    out_dtype: DTypeName = parameter("bfloat16", "bfloat16, float16 or float32.")  # noqa: RUF009
    scale_layout: str = parameter("row_major", "", carried_by="q.scale_layout")

    def __post_init__(self) -> None:
        validate.output_dtype("out_dtype", self.out_dtype)
        validate.choice("scale_layout", self.scale_layout, (*SCALE_LAYOUTS, *OF_GROUPS))
        super().__post_init__()

    @property
    def axes(self) -> Axes:
        own = rows_axes(self.scale_layout)
        return Axes.of(f"{own}, {own}, G! -> {own}")

    def check(self, operands: Specs) -> dict[str, ArraySpec]:
        check_no_count(self.scale_layout, operands)
        return super().check(operands)

    def infer(self, values: ArraySpec, scales: ArraySpec, group_sizes: ArraySpec | None = None) -> dict[str, ArraySpec]:
        check_quantized("", values, scales, self.scale_layout, group_sizes)
        return {"x": ArraySpec(values.shape, self.out_dtype)}

    def compute(self, values: Array, scales: Array, group_sizes: Array | None = None) -> Arrays:
        x = functions.dequantize_blocks(values, restored(values, scales, self.scale_layout, group_sizes))
        if group_sizes is not None:
            x = x.__array_namespace__().where(scale_groups.in_a_group(group_sizes, values.shape[0]), x, 0.0)
        return {"x": fp32.store(x, self.out_dtype)}

    def plan(self, specs: Specs, target: Target, *, keep: Collection[str] = ()) -> Plan:
        from m3ops.ops.mxfp8.plan import dequantize_plan

        return dequantize_plan(self, specs, target, keep=keep)
