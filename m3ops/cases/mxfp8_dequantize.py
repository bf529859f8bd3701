"""Cases of mxfp8_dequantize."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product

import numpy as np

from m3ops.cases.case import Case, random_bits
from m3ops.numerics.formats import ACTIVATION_DTYPES, FP8_FORMATS


def every_byte_with(scales: range, fp8: str) -> tuple[np.ndarray, np.ndarray]:
    """All 256 value bytes under each of these scale bytes."""
    values = np.tile(np.arange(256, dtype=np.uint8), (len(scales), 1))
    return values.view(FP8_FORMATS[fp8].name), np.repeat(np.array(scales, np.uint8), 8).reshape(-1, 8)


def random_bytes(shape: tuple[int, ...], fp8: str = "e4m3fn") -> tuple[np.ndarray, np.ndarray]:
    values = random_bits(shape, f"values {shape}").astype(np.uint8).view(FP8_FORMATS[fp8].name)
    return values, random_bits((*shape[:-1], shape[-1] // 32), f"scales {shape}").astype(np.uint8)


def _sliced() -> tuple[np.ndarray, np.ndarray]:
    values, scales = random_bytes((6, 5, 128))
    return values[::2, :, 32:96], scales[::2, :, 1:3]


def _cases() -> Iterator[Case]:
    case = partial(Case, "mxfp8_dequantize")
    for fp8, dtype in product(FP8_FORMATS, ACTIVATION_DTYPES):
        for scales in (range(0, 64), range(64, 192), range(192, 256)):
            made = partial(every_byte_with, scales, fp8)
            yield case(f"every byte, scales {scales.start} on, {fp8} to {dtype}", made, {"out_dtype": dtype})
    yield case("no rows", partial(random_bytes, (0, 64)))
    yield case("no leading axis", partial(random_bytes, (64,)))
    yield case("an empty last axis", partial(random_bytes, (3, 0)))
    yield case("rows and columns that divide nothing", partial(random_bytes, (37, 224)))
    yield case("M3 MoE, I = 3072", partial(random_bytes, (2, 3072)))
    yield case("values and scales sliced out of wider arrays", _sliced)


CASES = tuple(_cases())
