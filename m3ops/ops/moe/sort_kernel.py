"""Triton kernels of the order of slots by expert: few slots are compared with each other, of many the experts' are
counted first. No atomics: which slot is first depends on nothing but its number.
"""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl

from m3ops.tiles import launches, rows
from m3ops.tiles.rows import Rows

MOST_COMPARED = 2048
"""Slots that can be compared with each other: a key is an expert and, below it, the number of a slot."""

_MOST_COMPARED = tl.constexpr(MOST_COMPARED)


@dataclass(frozen=True)
class SortAt:
    """Where the slots lie in each operand, a row of one element each, a constexpr."""

    ids: Rows
    slots: Rows | None = None


@dataclass(frozen=True)
class Sort:
    """How slots are sorted, a constexpr.

    Attributes:
        experts: How many experts there are.
        own: Slots, or experts, of which a program finds the places, or the sizes, at a time.
        others: Slots that it compares them with at a time.
        width: A power of two of at least as many columns as there are experts; where slots are counted.
        rows: Rows of so many columns that a program adds up at a time, slots or the counts of programs; likewise.
        each: How many slots in a row have the same number in the order.
    """

    experts: int
    own: int
    others: int
    width: int = 0
    rows: int = 0
    each: int = 1


@triton.jit
def _pointers(ptr, slot, AT: tl.constexpr):
    return rows.advance(ptr, slot, AT.inner_sizes, AT.strides)


@triton.jit
def _experts(ids_ptr, slot, end, AT: tl.constexpr, SORT: tl.constexpr):
    """The experts of slots; -1 for an id that is no expert's, and from the end on."""
    expert = tl.load(_pointers(ids_ptr, slot, AT.ids), mask=slot < end, other=-1)
    return tl.where(expert < SORT.experts, tl.maximum(expert, -1), -1)


@triton.jit
def _keys(ids_ptr, slot, num_slots, AT: tl.constexpr, SORT: tl.constexpr):
    """Numbers in the order of the slots; those of slots that do not exist are the largest."""
    expert = _experts(ids_ptr, slot, num_slots, AT, SORT)
    return tl.where(expert < 0, SORT.experts, expert) * _MOST_COMPARED + slot


