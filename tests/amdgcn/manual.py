"""AMD's instruction set manuals as an oracle: their pseudocode is evaluated and compared with one instruction's effect.

The text is that of the CDNA 4 manual, and of RDNA 4's for what the former calls without saying it.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import re
from collections.abc import Callable

import numpy as np

from .compare_bits import result_type, same_bits
from .pseudo_steps import Environment, Statement
from .pseudo_values import Value, integer
from .pseudocode import compiled
from .single import execute, registers
from .state import EXEC, VCC, Waves

ARCH = "gfx950"
SCALE_ONE = {"v_cvt_scalef32_pk_fp8_f32": 2, "v_cvt_scalef32_pk_f32_fp8": 1}
"""Which source is a scale: the executor refuses others than 1.0."""
_LITERAL, _TABLE, _IMMEDIATE = 0x40490FDB, 0x6C, -0x1235
_SOURCE, _RESULT, _CARRY = 2, 20, VCC


@functools.cache
def _texts() -> dict[str, str]:
    texts: dict[str, str] = {}
    for family in ("rdna4", "cdna"):
        module = importlib.import_module(f"tinygrad.runtime.autogen.amd.{family}.str_pcode")
        texts |= {re.sub(r"_e(32|64)$", "", op.name.lower()): text for op, text in module.PCODE.items()}
    return texts


def pseudocode(name: str) -> str:
    """KeyError where the manuals have none."""
    return _texts()[name]


def _instruction(name: str) -> Statement:
    return compiled(pseudocode(name))


@dataclasses.dataclass(frozen=True)
class Form:
    """An instruction with operands at places of our choice, found from what its pseudocode mentions."""

    name: str
    text: str

    @property
    def scalar(self) -> bool:
        return self.name.startswith("s_")

    @property
    def sources(self) -> list[int]:
        found = {int(n) for n in re.findall(r"\bS([012])\b", self.text)}
        if "SRC0" in self.text:
            found |= {0}
        return sorted(found)

    def width(self, operand: str) -> int:
        wide = rf"\b{operand}(\.[uifb]64(?!\[laneId)|\[63|\.u32\[63|\.u32\[OPSEL)"
        return 64 if re.search(wide, self.text) else 32

    def place(self, source: int) -> int:
        return _SOURCE + 4 * source

    @property
    def takes_immediate(self) -> bool:
        return re.match(r"s_(mov|add|mul|cmp)k_", self.name) is not None

    @property
    def assembly(self) -> str:
        file = "s" if self.scalar else "v"
        words = [self._register(file, self.place(i), self.width(f"S{i}")) for i in self.sources]
        if self.takes_immediate:
            words[-1] = hex(_IMMEDIATE & 0xFFFFFFFF)
        if self.name in SCALE_ONE:
            words[SCALE_ONE[self.name]] = "1.0"
        if "SIMM32" in self.text:  # in the place that it has in the sum
            words.insert(2 if self.text.index("SIMM32") > self.text.index("S1.") else 1, hex(_LITERAL))
        if not self.scalar and re.search(r"VCC\.u64\[laneId\](?! =)", self.text):
            words.append("vcc")
        modifiers = f" bitop3:{_TABLE:#x}" if "TTBL" in self.text else ""
        suffix = "_e32" if "SDWA" in self.text else ""
        return f"{self.name}{suffix} {', '.join(self._results(file) + words)}{modifiers}"

    def _results(self, file: str) -> list[str]:
        if "D0.u64[laneId]" in self.text:
            return ["vcc"]
        results = [self._register(file, _RESULT, self.width("D0"))] if re.search(r"\bD0?\b|VDST", self.text) else []
        carries = "VCC.u64[laneId] =" in self.text or re.search(r"\bD1\.", self.text)
        return results + (["vcc"] if carries else [])

    @staticmethod
    def _register(file: str, first: int, width: int) -> str:
        return f"{file}{first}" if width == 32 else f"{file}[{first}:{first + 1}]"


# ---- operands


_CORNERS = np.array(
    [0, 1, 2, 3, 31, 32, 33, 63, 64, 127, 128, 255, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFF, 0x800000, 0xFFFFFF,
     0x7FFFFFFF, 0x80000000, 0x80000001, 0xFFFFFFFE, 0xFFFFFFFF, 0x3F800000, 0x3F800001, 0xBF800000, 0x40000000,
     0x00800000, 0x007FFFFF, 0x00000200, 0x7F7FFFFF, 0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC01234, 0x7F800001,
     0x477FE000, 0x477FF000, 0x3380_0000, 0x3300_0000, 0x43E0_0000, 0x43E8_0000, 0x3C003C00, 0x7BFF7C00, 0x80000400,
     0xFC007E01, 0x03FF8001, 0x7F7F8000, 0x7F7F7FFF],
    np.uint32,
)  # fmt: skip


# Zeros and ones of both signs: all pairs of them are among the operands.
_SIGNS = np.array([0, 0x80000000, 0x8000, 0x3F800000, 0xBF800000, 0xBC003C00], np.uint32)


def operands(form: Form, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Words for the registers of three sources and the old destination: corners, random bits, near floats, repeats."""
    kinds = [
        rng.choice(_CORNERS, (8, *shape)),
        rng.integers(0, 2**32, (8, *shape), np.uint32),
        rng.standard_normal((8, *shape)).astype(np.float32).view(np.uint32),
    ]
    words = np.choose(rng.integers(0, 3, (8, *shape)), kinds)
    repeat = rng.random(shape) < 0.15  # sources that are equal
    for i in (2, 4):
        words[i : i + 2] = np.where(repeat, words[0:2], words[i : i + 2])
    pairs, count = words.reshape(8, -1), _SIGNS.size**2
    pairs[0:2, :count], pairs[2:4, :count] = np.repeat(_SIGNS, _SIGNS.size), np.tile(_SIGNS, _SIGNS.size)
    pairs[4:6, :count] = rng.choice(_SIGNS, count)
    return words


