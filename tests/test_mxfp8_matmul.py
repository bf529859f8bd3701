"""Products of MXFP8: what the promise rests on, and how far from the exact product they are."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from specification import reference

from m3ops.numerics.constants import CHUNK_BLOCKS
from m3ops.numerics.exact import fp32, functions
from m3ops.numerics.formats import BLOCK, FP8_FORMATS
from m3ops.ops.mxfp8_matmul.cases import finite, matrix
from m3ops.testing import formulas
from m3ops.tools.run import to_numpy, to_tensor

EVERY_BYTE = np.arange(256, dtype=np.uint8)


def numbers(fp8: str) -> np.ndarray:
    """All finite numbers of a format."""
    every = fp32.load(EVERY_BYTE.view(FP8_FORMATS[fp8].name))
    return np.unique(every[np.isfinite(every)])


def bits_of(largest: Fraction, unit: Fraction) -> int:
    return int(largest / unit).bit_length()


@pytest.mark.parametrize("x", FP8_FORMATS)
@pytest.mark.parametrize("w", FP8_FORMATS)
def test_the_sums_of_a_block_fit_into_24_bits(x: str, w: str) -> None:
    """Largest sum over smallest unit: no order of addition, and no tensor core that keeps 24 bits, can round them."""
    largest, unit = {}, {}
    for name, values in (("x", numbers(x)), ("w", numbers(w))):
        high = np.rint(values)
        low = values - high
        assert np.array_equal(high.astype(np.float16), high)
        assert np.array_equal(low.astype(np.float16), low)
        for digit, part in (("high", high), ("low", low)):
            nonzero = np.abs(part[part != 0])
            largest[name, digit] = Fraction(nonzero.max())
            unit[name, digit] = min(Fraction(1, Fraction(number).denominator) for number in nonzero)
    pairs = {"high": [("high", "high")], "low": [("low", "low")], "mixed": [("high", "low"), ("low", "high")]}
    for products in pairs.values():
        total = sum(BLOCK * largest["x", a] * largest["w", b] for a, b in products)
        assert bits_of(Fraction(total), min(unit["x", a] * unit["w", b] for a, b in products)) <= 24


def exact_product(values: np.ndarray, scales: np.ndarray, w: np.ndarray, w_scales: np.ndarray) -> np.ndarray:
    """The product by float64, which errs by 2**-29 of what fp32 does, and the sum of magnitudes, ``[2, M, N]``."""
    x, y = (functions.dequantize_blocks(a, s) for a, s in ((values, scales), (w, w_scales)))
    return np.array([x @ y.T, np.abs(x) @ np.abs(y).T])


def error_bound(size: int) -> float:
    """Of one element over the sum of the magnitudes of its terms: three fma a block, then the chunks, then rounding.

    A chunk of B blocks makes 3 B roundings, and C chunks C - 1 more; each is of a sum that is at most the sum of the
    digits' magnitudes, which is at most 9 times that of the terms: |h| <= 2 |v| and |l| <= |v|.
    """
    blocks = size // BLOCK
    chunks = -(-blocks // CHUNK_BLOCKS)
    return 9 * (3 * min(blocks, CHUNK_BLOCKS) + chunks) * 2.0**-24


@pytest.mark.parametrize("size", [BLOCK, 1024, 2080])
def test_error_against_float64(size: int) -> None:
    operands = *matrix((30, size), "error x"), *matrix((40, size), "error w")
    (got,) = reference("mxfp8_matmul", *operands, out_dtype="float32")
    want, magnitude = exact_product(*operands)
    assert np.all(np.abs(got - want) <= (1 + 2.0**-20) * error_bound(size) * magnitude)


def test_a_row_does_not_depend_on_the_batch() -> None:
    x, scales = matrix((40, 2080), "batch")
    w = matrix((33, 2080), "w")
    (whole,) = reference("mxfp8_matmul", x, scales, *w)
    for rows in (slice(0, 1), slice(7, 8), slice(3, 30)):
        (part,) = reference("mxfp8_matmul", x[rows], scales[rows], *w)
        assert np.array_equal(part.view(np.uint16), whole[rows].view(np.uint16))


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_the_formula_to_compare_with_is_the_same_product(framework: str) -> None:
    """Dequantized to bfloat16, which is exact for these scales, and multiplied with fp32 sums in an unknown order."""
    operands = *matrix((24, 512), "x", range(120, 130)), *matrix((48, 512), "w", range(120, 130))
    if framework == "torch":
        got = to_numpy(formulas.TORCH["mxfp8_matmul"](*map(to_tensor, operands)))
    else:
        got = np.asarray(formulas.JAX["mxfp8_matmul"](*operands))
    want, magnitude = exact_product(*operands)
    # 511 additions and, in bfloat16, one last rounding of the result.
    assert np.all(np.abs(got.astype(np.float64) - want) <= 2.0**-8 * np.abs(want) + 512 * 2.0**-24 * magnitude)


def test_sums_of_zero_are_positive() -> None:
    """Digits that cancel, and products that underflow from below, give +0 whatever the order."""
    x = finite((1, BLOCK), "zero")
    both = np.concatenate([x, (x.view(np.uint8) ^ np.uint8(0x80)).view(x.dtype)], axis=-1)
    w = np.tile(finite((1, BLOCK), "w"), 2)
    for byte in (0, 127):
        scales = np.full((1, 2), byte, np.uint8)
        (got,) = reference("mxfp8_matmul", both, scales, w, scales, out_dtype="float32")
        assert got.tobytes() == bytes(4)
