"""Local data share: the memory of a work-group. Out-of-bounds accesses raise; unwritten bytes are poison."""

from __future__ import annotations

import numpy as np

from .errors import AmdgcnError
from .memory import Access, gather, put_loaded, scatter, take_stored
from .operands import modifier_number, vector_index
from .parser import Instruction, Kernel
from .state import Waves
from .table import Step, register

A = np.ndarray
u32 = np.uint32
POISON = 0xA5


class Lds:
    """The LDS of every work-group of a batch, one after the other in one byte array."""

    def __init__(self, workgroups: int, size: int) -> None:
        self._size, self._pitch = size, -(-size // 16) * 16
        self._space = np.full(workgroups * self._pitch, POISON, np.uint8)

    def _locate(self, workgroup: A, addresses: A, size: int) -> A:
        if addresses.size and int(addresses.max()) + size > self._size:
            raise AmdgcnError(f"LDS access of {size} bytes at {int(addresses.max()):#x}, beyond {self._size:#x}")
        return workgroup * self._pitch + addresses

    def load(self, workgroup: A, addresses: A, size: int) -> A:
        return gather(self._space, self._locate(workgroup, addresses, size), size)

    def store(self, workgroup: A, addresses: A, words: A, size: int) -> None:
        scatter(self._space, self._locate(workgroup, addresses, size), words, size)


def _active(waves: Waves, address_register: int, offset: int) -> tuple[A, A]:
    """Work-group and byte address of every active lane."""
    workgroup = np.broadcast_to(waves.workgroup[:, None], waves.shape)[waves.exec]
    return workgroup, waves.v[address_register][waves.exec].astype(np.int64) + offset


def _load(waves: Waves, access: Access, address_register: int, offset: int) -> A:
    workgroup, addresses = _active(waves, address_register, offset)
    return waves.batch.lds.load(workgroup, addresses, access.size)


# ---- one element

_WIDE = {"b32": 4, "b64": 8, "b96": 12, "b128": 16}
_LOADS = {name: Access(size) for name, size in _WIDE.items()} | {
    "u8": Access(1), "i8": Access(1, True), "u16": Access(2), "i16": Access(2, True),
    "u8_d16": Access(1, half="low"), "u8_d16_hi": Access(1, half="high"),
    "u16_d16": Access(2, half="low"), "u16_d16_hi": Access(2, half="high"),
}  # fmt: skip
_STORES = {name: Access(size) for name, size in _WIDE.items()} | {
    "b8": Access(1), "b16": Access(2), "b8_d16_hi": Access(1, half="high"), "b16_d16_hi": Access(2, half="high"),
}  # fmt: skip

for _name, _access in _LOADS.items():

    @register(f"ds_read_{_name}", f"ds_load_{_name}", modifiers=("offset",), encodings=("",))
    def _read_one(ins: Instruction, kernel: Kernel, access: Access = _access) -> Step:
        if kernel.is_gfx9 and access.half:
            raise ins.fail("loads into a register half depend on ECC on gfx9")
        out = vector_index(ins.operands[0], access.words, ins, kernel)
        address, offset = vector_index(ins.operands[1], 1, ins, kernel), modifier_number(ins, "offset")

        def run(waves: Waves) -> None:
            put_loaded(waves, out, access, waves.exec, _load(waves, access, address, offset))

        return run


for _name, _access in _STORES.items():

    @register(f"ds_write_{_name}", f"ds_store_{_name}", modifiers=("offset",), encodings=("",))
    def _write_one(ins: Instruction, kernel: Kernel, access: Access = _access) -> Step:
        address = vector_index(ins.operands[0], 1, ins, kernel)
        source, offset = vector_index(ins.operands[1], access.words, ins, kernel), modifier_number(ins, "offset")

        def run(waves: Waves) -> None:
            workgroup, addresses = _active(waves, address, offset)
            words = take_stored(waves, source, access, waves.exec)
            waves.batch.lds.store(workgroup, addresses, words, access.size)

        return run


# ---- two elements: the two offsets count elements, or 64 elements in the st64 forms


def _two_offsets(ins: Instruction, size: int, stride: int) -> list[int]:
    return [modifier_number(ins, name) * size * stride for name in ("offset0", "offset1")]


for _kind, _size in (("b32", 4), ("b64", 8)):
    for _old, _new, _stride in (("2", "_2addr", 1), ("2st64", "_2addr_stride64", 64)):

        @register(f"ds_read{_old}_{_kind}", f"ds_load{_new}_{_kind}", modifiers=("offset0", "offset1"), encodings=("",))
        def _read_two(ins: Instruction, kernel: Kernel, size: int = _size, stride: int = _stride) -> Step:
            access = Access(size)
            out = vector_index(ins.operands[0], 2 * access.words, ins, kernel)
            address, offsets = vector_index(ins.operands[1], 1, ins, kernel), _two_offsets(ins, size, stride)

            def run(waves: Waves) -> None:
                # both are read before either is written: the address may be one of the results
                data = [_load(waves, access, address, offset) for offset in offsets]
                for i, words in enumerate(data):
                    put_loaded(waves, out + i * access.words, access, waves.exec, words)

            return run

        @register(
            f"ds_write{_old}_{_kind}", f"ds_store{_new}_{_kind}", modifiers=("offset0", "offset1"), encodings=("",)
        )
        def _write_two(ins: Instruction, kernel: Kernel, size: int = _size, stride: int = _stride) -> Step:
            access, offsets = Access(size), _two_offsets(ins, size, stride)
            address = vector_index(ins.operands[0], 1, ins, kernel)
            sources = [vector_index(op, access.words, ins, kernel) for op in ins.operands[1:]]

            def run(waves: Waves) -> None:
                for source, offset in zip(sources, offsets, strict=True):
                    workgroup, addresses = _active(waves, address, offset)
                    words = take_stored(waves, source, access, waves.exec)
                    waves.batch.lds.store(workgroup, addresses, words, size)

            return run


# ---- transposed: rows of 16 elements in memory become the columns of 16 lanes


def _transposed(name: str, dtype: type) -> None:
    """Each lane loads 8 bytes. Of the rows that 16 lanes have loaded so, lane i gets element i of every row."""
    count = 8 // np.dtype(dtype).itemsize
    lane, row = np.arange(64)[:, None], np.arange(count)
    source = (lane & ~15) + row * (16 // count) + lane % 16 // count

    @register(name, modifiers=("offset",), encodings=("",))
    def build(ins: Instruction, kernel: Kernel) -> Step:
        if kernel.arch != "gfx950":
            raise ins.fail(f"{kernel.arch} does not have it")
        out, address = vector_index(ins.operands[0], 2, ins, kernel), vector_index(ins.operands[1], 1, ins, kernel)
        offset = modifier_number(ins, "offset")

        def run(waves: Waves) -> None:
            if not waves.full:
                raise AmdgcnError("transposing with inactive lanes is not modelled")
            rows = _load(waves, Access(8), address, offset).view(dtype).reshape(*waves.shape, count)
            columns = np.ascontiguousarray(rows[:, source, lane % count]).view(u32)
            for i in range(2):
                waves.v[out + i] = columns[..., i]

        return run


_transposed("ds_read_b64_tr_b16", np.uint16)
_transposed("ds_read_b64_tr_b8", np.uint8)
