"""Data-parallel primitives: the first source comes from another lane of the same row of 16."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .parser import Instruction, Kernel
from .state import Waves

_CONTROLS = frozenset((
    "quad_perm", "row_shl", "row_shr", "row_ror", "row_mirror", "row_half_mirror", "row_share", "row_xmask",
    "row_newbcast", "row_bcast",
))  # fmt: skip
_GFX9_ONLY = frozenset(("row_bcast", "row_newbcast"))
_GFX10_ONLY = frozenset(("row_share", "row_xmask"))


class Dpp:
    """Which lane each lane reads, which of those exist, and which lanes are written."""

    def __init__(self, ins: Instruction, kernel: Kernel) -> None:
        self.source, self.exists = _source_lanes(ins, kernel)
        row_mask, bank_mask = (int(ins.modifiers.get(key, "0xf"), 0) for key in ("row_mask", "bank_mask"))
        lane = np.arange(kernel.wave_size)
        # Rows are 16 lanes and banks 4; a cleared bit leaves the destination of those lanes alone.
        self.enabled = ((row_mask >> (lane // 16)) & (bank_mask >> (lane % 16 // 4)) & 1).astype(bool)
        # bound_ctrl:1 reads 0 for a lane that does not exist or is inactive; otherwise that lane is not written.
        if ins.modifiers.get("bound_ctrl", "1") != "1" or ins.modifiers.get("fi", "1") != "1":
            raise ins.fail("unknown value of bound_ctrl or fi")
        self.zero_fill = "bound_ctrl" in ins.modifiers
        self.fetch_inactive = "fi" in ins.modifiers  # FI: inactive lanes count as existing
        if self.fetch_inactive and kernel.is_gfx9:
            raise ins.fail("fi does not exist on gfx9")

    @property
    def may_skip_lanes(self) -> bool:
        return not (self.zero_fill and self.enabled.all())

    def _valid(self, waves: Waves) -> np.ndarray:
        if self.fetch_inactive or waves.full:
            return self.exists[None, :]
        return self.exists & waves.exec[:, self.source]

    def permuted(self, read: Callable[[Waves], np.ndarray]) -> Callable[[Waves], np.ndarray]:
        def run(waves: Waves) -> np.ndarray:
            values = np.broadcast_to(read(waves), waves.shape)[:, self.source]
            return np.where(self._valid(waves), values, values.dtype.type(0))

        return run

    def written_lanes(self, waves: Waves) -> np.ndarray | None:
        if not self.may_skip_lanes:
            return None
        return self.enabled if self.zero_fill else self.enabled & self._valid(waves)


def _source_lanes(ins: Instruction, kernel: Kernel) -> tuple[np.ndarray, np.ndarray]:
    controls = [name for name in ins.modifiers if name in _CONTROLS]
    if len(controls) != 1:
        raise ins.fail("one DPP control wanted")
    control, value = controls[0], ins.modifiers[controls[0]]
    if control in (_GFX10_ONLY if kernel.is_gfx9 else _GFX9_ONLY):
        raise ins.fail(f"{control} does not exist on {kernel.arch}")
    lane = np.arange(kernel.wave_size)
    row, column = lane & ~15, lane & 15
    exists = np.ones(kernel.wave_size, bool)
    if control == "quad_perm":
        quad = np.array([int(text) for text in value.strip("[]").split(",")])
        source = (lane & ~3) + quad[lane & 3]
    elif control == "row_mirror":
        source = row + 15 - column
    elif control == "row_half_mirror":
        source = row + (column ^ 7)
    elif control == "row_bcast":
        source, exists = _broadcast_last(int(value), lane, ins)
    else:
        n = int(value)
        if not 0 <= n <= 15:
            raise ins.fail(f"{control}:{n} is out of range")
        column_from = {
            "row_shl": column + n,
            "row_shr": column - n,
            "row_ror": (column - n) & 15,
            "row_share": np.full_like(column, n),
            "row_newbcast": np.full_like(column, n),
            "row_xmask": column ^ n,
        }[control]
        exists = (column_from >= 0) & (column_from < 16)
        source = row + column_from
    return np.where(exists, source, 0), exists


def _broadcast_last(n: int, lane: np.ndarray, ins: Instruction) -> tuple[np.ndarray, np.ndarray]:
    """row_bcast:15 hands lane 15 of each row to the next row; row_bcast:31 hands lane 31 to the upper half."""
    if n == 15:
        return (lane & ~15) - 1, lane >= 16
    if n == 31:
        return np.full_like(lane, 31), lane >= 32
    raise ins.fail(f"row_bcast:{n} does not exist")
