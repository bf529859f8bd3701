"""One-operation kernels on the interpreter of AMD machine code, against NumPy and exact rationals."""

from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from amdgcn import fp, launch
from amdgcn.compiling import ARCHS, compile_sample, run_elementwise
from amdgcn.samples import float_kernel, half_kernel, index_kernel, int_kernel

f32, f64 = np.float32, np.float64
EDGES = np.array(
    [0x00000000, 0x00000001, 0x00000002, 0x007FFFFF, 0x00400000, 0x00800000, 0x00800001, 0x33800000, 0x3F7FFFFF,
     0x3F800000, 0x3F800001, 0x40E00000, 0x4B400000, 0x4EFFFFFF, 0x4F000000, 0x7E800000, 0x7F000000, 0x7F7FFFFF,
     0x7F800000, 0x7FC00000, 0x7F800001],
    np.uint32,
)  # fmt: skip


def patterns(count: int, seed: int = 0) -> np.ndarray:
    """Random bit patterns after every edge and its negative: subnormals, infinities and NaNs among them."""
    random = np.random.default_rng(seed).integers(0, 2**32, count, np.uint32)
    return np.concatenate([EDGES, EDGES | np.uint32(0x80000000), random]).view(f32)


def triples(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pairs of edges, then random patterns of all and of moderate magnitude."""
    edges = patterns(0)
    rng = np.random.default_rng(seed)
    x, y = (grid.ravel() for grid in np.meshgrid(edges, edges))
    z = rng.choice(edges, x.size)
    moderate = [rng.standard_normal(2000).astype(f32) for _ in range(3)]
    return tuple(np.concatenate([edge, patterns(2000, seed + i), moderate[i]]) for i, edge in enumerate((x, y, z)))  # type: ignore[return-value]


def assert_same(actual: np.ndarray, expected: np.ndarray, *inputs: np.ndarray) -> None:
    """Equal bits, or both NaN."""
    bits = {2: np.uint16, 4: np.uint32}[actual.dtype.itemsize]
    nan = np.isnan(expected.astype(f32))
    wrong = np.where(nan, ~np.isnan(actual.astype(f32)), actual.view(bits) != expected.view(bits))
    if wrong.any():
        i = np.flatnonzero(wrong)[0]
        raise AssertionError(
            f"{wrong.sum()} of {wrong.size} differ, first at {i}: {actual[i]!r} for {expected[i]!r}, "
            f"from {[array[i] for array in inputs]}"
        )


def low(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.where((a == b) & np.signbit(a), a, np.fmin(a, b))


def high(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.where((a == b) & ~np.signbit(a), a, np.fmax(a, b))


def spread(x: np.ndarray, *nans: np.ndarray) -> np.ndarray:
    """NaN wherever one of the inputs is."""
    return np.where(np.any([np.isnan(n) for n in nans], axis=0), f32(np.nan), x)


LIMIT = f32(7)
EXACT = {
    "add": lambda x, y, z: x + y,
    "sub": lambda x, y, z: x - y,
    "mul": lambda x, y, z: x * y,
    "div": lambda x, y, z: x / y,
    "div_rn": lambda x, y, z: x / y,
    "sqrt_rn": lambda x, y, z: np.sqrt(x),
    "minimum": lambda x, y, z: low(x, y),
    "maximum": lambda x, y, z: high(x, y),
    "minimum_nan": lambda x, y, z: spread(low(x, y), x, y),
    "maximum_nan": lambda x, y, z: spread(high(x, y), x, y),
    "maximum3_nan": lambda x, y, z: spread(high(high(x, y), z), x, y, z),
    "max3": lambda x, y, z: high(high(x, y), z),
    "minmax": lambda x, y, z: low(high(x, y), z),
    "clamp_nan": lambda x, y, z: spread(low(high(x, -LIMIT), LIMIT), x),
    "where": lambda x, y, z: np.where(x < y, z, -x),
    "abs": lambda x, y, z: np.abs(x),
    "floor": lambda x, y, z: np.floor(x),
    "ceil": lambda x, y, z: np.ceil(x),
    "rint": lambda x, y, z: np.rint(x),
    "trunc": lambda x, y, z: np.trunc(x),
    "round_even_magic": lambda x, y, z: (x + f32(12582912)) - f32(12582912),
    "isnan": lambda x, y, z: np.isnan(x).astype(f32),
    "isfinite": lambda x, y, z: np.isfinite(x).astype(f32),
    "ldexp": lambda x, y, z: np.ldexp(x.astype(f64), np.clip(y.view(np.int32) >> 20, -600, 600)).astype(f32),
}


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("op", EXACT)
def test_ieee_operation(arch, op):
    inputs = triples()
    with np.errstate(all="ignore"):
        expected = EXACT[op](*inputs)
    # jitter: what Triton builds from approximate instructions (division, square root) must correct their last place
    assert_same(run_elementwise(float_kernel, arch, inputs, f32, OP=op, jitter=True), expected, *inputs)


@pytest.mark.parametrize("arch", ARCHS)
def test_clamp_without_nan_promise(arch):
    """Triton leaves open which limit a NaN becomes; numbers are clamped."""
    x, y, z = triples()
    actual = run_elementwise(float_kernel, arch, (x, y, z), f32, OP="clamp")
    number = ~np.isnan(x)
    assert_same(actual[number], np.clip(x[number], -LIMIT, LIMIT), x[number])


# ---- fma, against exact rationals


def round_exact(value: Fraction) -> np.float32:
    """The nearest float32, ties to even, in integer arithmetic."""
    if value == 0:
        return f32(0)
    magnitude = abs(value)
    power = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    power -= magnitude < Fraction(2) ** power
    unit = Fraction(2) ** max(power - 23, -149)
    rounded = float(round(magnitude / unit) * unit)  # round() of a Fraction is to even; exact in float64
    with np.errstate(over="ignore"):
        return f32(-rounded if value < 0 else rounded)


def exact_fma(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        out = (x.astype(f64) * y.astype(f64) + z).astype(f32)  # signs of zero, infinities and NaNs are right
    for i in np.flatnonzero(np.isfinite(x) & np.isfinite(y) & np.isfinite(z)):
        value = Fraction(float(x[i])) * Fraction(float(y[i])) + Fraction(float(z[i]))
        if value:
            out[i] = round_exact(value)
    return out


def near_ties(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Products half way between two floats, pushed off the tie by an addend far below the last place of float64."""
    rng = np.random.default_rng(5)
    x = f32(1) + rng.integers(0, 2**11, count).astype(f32) * f32(2.0**-11) + f32(2.0**-12)
    y = f32(1) + f32(2.0**-12) * rng.integers(0, 2, count).astype(f32)
    z = np.ldexp(rng.choice([-1.0, 1.0], count), rng.integers(-149, -50, count)).astype(f32)
    scale = np.ldexp(1.0, rng.integers(-20, 20, count)).astype(f32)
    return x * scale, y, z


def fma_inputs() -> tuple[np.ndarray, ...]:
    parts = [tuple(a[::4] for a in triples(3)), near_ties(1500)]
    x, y = patterns(1000, 8)[:1000], patterns(1000, 9)[:1000]
    with np.errstate(all="ignore"):
        parts.append((x, y, (-(x.astype(f64) * y)).astype(f32)))  # cancellation
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


FMA_INPUTS = fma_inputs()
FMA_EXPECTED = exact_fma(*FMA_INPUTS)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("op", ["fma", "fma_neg"])
def test_fma_is_exact(arch, op):
    x, y, z = FMA_INPUTS
    if op == "fma_neg":  # the kernel computes fma(-x, |y|, -z): hand it what gives x, y, z again
        x = np.where(np.signbit(y), x, -x)
        actual = run_elementwise(float_kernel, arch, (x, y, -z), f32, OP=op)
    else:
        actual = run_elementwise(float_kernel, arch, FMA_INPUTS, f32, OP=op)
    assert_same(actual, FMA_EXPECTED, *FMA_INPUTS)


@pytest.mark.parametrize("arch", ARCHS)
def test_contraction_is_one_or_two_roundings(arch):
    """A product and sum may be fused; gfx1250 fuses some elements of a tile and not others (v_fmac beside v_pk_add)."""
    x, y, z = FMA_INPUTS
    with np.errstate(all="ignore"):
        unfused = x * y + z
    actual = run_elementwise(float_kernel, arch, FMA_INPUTS, f32, OP="mul_add")
    fused = (actual.view(np.uint32) == FMA_EXPECTED.view(np.uint32)) | np.isnan(FMA_EXPECTED)
    assert_same(actual, np.where(fused, FMA_EXPECTED, unfused), x, y, z)
    assert (fused & (unfused != FMA_EXPECTED)).any(), "fusion is on by default"


# ---- division and square root, a million pairs


@pytest.mark.parametrize("arch", ARCHS)
def test_division_million(arch):
    x, y = patterns(1_000_000, 11), patterns(1_000_000, 12)
    x[:500_000] = np.random.default_rng(13).standard_normal(500_000)  # quotients of ordinary size
    y[:500_000] = np.random.default_rng(14).standard_normal(500_000)
    with np.errstate(all="ignore"):
        expected = x / y
    assert_same(run_elementwise(float_kernel, arch, (x, y, x), f32, OP="div_rn", jitter=True), expected, x, y)


@pytest.mark.parametrize("arch", ARCHS)
def test_square_root_million(arch):
    x = np.abs(patterns(1_000_000, 15))
    with np.errstate(all="ignore"):
        expected = np.sqrt(x)
    assert_same(run_elementwise(float_kernel, arch, (x, x, x), f32, OP="sqrt_rn", jitter=True), expected, x)


# ---- approximate instructions


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize(
    ("op", "function", "ulps"),
    [("sqrt", np.sqrt, 2), ("rsqrt", lambda x: 1 / np.sqrt(x), 2), ("exp2", np.exp2, 2), ("log2", np.log2, 2)],
)
def test_approximate_instructions_are_near_and_jitter_moves_them(arch, op, function, ulps):
    x = np.random.default_rng(2).uniform(1.5, 90, 4096).astype(f32)
    exact = function(x.astype(f64))
    plain = run_elementwise(float_kernel, arch, (x, x, x), f32, OP=op)
    moved = run_elementwise(float_kernel, arch, (x, x, x), f32, OP=op, jitter=True)
    assert (plain.view(np.int32) != moved.view(np.int32)).mean() > 0.5
    for result in (plain, moved):
        assert (np.abs(result - exact) <= ulps * np.spacing(np.abs(exact).astype(f32))).all()


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("op", ["fast_div", "exp", "log", "sigmoid"])
def test_approximate_functions(arch, op):
    x, y = (np.random.default_rng(i).uniform(0.1, 20, 2048).astype(f32) for i in (3, 4))
    wide = x.astype(f64)
    exact = {"fast_div": wide / y, "exp": np.exp(wide), "log": np.log(wide), "sigmoid": 1 / (1 + np.exp(-wide))}[op]
    actual = run_elementwise(float_kernel, arch, (x, y, y), f32, OP=op, jitter=True)
    # a few instructions of 1 ulp each, exp with the rounding of x * log2(e) amplified by up to |x|; log near x = 1
    assert np.abs(actual / exact - 1)[np.abs(exact) > 0.1].max() < 2.0**-18


# ---- integers

INTEGER_TYPES = (np.int8, np.uint8, np.int16, np.int32, np.uint32, np.int64)
INTEGER = {
    "add": lambda x, y, z: x + y,
    "sub": lambda x, y, z: x - y,
    "mul": lambda x, y, z: x * y,
    "mul_add": lambda x, y, z: x * y + z,
    "and": lambda x, y, z: x & y,
    "or": lambda x, y, z: x | y,
    "xor": lambda x, y, z: x ^ y,
    "not": lambda x, y, z: ~x,
    "bitop": lambda x, y, z: (x & ~y) | (z ^ x),
    "shl_const": lambda x, y, z: x << 3,
    "shr_const": lambda x, y, z: x >> 3,
    "min": lambda x, y, z: np.minimum(x, y),
    "max": lambda x, y, z: np.maximum(x, y),
    "div": lambda x, y, z: truncated_division(x, y),
    "rem": lambda x, y, z: x - truncated_division(x, y) * y,
    "div7": lambda x, y, z: truncated_division(x, np.full_like(x, 7)),
    "less": lambda x, y, z: np.where(x < y, z, x),
    "equal": lambda x, y, z: np.where(x == y, z, x),
}
WIDE_ONLY = {"shl": lambda x, y, z: x << (y & 15), "shr": lambda x, y, z: x >> (y & 15)}
SIGNED_ONLY = {"clamp": lambda x, y, z: np.clip(x, -100, 100), "abs": lambda x, y, z: np.abs(x)}


def truncated_division(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    quotient = x // y
    return quotient + ((quotient < 0) & (quotient * y != x)).astype(x.dtype)


def integers(dtype: type, count: int = 3000) -> list[np.ndarray]:
    rng = np.random.default_rng(np.dtype(dtype).itemsize)
    info = np.iinfo(dtype)
    edges = np.array([0, 1, 2, 3, 7, info.max, info.max - 1, info.min, info.min + 1, info.max // 2], dtype)
    x, y = (grid.ravel() for grid in np.meshgrid(edges, edges))
    z = rng.choice(edges, x.size)
    random = [rng.integers(info.min, info.max, count, dtype, endpoint=True) for _ in range(3)]
    random[1][: count // 2] >>= dtype(4 * np.dtype(dtype).itemsize)  # small divisors
    columns = [np.concatenate(pair) for pair in zip((x, y, z), random, strict=True)]
    columns[1][columns[1] == 0] = 5
    if info.min < 0:  # the one quotient that overflows
        columns[1][(columns[0] == info.min) & (columns[1] == -1)] = 5
    return columns


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("dtype", INTEGER_TYPES, ids=lambda t: t.__name__)
def test_integer_operations(arch, dtype):
    inputs = integers(dtype)
    cases = (
        INTEGER
        | (WIDE_ONLY if np.dtype(dtype).itemsize > 1 else {})
        | (SIGNED_ONLY if np.issubdtype(dtype, np.signedinteger) else {})
    )
    for op, function in cases.items():
        with np.errstate(all="ignore"):
            expected = function(*inputs).astype(dtype)
        actual = run_elementwise(int_kernel, arch, inputs, dtype, OP=op, block=1024)
        assert (actual == expected).all(), op


@pytest.mark.parametrize("arch", ARCHS)
def test_umulhi(arch):
    x, y, z = integers(np.uint32)
    actual = run_elementwise(int_kernel, arch, (x, y, z), np.uint32, OP="umulhi")
    assert (actual == ((x.astype(np.uint64) * y) >> np.uint64(32)).astype(np.uint32)).all()


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("divisor", [1, 3, 7, 64, 1000, 2**31 - 1])
def test_runtime_division_of_indices(arch, divisor):
    kernel = compile_sample(index_kernel, arch, {"o_ptr": "*i32", "n": "i32", "divisor": "i32"}, {"BLOCK": 512})
    out = np.zeros(4000, np.int32)
    launch(kernel, (8,), [out, out.size, divisor])
    i = np.arange(4000)
    pid = i // 512
    assert (out == i // divisor * 1000 + i % divisor + pid // divisor * 7 + pid % divisor).all()


# ---- 16-bit floats


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("op", ["add", "mul", "minimum", "maximum_nan", "where", "neg_abs"])
def test_float16_operations(arch, op):
    rng = np.random.default_rng(6)
    x, y = (rng.integers(0, 2**16, 8192, np.uint16).view(np.float16) for _ in range(2))
    with np.errstate(all="ignore"):
        expected = {
            "add": x + y,
            "mul": x * y,
            "minimum": np.where((x == y) & np.signbit(x), x, np.fmin(x, y)),
            "maximum_nan": np.where((x == y) & ~np.signbit(x), x, np.maximum(x, y)),
            "where": np.where(x < y, x, y),
            "neg_abs": -np.abs(x),
        }[op]
    assert_same(run_elementwise(half_kernel, arch, (x, y), np.float16, OP=op), expected, x, y)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("op", ["add", "mul", "minimum", "where", "neg_abs"])
def test_bfloat16_operations(arch, op):
    if arch in ("gfx1100", "gfx1201") and op in ("add", "mul"):
        pytest.skip("v_dot2_bf16_bf16: its intermediate roundings are not documented, so it is not modelled")
    rng = np.random.default_rng(7)
    x, y = (rng.integers(0, 2**16, 8192, np.uint16).view(ml_dtypes.bfloat16) for _ in range(2))
    with np.errstate(all="ignore"):
        wide_x, wide_y = x.astype(f32), y.astype(f32)
        expected = {
            "add": wide_x + wide_y,
            "mul": wide_x * wide_y,
            "minimum": low(wide_x, wide_y),
            "where": np.where(wide_x < wide_y, wide_x, wide_y),
            "neg_abs": -np.abs(wide_x),
        }[op].astype(ml_dtypes.bfloat16)
    assert_same(run_elementwise(half_kernel, arch, (x, y), ml_dtypes.bfloat16, OP=op), expected, x, y)


def test_fma_helper_against_rationals():
    """The helper alone, in bulk: near ties, where rounding twice goes wrong."""
    x, y, z = near_ties(6000)
    assert_same(fp.fma32(x, y, z), exact_fma(x, y, z), x, y, z)
    twice = (x.astype(f64) * y + z).astype(f32)
    assert (twice != exact_fma(x, y, z)).any(), "these inputs must tell one rounding from two"
