"""Vector comparisons: one bit a lane into a lane mask (v_cmp) or into EXEC (v_cmpx)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from .operands import VectorStep, build_vector, vector
from .parser import Instruction, Kernel, Operand
from .table import register

A = np.ndarray


def _unordered(a: A, b: A) -> A:
    return np.isnan(a) | np.isnan(b)


def _less_or_greater(a: A, b: A) -> A:
    return (a < b) | (a > b)


_INTEGER: dict[str, Callable[[A, A], A]] = {
    "lt": np.less, "eq": np.equal, "le": np.less_equal, "gt": np.greater, "ne": np.not_equal, "ge": np.greater_equal,
}  # fmt: skip
# An unordered pair is false for these and true for the negated ones.
FLOAT: dict[str, Callable[[A, A], A]] = {
    "lt": np.less, "eq": np.equal, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    "lg": _less_or_greater, "o": lambda a, b: ~_unordered(a, b), "u": _unordered,
    "nge": lambda a, b: ~(a >= b), "nlg": lambda a, b: ~_less_or_greater(a, b), "ngt": lambda a, b: ~(a > b),
    "nle": lambda a, b: ~(a <= b), "neq": lambda a, b: ~(a == b), "nlt": lambda a, b: ~(a < b),
}  # fmt: skip


def _class_f32(a: A, wanted: A) -> A:
    """Bit n of `wanted` asks for class n: sNaN, qNaN, -inf, -normal, -denormal, -0, +0, +denormal, +normal, +inf."""
    bits = a.view(np.uint32)
    exponent, mantissa = (bits >> np.uint32(23)) & np.uint32(255), bits & np.uint32(0x7FFFFF)
    negative = (bits >> np.uint32(31)).astype(bool)
    special, small, empty = exponent == 255, exponent == 0, mantissa == 0
    quiet = (mantissa & np.uint32(0x400000)) != 0
    number = np.select([special & empty, ~special & ~small, small & ~empty], [2, 3, 4], 5)
    number = np.where(negative, number, 11 - number)
    number = np.where(special & ~empty, np.where(quiet, 1, 0), number)
    return ((wanted >> number.astype(np.uint32)) & np.uint32(1)).astype(bool)


def _register(name: str, kinds: str, function: Callable[[A, A], A]) -> None:
    vector(f"v_cmp_{name}", signature=f"mask = {kinds}")(function)

    @register(f"v_cmpx_{name}")
    def build(ins: Instruction, kernel: Kernel) -> VectorStep:
        if kernel.is_gfx9:
            raise ins.fail("v_cmpx has a second destination on gfx9, which is not modelled")
        target = Operand("exec" if kernel.wave_size == 64 else "exec_lo")
        whole = dataclasses.replace(ins, operands=(target, *ins.operands))
        return build_vector(whole, kernel, ["mask"], kinds.split(), function)


for _kind in ("u16", "i16", "u32", "i32", "u64", "i64"):
    for _name, _function in _INTEGER.items():
        _register(f"{_name}_{_kind}", f"{_kind} {_kind}", _function)
for _kind in ("f16", "f32", "f64"):
    for _name, _function in FLOAT.items():
        _register(f"{_name}_{_kind}", f"{_kind} {_kind}", _function)
_register("class_f32", "f32 u32", _class_f32)
