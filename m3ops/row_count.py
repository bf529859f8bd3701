"""Ops that read on the device how many of their rows count, as buffers that are padded for the worst case need it.

Rows are the leading axes, flattened. From row ``num_rows`` on nothing is read or computed: results are zero there, or,
in memory that was given for them, left as they were. A count below zero is taken for zero and one past the last row for
all rows: the device cannot raise.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from m3ops.numerics.scale_layouts import ROW_MAJOR, arrange
from m3ops.op import Array, Arrays, ArraySpec, LaunchPlan, Op
from m3ops.target import Target

PROGRAMS = 4
"""Programs for each multiprocessor; they share the tiles of the rows that count and what is to be cleared."""

_ALL_AXES = 64


def counted(op: Op) -> Op:
    """The op with one more input, ``num_rows``: int32, one element. No row stands for itself: their numbers matter."""

    def infer(*specs: ArraySpec, **params: Any) -> tuple[ArraySpec, ...]:
        *arrays, num_rows = specs
        outputs = op.infer(*arrays, **params)
        if num_rows.dtype != "int32":
            raise TypeError(f"num_rows must have dtype int32, got {num_rows.dtype}")
        if num_rows.size != 1:
            raise ValueError(f"num_rows must have one element, got shape {num_rows.shape}")
        return outputs

    def compute(*arrays: Array, **params: Any) -> Arrays:
        *operands, num_rows = arrays
        results = op.compute(*operands, **params)
        xp = num_rows.__array_namespace__()
        masks = written(results, num_rows, params)
        return tuple(xp.where(mask, out, xp.zeros_like(out)) for mask, out in zip(masks, results, strict=True))

    def plan(
        inputs: tuple[ArraySpec, ...], outputs: tuple[ArraySpec, ...], params: Mapping[str, Any], target: Target
    ) -> LaunchPlan:
        # In the tiles of a decode step, whatever the buffer: that is when time counts that is not bandwidth.
        base = op.plan(inputs[:-1], outputs, params, replace(target, multiprocessors=2**30))
        masked = base.constants["MASKED"] or base.constants["ROWS"] > 1
        programs = PROGRAMS * target.multiprocessors
        return replace(
            base,
            grid=programs,
            constants={**base.constants, "MASKED": masked, "LIVE": (True, params.get("groups", 1), programs)},
            bytes_moved=base.bytes_moved + inputs[-1].nbytes,
        )

    infer.__signature__ = inspect.signature(op.infer)  # type: ignore[attr-defined]
    return replace(
        op,
        name=f"{op.name}_counted",
        inputs=(*op.inputs, "num_rows"),
        infer=infer,
        compute=compute,
        plan=plan,
        shared=op.shared | {"num_rows"},
        core_rank=lambda params: _ALL_AXES,
        backward=None,
        counted=True,
    )


def written(results: Arrays, num_rows: Array, params: Mapping[str, Any]) -> Arrays:
    """For each result a mask of what is written: the rows that count, and what pads tiled scales."""
    xp = num_rows.__array_namespace__()
    leading = results[0].shape[:-1]
    counts = (xp.arange(math.prod(leading)) < num_rows.reshape(())).reshape(*leading, 1)
    tiled = params.get("scale_layout", ROW_MAJOR) != ROW_MAJOR
    masks = [counts] * len(results)
    if tiled and len(results) > 1:  # values, scales and more
        blocks = (*leading, results[0].shape[-1] // 32)
        masks[1] = arrange(xp.broadcast_to(~counts, blocks).astype(xp.uint8), params["scale_layout"]) == 0
    return tuple(masks)


def keeping(plan: LaunchPlan) -> LaunchPlan:
    """The plan for given memory, where rows that do not count stay as they are."""
    return replace(plan, constants={**plan.constants, "LIVE": (False, *plan.constants["LIVE"][1:])})
