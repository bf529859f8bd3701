"""Branches, barriers, the end of the program, mode registers, and what has no effect in this machine."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from .operands import constant
from .parser import Instruction, Kernel
from .state import VCC, Waves
from .table import BARRIER, END, Branch, Outcome, Step, register

# Timing, scheduling and caches only. Memory here is complete at once: no wait count can be too small.
_NO_EFFECT = (
    "s_nop", "v_nop", "s_waitcnt", "s_waitcnt_depctr", "s_waitcnt_vscnt", "s_delay_alu", "s_clause",
    "s_set_inst_prefetch_distance", "s_inst_prefetch", "s_setprio", "s_wait_idle", "s_wait_alu", "s_wait_kmcnt",
    "s_wait_loadcnt", "s_wait_storecnt", "s_wait_dscnt", "s_wait_xcnt", "s_wait_samplecnt", "s_wait_bvhcnt",
    "s_wait_expcnt", "s_wait_loadcnt_dscnt", "s_wait_storecnt_dscnt", "buffer_gl0_inv", "global_inv",
)  # fmt: skip


@register(*_NO_EFFECT, encodings=("",))
def _no_effect(ins: Instruction, kernel: Kernel) -> Step:
    return lambda waves: None


@register("s_sendmsg", encodings=("",))
def _sendmsg(ins: Instruction, kernel: Kernel) -> Step:
    """The only message known here gives registers back early, at the end."""
    if ins.operands[0].core != "sendmsg(MSG_DEALLOC_VGPRS)":
        raise ins.fail("unknown message")
    return lambda waves: None


@register("s_endpgm", encodings=("",))
def _endpgm(ins: Instruction, kernel: Kernel) -> Step:
    return lambda waves: END


# ---- branches


def _target(ins: Instruction, kernel: Kernel) -> int:
    label = ins.operands[0].core
    if label not in kernel.labels:
        raise ins.fail(f"unknown label {label}")
    return kernel.labels[label]


_CONDITIONS: dict[str, Callable[[Waves], np.ndarray]] = {
    "s_branch": lambda waves: np.ones(waves.shape[0], bool),
    "s_cbranch_scc0": lambda waves: ~waves.scc,
    "s_cbranch_scc1": lambda waves: waves.scc.copy(),
    "s_cbranch_execz": lambda waves: ~waves.exec.any(axis=1),
    "s_cbranch_execnz": lambda waves: waves.exec.any(axis=1),
    "s_cbranch_vccz": lambda waves: ~waves.read_mask(VCC).any(axis=1),
    "s_cbranch_vccnz": lambda waves: waves.read_mask(VCC).any(axis=1),
}
for _name, _condition in _CONDITIONS.items():

    @register(_name, encodings=("",))
    def _branch(
        ins: Instruction, kernel: Kernel, condition: Callable[[Waves], np.ndarray] = _condition
    ) -> Callable[[Waves], Outcome]:
        target = _target(ins, kernel)
        return lambda waves: Branch(target, condition(waves))


# ---- barriers


@register("s_barrier", encodings=("",))
def _barrier(ins: Instruction, kernel: Kernel) -> Step:
    return lambda waves: BARRIER


def _check_workgroup_barrier(ins: Instruction) -> None:
    if ins.operands[0].core != "-1":
        raise ins.fail("only the work-group's own barrier (-1) is modelled")


@register("s_barrier_signal", encodings=("",))
def _barrier_signal(ins: Instruction, kernel: Kernel) -> Step:
    """gfx12 splits the barrier. Waiting at the second half alone is a stronger barrier than both halves."""
    _check_workgroup_barrier(ins)
    return lambda waves: None


@register("s_barrier_wait", encodings=("",))
def _barrier_wait(ins: Instruction, kernel: Kernel) -> Step:
    _check_workgroup_barrier(ins)
    return lambda waves: BARRIER


# ---- mode registers


@register("s_setreg_imm32_b32", encodings=("",))
def _setreg(ins: Instruction, kernel: Kernel) -> Step:
    match = re.fullmatch(r"hwreg\((\w+), (\d+), (\d+)\)", ins.operands[0].core)
    if not match:
        raise ins.fail("unknown hardware register")
    field = (match[1].replace("HW_REG_WAVE_", "HW_REG_"), int(match[2]), int(match[3]))
    value = constant(ins.operands[1].core, "u32", ins)
    if field == ("HW_REG_MODE", 23, 1):  # FP16_OVFL
        return lambda waves: waves.fp16_ovfl.fill(bool(value & 1))
    if field == ("HW_REG_MODE", 2, 2) and value == 0:  # fp16 and fp64 round to nearest even, as check_supported wants
        return lambda waves: None
    if kernel.arch == "gfx1250" and field in (("HW_REG_MODE", 25, 1), ("HW_REG_SCHED_MODE", 0, 2)):
        return lambda waves: None  # replay and scheduling
    raise ins.fail("unknown field of a hardware register")
