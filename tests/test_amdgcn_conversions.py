"""Conversions on the interpreter of AMD machine code: exhaustive from 8 and 16 bits, on all boundaries to 8."""

import ml_dtypes
import numpy as np
import pytest
from amdgcn import fp
from amdgcn.compiling import ARCHS, run_elementwise
from amdgcn.samples import convert_kernel

f32 = np.float32
BF16, E4M3FN, E4M3FNUZ = ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e4m3fnuz
LARGEST = {E4M3FN: 448.0, E4M3FNUZ: 240.0}
# Elsewhere Triton decodes in software and gets NaN wrong: 0x7f becomes 480, and FNUZ's 0x80 becomes -0.
DECODES_NAN = {E4M3FN: ("gfx950", "gfx1250"), E4M3FNUZ: ("gfx942",)}


def convert(arch, x, dtype, bitcast=False):
    return run_elementwise(convert_kernel, arch, (x,), dtype, BITCAST=bitcast)


def assert_same(actual: np.ndarray, expected: np.ndarray, source: np.ndarray) -> None:
    """Equal bits, or both NaN."""
    bits = {1: np.uint8, 2: np.uint16, 4: np.uint32}[actual.dtype.itemsize]
    nan = np.isnan(expected.astype(f32))
    wrong = np.where(nan, ~np.isnan(actual.astype(f32)), actual.view(bits) != expected.view(bits))
    assert not wrong.any(), [(source[i], actual[i], expected[i]) for i in np.flatnonzero(wrong)[:5]]


def all_values(dtype) -> np.ndarray:
    bits = {1: np.uint8, 2: np.uint16}[np.dtype(dtype).itemsize]
    return np.arange(2 ** (8 * np.dtype(dtype).itemsize)).astype(bits).view(dtype)


def around(values: np.ndarray) -> np.ndarray:
    """Each float32 and its neighbours, of both signs."""
    values = values[np.isfinite(values)].astype(f32)
    near = np.concatenate([values, np.nextafter(values, f32(np.inf)), np.nextafter(values, f32(-np.inf))])
    return np.unique(np.concatenate([near, -near]).view(np.uint32)).view(f32)


def boundaries(dtype) -> np.ndarray:
    """Every value of a format, every midpoint between neighbours, and what lies next to them in float32."""
    values = np.unique(np.abs(all_values(dtype).astype(f32)[np.isfinite(all_values(dtype).astype(f32))])).astype(
        np.float64
    )
    return around(np.concatenate([values, (values[1:] + values[:-1]) / 2]))


# ---- fp8


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("dtype", LARGEST, ids=lambda t: t.__name__)
def test_fp32_to_fp8(arch, dtype):
    """Kernels saturate before the cast, so that the range is what matters; ml_dtypes rounds to nearest even."""
    rng = np.random.default_rng(0)
    random = rng.standard_normal(20000).astype(f32) * np.exp2(rng.integers(-14, 7, 20000)).astype(f32)
    tiny = rng.integers(0, 0x00FFFFFF, 500, np.uint32).view(f32)
    x = np.concatenate([boundaries(dtype), random, tiny, -tiny, [f32(0), f32(-0.0)]]).astype(f32)
    x = x[np.abs(x) <= LARGEST[dtype]]
    assert_same(convert(arch, x, dtype), x.astype(dtype), x)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("source", [BF16, np.float16], ids=["bf16", "fp16"])
@pytest.mark.parametrize("dtype", LARGEST, ids=lambda t: t.__name__)
def test_16_bit_floats_to_fp8(arch, source, dtype):
    x = all_values(source)
    x = x[np.abs(x.astype(f32)) <= LARGEST[dtype]]
    assert_same(convert(arch, x, dtype), x.astype(f32).astype(dtype), x)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("source", LARGEST, ids=lambda t: t.__name__)
@pytest.mark.parametrize("dtype", [f32, BF16, np.float16], ids=["fp32", "bf16", "fp16"])
def test_fp8_to_wider_floats(arch, source, dtype):
    x = all_values(source)
    if arch not in DECODES_NAN[source]:
        x = x[~np.isnan(x.astype(f32))]
    assert_same(convert(arch, x, dtype), x.astype(f32).astype(dtype), x)


