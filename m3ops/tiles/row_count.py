"""Rows that are counted on the device: a limited number of programs goes through the tiles of those that count.

There may be several buffers of as many rows each, one after another, with a count for each, as the experts of a layer
have them. The tiles of all their rows are numbered alike whatever the counts are; those that count are shared among the
programs in that order, so that one full buffer keeps as many programs busy as all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl

from m3ops.tiles.vectors import only

_CLEARED_BYTES = tl.constexpr(8192)  # by one program at a time


@dataclass(frozen=True)
class RowCount:
    """How a kernel counts rows, a constexpr.

    Attributes:
        programs: Programs of the launch, which share the tiles.
        keeps: Results whose rows that do not count keep what the memory held; those of the others become zeros.
        rows_each: Rows of the kernel that make one row of the op's operands.
        buffers: How many buffers of rows there are. Of several each has whole tiles.
    """

    programs: int
    keeps: tuple[str, ...]
    rows_each: int = 1
    buffers: int = 1

    @property
    def sharers(self) -> int:
        """How many programs clear a buffer together."""
        return max(self.programs // self.buffers, 1)


@triton.jit
def valid_rows(num_rows_ptr, total_rows, COUNT: tl.constexpr):
    """The rows that count, of those that exist, in one buffer."""
    return _valid(tl.load(num_rows_ptr), total_rows, COUNT)


@triton.jit
def _valid(num_rows, total_rows, COUNT: tl.constexpr):
    num_rows = tl.minimum(num_rows, total_rows // COUNT.rows_each)
    return tl.maximum(num_rows, 0) * COUNT.rows_each


@triton.jit
def ends(num_rows_ptr, total_rows, COUNT: tl.constexpr):
    """Where the rows that count end; with several buffers a vector, the end in each of them."""
    if COUNT.buffers == 1:
        return valid_rows(num_rows_ptr, total_rows, COUNT)
    else:
        buffer = tl.arange(0, triton.next_power_of_2(COUNT.buffers))
        num_rows = tl.load(num_rows_ptr + buffer, mask=buffer < COUNT.buffers, other=0)
        size = total_rows // COUNT.buffers
        return buffer * size + _valid(num_rows, size, COUNT)


@triton.jit
def num_tiles(valid, SIZE: tl.constexpr, TILE: tl.constexpr):
    """The tiles of these rows, each of SIZE elements."""
    return tl.cast(tl.cdiv(valid, TILE.rows) * ((SIZE + TILE.width - 1) // TILE.width), tl.int32)


@triton.jit
def tiles(ends, total_rows, SIZE: tl.constexpr, TILE: tl.constexpr, COUNT: tl.constexpr):
    """How many tiles count. For several buffers also three vectors: which of these is the first of each, which comes
    after its last, and what a number of these lacks to be that among the tiles of all rows.
    """
    if COUNT.buffers == 1:
        number = num_tiles(ends, SIZE, TILE)
        return number, number, number, number
    else:
        size, buffer = total_rows // COUNT.buffers, tl.arange(0, ends.shape[0])
        number = num_tiles(ends - buffer * size, SIZE, TILE)
        stops = tl.cumsum(number)
        starts = stops - number
        return tl.sum(number), starts, stops, buffer * num_tiles(size, SIZE, TILE) - starts


@triton.jit
def tile(i, tiles, ends, COUNT: tl.constexpr):
    """Which of the tiles of all rows is number ``i`` of those that count, and where the rows that count end there."""
    if COUNT.buffers == 1:
        return i, ends
    else:
        _, starts, stops, further = tiles
        here = (starts <= i) & (i < stops)
        return i + only(further, here), only(ends, here)


@triton.constexpr_function
def clears(COUNT, NAME):
    """Whether the rows of a result that do not count become zeros."""
    return NAME not in COUNT.keeps


@triton.jit
def clear(ptr, ends, total_rows, SIZE: tl.constexpr, COUNT: tl.constexpr, NAME: tl.constexpr):
    """Zeros in the rows of a contiguous result that do not count, shared among all programs."""
    if clears(COUNT, NAME):
        CHUNK: tl.constexpr = _CLEARED_BYTES * 8 // ptr.dtype.element_ty.primitive_bitwidth
        first_buffer, sharer = share(COUNT)
        for buffer in range(first_buffer, COUNT.buffers, COUNT.programs // COUNT.sharers):
            _, valid, last = bounds(buffer, ends, total_rows, COUNT)
            start = tl.cast(valid, tl.int64) * SIZE
            end = tl.cast(last, tl.int64) * SIZE
            chunks = tl.cast(tl.cdiv(end - start, CHUNK), tl.int32)
            for chunk in range(sharer, chunks, COUNT.sharers):
                offset = start + tl.cast(chunk, tl.int64) * CHUNK + tl.arange(0, CHUNK)
                tl.store(ptr + offset, tl.zeros([CHUNK], ptr.dtype.element_ty), mask=offset < end)


@triton.jit
def share(COUNT: tl.constexpr):
    """The first buffer that this program clears, and which of its sharers it is."""
    program = tl.program_id(0)
    if COUNT.buffers == 1:
        return program * 0, program
    else:
        return program // COUNT.sharers, program % COUNT.sharers


@triton.jit
def bounds(buffer, ends, total_rows, COUNT: tl.constexpr):
    """The first row of a buffer, the end of its rows that count, and that of all its rows."""
    if COUNT.buffers == 1:
        return total_rows * 0, ends, total_rows
    else:
        size = total_rows // COUNT.buffers
        first_row = buffer * size
        return first_row, only(ends, tl.arange(0, ends.shape[0]) == buffer), first_row + size
