"""The arithmetic of the specification agrees with code that others wrote: ml_dtypes, gfloat, the C library, float64.

Bytes are compared as bytes. Float bounds are derived beside their test, and a bound far above what is seen fails too.
MX blocks are in test_scale_rules.py.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from collections.abc import Sequence
from typing import Any

import gfloat
import numpy as np
import pytest
from gfloat import formats
from numpy.typing import NDArray
from specification import reference

from m3ops.numerics.exact import fp32, functions, namespaces
from m3ops.numerics.formats import FORMATS
from m3ops.rope import rope_cos_sin
from m3ops.testing.arrays import bit_patterns

Array = NDArray[Any]

FP8 = {"float8_e4m3fn": 448.0, "float8_e4m3fnuz": 240.0}
"""The two E4M3 formats and their largest numbers."""

U = 2.0**-24
"""Unit roundoff of fp32: the largest relative error of one rounding."""


def f32(*numbers: float) -> Array:
    return np.array(numbers, np.float32)


def report(problems: Sequence[str]) -> None:
    """Fails with every mismatch counted and the first ones spelled out."""
    assert not problems, f"{len(problems)} mismatches:\n" + "\n".join(problems[:20])


def same(got: Array, want: Array, *inputs: Array) -> None:
    """Fails where two arrays of codes differ, naming the inputs there."""
    assert (got.shape, got.dtype) == (want.shape, want.dtype)
    got, want, inputs = got.ravel(), want.ravel(), tuple(x.ravel() for x in inputs)
    bad = np.flatnonzero(got != want)
    report([f"[{i}] got {got[i]:#x}, want {want[i]:#x}, from {[x[i] for x in inputs]}" for i in bad])


def raw(x: Array) -> Array:
    """The bytes of an array as unsigned integers."""
    return x.view(f"uint{8 * x.dtype.itemsize}")


NAN_CODE = {
    "float32": 0x7FC00000,
    "bfloat16": 0x7FC0,
    "float16": 0x7E00,
    "float8_e4m3fn": 0x7F,
    "float8_e4m3fnuz": 0x80,
}


def canonical(x: Array) -> Array:
    """The codes of ``x`` with every NaN made the one that m3ops writes: no rule covers its sign and payload."""
    return np.where(np.isnan(x), raw(x).dtype.type(NAN_CODE[x.dtype.name]), raw(x))


def bits(rng: np.random.Generator, n: int) -> Array:
    """fp32 numbers with uniformly random bits: every exponent, subnormals, infinities and NaN."""
    return rng.integers(0, 2**32, n, dtype=np.uint32).view(np.float32)


# --- casts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", *FP8])
def test_load_of_every_code(dtype: str) -> None:
    size = np.dtype(dtype).itemsize
    codes = np.arange(256**size, dtype=f"uint{8 * size}").view(dtype)
    with np.errstate(invalid="ignore"):
        got, want = fp32.load(codes), codes.astype(np.float64)
    same(*(raw(np.where(np.isnan(x), np.nan, x)) for x in (got, want)), raw(codes))


def neighbourhood(x: Array) -> Array:
    """fp32 numbers, those one ulp beside them, and the negatives of all."""
    x = x.astype(np.float32)
    near = np.concatenate([x, np.nextafter(x, f32(0)), np.nextafter(x, f32(np.inf))])
    return np.concatenate([near, -near])


def boundaries(dtype: str) -> Array:
    """Every number of a dtype, every midpoint (one beyond the largest number too), and one ulp beside each."""
    size = np.dtype(dtype).itemsize
    numbers = np.arange(256**size // 2, dtype=f"uint{8 * size}").view(dtype)
    numbers = numbers[np.isfinite(numbers)].astype(np.float64)
    beyond = 2 * numbers[-1] - numbers[-2]
    midpoints = (numbers + np.append(numbers[1:], beyond)) / 2
    with np.errstate(over="ignore"):
        return neighbourhood(np.concatenate([numbers, midpoints, [beyond, 2 * beyond]]))


def cast_inputs(dtype: str) -> Array:
    rng = np.random.default_rng(1)
    special = np.array([0x7F800001, 0x7FC00000, 0x7FFFFFFF, 0x7F800000, 0x7F7FFFFF, 0], np.uint32).view(np.float32)
    subnormal = rng.integers(0, 2**23, 20_000, dtype=np.uint32).view(np.float32)
    around_one = np.ldexp(rng.standard_normal(100_000), rng.integers(-16, 16, 100_000)).astype(np.float32)
    near_zero = neighbourhood(np.ldexp(1.0, np.arange(-149, -126)))
    return np.concatenate(
        [boundaries(dtype), special, -special, subnormal, near_zero, around_one, bits(rng, 1_000_000)]
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", *FP8])
def test_encode_as_ml_dtypes(dtype: str) -> None:
    x = cast_inputs(dtype)
    # ml_dtypes turns what is too large for E4M3 into NaN; m3ops saturates, so its oracle is clipped first.
    largest = FP8.get(dtype, np.inf)
    with np.errstate(all="ignore"):
        got = fp32.encode(fp32.load(x), FORMATS[dtype])
        want = np.clip(x, -largest, largest).astype(dtype)
    same(got, canonical(want), x)


@pytest.mark.parametrize("dtype", FP8)
def test_encode_as_gfloat(dtype: str) -> None:
    # IEEE P3109's signed finite binary8 with four bits of precision is E4M3FNUZ: bias 8, largest 240, NaN 0x80.
    p3109 = formats.format_info_p3109(8, 4, domain=formats.Domain.Finite)
    info = formats.format_info_ocp_e4m3 if dtype == "float8_e4m3fn" else p3109
    with np.errstate(all="ignore"):
        x = cast_inputs(dtype).astype(np.float64)
        got = fp32.encode(x, FORMATS[dtype])
        want = gfloat.encode_ndarray(info, gfloat.round_ndarray(info, x, gfloat.RoundMode.TiesToEven, sat=True))
    same(got, np.where(np.isnan(x), NAN_CODE[dtype], want).astype(np.uint8), x)


@pytest.mark.parametrize("shape", [(), (5,), (3, 4), (4, 0)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_exceptions_are_computed_where_they_are(shape: tuple[int, ...], order: Any) -> None:
    """For every kind of array: arguments may be numbers and have fewer axes, and so may the condition."""
    x = np.array(np.arange(np.prod(shape)).reshape(shape) - 3.0, order=order)
    row = np.arange(5.0)[: shape[-1]] if shape else np.array(2.0)
    computed = 0

    def exception(x: Any, row: Any, number: Any) -> Any:
        nonlocal computed
        computed += x.size
        return x + row + number

    for condition in (x < 0, x > 1e9, row % 2 == 0):
        computed = 0
        got = namespaces.except_where(condition, x + 1, exception, x, row, 5.0)
        np.testing.assert_array_equal(got, np.where(condition, x + row + 5.0, x + 1))
        assert computed == np.count_nonzero(np.broadcast_to(condition, shape))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_numbers_that_are_looked_up(dtype: str) -> None:
    """Of many numbers the results are those of a few, which are computed, whatever was asked before."""
    x = bit_patterns((16, 2**13), dtype)[:, ::2]
    for alpha, limit in ((1.702, 7.0), (1.0, 7.0), (1.702, None), (1.702, 7.0)):
        with np.errstate(all="ignore"):
            many = fp32.of_each(functions.gate_factor, x, alpha, limit)
            few = np.stack([functions.gate_factor(fp32.load(row), alpha, limit) for row in x])
        same(*(raw(np.where(np.isnan(factors), np.nan, factors)) for factors in (many, few)), raw(x))


def test_few_numbers_are_not_looked_up() -> None:
    sizes = []
    for rows in (1, 2, 3):
        fp32.of_each(lambda numbers: sizes.append(numbers.size) or numbers, np.zeros((rows, 2**14), np.float16))
    assert sizes == [2**14, 2**16, 2**16]


# --- fused multiply-add ----------------------------------------------------------------------------------------------

N_FMA = 50_000


def normals(rng: np.random.Generator, low: int, high: int, n: int = N_FMA) -> Array:
    """fp32 numbers of random sign and significand with exponents in ``low .. high - 1``."""
    significand = rng.integers(2**23, 2**24, n) * rng.choice([-1, 1], n)
    return np.ldexp(significand.astype(np.float64), rng.integers(low, high, n) - 23).astype(np.float32)


def fma_cancelling(rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """The addend is the rounded product, or a few ulp off: what remains is the product's rounding error."""
    a, b = normals(rng, -40, 40), normals(rng, -40, 40)
    product = a * b
    return a, b, -(product.view(np.int32) + rng.integers(-2, 3, N_FMA, dtype=np.int32)).view(np.float32)


