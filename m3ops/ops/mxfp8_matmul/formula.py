"""A product of MXFP8 matrices as a user of PyTorch or JAX would write it."""

from __future__ import annotations

from typing import Any

from m3ops.ops.mxfp8.formula import dequantize_jax, dequantize_torch


def matmul_torch(x_values: Any, x_scales: Any, w_values: Any, w_scales: Any, *, arithmetic: str = "") -> Any:
    """Dequantized to bfloat16, which is exact, and multiplied, whatever arithmetic is asked for."""
    return dequantize_torch(x_values, x_scales) @ dequantize_torch(w_values, w_scales).T


def matmul_jax(x_values: Any, x_scales: Any, w_values: Any, w_scales: Any, *, arithmetic: str = "") -> Any:
    """The same for JAX."""
    return dequantize_jax(x_values, x_scales) @ dequantize_jax(w_values, w_scales).T


def grouped_torch(
    x_values: Any, x_scales: Any, w_values: Any, w_scales: Any, group_sizes: Any, *, arithmetic: str = ""
) -> Any:
    """PyTorch's product of groups, which takes the ends of the groups."""
    import torch

    ends = torch.cumsum(group_sizes, 0, dtype=torch.int32)
    w = dequantize_torch(w_values, w_scales)
    return torch._grouped_mm(dequantize_torch(x_values, x_scales), w.transpose(-2, -1), offs=ends)


def grouped_jax(
    x_values: Any, x_scales: Any, w_values: Any, w_scales: Any, group_sizes: Any, *, arithmetic: str = ""
) -> Any:
    """JAX's, which takes sizes."""
    import jax

    x, w = dequantize_jax(x_values, x_scales), dequantize_jax(w_values, w_scales)
    return jax.lax.ragged_dot(x, w.swapaxes(-2, -1), group_sizes)


def k_grouped_torch(
    x_values: Any, x_scales: Any, w_values: Any, w_scales: Any, group_sizes: Any, *, arithmetic: str = ""
) -> Any:
    """PyTorch's product of groups along K, of which each fills its blocks."""
    import torch

    ends = torch.cumsum(group_sizes, 0, dtype=torch.int32)
    x, w = dequantize_torch(x_values, x_scales), dequantize_torch(w_values, w_scales)
    return torch._grouped_mm(x, w.transpose(0, 1), offs=ends)


def k_grouped_jax(
    x_values: Any, x_scales: Any, w_values: Any, w_scales: Any, group_sizes: Any, *, arithmetic: str = ""
) -> Any:
    """JAX's."""
    import jax

    x, w = dequantize_jax(x_values, x_scales), dequantize_jax(w_values, w_scales)
    dims = jax.lax.RaggedDotDimensionNumbers((((1,), (1,)), ((), ())), [1], [])
    return jax.lax.ragged_dot_general(x, w, group_sizes, dims)


TORCH = {
    "mxfp8_matmul": matmul_torch,
    "mxfp8_grouped_matmul": grouped_torch,
    "mxfp8_k_grouped_matmul": k_grouped_torch,
}
JAX = {"mxfp8_matmul": matmul_jax, "mxfp8_grouped_matmul": grouped_jax, "mxfp8_k_grouped_matmul": k_grouped_jax}
