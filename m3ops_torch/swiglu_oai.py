"""SwiGLU-OAI for PyTorch."""

from __future__ import annotations

import torch

from m3ops_torch._library import call, dtype_name


def swiglu_oai(
    gate_up: torch.Tensor,
    *,
    alpha: float = 1.702,
    beta: float = 1.0,
    limit: float | None = 7.0,
    layout: str = "split",
    groups: int = 1,
    out_dtype: torch.dtype | None = None,
    num_rows: torch.Tensor | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """The gated activation of gpt-oss and MiniMax-M3: ``(gate * sigmoid(alpha * gate)) * (up + beta)``.

    ``gate`` is clamped from above by ``limit`` and ``up`` to [-limit, limit] before. Computed in fp32 and rounded once;
    the bytes of the result are the same on every device and in JAX.

    Args:
        gate_up: ``[gate | up]`` along the last axis, shape ``[..., 2 * I]``; bfloat16, float16 or float32.
        alpha: Slope of the sigmoid, a Python number above 0.
        beta: Offset of ``up``.
        limit: Clamp bound above 0, or None for no clamp.
        layout: ``"split"`` for ``[gate | up]``, ``"interleaved"`` where they alternate, ``[g0, u0, g1, u1, ...]``.
        groups: Number of pairs ``[gate | up]`` along the last axis, one after another, as the shards of a
            tensor-parallel projection make them; the result has the activations in the same order.
        out_dtype: bfloat16, float16 or float32; the dtype of ``gate_up`` unless given.
        num_rows: int32 tensor of one element on the device of the inputs: from this row on, the leading axes flattened,
            nothing is read or computed; new results are zero there, those in ``out`` left as they were. Below 0 it
            counts as 0, past the last row as all rows. The default is all rows.
        out: Where to write the result: a tensor of its shape, dtype and device with contiguous rows, apart from the
            inputs. The default is a new one.

    Returns:
        The activation, shape ``[..., I]``.

    Raises:
        TypeError: A dtype is not one of these, or a parameter is no Python number.
        ValueError: The last axis does not divide into such pairs, or a parameter is out of range.
    """
    (result,) = call(
        "swiglu_oai",
        gate_up,
        alpha=alpha,
        beta=beta,
        limit=limit,
        layout=layout,
        groups=groups,
        out_dtype=dtype_name(out_dtype),
        num_rows=num_rows,
        out=out,
    )
    return result
