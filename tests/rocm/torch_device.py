"""``m3ops_torch`` on a HIP device: Triton's own launch path over a driver whose device is the interpreter.

CPU tensors play the part of HIP tensors. ``kernel[grid](...)`` then runs as on the device: Triton binds and specializes
the arguments (alignment, one row, pointers within 2 GiB), compiles, and hands code and arguments to its driver.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.cache import get_cache_manager

from m3ops.target import Target
from m3ops.tools.run import Arrays, run_torch
from m3ops_torch import _direct, _launch, _operands, _private, _reference
from rocm.launch import POISON, Execute, Launch

# LDS of a workgroup, from LLVM's AMDGPU usage guide; 64 KiB elsewhere.
_LDS_BYTES = {"gfx950": 160 << 10, "gfx1250": 320 << 10}
_MAX_THREADS = 1024


class _Driver:
    """What Triton asks of a driver to compile and launch."""

    def __init__(self, arch: str) -> None:
        properties = {"max_shared_mem": _LDS_BYTES.get(arch, 64 << 10)}
        self.target = GPUTarget("hip", arch, Target.named(arch).warp_size)
        self.execute: Execute = Launch.run
        self.launcher_cls = functools.partial(_Launcher, self)
        self.utils = SimpleNamespace(
            get_device_properties=lambda device: properties,
            # module (to unload, so none), function, registers, spills, threads
            load_binary=lambda name, image, shared, device: (None, image, 0, 0, _MAX_THREADS),
        )

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> str:
        return self.target.arch  # the key under which a JITFunction keeps its compiled kernels

    def get_current_stream(self, device: str) -> int:
        return 0


class _Launcher:
    """Triton's launcher of one compiled kernel."""

    def __init__(self, driver: _Driver, src: Any, metadata: Any) -> None:
        files = get_cache_manager(metadata.hash).get_group(f"{metadata.name}.json")
        self._assembly = Path(files[f"{metadata.name}.amdgcn"]).read_text()
        self._types = tuple(src.signature.values())
        self._metadata = metadata
        self._driver = driver

    def __call__(self, x: int, y: int, z: int, stream: int, image: bytes, *rest: Any) -> None:
        _packed, _launch_metadata, _enter_hook, _exit_hook, *args = rest
        passed = [arg for arg, kind in zip(args, self._types, strict=True) if kind != "constexpr"]
        threads = self._metadata.num_warps * self._metadata.target.warp_size
        memory = [_memory(arg) if isinstance(arg, torch.Tensor) else arg for arg in passed]
        self._driver.execute(Launch(self._assembly, image, threads, self._metadata.shared, (x, y, z), memory))


def _memory(tensor: torch.Tensor) -> np.ndarray:
    """The bytes from a tensor's first element to the end of its storage, shared with it."""
    storage = tensor.untyped_storage()
    everything = torch.empty(0, dtype=torch.uint8).set_(storage).numpy()
    return everything[tensor.data_ptr() - storage.data_ptr() :]


def _poisoned(kinds: _operands.Kinds, device: torch.device) -> list[torch.Tensor]:
    sizes = [(math.prod(shape) * dtype.itemsize, shape, dtype) for shape, dtype in kinds]
    return [torch.full((n,), POISON, dtype=torch.uint8, device=device).view(dtype).view(s) for n, s, dtype in sizes]


def _plain_keys() -> list[Any]:
    """Those of tensors on the CPU, so that later calls go past the dispatcher as on a GPU."""
    return _direct._seen(lambda: _private.dispatch_keys(torch.empty(0)))


_driver = functools.cache(_Driver)


@contextlib.contextmanager
def device(arch: str, execute: Execute = Launch.run) -> Iterator[None]:
    """Makes ``m3ops_torch`` take CPU tensors for tensors on an AMD GPU.

    Args:
        arch: Which GPU, such as ``"gfx950"``.
        execute: What to do with a launch: run it, or keep it to look at.
    """
    with (
        mock.patch.object(_reference, "compute", _direct.compute),
        mock.patch.object(_direct, "kept", {}),
        mock.patch.object(_direct, "plain_keys", _plain_keys),
        mock.patch.object(_launch, "target_of", return_value=Target.named(arch)),
        mock.patch.object(_direct, "empty", _poisoned),
        mock.patch.object(torch.version, "hip", "7.0"),
        mock.patch.object(torch.cuda, "current_device", return_value=None),  # the index of the CPU device
        mock.patch.object(driver, "_active", _driver(arch)),
        mock.patch.object(_driver(arch), "execute", execute),
    ):
        yield


def run(arch: str, op: str, arrays: Arrays, params: Mapping[str, Any], execute: Execute = Launch.run) -> Arrays:
    """Calls an op of ``m3ops_torch`` on an AMD GPU."""
    with device(arch, execute):
        return run_torch("cpu", op, arrays, params)
