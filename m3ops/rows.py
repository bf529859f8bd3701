"""Rows of strided arrays: all axes but the last, collapsed as far as the strides of every operand allow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import triton
import triton.language as tl

from m3ops.op import ArraySpec

_CLEARED_BYTES = tl.constexpr(8192)  # by one program at a time


@dataclass(frozen=True)
class RowLayout:
    """How row ``r`` of each operand is found.

    Attributes:
        num_rows: Product of the leading axes.
        inner_sizes: Sizes of the collapsed leading axes but the first, so that the number of rows is not part of it.
        strides: For each operand the strides of the collapsed leading axes, then that of the last axis, in elements.
    """

    num_rows: int
    inner_sizes: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]

    def constants(self, *names: str) -> dict[str, Any]:
        """Constexpr arguments for :func:`load` and :func:`store`: ``INNER_SIZES`` and ``<NAME>_STRIDES``."""
        named = {f"{name.upper()}_STRIDES": strides for name, strides in zip(names, self.strides, strict=True)}
        return {"INNER_SIZES": self.inner_sizes, **named}


def row_layout(*specs: ArraySpec) -> RowLayout:
    """The common row layout of operands whose leading axes broadcast against each other.

    In nearly every call all leading axes collapse into one. They cannot where an operand is a transposed view, say;
    then a kernel splits the row number by the inner sizes.
    """
    shape = np.broadcast_shapes(*(spec.shape[:-1] for spec in specs))
    axes = [(size, *(_stride(spec, axis, len(shape)) for spec in specs)) for axis, size in enumerate(shape)]
    axes = [axis for axis in axes if axis[0] != 1]
    if not axes:  # one row: the strides that more rows would have
        axes = [(1, *(spec.shape[-1] if len(spec.shape) > 1 else 0 for spec in specs))]
    merged = axes[:1]
    for size, *inner in axes[1:]:
        if [size * stride for stride in inner] == list(merged[-1][1:]):
            merged[-1] = (merged[-1][0] * size, *inner)
        else:
            merged.append((size, *inner))
    strides = tuple(
        (*(axis[1 + operand] for axis in merged), spec.strides[-1] if spec.shape[-1] > 1 else 1)
        for operand, spec in enumerate(specs)
    )
    return RowLayout(math.prod(shape), tuple(axis[0] for axis in merged[1:]), strides)


def split_rows(spec: ArraySpec, groups: int) -> ArraySpec:
    """The same array with each row as ``groups`` rows; needs no copy, whatever the strides."""
    if groups == 1:
        return spec
    size, stride = spec.shape[-1] // groups, spec.strides[-1]
    return ArraySpec((*spec.shape[:-1], groups, size), spec.dtype, (*spec.strides[:-1], size * stride, stride))


def _stride(spec: ArraySpec, axis: int, leading: int) -> int:
    own = axis - (leading - (len(spec.shape) - 1))  # axes align at the right
    return spec.strides[own] if own >= 0 and spec.shape[own] != 1 else 0


@triton.jit
def tiles(num_rows, live_ptr, SIZE: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr, LIVE: tl.constexpr):
    """How many tiles this program works on, the numbers of the first and of how many to skip, and the rows that count.

    Usually that is one tile, and the loop over it folds away. Where the number of rows is read on the device, a limited
    number of programs goes through the tiles of those rows.
    """
    first = tl.program_id(0)
    if live_ptr is None:
        count = 1
        step = 1
        live = num_rows
    else:
        step = LIVE[2]
        live = tl.maximum(tl.minimum(tl.load(live_ptr), num_rows // LIVE[1]), 0) * LIVE[1]
        end = tl.cast(tl.cdiv(live, ROWS) * ((SIZE + COLS - 1) // COLS), tl.int32)
        count = tl.cdiv(tl.maximum(end - first, 0), step)
    return count, first, step, live


@triton.jit
def window(tile, num_rows, SIZE: tl.constexpr, ROWS: tl.constexpr, COLS: tl.constexpr):
    """The rows and columns of a tile: ``(first row, number of rows, column numbers [1, COLS])``."""
    COL_TILES: tl.constexpr = (SIZE + COLS - 1) // COLS
    first_row = tl.cast(tile // COL_TILES, tl.int64) * ROWS
    return first_row, num_rows, (tile % COL_TILES) * COLS + tl.arange(0, COLS)[None, :]


@triton.jit
def whole_rows(tile, num_rows, ROWS: tl.constexpr, COLS: tl.constexpr, TILE: tl.constexpr):
    """The same for tiles of whole rows, read in parts: part number TILE."""
    return tl.cast(tile, tl.int64) * ROWS, num_rows, TILE * COLS + tl.arange(0, COLS)[None, :]


@triton.jit
def clear(ptr, live, num_rows, SIZE: tl.constexpr, LIVE: tl.constexpr):
    """Zeros in the rows of a contiguous result that do not count, shared among all programs."""
    if LIVE[0]:
        CHUNK: tl.constexpr = _CLEARED_BYTES * 8 // ptr.dtype.element_ty.primitive_bitwidth
        start = tl.cast(live, tl.int64) * SIZE
        end = tl.cast(num_rows, tl.int64) * SIZE
        chunks = tl.cast(tl.cdiv(end - start, CHUNK), tl.int32)
        for chunk in range(tl.program_id(0), chunks, LIVE[2]):
            offset = start + tl.cast(chunk, tl.int64) * CHUNK + tl.arange(0, CHUNK)
            tl.store(ptr + offset, tl.zeros([CHUNK], ptr.dtype.element_ty), mask=offset < end)


@triton.jit
def moved(ptr, row, INNER_SIZES: tl.constexpr, STRIDES: tl.constexpr):
    """The pointer to the start of a row."""
    for axis in tl.static_range(len(STRIDES) - 2, 0, -1):
        ptr += (row % INNER_SIZES[axis - 1]).to(tl.int64) * STRIDES[axis]
        row = row // INNER_SIZES[axis - 1]
    return ptr + row.to(tl.int64) * STRIDES[0]


@triton.jit
def load(
    ptr,
    window,
    SIZE: tl.constexpr,
    ROWS: tl.constexpr,
    MASKED: tl.constexpr,
    INNER_SIZES: tl.constexpr,
    STRIDES: tl.constexpr,
    EVICTION: tl.constexpr = "",
):
    """A tile [ROWS, COLS] of an operand, with zeros past its edges. Rows that are all the same are read once."""
    ptrs = _pointers(ptr, window, ROWS, INNER_SIZES, STRIDES)
    if MASKED:
        x = tl.load(ptrs, mask=_mask(window, SIZE, ROWS, STRIDES), other=0, eviction_policy=EVICTION)
    else:
        x = tl.load(ptrs, eviction_policy=EVICTION)
    return tl.broadcast_to(x, (ROWS, x.shape[1]))


@triton.jit
def load_halves(
    ptr,
    window,
    SIZE: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    MASKED: tl.constexpr,
    INNER_SIZES: tl.constexpr,
    STRIDES: tl.constexpr,
    INTERLEAVED: tl.constexpr,
    RUN: tl.constexpr,
):
    """Two fp32 tiles [ROWS, COLS] of an operand [num_rows, 2 * SIZE] that holds two, side by side or alternating.

    Alternating ones are read as runs of RUN columns, the even runs in one load and the odd ones in another, and taken
    apart in registers. With RUN the elements that a thread stores at once, each element is read by the thread that
    stores what becomes of it, 16 bytes at a time.
    """
    COL_STRIDE: tl.constexpr = STRIDES[len(STRIDES) - 1]
    if INTERLEAVED:
        first_row, num_rows, cols = window
        runs = first_row, num_rows, cols + cols // RUN * RUN
        x = load(ptr, runs, 2 * SIZE, ROWS, MASKED, INNER_SIZES, STRIDES)
        y = load(ptr + RUN * COL_STRIDE, runs, 2 * SIZE - RUN, ROWS, MASKED, INNER_SIZES, STRIDES)
        x_first, x_second = tl.split(tl.reshape(x, (ROWS, COLS // RUN, RUN // 2, 2)))
        y_first, y_second = tl.split(tl.reshape(y, (ROWS, COLS // RUN, RUN // 2, 2)))
        first = tl.reshape(tl.permute(tl.join(x_first, y_first), (0, 1, 3, 2)), (ROWS, COLS))
        second = tl.reshape(tl.permute(tl.join(x_second, y_second), (0, 1, 3, 2)), (ROWS, COLS))
    else:
        first = load(ptr, window, SIZE, ROWS, MASKED, INNER_SIZES, STRIDES)
        second = load(ptr + SIZE * COL_STRIDE, window, SIZE, ROWS, MASKED, INNER_SIZES, STRIDES)
    return first.to(tl.float32), second.to(tl.float32)


@triton.jit
def load_sum(
    x_ptr,
    residual_ptr,
    window,
    SIZE: tl.constexpr,
    ROWS: tl.constexpr,
    MASKED: tl.constexpr,
    INNER_SIZES: tl.constexpr,
    X_STRIDES: tl.constexpr,
    RESIDUAL_STRIDES: tl.constexpr,
    EVICTION: tl.constexpr,
):
    """The fp32 sum of two operands, tile by tile."""
    x = load(x_ptr, window, SIZE, ROWS, MASKED, INNER_SIZES, X_STRIDES, EVICTION).to(tl.float32)
    residual = load(residual_ptr, window, SIZE, ROWS, MASKED, INNER_SIZES, RESIDUAL_STRIDES, EVICTION)
    return x + residual.to(tl.float32)


@triton.jit
def store(
    ptr,
    x,
    window,
    SIZE: tl.constexpr,
    ROWS: tl.constexpr,
    MASKED: tl.constexpr,
    INNER_SIZES: tl.constexpr,
    STRIDES: tl.constexpr,
):
    """Stores a tile [ROWS, COLS] within the edges of an operand, in the operand's dtype."""
    ptrs = _pointers(ptr, window, ROWS, INNER_SIZES, STRIDES)
    x = x.to(ptr.dtype.element_ty)
    if MASKED:
        tl.store(ptrs, x, mask=_mask(window, SIZE, ROWS, STRIDES))
    else:
        tl.store(ptrs, x)


