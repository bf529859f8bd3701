"""An op's launch plan as Triton custom calls, through jax-triton."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from m3ops.array import ArraySpec
from m3ops.plan import Launch, Plan
from m3ops.target import Target
from m3ops_jax import _triton_compat
from m3ops_jax._call import Call, array_spec


def launch(platform: str, call: Call, *arrays: jax.Array) -> list[jax.Array]:
    """A call on one device of ``"cuda"`` or ``"rocm"``; to be traced by the lowering rule of its primitive."""
    call.check_known(arrays, "a kernel is launched for a number of rows")
    results = call.results(arrays)
    if not any(spec.size for spec in results.values()):
        return [jnp.zeros(spec.shape, jnp.dtype(spec.dtype)) for spec in results.values()]
    named = call.named(arrays)
    specs = {name: array_spec(array) for name, array in named.items()}
    target = _target(platform, call.targets)
    keep = [result for _, result in call.updates]
    plan = call.op.plan({**specs, **results}, target, keep=keep)
    made = {**results, **plan.scratch}
    env = {name: _to_raw(array) for name, array in named.items()}
    for each in plan.launches:
        env |= _call(call, plan, each, env, made, target.arch if call.targets else None)
    return [env[name].view(jnp.dtype(spec.dtype)) for name, spec in results.items()]


def _call(
    call: Call,
    plan: Plan,
    launch: Launch,
    arrays: Mapping[str, jax.Array],
    made: Mapping[str, ArraySpec],
    arch: str | None,
) -> dict[str, jax.Array]:
    """The arrays that a launch writes."""
    in_place = [(given, result) for given, result in call.updates if result in launch.writes]
    arrays = {**arrays, **_apart({given: arrays[given] for given, _ in in_place})}
    read = {parameter: to for parameter, to in launch.arguments.items() if to not in launch.writes}
    operands = [to for to in (read.get(name) for name in launch.kernel.arg_names) if isinstance(to, str)]
    results: Sequence[jax.Array] = _triton_compat.triton_call(
        target=arch,
        in_place={operands.index(given): launch.writes.index(result) for given, result in in_place},
        kernel=launch.kernel,
        out_type=[jax.ShapeDtypeStruct(made[name].shape, _raw_dtype(made[name].dtype)) for name in launch.writes],
        grid=launch.grid,
        name=call.op.name,
        backend_options=launch.compiler_options,
        # Profilers add up the costs of a program's calls: the first launch carries that of all.
        cost_estimate={"flops": plan.flops, "bytes_accessed": plan.bytes_moved} if launch is plan.launches[0] else None,
        **{parameter: arrays[to] if isinstance(to, str) else to for parameter, to in read.items()},
        **launch.constants,
    )
    written = dict(zip(launch.writes, results, strict=True))
    return {**written, **_apart({result: written[result] for _, result in in_place})}


def _apart(arrays: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Arrays that XLA does not fuse with what makes or takes them.

    Upstream: XLA makes one step of a call, the slices that are its operands and the larger arrays that its results are
    put into ("dynamic slice fusion"), and forgets which result is in which operand. Shows in a ``scan`` over stacked
    caches, on a GPU, as results that hold what their memory held before where the kernel writes nothing.
    """
    return {name: jax.lax.optimization_barrier(array) for name, array in arrays.items()}


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
