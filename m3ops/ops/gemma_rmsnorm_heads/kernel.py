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
):
    TILES: tl.constexpr = (NUM_Q + NUM_K + NUM_V) // HEADS
    first_row = (tl.program_id(0) // TILES).to(tl.int64) * ROWS
    head = (tl.program_id(0) % TILES) * HEADS
    column = head.to(tl.int64) * SIZE
    window = first_row, num_rows, tl.arange(0, HEADS * COLS)[None, :]
    qkv_ptr += column * QKV_STRIDES[len(QKV_STRIDES) - 1]
    out_ptr += column * OUT_STRIDES[len(OUT_STRIDES) - 1]
    normed = head < NUM_Q + NUM_K
    if normed | (qkv_ptr.to(tl.int64) != out_ptr.to(tl.int64)):
        x = rows.load(qkv_ptr, window, HEADS * SIZE, ROWS, MASKED, INNER_SIZES, QKV_STRIDES)
        if normed:
            one = first_row, num_rows, tl.arange(0, COLS)[None, :]
            if head < NUM_Q:
                weight = rows.load(weight_q_ptr, one, SIZE, ROWS, MASKED, INNER_SIZES, WEIGHT_Q_STRIDES).to(tl.float32)
            else:
                weight = rows.load(weight_k_ptr, one, SIZE, ROWS, MASKED, INNER_SIZES, WEIGHT_K_STRIDES).to(tl.float32)
            heads = tl.reshape(x.to(tl.float32), (ROWS * HEADS, COLS))
            rstd = tile.reciprocal_rms((tile.square_groups(heads, ROWS * HEADS, COLS),), INV_SIZE, EPS)
            scaled = tl.reshape(heads * rstd, (ROWS, HEADS, COLS)) * (weight + 1.0)[:, None, :]
            x = tile.narrow(tl.reshape(scaled, (ROWS, HEADS * COLS)), out_ptr.dtype.element_ty, MIXED_FMA)
        rows.store(out_ptr, x, window, HEADS * SIZE, ROWS, MASKED, INNER_SIZES, OUT_STRIDES)
