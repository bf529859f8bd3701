"""The end of every kernel that quantizes: values and scales of a tile stored, and what has no tile cleared."""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl

from m3ops.numerics.tile import functions
from m3ops.tiles import row_count, rows, scale_groups, scales
from m3ops.tiles.scales import ScaleTiles


@dataclass(frozen=True)
class Mx:
    """How a kernel reads or writes MXFP8, a constexpr.

    Attributes:
        fp8: A name of :data:`m3ops.numerics.formats.FP8_FORMATS`.
        cast: How the target converts, see ``fp32.encode_e4m3``.
        rule: The scale rule; of no use where MXFP8 is read.
        scale_tiles: The tiled layout of the scales, None for row by row.
        round_activation: Whether what is quantized is rounded to the input's dtype first.
        interleaves: Whether codes that are read for a product are taken in the order of ``functions.interleave``.
    """

    fp8: str
    cast: str
    rule: str = ""
    scale_tiles: ScaleTiles | None = None
    round_activation: bool = False
    interleaves: bool = False


@triton.jit
def store(
    values_ptr,
    scales_ptr,
    x,
    t,
    window,
    total_rows,
    TILE: tl.constexpr,
    VALUES: tl.constexpr,
    SCALES: tl.constexpr,
    MX: tl.constexpr,
    PART: tl.constexpr = None,
    scale_rows_ptr=None,
):
    """Quantizes the window of tile number ``t``, or of its part number PART, fp32, and stores values and scales."""
    values, exponents = functions.quantize_blocks(x, TILE.rows, TILE.cols, MX.fp8, MX.rule, MX.cast)
    rows.store(values_ptr, values, window, TILE, VALUES)
    # Were the place of the scales computed before the values are stored, AMD code would need one more register.
    if PART is None:
        blocks = rows.window(t, window[1], scales.padded_size(VALUES.size, MX.scale_tiles), TILE, 32)
    else:
        blocks = rows.part(t, window[1], TILE, PART, 32)
    scales.store(scales_ptr, exponents, blocks, total_rows, TILE, SCALES, MX.scale_tiles, scale_rows_ptr)


@triton.jit
def clear(
    values_ptr,
    scales_ptr,
    ends,
    total_rows,
    VALUES: tl.constexpr,
    SCALES: tl.constexpr,
    MX: tl.constexpr,
    COUNT: tl.constexpr,
    counts_ptr=None,
):
    """What is written beside the tiles of the rows that count; of rows in groups ``counts_ptr`` has the counts."""
    row_count.clear(values_ptr, ends, total_rows, VALUES.size, COUNT, "values")
    if counts_ptr is None:
        scales.clear(scales_ptr, ends, total_rows, SCALES, MX.scale_tiles, COUNT)
    else:
        scale_groups.clear(scales_ptr, counts_ptr, MX.scale_tiles, COUNT)
