"""Scalar instructions: one value a wave. SCC is written by most integer operations, with the meaning given beside each.

Signatures read as in operands.py; `scc` is the flag, `k16` a sign-extended 16-bit immediate, `dst` the old destination.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from . import fp
from .operands import TYPES, Read, constant, find_sized
from .parser import Instruction, Kernel, Operand
from .state import Waves
from .table import Step, register
from .vector_compare import FLOAT
from .vector_float import APPROXIMATE
from .vector_int import leading_sign_bits

A = np.ndarray
u32, u64, i32, i64, f32 = np.uint32, np.uint64, np.int32, np.int64, np.float32
Write = Callable[[Waves, A], None]


def _read(operand: Operand, kind: str, ins: Instruction, kernel: Kernel) -> Read:
    """A scalar source as an array [wave] (or [1] for a constant) of its type."""
    type_ = TYPES[kind]
    if ((operand.neg or operand.abs) and kind != "f32") or operand.sext:
        raise ins.fail("source modifier on a scalar operand")
    core = "0" if operand.core == "null" else operand.core
    reg = find_sized(core, type_.bits, ins, kernel)
    if reg is None:
        value = np.full(1, constant(core, kind, ins), type_.unsigned)
        raw: Read = lambda waves: value  # noqa: E731
    elif reg.file != "s":
        raise ins.fail(f"operand {operand.core} is not scalar")
    elif type_.bits == 32:
        raw = lambda waves: waves.s[reg.index]  # noqa: E731
    else:
        raw = lambda waves: read_pair(waves, reg.index)  # noqa: E731
    if not (operand.neg or operand.abs):
        return lambda waves: raw(waves).view(type_.dtype)
    keep, flip = u32(0x7FFFFFFF if operand.abs else 0xFFFFFFFF), u32(0x80000000 if operand.neg else 0)
    return lambda waves: ((raw(waves) & keep) ^ flip).view(type_.dtype)


def read_pair(waves: Waves, index: int) -> A:
    return waves.s[index].astype(u64) | (waves.s[index + 1].astype(u64) << u64(32))


def _write(operand: Operand, kind: str, ins: Instruction, kernel: Kernel) -> Write:
    reg = find_sized(operand.core, TYPES[kind].bits, ins, kernel)
    if not reg or reg.file != "s" or not operand.plain:
        raise ins.fail(f"destination {operand.core} is not scalar")
    if TYPES[kind].bits == 32:
        return lambda waves, value: waves.write_scalar(reg.index, (value.view(u32),))
    return lambda waves, value: write_pair(waves, reg.index, value.view(u64))


def write_pair(waves: Waves, index: int, value: A) -> None:
    waves.write_scalar(index, (value.astype(u32), (value >> u64(32)).astype(u32)))


def _write_scc(waves: Waves, value: A) -> None:
    waves.scc[...] = value


def _immediate(operand: Operand, ins: Instruction) -> Read:
    value = constant(operand.core, "u32", ins)
    if 0xFFFF < value < 0xFFFF8000:
        raise ins.fail("immediate of more than 16 bits")
    signed = np.array([(value & 0xFFFF) - ((value & 0x8000) << 1)], i32)
    return lambda waves: signed


_PSEUDO: dict[str, Callable[[Waves], Any]] = {"scc": lambda waves: waves.scc, "batch": lambda waves: waves.batch}


def scalar(*names: str, signature: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers a pure function of [wave] arrays as scalar instructions."""
    outs, ins_ = (side.split() for side in signature.split("="))

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        @register(*names, encodings=("",))
        def build(ins: Instruction, kernel: Kernel) -> Step:
            return _build(ins, kernel, outs, ins_, function)

        return function

    return add


def _build(ins: Instruction, kernel: Kernel, outs: list[str], ins_: list[str], function: Callable[..., Any]) -> Step:
    targets = [kind for kind in outs if kind != "scc"]
    wanted = len(targets) + sum(kind not in _PSEUDO and kind != "dst" for kind in ins_)
    if len(ins.operands) != wanted:
        raise ins.fail(f"{wanted} operands wanted")
    sources = iter(ins.operands[len(targets) :])
    reads: list[Read] = []
    for kind in ins_:
        if kind in _PSEUDO:
            reads.append(_PSEUDO[kind])
        elif kind == "dst":
            reads.append(_read(ins.operands[0], targets[0], ins, kernel))
        elif kind == "k16":
            reads.append(_immediate(next(sources), ins))
        else:
            reads.append(_read(next(sources), kind, ins, kernel))
    writes = [_write(op, kind, ins, kernel) for op, kind in zip(ins.operands, targets, strict=False)]
    if "scc" in outs:
        writes.append(_write_scc)

    def run(waves: Waves) -> None:
        result = function(*[read(waves) for read in reads])
        for write, value in zip(writes, result if isinstance(result, tuple) else (result,), strict=True):
            write(waves, value)

    return run


