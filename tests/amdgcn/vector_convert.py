"""Vector conversions between number formats. All round to nearest even, but float to integer, which truncates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from . import fp
from .errors import AmdgcnError
from .operands import VectorStep, build_vector, modifier_value, vector, vector_index
from .parser import Instruction, Kernel
from .state import Waves
from .table import Step, register

if TYPE_CHECKING:
    from .machine import Batch

A = np.ndarray
u16, u32, u64, i16, i32, f16, f32, f64 = (
    np.uint16, np.uint32, np.uint64, np.int16, np.int32, np.float16, np.float32, np.float64,
)  # fmt: skip


# ---- integers

vector("v_cvt_f32_i32", signature="f32 = i32")(lambda a: a.astype(f32))
vector("v_cvt_f32_u32", signature="f32 = u32")(lambda a: a.astype(f32))
vector("v_cvt_i32_f32", signature="i32 = f32")(lambda a: fp.to_integer(a, -(2.0**31), 2.0**31 - 1, i32))
vector("v_cvt_u32_f32", signature="u32 = f32")(lambda a: fp.to_integer(a, 0, 2.0**32 - 1, u32))
vector("v_cvt_i16_f16", signature="i16 = f16")(lambda a: fp.to_integer(a, -(2.0**15), 2.0**15 - 1, i16))
vector("v_cvt_u16_f16", signature="u16 = f16")(lambda a: fp.to_integer(a, 0, 2.0**16 - 1, u16))
vector("v_cvt_f16_i16", signature="f16 = i16 ovfl")(lambda a, ovfl: fp.to_f16(a.astype(f32), ovfl))
vector("v_cvt_f16_u16", signature="f16 = u16 ovfl")(lambda a, ovfl: fp.to_f16(a.astype(f32), ovfl))
for _byte in range(4):
    vector(f"v_cvt_f32_ubyte{_byte}", signature="f32 = u32")(
        lambda a, shift=8 * _byte: ((a >> u32(shift)) & u32(255)).astype(f32)
    )


# ---- 16-, 32- and 64-bit floats

vector("v_cvt_f64_f32", signature="f64 = f32")(lambda a: fp.quiet_nans(a.astype(f64), a.astype(f64)))
vector("v_cvt_f32_f64", signature="f32 = f64")(lambda a: fp.quiet_nans(a.astype(f32), a.astype(f32)))
vector("v_cvt_f32_f16", signature="f32 = f16")(lambda a: fp.quiet_nans(a.astype(f32), a.astype(f32)))
vector("v_cvt_f16_f32", signature="f16 = f32 ovfl")(fp.to_f16)


def _pack(low: A, high: A, bits: int = 16) -> A:
    return low.astype(u32) | (high.astype(u32) << u32(bits))


@vector("v_cvt_pk_bf16_f32", signature="b32 = f32 f32 ovfl batch")
def _pk_bf16(a: A, b: A, ovfl: A, batch: Batch) -> A:
    """Whether FP16_OVFL makes it saturate is not settled: a launch says which reading holds."""
    saturate = ovfl & batch.bf16_saturates
    return _pack(fp.to_bf16(a, saturate), fp.to_bf16(b, saturate))


vector("v_pack_b32_f16", signature="b32 = s16 s16")(_pack)


@vector("v_cvt_pk_f16_f32", signature="b32 = f32 f32 ovfl")
def _pk_f16(a: A, b: A, ovfl: A) -> A:
    return _pack(fp.to_f16(a, ovfl).view(u16), fp.to_f16(b, ovfl).view(u16))


# ---- fp8


def fp8_of(kernel: Kernel) -> fp.Fp8:
    """gfx942 has the FNUZ formats; gfx950 and gfx12 have OCP's. Older targets have no fp8 instructions."""
    if kernel.arch == "gfx942":
        return fp.FNUZ
    if kernel.arch == "gfx950" or kernel.is_gfx12:
        return fp.OCP
    raise AmdgcnError(f"{kernel.arch} has no fp8 conversions")


def _chosen_half(op_sel: int | tuple[int, ...], position: int, count: int) -> int:
    """op_sel as one bit at `position`: which half of a register; every other bit must be zero."""
    bits = op_sel or (0,) * count
    if not isinstance(bits, tuple) or len(bits) != count or any(b for i, b in enumerate(bits) if i != position):
        raise AmdgcnError(f"op_sel {op_sel} is not modelled")
    return bits[position]


def _need_unit_scale(scale: A) -> None:
    if (scale != 1.0).any():
        raise AmdgcnError("only a scale of 1.0 is modelled")


def _place(old: A, packed: A, half: int) -> A:
    """Two fp8 in one half of a register; the other half is kept."""
    return (old & u32(0xFFFF)) | (packed << u32(16)) if half else (old & u32(0xFFFF0000)) | packed


@register("v_cvt_pk_fp8_f32", modifiers=("op_sel",))
def _pk_fp8(ins: Instruction, kernel: Kernel) -> VectorStep:
    """Two float32 to the low or (op_sel[2]) high half. Overflow gives NaN, or the largest number under FP16_OVFL."""
    to, half = fp8_of(kernel), _chosen_half(modifier_value(ins, "op_sel"), 2, 3)

    def convert(a: A, b: A, old: A, ovfl: A) -> A:
        return _place(old, _pack(to.encode(a, ovfl), to.encode(b, ovfl), 8), half)

    return build_vector(ins, kernel, ["b32"], ["f32", "f32", "dst", "ovfl"], convert)


