"""Triton kernel of Gemma's RMSNorm of q and k heads, a few heads of a few rows at a time."""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl

from m3ops.numerics.tile import fp32, functions
from m3ops.tiles import row_count, rows
from m3ops.tiles.rows import Rows


@dataclass(frozen=True)
class HeadsAt:
    """Where the rows of each operand lie, a constexpr; those of qkv and norm are of the heads of one tile."""

    qkv: Rows
    weight_q: Rows
    weight_k: Rows
    norm: Rows


@dataclass(frozen=True)
class Heads:
    """The heads of a row and what is done to them, a constexpr.

    Attributes:
        dim: Elements of a head.
        num_q: Number of q heads.
        num_k: Number of k heads.
        num: Number of all heads.
        together: Heads of a tile: it divides the numbers of q, k and v heads, so that those of a tile are of one kind.
        cols: Columns of a head, a power of two; ``dim`` where several are together.
        inv_size: 1 / dim, as fp32.
        eps: As fp32.
        weight_offset: As fp32.
        narrowing: How the norm is rounded.
    """

    dim: int
    num_q: int
    num_k: int
    num: int
    together: int
    cols: int
    inv_size: float
    eps: float
    weight_offset: float
    narrowing: fp32.Narrowing


@triton.jit
def _heads_tile(
    t,
    end,
    qkv_ptr,
    weight_q_ptr,
    weight_k_ptr,
    norm_ptr,
    AT: tl.constexpr,
    TILE: tl.constexpr,
    HEADS: tl.constexpr,
):
    TILES: tl.constexpr = HEADS.num // HEADS.together
    first_row = tl.cast(t // TILES, tl.int64) * TILE.rows
    head = (t % TILES) * HEADS.together
    column = tl.cast(head, tl.int64) * HEADS.dim
    window = first_row, end, tl.arange(0, TILE.cols)[None, :]
    head_ptr = qkv_ptr + column * AT.qkv.strides[len(AT.qkv.strides) - 1]
    head_norm_ptr = norm_ptr + column * AT.norm.strides[len(AT.norm.strides) - 1]
    normed = head < HEADS.num_q + HEADS.num_k
    if normed | (qkv_ptr.to(tl.int64) != norm_ptr.to(tl.int64)):
        x = rows.load(head_ptr, window, TILE, AT.qkv)
        if normed:
            one = first_row, end, tl.arange(0, HEADS.cols)[None, :]
            if head < HEADS.num_q:
                factor = functions.weight_factor(rows.load(weight_q_ptr, one, TILE, AT.weight_q), HEADS.weight_offset)
            else:
                factor = functions.weight_factor(rows.load(weight_k_ptr, one, TILE, AT.weight_k), HEADS.weight_offset)
            heads = tl.reshape(x.to(tl.float32), (TILE.rows * HEADS.together, HEADS.cols))
            groups = functions.square_groups(heads, TILE.rows * HEADS.together, HEADS.cols)
            rstd = functions.reciprocal_rms((groups,), HEADS.inv_size, HEADS.eps)
            scaled = tl.reshape(heads * rstd, (TILE.rows, HEADS.together, HEADS.cols)) * factor[:, None, :]
            norm = tl.reshape(scaled, (TILE.rows, TILE.cols))
            x = fp32.narrow(norm, norm_ptr.dtype.element_ty, HEADS.narrowing)
        rows.store(head_norm_ptr, x, window, TILE, AT.norm)


@triton.jit
def _gemma_rmsnorm_heads_kernel(
    qkv_ptr,  # [total_rows, heads * head_dim]
    weight_q_ptr,  # [total_rows or 1, head_dim]
    weight_k_ptr,  # [total_rows or 1, head_dim]
    num_rows_ptr,  # int32 [1], the number of rows that count, or None for all
    total_rows,
    norm_ptr,  # as qkv; where it is qkv, the v heads are left alone
    AT: tl.constexpr,
    TILE: tl.constexpr,
    HEADS: tl.constexpr,
    COUNT: tl.constexpr,
):
    if num_rows_ptr is None:
        t = tl.program_id(0)
        _heads_tile(t, total_rows, qkv_ptr, weight_q_ptr, weight_k_ptr, norm_ptr, AT, TILE, HEADS)
    else:
        valid = row_count.valid_rows(num_rows_ptr, total_rows, COUNT)
        end = row_count.num_tiles(valid, HEADS.num // HEADS.together * TILE.cols, TILE)
        for t in range(tl.program_id(0), end, COUNT.programs):
            _heads_tile(t, valid, qkv_ptr, weight_q_ptr, weight_k_ptr, norm_ptr, AT, TILE, HEADS)
        row_count.clear(norm_ptr, valid, total_rows, HEADS.num * HEADS.dim, COUNT, "norm")
