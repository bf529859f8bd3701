"""MX blocks against gfloat and torchao, and the scale rules of the field counted over every amax that tells them apart.

Where others mean something else by design, their bytes and ours stand here as literals, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import gfloat
import ml_dtypes
import numpy as np
import pytest
from gfloat.formats import format_info_mxfp8_e4m3
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from oracles import FP8, Array, canonical, f32, raw, same
from specification import reference

Rule = Callable[[Array], Array]

# --- MX blocks -------------------------------------------------------------------------------------------------------


def quantize(x: Array, rule: str, fp8: str = "e4m3fn") -> tuple[Array, Array]:
    """Codes ``[n, 32]`` and scale bytes ``[n]`` of blocks ``[n, 32]``."""
    values, scales = reference("mxfp8_quantize", x, scale_rule=rule, fp8_format=fp8)
    return raw(values), scales[:, 0]


def blocks(rng: np.random.Generator, n: int, low: int = -149, high: int = 128) -> Array:
    """fp32 blocks of all sizes, with a spread of up to 2**20 inside a block and some zeros."""
    spread = rng.integers(0, 20, (n, 32))
    x = np.ldexp(rng.uniform(-1, 1, (n, 32)), rng.integers(low, high, (n, 1)) - spread)
    return np.where(rng.random((n, 32)) < 0.05, np.copysign(0, x), x).astype(np.float32)


def block(*head: float) -> Array:
    """A block that begins with these numbers and goes on with zeros."""
    return np.append(f32(*head), np.zeros(32 - len(head), np.float32))


def ulp_above(x: float) -> float:
    return float(np.nextafter(np.float32(x), np.float32(np.inf)))


CORNERS = {
    "zeros of both signs": block(0.0, -0.0),
    "smallest subnormal": block(-(2.0**-149)),
    "largest subnormal": block(2.0**-126 - 2.0**-149, 2.0**-130),
    "smallest amax with a scale above 2**-127": block(2.0**-118, -(2.0**-126)),
    "largest amax with the scale 2**-127": block(2.0**-118 - 2.0**-142, 2.0**-127),
    "power of two": block(2.0**5, -1.0),
    "one ulp below a power of two": block(2.0**5 - 2.0**-19, 1.0),
    "448": block(448.0, 447.0, -449.0 / 2),
    "one ulp above 448": block(ulp_above(448.0), -1.0),
    "saturates under floor": block(511.0, -480.0, 464.0, 463.0),
    "largest bf16 number": block(255 * 2.0**120, -(2.0**100)),
}


def test_floor_as_gfloat() -> None:
    """Scales and values of blocks under OCP MX v1.0, and the numbers that they stand for."""
    mx = format_info_mxfp8_e4m3
    x = np.concatenate([np.stack(list(CORNERS.values())), blocks(np.random.default_rng(3), 500)])
    codes, scales = quantize(x, "floor")
    want, numbers = [], []
    for row in x.astype(np.float64):
        scale = gfloat.compute_scale_amax(mx.etype.emax, row)
        want.append(list(gfloat.encode_block(mx, scale, row / scale)))
        numbers.append(list(gfloat.decode_block(mx, want[-1])))
    same(np.column_stack([scales, codes]), np.array(want, np.uint8))
    values = codes.view(ml_dtypes.float8_e4m3fn)
    (back,) = reference("mxfp8_dequantize", values, scales[:, None], out_dtype="float32")
    same(raw(back), raw(np.array(numbers, np.float32)))


@pytest.mark.parametrize("dtype", FP8)
def test_dequantize_every_code_at_every_scale(dtype: str) -> None:
    """256 codes under 256 scales against ml_dtypes' E4M3 and E8M0, multiplied in float64."""
    codes = np.tile(np.arange(256, dtype=np.uint8), (256, 1))
    scales = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 8, axis=1)
    numbers = codes.view(dtype).astype(np.float64) * scales[:, :1].view(ml_dtypes.float8_e8m0fnu).astype(np.float64)
    for out in ("float32", "bfloat16", "float16"):
        (got,) = reference("mxfp8_dequantize", codes.view(dtype), scales, out_dtype=out)
        with np.errstate(over="ignore", invalid="ignore"):
            want = numbers.astype(np.float32).astype(out)
        same(canonical(got), canonical(want), codes, np.repeat(scales, 32, axis=1))


# --- torchao ---------------------------------------------------------------------------------------------------------