@vector("v_cvt_scalef32_pk_fp8_f32", signature="b32 = f32 f32 f32 dst ovfl", modifiers=("op_sel",))
def _scalef32_pk_fp8_f32(a: A, b: A, scale: A, old: A, ovfl: A, op_sel: int | tuple[int, ...]) -> A:
    """As above with sources divided by a scale; op_sel[3] chooses the half. gfx950, hence OCP."""
    _need_unit_scale(scale)
    return _place(old, _pack(fp.OCP.encode(a, ovfl), fp.OCP.encode(b, ovfl), 8), _chosen_half(op_sel, 3, 4))


def _halves(pair: A) -> tuple[A, A]:
    return (pair & u32(0xFFFF)).astype(u16), (pair >> u32(16)).astype(u16)


def _widen(bits: A, kind: str) -> A:
    return fp.from_bf16(bits) if kind == "bf16" else bits.view(f16).astype(f32)


def _narrow(value: A, kind: str) -> A:
    """fp8 values are exact in both 16-bit formats."""
    return fp.to_bf16(value) if kind == "bf16" else value.astype(f16).view(u16)


for _kind in ("bf16", "f16"):

    @vector(f"v_cvt_scalef32_pk_fp8_{_kind}", signature="b32 = b32 f32 dst ovfl", modifiers=("op_sel",))
    def _scalef32_pk_fp8_16(pair: A, scale: A, old: A, ovfl: A, op_sel: int | tuple[int, ...], kind: str = _kind) -> A:
        _need_unit_scale(scale)
        low, high = (fp.OCP.encode(_widen(half, kind), ovfl) for half in _halves(pair))
        return _place(old, _pack(low, high, 8), _chosen_half(op_sel, 2, 3))

    @vector(f"v_cvt_scalef32_pk_{_kind}_fp8", signature="b32 = b32 f32", modifiers=("op_sel",))
    def _scalef32_pk_16_fp8(codes: A, scale: A, op_sel: int | tuple[int, ...], kind: str = _kind) -> A:
        _need_unit_scale(scale)
        low, high = _decode_pair(codes >> u32(16 * _chosen_half(op_sel, 0, 3)), fp.OCP)
        return _pack(_narrow(low, kind), _narrow(high, kind))


def _decode_pair(codes: A, source: fp.Fp8) -> tuple[A, A]:
    return source.decode(codes & u32(255)), source.decode((codes >> u32(8)) & u32(255))


def _join(low: A, high: A) -> A:
    return low.view(u32).astype(u64) | (high.view(u32).astype(u64) << u64(32))


@vector("v_cvt_scalef32_pk_f32_fp8", signature="b64 = b32 f32", modifiers=("op_sel",))
def _scalef32_pk_f32_fp8(codes: A, scale: A, op_sel: int | tuple[int, ...]) -> A:
    """op_sel[0] chooses the half of the source."""
    _need_unit_scale(scale)
    return _join(*_decode_pair(codes >> u32(16 * _chosen_half(op_sel, 0, 3)), fp.OCP))


@register("v_cvt_pk_f32_fp8", encodings=("e32", "sdwa"))
def _pk_f32_fp8(ins: Instruction, kernel: Kernel) -> VectorStep:
    source = fp8_of(kernel)
    return build_vector(ins, kernel, ["b64"], ["b16"], lambda codes: _join(*_decode_pair(codes.astype(u32), source)))


# ---- gfx1250: eight at a time


def _pk8_to_fp8(ins: Instruction, kernel: Kernel, kind: str) -> Step:
    """v_cvt_scalef32_pk8_fp8_*: eight values, divided by a float32 scale, to eight codes."""
    words = 8 if kind == "f32" else 4
    out, source = vector_index(ins.operands[0], 2, ins, kernel), vector_index(ins.operands[1], words, ins, kernel)
    if ins.operands[2].core != "1.0":
        raise ins.fail("only a scale of 1.0 is modelled")

    def run(waves: Waves) -> None:
        block = waves.v[source : source + words]
        values = [word.view(f32) for word in block] if kind == "f32" else [
            _widen(half, kind) for word in block for half in _halves(word)
        ]  # fmt: skip
        codes = [fp.OCP.encode(value, waves.fp16_ovfl[:, None]).astype(u32) for value in values]
        for i in range(2):
            four = codes[4 * i : 4 * i + 4]
            waves.write_vector(out + i, four[0] | four[1] << u32(8) | four[2] << u32(16) | four[3] << u32(24))

    return run


def _pk8_from_fp8(ins: Instruction, kernel: Kernel, kind: str) -> Step:
    """v_cvt_scale_pk8_*_fp8: eight codes, times an E8M0 scale, to eight values."""
    words = 8 if kind == "f32" else 4
    out, source = vector_index(ins.operands[0], words, ins, kernel), vector_index(ins.operands[1], 2, ins, kernel)
    if ins.operands[2].core != "0x7f":
        raise ins.fail("only a scale of 2^0 (0x7f) is modelled")

    def run(waves: Waves) -> None:
        codes = [(waves.v[source + i // 4] >> u32(8 * (i % 4))) & u32(255) for i in range(8)]
        values = [fp.OCP.decode(code) for code in codes]
        if kind == "f32":
            results = [value.view(u32) for value in values]
        else:
            halves = [_narrow(value, kind) for value in values]
            results = [_pack(halves[i], halves[i + 1]) for i in range(0, 8, 2)]
        for i, result in enumerate(results):
            waves.write_vector(out + i, result)

    return run


for _kind in ("f32", "f16", "bf16"):
    register(f"v_cvt_scalef32_pk8_fp8_{_kind}")(lambda ins, kernel, kind=_kind: _pk8_to_fp8(ins, kernel, kind))
    register(f"v_cvt_scale_pk8_{_kind}_fp8")(lambda ins, kernel, kind=_kind: _pk8_from_fp8(ins, kernel, kind))
