"""The device a launch plan is made for: handed in by the front ends, never queried by the core."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """What a plan may depend on.

    Attributes:
        vendor: ``"nvidia"`` or ``"amd"``.
        arch: ``"sm_90"``, ``"gfx950"``, and so on.
        multiprocessors: Streaming multiprocessors (NVIDIA) or compute units (AMD).
    """

    vendor: str
    arch: str
    multiprocessors: int

    @classmethod
    def named(cls, arch: str) -> Target:
        """The target of this name, for compiling where there is no such device.

        Raises:
            ValueError: The name is not of this form.
        """
        if not re.fullmatch(r"sm_\d{2,3}|gfx\d{1,2}[0-9a-f]{2}", arch):
            raise ValueError(f"arch must be a name such as 'gfx950' or 'sm_90', got {arch!r}")
        vendor = "amd" if arch.startswith("gfx") else "nvidia"
        return cls(vendor, arch, _MULTIPROCESSORS.get(arch, 128))

    @property
    def warp_size(self) -> int:
        """Lanes a warp: 64 on AMD's CDNA (gfx9), 32 on RDNA (gfx10 and later) and on NVIDIA."""
        return 64 if self.arch.startswith("gfx9") else 32

    @property
    def mma_of_warp_groups(self) -> bool:
        """Whether four warps multiply matrices together: ``wgmma`` and ``tcgen05``, of which sm_120 has neither."""
        return self.vendor == "nvidia" and self.arch.removeprefix("sm_")[:-1] in ("9", "10", "11")

    @property
    def overlaps_launches(self) -> bool:
        """Whether a kernel may begin before the one ahead of it ends, and wait for it: CUDA's programmatic launch."""
        return self.vendor == "nvidia" and int(self.arch.removeprefix("sm_")) >= 90

    @property
    def hardware_fp8(self) -> frozenset[str]:
        """The E4M3 dtypes this device converts fp32 to in one instruction that Triton emits."""
        if self.vendor == "nvidia":
            return frozenset({"float8_e4m3fn"} if int(self.arch.removeprefix("sm_")) >= 89 else ())
        return _AMD_FP8.get(self.arch, frozenset())

    @property
    def mixed_fma(self) -> frozenset[str]:
        """The 16-bit dtypes that an fp32 multiply-add of this device can round its result to."""
        if self.vendor == "nvidia":
            return frozenset()
        return frozenset({"float16", "bfloat16"} if self.arch == "gfx1250" else {"float16"})

    @property
    def saturates_beside_fp8(self) -> frozenset[str]:
        """The 16-bit dtypes that may saturate in kernels with fp8 conversions, see ``fp32.Narrowing``."""
        if self.vendor == "nvidia" or not self.hardware_fp8:
            return frozenset()
        return frozenset({"float16"} if self.arch == "gfx942" else {"float16", "bfloat16"})


# Of the largest part with this name; they decide tile shapes, never bytes.
_MULTIPROCESSORS = {
    "sm_80": 108,
    "sm_89": 128,
    "sm_90": 132,
    "sm_100": 148,
    "gfx90a": 104,
    "gfx942": 304,
    "gfx950": 256,
}

_AMD_FP8 = {
    "gfx942": frozenset({"float8_e4m3fnuz"}),
    "gfx950": frozenset({"float8_e4m3fn"}),
    "gfx1250": frozenset({"float8_e4m3fn"}),
}
