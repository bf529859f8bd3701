"""Matrix products of MXFP8 with the same bytes on every machine.

    product = x @ w.T = sum over k of x[m, k] * w[n, k]

Tensor cores of different kinds keep different bits of a sum, so each block of 32 along K is computed by products whose
sums they cannot round: every E4M3 number is an integer and a rest, and over one block the sums of integers by integers,
integers by rests and rests by rests fit into 24 bits. Only what is done with those three has an order, and it is fp32
arithmetic. m3ops/numerics/README.md has the rules in full.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from m3ops import validate
from m3ops.array import ArraySpec
from m3ops.axes import Axes
from m3ops.numerics.exact import fp32, functions
from m3ops.numerics.formats import BLOCK
from m3ops.numerics.scale_layouts import ROW_MAJOR, SCALE_LAYOUTS, restore
from m3ops.op import Array, Arrays, DTypeName, Op, Specs, parameter
from m3ops.ops.mxfp8.spec import check_quantized
from m3ops.plan import Plan
from m3ops.target import Target

ARITHMETIC = ("exact", "fast")


@dataclass(frozen=True)
class MXFP8Matmul(Op):
    """``x @ w.T`` of MXFP8 matrices with the same bytes on every machine, for any number of rows.

    Each product of two blocks of 32 is exact. These products are added in fp32, in the order of K.
    """

    name: ClassVar[str] = "mxfp8_matmul"
    inputs: ClassVar[Mapping[str, str]] = {
        "x_values": "An ``MXFP8`` of values ``[..., K]``, as :func:`mxfp8_quantize` returns it.",
        "x_scales": "",
        "w_values": "The weight, an ``MXFP8`` of values ``[N, K]``, quantized along K too.",
        "w_scales": "",
    }
    quantized: ClassVar[Mapping[str, tuple[str, str]]] = {
        "x": ("x_values", "x_scales"),
        "w": ("w_values", "w_scales"),
    }
    returns: ClassVar[str] = "The product, shape ``[..., N]``, rounded once from fp32."
    value_error: ClassVar[str] = "The shapes do not fit each other, or tiled scales are not contiguous"
    differentiable: ClassVar[bool] = False

    arithmetic: str = parameter(
        "exact",
        '``"exact"``: the same bytes on every machine. ``"fast"``: the sums of a tensor core of bfloat16, within '
        ":meth:`MXFP8Matmul.error_bound` of the exact result. A row's bytes then depend on the kind of GPU, but not on "
        'the other rows; a CPU gives the bytes of ``"exact"``.',
    )
    out_dtype: DTypeName = parameter("bfloat16", "bfloat16, float16 or float32.")  # noqa: RUF009
    x_layout: str = parameter(ROW_MAJOR, "", carried_by="x.scale_layout")
    w_layout: str = parameter(ROW_MAJOR, "", carried_by="w.scale_layout")

    def __post_init__(self) -> None:
        validate.choice("arithmetic", self.arithmetic, ARITHMETIC)
        validate.output_dtype("out_dtype", self.out_dtype)
        validate.choice("x_layout", self.x_layout, SCALE_LAYOUTS)
        validate.choice("w_layout", self.w_layout, SCALE_LAYOUTS)
        super().__post_init__()

    @property
    def axes(self) -> Axes:
        m = "" if self.x_layout == ROW_MAJOR else "M! "
        n = "n" if self.w_layout == ROW_MAJOR else "n!"
        return Axes.of(f"*r {m}K!, *r {m}K!, {n} K!, {n} K! -> *r {m}{n}")

    def infer(
        self, x_values: ArraySpec, x_scales: ArraySpec, w_values: ArraySpec, w_scales: ArraySpec
    ) -> dict[str, ArraySpec]:
        check_quantized("x_", x_values, x_scales, self.x_layout)
        check_quantized("w_", w_values, w_scales, self.w_layout)
        if len(w_values.shape) != 2:
            raise ValueError(f"w_values must have two axes, [N, K], got shape {w_values.shape}")
        if w_values.shape[-1] != x_values.shape[-1]:
            raise ValueError(
                f"w_values must have the size of x_values along the last axis, {x_values.shape[-1]}, "
                f"got shape {w_values.shape}"
            )
        return {"product": ArraySpec((*x_values.shape[:-1], w_values.shape[0]), self.out_dtype)}

    def compute(self, x_values: Array, x_scales: Array, w_values: Array, w_scales: Array) -> Arrays:
        *leading, size = x_values.shape
        rows, blocks, columns = math.prod(leading), size // BLOCK, w_values.shape[0]
        x_scales = restore(x_scales, (*leading, blocks), self.x_layout).reshape(rows, blocks)
        w_scales = restore(w_scales, (columns, blocks), self.w_layout)
        product = functions.matmul(x_values.reshape(rows, size), x_scales, w_values, w_scales)
        return {"product": fp32.store(product, self.out_dtype).reshape(*leading, columns)}

    def error_bound(
        self, x_values: np.ndarray, x_scales: np.ndarray, w_values: np.ndarray, w_scales: np.ndarray
    ) -> np.ndarray:
        """By how much ``"fast"`` results may differ from ``"exact"`` ones, in float64 and the shape of the product.

        With S the sum of the magnitudes of an element's terms: a tensor core adds some products at once to the sum so
        far, each cut off at 24 bits below the largest of them, and cuts off the result. That is less than 2**-23 S for
        each term. The three roundings that a block costs in exact arithmetic, of sums of at most 9 S, are less than
        2**-23 S for each term too. Then both are rounded to ``out_dtype``, which may be to a subnormal number. All
        operands and products are assumed to be normal fp32 numbers.
        """
        size = x_values.shape[-1]
        x_scales = restore(x_scales, (*x_values.shape[:-1], size // BLOCK), self.x_layout)
        w_scales = restore(w_scales, (*w_values.shape[:-1], size // BLOCK), self.w_layout)
        x, w = functions.dequantize_blocks(x_values, x_scales), functions.dequantize_blocks(w_values, w_scales)
        sums = size * 2.0**-22 * (np.abs(x) @ np.abs(w).T)
        digits, smallest = {"bfloat16": (8, -133), "float16": (11, -24), "float32": (24, -149)}[self.out_dtype]
        bound: np.ndarray = sums + 2.0**-digits * (2 * np.abs(x @ w.T) + sums) + 2.0**smallest
        return bound

    def plan(self, specs: Specs, target: Target, *, keep: Collection[str] = ()) -> Plan:
        from m3ops.ops.mxfp8_matmul.fast_plan import fast_plan
        from m3ops.ops.mxfp8_matmul.plan import exact_plan

        plan = fast_plan if self.arithmetic == "fast" and specs["x_values"].shape[-1] else exact_plan
        return plan(self, specs, target, keep=keep)
