"""Instructions that move values between lanes. (DPP, which any vector instruction may use, is in dpp.py.)"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from .errors import AmdgcnError
from .operands import Read, find_register, modifier_number, modifier_value, read_source, scalar_index, vector_index
from .parser import Instruction, Kernel, Operand
from .state import Waves
from .table import Step, register

A = np.ndarray
u32 = np.uint32


@register("v_readfirstlane_b32")
def _readfirstlane(ins: Instruction, kernel: Kernel) -> Step:
    """The value of the first active lane; of lane 0 where none is active."""
    out, source = scalar_index(ins.operands[0], 1, ins, kernel), read_source(ins.operands[1], "b32", ins, kernel)

    def run(waves: Waves) -> None:
        first = np.argmax(waves.exec, axis=1)[:, None]
        values = np.broadcast_to(source(waves), waves.shape)
        waves.write_scalar(out, (np.take_along_axis(values, first, 1)[:, 0],))

    return run


def _lane_number(operand: Operand, ins: Instruction, kernel: Kernel) -> Read:
    """A lane number from a constant or a scalar register, modulo the wave size, as [wave, 1]."""
    reg = find_register(operand.core, ins, kernel)
    if reg and reg.file != "s":
        raise ins.fail("lane number in a vector register")
    read = read_source(operand, "u32", ins, kernel)
    return lambda waves: (np.broadcast_to(read(waves), (waves.shape[0], 1)) & u32(waves.lanes - 1)).astype(np.int64)


@register("v_readlane_b32")
def _readlane(ins: Instruction, kernel: Kernel) -> Step:
    """Any lane, active or not."""
    out, source = scalar_index(ins.operands[0], 1, ins, kernel), vector_index(ins.operands[1], 1, ins, kernel)
    lane = _lane_number(ins.operands[2], ins, kernel)
    return lambda waves: waves.write_scalar(out, (np.take_along_axis(waves.v[source], lane(waves), 1)[:, 0],))


@register("v_writelane_b32")
def _writelane(ins: Instruction, kernel: Kernel) -> Step:
    """One lane of a vector register, active or not."""
    out = vector_index(ins.operands[0], 1, ins, kernel)
    value = read_source(ins.operands[1], "b32", ins, kernel)
    lane = _lane_number(ins.operands[2], ins, kernel)

    def run(waves: Waves) -> None:
        column = np.broadcast_to(value(waves), (waves.shape[0], 1))
        np.put_along_axis(waves.v[out], lane(waves), column, 1)

    return run


# ---- permutations within rows of 16


@register("v_permlane16_b32", "v_permlanex16_b32", modifiers=("op_sel",))
def _permlane16(ins: Instruction, kernel: Kernel) -> Step:
    """Lane i of a row reads lane nibble[i] of its own row, or with x of the other row of the pair.

    The nibbles are two scalar operands. op_sel[0] is FI (inactive lanes may be read) and op_sel[1] is bound_ctrl.
    """
    out, source = (vector_index(op, 1, ins, kernel) for op in ins.operands[:2])
    low, high = (_nibbles(op, ins, kernel) for op in ins.operands[2:4])
    if modifier_value(ins, "op_sel") != (1, 0):
        raise ins.fail("only op_sel:[1,0], fetching inactive lanes, is modelled")
    lane = np.arange(kernel.wave_size)
    row = (lane & ~15) ^ (16 if ins.name.startswith("v_permlanex") else 0)
    shift = (4 * (lane & 7)).astype(u32)

    def run(waves: Waves) -> None:
        nibble = np.where((lane & 8) == 0, low(waves), high(waves)) >> shift & u32(15)
        index = np.broadcast_to(row + nibble.astype(np.int64), waves.shape)
        waves.write_vector(out, np.take_along_axis(waves.v[source], index, 1))

    return run


def _nibbles(operand: Operand, ins: Instruction, kernel: Kernel) -> Read:
    reg = find_register(operand.core, ins, kernel)
    if reg and reg.file != "s":
        raise ins.fail("permutation in a vector register")
    return read_source(operand, "b32", ins, kernel)


def _swap(name: str, distance: int) -> None:
    """v_permlane{n}_swap: odd rows of n lanes of the first register change places with even rows of the second."""

    @register(name, encodings=("e32", "e64"))
    def build(ins: Instruction, kernel: Kernel) -> Step:
        a, b = (vector_index(op, 1, ins, kernel) for op in ins.operands)
        even = np.flatnonzero((np.arange(kernel.wave_size) & distance) == 0)
        odd = even + distance

        def run(waves: Waves) -> None:
            if not waves.full:
                raise AmdgcnError("swapping rows with inactive lanes is not modelled")
            rows = waves.v[a][:, odd].copy()
            waves.v[a][:, odd] = waves.v[b][:, even]
            waves.v[b][:, even] = rows

        return run


_swap("v_permlane16_swap_b32", 16)
_swap("v_permlane32_swap_b32", 32)


# ---- permutations through the LDS hardware: no memory is touched, and an inactive lane gives 0


def _gather(waves: Waves, values: A, index: A) -> A:
    return np.take_along_axis(np.where(waves.exec, values, u32(0)), index, 1)


@register("ds_bpermute_b32", modifiers=("offset",))
def _bpermute(ins: Instruction, kernel: Kernel) -> Step:
    """Each lane reads the lane whose number is a quarter of its byte address, modulo the wave size."""
    out, address, source = (vector_index(op, 1, ins, kernel) for op in ins.operands)
    offset = modifier_number(ins, "offset")

    def run(waves: Waves) -> None:
        index = ((waves.v[address] + u32(offset)) >> u32(2)) & u32(waves.lanes - 1)
        waves.write_vector(out, _gather(waves, waves.v[source], index.astype(np.int64)))

    return run


@register("ds_swizzle_b32", modifiers=("offset",))
def _swizzle(ins: Instruction, kernel: Kernel) -> Step:
    """A fixed pattern within groups of 32 lanes, or of 4 for QUAD_PERM."""
    out, source = (vector_index(op, 1, ins, kernel) for op in ins.operands)
    match = re.fullmatch(r"swizzle\((\w+),(.*)\)", ins.modifiers.get("offset", "").replace('"', ""))
    if not match or match[1] not in _PATTERNS:
        raise ins.fail("unknown swizzle pattern")
    lane = np.arange(kernel.wave_size)
    index = np.broadcast_to(_PATTERNS[match[1]](lane, match[2].split(",")), lane.shape)
    return lambda waves: waves.write_vector(out, _gather(waves, waves.v[source], np.broadcast_to(index, waves.shape)))


def _bitmask(lane: A, words: list[str]) -> A:
    """Five letters, the highest lane bit first: 0, 1, p (preserved) or i (inverted)."""
    source = lane.copy()
    for bit, letter in zip(range(4, -1, -1), words[0], strict=True):
        kept = lane & (1 << bit)
        source ^= kept ^ {"0": 0, "1": 1 << bit, "p": kept, "i": kept ^ (1 << bit)}[letter]
    return source


_PATTERNS: dict[str, Callable[[A, list[str]], A]] = {
    "BITMASK_PERM": _bitmask,
    "QUAD_PERM": lambda lane, words: (lane & ~3) + np.array([int(word) for word in words])[lane & 3],
    "SWAP": lambda lane, words: lane ^ int(words[0]),
    "REVERSE": lambda lane, words: lane ^ (int(words[0]) - 1),
    "BROADCAST": lambda lane, words: (lane & -int(words[0])) + int(words[1]),
}
