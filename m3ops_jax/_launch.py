"""An op's launch plan as a Triton custom call, through jax-triton."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from m3ops.op import COMPILER_OPTIONS, ArraySpec, LaunchPlan, Op
from m3ops.target import Target
from m3ops_jax import _triton_compat


def launch(
    op: Op,
    platform: str,
    *arrays: jax.Array,
    targets: tuple[str, ...],
    in_place: tuple[tuple[int, int], ...] = (),
    **params: Any,
) -> list[jax.Array]:
    """An op on one device of ``"cuda"`` or ``"rocm"``; to be traced by the lowering rule of its primitive.

    ``in_place`` has the numbers of an input and of the result that takes its memory.
    """
    inputs = tuple(ArraySpec(a.shape, a.dtype.name) for a in arrays)
    outputs = op.infer(*inputs, **params)
    if not any(spec.size for spec in outputs):
        return [jnp.zeros(spec.shape, jnp.dtype(spec.dtype)) for spec in outputs]
    target = _target(platform, targets)
    plan = op.plan(inputs, outputs, params, target)
    results: list[jax.Array] = []
    for launch, _, made in plan.launches(arrays, outputs, lambda spec: spec):
        given, results = results[-1:] or list(arrays), results[:-1]  # a further launch is given a temporary array
        results += _call(op, launch, given, made, target.arch if targets else None, dict(in_place))
    return results


def _call(
    op: Op,
    plan: LaunchPlan,
    arrays: Sequence[jax.Array],
    outputs: Sequence[ArraySpec],
    arch: str | None,
    in_place: dict[int, int],
) -> list[jax.Array]:
    results = _triton_compat.triton_call(
        *plan.arguments(list(map(_to_raw, arrays)), ()),
        target=arch,
        in_place=in_place,
        kernel=plan.kernel,
        out_type=[jax.ShapeDtypeStruct(spec.shape, _raw_dtype(spec.dtype)) for spec in outputs],
        grid=(plan.grid,),
        name=op.name,
        num_warps=plan.num_warps,
        backend_options=dict(COMPILER_OPTIONS),
        cost_estimate={"flops": plan.flops, "bytes_accessed": plan.bytes_moved},
        **plan.constants,
    )
    return [r.view(jnp.dtype(spec.dtype)) for r, spec in zip(results, outputs, strict=True)]


def _target(platform: str, named: tuple[str, ...]) -> Target:
    for target in map(Target.named, named):
        if target.vendor == {"cuda": "nvidia", "rocm": "amd"}[platform]:
            return target
    if named:
        raise ValueError(f"lowering for {platform}, but compile_for() names only {', '.join(named)}")
    device = jax.local_devices(backend=platform)[0]
    if platform == "cuda":
        return Target("nvidia", "sm_" + device.compute_capability.replace(".", ""), device.core_count)
    return Target("amd", device.compute_capability.split(":")[0], device.core_count)


def _to_raw(x: jax.Array) -> jax.Array:
    """8-bit floats reach a kernel as bytes: not every target and Triton release has a pointer type for each."""
    return x.view(_raw_dtype(x.dtype.name))


def _raw_dtype(name: str) -> jnp.dtype:
    return jnp.dtype("uint8" if name.startswith("float8") else name)
