"""Matrix instructions: D = A B + C of one wave, whose lanes hold the elements between them. EXEC plays no part.

One instruction multiplies A[dim, k] by B[k, dim]. The sums themselves are in matrix_sums.py.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from . import fp, matrix_sums
from .errors import AmdgcnError
from .operands import Read, find_register, modifier_value, read_source, vector_index
from .parser import Instruction, Kernel, Operand
from .state import Waves
from .table import Step, register
from .vector_convert import fp8_of

A = np.ndarray
u8, u16, u32, f32, f64 = np.uint8, np.uint16, np.uint32, np.float32, np.float64
_LANES = 64
_WAVES_AT_ONCE = 8  # bounds the memory of the products
Sums = Callable[[A, A, A], A]


@dataclasses.dataclass(frozen=True)
class Shape:
    """Where the elements of one instruction live."""

    dim: int
    k: int
    element_bits: int

    @property
    def input_registers(self) -> int:
        return self.dim * self.k * self.element_bits // (32 * _LANES)

    @property
    def output_registers(self) -> int:
        return self.dim * self.dim // _LANES

    @functools.cached_property
    def input(self) -> tuple[A, A]:
        """Lane and position in the lane of input element [i, k]. A lane holds at most 16 neighbours in k at a time."""
        groups = _LANES // self.dim
        run = min(self.k // groups, 16)
        i, k = np.indices((self.dim, self.k))
        return self.dim * (k // run % groups) + i, run * (k // run // groups) + k % run

    @functools.cached_property
    def output(self) -> tuple[A, A]:
        """Lane and register of output element [i, j]: four rows of a column lie in neighbouring registers."""
        groups = _LANES // self.dim
        i, j = np.indices((self.dim, self.dim))
        return self.dim * (i // 4 % groups) + j, 4 * (i // (4 * groups)) + i % 4

    @functools.cached_property
    def scale_lane(self) -> A:
        """Lane of the scale of row i and of the block of 32 elements that k lies in, as [i, k]."""
        i, k = np.indices((self.dim, self.k))
        return i + self.dim * (k // 32)


# ---- registers to matrices and back


def _elements(waves: Waves, first: int, shape: Shape) -> A:
    """Codes of an input matrix [wave, i, k] as unsigned integers."""
    words = np.ascontiguousarray(np.moveaxis(waves.v[first : first + shape.input_registers], 0, -1))
    lane, position = shape.input
    return words.view({8: u8, 16: u16}[shape.element_bits])[:, lane, position]


def _accumulator(operand: Operand, shape: Shape, ins: Instruction, kernel: Kernel) -> Read:
    """C [wave, i, j]: registers laid out as the output, or a constant in every element."""
    if find_register(operand.core, ins, kernel) is None:
        constant = read_source(operand, "f32", ins, kernel)
        return lambda waves: np.broadcast_to(constant(waves)[..., None], (waves.shape[0], shape.dim, shape.dim))
    first = vector_index(operand, shape.output_registers, ins, kernel)
    lane, position = shape.output
    return lambda waves: waves.v[first + position, :, lane].transpose(2, 0, 1).view(f32)


def _write_output(waves: Waves, first: int, shape: Shape, value: A) -> None:
    lane, position = shape.output
    waves.v[first + position, :, lane] = value.view(u32).transpose(1, 2, 0)


# ---- formats


@dataclasses.dataclass(frozen=True)
class Format:
    """An input format: its decoder and CDNA3's way to add its products."""

    bits: int
    decode: Callable[[A, Kernel], A]
    cdna3: Sums


def _decode_fp8(codes: A, kernel: Kernel) -> A:
    return fp8_of(kernel).decode(codes)


_FORMATS = {
    "bf16": Format(16, lambda bits, kernel: fp.from_bf16(bits), matrix_sums.Cdna3(8, -126)),
    "f16": Format(16, lambda bits, kernel: bits.view(np.float16), matrix_sums.Cdna3(8, -14)),
    "fp8": Format(8, _decode_fp8, matrix_sums.Cdna3(16, -7, interleaved=True)),
}


def _sums(waves: Waves, format_: Format, kernel: Kernel) -> Sums:
    """How this launch adds: exactly or not at all, or by a model of the target."""
    if waves.batch.exact_sums:
        return matrix_sums.exact
    if kernel.arch == "gfx942":
        return format_.cdna3
    jitter = waves.batch.ulp_jitter
    if jitter is None:
        raise AmdgcnError(f"how {kernel.arch} rounds is not known: give it ulp_jitter")
    return lambda a, b, c: matrix_sums.jittered(a, b, c, jitter)


