"""Triton kernel of the router's product, a few tokens and experts at a time; the gradient of the tokens is one too."""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl

from m3ops.numerics import constants as c
from m3ops.numerics.tile import fp32, functions
from m3ops.tiles import launches, row_count, rows
from m3ops.tiles.rows import Rows

_LANES = tl.constexpr(c.LANES)


@dataclass(frozen=True)
class LogitsAt:
    """Where the rows of each operand lie, a constexpr; those of w are experts."""

    x: Rows
    w: Rows
    logits: Rows


@triton.jit
def _load(pointers, inside, column, SIZE: tl.constexpr, AT: tl.constexpr, MASKED: tl.constexpr):
    """The next lanes of rows, fp32; zeros where there are none."""
    STRIDE: tl.constexpr = AT.strides[len(AT.strides) - 1]
    offset = column if STRIDE == 1 else column.to(tl.int64) * STRIDE
    if MASKED or SIZE // _LANES * _LANES != SIZE:
        value = tl.load(pointers + offset, mask=inside & (column < SIZE), other=0)
    else:
        value = tl.load(pointers + offset)
    return value.to(tl.float32)


@triton.jit
def _logits_tile(t, end, x_ptr, w_ptr, logits_ptr, AT: tl.constexpr, TILE: tl.constexpr, NARROWING: tl.constexpr):
    SIZE: tl.constexpr = AT.x.size
    window = rows.window(t, end, AT.logits.size, TILE)
    first_row, _, cols = window
    row = first_row + tl.arange(0, TILE.rows)[:, None]
    of_x = rows.advance(x_ptr, row, AT.x.inner_sizes, AT.x.strides)[:, :, None]
    of_w = rows.advance(w_ptr, cols, AT.w.inner_sizes, AT.w.strides)[:, :, None]
    token, expert = (row < end)[:, :, None], (cols < AT.logits.size)[:, :, None]
    total = tl.zeros((TILE.rows, TILE.cols, _LANES), tl.float32)
    for first in range(0, SIZE, _LANES):
        column = first + tl.arange(0, _LANES)[None, None, :]
        x = _load(of_x, token, column, SIZE, AT.x, TILE.masked)
        w = _load(of_w, expert, column, SIZE, AT.w, TILE.masked)
        total = tl.fma(tl.broadcast_to(x, total.shape), tl.broadcast_to(w, total.shape), total)
    total = fp32.narrow(functions.sum_lanes(total), logits_ptr.dtype.element_ty, NARROWING)
    rows.store(logits_ptr, total, window, TILE, AT.logits)


@triton.jit
def _moe_logits_kernel(
    x_ptr,  # [total_rows, H]
    w_ptr,  # [E, H]
    num_rows_ptr,  # int32, how many rows of each buffer count, or None for all
    total_rows,
    logits_ptr,  # [total_rows, E]
    AT: tl.constexpr,
    TILE: tl.constexpr,
    NARROWING: tl.constexpr,
    COUNT: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    launches.begin(OVERLAPS)
    if num_rows_ptr is None:
        _logits_tile(tl.program_id(0), total_rows, x_ptr, w_ptr, logits_ptr, AT, TILE, NARROWING)
    else:
        ends = row_count.ends(num_rows_ptr, total_rows, COUNT)
        tiles = row_count.tiles(ends, total_rows, AT.logits.size, TILE, COUNT)
        for i in range(tl.program_id(0), tiles[0], COUNT.programs):
            t, end = row_count.tile(i, tiles, ends, COUNT)
            _logits_tile(t, end, x_ptr, w_ptr, logits_ptr, AT, TILE, NARROWING)
        row_count.clear(logits_ptr, ends, total_rows, AT.logits.size, COUNT, "logits")
