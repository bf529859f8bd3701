"""A launch over tiles of rows, of all of them or of those that count."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from m3ops import row_count
from m3ops.array import ArraySpec
from m3ops.op import Op, Specs
from m3ops.plan import Launch, pointers
from m3ops.planning.mx import ScalePlan
from m3ops.planning.tiling import Tiling
from m3ops.target import Target
from m3ops.tiles.row_count import RowCount

PROGRAMS = 4
"""Programs for each multiprocessor where rows are counted: they share the tiles and what is to be cleared."""

PROGRAMS_OF_BUFFERS = 32
"""The same for several buffers, of which many may be full. swiglu_oai_quantize of 32 buffers of 1024 rows of I = 3072
on the H200, us with 16, 32 and 64: all rows 148.7, 146.4 and 139.6; four full buffers and 16 rows of each other one
24.8, 24.2 and 23.9; one row of each 6.8, 7.0 and 9.5. Without a count, on as many rows: 126.7, 22.2 and 4.7.
"""


def results_of(op: Op, specs: Specs) -> dict[str, ArraySpec]:
    """The results among the operands of a call."""
    return {name: spec for name, spec in specs.items() if name not in op.inputs and name != row_count.NAME}


def counts_rows(specs: Specs) -> bool:
    """Whether the device reads one number of rows that count; few do, so that a decode step is planned, whatever the
    buffer. Of several buffers, each with a number, many may be full.
    """
    return row_count.NAME in specs and specs[row_count.NAME].size == 1


def bytes_moved(specs: Specs) -> int:
    """Each byte of the operands once."""
    return sum(spec.nbytes for spec in specs.values())


def tiled_launch(
    kernel: Any,
    op: Op,
    specs: Specs,
    target: Target,
    tiling: Tiling,
    total_rows: int,
    constants: dict[str, Any],
    *,
    keep: Collection[str],
    rows_each: int = 1,
    scales: ScalePlan | None = None,
) -> Launch:
    """The launch of a kernel that takes ``NAME_ptr`` for each operand, ``total_rows``, and TILE and COUNT.

    Args:
        kernel: The kernel.
        op: The op; what it has no input for is a result.
        specs: The operands by name.
        target: The device.
        tiling: The tiles of all rows.
        total_rows: Rows of the operands, as the kernel sees them.
        constants: Further constexprs.
        keep: Results that keep what their memory held in the rows that do not count.
        rows_each: Rows of the kernel that make one of the op's.
        scales: The layout of the scales that the launch writes.
    """
    tile, grid, count = tiling.tile, tiling.num_tiles, None
    if scales is not None:
        tile, grid = replace(tile, masked=tile.masked or scales.pads_blocks), grid + scales.padding
    if row_count.NAME in specs:
        buffers = specs[row_count.NAME].size
        rows = tile.rows if buffers == 1 else math.gcd(tile.rows, total_rows // buffers)
        tile = replace(tile, rows=rows, masked=tile.masked or rows > 1)
        grid = (PROGRAMS if buffers == 1 else PROGRAMS_OF_BUFFERS) * target.multiprocessors
        count = RowCount(grid, tuple(keep), rows_each, buffers)
    bound = pointers(kernel, specs)
    return Launch(
        kernel=kernel,
        grid=(grid,),
        arguments={**bound, "total_rows": total_rows},
        constants={**constants, "TILE": tile, "COUNT": count},
        writes=tuple(name for name in bound.values() if name in results_of(op, specs)),  # type: ignore[misc]
        num_warps=tiling.num_warps,
        overlaps=count is None,
    )
