"""Residual add and Gemma's RMSNorm for JAX."""

from __future__ import annotations

import jax

from m3ops_jax._primitive import call


def gemma_fused_add_rmsnorm(
    x: jax.Array,
    residual: jax.Array,
    weight: jax.Array,
    *,
    eps: float = 1e-6,
    num_rows: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """``gemma_rmsnorm(x + residual, weight)`` and ``x + residual`` in one pass over memory.

    The norm sees the unrounded fp32 sum; each result is rounded once.

    Args:
        x: Shape ``[..., N]``; bfloat16, float16 or float32.
        residual: The shape and dtype of x.
        weight: Shape ``[N]``, or with leading axes that broadcast against those of x; any of these dtypes.
        eps: Added to the mean square, at least 0.
        num_rows: int32 array of one element: from this row on, the leading axes flattened, nothing is read or computed,
            and the results are zero. Below 0 it counts as 0, past the last row as all rows. The default is all rows.

    Returns:
        ``(normalized, new residual)``, both with the shape and dtype of x.

    Raises:
        TypeError: A dtype is not one of these, or eps is no Python number.
        ValueError: The shapes do not fit each other, or eps is out of range.
    """
    out, new_residual = call("gemma_fused_add_rmsnorm", x, residual, weight, eps=eps, num_rows=num_rows)
    return out, new_residual
