"""MiniMax-M3's ops as vLLM declares them.

``vllm.models.minimax_m3.amd.ops`` and ``vllm.model_executor.layers.quantization.utils.mxfp8_utils`` have functions with
these names, argument orders and result shapes. The numbers are those of m3ops, which differ from vLLM's in the last
place and in corner cases: docs/pytorch.md.
"""

from __future__ import annotations

import torch

import m3ops_torch
from m3ops_torch._mxfp8 import MXFP8
from m3ops_torch.gemma_rmsnorm import gemma_fused_add_rmsnorm as _gemma_fused_add_rmsnorm
from m3ops_torch.gemma_rmsnorm import gemma_rmsnorm as _gemma_rmsnorm

__all__ = [
    "dequant_mxfp8_to_bf16",
    "gemma_fused_add_rmsnorm",
    "gemma_rmsnorm",
    "mxfp8_e4m3_quantize",
    "swiglu_oai_quantize_mxfp8",
    "swiglu_oai_split",
]


def swiglu_oai_quantize_mxfp8(
    gate_up: torch.Tensor, alpha: float, beta: float, limit: float | None, block_m: int = 64
) -> tuple[torch.Tensor, torch.Tensor]:
    """:func:`m3ops_torch.swiglu_oai_quantize` with all leading axes flattened into one.

    Args:
        gate_up: ``[gate | up]`` along the last axis, shape ``[..., 2 * I]`` with I a multiple of 32.
        alpha: Slope of the sigmoid.
        beta: Offset of ``up``.
        limit: Clamp bound, or None.
        block_m: Ignored. It is the number of rows of a program in vLLM's kernel.

    Returns:
        Values ``[M, I]`` in float8_e4m3fn and scales ``[M, I / 32]`` in uint8, M the product of the leading axes.
    """
    values, scales = m3ops_torch.swiglu_oai_quantize(gate_up, alpha=alpha, beta=beta, limit=limit)
    return values.view(-1, values.shape[-1]), scales.view(-1, scales.shape[-1])


def swiglu_oai_split(
    gate_up: torch.Tensor, alpha: float, beta: float, limit: float | None, out_dtype: torch.dtype | None = None
) -> torch.Tensor:
    """:func:`m3ops_torch.swiglu_oai`: shape ``[..., 2 * I] -> [..., I]``."""
    return m3ops_torch.swiglu_oai(gate_up, alpha=alpha, beta=beta, limit=limit, out_dtype=out_dtype)


def gemma_rmsnorm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """:func:`m3ops_torch.gemma_rmsnorm`."""
    return _gemma_rmsnorm(x, weight, eps=eps)


def gemma_fused_add_rmsnorm(
    x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """:func:`m3ops_torch.gemma_fused_add_rmsnorm`: the norm of the sum and the sum, in new tensors."""
    return _gemma_fused_add_rmsnorm(x, residual, weight, eps=eps)


def mxfp8_e4m3_quantize(
    x: torch.Tensor, is_sf_swizzled_layout: bool = False, alignment: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """:func:`m3ops_torch.mxfp8_quantize`.

    Args:
        x: Shape ``[..., K]`` with K a multiple of 32.
        is_sf_swizzled_layout: Whether scales are in tiles of 128 rows x 4 blocks, ``scale_layout="swizzle_128x4"``.
        alignment: The multiple to which the kernel behind vLLM's function pads K on Blackwell. K must already be one.

    Returns:
        Values ``[..., K]`` in float8_e4m3fn and scales in uint8, ``[..., K / 32]``, or one flat vector if swizzled.

    Raises:
        ValueError: K is not a multiple of ``alignment``.
    """
    if alignment > 0 and x.shape[-1] % alignment:
        raise ValueError(f"the last axis of x must be a multiple of alignment, {alignment}, got {x.shape[-1]}")
    if is_sf_swizzled_layout:
        values, scales = m3ops_torch.mxfp8_quantize(x, scale_layout="swizzle_128x4")
        return values, scales.view(-1)
    values, scales = m3ops_torch.mxfp8_quantize(x)
    return values, scales


def dequant_mxfp8_to_bf16(x: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """:func:`m3ops_torch.mxfp8_dequantize` to bfloat16: values ``[..., K]``, scales ``[..., K / 32]``."""
    return m3ops_torch.mxfp8_dequantize(MXFP8(x, scales), out_dtype=torch.bfloat16)
