"""Launch plan of Gemma's RMSNorm of q and k heads, with or without rotary embedding and insertion into a cache."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from m3ops import row_count
from m3ops.array import ArraySpec
from m3ops.numerics.constants import float32
from m3ops.numerics.formats import fp8_format_of
from m3ops.op import Specs
from m3ops.ops.gemma_rmsnorm.plan import FLOPS_PER_ELEMENT
from m3ops.ops.gemma_rmsnorm_heads.insert_kernel import CacheAt, HeldAs
from m3ops.ops.gemma_rmsnorm_heads.insert_spec import Destination, destinations
from m3ops.ops.gemma_rmsnorm_heads.kernel import Heads, HeadsAt, _gemma_rmsnorm_heads_kernel
from m3ops.ops.gemma_rmsnorm_heads.spec import E4M3_DTYPES, GemmaRMSNormRopeHeads, NormOfHeads
from m3ops.plan import Plan
from m3ops.planning.launch import bytes_moved, counts_rows, tiled_launch
from m3ops.planning.mx import cast
from m3ops.planning.narrowing import narrowing
from m3ops.planning.rows import rows_of
from m3ops.planning.tiling import ROW_TILE, Tiling, power_of_two_at_least, tiling
from m3ops.target import Target
from m3ops.tiles.rows import Rows

THREADS = 64
"""Of a program for a tile of heads. Of heads in parts a warp does alone, whose threads need not wait for others before
they turn what they hold: 16384 rows of M3 on the H200, us: 177; with two warps and twice the rows 204, with one warp
and these 188, with half the rows 202; a copy takes 145.
"""

ENOUGH_PROGRAMS = 32
"""Programs for each multiprocessor before one takes several tiles: as many as run at a time. us on the H200: 2048 rows
23.0 in a program for every tile, 23.3 in three tiles each; 4096 rows 43.2 and 42.0, 8192 rows 84.2 and 78.6.
"""

STAGES = 3
"""Tiles that a program of an NVIDIA GPU has begun to load. 32768 rows of M3 with rotary embedding on the H200, us:
three tiles each and this 292, each loaded when it is its turn 298, a program for every tile 327; a copy takes 287. More
tiles each are slower again, all of a row 313. With an indexer's heads, us: four tiles each 316, a program for every
tile 349, heads one by one 331; a copy takes 304.
"""


def heads_plan(op: NormOfHeads, specs: Specs, target: Target, *, keep: Collection[str]) -> Plan:
    dim = specs["weight_q"].shape[-1]
    part = op.rotary_dim // 2 if isinstance(op, GemmaRMSNormRopeHeads) else dim
    total_rows, rows = rows_of(_with_rows(specs))
    caches = {to.cache: _cache_at(specs, to, rows[to.slots], target) for to in destinations(specs)}
    kinds = op.kinds(**{name: spec for name, spec in specs.items() if name.startswith("weight_")})
    numbers = [number for _, number, _ in kinds]
    together, tiles = _tiling(numbers, total_rows, dim, part, target, decode=counts_rows(specs))
    several = tiles.tile.parts > 1 and row_count.NAME not in specs
    tiles_each = _tiles_each(-(-sum(numbers) // together), tiles, target) if several else 1
    tiles = replace(tiles, num_tiles=tiles.num_tiles // tiles_each)
    of_tile = {name: replace(rows[name], size=together * dim) for name in ("qkv", "norm", "q") if name in rows}
    table = specs.get("cos_sin")
    heads = Heads(
        dim=dim,
        part=part,
        num_q=op.num_heads_q,
        num_k=op.num_heads_k,
        num_v=op.num_heads_v,
        num_index_q=sum(numbers[3:4]),
        num=sum(numbers),
        together=together,
        tiles_each=tiles_each,
        stages=STAGES if target.vendor == "nvidia" else 1,
        cols=tiles.tile.cols // together,
        max_position=0 if table is None else table.shape[0],
        inv_size=float32(1.0 / dim),
        eps=float32(op.eps),
        weight_offset=float32(op.weight_offset),
        narrowing=narrowing(specs["qkv"].dtype, target, beside_fp8=_holds_fp8(specs)),
        q=_held_as(specs["q"], specs, target) if "q" in specs else None,
    )
    cos_sin = None if table is None else Rows(table.shape[-1], (), table.strides)
    places: dict[str, Any] = {name: at for name, at in rows.items() if "slot" not in name} | of_tile | caches
    constants = {"AT": HeadsAt(**places, cos_sin=cos_sin), "HEADS": heads}
    launch = tiled_launch(_gemma_rmsnorm_heads_kernel, op, specs, target, tiles, total_rows, constants, keep=keep)
    return Plan((launch,), _bytes_moved(op, specs, total_rows), FLOPS_PER_ELEMENT * specs["qkv"].size)


def _with_rows(specs: Specs) -> dict[str, ArraySpec]:
    """The operands whose rows are those of the call; a position and a slot are rows of one element."""
    operands = {
        name: spec for name, spec in specs.items() if name.startswith(("qkv", "weight_", "norm")) or name == "q"
    }
    for name in ("positions", "slot_mapping", "index_slot_mapping"):
        if name in specs:
            spec = specs[name]
            operands[name] = ArraySpec((*spec.shape, 1), spec.dtype, (*spec.strides, 1))
    # An empty array of NumPy has strides of 0, as if all rows were one that is always there.
    return {name: spec if spec.size else ArraySpec(spec.shape, spec.dtype) for name, spec in operands.items()}


def _holds_fp8(specs: Specs) -> bool:
    return "q" in specs or any(specs[to.cache].dtype in E4M3_DTYPES for to in destinations(specs))


def _held_as(spec: ArraySpec, specs: Specs, target: Target) -> HeldAs:
    fp8 = fp8_format_of(spec.dtype) if spec.dtype in E4M3_DTYPES else None
    rounding = narrowing(spec.dtype, target, beside_fp8=_holds_fp8(specs))
    return HeldAs(fp8, "" if fp8 is None else cast(fp8, target), rounding)


def _cache_at(specs: Specs, to: Destination, slots: Rows, target: Target) -> CacheAt:
    cache = specs[to.result]
    blocks, block_size, _, _ = cache.shape
    return CacheAt(slots, blocks * block_size, block_size, cache.strides, _held_as(cache, specs, target))


def _bytes_moved(op: NormOfHeads, specs: Specs, total_rows: int) -> int:
    """Each byte of the operands once, but of a cache those of a slot for each row, which are written."""
    caches = [specs[to.result] for to in destinations(specs)]
    others = {name: spec for name, spec in specs.items() if name not in {*op.updates, *op.updates.values()}}
    return bytes_moved(others) + sum(total_rows * math.prod(cache.shape[2:]) * cache.itemsize for cache in caches)


def _tiling(
    numbers: Sequence[int], total_rows: int, dim: int, part: int, target: Target, *, decode: bool
) -> tuple[int, Tiling]:
    """The heads of a tile, and the tiling, for the numbers of heads of each kind.

    Rows of 128 want to be gathered (``tiling.ROW_TILE``): first the heads of a row, which lie side by side, then rows.
    Of heads in parts a thread has 8 elements of each part, what it loads at once.
    """
    cols, parts = power_of_two_at_least(max(part, 32 if part == dim else 8)), -(-dim // part)
    threads = THREADS if parts == 1 else target.warp_size
    size = ROW_TILE if parts == 1 else 8 * threads
    exact = part == cols and dim % part == 0
    alike, num_heads = math.gcd(*numbers[:4]), sum(numbers)
    heads = min(alike & -alike, max(size // cols, 1)) if exact else 1
    rows = max(1, min(size // (heads * cols), power_of_two_at_least(total_rows)))
    while heads > 1 and (decode or total_rows * num_heads < 4 * heads * rows * target.multiprocessors):
        heads //= 2  # a decode step is over sooner the more multiprocessors share it
    warps = max(1, rows * heads * cols * threads // size // target.warp_size)
    base = tiling(total_rows, -(-num_heads // heads) * heads * dim, rows, heads * dim, warps)
    masked = base.tile.masked or not exact or total_rows == 0
    tile = replace(base.tile, cols=heads * cols, masked=masked, parts=parts)
    return heads, replace(base, tile=tile, num_tiles=max(base.num_tiles, 1))  # a cache is there where no row is


def _tiles_each(tiles_of_row: int, tiles: Tiling, target: Target) -> int:
    """How many tiles of the same rows a program takes: what turns them is loaded once, and their loads overlap."""
    most = tiles.num_tiles // (ENOUGH_PROGRAMS * target.multiprocessors)
    return next((each for each in range(3, min(most, 8) + 1) if tiles_of_row % each == 0), 1)