@triton.jit
def _moe_sort_few_kernel(
    ids_ptr,  # int32, num_slots of them
    num_slots,
    order_ptr,  # int32 [num_slots]
    slots_ptr,  # int32, as ids
    group_sizes_ptr,  # int32 [experts]
    AT: tl.constexpr,
    SORT: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    """The first programs find the places of some slots each, the others the sizes of some experts each."""
    launches.begin(OVERLAPS)
    slot_programs = tl.cdiv(num_slots, SORT.own)
    other = tl.arange(0, SORT.others)[None, :]
    found = tl.zeros((SORT.own, SORT.others), tl.int32)
    if tl.program_id(0) < slot_programs:
        slot = tl.program_id(0) * SORT.own + tl.arange(0, SORT.own)
        key = _keys(ids_ptr, slot, num_slots, AT, SORT)[:, None]
        for first in range(0, num_slots, SORT.others):
            found += (_keys(ids_ptr, first + other, num_slots, AT, SORT) < key).to(tl.int32)
        place = tl.sum(found, axis=1)
        tl.store(order_ptr + place, slot // SORT.each, mask=slot < num_slots)
        tl.store(_pointers(slots_ptr, slot, AT.slots), place, mask=slot < num_slots)
    else:
        expert = (tl.program_id(0) - slot_programs) * SORT.own + tl.arange(0, SORT.own)
        for first in range(0, num_slots, SORT.others):
            found += (_experts(ids_ptr, first + other, num_slots, AT, SORT) == expert[:, None]).to(tl.int32)
        tl.store(group_sizes_ptr + expert, tl.sum(found, axis=1), mask=expert < SORT.experts)


@triton.jit
def _counts(ids_ptr, first, end, AT: tl.constexpr, SORT: tl.constexpr):
    """How many of the slots from a first one to an end each expert has, [width]."""
    column = tl.arange(0, SORT.width)[None, :]
    found = tl.zeros((SORT.rows, SORT.width), tl.int32)
    for at in range(first, end, SORT.rows):
        expert = _experts(ids_ptr, at + tl.arange(0, SORT.rows)[:, None], end, AT, SORT)
        found += (expert == column).to(tl.int32)
    return tl.sum(found, axis=0)


@triton.jit
def _moe_sort_counts_kernel(
    ids_ptr,  # int32, num_slots of them
    num_slots,
    slots_each,
    counts_ptr,  # int32 [programs, width]
    AT: tl.constexpr,
    SORT: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    """How many of the slots of each program each expert has; zeros for programs that have none."""
    launches.begin(OVERLAPS)
    first = tl.program_id(0) * slots_each
    counts = _counts(ids_ptr, first, tl.minimum(first + slots_each, num_slots), AT, SORT)
    row = counts_ptr + tl.program_id(0) * SORT.width
    tl.store(row + tl.arange(0, SORT.width), counts)


@triton.jit
def _alike(ids_ptr, slot, expert, first, end, AT: tl.constexpr, SORT: tl.constexpr):
    """For some slots, from a first one on, how many before them among these have the same expert."""
    found = tl.zeros((SORT.own,), tl.int32)
    least = expert * SORT.own
    before = (slot - first).to(tl.uint32)
    for part in range(0, SORT.own, SORT.others):
        other = part + tl.arange(0, SORT.others)
        key = _experts(ids_ptr, first + other, end, AT, SORT) * SORT.own + other
        further = (key[:, None] - least[None, :]).to(tl.uint32, bitcast=True)  # large for those of other experts
        found += tl.sum((further < before[None, :]).to(tl.int32), axis=0)
    return found


@triton.jit
def _moe_sort_places_kernel(
    ids_ptr,  # int32, num_slots of them
    counts_ptr,  # int32 [programs, width]
    num_slots,
    slots_each,
    programs,  # a multiple of SORT.rows
    order_ptr,  # int32 [num_slots]
    slots_ptr,  # int32, as ids
    group_sizes_ptr,  # int32 [experts]
    AT: tl.constexpr,
    SORT: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    """The places of the slots of each program, which follow those of the same expert in the programs before it."""
    launches.begin(OVERLAPS)
    program = tl.program_id(0)
    column = tl.arange(0, SORT.width)
    every = tl.zeros((SORT.rows, SORT.width), tl.int32)
    before = tl.zeros((SORT.rows, SORT.width), tl.int32)
    for first_row in range(0, programs, SORT.rows):
        row = first_row + tl.arange(0, SORT.rows)[:, None]
        counts = tl.load(counts_ptr + (row * SORT.width + column[None, :]))
        every += counts
        before += counts & (row - program) >> 31  # so that no masks take registers
    total = tl.sum(every, axis=0)
    earlier = tl.sum(before, axis=0)
    tl.store(group_sizes_ptr + column, total, mask=(column < SORT.experts) & (program == 0))
    first = program * slots_each
    end = tl.minimum(first + slots_each, num_slots)
    place_of_expert = tl.cumsum(total, 0) - total + earlier
    place_of_rest = tl.sum(total) + first - tl.sum(earlier)
    for at in range(first, end, SORT.own):
        slot = at + tl.arange(0, SORT.own)
        expert = _experts(ids_ptr, slot, end, AT, SORT)
        place = tl.where(expert < 0, place_of_rest, tl.gather(place_of_expert, tl.maximum(expert, 0), 0))
        place += _alike(ids_ptr, slot, expert, at, end, AT, SORT)
        tl.store(order_ptr + place, slot // SORT.each, mask=slot < end)
        tl.store(_pointers(slots_ptr, slot, AT.slots), place, mask=slot < end)
        if at + SORT.own < end:
            counts = _counts(ids_ptr, at, at + SORT.own, AT, SORT)
            place_of_expert += counts
            place_of_rest += SORT.own - tl.sum(counts)
