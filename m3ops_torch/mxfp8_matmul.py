"""Matrix products of MXFP8 for PyTorch.

Generated from m3ops/ops/mxfp8_matmul/spec.py by ``python -m m3ops.tools.front_ends``.
"""

from __future__ import annotations

import torch

from m3ops.ops.mxfp8_matmul import MXFP8Matmul
from m3ops_torch._call import dtype_name, run
from m3ops_torch._mxfp8 import MXFP8, quantized


def mxfp8_matmul(
    x: MXFP8,
    w: MXFP8,
    *,
    arithmetic: str = "exact",
    out_dtype: torch.dtype = torch.bfloat16,
    num_rows: torch.Tensor | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """``x @ w.T`` of MXFP8 matrices with the same bytes on every machine, for any number of rows.

    Each product of two blocks of 32 is exact. These products are added in fp32, in the order of K.

    Args:
        x: An ``MXFP8`` of values ``[..., K]``, as :func:`mxfp8_quantize` returns it.
        w: The weight, an ``MXFP8`` of values ``[N, K]``, quantized along K too.
        arithmetic: ``"exact"``: the same bytes on every machine. ``"fast"``: the sums of a tensor core of bfloat16,
            within :meth:`MXFP8Matmul.error_bound` of the exact result. A row's bytes then depend on the kind of GPU,
            but not on the other rows; a CPU gives the bytes of ``"exact"``.
        out_dtype: bfloat16, float16 or float32.
        num_rows: How many rows count, with the leading axes flattened: an int32 tensor of one element, clamped to the
            rows that exist. The other rows are not read. Their results are zero in a new tensor and stay as they were
            in ``out``.
        out: Where to write: tensors of the results' shapes, dtypes and device, nested as the results are. Their rows
            must be contiguous, and they must not overlap the inputs or each other.

    Returns:
        The product, shape ``[..., N]``, rounded once from fp32.

    Raises:
        TypeError: A dtype is not supported, or a parameter has the wrong type.
        ValueError: The shapes do not fit each other, or tiled scales are not contiguous, or a parameter is out of
            range.
    """
    x = quantized("x", x)
    w = quantized("w", w)
    op = MXFP8Matmul.of(
        arithmetic=arithmetic, out_dtype=dtype_name(out_dtype), x_layout=x.scale_layout, w_layout=w.scale_layout
    )
    result: torch.Tensor = run(op, x.values, x.scales, w.values, w.scales, num_rows=num_rows, out=out)
    return result
