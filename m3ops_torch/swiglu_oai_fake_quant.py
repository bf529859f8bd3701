"""SwiGLU-OAI through MXFP8 and back for PyTorch, with a straight-through gradient."""

from __future__ import annotations

from typing import Any

import torch

from m3ops_torch._library import call
from m3ops_torch.mxfp8_dequantize import mxfp8_dequantize
from m3ops_torch.swiglu_oai_quantize import swiglu_oai_quantize


def swiglu_oai_fake_quant(
    gate_up: torch.Tensor,
    *,
    alpha: float = 1.702,
    beta: float = 1.0,
    limit: float | None = 7.0,
    layout: str = "split",
    groups: int = 1,
    scale_rule: str = "rceil",
    fp8_format: str = "e4m3fn",
    round_activation: bool = False,
    out_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """:func:`swiglu_oai` as it is after a round trip through MXFP8, for training with quantized activations.

    The result is ``mxfp8_dequantize(*swiglu_oai_quantize(gate_up))``. Its gradient is that of :func:`swiglu_oai`: it
    passes straight through the rounding, which as a step function has none.

    It takes neither ``num_rows`` nor ``out``, with which no op has a derivative; without one call those two ops.

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
    result: torch.Tensor = _FakeQuant.apply(gate_up, activation, rounding, out_dtype)  # type: ignore[no-untyped-call]
    return result


class _FakeQuant(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        gate_up: torch.Tensor, activation: dict[str, Any], rounding: dict[str, Any], out_dtype: torch.dtype | None
    ) -> torch.Tensor:
        values, scales = swiglu_oai_quantize(gate_up, **activation, **rounding)
        return mxfp8_dequantize(values, scales, out_dtype=gate_up.dtype if out_dtype is None else out_dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        ctx.save_for_backward(inputs[0])
        ctx.activation = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        (gate_up,) = ctx.saved_tensors
        return *call("swiglu_oai_backward", gate_up, grad, **ctx.activation), None, None, None
