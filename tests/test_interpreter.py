"""The adapter of Triton's interpreter: each correction against an oracle, the ops against their specification."""

from __future__ import annotations

import ctypes
import ctypes.util
import math
from collections.abc import Callable, Iterator
from typing import Any

import interpreter
import ml_dtypes
import numpy as np
import pytest
import triton
import triton.language as tl
from numpy.typing import ArrayLike, DTypeLike

from m3ops.numerics.tile import fp32
from m3ops.plan import Launch, Plan
from m3ops.target import Target
from m3ops.tiles import rows
from m3ops.tiles.rows import Rows, Tile

BF16, E4M3FN, E4M3FNUZ = (np.dtype(name) for name in ("bfloat16", "float8_e4m3fn", "float8_e4m3fnuz"))
F16, F32, I32, U8 = (np.dtype(name) for name in ("float16", "float32", "int32", "uint8"))
TRITON = {F32: tl.float32, F16: tl.float16, BF16: tl.bfloat16, E4M3FN: tl.float8e4nv, E4M3FNUZ: tl.float8e4b8}

H100 = Target("nvidia", "sm_90", 132)
MI355X = Target("amd", "gfx950", 256)
TARGETS = (
    H100,
    MI355X,
    Target("amd", "gfx942", 304),
    Target("amd", "gfx1100", 96),
)  # all three ways of casting to E4M3
LIBM = ctypes.CDLL(ctypes.util.find_library("m"))
LIBM.fmaf.restype, LIBM.fmaf.argtypes = ctypes.c_float, [ctypes.c_float] * 3


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """NumPy warns of casts of signalling NaN, divisions by zero and the like, of which the oracles are full."""
    with np.errstate(all="ignore"):
        yield


