"""One launch of a code object, as a front end hands it to a driver."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import rocm_lowering
from amdgcn import Kernel, launch

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
        from the correctly rounded ones by that much, and nothing may rest on them.
        """
        launch(self.kernel, self.grid, self.args, ulp_jitter=np.random.default_rng(len(self.assembly)))


Execute = Callable[[Launch], None]


@functools.lru_cache(maxsize=64)
def _kernel(assembly: str, image: bytes, shared_bytes: int) -> Kernel:
    kernel = Kernel(assembly, shared_bytes)
    if not rocm_lowering.is_assembled_from(image, assembly, kernel.arch):
        raise ValueError(f"the code object of {kernel.name} is not the machine code of its assembly text")
    return kernel
