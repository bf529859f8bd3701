"""Rows that are counted on the device: a limited number of programs goes through the tiles of those that count."""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl

_CLEARED_BYTES = tl.constexpr(8192)  # by one program at a time


@dataclass(frozen=True)
class RowCount:
    """How a kernel counts rows, a constexpr.

    Attributes:
        programs: Programs of the launch, which share the tiles.
        keeps: Results whose rows that do not count keep what the memory held; those of the others become zeros.
        rows_each: Rows of the kernel that make one row of the op's operands.
    """

    programs: int
    keeps: tuple[str, ...]
    rows_each: int = 1


@triton.jit
def valid_rows(num_rows_ptr, total_rows, COUNT: tl.constexpr):
    """The rows that count, of those that exist."""
    num_rows = tl.minimum(tl.load(num_rows_ptr), total_rows // COUNT.rows_each)
    return tl.maximum(num_rows, 0) * COUNT.rows_each


@triton.jit
def num_tiles(valid, SIZE: tl.constexpr, TILE: tl.constexpr):
    """The tiles of these rows, each of SIZE elements."""
    return tl.cast(tl.cdiv(valid, TILE.rows) * ((SIZE + TILE.width - 1) // TILE.width), tl.int32)


@triton.constexpr_function
def clears(COUNT, NAME):
    """Whether the rows of a result that do not count become zeros."""
    return NAME not in COUNT.keeps


@triton.jit
def clear(ptr, valid, total_rows, SIZE: tl.constexpr, COUNT: tl.constexpr, NAME: tl.constexpr):
    """Zeros in the rows of a contiguous result that do not count, shared among all programs."""
    if clears(COUNT, NAME):
        CHUNK: tl.constexpr = _CLEARED_BYTES * 8 // ptr.dtype.element_ty.primitive_bitwidth
        start = tl.cast(valid, tl.int64) * SIZE
        end = tl.cast(total_rows, tl.int64) * SIZE
        chunks = tl.cast(tl.cdiv(end - start, CHUNK), tl.int32)
        for chunk in range(tl.program_id(0), chunks, COUNT.programs):
            offset = start + tl.cast(chunk, tl.int64) * CHUNK + tl.arange(0, CHUNK)
            tl.store(ptr + offset, tl.zeros([CHUNK], ptr.dtype.element_ty), mask=offset < end)
