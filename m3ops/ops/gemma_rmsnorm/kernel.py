"""Triton kernel of Gemma's RMSNorm, with or without residual add and MXFP8 quantization; whole rows at a time."""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl

from m3ops.numerics.tile import fp32, functions
from m3ops.tiles import launches, mx, row_count, rows, scales
from m3ops.tiles.rows import Rows


@dataclass(frozen=True)
class NormAt:
    """Where the rows of each operand lie, a constexpr; None for what a call does not have."""

    x: Rows
    weight: Rows
    residual: Rows | None = None
    norm: Rows | None = None
    new_residual: Rows | None = None
    values: Rows | None = None
    scales: Rows | None = None


@dataclass(frozen=True)
class Norm:
    """The norm's parameters, a constexpr: arguments of ``functions.reciprocal_rms``, ``functions.weight_factor`` and
    ``fp32.narrow``.
    """

    inv_size: float
    eps: float
    weight_offset: float
    narrowing: fp32.Narrowing
    residual_narrowing: fp32.Narrowing


@triton.jit
def load_sum(x_ptr, residual_ptr, part, TILE: tl.constexpr, AT: tl.constexpr, EVICTION: tl.constexpr = ""):
    """A part of the fp32 rows that are normalized: x, or x + residual."""
    x = rows.load(x_ptr, part, TILE, AT.x, EVICTION).to(tl.float32)
    if residual_ptr is not None:
        x += rows.load(residual_ptr, part, TILE, AT.residual, EVICTION).to(tl.float32)
    return x


@triton.jit
def _store_rounded(ptr, x, part, TILE: tl.constexpr, AT: tl.constexpr, NARROWING: tl.constexpr):
    rows.store(ptr, fp32.narrow(x, ptr.dtype.element_ty, NARROWING), part, TILE, AT)


@triton.jit
def _norm_tile(
    t,
    end,
    x_ptr,
    residual_ptr,
    weight_ptr,
    total_rows,
    norm_ptr,
    new_residual_ptr,
    values_ptr,
    scales_ptr,
    AT: tl.constexpr,
    TILE: tl.constexpr,
    NORM: tl.constexpr,
    MX: tl.constexpr,
):
    PARTS: tl.constexpr = TILE.parts
    KEPT: tl.constexpr = not TILE.reload
    # The sum is on its way to memory sooner in a decode step, which is one part. Where arithmetic is dense, reading
    # and writing are kept apart.
    SUM_EARLY: tl.constexpr = KEPT and (MX is None or TILE.parts == 1)
    WEIGHT_EARLY: tl.constexpr = KEPT and MX is None
    xs, weights, groups = (), (), ()
    for i in tl.static_range(PARTS):
        part = rows.part(t, end, TILE, i)
        x = load_sum(x_ptr, residual_ptr, part, TILE, AT, "evict_last")
        if new_residual_ptr is not None and SUM_EARLY:
            _store_rounded(new_residual_ptr, x, part, TILE, AT.new_residual, NORM.residual_narrowing)
        xs += (x,)
        if WEIGHT_EARLY:
            weights += (rows.load(weight_ptr, part, TILE, AT.weight),)
        groups += (functions.square_groups(x, TILE.rows, TILE.cols),)
    rstd = functions.reciprocal_rms(groups, NORM.inv_size, NORM.eps)
    for i in tl.static_range(PARTS):
        part = rows.part(t, end, TILE, i)
        x = xs[i] if KEPT else load_sum(x_ptr, residual_ptr, part, TILE, AT, "evict_first")
        if new_residual_ptr is not None and not SUM_EARLY:
            _store_rounded(new_residual_ptr, x, part, TILE, AT.new_residual, NORM.residual_narrowing)
        weight = weights[i] if WEIGHT_EARLY else rows.load(weight_ptr, part, TILE, AT.weight)
        norm = (x * rstd) * functions.weight_factor(weight, NORM.weight_offset)
        if norm_ptr is not None:
            _store_rounded(norm_ptr, norm, part, TILE, AT.norm, NORM.narrowing)
        if MX is not None:
            if MX.round_activation:
                norm = fp32.round_to(norm, x_ptr.dtype.element_ty, NORM.narrowing)
            mx.store(values_ptr, scales_ptr, norm, t, part, total_rows, TILE, AT.values, AT.scales, MX, i)


@triton.jit
def _gemma_rmsnorm_kernel(
    x_ptr,  # [total_rows, N]
    residual_ptr,  # [total_rows, N], or None
    weight_ptr,  # [total_rows or 1, N]
    num_rows_ptr,  # int32, how many rows of each buffer count, or None for all
    total_rows,
    norm_ptr,  # [total_rows, N], or None where MXFP8 alone is wanted
    new_residual_ptr,  # [total_rows, N], or None
    values_ptr,  # uint8 [total_rows, N], or None
    scales_ptr,  # uint8 [total_rows, N / 32], or in tiles, or None
    AT: tl.constexpr,
    TILE: tl.constexpr,
    NORM: tl.constexpr,
    MX: tl.constexpr,
    COUNT: tl.constexpr,
    OVERLAPS: tl.constexpr,
):
    launches.begin(OVERLAPS)
    if num_rows_ptr is None:
        if scales.pads(scales_ptr, total_rows, AT.x.size, TILE, None if MX is None else MX.scale_tiles):
            return
        _norm_tile(
            tl.program_id(0),
            total_rows,
            x_ptr,
            residual_ptr,
            weight_ptr,
            total_rows,
            norm_ptr,
            new_residual_ptr,
            values_ptr,
            scales_ptr,
            AT,
            TILE,
            NORM,
            MX,
        )
    else:
        ends = row_count.ends(num_rows_ptr, total_rows, COUNT)
        tiles = row_count.tiles(ends, total_rows, AT.x.size, TILE, COUNT)
        for i in range(tl.program_id(0), tiles[0], COUNT.programs):
            t, end = row_count.tile(i, tiles, ends, COUNT)
            _norm_tile(
                t,
                end,
                x_ptr,
                residual_ptr,
                weight_ptr,
                total_rows,
                norm_ptr,
                new_residual_ptr,
                values_ptr,
                scales_ptr,
                AT,
                TILE,
                NORM,
                MX,
            )
        if new_residual_ptr is not None:
            row_count.clear(new_residual_ptr, ends, total_rows, AT.x.size, COUNT, "new_residual")
        if norm_ptr is not None:
            row_count.clear(norm_ptr, ends, total_rows, AT.x.size, COUNT, "norm")
        if MX is not None:
            mx.clear(values_ptr, scales_ptr, ends, total_rows, AT.values, AT.scales, MX, COUNT)