# ---- both sides


def _prepared(form: Form, words: np.ndarray) -> Waves:
    state = registers(ARCH, words.shape[1])
    for i in range(4):
        first = _RESULT if i == 3 else form.place(i)
        if form.scalar:
            state.s[first : first + 2] = words[2 * i : 2 * i + 2, :, 0]
        else:
            state.v[first : first + 2] = words[2 * i : 2 * i + 2]
    state.s[VCC : VCC + 2] = words[:2, :, 0]
    state.scc[:] = words[7, :, 0] & 1 == 1
    return state


def _environment(form: Form, words: np.ndarray, vcc: int, scc: int, lane: int) -> Environment:
    """Everything that one lane's pseudocode may read."""
    wide = [int(words[2 * i]) | int(words[2 * i + 1]) << 32 for i in range(4)]
    values = [Value("b", 64 if form.width(f"S{i}") == 64 else 32, wide[i]).as_type(
        "b", form.width(f"S{i}")) for i in range(3)]  # fmt: skip
    if form.takes_immediate:
        values[form.sources[-1]] = integer("i", 32, _IMMEDIATE)
    if form.name in SCALE_ONE:
        values[SCALE_ONE[form.name]] = Value("b", 32, 0x3F800000)
    old = Value("b", form.width("D0"), wide[3] & ((1 << form.width("D0")) - 1))
    number = {"laneId": lane, "SRC0": 0, "VDST": 1, "OPSEL": 0, "SDWA_SRC0_SEL": 0, "WORD1": 5, "SIMM32": _LITERAL,
              "ROUND_MODE": 0, "ROUND_NEAREST_EVEN": 0, "WAVE_MODE.IEEE": 0, "UNDERFLOW_F32": 0,
              "OVERFLOW_F32": 0x7F800000, "INST.OMOD": _TABLE >> 6, "INST.ABS": _TABLE >> 3 & 7,
              "INST.NEG": _TABLE & 7}  # fmt: skip
    env = Environment({name: Value("u", 32, value) for name, value in number.items()})
    env |= {"UNDERFLOW_F32": Value("f", 32, 0), "OVERFLOW_F32": Value("f", 32, 0x7F800000)}
    env |= {f"S{i}": value for i, value in enumerate(values)}
    env |= {"VCC": Value("b", 64, vcc), "SCC": Value("u", 1, scc), "EXEC": Value("b", 64, (1 << 64) - 1)}
    env |= {"D0": old, "VGPR": {(lane, 0): values[0], (lane, 1): old}, "instruction": _instruction}
    return env


@dataclasses.dataclass
class Outcome:
    """What the manual says of one lane: result bits and their number, the lane's mask bit and SCC."""

    result: int
    bits: int
    mask: int
    scc: int


