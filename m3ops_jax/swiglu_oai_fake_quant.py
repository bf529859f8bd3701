"""SwiGLU-OAI through MXFP8 and back for JAX, with a straight-through gradient."""

from __future__ import annotations

import functools
from typing import Any

import jax
from jax.typing import DTypeLike

from m3ops_jax.mxfp8_dequantize import mxfp8_dequantize
from m3ops_jax.swiglu_oai import swiglu_oai
from m3ops_jax.swiglu_oai_quantize import swiglu_oai_quantize


def swiglu_oai_fake_quant(
    gate_up: jax.Array,
    *,
    alpha: float = 1.702,
    beta: float = 1.0,
    limit: float | None = 7.0,
    layout: str = "split",
    groups: int = 1,
    scale_rule: str = "rceil",
    fp8_format: str = "e4m3fn",
    round_activation: bool = False,
    out_dtype: DTypeLike | None = None,
) -> jax.Array:
    """:func:`swiglu_oai` as it is after a round trip through MXFP8, for training with quantized activations.

    The result is ``mxfp8_dequantize(*swiglu_oai_quantize(gate_up))``. Its gradient is that of :func:`swiglu_oai`: it
    passes straight through the rounding, which as a step function has none.

    It takes no ``num_rows``, with which no op has a derivative; without one call those two ops.

    Args:
        gate_up: ``[gate | up]`` along the last axis, shape ``[..., 2 * I]`` with I / groups a multiple of 32; bfloat16,
            float16 or float32.
        alpha: Slope of the sigmoid, a Python number above 0.
        beta: Offset of ``up``.
        limit: Clamp bound above 0, or None for no clamp.
        layout: ``"split"`` for ``[gate | up]``, ``"interleaved"`` where they alternate, ``[g0, u0, g1, u1, ...]``.
        groups: Number of pairs ``[gate | up]`` along the last axis, see :func:`swiglu_oai`.
        scale_rule: ``"rceil"`` or ``"floor"``, see :func:`mxfp8_quantize`.
        fp8_format: ``"e4m3fn"`` or ``"e4m3fnuz"``, see :func:`mxfp8_quantize`.
        round_activation: Whether the activation is rounded to the dtype of ``gate_up`` before it is quantized.
        out_dtype: bfloat16, float16 or float32; the dtype of ``gate_up`` unless given.

    Returns:
        The activation, shape ``[..., I]``.

    Raises:
        TypeError: A dtype is not one of these, or a parameter has the wrong type.
        ValueError: I / groups is no multiple of 32, or a parameter is out of range.
    """
    activation = {"alpha": alpha, "beta": beta, "limit": limit, "layout": layout, "groups": groups}
    rounding = {"scale_rule": scale_rule, "fp8_format": fp8_format, "round_activation": round_activation}
    plain: Any = functools.partial(swiglu_oai, **activation, out_dtype=out_dtype)  # type: ignore[arg-type]

    @jax.custom_vjp
    def rounded(gate_up: jax.Array) -> jax.Array:
        values, scales = swiglu_oai_quantize(gate_up, **activation, **rounding)  # type: ignore[arg-type]
        return mxfp8_dequantize(values, scales, out_dtype=gate_up.dtype if out_dtype is None else out_dtype)

    def backward(gate_up: jax.Array, grad: jax.Array) -> tuple[jax.Array]:
        gradients: tuple[jax.Array] = jax.vjp(plain, gate_up)[1](grad)
        return gradients

    rounded.defvjp(lambda gate_up: (rounded(gate_up), gate_up), backward)
    return rounded(gate_up)
