"""The gradient of SwiGLU-OAI with respect to its input.

    grad_gate = grad * (s * (1 + alpha * gate * (1 - s)) * (up + beta)),  s = sigmoid(alpha * gate)
    grad_up   = grad * (gate * s)

of the clamped gate and up, and 0 where the clamp cut something off. At the bound itself it does not, and the gradient
passes; the clamps of PyTorch and JAX give 0, 1/2 or 1 times the gradient there. Computed in fp32, rounded once to the
dtype of gate_up, in its layout. ``gate_up [..., 2 * I], grad [..., I] -> [..., 2 * I]``.
"""

from __future__ import annotations

from m3ops import validate
from m3ops.numerics import exact
from m3ops.op import Array, Arrays, ArraySpec
from m3ops.ops.swiglu_oai.spec import check_gate_up, divided


def infer(
    gate_up: ArraySpec,
    grad: ArraySpec,
    *,
    alpha: float = 1.702,
    beta: float = 1.0,
    limit: float | None = 7.0,
    layout: str = "split",
    groups: int = 1,
) -> tuple[ArraySpec]:
    shape = check_gate_up(gate_up, alpha=alpha, beta=beta, limit=limit, layout=layout, groups=groups)
    validate.array("grad", grad)
    if grad.shape != shape:
        raise ValueError(f"grad must have shape {shape} for gate_up of shape {gate_up.shape}, got {grad.shape}")
    return (ArraySpec(gate_up.shape, gate_up.dtype),)


def compute(
    gate_up: Array, grad: Array, *, alpha: float, beta: float, limit: float | None, layout: str, groups: int
) -> Arrays:
    leading, size = grad.shape[:-1], grad.shape[-1] // groups
    pairs = exact.load(gate_up).reshape(*leading, groups, 2 * size)
    dy = exact.load(grad).reshape(*leading, groups, size)
    gate, up = divided(pairs, layout)
    halves = exact.swiglu_oai_backward(gate, up, dy, alpha, beta, limit)
    together = dy.__array_namespace__().stack(halves, axis=-2 if layout == "split" else -1)
    return (exact.store(together, gate_up.dtype.name).reshape(gate_up.shape),)