@triton.jit
def _mask(window, SIZE: tl.constexpr, ROWS: tl.constexpr, STRIDES: tl.constexpr):
    first_row, num_rows, cols = window
    mask = cols < SIZE
    if len(STRIDES) > 2 or STRIDES[0] != 0:
        mask = mask & (first_row + tl.arange(0, ROWS)[:, None] < num_rows)
    return mask


@triton.jit
def _pointers(ptr, window, ROWS: tl.constexpr, INNER_SIZES: tl.constexpr, STRIDES: tl.constexpr):
    first_row, _, cols = window
    LEADING: tl.constexpr = len(STRIDES) - 1
    local = tl.arange(0, ROWS)[:, None]
    if STRIDES[LEADING] != 1 or ROWS * STRIDES[0] >= 2**31:  # 32-bit offsets within a tile would not do
        local, cols = local.to(tl.int64), cols.to(tl.int64)
    if LEADING > 1:
        index = first_row + local
        offset = index * 0
        for axis in tl.static_range(LEADING - 1, 0, -1):
            offset += (index % INNER_SIZES[axis - 1]) * STRIDES[axis]
            index = index // INNER_SIZES[axis - 1]
        block = (ptr + (offset + index * STRIDES[0])) + cols * STRIDES[LEADING]
    elif STRIDES[0] == 0:
        block = ptr + cols * STRIDES[LEADING]
    else:  # a 64-bit scalar base and 32-bit offsets: what the wide loads of both vendors want
        block = (ptr + first_row * STRIDES[0]) + (local * STRIDES[0] + cols * STRIDES[LEADING])
    return block
