"""Launch plan of Gemma's RMSNorm of q and k heads."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace

from m3ops.numerics.constants import float32
from m3ops.op import Specs
from m3ops.ops.gemma_rmsnorm.plan import FLOPS_PER_ELEMENT
from m3ops.ops.gemma_rmsnorm_heads.kernel import Heads, HeadsAt, _gemma_rmsnorm_heads_kernel
from m3ops.ops.gemma_rmsnorm_heads.spec import GemmaRMSNormHeads
from m3ops.plan import Plan
from m3ops.planning.launch import bytes_moved, counts_rows, tiled_launch
from m3ops.planning.narrowing import narrowing
from m3ops.planning.rows import rows_of
from m3ops.planning.tiling import ROW_TILE, Tiling, power_of_two_at_least, tiling
from m3ops.target import Target


def heads_plan(op: GemmaRMSNormHeads, specs: Specs, target: Target, *, keep: Collection[str]) -> Plan:
    dim = specs["weight_q"].shape[-1]
    total_rows, rows = rows_of({name: spec for name, spec in specs.items() if name != "num_rows"})
    cols = power_of_two_at_least(max(dim, 32))
    together, tiles = _tiling(op, total_rows, dim, cols, target, decode=counts_rows(specs))
    of_tile = {name: replace(rows[name], size=together * dim) for name in ("qkv", "norm")}
    heads = Heads(
        dim=dim,
        num_q=op.num_heads_q,
        num_k=op.num_heads_k,
        num=op.num_heads,
        together=together,
        cols=cols,
        inv_size=float32(1.0 / dim),
        eps=float32(op.eps),
        weight_offset=float32(op.weight_offset),
        narrowing=narrowing(specs["qkv"].dtype, target, beside_fp8=False),
    )
    constants = {"AT": HeadsAt(**{**rows, **of_tile}), "HEADS": heads}
    launch = tiled_launch(_gemma_rmsnorm_heads_kernel, op, specs, target, tiles, total_rows, constants, keep=keep)
    return Plan((launch,), bytes_moved(specs), FLOPS_PER_ELEMENT * specs["qkv"].size)


def _tiling(
    op: GemmaRMSNormHeads, total_rows: int, dim: int, cols: int, target: Target, *, decode: bool
) -> tuple[int, Tiling]:
    """The heads of a tile, and the tiling.

    Rows of 128 want to be gathered (``tiling.ROW_TILE``): first the heads of a row, which lie side by side, then rows.
    """
    alike = math.gcd(op.num_heads_q, op.num_heads_k, op.num_heads_v)
    heads = min(alike & -alike, max(ROW_TILE // cols, 1)) if dim == cols else 1
    rows = max(1, min(ROW_TILE // (heads * cols), power_of_two_at_least(total_rows)))
    while heads > 1 and (decode or total_rows * op.num_heads < 4 * heads * rows * target.multiprocessors):
        heads //= 2  # a decode step is over sooner the more multiprocessors share it
    warps = max(1, rows * heads * cols // 16 // target.warp_size)
    base = tiling(total_rows, op.num_heads * dim, rows, heads * dim, warps)
    tile = replace(base.tile, cols=heads * cols, masked=base.tile.masked or dim != cols)
    return heads, replace(base, tile=tile)
