"""Which axes of an op's operands are the same, in one line an op.

    "*r N!, *r? N! -> *r N!"                          a norm: rows pass, N is whole; the weight may lack rows
    "*r N!, *r? N!, *r N! -> *r N!, *r?+ N!"          its gradients: that of the weight is a sum over the rows it lacks
    "*r (b 32!) -> *r (b 32!), *r b"                  MXFP8: the blocks of a row are independent too
    "*r (k 32!)+, *r k+, n (k 32!)+, n k+ -> *r n"    a product: k is summed, n passes
    "t! (k 32!)+, t! k+, e! n (k 32!)+, e! n k+, e! -> t! n"    grouped: counts tell which rows are an expert's
    "*r H!, e! H!, *r e! -> *r H!, *r+ e! H!"       the gradient of a weight that has no rows: a sum over all of them
    "R! N!, *r k!, *r N! -> R! N!, *r k!"           a result without rows: each row may be any of R, so they are whole

A letter is a factor: an axis, or in brackets a part of one, slowest first. It may be divided among devices unless it
carries ``!``: then it has to be whole on each. ``*r`` stands for any number of leading axes, ``*r?`` for leading axes
that broadcast against those, aligned at the right. ``+`` marks what may be divided although a result lacks it: each
device then holds a part of a sum; ``*r+`` without ``?`` is the sum over all leading axes. Numbers are sizes.

From this line follow the rules for sharding and vmap in both front ends, and which results ``out=`` needs contiguous.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Factor:
    """An axis or a part of one.

    Attributes:
        name: What is the same wherever this name stands; of a factor that has to be whole, only for the reader.
        whole: Whether each device needs all of it.
        multiple: How many elements of the axis one step along the factor is: the sizes of those after it in brackets.
        sized: Whether these are all numbers. If not the op's parameters tell them, and a part of the axis needs others.
    """

    name: str
    whole: bool
    multiple: int = 1
    sized: bool = True


@dataclass(frozen=True)
class Operand:
    """The axes of one operand.

    Attributes:
        rows: Whether it has the leading axes.
        broadcast: Whether some of these may be missing or of size 1.
        summed: Whether it is a sum over leading axes that it lacks.
        axes: The trailing axes: for each the factor that may be divided, or one that is whole.
    """

    rows: bool
    broadcast: bool
    summed: bool
    axes: tuple[Factor, ...]

    @classmethod
    def of(cls, text: str) -> Operand:
        parts = re.findall(r"\([^)]*\)\+?|\S+", text)
        leading = parts[0] if parts and parts[0].startswith("*") else ""
        trailing = parts[1:] if leading else parts
        broadcast, summed = "?" in leading, "+" in leading
        has_rows = bool(leading) and (broadcast or not summed)
        return cls(has_rows, broadcast, summed, tuple(map(_factor, trailing)))

    @property
    def whole_axes(self) -> int:
        """How many trailing axes have to be whole."""
        return sum(axis.whole for axis in self.axes)

    @property
    def of_matrices(self) -> bool:
        """Whether it has matrices beside its rows, which kernels write as a whole: memory for it is contiguous."""
        return self.whole_axes > 1 or (self.rows and len(self.axes) > 1)


def _factor(text: str) -> Factor:
    outer, *inner = text.strip("()+").rstrip(")").split()
    multiple = 1
    for part in inner:
        size = part.strip("!")
        multiple *= int(size) if size.isdigit() else 1
    sized = all(part.strip("!").isdigit() for part in inner)
    return Factor(outer.strip("!+"), "!" in outer, multiple, sized)


@dataclass(frozen=True)
class Axes:
    """The line of an op, parsed: operands and results in their order."""

    inputs: tuple[Operand, ...]
    results: tuple[Operand, ...]

    @classmethod
    def of(cls, text: str) -> Axes:
        """Parses a line. Optional results that a call does not have are left out of it."""
        return _parsed(text)

    @property
    def sums_rows(self) -> bool:
        """Whether a result is a sum over rows."""
        return any(result.summed for result in self.results)

    @property
    def gathers_rows(self) -> bool:
        """Whether a result lacks the rows of the operands, each of which may be any of its own."""
        have_rows = all(result.rows or result.summed for result in self.results)
        return any(operand.rows for operand in self.inputs) and not have_rows

    @property
    def joins_rows(self) -> bool:
        """Whether results of several calls are not those of one call with the rows of all."""
        return self.gathers_rows or any(result.summed and not result.rows for result in self.results)

    def leading(self, shapes: Sequence[Shape]) -> Shape:
        """The leading axes of inputs of these shapes; none where no input has rows."""
        return next((s[: len(s) - len(a.axes)] for a, s in zip(self.inputs, shapes, strict=True) if a.rows), ())

    def of_arrays(self, shapes: Sequence[Shape]) -> tuple[list[Names], list[Names]]:
        """The names of the factors along each axis of the inputs, and of the results; None for an axis that is whole.

        Leading axes are named ``r0``, ``r1``, ... from the left. An input of size 1 along one of them lacks it. Where a
        result lacks them they are whole.
        """
        rows = self.leading(shapes)
        leading = tuple(None if self.gathers_rows else f"r{axis}" for axis in range(len(rows)))
        inputs = [_names(operand, shape, rows, leading) for operand, shape in zip(self.inputs, shapes, strict=True)]
        lacking = next((n for o, n in zip(self.inputs, inputs, strict=True) if o.broadcast), ())
        results = []
        for operand in self.results:
            own = lacking[: len(lacking) - len(operand.axes)] if operand.broadcast else leading * operand.rows
            results.append((*own, *map(_name, operand.axes)))
        return inputs, results


Names = tuple[str | None, ...]
"""For each axis of an array the factor along it that may be divided, or None."""

Division = Mapping[str, Any]
"""For each factor that is divided the mesh axes that divide it: a name or a tuple of names."""


@functools.cache
def _parsed(text: str) -> Axes:
    left, right = (tuple(map(Operand.of, side.split(","))) for side in text.split("->"))
    return Axes(left, right)


def _names(operand: Operand, shape: Shape, rows: Shape, leading: Names) -> Names:
    own = shape[: len(shape) - len(operand.axes)]
    first = len(rows) - len(own)
    named = (leading[first + i] if size == rows[first + i] else None for i, size in enumerate(own))
    return (*named, *map(_name, operand.axes))


def _name(axis: Factor) -> str | None:
    return None if axis.whole else axis.name