def fma_ties(rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """The product is half an ulp of the addend but for its bits 23 to 46: rounding twice goes wrong."""
    addend = normals(rng, -60, 60)
    half_ulp = np.ldexp(0.5, np.frexp(addend)[1] - 24) * rng.choice([1, 3], N_FMA)
    epsilon = 2.0**-23
    a = rng.choice(f32(1, 1 + epsilon, 1 - epsilon, 1 - epsilon / 2), N_FMA)
    b = rng.choice(f32(1, -1, 1 + epsilon, 1 - epsilon, 1 - epsilon / 2), N_FMA)
    return a, (b * half_ulp).astype(np.float32), addend


def fma_subnormal(rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Results on the grid of 2**-149, half of them with an addend there too."""
    a, b = normals(rng, -100, -50), normals(rng, -90, -50)
    addend = rng.integers(-(2**23), 2**23, N_FMA) * rng.choice([0, 1], N_FMA) * 2.0**-149
    return a, b, addend.astype(np.float32)


def fma_large(rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Products and sums around the largest number, on both sides of overflow."""
    return normals(rng, 60, 66), normals(rng, 60, 65), normals(rng, 120, 128)


def fma_special(_: np.random.Generator) -> tuple[Array, Array, Array]:
    numbers = f32(0, 2.0**-149, 2.0**-126, 1, 1.5, 3.4028234663852886e38, np.inf)
    a, b, addend = np.meshgrid(*[np.concatenate([numbers, -numbers, f32(np.nan)])] * 3)
    return a.ravel(), b.ravel(), addend.ravel()


def fma_any(rng: np.random.Generator) -> tuple[Array, Array, Array]:
    return bits(rng, N_FMA), bits(rng, N_FMA), bits(rng, N_FMA)


FMA_CASES = (fma_cancelling, fma_ties, fma_subnormal, fma_large, fma_special, fma_any)


@pytest.mark.parametrize("case", FMA_CASES, ids=lambda case: case.__name__)
def test_fma_as_c(case: Any) -> None:
    """About 250,000 cases against the C library's fmaf."""
    fmaf = ctypes.CDLL(ctypes.util.find_library("m")).fmaf
    fmaf.argtypes, fmaf.restype = [ctypes.c_float] * 3, ctypes.c_float
    with np.errstate(all="ignore"):
        operands = case(np.random.default_rng(2))
        got = fp32.fma(*(x.astype(np.float64) for x in operands)).astype(np.float32)
    want = np.array([fmaf(*row) for row in zip(*(x.tolist() for x in operands), strict=True)], np.float32)
    same(canonical(got), canonical(want), *operands)


# --- float64 ---------------------------------------------------------------------------------------------------------

SMALLEST_WORST = 0.35
"""A bound means something if some input comes this close to it."""


def within(got: Array, want: Array, relative: Array, absolute: Array | float, *inputs: Array) -> float:
    """Checks ``|got - want| <= relative * U * |want| + absolute``; returns the largest error over the relative part."""
    got, error = got.astype(np.float64), np.abs(got.astype(np.float64) - want)
    allowed = relative * U * np.abs(want)
    bad = np.flatnonzero(~(error <= allowed + absolute))
    report([f"got {got[i]!r}, want {want[i]!r}, from {[x[i] for x in inputs]}" for i in bad])
    normal = np.abs(want) > 2.0**-100
    return float((error[normal] / allowed[normal]).max())


def swiglu(gate: Array, up: Array, *, alpha: float = 1.702, limit: float | None = None) -> Array:
    gate_up = np.concatenate([gate, up], axis=-1)
    (out,) = reference("swiglu_oai", gate_up, alpha=alpha, limit=limit, out_dtype="float32")
    return np.asarray(out)


def gate_factor(gate: Array, alpha: float) -> Array:
    """``gate * sigmoid(alpha * gate)`` in float64, good to about |alpha * gate| * 2**-53."""
    gate = gate.astype(np.float64)
    with np.errstate(over="ignore"):
        return np.asarray(gate / (1 + np.exp(-alpha * gate)))


def gate_bound(gate: Array, alpha: float) -> Array:
    """Relative error of the gate factor in units of U, with z = alpha * gate and s = sigmoid(z).

    An error in 2**(n + f) = exp(-z) reaches s times 1 - s. It has three parts: slope = -alpha * log2(e) rounded to fp32
    is off by d * U, which exp(-z) feels |z| times; f, at most 1/2, is rounded to 2**-26, which costs
    2**-26 * ln(2) < 0.2 U; the polynomial with its roundings is within 1.6e-7 < 2.7 U. Then 1 + exp(-z) is rounded (1);
    the reciprocal is rounded (1) after a step that squares the 0.0506**3 of the cubic one (0.3); so is the product (1).
    """
    slope = -alpha / np.log(2.0)
    d = abs(float(np.float32(slope)) / slope - 1) / U
    z = alpha * gate.astype(np.float64)
    with np.errstate(over="ignore"):
        return np.asarray((2.9 + d * np.abs(z)) / (1 + np.exp(z)) + 3.3)


def tail(gate: Array, alpha: float) -> Array:
    """Absolute error: half the smallest subnormal; past the clamp of the exponent at 125, the whole factor."""
    clamped = -gate.astype(np.float64) * alpha / np.log(2.0) > 124.99
    return np.where(clamped, 125 / alpha * 2.0**-125, 2.0**-150)


def all_gates(dtype: str) -> Array:
    gate: Array = np.arange(65536, dtype=np.uint16).view(dtype)
    return gate[np.isfinite(gate)]


def fp32_gates() -> Array:
    rng = np.random.default_rng(5)
    # The worst of all fp32 gates for alpha = 1.702, found by trying each: in ulp beyond |z| / 4, and against the bound.
    worst = [float.fromhex("-0x1.650488p+0"), float.fromhex("0x1.d1b29p-4"), float.fromhex("-0x1.8244bep+5")]
    return np.concatenate([worst, rng.uniform(-52, 10, 400_000), rng.standard_normal(400_000)]).astype(np.float32)


@pytest.mark.parametrize("alpha", [1.702, 1.0])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_gate_factor_in_float64(dtype: str, alpha: float) -> None:
    """With up = 0 and beta = 1 the gate factor remains: exhaustive for the 16-bit dtypes."""
    gate = fp32_gates() if dtype == "float32" else all_gates(dtype)
    got = swiglu(gate, np.zeros_like(gate), alpha=alpha)
    worst = within(got, gate_factor(gate, alpha), gate_bound(gate, alpha), tail(gate, alpha), gate)
    assert worst >= SMALLEST_WORST


@pytest.mark.parametrize(("dtype", "base"), [("bfloat16", 2.5), ("float16", 2.6), ("float32", 3.4)])
def test_gate_factor_in_ulp(dtype: str, base: float) -> None:
    """The short form, for alpha = 1.702 and results above 2**-110: base + max(-z, 0) / 4 ulp, base to a tenth."""
    gate = fp32_gates() if dtype == "float32" else all_gates(dtype)
    want = gate_factor(gate, 1.702)
    gate, want = gate[np.abs(want) > 2.0**-110], want[np.abs(want) > 2.0**-110]
    ulp = np.ldexp(1.0, np.frexp(want)[1] - 24)
    got = swiglu(gate, np.zeros_like(gate)).astype(np.float64)
    beyond = np.abs(got - want) / ulp - np.maximum(-1.702 * gate.astype(np.float64), 0) / 4
    assert base - 0.1 < beyond.max() <= base, gate[beyond.argmax()]


@pytest.mark.parametrize("limit", [7.0, None])
def test_swiglu_in_float64(limit: float | None) -> None:
    """Two more roundings than the gate factor, of up + 1 and of the product: 2 U, also where up + 1 cancels."""
    rng = np.random.default_rng(6)
    gate = fp32_gates()
    up = (8 * rng.standard_normal(gate.size)).astype(np.float32)
    up[::7] = rng.integers(0, 2**32, up[::7].size) * 2.0**-36 - 1
    got = swiglu(gate, up, limit=limit)
    bound = np.inf if limit is None else limit
    g, u = np.minimum(gate, bound), np.clip(up, -bound, bound).astype(np.float64) + 1
    want, absolute = gate_factor(g, 1.702) * u, tail(g, 1.702) * np.abs(u) + 2.0**-149
    assert within(got, want, gate_bound(g, 1.702) + 2, absolute, gate, up) >= SMALLEST_WORST


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("name", ["swiglu_oai", "swiglu_oai_quantize"])
def test_interleaved_is_split_of_the_columns_sorted(name: str, dtype: str) -> None:
    """Random bits, as bytes. A formula for the order: column 2i + j of one layout is column i + I * j of the other."""
    size = 96
    random = np.random.default_rng(9).bytes(40 * 2 * size * np.dtype(dtype).itemsize)
    split = np.frombuffer(random, dtype).reshape(40, 2 * size)
    i, j = np.divmod(np.arange(2 * size), 2)
    want = reference(name, split, layout="split", limit=None)
    got = reference(name, split[:, i + size * j], layout="interleaved", limit=None)
    for a, b in zip(got, want, strict=True):
        same(raw(a), raw(b))


def test_swiglu_of_special_gates() -> None:
    # Where the exact result is 0, or no number, the exponent of the sigmoid stops at 125, and with it the gate.
    tiny = -125 * np.log(2) / 1.702 * 2.0**-125
    gate = f32(0.0, -0.0, 2.0**-149, np.inf, 3e38, -np.inf, -3e38, np.nan)
    want = f32(0.0, -0.0, 0.0, 7.0, 7.0, tiny, tiny, np.nan)
    got = swiglu(gate, np.zeros_like(gate), limit=7.0)
    # Four digits, the sign of zero, and NaN; the other digits are the bound's.
    report([f"{g}: got {a}, want {b}" for g, a, b in zip(gate, got, want, strict=True) if f"{a:.3e}" != f"{b:.3e}"])


def norm_bound(n: int) -> float:
    """Relative error of the norm of n elements in units of U; each rounding is one.

    A group of 8 squares: a square, its fma, two additions: 4. Each of the G groups is rounded to the grid 2**-33 of a
    power of two that is at most twice the largest group, so all lose at most G * 2**-34 of a sum of at least 1/2:
    G / 512. The coarse sum is rounded (1), the fine one, at most G * 2**-17, too (G / 2**16), and their fma (1).
    mean + eps: 1/n and eps are rounded side by side (1), and so is the fma (1). The square root halves all that, to
    4 + G / 1024 + G / 2**17, is rounded itself (1), so is its reciprocal (1). x * rstd, weight + 1, their product: 3.
    """
    groups = -(-n // 8)
    return 9 + groups / 1024 + groups / 2**17


def norm_rows(rng: np.random.Generator, n: int, rows: int) -> Array:
    """Random rows, rows with one large element, and two where all groups but one are half a grid step, or one step."""
    plain, spiked, tied = rng.standard_normal((3, rows, n)).astype(np.float32)
    spiked[:, 0] *= 1000
    tied[:] = 0
    tied[:, 0] = 1  # beside it the grid's step is 2**-32
    tied[:, 8::8] = tied[:, 9::8] = 2.0**-17  # half a step, a tie: every group is lost, as the bound allows
    tied[1, 10::8] = tied[1, 11::8] = 2.0**-17  # one step: no group may be lost
    return np.concatenate([plain, spiked, tied[:2]])


def norm_in_float64(x: Array, weight: Array, eps: float, offset: float = 1.0) -> Array:
    x = x.astype(np.float64)
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * (offset + weight.astype(np.float64))


NORM_SIZES = ((1, 8000), (8, 4000), (100, 1000), (128, 1000), (3072, 40), (6144, 40), (131072, 2))


@pytest.mark.parametrize("offset", [1.0, 0.0, -0.75])
@pytest.mark.parametrize(("n", "rows"), NORM_SIZES)
def test_norms_in_float64(n: int, rows: int, offset: float) -> None:
    rng = np.random.default_rng(7)
    x = norm_rows(rng, n, rows)
    weight = rng.uniform(-1, 1, x.shape).astype(np.float32)
    (got,) = reference("gemma_rmsnorm", x, weight, eps=1e-6, weight_offset=offset)
    want = norm_in_float64(x, weight, 1e-6, offset)
    bound = norm_bound(n) - (offset == 0)  # then nothing is added to the weight
    closest = within(got.ravel(), want.ravel(), bound * np.ones(x.size), 2.0**-149, x.ravel())
    assert closest >= (SMALLEST_WORST if n > 1 else 0.3)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_a_head_is_normed_as_a_row(dtype: str) -> None:
    """Random bits, NaN among them; v keeps its bytes, NaN payloads too."""
    rng = np.random.default_rng(10)
    qkv, *weights = (np.frombuffer(rng.bytes(n * np.dtype(dtype).itemsize), dtype) for n in (40 * 7 * 32, 32, 32))
    qkv = qkv.reshape(5, 8, 7 * 32)
    heads = {"num_heads_q": 3, "num_heads_k": 2, "num_heads_v": 2}
    (got,) = reference("gemma_rmsnorm_heads", qkv, *weights, eps=1e-6, **heads)
    for head in range(7):
        part = np.s_[..., 32 * head : 32 * (head + 1)]
        want = qkv[part]
        if head < 5:
            (want,) = reference("gemma_rmsnorm", want, weights[head >= 3], eps=1e-6)
        same(raw(np.ascontiguousarray(got[part])), raw(np.ascontiguousarray(want)))


@pytest.mark.parametrize("heads", [(64, 4, 4), (16, 1, 1), (4, 2, 0)])
@pytest.mark.parametrize(("dim", "rotary_dim"), [(128, 64), (128, 128), (80, 48), (64, 16)])
def test_rotated_heads_in_float64(heads: tuple[int, int, int], dim: int, rotary_dim: int) -> None:
    """As vLLM tests its kernel of norm and rotary embedding. With R the bound of the norm, in U: x cos and y sin have R
    of their magnitudes, the product that is rounded 1 more, and the sum 1.
    """
    rng = np.random.default_rng(11)
    q, k, v = heads
    qkv = rng.standard_normal((23, sum(heads) * dim)).astype(np.float32)
    weights = rng.uniform(-1, 1, (2, dim)).astype(np.float32)
    table, positions = rope_cos_sin(4096, rotary_dim), rng.integers(0, 4096, 23)
    counts = {"num_heads_q": q, "num_heads_k": k, "num_heads_v": v, "rotary_dim": rotary_dim}
    (got,) = reference("gemma_rmsnorm_rope_heads", qkv, *weights, table, positions, **counts)
    got, x = got.reshape(23, -1, dim), qkv.reshape(23, -1, dim)
    same(raw(got[:, q + k :]), raw(x[:, q + k :]))
    norm = norm_in_float64(x[:, : q + k], np.repeat(weights, (q, k), axis=0), 1e-6)
    half = rotary_dim // 2
    first, second, rest = np.split(norm, [half, rotary_dim], axis=-1)
    cos, sin = np.split(table[positions].astype(np.float64)[:, None], 2, axis=-1)
    wanted = (first * cos - second * sin, second * cos + first * sin, rest)
    terms = (np.abs(first * cos), np.abs(second * sin)), (np.abs(second * cos), np.abs(first * sin))
    bounds = [norm_bound(dim) * (a + b) + b + np.abs(want) for (a, b), want in zip(terms, wanted, strict=False)]
    allowed = np.concatenate([*bounds, norm_bound(dim) * np.abs(rest)], axis=-1) * U
    error = np.abs(got[:, : q + k] - np.concatenate(wanted, axis=-1)) / allowed
    assert SMALLEST_WORST <= error.max() <= 1


def test_fused_add_norm_in_float64() -> None:
    """The sum is fp32's own addition; the norm takes it as it is."""
    rng = np.random.default_rng(8)
    x, residual, weight = (rng.standard_normal((40, 3072)).astype(np.float32) for _ in range(3))
    got, total = reference("gemma_fused_add_rmsnorm", x, residual, weight[0], eps=1e-6)
    same(raw(total), raw(x + residual), x, residual)
    want = norm_in_float64(total, weight[0], 1e-6)
    assert within(got.ravel(), want.ravel(), norm_bound(3072) * np.ones(x.size), 0.0, total.ravel()) >= SMALLEST_WORST
