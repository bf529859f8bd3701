"""The arrays that cases are made of. All are made from integers, and the same on every machine."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import ml_dtypes  # noqa: F401  (gives NumPy the names of the small dtypes)
import numpy as np

from m3ops.numerics.formats import FORMATS

Shape = tuple[int, ...]
Inputs = Callable[[], tuple[np.ndarray, ...]]
InputsOfShape = Callable[[Shape], Inputs]


def one(make: Callable[..., np.ndarray], *args: Any) -> Inputs:
    """Inputs that are a single array, ``make(*args)``."""
    return lambda: (make(*args),)


def random_bits(shape: Shape, seed: str) -> np.ndarray:
    """Uniform uint64. The raw stream of PCG64 is the one NumPy never changes (NEP 19)."""
    raw = np.random.PCG64(zlib.crc32(seed.encode())).random_raw(int(np.prod(shape)))
    return np.asarray(raw, np.uint64).reshape(shape)


def normal(shape: Shape, dtype: str, scale: float = 1.0) -> np.ndarray:
    """Nearly normal numbers of about this standard deviation: sums of four uniform ones, exact but for one rounding."""
    bits = random_bits(shape, f"{shape} {dtype}")
    parts = (bits[..., None] >> np.arange(0, 64, 16, dtype=np.uint64)) & np.uint64(0xFFFF)
    centred = parts.astype(np.int64).sum(axis=-1) - 2 * 0xFFFF
    return np.asarray(centred * (scale * 1.75 / 2**16)).astype(dtype)


def bit_patterns(shape: Shape, dtype: str, keep: int = -1) -> np.ndarray:
    """Random bit patterns, NaN and infinity among them, with only the bits of ``keep`` left."""
    unsigned = f"u{np.dtype(dtype).itemsize}"
    bits = random_bits(shape, f"bits {shape} {dtype}").astype(unsigned)
    kept: np.ndarray = bits & np.array(keep & np.iinfo(unsigned).max, unsigned)
    return kept.view(dtype)


def subnormals(shape: Shape, dtype: str) -> np.ndarray:
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


def gradients(shape: Shape, dtype: str, seed: int = 0) -> np.ndarray:
    """Gradients of several magnitudes, the same for every shape with this last axis and dtype."""
    rows = normal((seed + 3, *shape), dtype, 0.5)[seed + 2]
    scales = np.exp2(np.arange(int(np.prod(shape[:-1]))) % 5 - 2.0).reshape(*shape[:-1], 1)
    return np.asarray(rows.astype(np.float64) * scales, np.float64).astype(dtype)


ALIKE = ("swizzle_8x4", "shuffle_32x4")
"""Scale layouts that differ from ``"swizzle_128x4"`` in the size of a tile alone. They need fewer cases."""


def matrices() -> Iterator[tuple[str, Callable[[], np.ndarray]]]:
    """Matrices that fill no whole tile of a scale layout, for every op that stores scales in one."""
    yield "rows and blocks that divide nothing", partial(normal, (133, 224), "bfloat16", 3.0)
    yield "one row", partial(normal, (1, 64), "bfloat16")
    yield "several matrices", partial(normal, (2, 2, 5, 96), "bfloat16", 3.0)
