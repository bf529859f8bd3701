"""How many rows and columns a program takes, and with how many warps.

A tile is the unit of work of every kernel here: [ROWS, COLS] elements, both powers of two. Its shape decides speed, never
bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from m3ops.target import Target


@dataclass(frozen=True)
class Tiling:
    """Programs, tile shape and warps of one launch."""

    grid: int
    rows: int
    cols: int
    masked: bool
    num_warps: int

    @property
    def constants(self) -> dict[str, Any]:
        """Constexpr arguments common to all kernels."""
        return {"ROWS": self.rows, "COLS": self.cols, "MASKED": self.masked}


def tiling(num_rows: int, size: int, rows: int, cols: int, num_warps: int) -> Tiling:
    """The launch that covers ``num_rows`` x ``size`` elements with tiles of ``rows`` x ``cols``."""
    grid = -(-num_rows // rows) * -(-size // cols)
    if grid >= 2**31:
        raise ValueError(f"{num_rows} rows of {size} elements need {grid} programs, more than a grid holds (2**31 - 1)")
    masked = num_rows % rows != 0 or size % cols != 0
    return Tiling(grid, rows, cols, masked, num_warps)


def column_tiling(num_rows: int, size: int, target: Target) -> Tiling:
    """Tiles for ops whose elements or blocks of 32 are independent."""
    cols = min(max(size & -size, 32), 1024)  # the largest power of two that divides the row leaves no edge
    if cols < 128:
        cols = min(power_of_two_at_least(size), 1024)
    rows = max(1, min(1024 // cols, power_of_two_at_least(num_rows)))
    return tiling(num_rows, size, rows, max(cols, 32), 4 if rows * cols >= 1024 else 1)


def row_tiling(num_rows: int, size: int, target: Target) -> Tiling:
    """Tiles for ops that reduce a whole row."""
    cols = max(power_of_two_at_least(size), 32)
    rows = max(1, min(4096 // cols, power_of_two_at_least(num_rows)))
    elements = rows * cols
    return tiling(num_rows, size, rows, cols, max(1, min(16, elements // 512)))


def power_of_two_at_least(n: int) -> int:
    return 1 << max(n - 1, 0).bit_length()
