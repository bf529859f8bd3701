"""The product of MXFP8 matrices whose groups lie along K, as the gradient of the weights of a grouped product needs it.

    product[g] = x[:, g] @ w[:, g].T = sum over the k of group g of x[m, k] * w[n, k]

The arithmetic is that of the other products. Source: the gradient of ``jax.lax.ragged_dot`` with respect to its
weights; DeepGEMM has it as ``k_grouped_fp8_gemm``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from m3ops import validate
from m3ops.array import ArraySpec
from m3ops.axes import Axes
from m3ops.numerics.exact import fp32, functions, groups
from m3ops.numerics.formats import BLOCK
from m3ops.numerics.scale_layouts import ROW_MAJOR
from m3ops.op import Array, Arrays
from m3ops.ops.mxfp8_matmul.spec import Product
from m3ops.plan import Plan


@dataclass(frozen=True)
class MXFP8KGroupedMatmul(Product):
    """``x[:, g] @ w[:, g].T`` of MXFP8 matrices for consecutive groups along K, as the gradient of weights needs it.

    A group begins with a block of 32. The first ``ceil(group_sizes[0] / 32)`` blocks are of group 0, the next
    ``ceil(group_sizes[1] / 32)`` of group 1, and so on; what a group lacks to whole blocks should be zeros. Blocks past
    the last group are in none. The product of a group has the bytes that :func:`mxfp8_matmul` gives for its blocks
    alone, and that of an empty group is zero.
    """

    name: ClassVar[str] = "mxfp8_k_grouped_matmul"
    inputs: ClassVar[Mapping[str, str]] = {
        "x_values": "An ``MXFP8`` of values ``[M, K]``, as :func:`mxfp8_quantize` returns it.",
        "x_scales": "",
        "w_values": "An ``MXFP8`` of values ``[N, K]``, quantized along K too.",
        "w_scales": "",
        "group_sizes": "How many elements along K each group has, int32 ``[G]``, on the device of the others. Sizes "
        "below zero are taken for zero, and blocks that do not exist are in no group.",
    }
    value_error: ClassVar[str] = (
        "The shapes do not fit each other, or tiled scales or ``group_sizes`` are not contiguous"
    )
    returns: ClassVar[str] = "The products, shape ``[G, M, N]``, rounded once from fp32."

    @property
    def axes(self) -> Axes:
        m, n = ("m" if self.x_layout == ROW_MAJOR else "m!"), ("n" if self.w_layout == ROW_MAJOR else "n!")
        return Axes.of(f"{m} K!, {m} K!, {n} K!, {n} K!, g! -> g! {m} {n}")

    def infer(
        self,
        x_values: ArraySpec,
        x_scales: ArraySpec,
        w_values: ArraySpec,
        w_scales: ArraySpec,
        group_sizes: ArraySpec,
    ) -> dict[str, ArraySpec]:
        validate.axes("x_values", x_values, "M, K")
        self._check_operands(x_values, x_scales, w_values, w_scales, "N, K")
        validate.indices("group_sizes", group_sizes, "G")
        shape = (group_sizes.shape[0], x_values.shape[0], w_values.shape[0])
        return {"product": ArraySpec(shape, self.out_dtype)}

    def compute(self, x_values: Array, x_scales: Array, w_values: Array, w_scales: Array, group_sizes: Array) -> Arrays:
        x_scales, w_scales = self._restored(x_values, x_scales, w_values, w_scales)
        product = groups.matmul_along_k(x_values, x_scales, w_values, w_scales, group_sizes)
        return {"product": fp32.store(product, self.out_dtype)}

    def _plans(self) -> tuple[Callable[..., Plan], Callable[..., Plan]]:
        from m3ops.ops.mxfp8_matmul.k_grouped_plan import exact_plan, fast_plan

        return exact_plan, fast_plan

    def error_bound(
        self,
        x_values: np.ndarray,
        x_scales: np.ndarray,
        w_values: np.ndarray,
        w_scales: np.ndarray,
        group_sizes: np.ndarray,
    ) -> np.ndarray:
        """By how much ``"fast"`` results may differ from ``"exact"`` ones, in float64 and the shape of the product."""
        x_scales, w_scales = self._restored(x_values, x_scales, w_values, w_scales)
        x, w = functions.dequantize_blocks(x_values, x_scales), functions.dequantize_blocks(w_values, w_scales)
        of = groups.Groups.of_blocks(group_sizes, x_scales.shape[-1])
        parts = [slice(start * BLOCK, end * BLOCK) for start, end in zip(of.starts, of.ends, strict=True)]
        return np.array([self._bound(x[:, part], w[:, part]) for part in parts]).reshape(len(parts), len(x), len(w))
