"""Runs a kernel over a grid: arguments, initial registers, and the schedule of waves."""

from __future__ import annotations

import dataclasses
import functools
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from . import (
    control,
    crosslane,
    lds,
    matrix,
    memory,
    packed,
    scalar,
    vector_compare,
    vector_convert,
    vector_float,
    vector_int,
)
from .errors import AmdgcnError
from .lds import Lds
from .memory import Memory
from .parser import Kernel
from .state import EXEC, NUM_SREGS, TTMP, Waves
from .table import BARRIER, END, Branch, Outcome, Step, decode

# Importing a handler module fills the instruction table.
_HANDLERS = (
    control, crosslane, lds, matrix, memory, packed, scalar, vector_compare, vector_convert, vector_float,
    vector_int,
)  # fmt: skip
u32 = np.uint32


@dataclasses.dataclass
class Batch:
    """What the waves of a batch of work-groups share."""

    memory: Memory
    lds: Lds
    ulp_jitter: np.random.Generator | None
    exact_sums: bool
    bf16_saturates: bool


def launch(
    kernel: Kernel,
    grid: tuple[int, ...],
    args: Sequence[Any],
    *,
    ulp_jitter: np.random.Generator | None = None,
    exact_sums: bool = True,
    bf16_saturates: bool = False,
    poison: int = 0x7FA5A5A5,
    max_waves: int = 512,
) -> None:
    """Runs `kernel` on `grid` work-groups; arrays among `args` are read and written in place.

    args: contiguous arrays for pointers, int/float for scalars, in signature order without constexprs. Arguments that
        Triton appends (scratch pointers) are null, the hidden ones come from the grid.
    ulp_jitter: moves every approximate instruction's result by -1, 0 or +1 ulp at random.
    exact_sums: a matrix instruction raises where its result could depend on how hardware rounds within it. Otherwise
        it rounds: on gfx942 by a model of the hardware, on gfx950, where none is known, at random (with ulp_jitter).
    bf16_saturates: the mode FP16_OVFL keeps finite bfloat16 finite too, where it keeps float16 so (sources disagree).
    poison: what registers hold before they are written.
    max_waves: how many waves run together; work-groups beyond run afterwards.
    """
    kernel.check_supported()
    code = decoded(kernel)
    grid = (*grid, 1, 1)[:3]
    arrays = [arg for arg in args if isinstance(arg, np.ndarray)]
    if not all(array.flags.c_contiguous for array in arrays):
        raise AmdgcnError(f"{kernel.name}: an array that is not contiguous")
    kernarg = np.zeros(kernel.kernarg_bytes, np.uint8)
    space = Memory([*arrays, kernarg], read_only={len(arrays)})
    _fill_arguments(kernel, grid, args, space, kernarg)
    space.upload(len(arrays))
    total = grid[0] * grid[1] * grid[2]
    step = max(1, max_waves // kernel.num_waves)
    with np.errstate(all="ignore"):
        for first in range(0, total, step):
            workgroups = np.arange(first, min(total, first + step))
            local = Lds(len(workgroups), kernel.lds_bytes)
            batch = Batch(space, local, ulp_jitter, exact_sums, bf16_saturates)
            waves = _initial_waves(kernel, batch, workgroups, grid, space.address(len(arrays)), poison)
            _run(kernel, code, waves)
    space.write_back()


@functools.lru_cache(maxsize=256)
def decoded(kernel: Kernel) -> list[Step]:
    """The steps of a kernel, decoded once; raises for any instruction that is not modelled, reached or not."""
    return [decode(instruction, kernel) for instruction in kernel.instructions]


# ---- arguments


def _fill_arguments(
    kernel: Kernel, grid: tuple[int, ...], args: Sequence[Any], space: Memory, kernarg: np.ndarray
) -> None:
    visible = [argument for argument in kernel.arguments if not argument.kind.startswith("hidden_")]
    if len(args) > len(visible):
        raise AmdgcnError(f"{kernel.name} takes {len(visible)} arguments, got {len(args)}")
    next_array = 0
    for i, argument in enumerate(visible):
        if i >= len(args):
            if argument.kind != "global_buffer":
                raise AmdgcnError(f"{kernel.name}: argument {i} is missing")
            continue
        value = args[i]
        if (argument.kind == "global_buffer") != isinstance(value, np.ndarray):
            raise AmdgcnError(f"{kernel.name}: argument {i} is a {argument.kind}, got {type(value).__name__}")
        if isinstance(value, np.ndarray):
            data = struct.pack("<Q", space.address(next_array))
            next_array += 1
        else:
            data = _pack_scalar(value, argument.size)
        kernarg[argument.offset : argument.offset + argument.size] = np.frombuffer(data, np.uint8)
    for argument in kernel.arguments:
        if argument.kind.startswith("hidden_"):
            data = _hidden(kernel, grid, argument.kind).to_bytes(argument.size, "little")
            kernarg[argument.offset : argument.offset + argument.size] = np.frombuffer(data, np.uint8)


def _pack_scalar(value: Any, size: int) -> bytes:
    if isinstance(value, (float, np.floating)):
        return struct.pack({2: "<e", 4: "<f", 8: "<d"}[size], value)
    return (int(value) & ((1 << (8 * size)) - 1)).to_bytes(size, "little")


# The HIP runtime's own memory, for printf, malloc and the like. They are null here: a kernel that uses one raises.
_RUNTIME_POINTERS = frozenset((
    "hidden_hostcall_buffer", "hidden_multigrid_sync_arg", "hidden_heap_v1", "hidden_default_queue",
    "hidden_completion_action", "hidden_queue_ptr", "hidden_printf_buffer",
))  # fmt: skip


def _hidden(kernel: Kernel, grid: tuple[int, ...], kind: str) -> int:
    """Implicit arguments of the HSA ABI, which `tl.num_programs` reads."""
    name, _, axis = kind.removeprefix("hidden_").rpartition("_")
    if name == "block_count":
        return grid["xyz".index(axis)]
    if name == "group_size":
        return kernel.num_threads if axis == "x" else 1
    if name in ("remainder", "global_offset"):
        return 0
    if kind == "hidden_grid_dims":
        return 3
    if kind == "hidden_dynamic_lds_size":
        return kernel.shared
    if kind in _RUNTIME_POINTERS:
        return 0
    raise AmdgcnError(f"{kernel.name}: unknown hidden argument {kind}")


# ---- initial registers


def _initial_waves(
    kernel: Kernel, batch: Batch, workgroups: np.ndarray, grid: tuple[int, ...], kernarg: int, poison: int
) -> Waves:
    per_group, lanes = kernel.num_waves, kernel.wave_size
    count = len(workgroups) * per_group
    group = np.repeat(np.arange(len(workgroups)), per_group)
    wave_in_group = np.tile(np.arange(per_group), len(workgroups))
    v = np.full((kernel.num_vgprs, count, lanes), poison, u32)
    s = np.full((NUM_SREGS, count), poison, u32)
    s[EXEC : EXEC + 2] = np.array([[0xFFFFFFFF], [0xFFFFFFFF if lanes == 64 else 0]], u32)
    # v0 packs the thread's number in its work-group; only x is not zero
    v[0] = (wave_in_group[:, None] * lanes + np.arange(lanes)).astype(u32)
    first = _kernarg_register(kernel)
    s[first], s[first + 1] = kernarg & 0xFFFFFFFF, kernarg >> 32
    number = workgroups[group]
    x, y, z = number % grid[0], number // grid[0] % grid[1], number // (grid[0] * grid[1])
    if kernel.is_gfx12:
        # gfx12 hands them over in trap temporaries: x, y and z packed, and the wave's number in bits 25..29
        s[TTMP + 9], s[TTMP + 7], s[TTMP + 8] = x, y | (z << 16), wave_in_group << 25
    else:
        position = int(kernel.hsa["user_sgpr_count"])
        for axis, value in zip("xyz", (x, y, z), strict=True):
            if kernel.hsa[f"system_sgpr_workgroup_id_{axis}"] == "1":
                s[position] = value
                position += 1
    return Waves(batch, v, s, np.zeros(count, bool), np.zeros(count, bool), group, 0)


def _kernarg_register(kernel: Kernel) -> int:
    """User registers come in the order of the code object's flags.

    Kernels that ask for preloaded arguments begin with a prologue that loads them into the same registers for
    firmware that cannot preload; execution here starts at that prologue.
    """
    if kernel.hsa.get("user_sgpr_kernarg_segment_ptr") != "1":
        raise AmdgcnError(f"{kernel.name}: no pointer to the arguments")
    sizes = {"private_segment_buffer": 4, "dispatch_ptr": 2, "queue_ptr": 2}
    return sum(size for flag, size in sizes.items() if kernel.hsa.get(f"user_sgpr_{flag}") == "1")


# ---- schedule


def _run(kernel: Kernel, code: list[Step], waves: Waves) -> None:
    """Runs until every wave has ended. The group at the lowest pc goes first, so that diverged waves meet again."""
    ready: list[Waves] = [waves]
    parked: list[Waves] = []
    while ready or parked:
        if not ready:  # every live wave has reached a barrier
            ready, parked = parked, []
        lowest = min(group.pc for group in ready)
        here = [group for group in ready if group.pc == lowest]
        ready = [group for group in ready if group.pc != lowest]
        current = Waves.merge(here) if len(here) > 1 else here[0]
        outcome, groups = _advance(kernel, code, current, min((group.pc for group in ready), default=len(code)))
        (parked if outcome == BARRIER else ready).extend(groups)


def _advance(kernel: Kernel, code: list[Step], waves: Waves, limit: int) -> tuple[str | None, list[Waves]]:
    """Runs one group until it ends, waits, splits, or reaches the pc where others stand; and what is left of it."""
    while True:
        if waves.pc >= len(code):
            raise AmdgcnError(f"{kernel.name}: ran past the last instruction")
        outcome = _step(kernel, code, waves)
        if outcome == END:
            return END, []
        if outcome == BARRIER:
            return BARRIER, [waves]
        if isinstance(outcome, Branch):
            if outcome.taken.all():
                waves.pc = outcome.target
            elif outcome.taken.any():
                return None, [waves.take(outcome.taken, outcome.target), waves.take(~outcome.taken, waves.pc)]
        if waves.pc >= limit:
            return None, [waves]


def _step(kernel: Kernel, code: list[Step], waves: Waves) -> Outcome:
    instruction = kernel.instructions[waves.pc]
    try:
        outcome = code[waves.pc](waves)
    except AmdgcnError as error:
        raise instruction.fail(str(error)) from error
    waves.pc += 1
    return outcome
