"""Derivatives: backward, once. Forward mode, a second derivative and a derivative of rounding are errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch

from m3ops import derivatives
from m3ops.op import Derivative, Op
from m3ops_torch import _no_derivative, _private
from m3ops_torch._operands import named, spec_of

WITHOUT, CUSTOM = "torch.no_grad() or Tensor.detach()", "torch.autograd.Function"

Call = Callable[..., Any]


def implementation(op_type: type[Op], operator: Any, call: Call) -> Call:
    """The implementation of an operator for the dispatch key Autograd.

    ``torch.library.register_autograd`` makes one too, but ``torch.func`` refuses it and forward mode passes through it
    in silence. By the time this one is called, ``torch.func`` has unwrapped its own level, as for a native operator:
    the derivative is one of this level alone, whatever transforms are around it.

    Args:
        op_type: What the operator computes.
        operator: The operator.
        call: Calls the operator of any op: ``call(op, *operands)``.
    """

    def below(keyset: Any, tensors: Sequence[torch.Tensor | None], params: dict[str, Any]) -> list[torch.Tensor]:
        with _private.below_autograd():
            results: list[torch.Tensor] = operator.redispatch(keyset & _private.after_autograd, *tensors, **params)
            return results

    class Recorded(_private.SingleLevelFunction):  # type: ignore[misc]
        @staticmethod
        def forward(
            ctx: Any, modes: Any, keyset: Any, params: dict[str, Any], *tensors: torch.Tensor | None
        ) -> tuple[torch.Tensor, ...]:
            ctx.op = op_type.of(**params)
            ctx.counted = len(tensors) > len(ctx.op.inputs) and tensors[-1] is not None
            ctx.like = [None if t is None else (t.shape, t.dtype) for t in tensors]
            if derivative := _derivative(ctx):
                inputs = named(ctx.op, tensors)
                ctx.inputs = [name for name in inputs if name not in derivative.added]
                ctx.save_for_backward(*(inputs[name] for name in ctx.inputs))
            # A Function turns these modes off; but outer transforms, which are below, have derivatives of their own.
            with torch.set_grad_enabled(modes[0]), _private.set_forward_mode_enabled(modes[1]):
                return tuple(below(keyset, tensors, params))

        @staticmethod
        def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
            derivative = _derivative(ctx)
            if derivative is None:
                like = [
                    kind if wanted else None for kind, wanted in zip(ctx.like, ctx.needs_input_grad[3:], strict=True)
                ]
                return None, None, None, *_no_derivative.gradients(_missing(ctx), like, grads)
            saved = dict(zip(ctx.inputs, ctx.saved_tensors, strict=True))
            operands = derivative.operands(saved, (grad for grad in grads if grad.is_floating_point()))
            names = derivative.op.check({name: spec_of(tensor) for name, tensor in operands.items()})
            given = (operands.get(name) for name in derivative.op.inputs)
            results = dict(zip(names, call(derivative.op, *given), strict=True))
            of_inputs = {name: results[of] for name, of in derivative.gradients.items() if of in results}
            of_inputs |= dict.fromkeys(derivative.added, grads[0])
            kinds = dict(zip(ctx.op.inputs, ctx.like, strict=False))  # what is optional may be missing at the end
            gradients = {name: of.to(kinds[name][1]) for name, of in of_inputs.items() if kinds.get(name)}
            zeros = {name: torch.zeros_like(tensor) for name, tensor in saved.items() if name not in gradients}
            every = [{**zeros, **gradients}.get(name) for name in kinds]
            return None, None, None, *every, *(None,) * (len(ctx.like) - len(every))

        @staticmethod
        def jvp(ctx: Any, *_: Any) -> NoReturn:
            if _derivative(ctx) is None:
                raise _missing(ctx)
            raise NotImplementedError(f"{ctx.op.name} has no derivative in forward mode: use reverse mode")

        @staticmethod
        def _compiled_autograd_key(ctx: Any) -> tuple[Any, ...]:
            return (ctx._autograd_function_id,)

    named_function: Any = type(f"m3ops_{op_type.name}", (Recorded,), {})  # the name that the nodes of a graph show

    def implement(keyset: Any, *tensors: torch.Tensor | None, **params: Any) -> list[torch.Tensor]:
        grad_mode = torch.is_grad_enabled()
        recorded = grad_mode and any(tensor is not None and tensor.requires_grad for tensor in tensors)
        if not recorded and not _private.in_forward_mode():
            return below(keyset, tensors, params)
        modes = grad_mode, _private.is_forward_mode_enabled()
        with _private.single_level():
            return list(named_function.apply(modes, keyset, params, *tensors))

    return implement


def _derivative(ctx: Any) -> Derivative | None:
    """The derivative of a call; with ``num_rows`` there is none."""
    derivative: Derivative | None = None if ctx.counted else ctx.op.derivative
    return derivative


def _missing(ctx: Any) -> Exception:
    return derivatives.missing(ctx.op, WITHOUT, CUSTOM, counted=ctx.counted)
