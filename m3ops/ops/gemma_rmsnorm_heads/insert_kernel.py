"""The heads of a tile written to a paged cache."""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl

from m3ops.numerics.tile import fp32, functions
from m3ops.tiles import rows
from m3ops.tiles.rows import Rows


@dataclass(frozen=True)
class HeldAs:
    """How heads are held apart from the row, a constexpr.

    Attributes:
        fp8: A name of :data:`m3ops.numerics.formats.FP8_FORMATS` for E4M3, else None.
        cast: How the target converts to that, see ``fp32.encode_e4m3``.
        narrowing: How fp32 is rounded to another dtype.
    """

    fp8: str | None
    cast: str
    narrowing: fp32.Narrowing


@dataclass(frozen=True)
class CacheAt:
    """Where a cache lies and what it holds, a constexpr.

    Attributes:
        slots: Where the slots of the rows lie.
        num_slots: Slots of all blocks.
        block_size: Slots of a block.
        strides: Of blocks, slots, heads and elements, in elements.
        held: How it holds heads.
    """

    slots: Rows
    num_slots: int
    block_size: int
    strides: tuple[int, ...]
    held: HeldAs


@triton.constexpr_function
def part_size(HEADS, PART):
    """Elements of a part of a head."""
    return min(HEADS.part, HEADS.dim - PART * HEADS.part)


@triton.jit
def insert(
    cache_ptr,
    slots_ptr,
    scale_ptr,
    xs,
    wide,
    head,
    where,
    AT: tl.constexpr,
    TILE: tl.constexpr,
    HEADS: tl.constexpr,
):
    """Writes the heads of a tile, whose parts are xs in the dtype of the row and ``wide`` in fp32, to their slots.

    ``where`` has the first row, where the rows end, and of which head of the tile each column is. Rows whose slot the
    cache does not have are left out.
    """
    PARTS: tl.constexpr = TILE.parts
    first_row, end, of_tile = where
    slot = rows.load(slots_ptr, (first_row, end, tl.arange(0, 1)[None, :]), TILE, AT.slots)
    inside = (slot >= 0) & (slot < AT.num_slots) & (first_row + tl.arange(0, TILE.rows)[:, None] < end)
    slot = tl.where(inside, slot, 0)
    if AT.num_slots < 2**31:
        slot = slot.to(tl.int32)
    block = (slot // AT.block_size).to(tl.int64)
    offset = (slot % AT.block_size).to(tl.int64)
    row_ptr = cache_ptr + head.to(tl.int64) * AT.strides[2] + (block * AT.strides[0] + offset * AT.strides[1])
    column = tl.arange(0, TILE.cols)[None, :] % HEADS.cols
    if HEADS.together * AT.strides[2] >= 2**31:  # 32-bit offsets within a tile would not do
        of_tile = of_tile.to(tl.int64)
    place = of_tile * AT.strides[2] + column * AT.strides[3]
    for i in tl.static_range(PARTS):
        x = stored(cache_ptr, scale_ptr, xs[i], wide[i], AT.held, TILE, HEADS)
        mask = inside & (column < part_size(HEADS, i))
        tl.store(row_ptr + (place + i * HEADS.part * AT.strides[3]), x, mask=mask)


@triton.jit
def stored(ptr, scale_ptr, x, wide, HELD: tl.constexpr, TILE: tl.constexpr, HEADS: tl.constexpr):
    """One part of the heads, x in the dtype of the row and ``wide`` in fp32, as memory apart from the row holds it."""
    if HELD.fp8 is not None:
        if scale_ptr is not None:
            wide = functions.e4m3_quotient(wide, tl.load(scale_ptr))
        heads = tl.reshape(wide, (TILE.rows, HEADS.together, HEADS.cols))
        codes = functions.quantize(heads, HELD.fp8, HELD.cast)
        return tl.reshape(codes, (TILE.rows, TILE.cols))
    elif ptr.dtype.element_ty == x.dtype:
        return x
    else:
        return fp32.narrow(wide, ptr.dtype.element_ty, HELD.narrowing)
