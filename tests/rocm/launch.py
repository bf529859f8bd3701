"""One launch of a code object, as a front end hands it to a driver."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import rocm_lowering
from amdgcn import Kernel, launch
from amdgcn.census import check_listed

POISON = 0xA5
"""What results hold before a launch: a byte that a kernel leaves out shows."""


@dataclass(frozen=True)
class Launch:
    """Code, launch configuration and arguments.

    Attributes:
        assembly: The text that Triton assembled into ``image``.
        image: The code object.
        threads: Threads of a workgroup.
        shared_bytes: Dynamic LDS.
        grid: Workgroups along each axis.
        args: Byte arrays for pointers and numbers for scalars.
    """

    assembly: str
    image: bytes
    threads: int
    shared_bytes: int
    grid: tuple[int, ...]
    args: Sequence[Any]

    @property
    def kernel(self) -> Kernel:
        """The parsed code, after checks that text, code object and launch belong together."""
        kernel = _kernel(self.assembly, self.image, self.shared_bytes)
        if kernel.num_threads != self.threads:
            raise ValueError(f"{kernel.name} has {kernel.num_threads} threads, launched are {self.threads}")
        return kernel

    def run(self) -> None:
        """Interprets the machine code; arrays are written in place.

        Results of approximate instructions (v_rcp, v_sqrt, ...) move by up to one ulp at random: hardware may differ
        from the correctly rounded ones by that much, and nothing may rest on them. Kernels whose bytes could depend on
        how far the mode FP16_OVFL reaches run by both readings of it, which must agree.
        """
        kernel = self.kernel
        if not _narrows_to_bf16_in_a_mode(kernel):
            self._launch(bf16_saturates=False)
            return
        arrays = [arg for arg in self.args if isinstance(arg, np.ndarray) and arg.flags.writeable]
        before = [array.copy() for array in arrays]
        self._launch(bf16_saturates=True)
        saturated = [array.copy() for array in arrays]
        for array, held in zip(arrays, before, strict=True):  # in place, for arrays may be parts of one
            array[...] = held
        self._launch(bf16_saturates=False)
        for array, other in zip(arrays, saturated, strict=True):
            if array.tobytes() != other.tobytes():
                raise AssertionError(f"{kernel.name}: the bytes depend on whether bfloat16 saturates under FP16_OVFL")

    def _launch(self, *, bf16_saturates: bool) -> None:
        jitter = np.random.default_rng(len(self.assembly))
        launch(self.kernel, self.grid, self.args, ulp_jitter=jitter, bf16_saturates=bf16_saturates)


def _narrows_to_bf16_in_a_mode(kernel: Kernel) -> bool:
    """Whether it sets a mode and has the one conversion of which it is not known whether it obeys FP16_OVFL."""
    return {"s_setreg_imm32_b32", "v_cvt_pk_bf16_f32"} <= {instruction.name for instruction in kernel.instructions}


Execute = Callable[[Launch], None]


@functools.lru_cache(maxsize=64)
def _kernel(assembly: str, image: bytes, shared_bytes: int) -> Kernel:
    kernel = Kernel(assembly, shared_bytes)
    check_listed(kernel)
    if not rocm_lowering.is_assembled_from(image, assembly, kernel.arch):
        raise ValueError(f"the code object of {kernel.name} is not the machine code of its assembly text")
    return kernel
