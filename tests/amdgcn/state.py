"""The registers of a group of waves that stand at the same instruction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .machine import Batch

# Scalar register file: s0..s105, VCC, trap temporaries, M0 and EXEC at their hardware numbers.
VCC, TTMP, M0, EXEC, NUM_SREGS = 106, 108, 124, 126, 128


class Waves:
    """Waves at one pc. `v[register, wave, lane]` and `s[register, wave]` are uint32; `exec[wave, lane]` is EXEC."""

    __slots__ = ("batch", "exec", "fp16_ovfl", "full", "pc", "s", "scc", "v", "workgroup")

    def __init__(
        self,
        batch: Batch,
        v: np.ndarray,
        s: np.ndarray,
        scc: np.ndarray,
        fp16_ovfl: np.ndarray,
        workgroup: np.ndarray,
        pc: int,
    ) -> None:
        self.batch, self.v, self.s, self.scc, self.pc = batch, v, s, scc, pc
        self.fp16_ovfl = fp16_ovfl  # MODE.FP16_OVFL: conversions to 8- and 16-bit floats saturate
        self.workgroup = workgroup  # of each wave, counted within the batch
        self.refresh_exec()

    @property
    def lanes(self) -> int:
        return self.v.shape[2]

    @property
    def shape(self) -> tuple[int, int]:
        return self.v.shape[1:]

    def take(self, waves: np.ndarray, pc: int) -> Waves:
        """The chosen waves alone, at another pc."""
        parts = (self.v[:, waves], self.s[:, waves], self.scc[waves], self.fp16_ovfl[waves], self.workgroup[waves])
        return Waves(self.batch, *parts, pc)

    @staticmethod
    def merge(groups: list[Waves]) -> Waves:
        first = groups[0]
        join = [
            np.concatenate([getattr(g, name) for g in groups], axis)
            for name, axis in (("v", 1), ("s", 1), ("scc", 0), ("fp16_ovfl", 0), ("workgroup", 0))
        ]
        return Waves(first.batch, *join, first.pc)

    def refresh_exec(self) -> None:
        self.exec = self.read_mask(EXEC)
        self.full = bool(self.exec.all())

    def read_mask(self, index: int) -> np.ndarray:
        """A lane mask in scalar registers, as bool[wave, lane]."""
        words = np.ascontiguousarray(self.s[index : index + self.lanes // 32].T)
        return np.unpackbits(words.view(np.uint8), axis=1, bitorder="little").view(bool)

    def write_mask(self, index: int, mask: np.ndarray) -> None:
        """Stores a lane mask. VALU results are zero for inactive lanes: the caller has applied EXEC where it must."""
        mask = np.broadcast_to(mask, self.shape)
        words = np.packbits(mask, axis=1, bitorder="little").view(np.uint32)
        self.s[index : index + self.lanes // 32] = words.T
        if index == EXEC:
            self.refresh_exec()

    def write_scalar(self, index: int, words: tuple[np.ndarray, ...]) -> None:
        for i, word in enumerate(words):
            self.s[index + i] = word
        if EXEC - len(words) < index <= EXEC + 1:
            self.refresh_exec()

    def write_vector(self, index: int, value: np.ndarray, mask: np.ndarray | None = None) -> None:
        """Writes one vector register in the active lanes, further limited to `mask`."""
        if mask is not None:
            np.copyto(self.v[index], value, where=self.exec & mask)
        elif self.full:
            self.v[index][...] = value
        else:
            np.copyto(self.v[index], value, where=self.exec)
