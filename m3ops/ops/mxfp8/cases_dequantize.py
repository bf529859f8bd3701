"""Cases of mxfp8_dequantize."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product

import numpy as np

from m3ops.numerics.formats import ACTIVATION_DTYPES, FP8_FORMATS
from m3ops.numerics.scale_layouts import TILES, arrange
from m3ops.ops.mxfp8.cases_groups import counted, counting
from m3ops.testing.arrays import matrices, random_bits
from m3ops.testing.case import Case

case = partial(Case, "mxfp8_dequantize")


def every_byte_with(scales: range, fp8: str) -> tuple[np.ndarray, np.ndarray]:
    """All 256 value bytes under each of these scale bytes."""
    values = np.tile(np.arange(256, dtype=np.uint8), (len(scales), 1))
    return values.view(FP8_FORMATS[fp8].name), np.repeat(np.array(scales, np.uint8), 8).reshape(-1, 8)


def random_bytes(shape: tuple[int, ...], layout: str = "row_major") -> tuple[np.ndarray, np.ndarray]:
    """Any values and scales."""
    values = random_bits(shape, f"values {shape}").astype(np.uint8).view(FP8_FORMATS["e4m3fn"].name)
    scales = random_bits((*shape[:-1], shape[-1] // 32), f"scales {shape}").astype(np.uint8)
    return values, arrange(scales, layout)


def _sliced() -> tuple[np.ndarray, np.ndarray]:
    values, scales = random_bytes((6, 5, 128))
    return values[::2, :, 32:96], scales[::2, :, 1:3]


def _cases() -> Iterator[Case]:
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
    yield from counted("mxfp8_dequantize", lambda shape: partial(random_bytes, shape))
    for layout in TILES:
        for name, make in matrices():
            yield case(f"{layout}: {name}", partial(random_bytes, make().shape, layout), {"scale_layout": layout})
        few = partial(counting, partial(random_bytes, (37, 96), layout), 33)
        yield case(f"{layout}: 33 of 37 rows", few, {"scale_layout": layout})


CASES = tuple(_cases())
