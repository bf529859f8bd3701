"""Triton kernels of the gradients of a norm: of x with partial sums for the weight, then the sum of those."""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl

from m3ops.numerics import constants as c
from m3ops.numerics import tile
from m3ops.ops.gemma_rmsnorm.kernel import load_sum
from m3ops.tiles import rows
from m3ops.tiles.rows import Rows

_PARTIAL_ROWS = tl.constexpr(c.PARTIAL_ROWS)
_FAN_IN = tl.constexpr(c.FAN_IN)


@dataclass(frozen=True)
class NormBackwardAt:
    """Where the rows of each operand lie, a constexpr; None for what a call does not have."""

    x: Rows
    weight: Rows
    grad: Rows
    grad_x: Rows
    partials: Rows | None = None
    residual: Rows | None = None
    grad_new_residual: Rows | None = None


@dataclass(frozen=True)
class Groups:
    """The groups of rows that share a row of the weight, a constexpr.

    Attributes:
        count: How many there are.
        at: Where the first row of each is.
    """

    count: int
    at: NormBackwardAt


@triton.jit
def _group(ptr, group, AT: tl.constexpr):
    """The pointer to the first row of a group."""
    return rows.advance(ptr, group, AT.inner_sizes, AT.strides)


@triton.jit
def _gemma_rmsnorm_backward_kernel(
    x_ptr,  # [groups, total_rows, N]
    residual_ptr,  # [groups, total_rows, N], or None
    weight_ptr,  # [groups, N]
    grad_ptr,  # [groups, total_rows, N]
    grad_new_residual_ptr,  # [groups, total_rows, N], or None
    total_rows,
    grad_x_ptr,  # [groups, total_rows, N]
    partials_ptr,  # fp32 [programs of a group, groups, TILE.rows, N]
    AT: tl.constexpr,
    GROUPS: tl.constexpr,
    TILE: tl.constexpr,
    NORM: tl.constexpr,
):
    PARTS: tl.constexpr = TILE.parts
    group = tl.program_id(0) % GROUPS.count
    first_row = (tl.program_id(0) // GROUPS.count).to(tl.int64) * (TILE.rows * _PARTIAL_ROWS)
    x_ptr = _group(x_ptr, group, GROUPS.at.x)
    weight_ptr = _group(weight_ptr, group, GROUPS.at.weight)
    grad_ptr = _group(grad_ptr, group, GROUPS.at.grad)
    grad_x_ptr = _group(grad_x_ptr, group, GROUPS.at.grad_x)
    if residual_ptr is not None:
        residual_ptr = _group(residual_ptr, group, GROUPS.at.residual)
    if grad_new_residual_ptr is not None:
        grad_new_residual_ptr = _group(grad_new_residual_ptr, group, GROUPS.at.grad_new_residual)
    partials = ()
    for _ in tl.static_range(PARTS):
        partials += (tl.zeros((TILE.rows, TILE.cols), tl.float32),)
    for step in range(tl.minimum((total_rows - first_row + TILE.rows - 1) // TILE.rows, _PARTIAL_ROWS)):
        first = first_row + step * TILE.rows
        xs, squares = (), ()
        for i in tl.static_range(PARTS):
            part = (first, total_rows, i * TILE.cols + tl.arange(0, TILE.cols)[None, :])
            x = load_sum(x_ptr, residual_ptr, part, TILE, AT)
            xs += (x,)
            squares += (tile.square_groups(x, TILE.rows, TILE.cols),)
        rstd = tile.reciprocal_rms(squares, NORM.inv_size, NORM.eps)
        normalized, scaled, products, sums = (), (), (), ()
        for i in tl.static_range(PARTS):
            part = (first, total_rows, i * TILE.cols + tl.arange(0, TILE.cols)[None, :])
            grad = rows.load(grad_ptr, part, TILE, AT.grad).to(tl.float32)
            weight = rows.load(weight_ptr, part, TILE, AT.weight).to(tl.float32)
            n, h, product, total = tile.rmsnorm_backward(
                xs[i], rstd, weight, grad, partials[i], first, total_rows, TILE.rows, TILE.cols, TILE.masked
            )
            normalized += (n,)
            scaled += (h,)
            products += (product,)
            sums += (total,)
        partials = sums
        mean = (tile.sum_exactly(products, True) * NORM.inv_size)[:, None]
        for i in tl.static_range(PARTS):
            part = (first, total_rows, i * TILE.cols + tl.arange(0, TILE.cols)[None, :])
            inner = tl.fma(-normalized[i], mean, scaled[i])
            if grad_new_residual_ptr is None:
                grad_x = rstd * inner
            else:
                passed = rows.load(grad_new_residual_ptr, part, TILE, AT.grad_new_residual).to(tl.float32)
                grad_x = tl.fma(rstd, inner, passed)
            grad_x = tile.narrow(grad_x, grad_x_ptr.dtype.element_ty, NORM.narrowing)
            rows.store(grad_x_ptr, grad_x, part, TILE, AT.grad_x)
    row = tl.program_id(0).to(tl.int64) * TILE.rows
    for i in tl.static_range(PARTS):
        part = (row, row + TILE.rows, i * TILE.cols + tl.arange(0, TILE.cols)[None, :])
        rows.store(partials_ptr, partials[i], part, TILE, AT.partials)


@triton.jit
def _sum_rows_kernel(
    partials_ptr,  # fp32 [num_partials / LANES, groups, LANES, SIZE]
    num_partials,
    total_ptr,  # [num_partials / FAN_IN, groups, SIZE]
    SIZE: tl.constexpr,
    GROUPS: tl.constexpr,
    LANES: tl.constexpr,
    COLS: tl.constexpr,
    NARROWING: tl.constexpr,
):
    COL_TILES: tl.constexpr = (SIZE + COLS - 1) // COLS
    total_row = tl.program_id(0) // COL_TILES
    cols = (tl.program_id(0) % COL_TILES) * COLS + tl.arange(0, COLS)
    group, first = total_row % GROUPS, (total_row // GROUPS) * _FAN_IN
    inside = cols < SIZE
    total = tl.zeros((COLS,), tl.float32)
    for i in tl.static_range(_FAN_IN):
        partial = first + i
        row = ((partial // LANES) * GROUPS + group) * LANES + partial % LANES
        ptrs = partials_ptr + row.to(tl.int64) * SIZE + cols
        total += tl.load(ptrs, mask=inside & (partial < num_partials), other=0)
    total = tile.narrow(total, total_ptr.dtype.element_ty, NARROWING)
    tl.store(total_ptr + total_row.to(tl.int64) * SIZE + cols, total, mask=inside)