# ---- moves and selection

scalar("s_mov_b32", signature="b32 = b32")(lambda a: a.copy())
scalar("s_mov_b64", signature="b64 = b64")(lambda a: a)
scalar("s_movk_i32", signature="i32 = k16")(lambda a: a)
scalar("s_cselect_b32", signature="b32 = b32 b32 scc")(lambda a, b, scc: np.where(scc, a, b))
scalar("s_cselect_b64", signature="b64 = b64 b64 scc")(lambda a, b, scc: np.where(scc, a, b))
scalar("s_cmov_b32", signature="b32 = b32 scc dst")(lambda a, scc, old: np.where(scc, a, old))
scalar("s_cmov_b64", signature="b64 = b64 scc dst")(lambda a, scc, old: np.where(scc, a, old))


def _halves(a_high: int, b_high: int) -> Callable[[A, A], A]:
    def pack(a: A, b: A) -> A:
        return ((a >> u32(16 * a_high)) & u32(0xFFFF)) | (((b >> u32(16 * b_high)) & u32(0xFFFF)) << u32(16))

    return pack


for _name, _pair in {"ll": (0, 0), "lh": (0, 1), "hh": (1, 1), "hl": (1, 0)}.items():
    scalar(f"s_pack_{_name}_b32_b16", signature="b32 = b32 b32")(_halves(*_pair))

# ---- logic and shifts: SCC is "the result is not zero"


def _flagged(function: Callable[..., A]) -> Callable[..., tuple[A, A]]:
    def run(*sources: A) -> tuple[A, A]:
        result = function(*sources)
        return result, result != 0

    return run


_LOGIC: dict[str, Callable[[A, A], A]] = {
    "and": lambda a, b: a & b, "or": lambda a, b: a | b, "xor": lambda a, b: a ^ b,
    "andn2": lambda a, b: a & ~b, "and_not1": lambda a, b: a & ~b, "orn2": lambda a, b: a | ~b,
    "or_not1": lambda a, b: a | ~b, "nand": lambda a, b: ~(a & b), "nor": lambda a, b: ~(a | b),
    "xnor": lambda a, b: ~(a ^ b),
}  # fmt: skip
for _bits in (32, 64):
    for _name, _function in _LOGIC.items():
        scalar(f"s_{_name}_b{_bits}", signature=f"b{_bits} scc = b{_bits} b{_bits}")(_flagged(_function))
    scalar(f"s_not_b{_bits}", signature=f"b{_bits} scc = b{_bits}")(_flagged(lambda a: ~a))

    def _left(a: A, n: A, bits: int = _bits) -> A:
        return a << (n & u32(bits - 1)).astype(a.dtype)

    def _right(a: A, n: A, bits: int = _bits) -> A:
        return a >> (n & u32(bits - 1)).astype(a.dtype)

    scalar(f"s_lshl_b{_bits}", signature=f"b{_bits} scc = b{_bits} u32")(_flagged(_left))
    scalar(f"s_lshr_b{_bits}", signature=f"b{_bits} scc = b{_bits} u32")(_flagged(_right))
    scalar(f"s_ashr_i{_bits}", signature=f"i{_bits} scc = i{_bits} u32")(_flagged(_right))


def _bitreverse(a: A) -> A:
    bits = np.unpackbits(a.view(np.uint8).reshape(-1, 4), axis=1, bitorder="little")
    return np.packbits(bits[:, ::-1], axis=1, bitorder="little").view(u32)[:, 0]


scalar("s_brev_b32", signature="b32 = b32")(lambda a: _bitreverse(np.ascontiguousarray(a)))


def _field(a: A, control: A) -> A:
    """control[4:0] is the first bit, control[22:16] the width, which may reach past the top."""
    offset, width = control & u32(31), np.minimum((control >> u32(16)) & u32(127), u32(32))
    mask = (u64(1) << width.astype(u64)) - u64(1)
    return (a >> offset) & mask.astype(u32)


def _signed_field(a: A, control: A) -> A:
    offset, width = control & u32(31), np.minimum((control >> u32(16)) & u32(127), u32(32))
    width = np.minimum(width, u32(32) - offset)
    room = (u32(32) - width).astype(i64)
    value = (_field(a.view(u32), control).astype(i64) << (room + 32)) >> (room + 32)
    return np.where(width == 0, 0, value).astype(i32)