def _evaluated(form: Form, env: Environment, lane: int) -> Outcome:
    compiled(form.text)(env)
    if "D0.u64[laneId]" in form.text:
        return Outcome(0, 0, env["D0"].bits >> lane & 1, 0)
    result = env["VGPR"][lane, 1] if "VDST" in form.text else env.get("D", env["D0"])
    carry = env["D1"].bits & 1 if "D1" in env else env["VCC"].bits >> lane & 1
    return Outcome(result.bits, result.width, carry, env["SCC"].bits)


def differences(name: str, ignored: Callable[[list[int]], bool] | None = None) -> list[str]:
    """Cases in which the executor and the manual differ; `ignored(sources)` says where the manual is known to err."""
    form = Form(name, pseudocode(name))
    shape = (256, 1) if form.scalar else (2, 64)
    words = operands(form, np.random.default_rng(list(name.encode())), shape)
    state = _prepared(form, words if not form.scalar else np.repeat(words, 64, axis=2))
    vccs = [int(a) | int(b) << 32 for a, b in zip(*state.s[VCC : VCC + 2], strict=True)]
    sccs = state.scc.copy()
    execute(ARCH, form.assembly, state)
    wrong = []
    for wave, lane in np.ndindex(shape):
        env = _environment(form, words[:, wave, lane], vccs[wave], int(sccs[wave]), lane)
        sources = [env[f"S{i}"].bits for i in form.sources]
        if ignored and ignored(sources):
            continue
        expected = _evaluated(form, env, lane)
        if not _agrees(form, state, wave, lane, expected):
            wrong.append(f"{form.assembly}: {[hex(s) for s in sources]} should be {expected}")
    return wrong


def _agrees(form: Form, state: Waves, wave: int, lane: int, expected: Outcome) -> bool:
    file = state.s[:, wave] if form.scalar else state.v[:, wave, lane]
    actual = [int(file[_RESULT]), int(file[_RESULT + 1])]
    for i in range(-(-expected.bits // 32)):
        kept = (1 << min(32, expected.bits - 32 * i)) - 1
        pair = [np.array([x & kept], np.uint32) for x in (actual[i], expected.result >> 32 * i)]
        if not same_bits(*pair, result_type(form.name)).all():
            return False
    if form.scalar:
        return int(state.scc[wave]) == expected.scc
    return bool(state.read_mask(_CARRY)[wave, lane]) == bool(expected.mask)


# ---- instructions that move values between lanes: the pseudocode speaks of all of them at once


def lane_differences(name: str, assembly: str) -> list[str]:
    """The same of an instruction of v2 (SRC0, ADDR), v20 (VDST, DATA0), s20 (D0) and s6 (S1), some lanes active."""
    rng = np.random.default_rng(list(name.encode()))
    state = registers(ARCH, 4)
    state.v[[_SOURCE, _RESULT]] = rng.integers(0, 2**32, (2, 4, 64), np.uint32)
    state.s[6] = rng.integers(0, 2**32, 4, np.uint32)
    if "swap" not in name:
        state.write_mask(EXEC, rng.random((4, 64)) < [[0.1], [0.5], [0.0], [1.0]])
    environments = []
    for wave in range(4):
        active = int(state.s[EXEC, wave]) | int(state.s[EXEC + 1, wave]) << 32
        vgprs = {
            (lane, i): Value("b", 32, int(state.v[register, wave, lane]))
            for i, register in enumerate((_SOURCE, _RESULT))
            for lane in range(64)
        }
        numbers = {"SRC0": 0, "ADDR": 0, "DATA0": 1, "OFFSET": 0, "VDST": 1, "S1": int(state.s[6, wave])}
        env = Environment({key: Value("u", 32, number) for key, number in numbers.items()})
        environments.append(env | {"EXEC": Value("b", 64, active), "VGPR": vgprs, "D0": Value("b", 32, 0)})
    execute(ARCH, assembly, state)
    wrong = []
    for wave, env in enumerate(environments):
        compiled(pseudocode(name))(env)
        if state.s[_RESULT, wave] != env["D0"].bits:
            wrong.append(f"wave {wave}: s20 should be {env['D0'].bits:#x}")
        for (lane, i), value in env["VGPR"].items():
            if state.v[(_SOURCE, _RESULT)[i], wave, lane] != value.bits:
                wrong.append(f"wave {wave}: lane {lane} of {('v2', 'v20')[i]} should be {value.bits:#x}")
    return wrong
