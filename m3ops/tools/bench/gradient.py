"""Gradients as contenders: what a framework's automatic differentiation gives, in the order of the op's own results."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from m3ops.ops import OPS
from m3ops.ops.gemma_rmsnorm.formula import EPS
from m3ops.testing.workload import Workload
from m3ops.tools.bench.side import Contender
from m3ops.tools.run import flat


def in_torch(workload: Workload, forward: Contender) -> Contender:
    """Autograd's backward alone: forward runs when inputs come for the first time, and its graph is kept."""
    import torch
    import torch._functorch.config as functorch

    functorch.donated_buffer = False  # else what torch.compile makes runs backward once for each forward
    count = _forward_inputs(workload)

    @functools.lru_cache(maxsize=1)
    def graph(*inputs: Any) -> tuple[list[Any], tuple[Any, ...]]:
        given = [tensor.detach() for tensor in inputs]
        leaves = [tensor.requires_grad_() for tensor in given if tensor.is_floating_point()]
        return leaves, tuple(result for result in flat(forward(*given)) if result.is_floating_point())

    def backward(*arrays: Any) -> tuple[Any, ...]:
        leaves, outputs = graph(*arrays[:count])
        found = iter(torch.autograd.grad(outputs, leaves, arrays[count:], retain_graph=True, allow_unused=True))
        return _results(workload, [next(found) if a.is_floating_point() else None for a in arrays[:count]])

    return backward


def in_jax(workload: Workload, forward: Contender) -> Contender:
    """The vjp under jit. XLA drops of forward what backward does not need, so it is backward alone too."""
    import jax

    count = _forward_inputs(workload)

    def floats(*inputs: Any) -> list[Any]:
        return [result for result in jax.tree.leaves(forward(*inputs)) if "float" in result.dtype.name]

    def backward(*arrays: Any) -> tuple[Any, ...]:
        _, vjp = jax.vjp(floats, *arrays[:count])
        return _results(workload, vjp(list(arrays[count:])))

    jitted: Contender = jax.jit(backward)
    return jitted


def of_liger(op: str) -> Contender | None:
    """The norm of Liger that is this op, if Liger is installed and has it."""
    name = {"gemma_rmsnorm": "liger_rms_norm", "gemma_fused_add_rmsnorm": "liger_fused_add_rms_norm"}.get(op)
    if name is None or find_spec("liger_kernel") is None:
        return None
    functional = import_module("liger_kernel.transformers.functional")
    return functools.partial(getattr(functional, name), eps=EPS, offset=1.0, casting_mode="gemma", in_place=False)


def _forward_inputs(workload: Workload) -> int:
    """How many operands are those of the op itself, of which what is added may be missing at the end."""
    return sum(name in OPS[workload.forward].inputs for name in workload.call.inputs)


def _results(workload: Workload, gradients: Sequence[Any]) -> tuple[Any, ...]:
    """One of the inputs' gradients for each result of the op: x and a residual have the same."""
    derivative = OPS[workload.forward].of(**workload.given).derivative
    assert derivative is not None
    of_input = dict(zip(OPS[workload.forward].inputs, gradients, strict=False))
    return tuple({result: of_input[name] for name, result in derivative.gradients.items()}.values())
