"""A mixture of experts of MiniMax-M3's size, beside one in bfloat16 with the same activation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from m3ops.array import ArraySpec
from m3ops.numerics.formats import BLOCK
from m3ops.ops.moe.formula import SCALE, TOP_K
from m3ops.testing import formulas
from m3ops.testing.model import EXPERTS, HIDDEN, MOE_SIZE
from m3ops.testing.workload import Workload, rows
from m3ops.tools.bench.result import LayerTime

EXPERT_BYTES = 3 * HIDDEN * MOE_SIZE * (BLOCK + 1) // BLOCK
"""What the weights of an expert take in MXFP8."""


def _weights(experts: int, inner: int) -> tuple[ArraySpec, ...]:
    """The bias; both weights in MXFP8, the shared expert the last of a stack; those and the shared ones in bfloat16."""
    each = (2 * inner, HIDDEN), (HIDDEN, inner)
    shapes = [(experts + 1, *shape) for shape in each]
    values = [ArraySpec(shape, "float8_e4m3fn") for shape in shapes]
    scales = [ArraySpec((*shape[:-1], shape[-1] // BLOCK), "uint8") for shape in shapes]
    pairs = [array for pair in zip(values, scales, strict=True) for array in pair]
    in_bf16 = [ArraySpec(shape, "bfloat16") for shape in (*((experts, *shape) for shape in each), *each)]
    return ArraySpec((experts,), "float32"), *pairs, *in_bf16


def _tokens(num_rows: int, experts: int) -> tuple[ArraySpec, ...]:
    return rows(num_rows, HIDDEN), ArraySpec((num_rows, experts), "float32")


WEIGHTS = Workload("moe_layer", "weights", EXPERTS, MOE_SIZE, _weights)
TOKENS = tuple(
    Workload("moe_layer", f"{n} token{'s' * (n > 1)}", n, EXPERTS, _tokens) for n in (1, 16, 64, 256, 1024, 8192)
)


def timed(ops: Any, weights: Any, tokens: Any, time: Callable[..., float]) -> Iterator[LayerTime]:
    """The contenders of a framework at one number of tokens.

    Args:
        ops: The front end.
        weights: All of them.
        tokens: Tokens and their logits.
        time: Gives the microseconds of a call, of a function and its arguments.
    """
    x, logits = tokens
    bias, *others = weights
    weights = bias / 64, *others  # a trained bias balances the experts; with a spread of 1 all tokens had the same few
    experts = experts_of(ops, logits, weights[0])
    for arithmetic in ("fast", "exact"):
        us = time(partial(in_mxfp8, ops, arithmetic), x, logits, *weights)
        yield LayerTime(len(x), experts, f"{ops.__name__}, {arithmetic}", us)
    name, rival = RIVALS[ops.__name__]
    try:
        yield LayerTime(len(x), experts, name, time(partial(rival, ops), x, logits, *weights))
    except Exception as error:  # a rival that has no room here is a finding, not the end
        yield LayerTime(len(x), experts, f"{name}: {type(error).__name__}", None)


def of_copy(time: LayerTime, gbps: float) -> float | None:
    """The time in which a copy of this bandwidth moves the bytes of the experts, over that of the layer."""
    return None if time.us is None else time.experts * EXPERT_BYTES / gbps / time.us * 1e-3


def experts_of(ops: Any, logits: Any, bias: Any) -> int:
    """How many experts tokens go to, the shared one too."""
    ids, _ = ops.moe_route(logits, bias)
    return len(set(ids.reshape(-1).tolist())) + 1


def in_mxfp8(ops: Any, arithmetic: str, x: Any, logits: Any, bias: Any, *weights: Any) -> Any:
    w13, w2 = ops.MXFP8(*weights[:2]), ops.MXFP8(*weights[2:4])
    return ops.moe_layer(x, logits, bias, w13, w2, arithmetic=arithmetic, shared_in_stack=True)


def _torch_in_bf16(ops: Any, x: Any, logits: Any, bias: Any, *weights: Any) -> Any:
    import torch

    w13, w2, *shared = weights[-4:]
    ids, chosen = formulas.TORCH["moe_route"](logits, bias)
    experts, order = ids.flatten().sort(stable=True)
    ends = torch.arange(1, len(w13) + 1, dtype=experts.dtype, device=x.device)
    offs = torch.searchsorted(experts, ends, out_int32=True)
    gate_up = torch._grouped_mm(x[order // TOP_K], w13.transpose(1, 2), offs=offs)
    y = torch._grouped_mm(ops.swiglu_oai(gate_up), w2.transpose(1, 2), offs=offs)
    y = torch.empty_like(y).index_copy_(0, order, y).reshape(*ids.shape, -1)
    beside = ops.swiglu_oai(x @ shared[0].T) @ shared[1].T
    return (SCALE * (y.float() * chosen[..., None]).sum(-2) + beside).to(x.dtype)


def _jax_in_bf16(ops: Any, x: Any, logits: Any, bias: Any, *weights: Any) -> Any:
    import jax
    import jax.numpy as jnp

    w13, w2, *shared = weights[-4:]
    ids, chosen = formulas.JAX["moe_route"](logits, bias)
    order = jnp.argsort(ids.ravel(), stable=True)
    sizes = jnp.bincount(ids.ravel(), length=len(w13)).astype(jnp.int32)
    gate_up = jax.lax.ragged_dot(x[order // TOP_K], w13.swapaxes(1, 2), sizes)
    y = jax.lax.ragged_dot(ops.swiglu_oai(gate_up), w2.swapaxes(1, 2), sizes)
    y = jnp.zeros_like(y).at[order].set(y).reshape(*ids.shape, -1)
    beside = ops.swiglu_oai(x @ shared[0].T) @ shared[1].T
    return (SCALE * (y.astype(jnp.float32) * chosen[..., None]).sum(-2) + beside).astype(x.dtype)


RIVALS = {
    "m3ops_torch": ("bfloat16, torch._grouped_mm", _torch_in_bf16),
    "m3ops_jax": ("bfloat16, jax.lax.ragged_dot", _jax_in_bf16),
}
"""By front end the layer of its framework's own grouped product, and what the table calls it."""