def _signed_field64(a: A, control: A) -> A:
    """control[5:0] is the first bit; the shift to the top and back fills up with the field's sign."""
    offset, width = (control & u32(63)).astype(i64), ((control >> u32(16)) & u32(127)).astype(i64)
    width = np.minimum(width, 64 - offset)
    room = np.minimum(64 - width, 63)
    return np.where(width == 0, 0, a << np.maximum(room - offset, 0) >> room)


scalar("s_bfe_u32", signature="u32 scc = u32 u32")(_flagged(_field))
scalar("s_bfe_i32", signature="i32 scc = i32 u32")(_flagged(_signed_field))
scalar("s_bfe_i64", signature="i64 scc = i64 u32")(_flagged(_signed_field64))
scalar("s_abs_i32", signature="i32 scc = i32")(_flagged(np.abs))
scalar("s_sext_i32_i8", signature="i32 = i32")(lambda a: a.astype(np.int8).astype(i32))
scalar("s_sext_i32_i16", signature="i32 = i32")(lambda a: a.astype(np.int16).astype(i32))
scalar("s_flbit_i32", "s_cls_i32", signature="i32 = i32")(leading_sign_bits)
scalar("s_bitset0_b32", signature="b32 = u32 dst")(lambda n, a: a & ~(u32(1) << (n & u32(31))))
scalar("s_bitset1_b32", signature="b32 = u32 dst")(lambda n, a: a | (u32(1) << (n & u32(31))))
scalar("s_bitcmp0_b32", signature="scc = u32 u32")(lambda a, n: ((a >> (n & u32(31))) & u32(1)) == 0)
scalar("s_bitcmp1_b32", signature="scc = u32 u32")(lambda a, n: ((a >> (n & u32(31))) & u32(1)) == 1)

# ---- addition and multiplication: SCC is the carry or borrow (u32) or the signed overflow (i32)


def _unsigned(total: A) -> tuple[A, A]:
    return total.astype(u32), (total < 0) | (total > 0xFFFFFFFF)


def _signed(total: A) -> tuple[A, A]:
    result = total.astype(i32)
    return result, result != total


scalar("s_add_u32", "s_add_co_u32", signature="u32 scc = u32 u32")(lambda a, b: _unsigned(a.astype(i64) + b))
scalar("s_sub_u32", "s_sub_co_u32", signature="u32 scc = u32 u32")(lambda a, b: _unsigned(a.astype(i64) - b))
scalar("s_addc_u32", "s_add_co_ci_u32", signature="u32 scc = u32 u32 scc")(
    lambda a, b, c: _unsigned(a.astype(i64) + b + c)
)
scalar("s_subb_u32", "s_sub_co_ci_u32", signature="u32 scc = u32 u32 scc")(
    lambda a, b, c: _unsigned(a.astype(i64) - b - c)
)
scalar("s_add_i32", "s_add_co_i32", signature="i32 scc = i32 i32")(lambda a, b: _signed(a.astype(i64) + b))
scalar("s_sub_i32", "s_sub_co_i32", signature="i32 scc = i32 i32")(lambda a, b: _signed(a.astype(i64) - b))
scalar("s_addk_i32", "s_addk_co_i32", signature="i32 scc = k16 dst")(lambda k, a: _signed(a.astype(i64) + k))
scalar("s_add_nc_u64", signature="u64 = u64 u64")(lambda a, b: a + b)
scalar("s_sub_nc_u64", signature="u64 = u64 u64")(lambda a, b: a - b)
for _shift in range(1, 5):
    scalar(f"s_lshl{_shift}_add_u32", signature="u32 scc = u32 u32")(
        lambda a, b, n=_shift: _unsigned((a.astype(i64) << i64(n)) + b)
    )
scalar("s_mul_i32", signature="i32 = i32 i32")(lambda a, b: a * b)
scalar("s_mulk_i32", signature="i32 = k16 dst")(lambda k, a: a * k)
scalar("s_mul_u64", signature="u64 = u64 u64")(lambda a, b: a * b)
scalar("s_mul_hi_u32", signature="u32 = u32 u32")(lambda a, b: ((a.astype(u64) * b) >> u64(32)).astype(u32))
scalar("s_mul_hi_i32", signature="i32 = i32 i32")(lambda a, b: ((a.astype(i64) * b) >> i64(32)).astype(i32))

