"""Gemma's RMSNorm for JAX."""

from __future__ import annotations

import jax

from m3ops_jax._primitive import call


def gemma_rmsnorm(
    x: jax.Array,
    weight: jax.Array,
    *,
    eps: float = 1e-6,
    num_rows: jax.Array | None = None,
) -> jax.Array:
    """``x / sqrt(mean(x**2) + eps) * (1 + weight)`` along the last axis.

    Computed in fp32 and rounded once; the sum of squares does not depend on the order of addition, so a row's bytes
    are the same for every batch size and device.

    Args:
        x: Shape ``[..., N]``; bfloat16, float16 or float32.
        weight: Shape ``[N]``, or with leading axes that broadcast against those of x; any of these dtypes.
        eps: Added to the mean square, at least 0.
        num_rows: int32 array of one element: from this row on, the leading axes flattened, nothing is read or computed,
            and the results are zero. Below 0 it counts as 0, past the last row as all rows. The default is all rows.

    Returns:
        The normalized array, with the shape and dtype of x.

    Raises:
        TypeError: A dtype is not one of these, or eps is no Python number.
        ValueError: The shapes do not fit each other, or eps is out of range.
    """
    (out,) = call("gemma_rmsnorm", x, weight, eps=eps, num_rows=num_rows)
    return out
