"""Matrix instructions: where their elements live, by the compiler's own code; how they add, by MMA-Sim."""

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from amdgcn import AmdgcnError, launch, matrix_sums
from amdgcn.compiling import TRITON_TYPE, compile_sample
from amdgcn.handwritten import run_lines
from amdgcn.matrix_samples import dot_kernel, dot_scaled_kernel
from mmasim.amd.sim import MFMA

VECTORS = Path(__file__).parent / "amdgcn" / "vectors"
K = 256
BF16, F16 = np.dtype(ml_dtypes.bfloat16), np.dtype(np.float16)
OCP, FNUZ = np.dtype(ml_dtypes.float8_e4m3fn), np.dtype(ml_dtypes.float8_e4m3fnuz)


def compiled(arch, fn, dtype, size, **options):
    signature = {name: "*fp32" if name == "o_ptr" else "*u8" for name in fn.arg_names if name.endswith("_ptr")}
    signature |= dict.fromkeys(("a_ptr", "b_ptr"), "*" + TRITON_TYPE[dtype])
    constexprs = {"M": size, "N": size, "K": K, "K_INNER": options.pop("k_inner", True)}
    return compile_sample(fn, arch, signature, constexprs, **options)


def integers(rng, rows, dtype):
    return rng.integers(-8, 9, (rows, K)).astype(dtype)


def stored(b, k_inner):
    return b if k_inner else np.ascontiguousarray(b.T)


def mnemonics(kernel):
    return {instruction.name for instruction in kernel.instructions}


# ---- layouts: products of small integers are exact, so that only the place of an element can be wrong

DOTS = [
    # (arch, dtype, matrix_instr_nonkdim, instruction)
    ("gfx942", BF16, 32, "v_mfma_f32_32x32x8_bf16"),
    ("gfx942", BF16, 16, "v_mfma_f32_16x16x16_bf16"),
    ("gfx942", F16, 32, "v_mfma_f32_32x32x8_f16"),
    ("gfx942", F16, 16, "v_mfma_f32_16x16x16_f16"),
    ("gfx942", FNUZ, 32, "v_mfma_f32_32x32x16_fp8_fp8"),
    ("gfx942", FNUZ, 16, "v_mfma_f32_16x16x32_fp8_fp8"),
    ("gfx950", BF16, 32, "v_mfma_f32_32x32x16_bf16"),
    ("gfx950", BF16, 16, "v_mfma_f32_16x16x32_bf16"),
    ("gfx950", F16, 32, "v_mfma_f32_32x32x16_f16"),
    ("gfx950", F16, 16, "v_mfma_f32_16x16x32_f16"),
    ("gfx950", OCP, 32, "v_mfma_f32_32x32x64_f8f6f4"),
    ("gfx950", OCP, 16, "v_mfma_f32_16x16x128_f8f6f4"),
]
SCALED_DOTS = [
    ("gfx942", 32, "v_mfma_f32_32x32x8_bf16"),
    ("gfx942", 16, "v_mfma_f32_16x16x16_bf16"),
    ("gfx950", 32, "v_mfma_scale_f32_32x32x64_f8f6f4"),
    ("gfx950", 16, "v_mfma_scale_f32_16x16x128_f8f6f4"),
]
# The larger tile takes every byte of a scale register and accumulation registers besides.
TILES = [(32, True), (128, False)]


@pytest.mark.parametrize(("size", "k_inner"), TILES)
@pytest.mark.parametrize(("arch", "dtype", "dim", "instruction"), DOTS)
def test_dot(arch, dtype, dim, instruction, size, k_inner):
    kernel = compiled(arch, dot_kernel, dtype, size, k_inner=k_inner, matrix_instr_nonkdim=dim)
    assert instruction in mnemonics(kernel)
    rng = np.random.default_rng(dim)
    a, b = integers(rng, size, dtype), integers(rng, size, dtype)
    out = np.full((size, size), np.nan, np.float32)
    launch(kernel, (1,), [a, stored(b, k_inner), out])
    np.testing.assert_array_equal(out, a.astype(np.float64) @ b.astype(np.float64).T)


