"""Typed operands: how a source is read and a destination written, and the `@vector` decorator built on them.

A signature such as `"f32 mask = f32 f32 f32"` names the type of every destination and source in assembly order. Sources
that have no operand in the text are pseudo types: `dst` (the old destination), `vcc`, `ovfl` (MODE.FP16_OVFL), `batch`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from .dpp import Dpp
from .parser import Instruction, Kernel, Operand
from .sdwa import Sdwa
from .state import EXEC, M0, TTMP, VCC, Waves
from .table import register

u32, u64 = np.uint32, np.uint64
Read = Callable[[Waves], np.ndarray]
Write = Callable[[Waves, np.ndarray, np.ndarray | None], None]


@dataclasses.dataclass(frozen=True)
class Type:
    """How many bits an operand has, and as what they are read."""

    bits: int
    dtype: Any
    is_float: bool = False

    @property
    def unsigned(self) -> Any:
        return {16: np.uint16, 32: np.uint32, 64: np.uint64}[self.bits]


# s16 and s32 are bits whose sign modifiers act as on floats.
TYPES = {
    "b16": Type(16, np.uint16), "u16": Type(16, np.uint16), "i16": Type(16, np.int16),
    "s16": Type(16, np.uint16, True), "f16": Type(16, np.float16, True), "bf16": Type(16, np.uint16, True),
    "b32": Type(32, np.uint32), "u32": Type(32, np.uint32), "i32": Type(32, np.int32),
    "s32": Type(32, np.uint32, True), "f32": Type(32, np.float32, True),
    "b64": Type(64, np.uint64), "u64": Type(64, np.uint64), "i64": Type(64, np.int64),
    "f64": Type(64, np.float64, True),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Reg:
    """`count` registers from `index` on, of the vector ("v") or scalar ("s") file; `half` is "l", "h" or empty."""

    file: str
    index: int
    count: int
    half: str = ""


_SPECIAL = {
    "vcc": (VCC, 2), "vcc_lo": (VCC, 1), "vcc_hi": (VCC + 1, 1),
    "exec": (EXEC, 2), "exec_lo": (EXEC, 1), "exec_hi": (EXEC + 1, 1), "m0": (M0, 1),
}  # fmt: skip
_REGISTER = re.compile(r"(v|a|s|ttmp)(?:(\d+)(?:\.([lh]))?|\[(\d+):(\d+)\])$")


@cache
def _register(core: str) -> tuple[str, int, int, str] | None:
    """File, first index, count and half of a register's name."""
    match = _REGISTER.match(core)
    if not match:
        return None
    file, single, half, first, last = match.groups()
    if single is not None:
        return file, int(single), 1, half or ""
    return file, int(first), int(last) - int(first) + 1, ""


def find_register(core: str, ins: Instruction, kernel: Kernel) -> Reg | None:
    if core in _SPECIAL:
        return Reg("s", *_SPECIAL[core])
    register = _register(core)
    if not register:
        return None
    file, index, count, half = register
    limit = {"v": kernel.num_vgprs, "a": kernel.num_vgprs, "s": VCC, "ttmp": M0 - TTMP}[file]
    if file == "a":  # gfx90a and later: accumulation registers follow the others in one file
        index += int(kernel.hsa["accum_offset"])
    if index + count > limit or (half and file != "v"):
        raise ins.fail(f"register {core} does not exist")
    if file == "ttmp":
        return Reg("s", TTMP + index, count)
    return Reg("v" if file in "va" else "s", index, count, half)


