"""SwiGLU-OAI: the gated activation of gpt-oss and MiniMax-M3.

    out = (gate * sigmoid(alpha * gate)) * (up + beta),  gate = min(gate, limit),  up = clamp(up, -limit, limit)

with ``gate_up = [gate | up]`` along the last axis. Source: vLLM's ``swiglu_oai_split`` for MiniMax-M3; the formula
goes back to gpt-oss. Computed in fp32, rounded once to ``out_dtype``. ``[..., 2 * I] -> [..., I]``.
"""

from __future__ import annotations

from m3ops import validate
from m3ops.numerics import exact
from m3ops.op import Array, Arrays, ArraySpec


def check_gate_up(gate_up: ArraySpec, *, alpha: float, beta: float, limit: float | None) -> tuple[int, ...]:
    """Validates what every SwiGLU-OAI op takes and returns the shape of the activation."""
    validate.array("gate_up", gate_up)
    if gate_up.shape[-1] % 2:
        raise ValueError(f"gate_up must have an even last axis, [gate | up], got shape {gate_up.shape}")
    validate.number("alpha", alpha, low=2.0**-64, high=2.0**64)
    validate.number("beta", beta)
    if limit is not None:
        validate.number("limit", limit, above=0.0)
    return (*gate_up.shape[:-1], gate_up.shape[-1] // 2)


def infer(
    gate_up: ArraySpec,
    *,
    alpha: float = 1.702,
    beta: float = 1.0,
    limit: float | None = 7.0,
    out_dtype: str | None = None,
) -> tuple[ArraySpec]:
    shape = check_gate_up(gate_up, alpha=alpha, beta=beta, limit=limit)
    if out_dtype is not None:
        validate.output_dtype("out_dtype", out_dtype)
    return (ArraySpec(shape, out_dtype or gate_up.dtype),)


def activation(gate_up: Array, alpha: float, beta: float, limit: float | None) -> Array:
    """The fp32 activation."""
    size = gate_up.shape[-1] // 2
    return exact.swiglu_oai(exact.load(gate_up[..., :size]), exact.load(gate_up[..., size:]), alpha, beta, limit)


def compute(gate_up: Array, *, alpha: float, beta: float, limit: float | None, out_dtype: str | None) -> Arrays:
    return (exact.store(activation(gate_up, alpha, beta, limit), out_dtype or gate_up.dtype.name),)
