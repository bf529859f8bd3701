"""Triton kernel that finds the slot that names each row, for what is read or written once for each row."""

from __future__ import annotations

import triton
import triton.language as tl

from m3ops.tiles import launches, rows

NONE, SEVERAL = -1, -2
"""Where the number of a slot is due that names a row: none names it, or several do."""

_NONE, _SEVERAL = tl.constexpr(NONE), tl.constexpr(SEVERAL)


@triton.jit
def numbered_slots(slots_ptr, first, total_rows, TOGETHER: tl.constexpr, AT: tl.constexpr):
    """The numbers of TOGETHER slots of all tokens, from a first one on, and the rows that they name."""
    SIZE: tl.constexpr = AT.size
    STRIDE: tl.constexpr = AT.strides[len(AT.strides) - 1]
    number = first + tl.arange(0, TOGETHER)
    token = rows.advance(slots_ptr, number // SIZE, AT.inner_sizes, AT.strides)
    return number, tl.load(token + number % SIZE * STRIDE, mask=number < total_rows * SIZE, other=-1)


@triton.jit
def _moe_owners_kernel(
    slots_ptr,  # int32 [total_rows, k]
    num_rows_ptr,  # int32, how many rows of slots count, or None for all
    named_by_ptr,  # int32 [y_rows], or None
    y_rows,
    rows_each,
    total_rows,
    owners_ptr,  # int32 [y_rows]
    AT: tl.constexpr,
    TOGETHER: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    """For each row the number of a slot that names it, or _NONE. Each program goes through all slots for some rows.

    Of several slots it may be any. With these numbers given, those rows get _SEVERAL.
    """
    launches.begin(OVERLAPS)
    first_row = tl.program_id(0).to(tl.int64) * rows_each
    end_row = tl.minimum(first_row + rows_each, y_rows)
    for first in range(first_row, end_row, TOGETHER):
        row = first + tl.arange(0, TOGETHER)
        owner = tl.full((TOGETHER,), _NONE, tl.int32)
        if named_by_ptr is not None:
            owner = tl.load(named_by_ptr + row, mask=row < end_row)
        tl.store(owners_ptr + row, owner, mask=row < end_row)
    tl.debug_barrier()  # what follows is written after that, whatever thread wrote it
    valid = total_rows
    if num_rows_ptr is not None:
        valid = tl.maximum(tl.minimum(tl.load(num_rows_ptr), total_rows), 0)
    for first in range(0, valid * AT.size, TOGETHER):
        number, row = numbered_slots(slots_ptr, first, valid, TOGETHER, AT)
        own = (row >= first_row) & (row < end_row)
        if named_by_ptr is None:
            tl.store(owners_ptr + row, number, mask=own)
        else:
            another = tl.load(named_by_ptr + row, mask=own, other=0) != number
            tl.store(owners_ptr + row, tl.full((TOGETHER,), _SEVERAL, tl.int32), mask=own & another)