# ---- comparisons. Minimum and maximum set SCC where the first operand is the result.

for _kind in ("u32", "i32"):
    scalar(f"s_min_{_kind}", signature=f"{_kind} scc = {_kind} {_kind}")(lambda a, b: (np.minimum(a, b), a < b))
    scalar(f"s_max_{_kind}", signature=f"{_kind} scc = {_kind} {_kind}")(lambda a, b: (np.maximum(a, b), a >= b))
_COMPARE: dict[str, Callable[[A, A], A]] = {
    "eq": np.equal, "lg": np.not_equal, "gt": np.greater, "ge": np.greater_equal, "lt": np.less, "le": np.less_equal,
}  # fmt: skip
for _name, _function in _COMPARE.items():
    for _kind in ("u32", "i32"):
        scalar(f"s_cmp_{_name}_{_kind}", signature=f"scc = {_kind} {_kind}")(_function)
    scalar(f"s_cmpk_{_name}_i32", signature="scc = i32 k16")(_function)
    # Here the immediate is zero-extended.
    scalar(f"s_cmpk_{_name}_u32", signature="scc = u32 k16")(
        lambda a, k, compare=_function: compare(a, k.astype(u32) & u32(0xFFFF))
    )
scalar("s_cmp_eq_u64", signature="scc = u64 u64")(np.equal)
scalar("s_cmp_lg_u64", signature="scc = u64 u64")(np.not_equal)

# ---- floating point (gfx11.5 and later)

for _name, _function in FLOAT.items():
    scalar(f"s_cmp_{_name}_f32", signature="scc = f32 f32")(_function)
scalar("s_add_f32", signature="f32 = f32 f32")(lambda a, b: fp.quiet_nans(a + b, a, b))
scalar("s_sub_f32", signature="f32 = f32 f32")(lambda a, b: fp.quiet_nans(a - b, a, b))
scalar("s_mul_f32", signature="f32 = f32 f32")(lambda a, b: fp.quiet_nans(a * b, a, b))
scalar("s_fmac_f32", signature="f32 = f32 f32 dst")(lambda a, b, c: fp.quiet_nans(fp.fma32(a, b, c), a, b, c))
scalar("s_min_num_f32", signature="f32 = f32 f32")(lambda a, b: fp.extremum(a, b, largest=False))
scalar("s_max_num_f32", signature="f32 = f32 f32")(lambda a, b: fp.extremum(a, b, largest=True))
scalar("s_cvt_f32_i32", signature="f32 = i32")(lambda a: a.astype(f32))
scalar("s_cvt_f32_u32", signature="f32 = u32")(lambda a: a.astype(f32))
scalar("s_cvt_i32_f32", signature="i32 = f32")(lambda a: fp.to_integer(a, -(2.0**31), 2.0**31 - 1, i32))
scalar("s_cvt_u32_f32", signature="u32 = f32")(lambda a: fp.to_integer(a, 0, 2.0**32 - 1, u32))
for _name, _approximate in APPROXIMATE.items():
    scalar(f"v_s_{_name}", signature="f32 = f32 batch")(_approximate)

# ---- EXEC: the old mask is saved, then combined with the source; SCC is "some lane is active"


def _saveexec(name: str, bits: int, function: Callable[[A, A], A]) -> None:
    kind, exec_name = f"b{bits}", "exec" if bits == 64 else "exec_lo"

    @register(f"s_{name}_saveexec_b{bits}", encodings=("",))
    def build(ins: Instruction, kernel: Kernel) -> Step:
        if kernel.wave_size != bits:
            raise ins.fail("mask of another wave size")
        # destinations: the saved mask and EXEC; sources: the operand and EXEC
        save, source = ins.operands
        whole = dataclasses.replace(ins, operands=(save, Operand(exec_name), source, Operand(exec_name)))

        def combine(mask: A, old: A) -> tuple[A, A, A]:
            new = function(mask, old)
            return old.copy(), new, new != 0

        return _build(whole, kernel, [kind, kind, "scc"], [kind, kind], combine)


for _bits in (32, 64):
    for _name in ("and", "or", "xor"):
        _saveexec(_name, _bits, _LOGIC[_name])
    # andn2: source and not EXEC; andn1 the other way round. gfx11 calls them and_not1 and and_not0.
    for _name in ("andn2", "and_not1"):
        _saveexec(_name, _bits, lambda mask, old: mask & ~old)
    for _name in ("andn1", "and_not0"):
        _saveexec(_name, _bits, lambda mask, old: ~mask & old)