def to_mx(x: Array, rule: str) -> tuple[Array, Array]:
    """Codes ``[n, 32]`` and scale bytes ``[n]`` by torchao; eager, on the CPU."""
    pytest.importorskip("torchao", reason="torchao is not installed")
    import torch
    from torchao.prototype.mx_formats.config import ScaleCalculationMode
    from torchao.prototype.mx_formats.mx_tensor import to_mx as torchao_to_mx

    tensor = torch.from_numpy(x.view(np.int16)).view(torch.bfloat16) if x.dtype.itemsize == 2 else torch.from_numpy(x)
    scales, values = torchao_to_mx(tensor, torch.float8_e4m3fn, 32, ScaleCalculationMode[rule.upper()])
    return values.view(torch.uint8).numpy(), scales.view(torch.uint8).numpy().reshape(-1)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("rule", ["floor", "rceil"])
def test_quantize_as_torchao(rule: str, dtype: str) -> None:
    rng = np.random.default_rng(4)
    x = np.concatenate([np.stack(list(CORNERS.values())), blocks(rng, 50_000)]).astype(dtype)
    codes, scales = quantize(x, rule)
    their_codes, their_scales = to_mx(x, rule)
    same(scales, their_scales)
    # Under scale byte 0 torchao's values are off by design; see DIFFERENCES.
    comparable = (scales > 0) | (x == 0).all(axis=1)
    assert comparable.mean() > 0.85
    same(codes[comparable], their_codes[comparable], x[comparable].astype(np.float32))


@dataclass(frozen=True)
class Difference:
    """A block on which torchao (0.18, eager) and m3ops differ: scale byte and first codes of each, as hex."""

    name: str  # says why
    rule: str
    block: Array
    ours: str
    theirs: str


DIFFERENCES = (
    # Multiplies by 2**126 under byte 0, to avoid a subnormal divisor: the values stand for half of what they should.
    Difference("byte 0 scales by 2**-126", "floor", block(2.0**-119, -(2.0**-127)), "00 78 b8 00", "00 70 b0 00"),
    # Takes byte 0 for "all zero" and multiplies by 1: blocks of tiny numbers are lost.
    Difference("byte 0 means zero", "rceil", block(2.0**-119, -(2.0**-127)), "00 78 b8 00", "00 00 80 00"),
    # Keeps the exponent field of infinity and saturates: an overflow upstream looks like a finite number.
    Difference("infinity saturates", "floor", block(-np.inf, 3.0), "ff 7f 7f 7f", "f7 fe 00 00"),
    # NVIDIA's cvt.rp.satfinite gives byte 254 for infinity, which decodes to finite numbers.
    Difference("infinity is byte 254", "rceil", block(np.inf, 3.0), "ff 7f 7f 7f", "fe 7e 00 00"),
    # Divides by the infinity that the bits of byte 255 make: only the scale says NaN, the other values look like 0.
    Difference("NaN stays in its place", "floor", block(np.nan, 3.0), "ff 7f 7f 7f", "ff 7f 00 00"),
    # Rounds log2(amax / 448) = 40.0000002 to 40 before ceil: the scale is too small and 448 a clamped value.
    Difference("one ulp above 448 * 2**40", "rceil", block(ulp_above(448.0 * 2.0**40)), "a8 76 00 00", "a7 7e 00 00"),
)


@pytest.mark.parametrize("case", DIFFERENCES, ids=lambda case: f"{case.rule}: {case.name}")
def test_difference_from_torchao(case: Difference) -> None:
    found = []
    for codes, scales in (quantize(case.block[None], case.rule), to_mx(case.block[None], case.rule)):
        found.append(bytes([scales[0], *codes[0, :3]]).hex(" "))
    assert found == [case.ours, case.theirs]


# --- rules of the field ----------------------------------------------------------------------------------------------

# Each rule is written from its project's formula, in fp32; log2 is rounded correctly, the best that a library can do.

F448 = np.float32(448)
OVER_448 = np.float32(1 / 448)


def stored(amax: Array, rule: str) -> Array:
    """m3ops' scale bytes of blocks with these largest magnitudes."""
    x = np.zeros((amax.size, 32), amax.dtype)
    x[:, 7] = amax
    return quantize(x, rule)[1].astype(np.int64)


def log2(x: Array) -> Array:
    return np.asarray(np.log2(x.astype(np.float64)), np.float32)


def clip(exponent: Array) -> Array:
    return np.clip(exponent.astype(np.float64) + 127, 0, 254).astype(np.int64)


def field(x: Array) -> Array:
    """The exponent field of positive fp32 numbers."""
    return np.asarray(x.view(np.int32) >> 23)


def e8m0_up(x: Array) -> Array:
    """Rounds up to a power of two by its bits, as NVIDIA's cvt.rp.satfinite.ue8m0x2.f32 does."""
    mantissa = x.view(np.int32) & 0x7FFFFF
    up = np.where(field(x) > 0, mantissa > 0, mantissa > 0x400000)  # 2**-127 is half the smallest normal number
    return np.where(np.isnan(x), 255, np.minimum(field(x) + up, 254))