@pytest.mark.parametrize(("target", "dtype"), [(fp.OCP, E4M3FN), (fp.FNUZ, E4M3FNUZ)], ids=["ocp", "fnuz"])
def test_fp8_helpers(target, dtype):
    """The formats' own encoder and decoder, and what the mode bit FP16_OVFL changes: overflow only."""
    codes = np.arange(256, dtype=np.uint8)
    assert_same(target.decode(codes), codes.view(dtype).astype(f32), codes)
    x = boundaries(dtype)
    x = x[np.abs(x) <= LARGEST[dtype]]
    assert_same(target.encode(x, np.False_).view(dtype), x.astype(dtype), x)
    far = np.array([LARGEST[dtype] * 1.1, 1e30, -1e30, np.inf, -np.inf], f32)
    assert np.isnan(target.encode(far, np.False_).view(dtype).astype(f32)).all()
    saturated = target.encode(far, np.True_).view(dtype).astype(f32)
    assert (saturated == np.copysign(LARGEST[dtype], far)).all()
    assert np.isnan(target.encode(np.array([np.nan], f32), np.True_).view(dtype).astype(f32)).all()


# ---- 16- and 32-bit floats


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("dtype", [BF16, np.float16], ids=["bf16", "fp16"])
def test_fp32_to_16_bits(arch, dtype):
    rng = np.random.default_rng(1)
    ties = all_values(dtype).astype(f32).view(np.uint32) | np.uint32(0x8000 if dtype is BF16 else 0x1000)
    random = rng.integers(0, 2**32, 50000, np.uint32)
    x = np.concatenate([ties, ties + np.uint32(1), ties - np.uint32(1), random]).view(f32)
    with np.errstate(all="ignore"):
        expected = x.astype(dtype)
    assert_same(convert(arch, x, dtype), expected, x)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("source", [BF16, np.float16], ids=["bf16", "fp16"])
def test_16_bits_to_fp32_and_each_other(arch, source):
    x = all_values(source)
    other = np.float16 if source is BF16 else BF16
    with np.errstate(all="ignore"):
        assert_same(convert(arch, x, f32), x.astype(f32), x)
        assert_same(convert(arch, x, other), x.astype(f32).astype(other), x)


# ---- integers

INTEGERS = (np.int8, np.uint8, np.int32, np.int64)
FLOATS = (f32, np.float16, BF16)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("source", INTEGERS, ids=lambda t: t.__name__)
def test_integers_to_floats(arch, source):
    info = np.iinfo(source)
    rng = np.random.default_rng(2)
    if info.bits == 8:
        x = np.arange(info.min, info.max + 1).astype(source)
    else:
        random = rng.integers(info.min, info.max, 5000, source, endpoint=True) >> rng.integers(0, info.bits - 1, 5000)
        ties = (1 << np.arange(24, info.bits - 1)).astype(source)
        x = np.concatenate(
            [random.astype(source), ties + 1, ties + ties // 2**24, [source(info.min), source(info.max)]]
        )
    for dtype in FLOATS:
        if info.bits == 64 and dtype is not f32:
            continue  # NumPy would round twice
        with np.errstate(all="ignore"):  # fp32 first for bf16, as Triton does; exact for fp16 within its range
            expected = x.astype(f32).astype(dtype) if dtype is BF16 or info.bits == 8 else x.astype(dtype)
        finite = np.isfinite(expected.astype(f32))
        assert_same(convert(arch, x[finite], dtype), expected[finite], x[finite])


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("dtype", INTEGERS, ids=lambda t: t.__name__)
def test_floats_to_integers(arch, dtype):
    """Towards zero, within the target's range: outside it Triton promises nothing."""
    info = np.iinfo(dtype)
    rng = np.random.default_rng(3)
    low, high = max(info.min, -(2**62)), min(info.max, 2**62)
    x = np.concatenate([rng.uniform(low, high, 3000), rng.uniform(max(low, -300), 300, 3000), [0.0, -0.0, 0.99, 1e-40]])
    for source in FLOATS:
        with np.errstate(all="ignore"):
            values = x.astype(f32).astype(source)
            wide = np.trunc(values.astype(np.float64))
        fits = (wide >= low) & (wide <= high)
        expected = wide[fits].astype(np.int64).astype(dtype)
        assert (convert(arch, values[fits], dtype) == expected).all(), source


@pytest.mark.parametrize("arch", ARCHS)
def test_integer_widths(arch):
    rng = np.random.default_rng(4)
    for source in INTEGERS:
        x = rng.integers(np.iinfo(source).min, np.iinfo(source).max, 3000, source, endpoint=True)
        for dtype in INTEGERS:
            if source is not dtype:
                assert (convert(arch, x, dtype) == x.astype(dtype)).all(), (source, dtype)


@pytest.mark.parametrize("arch", ARCHS)
def test_bitcasts(arch):
    bits = np.random.default_rng(5).integers(0, 2**32, 5000, np.uint32)
    assert (convert(arch, bits.view(f32), np.int32, bitcast=True).view(np.uint32) == bits).all()
    assert (convert(arch, bits.view(np.int32), f32, bitcast=True).view(np.uint32) == bits).all()
    half = all_values(BF16)
    assert (convert(arch, half, np.int16, bitcast=True).view(np.uint16) == half.view(np.uint16)).all()
