"""Where a case can be computed. Each backend takes and gives NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import interpreter
import numpy as np
import torch

from m3ops.cases.run import Arrays, run_jax, run_torch
from m3ops.op import ArraySpec
from m3ops.ops import op_of
from m3ops.target import Target

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


def poisoned(spec: ArraySpec) -> np.ndarray:
    """An array that a kernel has not written."""
    return np.full(spec.shape, 0xA5, np.dtype(spec.dtype))


def _interpreted(target: Target) -> Run:
    def run(op_name: str, arrays: Arrays, params: Mapping[str, Any]) -> Arrays:
        op = op_of(op_name, arrays)
        inputs = tuple(map(array_spec, arrays))
        outputs = op.infer(*inputs, **params)
        results = [*map(poisoned, outputs)]
        if any(spec.size for spec in outputs):
            for launch in op.plan(inputs, outputs, params, target).launches(arrays, results, poisoned):
                interpreter.launch(*launch)
        return results

    return run


def no_gpu() -> str | None:
    return None if torch.cuda.is_available() else "no CUDA or HIP device"


BACKENDS = (
    Backend("jax-cpu", partial(run_jax, "cpu")),
    Backend("torch-cpu", partial(run_torch, "cpu")),
    Backend("interpreter", _interpreted(Target("nvidia", "sm_90", 132))),
    Backend("jax-gpu", partial(run_jax, "rocm" if torch.version.hip else "cuda"), no_gpu),
    Backend("torch-gpu", partial(run_torch, "cuda"), no_gpu),
)
