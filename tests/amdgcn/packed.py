"""Packed instructions (VOP3P): the same operation on the low and the high element, and the mixed-precision fma.

op_sel picks, for each source of the low result, its low (0) or high (1) element; op_sel_hi does so for the high result
and is all ones by default. neg_lo and neg_hi negate the source of the low and of the high result.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from . import fp
from .operands import (
    TYPES,
    Read,
    VectorStep,
    find_register,
    modifier_value,
    read_source,
    vector_index,
    with_half,
    write_destination,
)
from .parser import Instruction, Kernel, Operand
from .state import Waves
from .table import register

A = np.ndarray
u16, u32, f32 = np.uint16, np.uint32, np.float32
_MODIFIERS = ("op_sel", "op_sel_hi", "neg_lo", "neg_hi")


def _bits(ins: Instruction, name: str, count: int, default: int) -> tuple[int, ...]:
    value = modifier_value(ins, name) if name in ins.modifiers else (default,) * count
    if not isinstance(value, tuple) or len(value) != count:
        raise ins.fail(f"{name} wants {count} bits")
    return value


def _read_dword(operand: Operand, which: int, kind: str, negate: bool, ins: Instruction, kernel: Kernel) -> Read:
    """One element of a pair of 32-bit elements. A constant has only a low element."""
    if not operand.plain:
        raise ins.fail("source modifiers do not exist on packed operands")
    reg = find_register(operand.core, ins, kernel)
    if reg is None:
        if which:
            raise ins.fail("high element of a constant")
        core = operand.core
    elif reg.count != 2:
        raise ins.fail(f"operand {operand.core} is not a pair of registers")
    else:
        first = reg.index + which
        core = f"v{first}" if reg.file == "v" else _scalar_name(first, ins)
    return read_source(Operand(core, neg=negate), kind, ins, kernel)


def _scalar_name(index: int, ins: Instruction) -> str:
    if index >= 106:
        raise ins.fail("special scalar register as a packed operand")
    return f"s{index}"


_Halves = tuple[tuple[int, ...], tuple[int, ...]]


def _modified(ins: Instruction, count: int) -> tuple[_Halves, _Halves]:
    """For the low and the high result: which half of each source it reads, and whether negated."""
    if len(ins.operands) != count + 1:
        raise ins.fail(f"{count + 1} operands wanted")
    selects = _bits(ins, "op_sel", count, 0), _bits(ins, "op_sel_hi", count, 1)
    return selects, (_bits(ins, "neg_lo", count, 0), _bits(ins, "neg_hi", count, 0))


def _packed_dwords(name: str, kind: str, count: int, function: Callable[..., A]) -> None:
    @register(name, modifiers=_MODIFIERS)
    def build(ins: Instruction, kernel: Kernel) -> VectorStep:
        selects, signs = _modified(ins, count)
        reads = [
            _read_dword(ins.operands[1 + i], selects[half][i], kind, bool(signs[half][i]), ins, kernel)
            for half in range(2)
            for i in range(count)
        ]
        out = vector_index(ins.operands[0], 2, ins, kernel)
        return VectorStep(reads, lambda *s: (function(*s[:count]), function(*s[count:])), _write_two(out), None)


def _write_two(out: int) -> list[Callable[[Waves, A, A | None], None]]:
    def write(half: int) -> Callable[[Waves, A, A | None], None]:
        return lambda waves, value, lanes: waves.write_vector(out + half, value.view(u32), lanes)

    return [write(0), write(1)]


def _quieting(function: Callable[..., A]) -> Callable[..., A]:
    return lambda *s: fp.quiet_nans(function(*s), *s)


_packed_dwords("v_pk_add_f32", "f32", 2, _quieting(lambda a, b: a + b))
_packed_dwords("v_pk_mul_f32", "f32", 2, _quieting(lambda a, b: a * b))
_packed_dwords("v_pk_fma_f32", "f32", 3, _quieting(fp.fma32))


@register("v_pk_mov_b32", modifiers=("op_sel",))
def _pk_mov(ins: Instruction, kernel: Kernel) -> VectorStep:
    """Low result: element op_sel[0] of the first source. High result: element op_sel[1] of the second."""
    select = _bits(ins, "op_sel", 2, 0)
    reads = [_read_dword(ins.operands[1 + i], select[i], "b32", False, ins, kernel) for i in range(2)]
    out = vector_index(ins.operands[0], 2, ins, kernel)
    return VectorStep(reads, lambda a, b: (a.copy(), b.copy()), _write_two(out), None)


# ---- 16-bit elements


def _read_half(operand: Operand, which: int, kind: str, negate: bool, ins: Instruction, kernel: Kernel) -> Read:
    # The documents differ on the high half of a constant, but zero is zero in both.
    literal = operand.core == "0" or (re.fullmatch(r"-?\d+|0x[0-9a-f]+", operand.core) and not which)
    if not operand.plain or (find_register(operand.core, ins, kernel) is None and not literal):
        raise ins.fail(f"packed 16-bit operand {operand.core} is not modelled")
    bits = read_source(operand, "b32", ins, kernel)
    shift, sign = u32(16 * which), u16(0x8000 if negate else 0)
    return lambda waves: ((bits(waves) >> shift).astype(u16) ^ sign).view(TYPES[kind].dtype)


def _packed_halves(name: str, kind: str, count: int, function: Callable[..., A]) -> None:
    @register(name, modifiers=_MODIFIERS)
    def build(ins: Instruction, kernel: Kernel) -> VectorStep:
        selects, signs = _modified(ins, count)
        if any(signs[0] + signs[1]) and not TYPES[kind].is_float:
            raise ins.fail("negated integer")
        reads = [
            _read_half(ins.operands[1 + i], selects[half][i], kind, bool(signs[half][i]), ins, kernel)
            for half in range(2)
            for i in range(count)
        ]

        def compute(*sources: A) -> A:
            low, high = function(*sources[:count]).view(u16), function(*sources[count:]).view(u16)
            return low.astype(u32) | (high.astype(u32) << u32(16))

        return VectorStep(reads, compute, [write_destination(ins.operands[0], "b32", ins, kernel)], None)


def _maximum3(a: A, b: A, c: A) -> A:
    return fp.extremum_nan(fp.extremum_nan(a, b, True), c, True)


def _minimum3(a: A, b: A, c: A) -> A:
    return fp.extremum_nan(fp.extremum_nan(a, b, False), c, False)


def _in_bf16(function: Callable[[A, A], A]) -> Callable[[A, A], A]:
    """bfloat16 through float32: 24 bits are enough (2 * 8 + 2) for the second rounding to be harmless."""
    return lambda a, b: fp.to_bf16(_quieting(function)(fp.from_bf16(a), fp.from_bf16(b)))


_packed_halves("v_pk_add_u16", "u16", 2, lambda a, b: a + b)
_packed_halves("v_pk_lshlrev_b16", "u16", 2, lambda a, b: b << (a & u16(15)))
_packed_halves("v_pk_add_f16", "f16", 2, _quieting(lambda a, b: a + b))
_packed_halves("v_pk_mul_f16", "f16", 2, _quieting(lambda a, b: a * b))
for _infix in ("", "num_"):  # gfx12 says num for the IEEE 754-2008 ones
    _packed_halves(f"v_pk_min_{_infix}f16", "f16", 2, lambda a, b: fp.extremum(a, b, False))
    _packed_halves(f"v_pk_max_{_infix}f16", "f16", 2, lambda a, b: fp.extremum(a, b, True))
_packed_halves("v_pk_maximum3_f16", "f16", 3, _maximum3)
_packed_halves("v_pk_minimum3_f16", "f16", 3, _minimum3)
_packed_halves("v_pk_add_bf16", "bf16", 2, _in_bf16(lambda a, b: a + b))
_packed_halves("v_pk_mul_bf16", "bf16", 2, _in_bf16(lambda a, b: a * b))


# ---- mixed precision: one float32 fma whose sources may be 16-bit


def _read_mixed(operand: Operand, half: int, small: bool, kind: str, ins: Instruction, kernel: Kernel) -> Read:
    """op_sel_hi says whether the source is 16 bits wide, op_sel then which half it is. Signs apply at its own width."""
    if not small:
        if half:
            raise ins.fail("high half of a 32-bit source")
        return read_source(operand, "f32", ins, kernel)
    if find_register(operand.core, ins, kernel) is None:
        # an inline constant is the same in both halves
        value = read_source(operand, kind, ins, kernel)
    else:
        whole = read_source(Operand(operand.core), "b32", ins, kernel)
        keep, flip = u16(0x7FFF if operand.abs else 0xFFFF), u16(0x8000 if operand.neg else 0)
        dtype = TYPES[kind].dtype
        shift = u32(16 * half)

        def value(waves: Waves) -> A:
            return (((whole(waves) >> shift).astype(u16) & keep) ^ flip).view(dtype)

    return (lambda waves: fp.from_bf16(value(waves))) if kind == "bf16" else (lambda waves: value(waves).astype(f32))


def _mixed(kind: str) -> None:
    def reads(ins: Instruction, kernel: Kernel) -> list[Read]:
        half, small = _bits(ins, "op_sel", 3, 0), _bits(ins, "op_sel_hi", 3, 0)
        return [_read_mixed(ins.operands[1 + i], half[i], bool(small[i]), kind, ins, kernel) for i in range(3)]

    def narrow(a: A, b: A, c: A) -> A:
        """The documents' order: a float32 fma, rounded, then one conversion."""
        exact = fp.quiet_nans(fp.fma32(a, b, c), a, b, c)
        return fp.to_bf16(exact) if kind == "bf16" else exact.astype(np.float16).view(u16)

    @register(f"v_fma_mix_f32_{kind}", *(["v_fma_mix_f32"] if kind == "f16" else []), modifiers=("op_sel", "op_sel_hi"))
    def full(ins: Instruction, kernel: Kernel) -> VectorStep:
        write = write_destination(ins.operands[0], "f32", ins, kernel)
        return VectorStep(reads(ins, kernel), _quieting(fp.fma32), [write], None)

    for name, high in (("lo", False), ("hi", True)):

        @register(f"v_fma_mix{name}_{kind}", modifiers=("op_sel", "op_sel_hi"))
        def half(ins: Instruction, kernel: Kernel, high: bool = high) -> VectorStep:
            index = vector_index(ins.operands[0], 1, ins, kernel)

            def write(waves: Waves, value: A, lanes: A | None) -> None:
                waves.write_vector(index, with_half(waves.v[index], value, high), lanes)

            return VectorStep(reads(ins, kernel), narrow, [write], None)


_mixed("f16")
_mixed("bf16")