RULES: dict[str, Rule] = {
    "vLLM, first": lambda amax: clip(np.floor(log2(np.maximum(amax, np.float32(1e-30))))),
    "vLLM, second": lambda amax: clip(np.ceil(log2(np.maximum(amax, np.float32(1e-30)) / F448))),
    "vLLM, third": lambda amax: clip(np.ceil(log2(np.maximum(amax, np.float32(2.0**-126)) / F448))),
    "vLLM silu": lambda amax: clip(np.ceil(log2(amax * OVER_448))),
    "Transformer Engine": lambda amax: e8m0_up(amax * OVER_448),
    "triton_kernels UP": lambda amax: field(((amax / F448).view(np.int32) + 0x7FFFFF).view(np.float32)),
    "Quark EVEN": lambda amax: np.maximum(((amax.view(np.int32) + 0x80000) >> 23) - 8, 0),
    "OCP floor": lambda amax: np.maximum(field(amax) - 8, 0),
}


def bfloat16s() -> Array:
    """Every positive finite bf16 number: 32,639, of which 127 are subnormal."""
    return np.arange(1, 0x7F80, dtype=np.uint16).view(ml_dtypes.bfloat16)


def around_448(steps: int) -> Array:
    """The fp32 numbers so many ulp from 448 * 2**k, for the 247 scales 2**k that 448 * 2**k can need."""
    at = np.ldexp(448.0, np.arange(-127, 120)).astype(np.float32)
    return (at.view(np.int32) + steps).view(np.float32)


AMAX = {
    "all bf16": bfloat16s(),
    "bf16 in 1e-20 .. 1e20": bfloat16s()[(bfloat16s() >= 1e-20) & (bfloat16s() <= 1e20)],
    "one ulp below 448 * 2**k": around_448(-1),
    "448 * 2**k": around_448(0),
    "one ulp above 448 * 2**k": around_448(1),
}


class Relation(NamedTuple):
    """How often a rule's byte equals, exceeds and falls short of m3ops', and by how much at the extremes."""

    equal: int
    higher: int
    lower: int
    least: int
    most: int


def relation(theirs: Array, ours: Array) -> Relation:
    by = theirs - ours
    return Relation(*(int(n) for n in ((by == 0).sum(), (by > 0).sum(), (by < 0).sum(), by.min(), by.max())))


def counted(rule: str, ours: str) -> dict[str, Relation]:
    with np.errstate(all="ignore"):
        return {name: relation(RULES[rule](amax.astype(np.float32)), stored(amax, ours)) for name, amax in AMAX.items()}


def table(*rows: tuple[int, int, int, int, int]) -> dict[str, Relation]:
    return dict(zip(AMAX, (Relation(*row) for row in rows), strict=True))


EQUAL = table((32639, 0, 0, 0, 0), (17009, 0, 0, 0, 0), *[(247, 0, 0, 0, 0)] * 3)

# fp32 log2 rounds k + 1.7e-7 to k unless |k| is small: one ulp above 448 * 2**k the scale is too small by one.
LOG2_MISSES = EQUAL | {"one ulp above 448 * 2**k": Relation(8, 0, 239, -1, 0)}

AGAINST_RCEIL = {
    # No division by 448: values stay below 2, the top 8 binades of E4M3 empty. Amax counts as at least 1e-30.
    "vLLM, first": table(
        (0, 32639, 0, 7, 27), (0, 17009, 0, 7, 8), (0, 247, 0, 8, 27), (0, 247, 0, 8, 27), (0, 247, 0, 7, 26)
    ),
    # Differs for amax up to 448 * 2**-109, where 1e-30 takes over, and where log2 rounds.
    "vLLM, second": table(
        (29215, 3424, 0, 0, 19), (17009, 0, 0, 0, 0), (228, 19, 0, 0, 19), (228, 19, 0, 0, 19), (9, 18, 220, -1, 18)
    ),
    "vLLM, third": LOG2_MISSES,
    "vLLM silu": LOG2_MISSES,
    # Only 448 * 2**-127 and one ulp: the product is subnormal and rounds down to 2**-127.
    "Transformer Engine": EQUAL | {"one ulp above 448 * 2**k": Relation(246, 0, 1, -1, 0)},
    # Never uses byte 0 for what isn't zero: amax up to 448 * 2**-127 gets byte 1.
    "triton_kernels UP": table(
        (31519, 1120, 0, 0, 1), (17009, 0, 0, 0, 0), (246, 1, 0, 0, 1), (246, 1, 0, 0, 1), (247, 0, 0, 0, 0)
    ),
    # Rounds amax to four bits: between significands 1.75 and 1.9375 the scale is low, and the largest values saturate.
    "Quark EVEN": table(
        (26958, 0, 5681, -1, 0), (13950, 0, 3059, -1, 0), (247, 0, 0, 0, 0), (247, 0, 0, 0, 0), (0, 0, 247, -1, -1)
    ),
    # One lower for every amax with a significand above 1.75; the largest values saturate.
    "OCP floor": table(
        (24982, 0, 7657, -1, 0), (12886, 0, 4123, -1, 0), (247, 0, 0, 0, 0), (247, 0, 0, 0, 0), (0, 0, 247, -1, -1)
    ),
}


