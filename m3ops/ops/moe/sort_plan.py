"""What the order of slots by expert launches."""

from __future__ import annotations

from m3ops.array import ArraySpec
from m3ops.op import Specs
from m3ops.ops.moe.sort_kernel import (
    MOST_COMPARED,
    Sort,
    SortAt,
    _moe_sort_counts_kernel,
    _moe_sort_few_kernel,
    _moe_sort_places_kernel,
)
from m3ops.ops.moe.spec import MoESort
from m3ops.plan import Launch, Plan, pointers
from m3ops.planning.launch import bytes_moved
from m3ops.planning.rows import rows_of
from m3ops.planning.tiling import power_of_two_at_least
from m3ops.target import Target
from m3ops.tiles.rows import Rows

RESULTS = ("order", "slots", "group_sizes")

OWN = 16
"""Slots, or experts, of a program that compares. Other values of this and the next numbers were not measured. 4, 64,
256 and 1024 slots of 128 experts take 1.3, 1.7, 2.0 and 3.2 us in an H200's graph, 4096 and 32768 slots 12.8 and 15.7.
"""

MOST_OTHERS = 256
"""Slots that it compares them with at a time."""

COMPARISONS_OF_A_THREAD = 32
"""Of these at a time: it keeps their results in registers."""

CHUNK = 256
"""Slots of a program that counts, or a multiple: for each it has a thread."""

COUNTS_OF_A_THREAD = 16
"""Elements of a tile that each of these threads has. With 32 AMD's code has more masks than scalar registers."""

MOST_ROWS = 64
"""Rows of such a tile: the programs that count are a multiple."""

MOST_COUNTS = 2**17
"""Numbers of slots of experts that each program reads, of all programs."""


def sort_plan(op: MoESort, specs: Specs, target: Target) -> Plan:
    """One launch for as many slots as are compared with each other sooner than two launches are over."""
    num_slots = specs["ids"].size
    if num_slots > 2**30:
        raise ValueError(f"{num_slots} slots are more than a kernel numbers (2**30)")
    return (_compared if num_slots <= MOST_COMPARED else _counted)(op, specs, target)


def _compared(op: MoESort, specs: Specs, target: Target) -> Plan:
    num_slots = specs["ids"].size
    others = min(power_of_two_at_least(max(num_slots, 16)), MOST_OTHERS)
    launch = Launch(
        kernel=_moe_sort_few_kernel,
        grid=(-(-num_slots // OWN) + -(-op.num_experts // OWN),),
        arguments={**pointers(_moe_sort_few_kernel, specs), "num_slots": num_slots},
        constants={"AT": _at(specs), "SORT": Sort(op.num_experts, OWN, others, each=op.each(specs["ids"]))},
        writes=RESULTS,
        num_warps=max(OWN * others // (COMPARISONS_OF_A_THREAD * target.warp_size), 1),
        overlaps=True,
    )
    return Plan((launch,), bytes_moved(specs), num_slots * (num_slots + op.num_experts))


def _counted(op: MoESort, specs: Specs, target: Target) -> Plan:
    """How many slots of each program each expert has, and then the places of the slots."""
    num_slots, width = specs["ids"].size, power_of_two_at_least(op.num_experts)
    most_programs = max(min(target.multiprocessors, MOST_COUNTS // width), 1)
    slots_each = -(-num_slots // (most_programs * CHUNK)) * CHUNK
    rows = max(min(COUNTS_OF_A_THREAD * CHUNK // width, MOST_ROWS), 1)
    programs = -(-num_slots // slots_each)
    counting = -(-programs // rows) * rows
    counts = ArraySpec((counting, width), "int32")
    arrays = {**specs, "counts": counts}
    sort = Sort(op.num_experts, CHUNK, COUNTS_OF_A_THREAD, width, rows, op.each(specs["ids"]))
    numbers = {"num_slots": num_slots, "slots_each": slots_each}
    launches = [
        Launch(
            kernel=kernel,
            grid=grid,
            arguments={**pointers(kernel, arrays), **numbers},
            constants={"AT": _at(specs), "SORT": sort},
            writes=writes,
            num_warps=CHUNK // target.warp_size,
        )
        for kernel, grid, numbers, writes in (
            (_moe_sort_counts_kernel, (counting,), numbers, ("counts",)),
            (_moe_sort_places_kernel, (programs,), {**numbers, "programs": counting}, RESULTS),
        )
    ]
    return Plan(tuple(launches), bytes_moved(specs), num_slots * (CHUNK + op.num_experts), {"counts": counts})


def _at(specs: Specs) -> SortAt:
    return SortAt(_slots_of(specs["ids"]), _slots_of(specs["slots"]))


def _slots_of(spec: ArraySpec) -> Rows:
    """Where its elements lie: each is a row of one, so that all axes are collapsed."""
    _, at = rows_of({"": ArraySpec((*spec.shape, 1), spec.dtype, (*spec.strides, 1))})
    return at[""]
