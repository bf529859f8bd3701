"""Instructions against recorded results of independent sources: docs/rocm.md says whose they are."""

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from amdgcn import fp
from amdgcn.compare_bits import result_type, same_bits
from amdgcn.compiling import WAVE_SIZE
from amdgcn.parser import parse_instruction
from amdgcn.single import execute, registers
from amdgcn.state import EXEC, VCC

VECTORS = Path(__file__).parent / "amdgcn" / "vectors"


def read_json(name):
    return json.loads((VECTORS / name).read_text())


# ---- forms of instructions as the kernels use them: one wave of operands and every register afterwards


def forms(arch):
    """(form, vector registers before, vector registers after)."""
    with np.load(VECTORS / f"instructions_{arch}.npz") as file:
        meta, rows = json.loads(file["meta"].tobytes()), iter(file["data"])
    for form in meta:
        before = {index: next(rows) for index in form["v_in"]}
        yield form, before, before | {index: next(rows) for index in form["v_out"]}


def prepared(arch, form, vectors):
    state = registers(arch)
    for index, value in vectors.items():
        state.v[index, 0] = value
    for index, value in form["s_in"].items():
        state.s[int(index), 0] = value
    for index, words in ((VCC, form["vcc"]), (EXEC, form["exec"])):
        state.write_scalar(index, tuple(np.uint32(word) for word in words))
    state.scc[0] = bool(form["scc_in"])
    return state


def differences(arch, form, before, after):
    """Names of the registers that are not as recorded, those included that should have stayed."""
    state = prepared(arch, form, before)
    scalars = state.s[:, 0].copy()
    scalars[[int(index) for index in form["s_out"]]] = list(form["s_out"].values())
    execute(arch, form["text"], state)
    kind = result_type(parse_instruction(form["text"]).name)
    wrong = [f"s{i}" for i in np.flatnonzero(state.s[:, 0] != scalars)]
    wrong += [f"v{i}" for i, value in after.items() if not same_bits(state.v[i, 0], value, kind).all()]
    return wrong + (["scc"] if state.scc[0] != form["scc_out"] else [])


@pytest.mark.parametrize(("arch", "count"), [("gfx942", 404), ("gfx950", 386)])
def test_forms(arch, count):
    found = {form["text"]: differences(arch, form, before, after) for form, before, after in forms(arch)}
    assert len(found) == count
    assert {text: wrong for text, wrong in found.items() if wrong} == {}


# ---- programs whose results were seen on RDNA 3 hardware

# Programs that make a NaN. Only that it is one was seen on hardware: the sign on record is the recording emulator's,
# and x86 gives another than the interpreter. No byte of a kernel depends on it.
MAKE_A_NAN = {
    "TestSqrt::test_v_sqrt_f32_negative", "TestRsq::test_v_rsq_f32_negative",
    "TestSpecialValues::test_v_add_f32_inf_minus_inf", "TestSpecialValues::test_v_mul_f32_zero_times_inf",
    "TestSpecialFloatValues::test_inf_minus_inf", "TestDivScale::test_div_scale_f32_zero_denom_gives_nan",
    "TestDivScale::test_div_scale_f32_zero_numer_gives_nan", "TestDivFixup::test_div_fixup_f32_inf_div_inf",
    "TestDivFixup::test_div_fixup_f32_zero_div_zero", "TestMulF32EdgeCases::test_v_mul_f32_inf_by_zero",
    "TestAddF32EdgeCases::test_v_add_f32_inf_minus_inf",
}  # fmt: skip


def run_program(program, kind):
    """Names of the registers that are not as recorded after the lines of a program. v255 holds the lane's number."""
    state = registers("gfx1100")
    state.v[255] = np.arange(32)
    state.write_mask(EXEC, np.arange(32) < program["lanes"])
    for line in program["lines"]:
        execute("gfx1100", line, state)
    wrong = [f"s{i}" for i, value in program["s"] if state.s[i, 0] != value]
    for i, values in program["v"]:
        same = same_bits(state.v[i, 0, : program["lanes"]], np.array(values, np.uint32), kind)
        wrong += [] if same.all() else [f"v{i}"]
    wrong += ["vcc"] if state.s[VCC, 0] != program["vcc"] else []
    return wrong + (["scc"] if state.scc[0] != program["scc"] else [])


