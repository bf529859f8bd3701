"""The whole contract between the core and the front ends: arrays described, ops, and launch plans."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from m3ops.target import Target


@dataclass(frozen=True)
class ArraySpec:
    """Shape, dtype name and strides (in elements) of an array; contiguous unless strides are given."""

    shape: tuple[int, ...]
    dtype: str
    strides: tuple[int, ...] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.strides is None:
            object.__setattr__(self, "strides", contiguous_strides(self.shape))

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.itemsize

    @property
    def itemsize(self) -> int:
        return np.dtype(self.dtype).itemsize


def contiguous_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Row-major strides, in elements."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


COMPILER_OPTIONS: Mapping[str, Any] = {"num_stages": 1, "enable_fp_fusion": False}
"""How Triton compiles kernels: no loop is pipelined; product and sum are one operation only where a kernel says so."""


@dataclass(frozen=True)
class LaunchPlan:
    """A launch, ``kernel[grid](*plan.arguments(inputs, outputs), **constants)``, and what is launched after it.

    Attributes:
        kernel: A ``@triton.jit`` function whose parameters are inputs, ``num_rows``, outputs, then constexprs.
        grid: Number of programs.
        num_rows: Rows of the operands, the only run-time number.
        constants: Values of the constexpr parameters.
        num_warps: Warps a program.
        bytes_moved: Each input byte read once and each output byte written once.
        flops: Arithmetic operations, for profilers.
        then: A launch that makes the op's last output out of a temporary array, its only input.
        temporary: That array, which this launch has as its last output in place of the op's.
    """

    kernel: Any
    grid: int
    num_rows: int
    constants: Mapping[str, Any]
    num_warps: int
    bytes_moved: int
    flops: int = 0
    then: LaunchPlan | None = None
    temporary: ArraySpec | None = None

    @property
    def counted(self) -> bool:
        """Whether the last input is the number of rows that count, see :mod:`m3ops.row_count`."""
        return "LIVE" in self.constants

    def arguments(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> tuple[Any, ...]:
        """The arguments before the constexprs. A kernel that can count rows takes None where all of them count."""
        all_count = not self.counted and "live_ptr" in self.kernel.arg_names
        return (*inputs, *([None] if all_count else []), self.num_rows, *outputs)

    def launches(self, inputs: Sequence[Any], outputs: Sequence[Any], allocate: Callable[[ArraySpec], Any]) -> Launches:
        """``(plan, inputs, outputs)`` of each launch, given the op's arrays and what makes temporary ones."""
        if self.then is None or self.temporary is None:
            yield self, inputs, outputs
            return
        temporary = allocate(self.temporary)
        yield self, inputs, (*outputs[:-1], temporary)
        yield from self.then.launches((temporary,), outputs[-1:], allocate)


Launches = Iterator[tuple[LaunchPlan, Sequence[Any], Sequence[Any]]]

Array = Any
Arrays = tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Backward:
    """The derivative of an op.

    Attributes:
        op: Takes the inputs of the op and a gradient for each of its outputs.
        gradients: For each input of the op, which output of ``op`` is its gradient.
    """

    op: Op
    gradients: tuple[int, ...]

    def params(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters of ``op``, given those of the op that it is the derivative of."""
        return {name: params[name] for name in self.op.params}


@dataclass(frozen=True, eq=False)
class Op:
    """One operation.

    A parameter ``groups`` says that the last axis of every array is that many vectors, one after another: the result is
    that of arrays ``[..., groups, size / groups]``.

    Attributes:
        name: The public name in both front ends.
        inputs: Names of the array arguments, in order.
        infer: ``(*specs, **params) -> output specs``; validates everything and raises TypeError or ValueError.
        compute: The specification: ``(*arrays, **params) -> arrays`` over NumPy or jax.numpy arrays.
        plan: ``(input specs, output specs, params, target) -> LaunchPlan``, a pure function.
        shared: Inputs whose leading axes broadcast against those of the others (a weight).
        differentiable: Whether there is a derivative at all; of rounding to MXFP8 there is none.
        core_rank: Given the parameters, how many trailing axes belong together; those before them are rows, which are
            independent of each other. Nearly always 1, the vector along the last axis.
        in_place: Whether the kernel reads each element of an input before it writes a result to that place, so that a
            result may take the memory of an input of its shape and dtype that is not shared.
        row_sums: Outputs, by number, that are sums over rows; each has the shape of this shared input.
        backward: How it is differentiated; None for an op without a derivative, or without one so far.
        counted: Whether the last input is the number of rows that count, see :mod:`m3ops.row_count`.
    """

    name: str
    inputs: tuple[str, ...]
    infer: Callable[..., tuple[ArraySpec, ...]]
    compute: Callable[..., Arrays]
    plan: Callable[[tuple[ArraySpec, ...], tuple[ArraySpec, ...], Mapping[str, Any], Target], LaunchPlan]
    shared: frozenset[str] = field(default_factory=frozenset)
    differentiable: bool = True
    core_rank: Callable[[Mapping[str, Any]], int] = lambda params: 1
    in_place: bool = False
    row_sums: Mapping[int, str] = field(default_factory=dict)
    backward: Backward | None = None
    counted: bool = False

    @cached_property
    def params(self) -> dict[str, inspect.Parameter]:
        """The keyword parameters, from the signature of ``infer``."""
        signature = inspect.signature(self.infer)
        return {name: p for name, p in signature.parameters.items() if p.kind is p.KEYWORD_ONLY}

    def filled(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All keyword parameters: those given, the others at their defaults."""
        return {name: p.default for name, p in self.params.items()} | dict(given)

    def canonical(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Validated parameters as plain Python values: numbers as float (-0.0 as 0.0) or int, the rest unchanged."""
        kinds = {name: p.annotation.split(" | ")[0] for name, p in self.params.items()}
        plain: dict[str, Callable[[Any], Any]] = {"float": lambda number: float(number) + 0.0, "int": int}
        return {k: v if v is None else plain.get(kinds[k], lambda same: same)(v) for k, v in params.items()}

    def derivative_error(self, without: str, custom: str) -> Exception:
        """What a front end raises when asked for a derivative, with its ways to do without one or to define one."""
        name = self.name.removesuffix("_counted").removesuffix("_backward")
        if self.differentiable:
            which = "second derivative" if self.backward or self.name.endswith("_backward") else "derivative"
            counted = " with num_rows" if self.counted else ""
            return NotImplementedError(f"{name} has no {which}{counted}; define one with {custom}")
        return TypeError(
            f"{name} has no derivative: rounding to MXFP8 is a step function. Keep the derivative out with "
            f"{without}, define one around the call with {custom}, or let it pass straight through as that of "
            "swiglu_oai_fake_quant does"
        )

    def reference(self, *arrays: np.ndarray, **params: Any) -> Arrays:
        """The specification computed by NumPy; parameters that are not given have their defaults."""
        with np.errstate(all="ignore"):
            return self.compute(*arrays, **self.filled(params))
