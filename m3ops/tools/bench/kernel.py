"""Triton kernels to compare with: nothing at all, a launch of twelve arguments, and norms that sum in fp32."""

# mypy: allow-untyped-defs, allow-incomplete-defs

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _empty_kernel(x_ptr):
    pass


@triton.jit
def _twelve_arguments_kernel(
    x_ptr,  # [num_rows, 2 * size]
    values_ptr,  # uint8 [num_rows, size]
    scales_ptr,  # uint8 [num_rows, size / 32]
    num_rows,
    size,
    x_stride,
    values_stride,
    scales_stride,
    alpha,
    beta,
    limit,
    BLOCK: tl.constexpr,
):
    pass


@triton.jit
def _fp32_rmsnorm_kernel(
    x_ptr,  # [num_rows, SIZE], a whole number of tiles
    residual_ptr,  # [num_rows, SIZE], or None
    weight_ptr,  # [SIZE]
    out_ptr,  # [num_rows, SIZE]
    new_residual_ptr,  # [num_rows, SIZE], or None
    SIZE: tl.constexpr,
    EPS: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
):
    cols = tl.arange(0, COLS)[None, :]
    offsets = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]) * SIZE + cols
    mask = cols < SIZE
    x = tl.load(x_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    if residual_ptr is not None:
        x += tl.load(residual_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
        tl.store(new_residual_ptr + offsets, x.to(new_residual_ptr.dtype.element_ty), mask=mask)
    weight = tl.load(weight_ptr + cols, mask=mask, other=0.0).to(tl.float32)
    rstd = tl.rsqrt(tl.sum(x * x, axis=1, keep_dims=True) / SIZE + EPS)
    tl.store(out_ptr + offsets, (x * rstd * (1.0 + weight)).to(out_ptr.dtype.element_ty), mask=mask)