def find_sized(core: str, bits: int, ins: Instruction, kernel: Kernel) -> Reg | None:
    """The register of an operand, which must be as wide as the type says."""
    reg = find_register(core, ins, kernel)
    if reg and (reg.count != max(1, bits // 32) or (reg.half and bits != 16)):
        raise ins.fail(f"operand {core} does not have {bits} bits")
    return reg


def vector_index(operand: Operand, count: int, ins: Instruction, kernel: Kernel) -> int:
    """The first of `count` vector registers named by a bare operand."""
    reg = find_register(operand.core, ins, kernel)
    if not reg or reg.file != "v" or reg.count != count or reg.half or not operand.plain:
        raise ins.fail(f"operand {operand.core} is not {count} vector registers")
    return reg.index


def scalar_index(operand: Operand, count: int, ins: Instruction, kernel: Kernel) -> int:
    reg = find_register(operand.core, ins, kernel)
    if not reg or reg.file != "s" or reg.count != count or not operand.plain:
        raise ins.fail(f"operand {operand.core} is not {count} scalar registers")
    return reg.index


def mask_index(operand: Operand, ins: Instruction, kernel: Kernel) -> int | None:
    """The scalar register of a lane mask; `null` is None. A mask has one bit a lane: one or two registers."""
    return None if operand.core == "null" else scalar_index(operand, kernel.wave_size // 32, ins, kernel)


def constant(core: str, kind: str, ins: Instruction) -> int:
    """Bits of a literal or inline constant as an operand of the given type."""
    bits = TYPES[kind].bits
    mask = (1 << bits) - 1
    if re.fullmatch(r"-?\d+|-?0x[0-9a-f]+", core):
        value = int(core, 0)
        # Literals are 32 bits: as 64-bit operands they zero-extend, but sign-extend for signed types and fill the high
        # half for doubles. Inline integers -16..64 are themselves at every width.
        if bits == 64 and not -16 <= value <= 64:
            if kind == "f64":
                return (value & 0xFFFFFFFF) << 32
            if kind == "i64" and value & 0x80000000:
                value |= -1 << 32
        return value & mask
    if re.fullmatch(r"-?\d+\.\d+(e[-+]?\d+)?", core):
        if core.startswith("0.1591549"):  # the inline constant 1/(2 pi), rounded to the operand's width
            value = {"f16": 0x3118, "bf16": 0x3E22, "f64": 0x3FC45F306DC9C882}.get(kind, 0x3E22F983)
        elif kind == "f16":
            value = int(np.float16(core).view(np.uint16))
        elif kind == "bf16":
            value = int(np.float32(core).view(u32)) >> 16
        elif kind == "f64":
            value = int(np.float64(core).view(u64))
        elif bits == 32:
            value = int(np.float32(core).view(u32))
        else:
            raise ins.fail(f"float constant {core} as {kind}")
        return value
    raise ins.fail(f"cannot read operand {core}")


def _raw32(reg: Reg) -> Read:
    index = reg.index
    if reg.file == "v":
        return lambda waves: waves.v[index]
    return lambda waves: waves.s[index][:, None]


def _raw(operand: Operand, kind: str, ins: Instruction, kernel: Kernel) -> Read:
    """Unsigned bits of a source before its modifiers, broadcastable to [wave, lane]."""
    bits = TYPES[kind].bits
    core = "0" if operand.core == "null" else operand.core
    reg = find_sized(core, bits, ins, kernel)
    if reg is None:
        value = np.full((1, 1), constant(core, kind, ins), TYPES[kind].unsigned)
        return lambda waves: value
    low = _raw32(reg)
    if bits == 32:
        return low
    if bits == 16:  # registers without a suffix hold the value in their low half
        shift = u32(16 if reg.half == "h" else 0)
        return lambda waves: (low(waves) >> shift).astype(np.uint16)
    high = _raw32(dataclasses.replace(reg, index=reg.index + 1))
    return lambda waves: low(waves).astype(u64) | (high(waves).astype(u64) << u64(32))


def read_source(
    operand: Operand, kind: str, ins: Instruction, kernel: Kernel, change: Callable[[Read], Read] | None = None
) -> Read:
    """A source as an array of its type. `change` is what DPP or SDWA does to the raw bits."""
    if kind == "mask":
        index = mask_index(operand, ins, kernel)
        if index is None:
            raise ins.fail("null as a lane mask source")
        return lambda waves: waves.read_mask(index)
    type_ = TYPES[kind]
    if (operand.neg or operand.abs) and not type_.is_float:
        raise ins.fail(f"sign modifier on {kind} operand {operand.core}")
    if operand.sext and ins.encoding != "sdwa":
        raise ins.fail("sext outside SDWA")
    raw = _raw(operand, kind, ins, kernel)
    if change:
        raw = change(raw)
    read = _with_sign(raw, operand, type_)
    if type_.dtype is type_.unsigned:
        return read
    return lambda waves: read(waves).view(type_.dtype)


def _with_sign(raw: Read, operand: Operand, type_: Type) -> Read:
    """Float modifiers act on the sign bit alone, NaN included: first abs, then neg."""
    sign = type_.unsigned(1 << (type_.bits - 1))
    if operand.abs and operand.neg:
        return lambda waves: raw(waves) | sign
    if operand.abs:
        return lambda waves: raw(waves) & ~sign
    if operand.neg:
        return lambda waves: raw(waves) ^ sign
    return raw


def write_destination(operand: Operand, kind: str, ins: Instruction, kernel: Kernel, keeps_high: bool = False) -> Write:
    """How a result reaches its register: in active lanes only."""
    if kind == "mask":
        return _write_mask(mask_index(operand, ins, kernel))
    type_ = TYPES[kind]
    reg = find_sized(operand.core, type_.bits, ins, kernel)
    if not reg or reg.file != "v" or not operand.plain:
        raise ins.fail(f"destination {operand.core} is not a vector register")
    index = reg.index
    if type_.bits == 32:
        return lambda waves, value, lanes: waves.write_vector(index, value.view(u32), lanes)
    if type_.bits == 64:
        return lambda waves, value, lanes: _write_pair(waves, index, value.view(u64), lanes)
    if kernel.is_gfx9 and not keeps_high:
        # gfx9: 16-bit instructions zero the other half, but the VOP3 ones that can choose a half keep it.
        return lambda waves, value, lanes: waves.write_vector(index, value.view(np.uint16).astype(u32), lanes)
    high = reg.half == "h"
    return lambda waves, value, lanes: waves.write_vector(index, with_half(waves.v[index], value, high), lanes)


def _write_mask(index: int | None) -> Write:
    if index is None:
        return lambda waves, value, lanes: None
    return lambda waves, value, lanes: waves.write_mask(index, value & waves.exec)


def _write_pair(waves: Waves, index: int, value: np.ndarray, lanes: np.ndarray | None) -> None:
    waves.write_vector(index, value.astype(u32), lanes)
    waves.write_vector(index + 1, (value >> u64(32)).astype(u32), lanes)


def with_half(old: np.ndarray, value: np.ndarray, high: bool) -> np.ndarray:
    """`old` with one 16-bit half replaced."""
    bits = value.view(np.uint16).astype(u32)
    return (old & u32(0xFFFF)) | (bits << u32(16)) if high else (old & u32(0xFFFF0000)) | bits


class VectorStep:
    """One vector instruction in two parts, so that both halves of a dual instruction read before either writes."""

    def __init__(self, reads: list[Read], function: Callable[..., Any], writes: list[Write], dpp: Dpp | None) -> None:
        self.reads, self.function, self.writes, self.dpp = reads, function, writes, dpp

    def compute(self, waves: Waves) -> list[np.ndarray]:
        result = self.function(*[read(waves) for read in self.reads])
        return list(result) if isinstance(result, tuple) else [result]

    def commit(self, waves: Waves, values: list[np.ndarray]) -> None:
        lanes = self.dpp.written_lanes(waves) if self.dpp else None
        for write, value in zip(self.writes, values, strict=True):
            write(waves, value, lanes)

    def __call__(self, waves: Waves) -> None:
        self.commit(waves, self.compute(waves))


_PSEUDO = {
    "vcc": lambda waves: waves.read_mask(VCC),
    "ovfl": lambda waves: waves.fp16_ovfl[:, None],
    "batch": lambda waves: waves.batch,
}
_ANY_ENCODING = ("", "e32", "e64", "dpp", "sdwa")


def vector(
    *names: str, signature: str, modifiers: tuple[str, ...] = (), keeps_high: bool = False
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers a pure function of typed arrays as vector instructions, in every encoding."""
    outs, ins_ = (side.split() for side in signature.split("="))

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        @register(*names, modifiers=modifiers, encodings=_ANY_ENCODING, dualable=True)
        def build(ins: Instruction, kernel: Kernel) -> VectorStep:
            extra: dict[str, Any] = {name: modifier_value(ins, name) for name in modifiers}
            call = (lambda *a: function(*a, **extra)) if extra else function
            return build_vector(ins, kernel, outs, ins_, call, keeps_high)

        return function

    return add


def modifier_value(ins: Instruction, name: str) -> int | tuple[int, ...]:
    """`clamp` is 1, `bitop3:0x6c` a number, `op_sel:[0,1]` a tuple; 0 where absent."""
    text = ins.modifiers.get(name, "0")
    if text.startswith("["):
        return tuple(int(word, 0) for word in text.strip("[]").split(","))
    return int(text, 0)


def modifier_number(ins: Instruction, name: str) -> int:
    value = modifier_value(ins, name)
    if isinstance(value, tuple):
        raise ins.fail(f"{name} wants one number")
    return value


def build_vector(
    ins: Instruction,
    kernel: Kernel,
    outs: list[str],
    ins_: list[str],
    call: Callable[..., Any],
    keeps_high: bool = False,
) -> VectorStep:
    operands = list(ins.operands)
    real = [kind for kind in ins_ if kind not in _PSEUDO and kind != "dst"]
    if real and real[-1] == "mask" and len(operands) == len(outs) + len(real) - 1:
        operands.append(Operand("vcc" if kernel.wave_size == 64 else "vcc_lo"))  # the short encodings imply VCC
    if len(operands) != len(outs) + len(real):
        raise ins.fail(f"{len(outs) + len(real)} operands wanted")
    if "dst" in ins_:
        operands.append(operands[0])
    dpp = Dpp(ins, kernel) if ins.encoding == "dpp" else None
    sdwa = Sdwa(ins) if ins.encoding == "sdwa" else None
    if dpp and dpp.may_skip_lanes and "mask" in outs:
        raise ins.fail("DPP that skips lanes of a mask result")
    sources = iter(operands[len(outs) :])
    reads: list[Read] = []
    for position, kind in enumerate(ins_):
        if kind in _PSEUDO:
            reads.append(_PSEUDO[kind])
            continue
        source, kind = next(sources), outs[0] if kind == "dst" else kind
        if dpp and position == 0:
            reads.append(read_source(source, kind, ins, kernel, dpp.permuted))
        elif sdwa and kind != "mask":
            reads.append(_read_sdwa(source, kind, position, sdwa, ins, kernel))
        else:
            reads.append(read_source(source, kind, ins, kernel))
    writes = [
        sdwa.write(vector_index(op, 1, ins, kernel))
        if sdwa and kind != "mask" and TYPES[kind].bits <= 32
        else write_destination(op, kind, ins, kernel, keeps_high)
        for op, kind in zip(operands, outs, strict=False)
    ]
    return VectorStep(reads, call, writes, dpp)


def _read_sdwa(source: Operand, kind: str, position: int, sdwa: Sdwa, ins: Instruction, kernel: Kernel) -> Read:
    """The selected bytes of a 32-bit register, extended to 32 bits, then narrowed to the operand's type."""
    type_ = TYPES[kind]
    if type_.bits == 64:
        raise ins.fail("64-bit SDWA source")
    whole = read_source(Operand(source.core), "b32", ins, kernel)
    selected = sdwa.select(whole, position, source.sext)
    bits: Read = selected if type_.bits == 32 else lambda waves: selected(waves).astype(np.uint16)
    if (source.neg or source.abs) and not type_.is_float:
        raise ins.fail(f"sign modifier on {kind} operand {source.core}")
    signed = _with_sign(bits, source, type_)
    return lambda waves: signed(waves).view(type_.dtype)