def run(kernel: Any, *arrays: np.ndarray, out: DTypeLike, grid: int = 1, **constants: Any) -> Any:
    """Runs a test kernel, which gets ``N``; pointers past those of the inputs are outputs, shaped like the first input.

    Returns:
        The output, or a list of several.
    """
    names = [name for name in kernel.arg_names if name.endswith("_ptr")]
    operands = dict(zip(names, arrays, strict=False))
    results = {name: np.zeros(arrays[0].shape, out) for name in names[len(arrays) :]}
    numbers = {"num_rows": arrays[0].shape[0]} if "num_rows" in kernel.arg_names else {}
    arguments = {**{name: name for name in names}, **numbers}
    constants = {"N": arrays[0].size // grid, **constants}
    one = Launch(kernel, (grid,), arguments, constants, tuple(results), num_warps=1)
    interpreter.run(Plan((one,), bytes_moved=0), operands, results)
    made = list(results.values())
    return made[0] if len(made) == 1 else made


def random_floats(seed: int, size: int) -> np.ndarray:
    """Numbers whose bits are random: all magnitudes, subnormals, infinities and NaN."""
    return np.random.default_rng(seed).integers(0, 2**32, size, dtype=np.uint32).view(F32)


def assert_same(got: np.ndarray, want: ArrayLike) -> None:
    """The same bits, but any NaN for a NaN: the sign and payload of NaN differ between vendors."""
    want = np.asarray(want, got.dtype)
    bits = f"u{got.itemsize}"
    same = got.view(bits) == want.view(bits)
    if got.dtype.kind != "u":
        same |= np.isnan(got) & np.isnan(want)
    assert same.all(), f"{(~same).sum()} wrong, the first {got[~same][0]!r} instead of {want[~same][0]!r}"


# Casts


@triton.jit
def _cast_kernel(x_ptr, out_ptr, N: tl.constexpr, FROM: tl.constexpr, TO: tl.constexpr):
    offsets = tl.arange(0, N)
    x = tl.load(x_ptr + offsets)
    if x.dtype == tl.uint8:
        x = x.to(FROM, bitcast=True)
    x = x.to(TO)
    if out_ptr.dtype.element_ty == tl.uint8:
        x = x.to(tl.uint8, bitcast=True)
    tl.store(out_ptr + offsets, x)


def cast(x: np.ndarray, to: np.dtype) -> np.ndarray:
    size = triton.next_power_of_2(x.size)
    padded = np.resize(x, size)
    return run(_cast_kernel, padded, out=to, FROM=TRITON[x.dtype], TO=TRITON[to])[: x.size]


def all_codes(dtype: np.dtype) -> np.ndarray:
    bits = 8 * dtype.itemsize
    return np.arange(2**bits).astype(f"u{dtype.itemsize}").view(dtype)


def magnitudes(dtype: np.dtype) -> np.ndarray:
    """The numbers of a format from 0 up, by code. At infinity's code is what would be the next number."""
    codes = all_codes(dtype)[: 2 ** (8 * dtype.itemsize - 1)].astype(np.float64)
    finite = codes[np.isfinite(codes)]
    infinity = [2 * finite[-1] - finite[-2]] if np.isinf(codes).any() else []
    return np.append(finite, infinity)


def nearest(x: np.ndarray, to: np.dtype) -> np.ndarray:
    """``x`` in a format by searching all its numbers: the nearest, of two the one with the even code; saturating."""
    numbers, x = magnitudes(to), x.astype(np.float64)
    below = np.clip(np.searchsorted(numbers, np.abs(x), side="right") - 1, 0, numbers.size - 2)
    down, up = np.abs(x) - numbers[below], numbers[below + 1] - np.abs(x)
    code = below + ((up < down) | ((up == down) & (below % 2 == 1)))
    negative = np.signbit(x) & ((code != 0) | (to != E4M3FNUZ))
    code = (code + (negative << (8 * to.itemsize - 1))).astype(f"u{to.itemsize}").view(to)
    return np.where(np.isnan(x), np.array(np.nan, to), code)


@pytest.mark.parametrize("to", [BF16, F16, E4M3FN, E4M3FNUZ], ids=str)
def test_cast_from_fp32_rounds_to_nearest_even(to: np.dtype) -> None:
    numbers = magnitudes(to)
    ties = ((numbers[1:] + numbers[:-1]) / 2).astype(F32)
    x = np.concatenate([numbers[numbers <= np.finfo(F32).max].astype(F32), ties, random_floats(0, 1000)])
    x = np.concatenate(
        [x, np.nextafter(x, F32.type(0)), np.nextafter(x, F32.type(np.inf)), [np.inf, np.nan]], dtype=F32
    )
    x = np.concatenate([x, -x])
    assert_same(cast(x, to), nearest(x, to))


def test_cast_of_any_nan_is_one_e4m3_byte() -> None:
    x = np.array([0x7FC00000, 0xFFC00000, 0x7F800001, 0xFFFFFFFF], np.uint32).view(F32)
    assert (cast(x, E4M3FN).view(np.uint8) == 0x7F).all()


@pytest.mark.parametrize(
    ("source", "to"),
    [(source, to) for source in (BF16, F16) for to in TRITON]
    + [(source, to) for source in (E4M3FN, E4M3FNUZ) for to in (F32, BF16, F16)],
    ids=str,
)
def test_cast_of_every_code(source: np.dtype, to: np.dtype) -> None:
    x = all_codes(source)
    want = x.astype(F32) if to == F32 else nearest(x.astype(F32), to)
    assert_same(cast(x, to), want)


def test_e4m3_agrees_with_ml_dtypes_where_that_does_not_overflow() -> None:
    x = all_codes(BF16)
    for to in (E4M3FN, E4M3FNUZ):
        inside = ~(np.abs(x.astype(F32)) > float(ml_dtypes.finfo(to).max))
        assert_same(cast(x, to)[inside], x.astype(to)[inside])


@triton.jit
def _int_to_float_kernel(x_ptr, out_ptr, N: tl.constexpr):
    offsets = tl.arange(0, N)
    tl.store(out_ptr + offsets, tl.load(x_ptr + offsets).to(out_ptr.dtype.element_ty))


def test_integers_become_floats_with_one_rounding() -> None:
    x = np.array([0, 1, -1, 257, 259, 2**24 - 1, 1 - 2**24, 65504], I32)
    assert_same(run(_int_to_float_kernel, x, out=F32), x.astype(F32))
    assert_same(run(_int_to_float_kernel, x, out=BF16), nearest(x, BF16))
    assert_same(run(_int_to_float_kernel, np.array([2**24 + 1, 2**31 - 1], I32), out=F32), [2.0**24, 2.0**31])
    with pytest.raises(NotImplementedError, match="round twice"):
        run(_int_to_float_kernel, np.array([2**24 + 1, 0], I32), out=BF16)


# Arithmetic


@triton.jit
def _fma_kernel(a_ptr, b_ptr, c_ptr, out_ptr, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(out_ptr + i, tl.fma(tl.load(a_ptr + i), tl.load(b_ptr + i), tl.load(c_ptr + i)))


def fma_near_ties(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sums that miss the midpoint of two fp32 numbers by 2**-46 to 2**-26 of half a unit: float64's last bits."""
    rng = np.random.default_rng(1)
    c = rng.integers(1, 0x7F00_0000, size, dtype=np.uint32).view(F32) * rng.choice([-1, 1], size).astype(F32)
    c[: size // 4] = rng.integers(1, 2**23, size // 4, dtype=np.uint32).view(F32)  # subnormal
    exponent = np.frexp(np.spacing(np.abs(c)).astype(np.float64) / 2)[1] - 1  # half a unit is 2**exponent
    sign = rng.choice([-1.0, 1.0], size)
    miss = rng.integers(1, 2**10, size) * 2.0**-23
    half = exponent // 2
    a, b = np.ldexp(sign * (1 + miss), half).astype(F32), np.ldexp(1 - miss, exponent - half).astype(F32)
    return a, b, c


@pytest.mark.parametrize("case", ["random", "near ties", "scaled"])
def test_fma_rounds_once(case: str) -> None:
    size = 2**15
    if case == "near ties":
        a, b, c = fma_near_ties(size)
    else:
        a, b, c = (random_floats(seed, size) for seed in (1, 2, 3))
    if case == "scaled":  # addends that cancel the product, all or most of it
        a, b = np.frexp(a)[0], np.frexp(b)[0]
        c = -(a * b)
    assert_same(run(_fma_kernel, a, b, c, out=F32), [LIBM.fmaf(*abc) for abc in zip(a, b, c, strict=True)])


@triton.jit
def _extrema_kernel(x_ptr, y_ptr, min_ptr, max_ptr, minnum_ptr, maxnum_ptr, N: tl.constexpr):
    i = tl.arange(0, N)
    x, y = tl.load(x_ptr + i), tl.load(y_ptr + i)
    tl.store(min_ptr + i, tl.minimum(x, y, propagate_nan=tl.PropagateNan.ALL))
    tl.store(max_ptr + i, tl.maximum(x, y, propagate_nan=tl.PropagateNan.ALL))
    tl.store(minnum_ptr + i, tl.minimum(x, y))
    tl.store(maxnum_ptr + i, tl.maximum(x, y))


def test_extrema_of_nan_and_signed_zeros() -> None:
    special = [math.nan, -math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0, -1.0]
    pairs = [(x, y) for x in special for y in special]
    x, y = np.array(pairs, F32).T.copy()
    got = run(_extrema_kernel, x, y, out=F32)

    def choose(pick: Callable[..., float], pair: tuple[float, float], propagate: bool) -> float:
        numbers = [v for v in pair if not math.isnan(v)]
        if not numbers or (propagate and len(numbers) < 2):
            return math.nan
        return pick(numbers, key=lambda v: (v, math.copysign(1.0, v)))

    for result, (pick, propagate) in zip(got, [(min, True), (max, True), (min, False), (max, False)], strict=True):
        assert_same(result, [choose(pick, pair, propagate) for pair in pairs])


@triton.jit
def _correctly_rounded_kernel(x_ptr, y_ptr, quotient_ptr, inverse_ptr, root_ptr, N: tl.constexpr):
    i = tl.arange(0, N)
    x, y = tl.load(x_ptr + i), tl.load(y_ptr + i)
    tl.store(quotient_ptr + i, tl.div_rn(x, y))
    tl.store(inverse_ptr + i, tl.div_rn(1.0, y))
    tl.store(root_ptr + i, tl.sqrt_rn(x))


def test_division_and_square_root_are_correctly_rounded() -> None:
    x, y = random_floats(4, 2**14), random_floats(5, 2**14)
    with np.errstate(all="raise"):  # the adapter's own: kernels divide by zero without a warning
        quotient, inverse, root = run(_correctly_rounded_kernel, x, y, out=F32)
    # float64 has more than twice the bits, so rounding twice is harmless.
    assert_same(quotient, x.astype(float) / y)
    assert_same(inverse, 1 / y.astype(float))
    assert_same(root, np.sqrt(x.astype(float)))


@triton.jit
def _wrap_kernel(x_ptr, y_ptr, sum_ptr, product_ptr, shifted_ptr, total_ptr, N: tl.constexpr):
    i = tl.arange(0, N)
    x, y = tl.load(x_ptr + i), tl.load(y_ptr + i)
    tl.store(sum_ptr + i, x + y)
    tl.store(product_ptr + i, x * y)
    tl.store(shifted_ptr + i, x << 23)
    tl.store(total_ptr + i, tl.sum(x, axis=0) + i * 0)


@pytest.mark.parametrize("dtype", ["int32", "uint32", "int64"])
def test_integers_wrap(dtype: str) -> None:
    x, y = np.random.default_rng(6).integers(0, 2**64, (2, 256), dtype=np.uint64).astype(dtype)
    got = run(_wrap_kernel, x, y, out=dtype)
    exact = x.astype(object), y.astype(object)
    for result, want in zip(
        got, [exact[0] + exact[1], exact[0] * exact[1], exact[0] * 2**23, [sum(exact[0])] * 256], strict=True
    ):
        modulus = 1 << (8 * x.itemsize)
        assert_same(result.view(f"u{x.itemsize}"), [value % modulus for value in want])


# Language


@triton.jit
def _split_kernel(x_ptr, even_ptr, odd_ptr, N: tl.constexpr):
    i = tl.arange(0, N)
    even, odd = tl.split(tl.reshape(tl.load(x_ptr + i), (2, N // 16, 4, 2)))
    halves = tl.reshape(tl.join(odd, even), (N,))
    tl.store(even_ptr + i, halves)
    tl.store(odd_ptr + i, tl.reshape(tl.join(even, odd), (N,)))


def test_split_and_reshape_of_four_axes() -> None:
    x = np.arange(64, dtype=F32)
    swapped, same = run(_split_kernel, x, out=F32)
    assert_same(swapped, x.reshape(-1, 2)[:, ::-1].ravel())
    assert_same(same, x)


_SEED = tl.constexpr(100)
_COEFFICIENTS = tl.constexpr((2, 3, 5))


@triton.constexpr_function
def _last_and_name(values: tuple[int, ...], name: str) -> tuple[int, str]:
    return values[-1], name + "!"


@triton.jit
def _constructs_kernel(
    x_ptr,
    num_rows,
    out_ptr,
    N: tl.constexpr,
    AT: tl.constexpr,
    TILE: tl.constexpr,
    STEPS: tl.constexpr,
    NAME: tl.constexpr,
    NONE: tl.constexpr,
):
    LAST: tl.constexpr = _last_and_name(STEPS, NAME)
    window = rows.window(tl.program_id(0), num_rows, N, TILE)
    x = rows.load(x_ptr, window, TILE, AT)
    total = x * 0
    for step in tl.static_range(len(STEPS) - 1, 0, -1):
        total = total * STEPS[step] + x
    if NONE is None and LAST[1] == "scale!":
        total += _SEED - x  # a constexpr before a tensor
    one = 1
    total += one.to(tl.float32) + (x > 0).to(tl.float32)
    rows.store(out_ptr, fp32.maximum(total, 0.0 - _COEFFICIENTS[2]) * LAST[0], window, TILE, AT)


def test_language_constructs() -> None:
    x = np.linspace(-50, 50, 32, dtype=F32).round()[None]
    at = {"AT": Rows(32, (), (32, 1)), "TILE": Tile(1, 32, masked=True)}
    got = run(_constructs_kernel, x, out=F32, **at, STEPS=(3, 7, 11), NAME="scale", NONE=None)
    assert_same(got, np.maximum(x * 7 + x + (100 - x) + 1 + (x > 0), -5) * 11)


@triton.jit
def _mode_kernel(x_ptr, out_ptr, N: tl.constexpr, MODE: tl.constexpr):
    i = tl.arange(0, N)
    x = tl.load(x_ptr + i)
    if MODE == "divide":
        y = x / 3.0
    elif MODE == "sqrt":
        y = tl.sqrt(x)
    elif MODE == "exp2":
        y = tl.exp2(x)
    elif MODE == "sum":
        y = x + tl.sum(x, axis=0)
    elif MODE == "bf16 sum":
        y = x.to(tl.bfloat16) + x.to(tl.bfloat16)
    elif MODE == "bf16 negation":
        y = -x.to(tl.bfloat16)
    elif MODE == "fp16 fma":
        y = tl.fma(x.to(tl.float16), x.to(tl.float16), x.to(tl.float16))
    elif MODE == "truncating cast":
        y = x.to(tl.bfloat16, fp_downcast_rounding="rtz").to(tl.float32)
    elif MODE == "fp64":
        y = x.to(tl.float64)
    else:
        y = x.to(tl.int32)
    tl.store(out_ptr + i, y.to(tl.float32))


MODES = (
    "divide",
    "sqrt",
    "exp2",
    "sum",
    "bf16 sum",
    "bf16 negation",
    "fp16 fma",
    "truncating cast",
    "fp64",
    "to int",
)


@pytest.mark.parametrize("mode", MODES)
def test_operations_that_are_not_exact_are_refused(mode: str) -> None:
    with pytest.raises(NotImplementedError):
        run(_mode_kernel, np.ones(16, F32), out=F32, MODE=mode)


@triton.jit
def _bf16_product_kernel(x_ptr, y_ptr, out_ptr, N: tl.constexpr):
    i = tl.arange(0, N)
    product = tl.load(x_ptr + i).to(tl.bfloat16) * tl.load(y_ptr + i).to(tl.bfloat16)
    tl.store(out_ptr + i, product.to(tl.float32))


def test_products_of_bf16_round_once() -> None:
    """Ties go to the even one; small products keep what is subnormal, and round to zero at a half of the smallest."""
    x = np.array([1 + 2.0**-7, 1 + 3 * 2.0**-7, 2.0**-127, 3 * 2.0**-133, 2.0**-133, 2.0**-133, -1.0, 2.0**127], F32)
    y = np.array([1 + 2.0**-1, 1 + 2.0**-1, 1.875, 0.5, 0.5, 0.75, 0.0, 2.0], F32)
    want = [1.5 + 2.0**-6, 1.5 + 2.0**-5, 1.875 * 2.0**-127, 2.0**-132, 0.0, 2.0**-133, -0.0, np.inf]
    assert_same(run(_bf16_product_kernel, x, y, out=F32), np.array(want, F32))
