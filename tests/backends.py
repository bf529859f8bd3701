"""Where a case can be computed. Each backend takes and gives NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import interpreter
import numpy as np
import torch
from interpreter import poisoned

from m3ops.array import ArraySpec
from m3ops.op import Op
from m3ops.ops import EVERY_OP
from m3ops.plan import Plan
from m3ops.target import Target
from m3ops.testing.case import operands
from m3ops.tools.run import Arrays, run_jax, run_torch

Run = Callable[[str, Arrays, Mapping[str, Any]], Arrays]
RunInto = Callable[[str, Arrays, Mapping[str, Any], Arrays], Arrays]
H100 = Target.named("sm_90")
SMALL = replace(H100, multiprocessors=1)
"""Calls that count rows have programs for each multiprocessor, which the interpreter runs one by one."""


@dataclass(frozen=True)
class Backend:
    """One way to compute an op.

    Attributes:
        name: Shown in test ids.
        run: ``(op name, input arrays, parameters) -> output arrays``.
        missing: Why it cannot run here, or None.
        run_into: The same with memory for the results as one more argument; None where none can be given.
        keeps_views: Whether it is given arrays with their strides; JAX has none.
    """

    name: str
    run: Run
    missing: Callable[[], str | None] = lambda: None
    run_into: RunInto | None = None
    keeps_views: bool = True


def array_spec(array: np.ndarray) -> ArraySpec:
    return ArraySpec(array.shape, array.dtype.name, tuple(stride // array.itemsize for stride in array.strides))


def specs_of(arrays: Mapping[str, np.ndarray]) -> dict[str, ArraySpec]:
    return {name: array_spec(array) for name, array in arrays.items()}


def planned(op: Op, inputs: Mapping[str, np.ndarray], target: Target = SMALL) -> Plan:
    """The plan of a call whose results are new."""
    specs = specs_of(inputs)
    return op.plan({**specs, **op.check(specs)}, target)


def interpreted(op: Op, inputs: Mapping[str, np.ndarray], plan: Plan) -> list[np.ndarray]:
    """The results of a plan in the interpreter."""
    results = {name: poisoned(spec) for name, spec in op.check(specs_of(inputs)).items()}
    if not op.inserts:
        interpreter.run(plan, inputs, results)
        return [*results.values()]
    begun = {result: inputs[given].copy() for given, result in op.updates.items() if result in results}
    written = op.written(inputs, results)
    interpreter.run(plan, inputs, results | begun, {name: ~written[name] for name in begun})
    return [*(results | begun).values()]


def _interpret(name: str, arrays: Arrays, given: Mapping[str, Any]) -> Arrays:
    op = EVERY_OP[name].of(**given)
    inputs = operands(op, arrays)
    results = op.check(specs_of(inputs)).values()
    if not any(spec.size for spec in results):
        return [*map(poisoned, results)]
    return interpreted(op, inputs, planned(op, inputs))


def _interpret_into(name: str, arrays: Arrays, given: Mapping[str, Any], out: Arrays) -> Arrays:
    """Rows that do not count keep what the memory held."""
    op = EVERY_OP[name].of(**given)
    inputs = operands(op, arrays)
    specs = specs_of(inputs)
    results = dict(zip(op.check(specs), out, strict=True))
    if any(array.size for array in out):
        written = op.written(inputs, results)
        plan = op.plan({**specs, **specs_of(results)}, SMALL, keep=results)
        interpreter.run(plan, inputs, results, {name: ~mask for name, mask in written.items()})
    return out


def no_gpu() -> str | None:
    return None if torch.cuda.is_available() else "no CUDA or HIP device"


BACKENDS = (
    Backend("jax-cpu", partial(run_jax, "cpu"), keeps_views=False),
    Backend("torch-cpu", partial(run_torch, "cpu"), run_into=partial(run_torch, "cpu")),
    Backend("interpreter", _interpret, run_into=_interpret_into),
    Backend("jax-gpu", partial(run_jax, "rocm" if torch.version.hip else "cuda"), no_gpu, keeps_views=False),
    Backend("torch-gpu", partial(run_torch, "cuda"), no_gpu, run_into=partial(run_torch, "cuda")),
)
