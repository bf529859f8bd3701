"""The specification's functions agree with float64.

A bound has its derivation beside it, and one far above what is seen fails too. MX blocks are in test_scale_rules.py.
"""

from __future__ import annotations

import numpy as np
import pytest
from oracles import SMALLEST_WORST, Array, U, f32, gate_bound, norm_rows, raw, report, same, tail
from specification import reference

from m3ops.rope import rope_cos_sin


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


@pytest.mark.parametrize("heads", [(64, 4, 4), (16, 1, 1), (4, 2, 0), (64, 4, 4, 4, 1), (3, 2, 0, 1, 2)])
@pytest.mark.parametrize(("dim", "rotary_dim"), [(128, 64), (128, 128), (80, 48), (64, 16)])
def test_rotated_heads_in_float64(heads: tuple[int, ...], dim: int, rotary_dim: int) -> None:
    """As vLLM tests its kernel of norm and rotary embedding. With R the bound of the norm, in U: x cos and y sin have R
    of their magnitudes, the product that is rounded 1 more, and the sum 1.
    """
    rng = np.random.default_rng(11)
    names = ("q", "k", "v", "index_q", "index_k")[: len(heads)]
    qkv = rng.standard_normal((23, sum(heads) * dim)).astype(np.float32)
    weights = rng.uniform(-1, 1, (len(heads), dim)).astype(np.float32)  # that of v is not used
    table, positions = rope_cos_sin(4096, rotary_dim), rng.integers(0, 4096, 23)
    counts = {f"num_heads_{name}": number for name, number in zip(names, heads, strict=True)}
    given = (*weights[:2], table, positions, *weights[3:])
    (got,) = reference("gemma_rmsnorm_rope_heads", qkv, *given, rotary_dim=rotary_dim, **counts)
    got, x = got.reshape(23, -1, dim), qkv.reshape(23, -1, dim)
    kinds = np.repeat(np.arange(len(heads)), heads)
    same(raw(got[:, kinds == 2]), raw(x[:, kinds == 2]))
    got, x = got[:, kinds != 2], x[:, kinds != 2]
    norm = norm_in_float64(x, weights[kinds[kinds != 2]], 1e-6)
    half = rotary_dim // 2
    first, second, rest = np.split(norm, [half, rotary_dim], axis=-1)
    cos, sin = np.split(table[positions].astype(np.float64)[:, None], 2, axis=-1)
    wanted = (first * cos - second * sin, second * cos + first * sin, rest)
    terms = (np.abs(first * cos), np.abs(second * sin)), (np.abs(second * cos), np.abs(first * sin))
    bounds = [norm_bound(dim) * (a + b) + b + np.abs(want) for (a, b), want in zip(terms, wanted, strict=False)]
    allowed = np.concatenate([*bounds, norm_bound(dim) * np.abs(rest)], axis=-1) * U
    error = np.abs(got - np.concatenate(wanted, axis=-1)) / allowed
    assert SMALLEST_WORST <= error.max() <= 1


def test_fused_add_norm_in_float64() -> None:
    """The sum is fp32's own addition; the norm takes it as it is."""
    rng = np.random.default_rng(8)
    x, residual, weight = (rng.standard_normal((40, 3072)).astype(np.float32) for _ in range(3))
    got, total = reference("gemma_fused_add_rmsnorm", x, residual, weight[0], eps=1e-6)
    same(raw(total), raw(x + residual), x, residual)
    want = norm_in_float64(total, weight[0], 1e-6)
    assert within(got.ravel(), want.ravel(), norm_bound(3072) * np.ones(x.size), 0.0, total.ravel()) >= SMALLEST_WORST
