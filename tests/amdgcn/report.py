"""Static facts of one kernel, read from its machine code: what it would cost on the real device."""

from __future__ import annotations

import dataclasses
from collections import Counter

from .errors import AmdgcnError
from .memory import LOADS, STORES
from .parser import Instruction, Kernel


@dataclasses.dataclass(frozen=True)
class KernelFacts:
    """Counts are of instructions in the text: each once, whether in a loop or on a path that is rarely taken."""

    arch: str
    sgpr_spills: int
    vgpr_spills: int
    scratch_bytes: int
    lds_bytes: int
    vector_registers: int  # of a lane, accumulation registers included
    waves_per_simd: int  # that the vector registers allow
    loads: dict[int, int]  # width in bytes -> global and buffer loads
    stores: dict[int, int]
    fp8_instructions: int  # hardware conversions from or to fp8
    valu_instructions: int
    num_threads: int

    @property
    def spills(self) -> int:
        return self.sgpr_spills + self.vgpr_spills

    def valu_per_element(self, elements_per_workgroup: int) -> float:
        """VALU instructions issued for one output element: each instruction works on every lane of the work-group."""
        return self.valu_instructions * self.num_threads / elements_per_workgroup


def facts(kernel: Kernel) -> KernelFacts:
    return KernelFacts(
        arch=kernel.arch,
        sgpr_spills=kernel.sgpr_spills,
        vgpr_spills=kernel.vgpr_spills,
        scratch_bytes=kernel.scratch_bytes,
        lds_bytes=kernel.lds_bytes,
        vector_registers=kernel.num_vgprs,
        waves_per_simd=waves_per_simd(kernel.arch, kernel.wave_size, kernel.num_vgprs),
        loads=_widths(kernel, "load"),
        stores=_widths(kernel, "store"),
        fp8_instructions=sum("cvt" in i.name and "fp8" in i.name for i in kernel.instructions),
        valu_instructions=sum(_valu(i) for i in kernel.instructions),
        num_threads=kernel.num_threads,
    )


def waves_per_simd(arch: str, wave_size: int, registers: int) -> int:
    """Waves of one SIMD whose vector registers fit its file. LDS and work-group size may allow fewer.

    gfx90a, gfx942, gfx950: 512 registers a lane, shared by VGPRs and AGPRs, handed out in eights; at most 8 waves.
    gfx1100, gfx1201: 1536 registers a lane of a wave32, in 24s (768 and 12s for wave64); at most 16 waves.
    gfx1250: 1024 registers a lane (wave32 only), in 16s; at most 16 waves.
    """
    if arch in ("gfx90a", "gfx942", "gfx950"):
        total, granule, most = 512, 8, 8
    elif arch == "gfx1250":
        total, granule, most = 1024, 16, 16
    elif arch in ("gfx1100", "gfx1201"):
        total, granule, most = (1536, 24, 16) if wave_size == 32 else (768, 12, 16)
    else:
        raise AmdgcnError(f"no occupancy rule for {arch}")
    allocated = -(-max(registers, 1) // granule) * granule
    return min(most, total // allocated)


def _widths(kernel: Kernel, direction: str) -> dict[int, int]:
    """Width in bytes -> number of global_ and buffer_ accesses."""
    table = LOADS if direction == "load" else STORES
    counts: Counter[int] = Counter()
    for instruction in kernel.instructions:
        for space in ("global", "buffer"):
            prefix = f"{space}_{direction}_"
            if instruction.name.startswith(prefix):
                name = instruction.name.removeprefix(prefix)
                if name not in table:
                    raise instruction.fail("unknown access")
                counts[table[name].size] += 1
    return dict(sorted(counts.items()))


def _valu(instruction: Instruction) -> bool:
    """One issue slot for every v_ instruction, but none for v_nop.

    A packed instruction (two results) is one, and so is a dual one: its two operations count half each. Transcendental
    instructions take several cycles on hardware but are one here.
    """
    return instruction.op.startswith("v_") and instruction.op != "v_nop"