@pytest.mark.parametrize("rule", RULES)
def test_rules_against_rceil(rule: str) -> None:
    assert counted(rule, "rceil") == AGAINST_RCEIL[rule]


def test_floor_is_the_standard() -> None:
    assert counted("OCP floor", "floor") == EQUAL


SPECIAL = {
    # amax: 0, 448 * 2**-127 and one ulp, 448 * 2**-110, 448, one ulp above 448, one ulp above 448 * 2**40
    "rceil": (0, 0, 1, 17, 127, 128, 168),
    "floor": (0, 0, 0, 17, 127, 127, 167),
    "vLLM, first": (27, 27, 27, 27, 135, 135, 175),
    "vLLM, second": (19, 19, 19, 19, 127, 128, 167),
    "vLLM, third": (0, 0, 0, 17, 127, 128, 167),
    "Transformer Engine": (0, 0, 0, 17, 127, 128, 168),
    "triton_kernels UP": (0, 1, 1, 17, 127, 128, 168),
    "Quark EVEN": (0, 0, 0, 17, 127, 127, 167),
    "OCP floor": (0, 0, 0, 17, 127, 127, 167),
}


@pytest.mark.parametrize("rule", SPECIAL)
def test_special_amax(rule: str) -> None:
    exponents = np.array([-127, -127, -110, 0, 0, 40])
    amax = np.append(0, np.ldexp(448.0, exponents)).astype(np.float32)
    amax = (amax.view(np.int32) + np.array([0, 0, 1, 0, 0, 1, 1], np.int32)).view(np.float32)
    with np.errstate(all="ignore"):
        got = stored(amax, rule) if rule in ("rceil", "floor") else RULES[rule](amax)
    assert tuple(got.tolist()) == SPECIAL[rule]


@pytest.mark.parametrize(("amax", "theirs"), [(np.inf, 254), (np.nan, 255)])
def test_infinity_and_nan(amax: float, theirs: int) -> None:
    """m3ops gives byte 255 for both; NVIDIA's conversion keeps infinity finite."""
    x = f32(amax)
    assert RULES["Transformer Engine"](x * OVER_448).tolist() == [theirs]
    assert [stored(x, rule).tolist() for rule in ("rceil", "floor")] == [[255], [255]]


# --- the defining property -------------------------------------------------------------------------------------------

LARGEST = {"e4m3fn": 448.0, "e4m3fnuz": 240.0}


@st.composite
def peaks(draw: st.DrawFn, largest: float) -> np.float32:
    """Positive finite fp32 numbers: any, or within two ulp of ``largest * 2**k``, where the scale steps."""
    anywhere = st.integers(1, 0x7F7FFFFF)
    steps = st.builds(
        lambda k, step: int(np.float32(np.ldexp(largest, k)).view(np.int32)) + step,
        st.integers(-130, 119),
        st.integers(-2, 2),
    )
    return np.int32(draw(st.one_of(anywhere, steps))).view(np.float32)


@pytest.mark.parametrize("fp8", LARGEST)
@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_rceil_is_minimal(fp8: str, data: st.DataObject) -> None:
    """The smallest power of two s with amax / s <= max: s does and s / 2 does not, unless s is the smallest of all."""
    peak = data.draw(peaks(LARGEST[fp8]))
    x = data.draw(arrays(np.float32, 32, elements=st.floats(-1, 1, width=32))) * peak
    x[data.draw(st.integers(0, 31))] = peak * data.draw(st.sampled_from([-1, 1]))
    _, scales = reference("mxfp8_quantize", x, scale_rule="rceil", fp8_format=fp8)
    scale, amax = np.ldexp(1.0, int(scales[0]) - 127), float(np.abs(x).max())  # float64: the quotients are exact
    assert amax / scale <= LARGEST[fp8]
    assert scales[0] == 0 or amax / (scale / 2) > LARGEST[fp8]


# --- the published table ---------------------------------------------------------------------------------------------


def published_table() -> list[str]:
    """:data:`AGAINST_RCEIL` as lines of Markdown: equal / higher / lower, and by how much at the extremes."""
    lines = [f"| rule | {' | '.join(AMAX)} |", f"|---|{'---|' * len(AMAX)}"]
    for rule, relations in AGAINST_RCEIL.items():
        cells = [
            f"{r.equal} / {r.higher} / {r.lower}" + (f" ({r.least:+d} .. {r.most:+d})" if r.higher or r.lower else "")
            for r in relations.values()
        ]
        lines.append(f"| {rule} | {' | '.join(cells)} |")
    return lines
