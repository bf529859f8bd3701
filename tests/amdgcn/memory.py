"""Global memory: the address space of one launch, and scalar, global and buffer accesses to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from .errors import AmdgcnError
from .operands import find_register, modifier_number, read_source, scalar_index, vector_index
from .parser import Instruction, Kernel, Operand
from .scalar import read_pair
from .state import M0, Waves
from .table import Step, register

A = np.ndarray
u8, u16, u32, u64, i32, i64 = np.uint8, np.uint16, np.uint32, np.uint64, np.int32, np.int64

# ---- bytes to registers and back; LDS uses these too


def gather(space: A, offsets: A, size: int) -> A:
    """`size` bytes at each offset of a byte array, as uint32[access, words]; short values are zero-extended."""
    if size >= 4 and not (offsets & 3).any():
        return space.view(u32)[(offsets >> 2)[:, None] + np.arange(size // 4)]
    data = space[offsets[:, None] + np.arange(size)]
    if size < 4:
        data = np.pad(data, ((0, 0), (0, 4 - size)))
    return np.ascontiguousarray(data).view(u32)


def scatter(space: A, offsets: A, words: A, size: int) -> None:
    """The inverse of gather. Where lanes write the same byte, the highest lane of the last wave wins."""
    if size >= 4 and not (offsets & 3).any():
        space.view(u32)[(offsets >> 2)[:, None] + np.arange(size // 4)] = words
    else:
        space[offsets[:, None] + np.arange(size)] = np.ascontiguousarray(words).view(u8)[:, :size]


class Memory:
    """The buffers of one launch at addresses far from each other and from zero; everything else is out of bounds."""

    # Buffers begin just below a 4 GiB line, so that carries into the high half of addresses matter.
    BASE, GUARD, ALIGN = 0x7EFE_FFFF_F000, 0x1000, 0x100

    def __init__(self, buffers: list[A], read_only: set[int]) -> None:
        starts, position = [], 0
        for buffer in buffers:
            starts.append(position)
            position = -(-(position + buffer.nbytes + self.GUARD) // self.ALIGN) * self.ALIGN
        self._space = np.zeros(position + self.GUARD, u8)
        self._starts = np.array(starts, i64)
        self._sizes = np.array([buffer.nbytes for buffer in buffers], i64)
        self._buffers, self._dirty = buffers, np.zeros(len(buffers), bool)
        self._writable = np.array([i not in read_only for i in range(len(buffers))])
        for index in range(len(buffers)):
            self.upload(index)

    def address(self, index: int) -> int:
        return self.BASE + int(self._starts[index])

    def upload(self, index: int) -> None:
        buffer, start = self._buffers[index], self._starts[index]
        self._space[start : start + buffer.nbytes] = buffer.reshape(-1).view(u8)

    def write_back(self) -> None:
        """Copies what was stored into the caller's arrays. Some may be parts of one, with changes of their own each."""
        changes = []
        for i in np.flatnonzero(self._dirty):
            buffer, start = self._buffers[i].reshape(-1).view(u8), self._starts[i]
            stored = self._space[start : start + buffer.nbytes]
            changes.append((buffer, stored, buffer != stored))
        for buffer, stored, changed in changes:
            np.copyto(buffer, stored, where=changed)

    def _locate(self, addresses: A, size: int) -> tuple[A, A]:
        """Offsets into the space and buffer numbers; raises unless every access lies within one buffer."""
        offsets = (addresses - u64(self.BASE)).view(i64)
        owner = np.searchsorted(self._starts, offsets, side="right") - 1
        inside = (owner >= 0) & (offsets - self._starts[owner] <= self._sizes[owner] - size)
        if not inside.all():
            raise AmdgcnError(f"access of {size} bytes at {int(addresses[~inside][0]):#x} is in no buffer")
        return offsets, owner

    def load(self, addresses: A, size: int) -> A:
        if not addresses.size:
            return np.zeros((0, max(1, size // 4)), u32)
        return gather(self._space, self._locate(addresses, size)[0], size)

    def store(self, addresses: A, words: A, size: int) -> None:
        if not addresses.size:
            return
        offsets, owner = self._locate(addresses, size)
        if not self._writable[owner].all():
            raise AmdgcnError("store to read-only memory")
        self._dirty[owner] = True
        scatter(self._space, offsets, words, size)


# ---- what an access moves


@dataclasses.dataclass(frozen=True)
class Access:
    """`half` is which 16-bit half of the register takes part; loads into a half keep the other one."""

    size: int
    signed: bool = False
    half: str = ""

    @property
    def words(self) -> int:
        return max(1, self.size // 4)


_WIDE = {"b32": 4, "b64": 8, "b96": 12, "b128": 16, "dword": 4, "dwordx2": 8, "dwordx3": 12, "dwordx4": 16}
LOADS = {name: Access(size) for name, size in _WIDE.items()} | {
    "ubyte": Access(1), "u8": Access(1), "sbyte": Access(1, True), "i8": Access(1, True),
    "ushort": Access(2), "u16": Access(2), "sshort": Access(2, True), "i16": Access(2, True),
    "d16_u8": Access(1, half="low"), "d16_hi_u8": Access(1, half="high"),
    "d16_i8": Access(1, True, half="low"), "d16_hi_i8": Access(1, True, half="high"),
    "d16_b16": Access(2, half="low"), "d16_hi_b16": Access(2, half="high"),
}  # fmt: skip
STORES = {name: Access(size) for name, size in _WIDE.items()} | {
    "byte": Access(1), "b8": Access(1), "short": Access(2), "b16": Access(2),
    "byte_d16_hi": Access(1, half="high"), "d16_hi_b8": Access(1, half="high"),
    "short_d16_hi": Access(2, half="high"), "d16_hi_b16": Access(2, half="high"),
}  # fmt: skip


def put_loaded(waves: Waves, register_index: int, access: Access, active: A, data: A) -> None:
    """Loaded words to registers of the active lanes."""
    if access.signed:
        shift = u32(32 - 8 * access.size)
        data = ((data << shift).view(i32) >> shift.astype(i32)).view(u32)
    for i in range(access.words):
        target = waves.v[register_index + i]
        word = data[:, i]
        if access.half == "low":
            word = (target[active] & u32(0xFFFF0000)) | (word & u32(0xFFFF))
        elif access.half == "high":
            word = (target[active] & u32(0xFFFF)) | (word << u32(16))
        target[active] = word


def take_stored(waves: Waves, register_index: int, access: Access, active: A) -> A:
    words = np.stack([waves.v[register_index + i][active] for i in range(access.words)], axis=1)
    return words >> u32(16) if access.half == "high" else words


# ---- scalar loads

for _name, _count in {"dword": 1, "b32": 1, "dwordx2": 2, "b64": 2, "b96": 3, "dwordx4": 4, "b128": 4,
                      "dwordx8": 8, "b256": 8, "dwordx16": 16, "b512": 16}.items():  # fmt: skip

    @register(f"s_load_{_name}", modifiers=("nv", "offset"), encodings=("",))
    def _s_load(ins: Instruction, kernel: Kernel, count: int = _count) -> Step:
        """Base pair plus an offset: a constant, or a register plus the offset modifier. `nv` is a cache hint."""
        out, base = scalar_index(ins.operands[0], count, ins, kernel), scalar_index(ins.operands[1], 2, ins, kernel)
        moving = find_register(ins.operands[2].core, ins, kernel) is not None
        read = read_source(ins.operands[2], "u32" if moving else "i64", ins, kernel)
        fixed = modifier_number(ins, "offset")

        def run(waves: Waves) -> None:
            address = read_pair(waves, base) + read(waves)[:, 0].astype(u64) + u64(fixed)
            # the hardware drops the two low bits; a compiler never relies on it
            if (address & u64(3)).any():
                raise AmdgcnError("unaligned scalar load")
            data = waves.batch.memory.load(address, 4 * count)
            waves.write_scalar(out, tuple(data[:, i] for i in range(count)))

        return run


# ---- global and buffer accesses

Address = Callable[[Waves], tuple[A, A]]  # addresses and which lanes take part, both [wave, lane]
# hints, without meaning for one device's memory
_CACHE = ("sc0", "sc1", "nt", "glc", "slc", "dlc", "nv", "th", "scope")


def _global_address(vaddr: Operand, saddr: Operand, size: int, ins: Instruction, kernel: Kernel) -> Address:
    """64 bits in vector registers, or a scalar base and a 32-bit vector offset; plus the signed offset modifier."""
    fixed = np.array(modifier_number(ins, "offset"), i64).view(u64)
    if saddr.core == "off":
        if "scale_offset" in ins.modifiers:
            raise ins.fail("scale_offset without a scalar base")
        whole = read_source(vaddr, "u64", ins, kernel)
        return lambda waves: (np.broadcast_to(whole(waves) + fixed, waves.shape), waves.exec)
    base = scalar_index(saddr, 2, ins, kernel)
    index = vector_index(vaddr, 1, ins, kernel)
    scale = u64(size if "scale_offset" in ins.modifiers else 1)
    signed = kernel.arch == "gfx1250"  # the vector offset is signed there, unsigned before

    def run(waves: Waves) -> tuple[A, A]:
        lanes = waves.v[index]
        offset = lanes.view(i32).astype(i64).view(u64) if signed else lanes.astype(u64)
        return offset * scale + read_pair(waves, base)[:, None] + fixed, waves.exec

    return run


def _descriptor(words: list[A], arch: str) -> tuple[A, A]:
    """Base address and number of bytes of a raw buffer (stride 0, no swizzle)."""
    w0, w1, w2, w3 = (word.astype(u64) for word in words)
    if arch == "gfx1250":  # 57-bit base, then 45 bits of size
        base = w0 | ((w1 & u64(0x1FFFFFF)) << u64(32))
        return base, (w1 >> u64(25)) | (w2 << u64(7)) | ((w3 & u64(0x3F)) << u64(39))
    if (w1 >> u64(16)).any():
        raise AmdgcnError("buffer descriptor with a stride or swizzle")
    add_tid = w3 >> u64(23) & u64(1)  # gfx9 and later: the lane number would be added to the index
    if add_tid.any():
        raise AmdgcnError("buffer descriptor that adds the lane number")
    return w0 | ((w1 & u64(0xFFFF)) << u64(32)), w2


def _buffer_address(
    vaddr: Operand, rsrc: Operand, soffset: Operand, size: int, ins: Instruction, kernel: Kernel
) -> Address:
    """Offsets at or past the descriptor's size are architected: such loads give 0 and such stores are dropped.

    Without ``offen`` all lanes access one address.
    """
    if ("offen" in ins.modifiers) == (vaddr.core == "off"):
        raise ins.fail("a vector offset and offen go together")
    lanes = None if vaddr.core == "off" else vector_index(vaddr, 1, ins, kernel)
    words = scalar_index(rsrc, 4, ins, kernel)
    extra, fixed = read_source(soffset, "u32", ins, kernel), u64(modifier_number(ins, "offset"))

    def run(waves: Waves) -> tuple[A, A]:
        base, limit = _descriptor([waves.s[words + i] for i in range(4)], kernel.arch)
        own = np.zeros(waves.shape, u64) if lanes is None else waves.v[lanes].astype(u64)
        offset = own + extra(waves).astype(u64) + fixed
        inside = offset < limit[:, None]
        if (waves.exec & inside & (offset + u64(size) > limit[:, None])).any():
            raise AmdgcnError("access across the end of a buffer descriptor is not modelled")
        return base[:, None] + offset, waves.exec & inside

    return run


def _load_step(out: int, access: Access, address: Address, zero_outside: bool) -> Step:
    def run(waves: Waves) -> None:
        addresses, active = address(waves)
        data = waves.batch.memory.load(addresses[active], access.size)
        put_loaded(waves, out, access, active, data)
        if zero_outside:
            outside = waves.exec & ~active
            if outside.any():
                put_loaded(waves, out, access, outside, np.zeros((int(outside.sum()), access.words), u32))

    return run


def _store_step(source: int, access: Access, address: Address) -> Step:
    def run(waves: Waves) -> None:
        addresses, active = address(waves)
        waves.batch.memory.store(addresses[active], take_stored(waves, source, access, active), access.size)

    return run


def _to_lds_step(ins: Instruction, kernel: Kernel, size: int, address: Address) -> Step:
    """Into LDS, past the registers: the lanes of a wave write side by side from M0 on.

    The offset modifier moves both addresses. A lane beyond the end of a buffer writes zeros, an inactive one nothing.
    """
    if size < 4 or (size > 4 and kernel.arch != "gfx950"):
        raise ins.fail(f"{kernel.arch} does not load {size} bytes a lane into LDS")
    fixed = modifier_number(ins, "offset")

    def run(waves: Waves) -> None:
        addresses, inside = address(waves)
        words = np.zeros((*waves.shape, size // 4), u32)
        words[inside] = waves.batch.memory.load(addresses[inside], size)
        target = waves.s[M0].astype(i64)[:, None] + fixed + size * np.arange(waves.lanes)
        workgroup = np.broadcast_to(waves.workgroup[:, None], waves.shape)
        waves.batch.lds.store(workgroup[waves.exec], target[waves.exec], words[waves.exec], size)

    return run


def _check_half(access: Access, ins: Instruction, kernel: Kernel) -> None:
    if kernel.is_gfx9 and access.half and "load" in ins.name:
        raise ins.fail("loads into a register half depend on ECC on gfx9")


for _name, _access in LOADS.items():

    @register(f"global_load_{_name}", modifiers=("offset", "scale_offset", *_CACHE), encodings=("",))
    def _global_load(ins: Instruction, kernel: Kernel, access: Access = _access) -> Step:
        _check_half(access, ins, kernel)
        data, vaddr, saddr = ins.operands
        address = _global_address(vaddr, saddr, access.size, ins, kernel)
        return _load_step(vector_index(data, access.words, ins, kernel), access, address, zero_outside=False)

    @register(f"buffer_load_{_name}", modifiers=("offset", "offen", "lds", *_CACHE), encodings=("",))
    def _buffer_load(ins: Instruction, kernel: Kernel, access: Access = _access) -> Step:
        _check_half(access, ins, kernel)
        if "lds" in ins.modifiers:
            address = _buffer_address(*ins.operands, access.size, ins, kernel)
            return _to_lds_step(ins, kernel, access.size, address)
        data, vaddr, rsrc, soffset = ins.operands
        address = _buffer_address(vaddr, rsrc, soffset, access.size, ins, kernel)
        return _load_step(vector_index(data, access.words, ins, kernel), access, address, zero_outside=True)


for _name in ("dword", "dwordx3", "dwordx4"):

    @register(f"global_load_lds_{_name}", modifiers=("offset", *_CACHE), encodings=("",))
    def _global_load_lds(ins: Instruction, kernel: Kernel, size: int = LOADS[_name].size) -> Step:
        return _to_lds_step(ins, kernel, size, _global_address(*ins.operands, size, ins, kernel))


for _name, _access in STORES.items():

    @register(f"global_store_{_name}", modifiers=("offset", "scale_offset", *_CACHE), encodings=("",))
    def _global_store(ins: Instruction, kernel: Kernel, access: Access = _access) -> Step:
        vaddr, data, saddr = ins.operands
        address = _global_address(vaddr, saddr, access.size, ins, kernel)
        return _store_step(vector_index(data, access.words, ins, kernel), access, address)

    @register(f"buffer_store_{_name}", modifiers=("offset", "offen", *_CACHE), encodings=("",))
    def _buffer_store(ins: Instruction, kernel: Kernel, access: Access = _access) -> Step:
        data, vaddr, rsrc, soffset = ins.operands
        address = _buffer_address(vaddr, rsrc, soffset, access.size, ins, kernel)
        return _store_step(vector_index(data, access.words, ins, kernel), access, address)
