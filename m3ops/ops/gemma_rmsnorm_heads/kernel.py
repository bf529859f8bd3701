"""Triton kernel of Gemma's RMSNorm of q and k heads, a few heads of a few rows a program."""

from __future__ import annotations

import triton
import triton.language as tl

from m3ops import rows
from m3ops.numerics import tile


@triton.jit
def _gemma_rmsnorm_heads_kernel(
    qkv_ptr,  # [num_rows, (NUM_Q + NUM_K + NUM_V) * SIZE]
    weight_q_ptr,  # [num_rows or 1, SIZE]
    weight_k_ptr,  # [num_rows or 1, SIZE]
    live_ptr,  # int32 [1], the number of rows that count, or None for all
    num_rows,
    out_ptr,  # as qkv; where it is qkv, the v heads are left alone
    SIZE: tl.constexpr,
    NUM_Q: tl.constexpr,
    NUM_K: tl.constexpr,
    NUM_V: tl.constexpr,
    INNER_SIZES: tl.constexpr,
    QKV_STRIDES: tl.constexpr,
    WEIGHT_Q_STRIDES: tl.constexpr,
    WEIGHT_K_STRIDES: tl.constexpr,
    OUT_STRIDES: tl.constexpr,
    INV_SIZE: tl.constexpr,
    EPS: tl.constexpr,
    ROWS: tl.constexpr,
    HEADS: tl.constexpr,  # divides NUM_Q, NUM_K and NUM_V: the heads of a program are of one kind
    COLS: tl.constexpr,  # of a head; SIZE where HEADS > 1
    MASKED: tl.constexpr,
    MIXED_FMA: tl.constexpr,
    LIVE: tl.constexpr = None,
):
    TILES: tl.constexpr = (NUM_Q + NUM_K + NUM_V) // HEADS
    count, first, step, live = rows.tiles(num_rows, live_ptr, TILES, ROWS, 1, LIVE)
    for turn in range(count):
        t = first + turn * step
        first_row = tl.cast(t // TILES, tl.int64) * ROWS
        head = (t % TILES) * HEADS
        column = tl.cast(head, tl.int64) * SIZE
        window = first_row, live, tl.arange(0, HEADS * COLS)[None, :]
        head_ptr = qkv_ptr + column * QKV_STRIDES[len(QKV_STRIDES) - 1]
        head_out_ptr = out_ptr + column * OUT_STRIDES[len(OUT_STRIDES) - 1]
        normed = head < NUM_Q + NUM_K
        if normed | (qkv_ptr.to(tl.int64) != out_ptr.to(tl.int64)):
            x = rows.load(head_ptr, window, HEADS * SIZE, ROWS, MASKED, INNER_SIZES, QKV_STRIDES)
            if normed:
                one = first_row, live, tl.arange(0, COLS)[None, :]
                if head < NUM_Q:
                    weight = rows.load(weight_q_ptr, one, SIZE, ROWS, MASKED, INNER_SIZES, WEIGHT_Q_STRIDES)
                    weight = weight.to(tl.float32)
                else:
                    weight = rows.load(weight_k_ptr, one, SIZE, ROWS, MASKED, INNER_SIZES, WEIGHT_K_STRIDES)
                    weight = weight.to(tl.float32)
                heads = tl.reshape(x.to(tl.float32), (ROWS * HEADS, COLS))
                rstd = tile.reciprocal_rms((tile.square_groups(heads, ROWS * HEADS, COLS),), INV_SIZE, EPS)
                scaled = tl.reshape(heads * rstd, (ROWS, HEADS, COLS)) * (weight + 1.0)[:, None, :]
                x = tile.narrow(tl.reshape(scaled, (ROWS, HEADS * COLS)), out_ptr.dtype.element_ty, MIXED_FMA)
            rows.store(head_out_ptr, x, window, HEADS * SIZE, ROWS, MASKED, INNER_SIZES, OUT_STRIDES)
    if live_ptr is not None:
        rows.clear(out_ptr, live, num_rows, (NUM_Q + NUM_K + NUM_V) * SIZE, LIVE)
