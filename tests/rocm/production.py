"""The code of both front ends at MiniMax-M3's sizes, and the table of what it costs."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from amdgcn import KernelFacts, facts

from m3ops.target import Target
from m3ops.testing.workload import Workload
from m3ops.testing.workloads import WORKLOADS
from rocm import jax_device, torch_device
from rocm.launch import Launch

ROWS = 4096  # more workgroups than fit on the device at once, as in every prefill; more rows change nothing in the code

CLOCK_GHZ, BANDWIDTH_TB = {"gfx942": 2.1, "gfx950": 2.4}, {"gfx942": 5.3, "gfx950": 8.0}
"""Peaks of MI300X and MI355X, from AMD's data sheets."""

ARCHS = tuple(CLOCK_GHZ)
FRONT_ENDS = {"jax": jax_device.run, "torch": torch_device.run}
NAMES = (
    "MoE prefill",
    "MoE prefill, interleaved",
    "hidden prefill",
    "a weight",
    "a weight, square blocks",
    "QK norm prefill",
    "packed QK norm prefill",
    "packed QK norm prefill, index heads",
)


def key_of(workload: Workload) -> tuple[Any, ...]:
    """Op, row and the parameters that are not at their defaults, flags by their names."""
    given = (name if value is True else value for name, value in workload.given.items())
    return workload.op, workload.size, *given


PREFILLS = {key_of(w): w.with_rows(ROWS) for w in WORKLOADS if w.name in NAMES}


@dataclass(frozen=True)
class Code:
    """One kernel as a front end launches it."""

    workload: Workload
    front_end: str
    launch: Launch

    @property
    def facts(self) -> KernelFacts:
        return facts(self.launch.kernel)

    @property
    def instructions(self) -> Counter[str]:
        return Counter(instruction.name for instruction in self.launch.kernel.instructions)

    @property
    def elements(self) -> float:
        """Elements of the result that a workgroup makes."""
        return self.workload.num_rows * self.workload.size / int(np.prod(self.launch.grid))

    @property
    def valu(self) -> float:
        """VALU instructions for an element of the result."""
        return self.facts.valu_per_element(self.elements)

    @property
    def valu_budget(self) -> float:
        """VALU instructions that the device issues while memory, at its peak, moves the bytes of an element."""
        arch = self.facts.arch
        lanes = Target.named(arch).multiprocessors * 4 * 16 * CLOCK_GHZ[arch] * 1e9  # 4 SIMDs of 16 lanes
        elements = self.workload.num_rows * self.workload.size
        return lanes / (BANDWIDTH_TB[arch] * 1e12) * self.workload.bytes_moved / elements


@functools.cache
def code(key: tuple[Any, ...], front_end: str, arch: str) -> Code:
    """Compiles an op for a GPU as a front end does. Nothing runs: the arrays are only allocated."""
    workload = PREFILLS[key]
    arrays = [np.empty(spec.shape, np.dtype(spec.dtype)) for spec in workload.inputs]
    launches: list[Launch] = []
    FRONT_ENDS[front_end](arch, workload.op, arrays, workload.given, launches.append)
    (launch,) = launches
    return Code(workload, front_end, launch)


def table(front_end: str = "torch") -> Iterator[str]:
    """The facts as lines of Markdown."""
    yield "| op | row | GPU | VALU / element | at peak bandwidth | VGPRs | waves / SIMD | LDS | loads | stores |"
    yield "|---|--:|---|--:|--:|--:|--:|--:|---|---|"
    for key in PREFILLS:
        op, row = key[0], ", ".join(map(str, key[1:]))
        for arch in ARCHS:
            kernel = code(key, front_end, arch)
            f = kernel.facts
            yield (
                f"| `{op}` | {row} | {arch} | {kernel.valu:.1f} | {kernel.valu_budget:.1f} | {f.vector_registers} "
                f"| {f.waves_per_simd} | {f.lds_bytes} | {_widths(f.loads)} | {_widths(f.stores)} |"
            )


def _widths(counts: dict[int, int]) -> str:
    return " + ".join(f"{count} x {width} B" for width, count in sorted(counts.items(), reverse=True))
