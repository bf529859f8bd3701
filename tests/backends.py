"""Where a case can be computed. Each backend takes and gives NumPy arrays."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import interpreter
import jax
import numpy as np
import torch

import m3ops_jax
import m3ops_torch
from m3ops.op import ArraySpec
from m3ops.ops import OPS
from m3ops.target import Target

Arrays = Sequence[np.ndarray]
Run = Callable[[str, Arrays, Mapping[str, Any]], Arrays]


@dataclass(frozen=True)
class Backend:
    """One way to compute an op.

    Attributes:
        name: Shown in test ids.
        run: ``(op name, input arrays, parameters) -> output arrays``.
        missing: Why it cannot run here, or None.
    """

    name: str
    run: Run
    missing: Callable[[], str | None] = lambda: None


def array_spec(array: np.ndarray) -> ArraySpec:
    return ArraySpec(array.shape, array.dtype.name, tuple(stride // array.itemsize for stride in array.strides))


def to_tensor(array: np.ndarray, device: str = "cpu") -> torch.Tensor:
    """The same bytes and strides as a tensor."""
    raw = array.view(f"u{array.itemsize}")
    writable = raw if raw.flags.writeable else np.lib.stride_tricks.as_strided(raw.copy(), raw.shape, raw.strides)
    if 0 in raw.strides:  # a repeated row: torch expands it itself
        writable = np.ascontiguousarray(raw[tuple(slice(1 if s == 0 else None) for s in raw.strides)])
        return torch.from_numpy(writable).view(getattr(torch, array.dtype.name)).to(device).expand(raw.shape)
    on_cpu = torch.from_numpy(writable).view(getattr(torch, array.dtype.name))
    if device == "cpu":
        return on_cpu
    moved = torch.empty_strided(on_cpu.shape, on_cpu.stride(), dtype=on_cpu.dtype, device=device)
    return moved.copy_(on_cpu)


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    raw = tensor.cpu().view({1: torch.uint8, 2: torch.uint16, 4: torch.uint32}[tensor.itemsize]).numpy()
    return raw.view(np.dtype(str(tensor.dtype).removeprefix("torch.")))


def _jax(platform: str) -> Run:
    def run(op: str, arrays: Arrays, params: Mapping[str, Any]) -> Arrays:
        call = jax.jit(functools.partial(getattr(m3ops_jax, op), **params))
        with jax.default_device(jax.local_devices(backend=platform)[0]):
            return [np.asarray(out) for out in jax.tree.leaves(call(*map(np.ascontiguousarray, arrays)))]

    return run


def _torch(device: str) -> Run:
    def run(op: str, arrays: Arrays, params: Mapping[str, Any]) -> Arrays:
        dtypes = {k: getattr(torch, v) for k, v in params.items() if k == "out_dtype" and v}
        results = getattr(m3ops_torch, op)(*(to_tensor(a, device) for a in arrays), **{**params, **dtypes})
        return [to_numpy(out) for out in (results if isinstance(results, tuple) else (results,))]

    return run


def _interpreted(target: Target) -> Run:
    def run(op_name: str, arrays: Arrays, params: Mapping[str, Any]) -> Arrays:
        op = OPS[op_name]
        inputs = tuple(map(array_spec, arrays))
        outputs = op.infer(*inputs, **params)
        results = [np.full(spec.shape, 0xA5, np.dtype(spec.dtype)) for spec in outputs]
        if any(spec.size for spec in outputs):
            interpreter.launch(op.plan(inputs, outputs, params, target), arrays, results)
        return results

    return run


def no_gpu() -> str | None:
    return None if torch.cuda.is_available() else "no CUDA or HIP device"


def _gpu_platform() -> str:
    return "rocm" if torch.version.hip else "cuda"


BACKENDS = (
    Backend("jax-cpu", _jax("cpu")),
    Backend("torch-cpu", _torch("cpu")),
    Backend("interpreter", _interpreted(Target("nvidia", "sm_90", 132))),
    Backend("jax-gpu", lambda *args: _jax(_gpu_platform())(*args), no_gpu),
    Backend("torch-gpu", _torch("cuda"), no_gpu),
)
