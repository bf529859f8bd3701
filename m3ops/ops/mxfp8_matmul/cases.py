"""Cases of mxfp8_matmul."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from m3ops.numerics.constants import CHUNK_BLOCKS
from m3ops.numerics.formats import ACTIVATION_DTYPES, BLOCK, FP8_FORMATS
from m3ops.numerics.scale_layouts import TILES, arrange
from m3ops.testing.arrays import ALIKE, Inputs, random_bits
from m3ops.testing.case import Case, counted, counting

case = partial(Case, "mxfp8_matmul")

Quantized = tuple[np.ndarray, np.ndarray]
CHUNK = CHUNK_BLOCKS * BLOCK


def codes(array: np.ndarray, fp8: str = "e4m3fn") -> np.ndarray:
    """Bytes as values of a format."""
    return array.astype(np.uint8).view(FP8_FORMATS[fp8].name)


def finite(shape: tuple[int, ...], seed: str, fp8: str = "e4m3fn") -> np.ndarray:
    """Any bytes but NaN, which becomes zero."""
    values = codes(random_bits(shape, f"{seed} values {shape}"), fp8)
    return np.where(np.isnan(values.astype(np.float32)), np.zeros((), values.dtype), values)


def matrix(
    shape: tuple[int, ...], seed: str, scales: range = range(110, 140), layout: str = "row_major", fp8: str = "e4m3fn"
) -> Quantized:
    """Any finite values under scale bytes of a range."""
    bits = random_bits((*shape[:-1], shape[-1] // BLOCK), f"{seed} scales {shape}")
    stored = (scales.start + bits % np.uint64(len(scales))).astype(np.uint8)
    return finite(shape, seed, fp8), arrange(stored, layout)


def operands(x: tuple[int, ...], columns: int, **of_both: Any) -> tuple[np.ndarray, ...]:
    """Two such matrices, ``[*x]`` and ``[columns, K]``."""
    return *matrix(x, "x", **of_both), *matrix((columns, x[-1]), "w", **of_both)


def unscaled(values: np.ndarray) -> Quantized:
    """Values under the scale 1."""
    return values, np.full((*values.shape[:-1], values.shape[-1] // BLOCK), 127, np.uint8)


def every_pair(x: str, w: str) -> tuple[np.ndarray, ...]:
    """The product of each value byte and each other, NaN among them."""
    blocks = np.zeros((256, BLOCK), np.uint8)
    blocks[:, 5] = np.arange(256)
    return *unscaled(codes(blocks, x)), *unscaled(codes(blocks, w))


def largest_sums() -> tuple[np.ndarray, ...]:
    """Blocks whose three sums are the largest that there are, and the same with alternating signs."""
    bytes_of = {"448": 0x7E, "-448": 0xFE, "0.5": 0x30, "1.5": 0x3C, "smallest": 0x01, "mixed": 0x37}
    rows = np.array(list(bytes_of.values()), np.uint8)[:, None].repeat(2 * BLOCK, 1)
    alternating = rows ^ (np.arange(2 * BLOCK, dtype=np.uint8) % 2 * 0x80)
    values = codes(np.concatenate([rows, alternating]))
    return *unscaled(values), *unscaled(values)


def every_scale() -> tuple[np.ndarray, ...]:
    """Each scale byte of x with some of w: factors that overflow, that are subnormal or zero, and NaN."""
    x, _ = matrix((256, BLOCK), "x")
    w, _ = matrix((7, BLOCK), "w")
    of_w = np.array([0, 1, 60, 127, 200, 254, 255], np.uint8)
    return x, np.arange(256, dtype=np.uint8)[:, None], w, of_w[:, None]


def cancelling() -> tuple[np.ndarray, ...]:
    """Blocks that cancel each other, across chunks too, exactly and but for the last place."""
    half, _ = matrix((6, CHUNK), "half")
    values = np.concatenate([half, (half.view(np.uint8) ^ np.uint8(0x80)).view(half.dtype)], axis=-1)
    values[3:, -1] = 1.0
    w, scales = matrix((9, CHUNK), "w")
    return *unscaled(values), np.tile(w, 2), np.tile(scales, 2)


def integers(
    x: tuple[int, ...], columns: int, layout: str = "row_major", fp8: str = "e4m3fn"
) -> tuple[np.ndarray, ...]:
    """Small integers under the scales 1, 2 and 4, whose sums no tensor core rounds: those of bfloat16 are exact too."""

    def some(shape: tuple[int, ...], seed: str) -> Quantized:
        bits = random_bits(shape, f"integers {seed} {shape}") % np.uint64(17)
        _, scales = matrix(shape, seed, range(127, 130), layout)
        return (bits.astype(np.float32) - 8).astype(FP8_FORMATS[fp8].name), scales

    return *some(x, "x"), *some((columns, x[-1]), "w")


def _given(*arrays: np.ndarray) -> Inputs:
    """Inputs that are these arrays."""
    return lambda: arrays


def _views() -> Iterator[Case]:
    w, w_scales = matrix((12, 128), "w")
    x, scales = matrix((5, 9, 128), "x")
    sliced = _given(x[..., 32:96], scales[..., 1:3], w[:, :64], w_scales[:, :2])
    yield case("columns sliced out of wider rows", sliced)
    yield case("transposed leading axes", _given(x.swapaxes(0, 1), scales.swapaxes(0, 1), w, w_scales))
    yield case("every other row of the weight", _given(x, scales, w[::2], w_scales[::2]))
    yield case("every other column", _given(*unscaled(x[..., ::2]), *unscaled(w[:, ::2])))


def _tiled() -> Iterator[Case]:
    for layout in TILES:
        given = {"x_layout": layout, "w_layout": layout}
        yield case(f"{layout}: one matrix", partial(operands, (37, 160), 133, layout=layout), given)
        if layout in ALIKE:
            continue
        yield case(f"{layout}: several matrices", partial(operands, (2, 5, 96), 9, layout=layout), given)
        weight = _given(*matrix((7, 96), "x"), *matrix((40, 96), "w", layout=layout))
        yield case(f"{layout}: of the weight alone", weight, {"w_layout": layout})


def _fast() -> Iterator[Case]:
    """Inputs for which it is exact, so that its bytes are known: of each tile, layout and dtype."""
    fast = {"arithmetic": "fast"}
    for rows, columns in ((1, 33), (17, 70), (128, 65), (513, 40), (769, 40), (5, 1)):
        yield case(f"fast, {rows} rows, {columns} columns", partial(integers, (rows, 96), columns), fast)
    for size in (32, 64, 256, 1280):
        yield case(f"fast, K = {size}", partial(integers, (5, size), 24), fast)
    for dtype in ACTIVATION_DTYPES:
        yield case(f"fast to {dtype}", partial(integers, (37, 192), 40), {**fast, "out_dtype": dtype})
    for layout in TILES:
        given = {**fast, "x_layout": layout, "w_layout": layout}
        yield case(f"fast, {layout}", partial(integers, (37, 288), 70, layout), given)
        if layout not in ALIKE:
            yield case(f"fast, {layout}, 776 rows", partial(integers, (776, 64), 70, layout), given)
    yield case("fast, e4m3fnuz", partial(integers, (5, 96), 17, fp8="e4m3fnuz"), fast)
    yield case("fast, leading axes", partial(integers, (2, 3, 5, 96), 33), fast)
    yield case("fast, no rows", partial(integers, (0, 64), 8), fast)
    yield case("fast, K = 0", partial(integers, (3, 0), 4), fast)
    x, x_scales, w, w_scales = integers((7, 9, 192), 48)
    sliced = (x[..., 64:160], x_scales[..., 2:5], w[::2, :96], w_scales[::2, :3])
    yield case("fast, columns sliced out of wider rows", _given(*sliced), fast)
    yield case("fast, every other column", _given(*unscaled(x[..., ::2]), *unscaled(w[:, ::2])), fast)
    for make in counted("mxfp8_matmul", lambda shape: partial(integers, shape, 40), fast):
        yield replace(make, name=f"fast, {make.name}")
    nan = _given(*every_scale()[:3], np.full((7, 1), 255, np.uint8))
    yield case("fast, NaN scales", nan, fast)


def _cases() -> Iterator[Case]:
    for fp8, other in product(FP8_FORMATS, FP8_FORMATS):
        yield case(f"every pair of bytes, {fp8} by {other}", partial(every_pair, fp8, other), {"out_dtype": "float32"})
    for dtype in ACTIVATION_DTYPES:
        yield case(f"every scale byte to {dtype}", every_scale, {"out_dtype": dtype})
        yield case(f"random to {dtype}", partial(operands, (37, 192), 70), {"out_dtype": dtype})
    yield case("the largest sums of a block", largest_sums, {"out_dtype": "float32"})
    yield case("blocks that cancel", cancelling, {"out_dtype": "float32"})
    for size in (CHUNK - BLOCK, CHUNK, CHUNK + BLOCK, 3 * CHUNK):
        alike = partial(operands, (5, size), 24, scales=range(117, 123))
        yield case(f"K = {size}", alike, {"out_dtype": "float32"})
    yield case("K = 0", partial(operands, (3, 0), 4))
    yield case("no rows", partial(operands, (0, 64), 8))
    yield case("no leading axis", partial(operands, (64,), 8))
    yield case("one row, one column", partial(operands, (1, 2080), 1))
    yield case("leading axes", partial(operands, (2, 3, 5, 96), 33))
    for rows in (16, 17, 33, 65, 600):
        yield case(f"{rows} rows", partial(operands, (rows, 64), 65))
    yield case("e4m3fnuz", partial(operands, (5, 96), 17, fp8="e4m3fnuz"))
    yield from _views()
    yield from counted("mxfp8_matmul", lambda shape: partial(operands, shape, 40))
    yield case("2 of 40 rows of 2048", partial(counting, partial(operands, (40, 2048), 40), 2))
    for size in (32, CHUNK + BLOCK):
        yield case(f"9 of 20 rows, 200 columns, K = {size}", partial(counting, partial(operands, (20, size), 200), 9))
    yield from _tiled()
    yield from _fast()


CASES = tuple(_cases())
