"""What a case is, its golden digest, and how results are compared."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from m3ops.numerics.formats import FORMATS
from m3ops.op import Op, bind
from m3ops.ops import EVERY_OP
from m3ops.testing.arrays import Inputs, InputsOfShape


@dataclass(frozen=True, eq=False)
class Case:
    """Inputs of one call.

    Attributes:
        op: Name of the op.
        name: What the case is about, unique among the op's.
        make: Gives the input arrays.
        given: Keyword arguments that differ from the defaults.
        gradient: Whether the op's gradient is tried with these inputs too, which is not where it would show no more.
    """

    op: str
    name: str
    make: Inputs
    given: Mapping[str, Any] = field(default_factory=dict)
    gradient: bool = True

    @property
    def id(self) -> str:
        return f"{self.op}: {self.name}"

    @property
    def call(self) -> Op:
        """The op with its parameters."""
        return EVERY_OP[self.op].of(**self.given)

    def operands(self) -> dict[str, np.ndarray]:
        """The input arrays by name."""
        return operands(EVERY_OP[self.op], self.make())

    @functools.cached_property
    def has_views(self) -> bool:
        """Whether an array has strides of its own, which only a tensor of PyTorch keeps."""
        return not all(array.flags.c_contiguous for array in self.operands().values())

    def expected(self) -> tuple[np.ndarray, ...]:
        """The specification's results."""
        return tuple(self.call.reference(self.operands()).values())


def operands(op: Op | type[Op], arrays: Sequence[Any]) -> dict[str, Any]:
    """Arrays by name; optional ones may be missing, and one more than the op has inputs is the number of rows that
    count.
    """
    count = len(op.inputs)
    return bind(op, arrays[:count], *arrays[count:])


COUNTS = ((3, 7), (10,)), ((300,), (3,)), ((3, 7), (7, 0, 2))
"""Rows and how many of them count, or how many of each buffer."""


def counting(make: Inputs, *counts: int, absent: int = 0) -> tuple[Any, ...]:
    """These inputs, None for so many that are absent, and the number of rows that count, or one for each buffer."""
    return (*make(), *(None,) * absent, np.array(counts, np.int32))


def counts_of(rows: Sequence[int], counts: Sequence[int]) -> str:
    """What a case is called: ``"7, 0 and 2 of 3 x 7 rows"``."""
    *first, last = map(str, counts)
    return f"{f'{", ".join(first)} and {last}' if first else last} of {' x '.join(map(str, rows))} rows"


def counted(op: str, make: InputsOfShape, given: Mapping[str, Any] | None = None, *, absent: int = 0) -> Iterator[Case]:
    """The cases with ``num_rows`` that every op has, from inputs of ``[3, 7, 192]`` and ``[300, 64]`` rows."""
    for rows, counts in COUNTS:
        if len(counts) == 1 or EVERY_OP[op].counts_buffers:
            shape = (*rows, 192 if len(rows) > 1 else 64)
            yield Case(op, counts_of(rows, counts), partial(counting, make(shape), *counts, absent=absent), given or {})


def canonical_bytes(array: np.ndarray) -> np.ndarray:
    """The bits of an array, every NaN of a wider float the same: NaN sign and payload differ between vendors.

    The NaN of an 8-bit float is one definite byte and stays as it is, and integers have none.
    """
    bits = np.ascontiguousarray(array).view(f"u{array.itemsize}")
    if array.itemsize == 1 or array.dtype.name not in FORMATS:
        return bits
    return np.where(np.isnan(array), np.array(FORMATS[array.dtype.name].nan_code, bits.dtype), bits)


def digest(arrays: Iterable[np.ndarray]) -> str:
    """A short fingerprint of results: shapes, dtypes and bytes."""
    sha = hashlib.sha256()
    for array in arrays:
        sha.update(f"{array.dtype.name}{array.shape}".encode())
        sha.update(canonical_bytes(array).tobytes())
    return sha.hexdigest()[:16]


def first_difference(actual: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> str | None:
    """How many elements of the results differ as bytes, and the first of them; None if none does."""
    for number, (got, want) in enumerate(zip(actual, expected, strict=True)):
        if (got.shape, got.dtype) != (want.shape, want.dtype):
            return f"result {number} is {got.dtype} {got.shape}, want {want.dtype} {want.shape}"
        got_bits, want_bits = canonical_bytes(got), canonical_bytes(want)
        wrong = np.argwhere(got_bits != want_bits)
        if len(wrong):
            at = tuple(map(int, wrong[0]))
            return (
                f"result {number}: {len(wrong)} of {want.size} elements differ, first at {at}: "
                f"got {got_bits[at]:#x} ({got[at]}), want {want_bits[at]:#x} ({want[at]})"
            )
    return None
