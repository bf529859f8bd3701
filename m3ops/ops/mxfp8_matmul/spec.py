"""Matrix products of MXFP8 with the same bytes on every machine.

    product = x @ w.T = sum over k of x[m, k] * w[n, k]

Tensor cores of different kinds keep different bits of a sum, so each block of 32 along K is computed by products whose
sums they cannot round: every E4M3 number is an integer and a rest, and over one block the sums of integers by integers,
integers by rests and rests by rests fit into 24 bits. Only what is done with those three has an order, and it is fp32
arithmetic. m3ops/numerics/README.md has the rules in full.

In a grouped product consecutive rows form groups, and each group has a weight of its own; k_grouped_spec.py has groups
along K.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from m3ops import validate
from m3ops.array import ArraySpec
from m3ops.axes import Axes
from m3ops.numerics.exact import fp32, functions, groups
from m3ops.numerics.formats import BLOCK
from m3ops.numerics.scale_layouts import OF_GROUPS, ROW_MAJOR, SCALE_LAYOUTS
from m3ops.op import Array, Arrays, DTypeName, Op, Specs, parameter
from m3ops.ops.mxfp8.scales_spec import check_quantized, restored
from m3ops.plan import Plan
from m3ops.target import Target

ARITHMETIC = ("exact", "fast")


@dataclass(frozen=True)
class Product(Op):
    """What products have in common."""

    quantized: ClassVar[Mapping[str, tuple[str, str]]] = {
        "x": ("x_values", "x_scales"),
        "w": ("w_values", "w_scales"),
    }
    value_error: ClassVar[str] = "The shapes do not fit each other, or tiled scales are not contiguous"
    differentiable: ClassVar[bool] = False
    counts_buffers: ClassVar[bool] = False
    x_layouts: ClassVar[Collection[str]] = SCALE_LAYOUTS

    arithmetic: str = parameter(
        "exact",
        '``"exact"``: the same bytes on every machine. ``"fast"``: the sums of a tensor core of bfloat16, within '
        "``error_bound`` of the op in :mod:`m3ops.ops.mxfp8_matmul`. A row's bytes then depend on the kind of GPU, but "
        'not on the other rows; a CPU gives the bytes of ``"exact"``.',
    )
    out_dtype: DTypeName = parameter("bfloat16", "bfloat16, float16 or float32.")  # noqa: RUF009
    x_layout: str = parameter(ROW_MAJOR, "", carried_by="x.scale_layout")
    w_layout: str = parameter(ROW_MAJOR, "", carried_by="w.scale_layout")

    def __post_init__(self) -> None:
        validate.choice("arithmetic", self.arithmetic, ARITHMETIC)
        validate.output_dtype("out_dtype", self.out_dtype)
        validate.choice("x_layout", self.x_layout, self.x_layouts)
        validate.choice("w_layout", self.w_layout, SCALE_LAYOUTS)
        super().__post_init__()

    def plan(self, specs: Specs, target: Target, *, keep: Collection[str] = ()) -> Plan:
        """Without elements to add there is nothing to be fast at."""
        exact, fast = self._plans()
        plan = fast if self.arithmetic == "fast" and specs["x_values"].shape[-1] else exact
        return plan(self, specs, target, keep=keep)

    @abstractmethod
    def _plans(self) -> tuple[Callable[..., Plan], Callable[..., Plan]]:
        """The plans of exact and of fast arithmetic."""

    def _check_operands(
        self,
        x_values: ArraySpec,
        x_scales: ArraySpec,
        w_values: ArraySpec,
        w_scales: ArraySpec,
        w_axes: str,
        x_groups: ArraySpec | None = None,
    ) -> None:
        check_quantized("x_", x_values, x_scales, self.x_layout, x_groups)
        check_quantized("w_", w_values, w_scales, self.w_layout)
        validate.axes("w_values", w_values, w_axes)
        if w_values.shape[-1] != x_values.shape[-1]:
            raise ValueError(
                f"w_values must have the size of x_values along the last axis, {x_values.shape[-1]}, "
                f"got shape {w_values.shape}"
            )

    def _restored(
        self, x_values: Array, x_scales: Array, w_values: Array, w_scales: Array, group_sizes: Array | None = None
    ) -> tuple[Array, Array]:
        """The scales row by row."""
        return (
            restored(x_values, x_scales, self.x_layout, group_sizes),
            restored(w_values, w_scales, self.w_layout),
        )

    def _bound(self, x: np.ndarray, w: np.ndarray) -> np.ndarray:
        """By how much ``"fast"`` results may differ from ``"exact"`` ones, for numbers ``[M, K]`` and ``[N, K]``.

        With S the sum of the magnitudes of an element's terms: a tensor core adds some products at once to the sum so
        far, each cut off at 24 bits below the largest of them, and cuts off the result. That is less than 2**-23 S for
        each term. The three roundings that a block costs in exact arithmetic, of sums of at most 9 S, are less than
        2**-23 S for each term too. Then both are rounded to ``out_dtype``, which may be to a subnormal number. All
        operands and products are assumed to be normal fp32 numbers.
        """
        sums = x.shape[-1] * 2.0**-22 * (np.abs(x) @ np.abs(w).T)
        digits, smallest = {"bfloat16": (8, -133), "float16": (11, -24), "float32": (24, -149)}[self.out_dtype]
        bound: np.ndarray = sums + 2.0**-digits * (2 * np.abs(x @ w.T) + sums) + 2.0**smallest
        return bound


@dataclass(frozen=True)
class MXFP8Matmul(Product):
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
    returns: ClassVar[str] = "The product, shape ``[..., N]``, rounded once from fp32."

    @property
    def axes(self) -> Axes:
        m = "" if self.x_layout == ROW_MAJOR else "M! "
        n = "n" if self.w_layout == ROW_MAJOR else "n!"
        return Axes.of(f"*r {m}K!, *r {m}K!, {n} K!, {n} K! -> *r {m}{n}")

    def infer(
        self, x_values: ArraySpec, x_scales: ArraySpec, w_values: ArraySpec, w_scales: ArraySpec
    ) -> dict[str, ArraySpec]:
        self._check_operands(x_values, x_scales, w_values, w_scales, "N, K")
        return {"product": ArraySpec((*x_values.shape[:-1], w_values.shape[0]), self.out_dtype)}

    def compute(self, x_values: Array, x_scales: Array, w_values: Array, w_scales: Array) -> Arrays:
        *leading, size = x_values.shape
        rows, blocks, columns = math.prod(leading), size // BLOCK, w_values.shape[0]
        x_scales, w_scales = self._restored(x_values, x_scales, w_values, w_scales)
        product = functions.matmul(x_values.reshape(rows, size), x_scales.reshape(rows, blocks), w_values, w_scales)
        return {"product": fp32.store(product, self.out_dtype).reshape(*leading, columns)}

    def _plans(self) -> tuple[Callable[..., Plan], Callable[..., Plan]]:
        from m3ops.ops.mxfp8_matmul.fast_plan import fast_plan
        from m3ops.ops.mxfp8_matmul.plan import exact_plan

        return exact_plan, fast_plan

    def error_bound(
        self, x_values: np.ndarray, x_scales: np.ndarray, w_values: np.ndarray, w_scales: np.ndarray
    ) -> np.ndarray:
        """By how much ``"fast"`` results may differ from ``"exact"`` ones, in float64 and the shape of the product."""
        x_scales, w_scales = self._restored(x_values, x_scales, w_values, w_scales)
        x, w = functions.dequantize_blocks(x_values, x_scales), functions.dequantize_blocks(w_values, w_scales)
        return self._bound(x.reshape(-1, x.shape[-1]), w).reshape(*x.shape[:-1], len(w))


@dataclass(frozen=True)
class MXFP8GroupedMatmul(Product):
    """``x @ w[g].T`` of MXFP8 matrices for consecutive groups of rows, as the experts of a layer need it.

    The first ``group_sizes[0]`` rows of the product are of group 0, the next ``group_sizes[1]`` of group 1, and so on,
    as in ``jax.lax.ragged_dot``. Rows past the last group are zero. A row's bytes are those that :func:`mxfp8_matmul`
    gives for it and its group's weight.
    """

    name: ClassVar[str] = "mxfp8_grouped_matmul"
    any_size: ClassVar[bool] = False
    inputs: ClassVar[Mapping[str, str]] = {
        "x_values": "An ``MXFP8`` of values ``[T, K]``, as :func:`mxfp8_quantize` returns it; in a layout of groups "
        "they are those of ``group_sizes``, and ``rows`` has to be None.",
        "x_scales": "",
        "w_values": "The weights, an ``MXFP8`` of values ``[G, N, K]``, quantized along K too. In a tiled layout each "
        "group's scales are a matrix of their own.",
        "w_scales": "",
        "group_sizes": "How many rows each group has, int32 ``[G]``, on the device of the others. Sizes below zero are "
        "taken for zero, and rows that do not exist are in no group.",
        "rows": "For each row of the product the row of x that it is of, int32 ``[R]``, so that x need not be copied "
        "for each expert; None for the rows of x as they are. Where there is no such row the product's is zero.",
    }
    optional: ClassVar[Collection[str]] = ("rows",)
    x_layouts: ClassVar[Collection[str]] = (*SCALE_LAYOUTS, *OF_GROUPS)
    value_error: ClassVar[str] = (
        "The shapes do not fit each other, or tiled scales, ``group_sizes`` or ``rows`` are not contiguous"
    )
    returns: ClassVar[str] = "The product, shape ``[R, N]``, or ``[T, N]``, rounded once from fp32."

    @property
    def axes(self) -> Axes:
        n = "n" if self.w_layout == ROW_MAJOR else "n!"
        return Axes.of(f"t! K!, t! K!, g! {n} K!, g! {n} K!, g!, r! -> r! {n}")

    def infer(
        self,
        x_values: ArraySpec,
        x_scales: ArraySpec,
        w_values: ArraySpec,
        w_scales: ArraySpec,
        group_sizes: ArraySpec,
        rows: ArraySpec | None = None,
    ) -> dict[str, ArraySpec]:
        validate.axes("x_values", x_values, "T, K")
        x_groups = group_sizes if self.x_layout in OF_GROUPS else None
        self._check_operands(x_values, x_scales, w_values, w_scales, "G, N, K", x_groups)
        groups, columns, _ = w_values.shape
        validate.indices("group_sizes", group_sizes, "G")
        if group_sizes.shape != (groups,):
            raise ValueError(
                f"group_sizes must have shape ({groups},), one for each of w_values, got {group_sizes.shape}"
            )
        if rows is not None:
            validate.indices("rows", rows, "R")
            if x_groups is not None:
                raise ValueError(f"rows must be None for an x with scale_layout={self.x_layout!r}, which has groups")
        total = (x_values if rows is None else rows).shape[0]
        return {"product": ArraySpec((total, columns), self.out_dtype)}

    def compute(
        self,
        x_values: Array,
        x_scales: Array,
        w_values: Array,
        w_scales: Array,
        group_sizes: Array,
        rows: Array | None = None,
    ) -> Arrays:
        x_scales, w_scales = self._restored(x_values, x_scales, w_values, w_scales, group_sizes)
        if rows is None:
            rows = group_sizes.__array_namespace__().arange(x_values.shape[0])
        product = groups.matmul(x_values, x_scales, w_values, w_scales, group_sizes, rows)
        return {"product": fp32.store(product, self.out_dtype)}

    def _plans(self) -> tuple[Callable[..., Plan], Callable[..., Plan]]:
        from m3ops.ops.mxfp8_matmul.grouped_plan import exact_plan, fast_plan

        return exact_plan, fast_plan

    def error_bound(
        self,
        x_values: np.ndarray,
        x_scales: np.ndarray,
        w_values: np.ndarray,
        w_scales: np.ndarray,
        group_sizes: np.ndarray,
        rows: np.ndarray | None = None,
    ) -> np.ndarray:
        """By how much ``"fast"`` results may differ from ``"exact"`` ones, in float64 and the shape of the product."""
        x_scales, w_scales = self._restored(x_values, x_scales, w_values, w_scales, group_sizes)
        x = functions.dequantize_blocks(x_values, x_scales)
        x = x if rows is None else x[np.clip(rows, 0, len(x) - 1)]
        bound = np.zeros((len(x), w_values.shape[1]))
        parts = groups.Groups.of(group_sizes, len(x))
        for start, end, w, scales in zip(parts.starts, parts.ends, w_values, w_scales, strict=True):
            bound[start:end] = self._bound(x[start:end], functions.dequantize_blocks(w, scales))
        return bound
