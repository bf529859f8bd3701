"""Gradients as contenders: what a framework's automatic differentiation gives, in the order of the op's own results."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from m3ops.ops import OPS
from m3ops.ops.gemma_rmsnorm.formula import EPS
from m3ops.testing.case import operands
from m3ops.testing.workload import Workload
from m3ops.tools.bench.side import Contender
from m3ops.tools.run import flat


def in_torch(workload: Workload, forward: Contender) -> Contender:
    """Autograd's backward alone: forward runs when inputs come for the first time, and its graph is kept."""
    import torch
    import torch._functorch.config as functorch

    functorch.donated_buffer = False  # else what torch.compile makes runs backward once for each forward

    @functools.lru_cache(maxsize=1)
    def graph(*inputs: Any) -> tuple[list[Any], tuple[Any, ...]]:
        given = [tensor.detach() for tensor in inputs]
        leaves = [tensor.requires_grad_() for tensor in given if tensor.is_floating_point()]
        return leaves, tuple(result for result in flat(forward(*given)) if result.is_floating_point())

    def backward(*arrays: Any) -> tuple[Any, ...]:
        inputs, grads = _forward_inputs(workload, arrays)
        leaves, outputs = graph(*inputs.values())
        found = iter(torch.autograd.grad(outputs, leaves, grads, retain_graph=True, allow_unused=True))
        return _results(workload, {n: next(found) if a.is_floating_point() else None for n, a in inputs.items()})

    return backward


def in_jax(workload: Workload, forward: Contender) -> Contender:
    """The vjp under jit. XLA drops of forward what backward does not need, so it is backward alone too."""
    import jax

    def floats(*inputs: Any) -> list[Any]:
        return [result for result in jax.tree.leaves(forward(*inputs)) if "float" in result.dtype.name]

    def backward(*arrays: Any) -> tuple[Any, ...]:
        inputs, grads = _forward_inputs(workload, arrays)
        _, vjp = jax.vjp(floats, *inputs.values())
        return _results(workload, dict(zip(inputs, vjp(grads), strict=True)))

    jitted: Contender = jax.jit(backward)
    return jitted


def of_liger(op: str) -> Contender | None:
    """The norm of Liger that is this op, if Liger is installed and has it."""
    name = {"gemma_rmsnorm": "liger_rms_norm", "gemma_fused_add_rmsnorm": "liger_fused_add_rms_norm"}.get(op)
    if name is None or find_spec("liger_kernel") is None:
        return None
    functional = import_module("liger_kernel.transformers.functional")
    return functools.partial(getattr(functional, name), eps=EPS, offset=1.0, casting_mode="gemma", in_place=False)


def _forward_inputs(workload: Workload, arrays: Sequence[Any]) -> tuple[dict[str, Any], list[Any]]:
    """The operands that are inputs of the op itself, by name, and the gradients of its results."""
    given, own = operands(workload.call, arrays), OPS[workload.forward].inputs
    return {name: given[name] for name in own if name in given}, [a for name, a in given.items() if name not in own]


def _results(workload: Workload, gradients: Mapping[str, Any]) -> tuple[Any, ...]:
    """One of the inputs' gradients for each result of the op: x and a residual have the same."""
    derivative = OPS[workload.forward].of(**workload.given).derivative
    assert derivative is not None
    of_results = {result: gradients[name] for name, result in derivative.gradients.items() if name in gradients}
    return tuple(of_results.values())
