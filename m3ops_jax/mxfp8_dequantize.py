"""MXFP8 dequantization for JAX."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from m3ops_jax._primitive import call, dtype_name


def mxfp8_dequantize(
    values: jax.Array,
    scales: jax.Array,
    *,
    out_dtype: DTypeLike = jnp.bfloat16,
    scale_layout: str = "row_major",
    num_rows: jax.Array | None = None,
) -> jax.Array:
    """``values * 2**(scales - 127)``, block by block; NaN where the scale byte is 255.

    Args:
        values: Shape ``[..., I]`` with I a multiple of 32; float8_e4m3fn or float8_e4m3fnuz.
        scales: Shape ``[..., I / 32]``, uint8; in a tiled layout padded, as :func:`mxfp8_quantize` gives them.
        out_dtype: bfloat16, float16 or float32.
        scale_layout: ``"row_major"``, ``"swizzle_128x4"`` or ``"shuffle_32x8"``, that of the scales.
        num_rows: int32 array of one element: from this row on, the leading axes flattened, nothing is read or computed,
            and the results are zero. Below 0 it counts as 0, past the last row as all rows. The default is all rows.

    Returns:
        Shape ``[..., I]``, rounded once from fp32.

    Raises:
        TypeError: A dtype is not one of these.
        ValueError: The shapes do not fit each other, or tiled scales are not contiguous.
    """
    (out,) = call(
        "mxfp8_dequantize",
        values,
        scales,
        out_dtype=dtype_name(out_dtype),
        scale_layout=scale_layout,
        num_rows=num_rows,
    )
    return out
