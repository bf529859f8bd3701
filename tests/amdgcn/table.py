"""The instruction table: handlers register here by name and declare which modifiers and encodings they take."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from .errors import AmdgcnError
from .parser import Instruction, Kernel
from .state import Waves

# What one step asks of the scheduler: nothing, or one of these.
END, BARRIER = "end", "barrier"


@dataclasses.dataclass
class Branch:
    """Waves in `taken` go on at `target`, the others at the next instruction."""

    target: int
    taken: np.ndarray


Outcome = None | str | Branch
Step = Callable[[Waves], Outcome]
Build = Callable[[Instruction, Kernel], Step]


@dataclasses.dataclass(frozen=True)
class Entry:
    """A handler and everything it accepts; what is not listed is refused before the handler is called."""

    build: Build
    modifiers: frozenset[str]
    encodings: frozenset[str]
    dualable: bool = False


INSTRUCTIONS: dict[str, Entry] = {}


def register(
    *names: str,
    modifiers: tuple[str, ...] = (),
    encodings: tuple[str, ...] = ("", "e32", "e64"),
    dualable: bool = False,
) -> Callable[[Build], Build]:
    def add(build: Build) -> Build:
        for name in names:
            if name in INSTRUCTIONS:
                raise ValueError(f"{name} is registered twice")
            INSTRUCTIONS[name] = Entry(build, frozenset(modifiers), frozenset(encodings), dualable)
        return build

    return add


_DPP = frozenset((
    "quad_perm", "row_shl", "row_shr", "row_ror", "row_mirror", "row_half_mirror", "row_share", "row_xmask",
    "row_newbcast", "row_bcast", "row_mask", "bank_mask", "bound_ctrl", "fi",
))  # fmt: skip
_SDWA = frozenset(["dst_sel", "dst_unused", "src0_sel", "src1_sel"])
_ENCODING_MODIFIERS = {"dpp": _DPP, "sdwa": _SDWA}


def decode(instruction: Instruction, kernel: Kernel) -> Step:
    """The step that executes `instruction`; raises on anything its handler does not consume."""
    if instruction.dual:
        try:
            return _decode_dual(instruction, kernel)
        except AmdgcnError as error:
            raise instruction.fail(str(error)) from error
    return _entry(instruction).build(instruction, kernel)


def _entry(instruction: Instruction) -> Entry:
    entry = INSTRUCTIONS.get(instruction.name)
    if entry is None:
        raise instruction.fail("unknown instruction")
    if instruction.encoding not in entry.encodings:
        raise instruction.fail(f"encoding {instruction.encoding or 'without suffix'} is not modelled here")
    allowed = entry.modifiers | _ENCODING_MODIFIERS.get(instruction.encoding, frozenset())
    unknown = sorted(set(instruction.modifiers) - allowed)
    if unknown:
        raise instruction.fail(f"unknown modifier {', '.join(unknown)}")
    return entry


def _decode_dual(instruction: Instruction, kernel: Kernel) -> Step:
    """VOPD: both halves read their sources before either writes."""
    from .operands import VectorStep

    steps = []
    for half in instruction.dual:
        entry = _entry(half)
        step = entry.build(half, kernel)
        if not entry.dualable or not isinstance(step, VectorStep):
            raise instruction.fail(f"{half.name} is not a half of a dual instruction")
        steps.append(step)

    def run(waves: Waves) -> None:
        results = [[value.copy() for value in step.compute(waves)] for step in steps]
        for step, values in zip(steps, results, strict=True):
            step.commit(waves, values)

    return run
