"""The gradient that there is none of, as an operator: ``torch.compile`` traces backward before anybody calls it."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any, NoReturn

import torch

Kind = tuple[torch.Size, torch.dtype]


def gradients(error: Exception, like: Sequence[Kind | None], grads: Sequence[torch.Tensor]) -> list[Any]:
    """Raises an error, if not now then when a compiled graph runs.

    Args:
        error: What to raise.
        like: Shape and dtype of each input that a gradient is asked for, None for the others.
        grads: The gradients of the results, by which a graph knows that this is a part of backward.
    """
    empty = [grads[0].new_empty(kind[0], dtype=kind[1]) for kind in like if kind is not None]
    made = iter(torch.ops.m3ops.no_derivative(empty, grads, error=type(error).__name__, text=str(error)))
    return [None if kind is None else next(made) for kind in like]


def _raise(*_: Any, error: str, text: str) -> NoReturn:
    raise getattr(builtins, error)(text)


def _fake(like: Sequence[torch.Tensor], grads: Sequence[torch.Tensor], *, error: str, text: str) -> list[torch.Tensor]:
    return [torch.empty_like(gradient) for gradient in like]


_LIBRARY = torch.library.Library("m3ops", "FRAGMENT")
_LIBRARY.define("no_derivative(Tensor[] like, Tensor[] grads, *, str error, str text) -> Tensor[]")
_LIBRARY.impl("no_derivative", _raise, "CompositeExplicitAutograd")
torch.library.register_fake("m3ops::no_derivative", _fake, lib=_LIBRARY)
torch.library.register_vmap("m3ops::no_derivative", _raise, lib=_LIBRARY)
