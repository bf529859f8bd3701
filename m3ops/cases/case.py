"""A case, its golden digest, and the arrays that cases are made of."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import ml_dtypes  # noqa: F401  (gives NumPy the names of the small dtypes)
import numpy as np

from m3ops.numerics.formats import FORMATS
from m3ops.ops import EVERY_OP, op_of


@dataclass(frozen=True, eq=False)
class Case:
    """Inputs of one call.

    Attributes:
        op: Name of the op.
        name: What the case is about, unique among the op's.
        make: Gives the input arrays.
        given: Keyword arguments that differ from the defaults.
    """

    op: str
    name: str
    make: Callable[[], tuple[np.ndarray, ...]]
    given: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return f"{self.op}: {self.name}"

    @property
    def params(self) -> dict[str, Any]:
        """All keyword arguments."""
        return EVERY_OP[self.op].filled(self.given)

    def expected(self) -> tuple[np.ndarray, ...]:
        """The specification's results."""
        arrays = self.make()
        return op_of(self.op, arrays).reference(*arrays, **self.params)


def canonical_bytes(array: np.ndarray) -> np.ndarray:
    """The bits of an array, every NaN of a wider float the same: NaN sign and payload differ between vendors.

    The NaN of an 8-bit float is one definite byte and stays as it is.
    """
    bits = np.ascontiguousarray(array).view(f"u{array.itemsize}")
    if array.itemsize == 1:
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


def one(make: Callable[..., np.ndarray], *args: Any) -> Callable[[], tuple[np.ndarray, ...]]:
    """Inputs that are a single array, ``make(*args)``."""
    return lambda: (make(*args),)


def random_bits(shape: tuple[int, ...], seed: str) -> np.ndarray:
    """Uniform uint64. The raw stream of PCG64 is the one NumPy never changes (NEP 19)."""
    raw = np.random.PCG64(zlib.crc32(seed.encode())).random_raw(int(np.prod(shape)))
    return np.asarray(raw, np.uint64).reshape(shape)


def normal(shape: tuple[int, ...], dtype: str, scale: float = 1.0) -> np.ndarray:
    """Nearly normal numbers of about this standard deviation: sums of four uniform ones, exact but for one rounding."""
    bits = random_bits(shape, f"{shape} {dtype}")
    parts = (bits[..., None] >> np.arange(0, 64, 16, dtype=np.uint64)) & np.uint64(0xFFFF)
    centred = parts.astype(np.int64).sum(axis=-1) - 2 * 0xFFFF
    return np.asarray(centred * (scale * 1.75 / 2**16)).astype(dtype)


def bit_patterns(shape: tuple[int, ...], dtype: str, keep: int = -1) -> np.ndarray:
    """Random bit patterns, NaN and infinity among them, with only the bits of ``keep`` left."""
    unsigned = f"u{np.dtype(dtype).itemsize}"
    bits = random_bits(shape, f"bits {shape} {dtype}").astype(unsigned)
    kept: np.ndarray = bits & np.array(keep & np.iinfo(unsigned).max, unsigned)
    return kept.view(dtype)


def subnormals(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Numbers from the two lowest binades and below, of both signs."""
    fmt = FORMATS[dtype]
    return bit_patterns(shape, dtype, keep=1 << (fmt.bits - 1) | (1 << (fmt.mantissa_bits + 1)) - 1)


def neighbours(x: np.ndarray) -> np.ndarray:
    """Positive fp32 numbers, each with the number one ulp below and above it, along a new last axis of 3."""
    x = np.asarray(x, np.float32)
    return np.stack([np.nextafter(x, np.float32(0)), x, np.nextafter(x, np.float32(np.inf))], axis=-1)


def with_specials(x: np.ndarray, specials: Iterable[float]) -> np.ndarray:
    """Row r gets special number r at a column that differs from row to row; the remaining rows stay clean."""
    x = x.copy()
    for row, special in enumerate(specials):
        x[row, 7 * row % x.shape[1]] = special
    return x


SPECIALS = (np.nan, -np.nan, np.inf, -np.inf)


def views(dtype: str, size: int) -> dict[str, Callable[[], np.ndarray]]:
    """Ways to pass the rows of an array of last axis ``size`` that are not contiguous."""
    data = partial(normal, dtype=dtype, scale=2.0)
    return {
        "columns sliced out of wider rows": lambda: data((6, size + 48))[:, 16 : 16 + size],
        "every other row": lambda: data((12, size))[::2],
        "a sequence slice of a batch": lambda: data((3, 9, size))[:, 2:7],
        "transposed leading axes": lambda: data((3, 5, size)).swapaxes(0, 1),
        "three axes in reverse order": lambda: data((2, 3, 4, size)).transpose(2, 1, 0, 3),
        "every other column": lambda: data((5, 2 * size))[:, ::2],
        "one row repeated": lambda: np.broadcast_to(data((1, size)), (5, size)),
    }
