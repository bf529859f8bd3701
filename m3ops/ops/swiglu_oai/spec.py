"""SwiGLU-OAI: the gated activation of gpt-oss and MiniMax-M3.

    out = (gate * sigmoid(alpha * gate)) * (up + beta),  gate = min(gate, limit),  up = clamp(up, -limit, limit)

with ``gate_up = [gate | up]`` along the last axis (layout ``"split"``), or alternating, ``[gate_0, up_0, gate_1, up_1,
...]`` (``"interleaved"``), or with ``groups = T`` that T times, one pair after another: what the shards of a
tensor-parallel projection make together. Source: vLLM's ``swiglu_oai_split`` for MiniMax-M3; the formula goes back to
gpt-oss, where gates and ups alternate. Computed in fp32, rounded once to ``out_dtype``. ``[..., 2 * I] -> [..., I]``.
"""

from __future__ import annotations

from m3ops import validate
from m3ops.numerics import exact
from m3ops.op import Array, Arrays, ArraySpec

LAYOUTS = ("split", "interleaved")


def check_gate_up(
    gate_up: ArraySpec, *, alpha: float, beta: float, limit: float | None, layout: str, groups: int
) -> tuple[int, ...]:
    """Validates what every SwiGLU-OAI op takes and returns the shape of the activation."""
    validate.array("gate_up", gate_up)
    validate.number("alpha", alpha, low=2.0**-64, high=2.0**64)
    validate.number("beta", beta)
    if limit is not None:
        validate.number("limit", limit, above=0.0)
    validate.choice("layout", layout, LAYOUTS)
    validate.count("groups", groups)
    if gate_up.shape[-1] % (2 * groups):
        wanted = "an even last axis, [gate | up]" if groups == 1 else f"a last axis of {groups} groups [gate | up]"
        raise ValueError(f"gate_up must have {wanted}, got shape {gate_up.shape}")
    return (*gate_up.shape[:-1], gate_up.shape[-1] // 2)


def infer(
    gate_up: ArraySpec,
    *,
    alpha: float = 1.702,
    beta: float = 1.0,
    limit: float | None = 7.0,
    layout: str = "split",
    groups: int = 1,
    out_dtype: str | None = None,
) -> tuple[ArraySpec]:
    shape = check_gate_up(gate_up, alpha=alpha, beta=beta, limit=limit, layout=layout, groups=groups)
    if out_dtype is not None:
        validate.output_dtype("out_dtype", out_dtype)
    return (ArraySpec(shape, out_dtype or gate_up.dtype),)


def divided(pairs: Array, layout: str) -> tuple[Array, Array]:
    """The gates and the ups along the last axis."""
    size = pairs.shape[-1] // 2
    return (pairs[..., :size], pairs[..., size:]) if layout == "split" else (pairs[..., 0::2], pairs[..., 1::2])


def activation(gate_up: Array, *, alpha: float, beta: float, limit: float | None, layout: str, groups: int) -> Array:
    """The fp32 activation."""
    leading, size = gate_up.shape[:-1], gate_up.shape[-1] // (2 * groups)
    pairs = exact.load(gate_up).reshape(*leading, groups, 2 * size)
    gate, up = divided(pairs, layout)
    act = exact.swiglu_oai(gate, up, alpha, beta, limit)
    return act.reshape(*leading, groups * size)


def compute(
    gate_up: Array,
    *,
    alpha: float,
    beta: float,
    limit: float | None,
    layout: str,
    groups: int,
    out_dtype: str | None,
) -> Arrays:
    act = activation(gate_up, alpha=alpha, beta=beta, limit=limit, layout=layout, groups=groups)
    return (exact.store(act, out_dtype or gate_up.dtype.name),)