def test_programs():
    programs = {program["test"].partition("::")[2]: program for program in read_json("rdna3_programs.json")["programs"]}
    assert len(programs) == 422
    found = {name: run_program(program, "f32" if name in MAKE_A_NAN else "b32") for name, program in programs.items()}
    assert {name: wrong for name, wrong in found.items() if wrong} == {}
    assert all(run_program(programs[name], "b32") for name in MAKE_A_NAN), "a program that needs no exception"


# ---- conversions under MODE.FP16_OVFL


def narrowed(arch, text, x, ovfl, **reading):
    """v0 after an instruction, of two float32 a lane in v1 and v2."""
    lanes = WAVE_SIZE[arch]
    pairs = np.resize(x, (2, -(-x.size // (2 * lanes)), lanes))
    state = registers(arch, pairs.shape[1], **reading)
    state.fp16_ovfl[:] = ovfl
    state.v[1:3] = pairs.view(np.uint32)
    execute(arch, text, state)
    return pairs, state.v[0]


def float32_corners(dtype):
    """Every float32 with a zero lower half, and the midpoints of a format with both neighbours."""
    bits = np.arange(2**16, dtype=np.uint32) << 16
    values = np.arange(256, dtype=np.uint8).view(dtype).astype(np.float64)
    values = np.unique(values[np.isfinite(values)])
    middle = ((values[1:] + values[:-1]) / 2).astype(np.float32)
    past = values[[0, -1]].astype(np.float32) * np.float32([1.02, 1.04])  # midpoint to what would come next: 1.036
    edges = np.concatenate([values.astype(np.float32), middle, past])
    near = [edges, np.nextafter(edges, np.float32(np.inf)), np.nextafter(edges, np.float32(-np.inf))]
    return np.concatenate([bits.view(np.float32), *near])


@pytest.mark.parametrize("ovfl", [False, True])
@pytest.mark.parametrize(
    ("arch", "text", "dtype"),
    [
        ("gfx942", "v_cvt_pk_fp8_f32 v0, v1, v2", ml_dtypes.float8_e4m3fnuz),
        ("gfx950", "v_cvt_pk_fp8_f32 v0, v1, v2", ml_dtypes.float8_e4m3fn),
        ("gfx950", "v_cvt_scalef32_pk_fp8_f32 v0, v1, v2, 1.0", ml_dtypes.float8_e4m3fn),
    ],
)
def test_fp8_in_both_modes(arch, text, dtype, ovfl):
    """ml_dtypes rounds, and gives NaN beyond the largest number; the mode gives that number."""
    x, codes = narrowed(arch, text, float32_corners(dtype), ovfl)
    with np.errstate(all="ignore"):
        expected = x.astype(dtype)
    overflow = np.isnan(expected.astype(np.float32)) & ~np.isnan(x)
    if ovfl:
        expected = np.where(overflow, np.copysign(ml_dtypes.finfo(dtype).max, x).astype(dtype), expected)
    actual = np.stack([codes & 255, codes >> 8]).astype(np.uint8)
    nan = np.isnan(expected.astype(np.float32))
    np.testing.assert_array_equal(np.isnan(actual.view(dtype).astype(np.float32)), nan)
    np.testing.assert_array_equal(actual[~nan], expected.view(np.uint8)[~nan])


@pytest.mark.parametrize("arch", ["gfx950", "gfx1250"])
@pytest.mark.parametrize(("ovfl", "saturates", "column"), [(False, True, 1), (True, False, 1), (True, True, 2)])
def test_bf16_by_either_reading_of_the_mode(arch, ovfl, saturates, column):
    rows = np.array(read_json("bf16_fp16_ovfl.json")["rows"], np.uint32)
    text = "v_cvt_pk_bf16_f32 v0, v1, v2"
    x, words = narrowed(arch, text, rows[:, 0].copy().view(np.float32), ovfl, bf16_saturates=saturates)
    wanted = np.resize(rows[:, column], x.shape)
    np.testing.assert_array_equal(words, wanted[0] | wanted[1] << 16)


# ---- division


def test_div_scale():
    rows = np.array(read_json("div_scale_f32.json")["rows"], np.uint32)
    assert len(rows) == 1136
    s0, s1, s2 = (np.ascontiguousarray(column).view(np.float32) for column in rows.T[:3])
    with np.errstate(all="ignore"):
        value, flag = fp.div_scale(s0, s1, s2)
    assert same_bits(value.view(np.uint32), rows[:, 3], "f32").all()
    np.testing.assert_array_equal(flag, rows[:, 4])
