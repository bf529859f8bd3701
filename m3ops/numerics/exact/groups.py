"""Products of groups, of rows that have a weight each or of blocks along K, as the specification computes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from m3ops.numerics import constants as c
from m3ops.numerics.exact import functions
from m3ops.numerics.exact.fp32 import add_scalar, load, round32
from m3ops.numerics.exact.namespaces import barrier, each, repeat
from m3ops.numerics.formats import BLOCK

Array = Any

MOST_ROWS = 64
"""Rows of a tile at most: a program of XLA has one product of this size, whatever the sizes of the groups."""


@dataclass(frozen=True)
class Groups:
    """Consecutive groups of rows.

    Attributes:
        starts: The first row of each, int64.
        ends: The row after the last of each. Rows from the last end on belong to none.
    """

    starts: Array
    ends: Array

    @classmethod
    def of(cls, sizes: Array, num_rows: int) -> Groups:
        """Groups of these sizes. A size below zero is taken for zero; rows that do not exist belong to none."""
        xp = sizes.__array_namespace__()
        ends = xp.minimum(xp.cumsum(xp.maximum(sizes, 0).astype(xp.int64)), num_rows)
        return cls(xp.concatenate([xp.zeros((1,), xp.int64), ends[:-1]]), ends)

    @classmethod
    def of_blocks(cls, sizes: Array, num_blocks: int) -> Groups:
        """Groups of as many whole blocks as each of these sizes fills or begins, of so many blocks along K."""
        xp = sizes.__array_namespace__()
        return cls.of(-(-sizes.astype(xp.int64) // BLOCK), num_blocks)


def matmul(x: Array, x_scales: Array, w: Array, w_scales: Array, sizes: Array, rows: Array) -> Array:
    """:func:`functions.matmul` of row ``rows[r]`` of x and the weight of the group that r is in, ``[R, N]``.

    A row without a group is zero, and so is one whose row of x does not exist.

    The number of tiles must not depend on the sizes, which a compiled program does not know: a tile has rows of one
    group, and there are enough tiles for each group to end in one that is not full.
    """
    xp = x.__array_namespace__()
    total, columns = rows.shape[0], w.shape[1]
    if not (total and columns and len(x) and len(w)):
        return xp.zeros((total, columns), xp.float64)
    groups = Groups.of(sizes, total)
    height = min(-(-total // len(w)), MOST_ROWS)
    tiles = -(-(groups.ends - groups.starts) // height)
    ends = xp.cumsum(tiles)
    tile = xp.arange(total // height + min(len(w), total))
    group = xp.minimum(xp.searchsorted(ends, tile, side="right"), len(w) - 1)
    first_row = groups.starts[group] + (tile - ends[group] + tiles[group]) * height
    source = rows[xp.clip(first_row[:, None] + xp.arange(height), 0, total - 1)]

    def product(source: Array, group: Array) -> Array:
        return functions.matmul(x[source], x_scales[source], w[group], w_scales[group])

    products = each(product, xp.clip(source, 0, len(x) - 1), group).reshape(-1, columns)
    row = xp.arange(total)
    own = xp.minimum(xp.searchsorted(groups.ends, row, side="right"), len(w) - 1)
    place = (ends[own] - tiles[own]) * height + row - groups.starts[own]
    there = (row < groups.ends[-1]) & (rows >= 0) & (rows < len(x))
    return xp.where(there[:, None], products[xp.where(there, place, 0)], 0.0)


def matmul_along_k(x: Array, x_scales: Array, w: Array, w_scales: Array, sizes: Array) -> Array:
    """:func:`functions.matmul` of the blocks along K that each group has, ``[G, M, N]``.

    The chunks of a group are counted from its first block.
    """
    xp = x.__array_namespace__()
    if not (len(sizes) and x_scales.shape[-1]):
        return xp.zeros((len(sizes), x.shape[0], w.shape[0]), xp.float64)
    groups = Groups.of_blocks(sizes, x_scales.shape[-1])
    operands = [functions.blocks_first(*operand) for operand in ((x, x_scales), (w, w_scales))]
    zero = barrier(xp.zeros_like(x_scales[:, :1] + w_scales[:, 0], dtype=xp.float64))

    def product(start: Array, end: Array) -> Array:
        def add_chunk(chunk: Array, total: Array) -> Array:
            first = start + chunk * c.CHUNK_BLOCKS

            def add_block(number: Array, partial: Array) -> Array:
                own = ((load(values[first + number]), scales[first + number]) for values, scales in operands)
                numbers = [part for values, scales in own for part in (values, functions.scale_factors(scales))]
                return functions.add_block(partial, *numbers)

            partial = repeat(xp.minimum(end - first, c.CHUNK_BLOCKS), add_block, zero)
            return round32(total + partial)

        return add_scalar(repeat(-((start - end) // c.CHUNK_BLOCKS), add_chunk, zero), 0.0)

    return each(product, groups.starts, groups.ends)
