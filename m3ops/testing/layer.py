"""A whole mixture of experts, from tokens on: a case of several ops, whose bytes are published as theirs are."""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any

import numpy as np

from m3ops import layers
from m3ops.mxfp8 import MXFP8, packed
from m3ops.numerics.scale_layouts import ROW_MAJOR
from m3ops.op import Op
from m3ops.ops import OPS
from m3ops.ops.moe.formula import SCALE, TOP_K
from m3ops.testing.arrays import normal
from m3ops.testing.case import Case, operands

NAME = "moe_layer"
HIDDEN, INNER = 64, 32


def arrays(tokens: int = 13, experts: int = 6) -> dict[str, np.ndarray]:
    """Tokens and the weights of a mixture of experts in bfloat16; the router's are fp32."""
    return {
        "x": normal((tokens, HIDDEN), "bfloat16"),
        "router": normal((experts, HIDDEN), "float32", 0.3),
        "bias": normal((experts,), "float32", 0.1),
        "w13": normal((experts, 2 * INNER, HIDDEN), "bfloat16", 0.2),
        "w2": normal((experts, HIDDEN, INNER), "bfloat16", 0.2),
        "shared_w13": normal((2 * INNER, HIDDEN), "bfloat16", 0.2),
        "shared_w2": normal((HIDDEN, INNER), "bfloat16", 0.2),
    }


def compute(ops: Any, x: Any, router: Any, bias: Any, *weights: Any, **given: Any) -> Any:
    """The layer by a front end, with weights that it quantizes; without those of a shared expert there is none."""
    w13, w2, *shared = map(ops.mxfp8_quantize, weights)
    return ops.moe_layer(x, ops.moe_logits(x, router), bias, w13, w2, tuple(shared) or None, **given)


class LayerCase(Case):
    """What the layer gives, with the ops computed by the specification."""

    def expected(self) -> tuple[np.ndarray, ...]:
        return (compute(SPECIFICATION, *self.make(), **self.given),)


LAYER = LayerCase(NAME, "routed and shared experts", lambda: tuple(arrays().values()))


def _of_arrays(op_type: type[Op], *arguments: Any, **given: Any) -> Any:
    """An op over NumPy arrays, called as a front end's function is."""
    flat = [part for argument in arguments for part in (argument if isinstance(argument, MXFP8) else (argument,))]
    op = op_type.of(**given)
    return packed(op.reference(operands(op, flat)), MXFP8, ROW_MAJOR)


def _layer(*arguments: Any, **given: Any) -> Any:
    defaults = {"top_k": TOP_K, "scale": SCALE, "arithmetic": "exact", "shared_in_stack": False, "devices": None}
    return layers.moe_layer(SPECIFICATION, *arguments, **{**defaults, **given})  # type: ignore[arg-type]


SPECIFICATION = SimpleNamespace(
    **{name: functools.partial(_of_arrays, op) for name, op in OPS.items()}, moe_layer=_layer
)
"""A front end of NumPy arrays, as far as the layer needs one."""
