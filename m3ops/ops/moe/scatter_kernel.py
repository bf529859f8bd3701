"""Triton kernel that quantizes tokens and writes each to the rows of its experts, a tile at a time."""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl

from m3ops.numerics.formats import BLOCK, SCALE_NAN
from m3ops.numerics.tile import functions
from m3ops.ops.moe.owners_kernel import SEVERAL
from m3ops.tiles import launches, row_count, rows, scales
from m3ops.tiles.rows import Rows

_BLOCK = tl.constexpr(BLOCK)
_SCALE_NAN = tl.constexpr(SCALE_NAN)
_SEVERAL = tl.constexpr(SEVERAL)


@dataclass(frozen=True)
class ScatterAt:
    """Where the rows of the inputs lie, a constexpr; those of the results follow each other."""

    x: Rows
    slots: Rows


@dataclass(frozen=True)
class Scatter:
    """How programs work on the rows that no token alone is written to, a constexpr.

    Attributes:
        nan_code: The byte of a value in a row that several slots name.
        clears: Whether rows that no slot names become zeros; else they keep what the memory held.
        rows: Rows that a program looks at together.
        elements: Elements of one that it writes together.
    """

    nan_code: int
    clears: bool
    rows: int
    elements: int


@triton.jit
def _store_scales(ptr, exponents, row, block, mask, result_rows, SIZE: tl.constexpr, TILES: tl.constexpr):
    """Stores the scales of rows of SIZE elements, and zeros in the blocks that pad a row."""
    BLOCKS: tl.constexpr = SIZE // _BLOCK
    PADDED: tl.constexpr = scales.padded_size(SIZE, TILES) // _BLOCK
    if TILES is None:
        offset = row * BLOCKS + block
    else:
        offset = scales.row_offset(row, TILES) + scales.block_offset(block, result_rows, TILES)
    if PADDED != BLOCKS:
        exponents = tl.where(block < BLOCKS, exponents, 0).to(tl.uint8)
    tl.store(ptr + offset, exponents, mask=mask & (block < PADDED))


@triton.jit
def _scatter_tile(
    t,
    end,
    x_ptr,
    slots_ptr,
    owners_ptr,
    result_rows,
    values_ptr,
    scales_ptr,
    AT: tl.constexpr,
    TILE: tl.constexpr,
    MX: tl.constexpr,
):
    SIZE: tl.constexpr = AT.x.size
    SLOTS: tl.constexpr = AT.slots.size
    STRIDE: tl.constexpr = AT.slots.strides[len(AT.slots.strides) - 1]
    PADDED: tl.constexpr = scales.padded_size(SIZE, MX.scale_tiles)
    window = rows.window(t, end, PADDED, TILE)
    x = rows.load(x_ptr, window, TILE, AT.x).to(tl.float32)
    values, exponents = functions.quantize_blocks(x, TILE.rows, TILE.cols, MX.fp8, MX.rule, MX.cast)
    _, _, block = rows.window(t, end, PADDED, TILE, 32)
    first_row, _, col = window
    token = first_row + tl.arange(0, TILE.rows)
    of_slots = rows.advance(slots_ptr, token, AT.slots.inner_sizes, AT.slots.strides)
    for place in tl.static_range(SLOTS):
        slot = tl.load(of_slots + place * STRIDE, mask=token < end, other=-1)
        exists = (slot >= 0) & (slot < result_rows)
        owner = tl.load(owners_ptr + slot, mask=exists, other=-1)
        owned = (exists & (owner == token * SLOTS + place))[:, None]
        row = tl.where(exists, slot, 0).to(tl.int64)[:, None]
        tl.store(values_ptr + row * SIZE + col, values, mask=owned & (col < SIZE))
        _store_scales(scales_ptr, exponents, row, block, owned, result_rows, SIZE, MX.scale_tiles)