@pytest.mark.parametrize(("size", "k_inner"), TILES)
@pytest.mark.parametrize(("arch", "dim", "instruction"), SCALED_DOTS)
def test_dot_scaled(arch, dim, instruction, size, k_inner):
    kernel = compiled(arch, dot_scaled_kernel, OCP, size, k_inner=k_inner, matrix_instr_nonkdim=dim)
    assert instruction in mnemonics(kernel)
    rng = np.random.default_rng(dim)
    a, b = integers(rng, size, OCP), integers(rng, size, OCP)
    scales = [rng.integers(125, 130, (size, K // 32), np.uint8) for _ in range(2)]
    wide = [
        x.astype(np.float64) * np.repeat(np.ldexp(1.0, s.astype(int) - 127), 32, axis=1)
        for x, s in zip((a, b), scales, strict=True)
    ]
    out = np.full((size, size), np.nan, np.float32)
    launch(kernel, (1,), [a, scales[0], stored(b, k_inner), scales[1], out])
    np.testing.assert_array_equal(out, wide[0] @ wide[1].T)


def test_dot_loads_past_the_registers():
    """A pipelined loop on gfx950 loads into LDS by either kind of address, and reads a transposed B in columns."""
    kernel = compiled("gfx950", dot_kernel, BF16, 32, k_inner=False)
    to_lds = {i.name for i in kernel.instructions if "lds" in i.name or "lds" in i.modifiers}
    assert to_lds == {"global_load_lds_dwordx4", "buffer_load_dwordx4"}
    assert "ds_read_b64_tr_b16" in mnemonics(kernel)
    rng = np.random.default_rng(3)
    a, b = integers(rng, 32, BF16), integers(rng, 32, BF16)
    out = np.full((32, 32), np.nan, np.float32)
    launch(kernel, (1,), [a, stored(b, False), out])
    np.testing.assert_array_equal(out, a.astype(np.float64) @ b.astype(np.float64).T)


# ---- exact sums


def as_sums(a, b, c):
    """Dot products [row, k] and [row] as one column of results."""
    return a[:, None, :].astype(np.float64), b[:, None, :].astype(np.float64), c[:, None, None].astype(np.float32)


@pytest.mark.parametrize(
    ("terms", "accumulator", "exact"),
    [
        ([2.0**24, -1.0], 0.0, True),
        ([2.0**24, 1.0], 0.0, False),
        ([2.0**24, 1.0, -1.0], 0.0, False),  # exact in one order, rounded in another
        ([2.0**24 - 1], 1.0, True),
        ([2.0**24 - 1], 2.0, False),
        ([1.0], 2.0**-23, True),
        ([1.0], 2.0**-24, False),
        ([2.0**127, 2.0**127], 0.0, False),  # above the largest number
        ([2.0**-126], 0.0, True),
        ([2.0**-127], 0.0, False),  # a subnormal number may be flushed
        ([3.0, np.inf], 1.0, True),
        ([2.0**24, 1.0, np.inf], 0.0, False),  # the finite terms are looked at all the same
        ([-0.0], 0.0, True),
        ([-0.0], -0.0, False),  # a sum of negative zeros may lose its sign
    ],
)
def test_exact_sums_are_those_of_any_order(terms, accumulator, exact):
    operands = as_sums(np.array([terms]), np.ones((1, len(terms))), np.array([accumulator]))
    if exact:
        assert matrix_sums.exact(*operands)[0, 0, 0] == sum(terms, accumulator)
    else:
        with pytest.raises(AmdgcnError, match="not representable"):
            matrix_sums.exact(*operands)


def test_a_kernel_that_rounds_raises_by_default():
    kernel = compiled("gfx942", dot_kernel, BF16, 32)
    a = np.random.default_rng(4).standard_normal((32, K)).astype(BF16)
    with pytest.raises(AmdgcnError, match=r"v_mfma.*not representable"):
        launch(kernel, (1,), [a, a, np.zeros((32, 32), np.float32)])


# ---- CDNA3's rounding: numbers of MMA-Sim, and MMA-Sim itself


def to_float(codes, dtype):
    return np.asarray(codes).astype(np.dtype(f"u{dtype.itemsize}"), casting="unsafe").view(dtype)


CDNA3 = {
    BF16: (matrix_sums.Cdna3(8, -126), "f32_32x32x8_bf16", torch.bfloat16),
    F16: (matrix_sums.Cdna3(8, -14), "f32_16x16x16_f16", torch.float16),
    FNUZ: (matrix_sums.Cdna3(16, -7, interleaved=True), "f32_16x16x32_fp8_fp8", torch.float8_e4m3fnuz),
}


def assert_same(actual, expected, *operands):
    same = (actual.view(np.uint32) == expected.view(np.uint32)) | (np.isnan(actual) & np.isnan(expected))
    wrong = np.flatnonzero(~same)
    assert not wrong.size, f"{wrong.size} of {same.size}, first: {[x[wrong[0]].tolist() for x in operands]}"


@pytest.mark.parametrize(("key", "dtype"), [("cdna3_bf16_k16", BF16), ("cdna3_fp8fnuz_k32", FNUZ)])
def test_cdna3_vectors(key, dtype):
    data = json.loads((VECTORS / "mfma_cdna3_mmasim.json").read_text())[key]
    a, b = to_float(data["a"], dtype), to_float(data["b"], dtype)
    c, d = to_float(data["c"], np.dtype(np.float32)), to_float(data["d"], np.dtype(np.float32))
    assert len(d) == 400
    assert_same(CDNA3[dtype][0](*as_sums(a, b, c))[:, 0, 0], d, a, b, c)


def operands(dtype, k, count, seed):
    """Dot products of any codes, of ordinary numbers, and with an accumulator near or far from the products."""
    rng = np.random.default_rng(seed)
    bits = np.dtype(f"u{dtype.itemsize}")
    codes = [rng.integers(0, 256**dtype.itemsize, (count, k)).astype(bits).view(dtype) for _ in range(2)]
    plain = [np.ldexp(rng.standard_normal((count, k)), rng.integers(-6, 7, (count, 1))).astype(dtype) for _ in range(2)]
    a, b = (np.concatenate(pair) for pair in zip(codes, plain, strict=True))
    near = np.ldexp(rng.standard_normal(count), rng.integers(-30, 40, count)).astype(np.float32)
    any_c = rng.integers(0, 2**32, count, np.uint32).view(np.float32)
    c = np.concatenate([any_c, near])
    # just above half way between two results, by the last bit of the products that still counts beside c
    a[0, :4], b[0, :4], a[0, 4:], c[0] = [-0.09375, 0, 2.0**-6, 0], [1, 0, 2.0**-6, 0], 0, 2.0**20
    b[0, 4:] = 0
    return a, b, c


@pytest.mark.parametrize("dtype", list(CDNA3), ids=str)
def test_cdna3_is_mmasim(dtype):
    ours, suffix, torch_type = CDNA3[dtype]
    a, b, c = operands(dtype, 32, 20_000, 5)
    theirs = MFMA("CDNA3", suffix).dpa(
        *(torch.from_numpy(x.view(np.dtype(f"i{dtype.itemsize}"))).view(torch_type) for x in (a, b)),
        torch.from_numpy(c.copy()),
    )
    with np.errstate(all="ignore"):
        assert_same(ours(*as_sums(a, b, c))[:, 0, 0], theirs.numpy(), a, b, c)


@pytest.mark.parametrize(
    ("dtype", "instruction"), [(BF16, "16x16x16_bf16"), (F16, "16x16x16_f16"), (FNUZ, "16x16x32_fp8_fp8")]
)
def test_an_instruction_rounds_as_its_format_does(dtype, instruction):
    """The same two registers of A and of B in every lane: the four groups of lanes repeat their products."""
    a, b, c = (x[-30:] for x in operands(dtype, 8 // dtype.itemsize, 30, 6))
    expected = CDNA3[dtype][0](*as_sums(np.tile(a, 4), np.tile(b, 4), c))[:, 0, 0]
    for row in range(len(c)):
        words = [c[row], *[c[row]] * 3, *a[row].view(np.float32), *b[row].view(np.float32)]
        setup = "".join(f"v_mov_b32_e32 v{4 + i}, {w.view(np.uint32):#x}\n" for i, w in enumerate(words))
        line = f"v_mfma_f32_{instruction} v[4:7], v[8:9], v[10:11], v[4:7]\nv_mov_b32_e32 v1, v7"
        found = run_lines("gfx942", setup + line, exact_sums=False)
        assert_same(found.view(np.float32), np.full(64, expected[row]), np.arange(64))


# ---- CDNA4's rounding is not known


def test_unknown_rounding_is_jitter():
    kernel = compiled("gfx950", dot_kernel, BF16, 32)
    rng = np.random.default_rng(7)
    a, b = (rng.standard_normal((32, K)).astype(BF16) for _ in range(2))

    def run(a, b, seed):
        out = np.zeros((32, 32), np.float32)
        launch(kernel, (1,), [a, b, out], exact_sums=False, ulp_jitter=np.random.default_rng(seed))
        return out

    exact = a.astype(np.float64) @ b.astype(np.float64).T
    first, second = run(a, b, 1), run(a, b, 2)
    assert (first != second).mean() > 0.5
    magnitude = np.abs(a.astype(np.float64)) @ np.abs(b.astype(np.float64)).T
    assert (np.abs(first - exact) <= magnitude * K * 2.0**-24).all()
    whole = integers(rng, 32, BF16)
    np.testing.assert_array_equal(run(whole, whole, 1), whole.astype(np.float64) @ whole.astype(np.float64).T)


def test_unknown_rounding_needs_a_generator():
    kernel = compiled("gfx950", dot_kernel, BF16, 32)
    a = np.ones((32, K), BF16)
    with pytest.raises(AmdgcnError, match="not known"):
        launch(kernel, (1,), [a, a, np.zeros((32, 32), np.float32)], exact_sums=False)
