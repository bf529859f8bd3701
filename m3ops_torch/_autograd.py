"""Derivatives: backward, once. Forward mode, a second derivative and a derivative of rounding are errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import torch
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad
from torch.autograd.function import _SingleLevelFunction

from m3ops.op import Op

Operator = Callable[..., Any]


def implementation(op: Op, operators: Mapping[str, Any]) -> Operator:
    """The implementation of an operator for the dispatch key Autograd.

    ``torch.library.register_autograd`` makes one too, but ``torch.func`` refuses it and forward mode passes through it
    in silence. When this one is called, ``torch.func`` has taken its own level off the operands, as for a native
    operator: the derivative is one of this level alone, whatever transforms are around it.

    Args:
        op: What the operator computes.
        operators: The operators by name: this one, and that which computes its derivative.
    """

    def below(keyset: Any, tensors: tuple[torch.Tensor, ...], params: dict[str, Any]) -> list[torch.Tensor]:
        with torch._C._AutoDispatchBelowAutograd():
            results: list[torch.Tensor] = operators[op.name].redispatch(
                keyset & torch._C._after_autograd_keyset, *tensors, **params
            )
            return results

    class Derivative(_SingleLevelFunction):
        @staticmethod
        def forward(ctx: Any, modes: Any, keyset: Any, params: Any, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
            ctx.params = params
            if op.backward is not None:
                ctx.save_for_backward(*tensors)
            # A Function turns these modes off; but outer transforms, which are below, have derivatives of their own.
            with torch.set_grad_enabled(modes[0]), forward_ad._set_fwd_grad_enabled(modes[1]):
                return tuple(below(keyset, tensors, params))

        @staticmethod
        def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
            if op.backward is None:
                _no_derivative(op)
            operator, params = operators[op.backward.op.name], op.backward.params(ctx.params)
            gradients = operator(*ctx.saved_tensors, *grads, **params)
            return None, None, None, *(gradients[number] for number in op.backward.gradients)

        @staticmethod
        def jvp(*_: Any) -> NoReturn:
            if op.backward is None:
                _no_derivative(op)
            raise NotImplementedError(f"{op.name} has no derivative in forward mode; take it backward")

        @staticmethod
        def _compiled_autograd_key(ctx: Any) -> tuple[Any, ...]:
            return (ctx._autograd_function_id,)

    named: Any = type(f"m3ops_{op.name}", (Derivative,), {})  # the name that the nodes of a graph show

    def call(keyset: Any, *tensors: torch.Tensor, **params: Any) -> list[torch.Tensor]:
        grad_mode = torch.is_grad_enabled()
        if forward_ad._current_level < 0 and not (grad_mode and torch._C._any_requires_grad(*tensors)):
            return below(keyset, tensors, params)
        modes = grad_mode, torch._C._is_fwd_grad_enabled()
        with enable_single_level_autograd_function():
            return list(named.apply(modes, keyset, params, *tensors))

    return call


def _no_derivative(op: Op) -> NoReturn:
    raise op.derivative_error("Tensor.detach", "torch.autograd.Function")
