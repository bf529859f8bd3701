"""Tokens quantized once each and written to the rows of their experts, for grouped products that do not gather.

Row ``slots[t, j]`` of the result is ``mxfp8_quantize(x[t])``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from m3ops import row_count, validate
from m3ops.array import ArraySpec
from m3ops.axes import Axes
from m3ops.numerics.exact import experts, fp32, functions
from m3ops.numerics.formats import FP8_FORMATS, SCALE_NAN
from m3ops.numerics.scale_layouts import arrange
from m3ops.op import Array, Arrays, Specs, parameter
from m3ops.ops.moe.spec import MAX_TOP_K
from m3ops.ops.mxfp8.spec import Quantization
from m3ops.plan import Plan
from m3ops.target import Target


@dataclass(frozen=True)
class MoEScatterQuantize(Quantization):
    """Each token in MXFP8, quantized once and written to the rows of all of its experts.

    A row has the bytes that :func:`mxfp8_quantize` gives for its token. A row that several slots name would lose a
    token: its values are NaN and its scales 255. A row that none names is zero, or stays as it was in memory that is
    given for it. ``num_rows`` counts tokens; those that do not count write no row.
    """

    name: ClassVar[str] = "moe_scatter_quantize"
    inputs: ClassVar[Mapping[str, str]] = {
        "x": "The tokens, ``[T, K]`` with K a multiple of 32; bfloat16, float16 or float32.",
        "slots": "Which rows of the result each token is written to, int32 ``[T, k]``, k at most 32, as "
        ":func:`moe_combine` takes them. A number that is no row's, such as -1, writes nothing.",
    }
    returns: ClassVar[str] = (
        "Values ``[R, K]`` and scales ``[R, K / 32]``, or ``[E, R, K]`` and ``[E, R, K / 32]``; scales are padded in a "
        "tiled layout."
    )
    result_type: ClassVar[str] = "MXFP8"
    value_error: ClassVar[str] = "The shapes do not fit each other, or K is not a multiple of 32"
    counts_buffers: ClassVar[bool] = False

    rows: int | None = parameter(
        None, "Rows of the result, R, or of each expert's buffer; None for as many as there are slots, without buffers."
    )
    num_experts: int | None = parameter(
        None,
        "E, for a buffer of R rows for each expert: a slot then is the number of the expert times R and that of the "
        "row. None for rows without buffers.",
    )

    def __post_init__(self) -> None:
        for name in ("rows", "num_experts"):
            if getattr(self, name) is not None:
                self._canonical(**{name: validate.count(name, getattr(self, name))})
        if self.num_experts is not None and self.rows is None:
            raise ValueError(f"rows must be given for buffers of {self.num_experts} experts")
        super().__post_init__()

    @property
    def axes(self) -> Axes:
        row = "R!" if self.num_experts is None else "e! R!"
        return Axes.of(f"t! K!, t! k! -> {row} K!, {row} b!")

    def infer(self, x: ArraySpec, slots: ArraySpec) -> dict[str, ArraySpec]:
        validate.array("x", x)
        if len(x.shape) != 2:
            raise ValueError(f"x must have two axes, [T, K], got shape {x.shape}")
        validate.blocks("the last axis of x", x.shape[-1])
        validate.array("slots", slots, ("int32",))
        if len(slots.shape) != 2 or slots.shape[0] != x.shape[0] or not 0 < slots.shape[1] <= MAX_TOP_K:
            wanted = f"[{x.shape[0]}, 1 to {MAX_TOP_K}]"
            raise ValueError(f"slots must have shape {wanted} for x of shape {x.shape}, got {slots.shape}")
        buffers = () if self.num_experts is None else (self.num_experts,)
        rows = slots.shape[0] * slots.shape[1] if self.rows is None else self.rows
        return self.quantized_specs(ArraySpec((*buffers, rows, x.shape[1]), x.dtype), self.scale_layout)

    def _named(self, slots: Array) -> tuple[tuple[int, ...], Array, Array]:
        """The leading axes of the results, for each row of these how many slots name it, and the first of them."""
        rows = slots.shape[0] * slots.shape[1] if self.rows is None else self.rows
        leading = (rows,) if self.num_experts is None else (self.num_experts, rows)
        return leading, *experts.slots_of_rows(slots, rows * (self.num_experts or 1))

    def compute(self, x: Array, slots: Array) -> Arrays:
        fmt, xp = FP8_FORMATS[self.fp8_format], slots.__array_namespace__()
        leading, count, first = self._named(slots)
        token = xp.where(count == 1, first // slots.shape[1] + 1, 0)
        results = []
        codes = functions.quantize_blocks(fp32.load(x), self.scale_rule, fmt)
        for of_tokens, nan in zip(codes, (fmt.nan_code, SCALE_NAN), strict=True):
            there = xp.concatenate((xp.zeros((1, of_tokens.shape[1]), xp.uint8), of_tokens))  # the first is no token's
            of_rows = xp.where((count > 1)[:, None], xp.asarray(nan, xp.uint8), there[token])
            results.append(of_rows.reshape(*leading, of_tokens.shape[1]))
        values, scales = results
        return {"values": values.view(np.dtype(fmt.name)), "scales": arrange(scales, self.scale_layout)}

    def _counted(self, operands: Mapping[str, Array], compute: Callable[[Arrays], Arrays]) -> Arrays:
        return compute(self._of_tokens_that_count(operands))

    def _of_tokens_that_count(self, operands: Mapping[str, Array]) -> Arrays:
        """The inputs, without slots of tokens that do not count."""
        inputs = dict(operands)
        num_rows = inputs.pop(row_count.NAME, None)
        if num_rows is not None:
            slots, xp = inputs["slots"], num_rows.__array_namespace__()
            counts = xp.arange(slots.shape[0])[:, None] < num_rows.reshape(1, 1)
            inputs["slots"] = xp.where(counts, slots, xp.full_like(slots, -1))
        return inputs

    def written(self, operands: Mapping[str, Array], results: Mapping[str, Array]) -> Arrays:
        leading, count, _ = self._named(self._of_tokens_that_count(operands)["slots"])
        return row_count.masks(results, (count > 0).reshape(*leading, 1), self)

    def plan(self, specs: Specs, target: Target, *, keep: Collection[str] = ()) -> Plan:
        from m3ops.ops.moe.plan import scatter_plan

        return scatter_plan(self, specs, target, keep=keep)