# ---- instructions


def _build(ins: Instruction, kernel: Kernel, shape: Shape, format_: Format, scales: tuple[Read, Read] | None) -> Step:
    inputs, outputs = shape.input_registers, shape.output_registers
    if kernel.arch not in ("gfx942", "gfx950"):
        raise ins.fail(f"the matrix instructions of {kernel.arch} are not modelled")
    out = vector_index(ins.operands[0], outputs, ins, kernel)
    sources = [vector_index(operand, inputs, ins, kernel) for operand in ins.operands[1:3]]
    read_c = _accumulator(ins.operands[3], shape, ins, kernel)

    def run(waves: Waves) -> None:
        a, b = (format_.decode(_elements(waves, first, shape), kernel).astype(f64) for first in sources)
        if scales:
            a, b = a * scales[0](waves), b * scales[1](waves)
        c, add = read_c(waves), _sums(waves, format_, kernel)
        parts = [slice(i, i + _WAVES_AT_ONCE) for i in range(0, len(a), _WAVES_AT_ONCE)]
        _write_output(waves, out, shape, np.concatenate([add(a[part], b[part], c[part]) for part in parts]))

    return run


def _plain(name: str, shape: Shape, format_: Format, archs: tuple[str, ...]) -> None:
    @register(name, encodings=("",))
    def build(ins: Instruction, kernel: Kernel) -> Step:
        if kernel.arch not in archs:
            raise ins.fail(f"{kernel.arch} does not have it")
        if len(ins.operands) != 4:
            raise ins.fail("4 operands wanted")
        return _build(ins, kernel, shape, format_, None)


_BOTH, _CDNA4 = ("gfx942", "gfx950"), ("gfx950",)
for _kind in ("bf16", "f16"):
    for _dim, _k, _archs in ((32, 8, _BOTH), (16, 16, _BOTH), (32, 16, _CDNA4), (16, 32, _CDNA4)):
        _plain(f"v_mfma_f32_{_dim}x{_dim}x{_k}_{_kind}", Shape(_dim, _k, 16), _FORMATS[_kind], _archs)
for _dim, _k in ((32, 16), (16, 32)):
    _plain(f"v_mfma_f32_{_dim}x{_dim}x{_k}_fp8_fp8", Shape(_dim, _k, 8), _FORMATS["fp8"], _BOTH)
# Without cbsz and blgp both inputs of these are E4M3.
for _dim, _k in ((32, 64), (16, 128)):
    _plain(f"v_mfma_f32_{_dim}x{_dim}x{_k}_f8f6f4", Shape(_dim, _k, 8), _FORMATS["fp8"], _CDNA4)


def _scale(operand: Operand, byte: int, shape: Shape, ins: Instruction, kernel: Kernel) -> Read:
    """The E8M0 scale of each element [wave, i, k], from one byte of a register."""
    first = vector_index(operand, 1, ins, kernel)

    def read(waves: Waves) -> A:
        code = (waves.v[first] >> u32(8 * byte) & u32(255)).astype(np.int32)
        return np.where(code == 255, np.nan, np.ldexp(1.0, code - 127))[:, shape.scale_lane]

    return read


def _bits(ins: Instruction, name: str) -> tuple[int, ...]:
    value = modifier_value(ins, name)
    if not isinstance(value, tuple) or len(value) != 3:
        raise ins.fail(f"{name} wants 3 bits")
    return value


def _scaled(name: str, shape: Shape) -> None:
    @register(name, modifiers=("op_sel", "op_sel_hi"), encodings=("",))
    def build(ins: Instruction, kernel: Kernel) -> Step:
        """op_sel and op_sel_hi are the low and the high bit of the byte that holds the scale."""
        if kernel.arch not in _CDNA4:
            raise ins.fail(f"{kernel.arch} does not have it")
        if len(ins.operands) != 6:
            raise ins.fail("6 operands wanted")
        low = _bits(ins, "op_sel") if "op_sel" in ins.modifiers else (0, 0, 0)
        high = _bits(ins, "op_sel_hi")  # LLVM always writes it
        scale_a, scale_b = (_scale(ins.operands[4 + i], low[i] + 2 * high[i], shape, ins, kernel) for i in range(2))
        return _build(ins, kernel, shape, _FORMATS["fp8"], (scale_a, scale_b))


for _dim, _k in ((32, 64), (16, 128)):
    _scaled(f"v_mfma_scale_f32_{_dim}x{_dim}x{_k}_f8f6f4", Shape(_dim, _k, 8))
