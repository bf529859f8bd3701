"""Tiny Triton kernels around `tl.dot` and `tl.dot_scaled`: one program multiplies two whole matrices.

A is stored as [M, K], B as [N, K] (K_INNER) or as [K, N].
"""

import triton
import triton.language as tl


@triton.jit
def dot_kernel(a_ptr, b_ptr, o_ptr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, K_INNER: tl.constexpr):
    """O[M, N] = A B."""
    m, n = tl.arange(0, M), tl.arange(0, N)
    total = tl.zeros((M, N), tl.float32)
    for start in range(0, K, 128):
        k = start + tl.arange(0, 128)
        a = tl.load(a_ptr + m[:, None] * K + k[None, :])
        b = tl.load(b_ptr + (n[None, :] * K + k[:, None] if K_INNER else k[:, None] * N + n[None, :]))
        total = tl.dot(a, b, total)
    tl.store(o_ptr + m[:, None] * N + n[None, :], total)


@triton.jit
def dot_scaled_kernel(
    a_ptr, a_scale_ptr, b_ptr, b_scale_ptr, o_ptr,
    M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, K_INNER: tl.constexpr,
):  # fmt: skip
    """The same of MXFP8, with scales [M, K / 32] and [N, K / 32]."""
    m, n = tl.arange(0, M), tl.arange(0, N)
    total = tl.zeros((M, N), tl.float32)
    for start in range(0, K, 128):
        k, block = start + tl.arange(0, 128), start // 32 + tl.arange(0, 4)
        a = tl.load(a_ptr + m[:, None] * K + k[None, :])
        b = tl.load(b_ptr + (n[None, :] * K + k[:, None] if K_INNER else k[:, None] * N + n[None, :]))
        a_scale = tl.load(a_scale_ptr + m[:, None] * (K // 32) + block[None, :])
        b_scale = tl.load(b_scale_ptr + n[:, None] * (K // 32) + block[None, :])
        total = tl.dot_scaled(a, a_scale, "e4m3", b, b_scale, "e4m3", total)
    tl.store(o_ptr + m[:, None] * N + n[None, :], total)
