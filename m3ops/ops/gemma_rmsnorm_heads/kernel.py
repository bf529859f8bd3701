"""Triton kernel of Gemma's RMSNorm of q and k heads and those of an indexer, with or without rotary embedding and
insertion into a paged cache; a few heads of a few rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl

from m3ops.numerics.tile import fp32, functions
from m3ops.ops.gemma_rmsnorm_heads.insert_kernel import CacheAt, HeldAs, insert, part_size, stored
from m3ops.tiles import launches, row_count, rows
from m3ops.tiles.rows import Rows


@dataclass(frozen=True)
class HeadsAt:
    """Where the rows of each operand lie, a constexpr; those of qkv, norm and q are of the heads of one tile, and None
    is for what a call does not have.
    """

    qkv: Rows
    weight_q: Rows
    weight_k: Rows
    norm: Rows
    q: Rows | None = None
    cos_sin: Rows | None = None
    positions: Rows | None = None
    weight_index_q: Rows | None = None
    weight_index_k: Rows | None = None
    key_cache: CacheAt | None = None
    value_cache: CacheAt | None = None
    index_cache: CacheAt | None = None


@dataclass(frozen=True)
class Heads:
    """The heads of a row and what is done to them, a constexpr.

    A tile has the heads in parts, ``TILE.parts`` of them. With rotary embedding a part is half of what is turned, so
    that the elements of a pair are at one place of two parts, in one thread. Else it is the head.

    Attributes:
        dim: Elements of a head.
        part: Elements of a part of a head; the last part may have fewer.
        num_q: Number of q heads.
        num_k: Number of k heads.
        num_v: Number of v heads.
        num_index_q: Number of index_q heads.
        num: Number of all heads; the last ones are index_k heads.
        together: Heads of a tile; it divides the number of each kind but the last, so that those of a tile are alike.
        tiles_each: Tiles of heads of the same rows that a program takes one after another.
        stages: How many of them it has begun to load at a time.
        cols: Columns of a part, a power of two; ``part`` where several heads are together.
        max_position: Rows of the table of cosines and sines.
        inv_size: 1 / dim, as fp32.
        eps: As fp32.
        weight_offset: As fp32.
        narrowing: How the norm is rounded.
        q: How q is held where it is a result of its own, else None.
    """

    dim: int
    part: int
    num_q: int
    num_k: int
    num_v: int
    num_index_q: int
    num: int
    together: int
    tiles_each: int
    stages: int
    cols: int
    max_position: int
    inv_size: float
    eps: float
    weight_offset: float
    narrowing: fp32.Narrowing
    q: HeldAs | None = None


@triton.constexpr_function
def tiles_of_row(HEADS):
    return triton.cdiv(HEADS.num, HEADS.together)


@triton.constexpr_function
def _part_of(AT, HEADS, PART):
    """The rows of an operand of the heads of a tile, or of one head, up to the end of a part of the last of them."""
    return Rows(AT.size - HEADS.dim + part_size(HEADS, PART), AT.inner_sizes, AT.strides)


@triton.jit
def _at_part(ptr, AT: tl.constexpr, HEADS: tl.constexpr, PART: tl.constexpr):
    return ptr + PART * HEADS.part * AT.strides[len(AT.strides) - 1]


@triton.jit
def _factors(ptr, first_row, end, AT: tl.constexpr, TILE: tl.constexpr, HEADS: tl.constexpr):
    """What the parts of a head are multiplied by."""
    PARTS: tl.constexpr = TILE.parts
    window = first_row, end, tl.arange(0, HEADS.cols)[None, :]
    factors = ()
    for i in tl.static_range(PARTS):
        weight = rows.load(_at_part(ptr, AT, HEADS, i), window, TILE, _part_of(AT, HEADS, i))
        factors += (functions.weight_factor(weight, HEADS.weight_offset),)
    return factors


@triton.jit
def _cos_and_sin(cos_sin_ptr, positions_ptr, first_row, end, AT: tl.constexpr, TILE: tl.constexpr, HEADS: tl.constexpr):
    """The cosines and sines of rows, for all heads of each; NaN for a position that the table does not have."""
    position = rows.load(positions_ptr, (first_row, end, tl.arange(0, 1)[None, :]), TILE, AT.positions)
    inside = (position >= 0) & (position < HEADS.max_position)
    column = tl.arange(0, HEADS.cols)[None, :]
    at = cos_sin_ptr + (position.to(tl.int64) * AT.cos_sin.strides[0] + column * AT.cos_sin.strides[1])
    mask = inside & (column < HEADS.part)
    cos = tl.load(at, mask=mask, other=float("nan")).to(tl.float32)
    sin = tl.load(at + HEADS.part * AT.cos_sin.strides[1], mask=mask, other=float("nan")).to(tl.float32)
    return cos[:, None, :], sin[:, None, :]


@triton.jit
def _normed(xs, factors, TILE: tl.constexpr, HEADS: tl.constexpr):
    """The fp32 norms of the heads of a tile in parts, ``[rows, heads, columns]`` each."""
    PARTS: tl.constexpr = TILE.parts
    heads, groups, normed = (), (), ()
    for i in tl.static_range(PARTS):
        part = tl.reshape(xs[i].to(tl.float32), (TILE.rows * HEADS.together, HEADS.cols))
        heads += (part,)
        groups += (functions.square_groups(part, TILE.rows * HEADS.together, HEADS.cols),)
    rstd = functions.reciprocal_rms(groups, HEADS.inv_size, HEADS.eps)
    for i in tl.static_range(PARTS):
        part = tl.reshape(heads[i] * rstd, (TILE.rows, HEADS.together, HEADS.cols))
        normed += (part * factors[i][:, None, :],)
    return normed


@triton.jit
def _heads_of(head, TILE: tl.constexpr, HEADS: tl.constexpr):
    """Of which head of a tile each column is. What is past the last head of a row reads and writes what that head does:
    a program is one warp, so in place too it has read before it writes.
    """
    of_tile = tl.arange(0, TILE.cols)[None, :] // HEADS.cols
    if HEADS.num % HEADS.together != 0:
        of_tile = tl.minimum(of_tile, HEADS.num - 1 - head)
    return of_tile


@triton.jit
def _columns(of_tile, TILE: tl.constexpr, HEADS: tl.constexpr):
    """The columns of the first parts of the heads of a tile."""
    columns = tl.arange(0, TILE.cols)[None, :]
    if TILE.parts > 1:
        columns = of_tile * HEADS.dim + columns % HEADS.cols
    return columns


@triton.jit
def _store_parts(ptr, xs, window, AT: tl.constexpr, TILE: tl.constexpr, HEADS: tl.constexpr):
    """Writes the heads of a tile to the rows of a result, from where the first of them begins."""
    PARTS: tl.constexpr = TILE.parts
    for i in tl.static_range(PARTS):
        rows.store(_at_part(ptr, AT, HEADS, i), xs[i], window, TILE, _part_of(AT, HEADS, i))


@triton.jit
def _heads_tile(
    t,
    end,
    qkv_ptr,
    weight_q_ptr,
    weight_k_ptr,
    cos_sin_ptr,
    positions_ptr,
    weight_index_q_ptr,
    weight_index_k_ptr,
    slot_mapping_ptr,
    index_slot_mapping_ptr,
    k_scale_ptr,
    v_scale_ptr,
    q_scale_ptr,
    norm_ptr,
    new_key_cache_ptr,
    new_value_cache_ptr,
    new_index_cache_ptr,
    q_ptr,
    AT: tl.constexpr,
    TILE: tl.constexpr,
    HEADS: tl.constexpr,
):
    PARTS: tl.constexpr = TILE.parts
    PROGRAMS: tl.constexpr = tiles_of_row(HEADS) // HEADS.tiles_each
    FIRST_V: tl.constexpr = HEADS.num_q + HEADS.num_k
    FIRST_INDEX_Q: tl.constexpr = FIRST_V + HEADS.num_v
    FIRST_INDEX_K: tl.constexpr = FIRST_INDEX_Q + HEADS.num_index_q
    first_row = tl.cast(t // PROGRAMS, tl.int64) * TILE.rows
    first_head = t % PROGRAMS * (HEADS.together * HEADS.tiles_each)
    if cos_sin_ptr is not None:
        cos, sin = _cos_and_sin(cos_sin_ptr, positions_ptr, first_row, end, AT, TILE, HEADS)
    not_in_place = qkv_ptr.to(tl.int64) != norm_ptr.to(tl.int64)
    for i in tl.range(0, HEADS.tiles_each, num_stages=HEADS.stages):
        head = first_head + i * HEADS.together
        column = tl.cast(head, tl.int64) * HEADS.dim
        head_ptr = qkv_ptr + column * AT.qkv.strides[len(AT.qkv.strides) - 1]
        head_norm_ptr = norm_ptr + column * AT.norm.strides[len(AT.norm.strides) - 1]
        of_tile = _heads_of(head, TILE, HEADS)
        window = first_row, end, _columns(of_tile, TILE, HEADS)
        normed = head < FIRST_V
        if weight_index_q_ptr is not None:
            normed = normed | (head >= FIRST_INDEX_Q)
        xs = ()
        wide = ()
        for part in tl.static_range(PARTS):
            x = rows.load(_at_part(head_ptr, AT.qkv, HEADS, part), window, TILE, _part_of(AT.qkv, HEADS, part))
            xs += (x,)
            wide += (x.to(tl.float32),)
        of_row = normed | not_in_place
        if q_ptr is not None:  # q keeps its bytes in the row
            if not_in_place & (head < HEADS.num_q):
                _store_parts(head_norm_ptr, xs, window, AT.norm, TILE, HEADS)
            of_row = of_row & (head >= HEADS.num_q)
        if normed:
            if head < HEADS.num_q:
                factors = _factors(weight_q_ptr, first_row, end, AT.weight_q, TILE, HEADS)
            elif weight_index_q_ptr is None or head < FIRST_V:
                factors = _factors(weight_k_ptr, first_row, end, AT.weight_k, TILE, HEADS)
            elif head < FIRST_INDEX_K:
                factors = _factors(weight_index_q_ptr, first_row, end, AT.weight_index_q, TILE, HEADS)
            else:
                factors = _factors(weight_index_k_ptr, first_row, end, AT.weight_index_k, TILE, HEADS)
            norms = _normed(xs, factors, TILE, HEADS)
            if cos_sin_ptr is not None:
                norms = functions.rotate(norms[0], norms[1], cos, sin) + norms[2:]
            xs = ()
            wide = ()
            for part in tl.static_range(PARTS):
                norm = tl.reshape(norms[part], (TILE.rows, TILE.cols))
                xs += (fp32.narrow(norm, norm_ptr.dtype.element_ty, HEADS.narrowing),)
                wide += (norm,)
        if q_ptr is not None and head < HEADS.num_q:
            codes = ()
            for part in tl.static_range(PARTS):
                codes += (stored(q_ptr, q_scale_ptr, xs[part], wide[part], HEADS.q, TILE, HEADS),)
            _store_parts(q_ptr + column * AT.q.strides[len(AT.q.strides) - 1], codes, window, AT.q, TILE, HEADS)
        if of_row:
            _store_parts(head_norm_ptr, xs, window, AT.norm, TILE, HEADS)
        where = first_row, end, of_tile
        if slot_mapping_ptr is not None:
            KEY: tl.constexpr = AT.key_cache
            VALUE: tl.constexpr = AT.value_cache
            if (head >= HEADS.num_q) & (head < FIRST_V):
                own = head - HEADS.num_q
                insert(new_key_cache_ptr, slot_mapping_ptr, k_scale_ptr, xs, wide, own, where, KEY, TILE, HEADS)
            elif (head >= FIRST_V) & (head < FIRST_INDEX_Q):
                own = head - FIRST_V
                insert(new_value_cache_ptr, slot_mapping_ptr, v_scale_ptr, xs, wide, own, where, VALUE, TILE, HEADS)
        if new_index_cache_ptr is not None:
            INDEX: tl.constexpr = AT.index_cache
            if head >= FIRST_INDEX_K:
                own = head - FIRST_INDEX_K
                insert(new_index_cache_ptr, index_slot_mapping_ptr, None, xs, wide, own, where, INDEX, TILE, HEADS)


@triton.jit
def _gemma_rmsnorm_heads_kernel(
    qkv_ptr,  # [total_rows, heads * head_dim]
    weight_q_ptr,  # [total_rows or 1, head_dim]
    weight_k_ptr,  # [total_rows or 1, head_dim]
    cos_sin_ptr,  # [max_position, rotary_dim], or None
    positions_ptr,  # int32 or int64 [total_rows or 1, 1], or None
    weight_index_q_ptr,  # [total_rows or 1, head_dim], or None
    weight_index_k_ptr,  # [total_rows or 1, head_dim], or None
    key_cache_ptr,  # [num_blocks, block_size, heads, head_dim], or None; not read: new_key_cache begins as this
    value_cache_ptr,  # likewise
    index_cache_ptr,  # likewise
    slot_mapping_ptr,  # int32 or int64 [total_rows, 1], or None
    index_slot_mapping_ptr,  # likewise
    k_scale_ptr,  # fp32 [1], or None
    v_scale_ptr,  # likewise
    q_scale_ptr,  # likewise
    num_rows_ptr,  # int32, how many rows of each buffer count, or None for all
    total_rows,
    norm_ptr,  # as qkv; where it is qkv, the v heads are left alone, and q heads that have q_ptr
    new_key_cache_ptr,  # as key_cache; the slots of the rows are written
    new_value_cache_ptr,  # likewise
    new_index_cache_ptr,  # likewise
    q_ptr,  # E4M3 [total_rows, q heads * head_dim], or None
    AT: tl.constexpr,
    TILE: tl.constexpr,
    HEADS: tl.constexpr,
    COUNT: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    launches.begin(OVERLAPS)
    if num_rows_ptr is None:
        _heads_tile(
            tl.program_id(0),
            total_rows,
            qkv_ptr,
            weight_q_ptr,
            weight_k_ptr,
            cos_sin_ptr,
            positions_ptr,
            weight_index_q_ptr,
            weight_index_k_ptr,
            slot_mapping_ptr,
            index_slot_mapping_ptr,
            k_scale_ptr,
            v_scale_ptr,
            q_scale_ptr,
            norm_ptr,
            new_key_cache_ptr,
            new_value_cache_ptr,
            new_index_cache_ptr,
            q_ptr,
            AT,
            TILE,
            HEADS,
        )
    else:
        ends = row_count.ends(num_rows_ptr, total_rows, COUNT)
        tiles = row_count.tiles(ends, total_rows, tiles_of_row(HEADS) * TILE.width, TILE, COUNT)
        for i in range(tl.program_id(0), tiles[0], COUNT.programs):
            t, end = row_count.tile(i, tiles, ends, COUNT)
            _heads_tile(
                t,
                end,
                qkv_ptr,
                weight_q_ptr,
                weight_k_ptr,
                cos_sin_ptr,
                positions_ptr,
                weight_index_q_ptr,
                weight_index_k_ptr,
                slot_mapping_ptr,
                index_slot_mapping_ptr,
                k_scale_ptr,
                v_scale_ptr,
                q_scale_ptr,
                norm_ptr,
                new_key_cache_ptr,
                new_value_cache_ptr,
                new_index_cache_ptr,
                q_ptr,
                AT,
                TILE,
                HEADS,
            )
        row_count.clear(norm_ptr, ends, total_rows, HEADS.num * HEADS.dim, COUNT, "norm")
        if q_ptr is not None:
            row_count.clear(q_ptr, ends, total_rows, HEADS.num_q * HEADS.dim, COUNT, "q")