@triton.jit
def _other_rows(
    group,
    owners_ptr,
    result_rows,
    values_ptr,
    scales_ptr,
    SIZE: tl.constexpr,
    MX: tl.constexpr,
    SCATTER: tl.constexpr,
):
    """Writes those of some rows that no slot names alone."""
    PADDED: tl.constexpr = scales.padded_size(SIZE, MX.scale_tiles) // _BLOCK
    first_row = group * SCATTER.rows
    end_row = tl.minimum(first_row + SCATTER.rows, result_rows)
    every = first_row + tl.arange(0, SCATTER.rows)
    if tl.min(tl.load(owners_ptr + every, mask=every < end_row, other=0)) < 0:
        for number in range(first_row, end_row):
            owner = tl.load(owners_ptr + number)
            several = owner == _SEVERAL
            if several | (SCATTER.clears & (owner < 0)):
                row = tl.cast(number, tl.int64)
                value = tl.where(several, SCATTER.nan_code, 0).to(tl.uint8)
                for first in range(0, SIZE, SCATTER.elements):
                    col = first + tl.arange(0, SCATTER.elements)
                    codes = tl.broadcast_to(value, (SCATTER.elements,))
                    tl.store(values_ptr + row * SIZE + col, codes, mask=col < SIZE)
                exponent = tl.where(several, _SCALE_NAN, 0).to(tl.uint8)
                for first in range(0, PADDED, SCATTER.elements):
                    block = first + tl.arange(0, SCATTER.elements)
                    exponents = tl.broadcast_to(exponent, (SCATTER.elements,))
                    inside = block < PADDED
                    _store_scales(scales_ptr, exponents, row, block, inside, result_rows, SIZE, MX.scale_tiles)


@triton.jit
def _beside_tokens(
    part,
    owners_ptr,
    result_rows,
    padding,
    values_ptr,
    scales_ptr,
    SIZE: tl.constexpr,
    MX: tl.constexpr,
    SCATTER: tl.constexpr,
):
    """What is written beside the tokens: chunks of padding rows, of which there are so many, then other rows."""
    if MX.scale_tiles is None:
        _other_rows(part, owners_ptr, result_rows, values_ptr, scales_ptr, SIZE, MX, SCATTER)
    elif part < padding:
        scales.clear_chunk(scales_ptr, part, result_rows * 0, result_rows, result_rows, MX.scale_tiles)
    else:
        _other_rows(part - padding, owners_ptr, result_rows, values_ptr, scales_ptr, SIZE, MX, SCATTER)


@triton.jit
def _moe_scatter_quantize_kernel(
    x_ptr,  # [total_rows, K]
    slots_ptr,  # int32 [total_rows, k]
    num_rows_ptr,  # int32, how many tokens count, or None for all
    owners_ptr,  # int32 [result_rows], for each row the number of the one slot that names it
    result_rows,
    padding,
    total_rows,
    values_ptr,  # uint8 [result_rows, K]
    scales_ptr,  # uint8 [result_rows, K / 32], or in tiles
    AT: tl.constexpr,
    TILE: tl.constexpr,
    MX: tl.constexpr,
    SCATTER: tl.constexpr,
    COUNT: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    launches.begin(OVERLAPS)
    PADDED: tl.constexpr = scales.padded_size(AT.x.size, MX.scale_tiles)
    program = tl.program_id(0)
    inputs = x_ptr, slots_ptr, owners_ptr, result_rows
    if num_rows_ptr is None:
        tiles = row_count.num_tiles(total_rows, PADDED, TILE)
        if program < tiles:
            _scatter_tile(program, total_rows, *inputs, values_ptr, scales_ptr, AT, TILE, MX)
        else:
            part = program - tiles
            _beside_tokens(part, owners_ptr, result_rows, padding, values_ptr, scales_ptr, AT.x.size, MX, SCATTER)
    else:
        end = row_count.valid_rows(num_rows_ptr, total_rows, COUNT)
        for t in range(program, row_count.num_tiles(end, PADDED, TILE), COUNT.programs):
            _scatter_tile(t, end, *inputs, values_ptr, scales_ptr, AT, TILE, MX)
        for part in range(program, padding + tl.cdiv(result_rows, SCATTER.rows), COUNT.programs):
            _beside_tokens(part, owners_ptr, result_rows, padding, values_ptr, scales_ptr, AT.x.size, MX, SCATTER)
