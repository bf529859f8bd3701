"""Sub-dword addressing (gfx9): sources and destination are bytes or halves of 32-bit registers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .parser import Instruction
from .state import Waves

u32 = np.uint32
# name -> (first bit, number of bits)
_SELECT = {"DWORD": (0, 32), "WORD_0": (0, 16), "WORD_1": (16, 16)} | {f"BYTE_{i}": (8 * i, 8) for i in range(4)}
Read = Callable[[Waves], np.ndarray]


class Sdwa:
    """Which bytes of the sources are read and of the destination written."""

    def __init__(self, ins: Instruction) -> None:
        self.sources = [self._field(ins, f"src{i}_sel") for i in range(2)]
        self.destination = self._field(ins, "dst_sel")
        unused = ins.modifiers.get("dst_unused", "UNUSED_PAD")
        if unused not in ("UNUSED_PAD", "UNUSED_PRESERVE"):
            raise ins.fail(f"dst_unused:{unused} is not modelled")
        self.preserve = unused == "UNUSED_PRESERVE"

    @staticmethod
    def _field(ins: Instruction, key: str) -> tuple[int, int]:
        name = ins.modifiers.get(key, "DWORD")
        if name not in _SELECT:
            raise ins.fail(f"unknown {key}:{name}")
        return _SELECT[name]

    def select(self, read: Read, position: int, sign_extend: bool) -> Read:
        """The selected field of a source, zero- or sign-extended to 32 bits."""
        first, bits = self.sources[position]
        left, right = u32(32 - bits - first), u32(32 - bits)
        if sign_extend:
            return lambda waves: ((read(waves) << left).view(np.int32) >> right.astype(np.int32)).view(u32)
        return lambda waves: (read(waves) << left) >> right

    def write(self, index: int) -> Callable[[Waves, np.ndarray, np.ndarray | None], None]:
        """Places the low bits of a result in the chosen field; the rest is zero (PAD) or kept (PRESERVE)."""
        first, bits = self.destination
        field = u32(((1 << bits) - 1) << first)

        def run(waves: Waves, value: np.ndarray, lanes: np.ndarray | None) -> None:
            whole = value.view(np.uint16).astype(u32) if value.dtype.itemsize == 2 else value.view(u32)
            placed = (whole << u32(first)) & field
            if self.preserve:
                placed = placed | (waves.v[index] & ~field)
            waves.write_vector(index, placed, lanes)

        return run
