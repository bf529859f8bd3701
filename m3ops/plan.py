"""What a front end launches: kernels with arguments by name, in order, and the scratch memory between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from m3ops.array import ArraySpec


@dataclass(frozen=True, eq=False)
class Launch:
    """One launch of a Triton kernel.

    Attributes:
        kernel: A ``@triton.jit`` function.
        grid: Number of programs along each axis, one to three.
        arguments: For each parameter that is no constexpr the name of an array, a number, or None for an array that
            this call does not have.
        constants: The constexpr parameters; ``OVERLAPS`` is False unless it is there, see :meth:`overlapping`.
        writes: Names of the arrays that the kernel writes, in the order of its parameters.
        num_warps: Warps of a program.
        options: Further compiler options, such as ``num_stages`` or AMD's ``matrix_instr_nonkdim``.
        overlaps: Whether it may begin before the kernel ahead of it ends, see :meth:`overlapping`. Programs then begin
            wherever there is room. So it pays where they are short, or many; a few long ones would crowd on some
            multiprocessors while others are idle.
    """

    kernel: Any
    grid: tuple[int, ...]
    arguments: Mapping[str, str | int | None]
    constants: Mapping[str, Any]
    writes: tuple[str, ...]
    num_warps: int
    options: Mapping[str, Any] = field(default_factory=dict)
    overlaps: bool = False

    def __post_init__(self) -> None:
        if "OVERLAPS" in self.kernel.arg_names:
            object.__setattr__(self, "constants", {"OVERLAPS": False, **self.constants})

    def overlapping(self) -> Launch:
        """The same by a launcher that knows CUDA's programmatic dependent launch: the kernel begins and then waits."""
        if not self.overlaps:
            return self
        constants, options = {**self.constants, "OVERLAPS": True}, {**self.options, "launch_pdl": True}
        return replace(self, constants=constants, options=options)

    @property
    def compiler_options(self) -> dict[str, Any]:
        """All of Triton's options: loops are not pipelined unless asked for; a product and a sum are one operation
        only where a kernel says so.
        """
        return {"num_warps": self.num_warps, "num_stages": 1, "enable_fp_fusion": False, **self.options}

    def renamed(self, names: Mapping[str, str]) -> Launch:
        """The same launch on arrays of other names, for a plan that is made of others'."""
        arguments = {to: names.get(n, n) if isinstance(n, str) else n for to, n in self.arguments.items()}
        return replace(self, arguments=arguments, writes=tuple(names.get(name, name) for name in self.writes))

    def bound(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        """The value of each parameter that is no constexpr."""
        return {name: arrays[to] if isinstance(to, str) else to for name, to in self.arguments.items()}

    def ordered(self, arrays: Mapping[str, Any]) -> list[Any]:
        """The values of all parameters in the order of the kernel's."""
        values = {**self.bound(arrays), **self.constants}
        return [values[name] for name in self.kernel.arg_names]


@dataclass(frozen=True, eq=False)
class Plan:
    """All launches of a call.

    Attributes:
        launches: In order. Each reads inputs, and results and scratch arrays that earlier ones have written.
        bytes_moved: Each input byte read once and each result byte written once.
        flops: Arithmetic operations, for profilers.
        scratch: Arrays that live as long as the call.
    """

    launches: tuple[Launch, ...]
    bytes_moved: int
    flops: int = 0
    scratch: Mapping[str, ArraySpec] = field(default_factory=dict)


def pointers(kernel: Any, arrays: Mapping[str, Any]) -> dict[str, str | int | None]:
    """The pointer parameters of a kernel, ``NAME_ptr`` each, bound to the arrays that are there, by their names."""
    names = [name for name in kernel.arg_names if name.endswith("_ptr")]
    return {name: own if (own := name.removesuffix("_ptr")) in arrays else None for name in names}
