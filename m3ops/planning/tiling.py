"""How many rows and columns a program takes, and with how many warps: the numbers that decide speed, never bytes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from m3ops.target import Target
from m3ops.tiles.rows import Tile

FULL = 2048
"""Elements of a full tile of an element-wise op, 32 a thread in 2 warps: each thread has to hold enough independent
loads and arithmetic to hide latency. swiglu_oai_quantize of (65536, 3072), fraction of copy bandwidth: 2 x 1024 in 2
warps 1.00 on the H100 and 0.95 on the H200, 1 x 1024 in 2 warps 1.00 and 0.90; 4 x 256 in 8 warps 0.75 on the H100.
"""

SMALL = 512
"""Elements of a tile where full ones would leave multiprocessors idle, 4 a thread."""

ROW_TILE = 1024
"""Elements that short rows are gathered to where a whole row is reduced. Norm of rows of 128: one row a program reads
0.28 of copy bandwidth on the H100, 8 rows in 2 warps 0.98 (H200 0.98), 32 with residual add in 4 warps 0.44.
"""

WIDEST_TILE = 8192
"""Columns of the widest part; wider rows take several. us on the H200, for 2**27 elements in rows of 16384, 32768
and 65536: 126, 127 and 148 (torch.compile 130, 127 and 191), in one tile each 195, 159 and 602.
"""

WIDEST_KEPT = 12288
"""Columns of the widest row that a program keeps in registers between its two uses. Norms of rows of 16384, 32768 and
65536 on the H100, us: kept 213, 178 and 1091, read twice in 32 warps 175, 178 and 207 (torch.compile 307, 374 and 593).
"""


TALL = 32, 128
"""Rows and columns of a full tile of a matrix that is also stored transposed: one block high, so that a thread holds
much of a column, and no part of another block. Of 8192 x 6144 the H200 stores the transposed matrix in 57 us and both
in 73, where copies take 38 and 50. Others were not timed: for the H100 the kernel that stores both has 19 instructions
an element with 64 elements a thread, 24 in tiles of 64 x 128, 27 with 32 a thread, 37 in 128 x 128.
"""


@dataclass(frozen=True)
class Tiling:
    """Tile, number of tiles and warps of one launch."""

    tile: Tile
    num_tiles: int
    num_warps: int


def tiling(total_rows: int, size: int, rows: int, cols: int, num_warps: int) -> Tiling:
    """The tiling that covers ``total_rows`` x ``size`` elements with tiles of ``rows`` x ``cols``."""
    num_tiles = -(-total_rows // rows) * -(-size // cols)
    if num_tiles >= 2**31:
        raise ValueError(
            f"{total_rows} rows of {size} elements need {num_tiles} programs, more than a grid holds (2**31 - 1)"
        )
    return Tiling(Tile(rows, cols, total_rows % rows != 0 or size % cols != 0), num_tiles, num_warps)


def block_tiling(total_rows: int, size: int, target: Target, *, decode: bool) -> Tiling:
    """Tiles for ops whose blocks of 32 are independent: 32 elements a thread.

    Args:
        total_rows: Rows of the operands.
        size: Elements of a row.
        target: The device.
        decode: Whether few rows count, of however many there are, so that latency decides.
    """
    return _column_tiling(total_rows, size, target, FULL, 2, decode=decode)


def element_tiling(total_rows: int, size: int, target: Target, *, decode: bool) -> Tiling:
    """The same for ops without a reduction: 8 elements a thread, what it stores at once.

    swiglu_oai of (65536, 3072), (16384, 3072) and (65536, 384) on the H100, fraction of copy bandwidth: 1.03, 1.05 and
    1.08 like this, 1.02, 1.02 and 1.05 in tiles of 2048 with 2 warps.
    """
    return _column_tiling(total_rows, size, target, FULL // 2, 128 // target.warp_size, decode=decode)


def _column_tiling(total_rows: int, size: int, target: Target, full: int, num_warps: int, *, decode: bool) -> Tiling:
    # The largest power of two that divides the row leaves no edge to mask: 3072 = 3 * 1024, 384 = 3 * 128.
    cols = min(size & -size if size and size % 128 == 0 else power_of_two_at_least(max(size, 32)), full)
    rows = min(full // cols, power_of_two_at_least(total_rows))
    programs = -(-total_rows // rows) * -(-size // cols)
    # A decode step is over sooner the more multiprocessors and warps share it. Graph replay, I = 3072, us on H100/H200:
    # 32 rows 2.43/1.71 in tiles of 1024, 1.82/1.54 in 1 x 512 with 4 warps; one row 2.21/1.51 in tiles of 1024,
    # 1.53/1.56 in 1 x 512, 1.37/1.35 in 1 x 128 with one warp.
    while (decode or programs < 2 * target.multiprocessors) and rows * cols > SMALL:
        rows, cols = (rows // 2, cols) if rows > 1 else (rows, cols // 2)
        programs = -(-total_rows // rows) * -(-size // cols)
    if programs < 16 and cols > 128:
        cols = 128
    elements = rows * cols
    return tiling(total_rows, size, rows, cols, num_warps if elements > SMALL else max(1, elements // 128))


def matrix_tiling(num_rows: int, size: int, matrices: int, multiple: int, target: Target) -> tuple[Tiling, int]:
    """Tiles for ops whose blocks of 32 lie along columns, and how many of them lie along those of one matrix.

    Args:
        num_rows: Rows of a matrix.
        size: Elements of a row.
        matrices: How many there are.
        multiple: Both sizes are covered up to a multiple of it.
        target: The device.
    """
    rows, widest = TALL
    # The largest power of two that divides an axis leaves no edge to mask.
    cols = min(size & -size if size % 32 == 0 else power_of_two_at_least(max(size, 32)), widest)
    if matrices * -(-num_rows // rows) * -(-size // cols) < 2 * target.multiprocessors:
        cols = 32
    covered_rows, covered_size = (
        -(-n // step) * step for n, step in ((num_rows, max(rows, multiple)), (size, max(cols, multiple)))
    )
    made = tiling(matrices * covered_rows, covered_size, rows, cols, max(rows * cols // 64 // target.warp_size, 1))
    masked = (covered_rows, covered_size) != (num_rows, size)
    return replace(made, tile=replace(made.tile, masked=masked)), covered_rows // rows


def row_tiling(total_rows: int, size: int, summands: int, target: Target, *, decode: bool) -> Tiling:
    """Tiles for ops that reduce a row, the sum of so many operands, and then need its elements again."""
    cols = _columns(size, divide=size > WIDEST_TILE)
    rows, many = _rows(total_rows, cols, target, decode=decode)
    # Reading a row twice, the second time from the L1 cache, instead of keeping it leaves registers for more programs
    # at once, and lets all writing wait until all reading is done. N = 6144, us, kept and read twice: H200 97.8 and
    # 95.3, but with residual add 188.8 and 190 (H100 130.6 and 131.2, 263.9 and 266). In a decode step it is one more
    # wait.
    if size > WIDEST_KEPT:
        return _whole_rows(total_rows, size, rows, cols, 1024, target, reload=True)
    if target.vendor == "nvidia" and many and summands == 1 and 4096 < size <= WIDEST_TILE:
        return _whole_rows(total_rows, size, rows, cols, 256, target, reload=True)  # 16 warps 107 on the H200
    threads = min(rows * size // 16, 256 if size <= WIDEST_TILE else 512)
    return _whole_rows(total_rows, size, rows, cols, threads, target)


def row_block_tiling(total_rows: int, size: int, target: Target, *, decode: bool) -> Tiling:
    """The same for rows that then become MXFP8: where arithmetic counts, lanes without an element cost.

    H100, us: N = 6144 in one part of 8192 109, in three of 2048 97 (1.03 of copy). The scale of a block is cheapest
    where a thread holds much of it: rows of 128, 16 elements a thread 174, 32 elements 130.
    """
    many = not decode and total_rows > 4 * target.multiprocessors
    cols = _columns(size, divide=size > WIDEST_TILE or (many and size > ROW_TILE))
    rows, many = _rows(total_rows, cols, target, decode=decode)
    if decode:  # counted on AMD, 16 rows of 64 spill scalar registers, and 8 of 96 take 260 vector registers; 4 take 60
        rows = min(rows, 4)
    if size > WIDEST_KEPT:  # of 32768: read twice in 32 warps 136, in 16 141, kept 153
        return _whole_rows(total_rows, size, rows, cols, 1024, target, reload=True)
    if many:
        threads = min(power_of_two_at_least(rows * size) // 32, cols // 16)  # 16 values are one wide store
        return _whole_rows(total_rows, size, rows, cols, threads, target)
    return _whole_rows(total_rows, size, rows, cols, min(rows * cols // 16, 256), target)


def _columns(size: int, *, divide: bool) -> int:
    """Columns of a part: those of a row, or where ``divide`` the largest power of two that divides a row well."""
    divisor = size & -size
    if divide and size <= 7 * divisor:
        return min(divisor, WIDEST_TILE)
    return min(power_of_two_at_least(max(size, 32)), WIDEST_TILE)


def _rows(total_rows: int, cols: int, target: Target, *, decode: bool) -> tuple[int, bool]:
    """Rows of a tile, and whether there are many tiles for each multiprocessor."""
    rows = max(1, min(ROW_TILE // cols, power_of_two_at_least(total_rows)))
    return rows, not decode and total_rows > 4 * rows * target.multiprocessors


def _whole_rows(
    total_rows: int, size: int, rows: int, cols: int, threads: int, target: Target, *, reload: bool = False
) -> Tiling:
    num_warps = max(1, power_of_two_at_least(threads) // target.warp_size)
    base = tiling(total_rows, min(size, cols), rows, cols, num_warps)
    masked = base.tile.masked or size % cols != 0
    return Tiling(Tile(rows, cols, masked, -(-size // cols), reload), base.num_tiles, num_warps)


def power_of_two_at_least(n: int) -> int:
    return 1 << max(n - 1, 0).bit_length()
