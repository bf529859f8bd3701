"""What differs between array namespaces: NumPy computes at once, a compiler makes a program of JAX's operations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

Array = Any  # numpy.ndarray or jax.Array; the namespace is the array's own


@dataclass(frozen=True)
class Compiler:
    """What a namespace offers whose operations are compiled to a program.

    Attributes:
        barrier: Keeps an intermediate result from being fused into its uses.
        fold: :func:`fold` as a loop of the program.
        each: :func:`each` as a loop of the program.
        repeat: :func:`repeat` as a loop of the program.
        choose: ``functions[b](*arrays)`` of the arguments ``(size, bounds, functions, *arrays)``, b being how many of
            the bounds the size reaches; the size may be a symbol (jax.export).
    """

    barrier: Callable[[Array], Array]
    fold: Callable[..., Array]
    each: Callable[..., Array]
    repeat: Callable[..., Array]
    choose: Callable[..., Array]


COMPILERS: dict[ModuleType, Compiler] = {}
"""By namespace; a front end enters its own."""


def except_where(
    condition: Array, usual: Array, exception: Callable[..., Array | float], *args: Array | float
) -> Array:
    """``where(condition, exception(*args), usual)`` for a condition that is rare; may overwrite ``usual``.

    NumPy computes the exception only for the elements that need it. A program that XLA compiles has no such choice.
    """
    if (xp := condition.__array_namespace__()) is not np:
        return xp.where(condition, exception(*args), usual)
    if condition.any():
        usual = np.asarray(usual)
        at = np.flatnonzero(np.broadcast_to(condition, usual.shape))
        usual.put(at, exception(*(np.broadcast_to(arg, usual.shape).take(at) for arg in args)))
    return usual


def barrier(x: Array) -> Array:
    """``x``, computed once. XLA would fuse an activation into each use: 7 s of compiling instead of 0.2 s."""
    compiler = COMPILERS.get(x.__array_namespace__())
    return compiler.barrier(x) if compiler else x


def fold(step: Callable[..., Array], total: Array, *terms: Array) -> Array:
    """``step(total, *term)`` for each term along the first axes, in their order."""
    if compiler := COMPILERS.get(total.__array_namespace__()):
        return compiler.fold(step, total, *terms)
    for term in zip(*terms, strict=True):
        total = step(total, *term)
    return total


def each(function: Callable[..., Array], *terms: Array) -> Array:
    """``function(*term)`` for each term along the first axes, of which there is at least one, stacked."""
    if compiler := COMPILERS.get(terms[0].__array_namespace__()):
        return compiler.each(function, *terms)
    return np.stack([function(*term) for term in zip(*terms, strict=True)])


def repeat(count: Array, step: Callable[[Any, Array], Array], total: Array) -> Array:
    """``step(number, total)`` for the numbers below a count that a program knows only as it runs."""
    if compiler := COMPILERS.get(total.__array_namespace__()):
        return compiler.repeat(count, step, total)
    for number in range(int(count)):
        total = step(number, total)
    return total
