"""What an op is: a frozen dataclass whose fields are its parameters. A call is that value and its arrays, by name."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np

from m3ops import pieces, row_count
from m3ops.array import ArraySpec
from m3ops.axes import Axes
from m3ops.plan import Plan
from m3ops.target import Target

Array = Any
"""A NumPy or JAX array."""

Specs = Mapping[str, ArraySpec]
Arrays = dict[str, Array]

DTypeName = str
"""The annotation of a parameter that the front ends take as a dtype of their framework."""


def parameter(default: Any, doc: str, *, carried_by: str | None = None) -> Any:
    """A field of an op: a keyword parameter of the public functions.

    Args:
        default: Its default; ``dataclasses.MISSING`` for a parameter that each call gives.
        doc: What the public docstrings say of it.
        carried_by: An attribute of a quantized argument that is it, such as ``"q.scale_layout"``, so that the public
            functions do not ask for it.
    """
    return field(default=default, metadata={"doc": doc, "carried_by": carried_by})


@dataclass(frozen=True)
class Op(ABC):
    """One operation with its parameters, validated and as plain Python values: hashable, a cache key for a call.

    A subclass is a frozen dataclass. Its docstring begins that of the public functions, which are generated from it
    (``m3ops/tools/front_ends.py``).

    Attributes:
        name: The public name in both front ends.
        inputs: The array operands in order, each with what the public docstrings say of it.
        optional: Inputs that a call may leave out.
        quantized: Public arguments that are an ``MXFP8``: for each the two inputs that it brings, values and scales.
            What ``inputs`` says of the values is said of the argument.
        returns: What the public docstrings say of the results.
        result_type: Their type, with ``{array}`` for the framework's array.
        value_error: What the public docstrings say of shapes that are refused.
        differentiable: Whether there is a derivative at all; of rounding to MXFP8 there is none.
        in_place: Whether the kernel reads each element of an input before it writes a result to that place, so that a
            result may take the memory of an input of its shape, dtype and axes.
        updates: Inputs that the front end of JAX takes as a ``jax.Ref`` too, and the result that is then written there.
        inserts: Whether only a part of the results of ``updates`` is computed. The rest is as in those inputs: a result
            begins as a copy of its input, or takes its memory, and a kernel writes the part. In memory that is given
            for such a result the rest stays as it was.
        checked: Inputs whose values are validated where the host has them. A kernel cannot raise.
        counts_rows: Whether there may be one more operand, ``num_rows`` (:mod:`m3ops.row_count`).
        counts_buffers: Whether ``num_rows`` may have a count for each of several buffers.
        any_size: Whether the specification also computes sizes that a program knows only as it runs (``jax.export``).
    """

    name: ClassVar[str]
    inputs: ClassVar[Mapping[str, str]]
    optional: ClassVar[Collection[str]] = ()
    quantized: ClassVar[Mapping[str, tuple[str, str]]] = {}
    returns: ClassVar[str] = ""
    result_type: ClassVar[str] = "{array}"
    value_error: ClassVar[str] = "The shapes do not fit each other"
    differentiable: ClassVar[bool] = True
    in_place: ClassVar[bool] = False
    updates: ClassVar[Mapping[str, str]] = {}
    inserts: ClassVar[bool] = False
    checked: ClassVar[Collection[str]] = ()
    counts_rows: ClassVar[bool] = True
    counts_buffers: ClassVar[bool] = True
    any_size: ClassVar[bool] = True

    @classmethod
    def of(cls, **params: Any) -> Self:
        """The op with these parameters; the same object for the same ones.

        Raises:
            TypeError: A parameter has the wrong type.
            ValueError: A parameter is out of range.
        """
        try:
            made: Self = _made(cls, **params)
            return made
        except TypeError:  # what cannot be hashed, such as a list, is no valid parameter: let the op say so
            return cls(**params)

    def __post_init__(self) -> None:  # noqa: B027 (not abstract: an op without parameters has nothing to validate)
        """Validates the parameters. Subclasses extend it; each calls the next."""

    def _canonical(self, **values: Any) -> None:
        """Replaces parameters by what :mod:`m3ops.validate` made of them."""
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    @abstractmethod
    def axes(self) -> Axes:
        """Which axes of the operands are the same, and what may be divided among devices."""

    def axes_of(self, operands: Collection[str]) -> Axes:
        """:attr:`axes` for a call with these inputs, which may lack optional ones.

        An op extends it where the axes of others follow from what is there, or the results do.
        """
        inputs = zip(self.inputs, self.axes.inputs, strict=True)
        return replace(self.axes, inputs=tuple(axes for name, axes in inputs if name in operands))

    @property
    def derivative(self) -> Derivative | None:
        """How it is differentiated; None for an op without a derivative."""
        return None

    def unfolded(self) -> tuple[int, Self] | None:
        """For an op whose last axes are in brackets in :attr:`axes`: the size of their outer factor, and the op on
        arrays where that is an axis of its own, which is then one of the rows.
        """
        return None

    @abstractmethod
    def infer(self, *args: Any, **inputs: Any) -> dict[str, ArraySpec]:
        """Validates the inputs, given by name, and returns the results' specs by name.

        Raises:
            TypeError: A dtype is wrong.
            ValueError: The shapes do not fit each other or the parameters.
        """

    @abstractmethod
    def compute(self, *args: Any, **inputs: Any) -> Arrays:
        """The specification: the results by name, over NumPy or JAX arrays."""

    @abstractmethod
    def plan(self, specs: Specs, target: Target, *, keep: Collection[str] = ()) -> Plan:
        """The launches that compute the op on a GPU, a pure function.

        Args:
            specs: All operands by name: inputs, results, and ``num_rows`` where rows are counted.
            target: The device.
            keep: Results that keep what their memory held in the rows that do not count, in place of zeros.
        """

    def check(self, operands: Specs) -> dict[str, ArraySpec]:
        """:meth:`infer` for operands among which ``num_rows`` may be."""
        inputs = {name: spec for name, spec in operands.items() if name != row_count.NAME}
        results = self.infer(**inputs)
        if row_count.NAME in operands:
            if not self.counts_rows:
                raise TypeError(f"{self.name} takes no num_rows")
            leading = self.axes_of(inputs).leading([spec.shape for spec in inputs.values()])
            row_count.check(operands[row_count.NAME], leading if self.counts_buffers else ())
        return results

    def check_values(self, operands: Mapping[str, Array]) -> None:  # noqa: B027 (not abstract: few look at values)
        """Validates the values of ``checked``, for a front end that has them in the host's memory.

        Args:
            operands: NumPy arrays of ``checked`` and ``num_rows``; of the others what has their shape.

        Raises:
            ValueError: A value is out of range.
        """

    def written(self, operands: Mapping[str, Array], results: Mapping[str, Array]) -> Arrays:
        """For each result of which a part stays, in memory that is given for it, a mask of what is written."""
        if row_count.NAME not in operands:
            return {}
        return row_count.written_masks(results, operands[row_count.NAME], self)

    def evaluate(self, operands: Mapping[str, Array]) -> Arrays:
        """:meth:`compute` for operands among which ``num_rows`` may be: rows that do not count are zero."""
        return self._counted(operands, lambda inputs: self.compute(**inputs))

    def reference(self, operands: Mapping[str, np.ndarray], threads: int = 1) -> Arrays:
        """:meth:`evaluate` by NumPy, a few rows at a time and by so many threads, see :mod:`m3ops.pieces`."""
        with np.errstate(all="ignore"):
            return self._counted(operands, lambda inputs: pieces.compute(self, inputs, threads))

    def _counted(self, operands: Mapping[str, Array], compute: Callable[[Arrays], Arrays]) -> Arrays:
        inputs = dict(operands)
        num_rows = inputs.pop(row_count.NAME, None)
        results = compute(inputs)
        return results if num_rows is None else row_count.zero_the_rest(results, num_rows, self)


@dataclass(frozen=True)
class Derivative:
    """The derivative of an op.

    Attributes:
        op: Takes the inputs of the op by their names, but those that are ``added``, and under other names a gradient of
            each of its results that is a float.
        gradients: For each input of the op the result of ``op`` that is its gradient, which there is where the input
            is; inputs that only decide a choice have none, which is to say a gradient of zeros.
        added: Inputs that are added to the only result, so that their gradient is that of the result in their dtype.
    """

    op: Op
    gradients: Mapping[str, str]
    added: Collection[str] = ()

    def operands(self, inputs: Mapping[str, Array], grads: Iterable[Array]) -> dict[str, Array]:
        """The operands of :attr:`op` for a call with these inputs, and gradients of its results that are floats."""
        of_results = iter(grads)
        there = (name for name in self.op.inputs if name in inputs or name not in self.op.optional)
        return {name: inputs[name] if name in inputs else next(of_results) for name in there}


@functools.lru_cache(maxsize=4096, typed=True)
def _made(cls: type[Any], **params: Any) -> Any:
    return cls(**params)


def bind(op: Op | type[Op], arrays: Any, num_rows: Any = None) -> dict[str, Any]:
    """The operands of a call by name: the inputs, an optional one may be None or missing at the end, and the number of
    rows that count.
    """
    inputs = zip(op.inputs, (*arrays, *(None,) * (len(op.inputs) - len(arrays))), strict=True)
    named = {name: array for name, array in inputs if array is not None or name not in op.optional}
    return named if num_rows is None else {**named, row_count.NAME: num_rows}
