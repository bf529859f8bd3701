"""JAX's half of the benchmark."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from itertools import product
from typing import Any

import numpy as np

from m3ops.array import ArraySpec
from m3ops.testing import formulas
from m3ops.testing.workload import Workload
from m3ops.tools.bench import gradient, layer, timing
from m3ops.tools.bench.program import OPTIONS, PROGRAMS, Program
from m3ops.tools.bench.result import Cost, LayerTime
from m3ops.tools.bench.side import ON_CPU, ONE_CALL, Contender, Inputs, Shared, Unavailable
from m3ops.tools.run import jax_function


class JaxSide:
    """See :class:`m3ops.tools.bench.side.Side`."""

    name = "jax"

    def __init__(self) -> None:
        # The memory is shared with PyTorch: take it as it is needed, not three quarters at once.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        try:
            import jax
        except ImportError as error:
            raise Unavailable(f"jax cannot be imported ({error})") from error
        try:
            device = jax.devices("gpu")[0]
        except RuntimeError as error:
            raise Unavailable(f"jax {jax.__version__} sees no CUDA or ROCm device") from error
        if find_spec("jax_triton") is None:
            raise Unavailable("jax-triton is not installed; m3ops_jax needs it on a GPU")
        self._setup(jax, device)
        self.device = device.device_kind

    def _setup(self, jax: Any, device: Any) -> None:
        import triton

        import m3ops_jax

        self._jax, self._jnp, self._ops, self._device = jax, jax.numpy, m3ops_jax, device
        self.versions = {"jax": jax.__version__, "jaxlib": version("jaxlib"), "triton": triton.__version__}
        self.versions["python"] = platform.python_version()

    def make(self, workload: Workload, seed: int) -> Inputs:
        keys = self._jax.random.split(self._jax.random.key(seed), len(workload.inputs))
        with self._jax.default_device(self._device):
            specs = zip(workload.inputs, keys, strict=True)
            return tuple(self._random(spec, key, workload) for spec, key in specs)

    def _random(self, spec: ArraySpec, key: Any, workload: Workload) -> Any:
        random, jnp = self._jax.random, self._jnp
        if spec.dtype == "uint8":  # scales from 2**-17 to 2**12
            return random.randint(key, spec.shape, 110, 140).astype(jnp.uint8)
        if spec.dtype == "int32" and workload.rows_each:  # sizes of groups
            return jnp.full(spec.shape, workload.rows_each, jnp.int32)
        if spec.dtype == "int32":  # slots or positions: each once; or experts
            numbers = random.permutation(key, math.prod(spec.shape)).astype(jnp.int32).reshape(spec.shape)
            return numbers % workload.below if workload.below else numbers
        return random.normal(key, spec.shape, jnp.bfloat16).astype(jnp.dtype(spec.dtype))

    def share(self, arrays: Sequence[Any]) -> list[Shared]:
        return [(self._integers(a).block_until_ready(), a.dtype.name) for a in arrays]

    def adopt(self, shared: Sequence[Shared]) -> Inputs:
        arrays = [self._import(array).view(self._jnp.dtype(name)) for array, name in shared]
        return tuple(self._jax.block_until_ready(arrays))

    def _import(self, array: Any) -> Any:
        try:
            return self._jax.dlpack.from_dlpack(array)
        except (BufferError, RuntimeError, TypeError, ValueError):  # no way between these releases: through the host
            return self._jax.device_put(array.cpu().numpy(), self._device)

    def _integers(self, array: Any) -> Any:
        return array.view({1: self._jnp.uint8, 2: self._jnp.int16, 4: self._jnp.int32}[array.dtype.itemsize])

    def results(self, outputs: Any) -> tuple[Any, ...]:
        return tuple(self._jax.block_until_ready(self._jax.tree.leaves(outputs)))

    def rows(self, arrays: Sequence[Any], rows: np.ndarray) -> list[np.ndarray]:
        pick = self._jax.jit(lambda a, i: self._integers(a)[..., i, :] if a.ndim > 1 else self._integers(a))
        return [np.asarray(pick(a, rows)).view(np.dtype(a.dtype)) for a in arrays]

    def contenders(self, workload: Workload) -> dict[str, list[Contender]]:
        if workload.live is not None:  # the wall clock of a call would be the host's
            return {}
        made = self._both(workload.forward)
        if workload.kind == "gradient":
            return {name: [gradient.in_jax(workload, forward)] for name, forward in made.items()}
        return {name: [self._jax.jit(partial(call, **workload.given))] for name, call in made.items()}

    def _both(self, op: str) -> dict[str, Contender]:
        """Our op and the formula that XLA fuses."""
        return {"m3ops_jax": jax_function(op), "jax.jit": formulas.JAX[op]}

    def time(self, contender: Contender, sets: Sequence[Inputs], small: bool) -> tuple[str, float]:
        if small:
            return "call", timing.host_us(lambda: contender(*sets[0]), self._wait)
        return "batch", timing.throughput_us(lambda i: contender(*sets[i % len(sets)]), self._wait)

    def copy_gbps(self) -> float:
        sources = [self._jnp.full(2**28, i, self._jnp.float32, device=self._device) for i in range(2)]
        copy = self._jax.jit(self._jnp.copy)
        return 2 * 2**30 / timing.throughput_us(lambda i: copy(sources[i % 2]), self._wait, in_flight=4) * 1e-3

    def empty_us(self) -> float | None:
        return None

    def host(self) -> list[Cost]:
        (gate_up,) = self.make(ONE_CALL, 0)
        size, jnp = ONE_CALL.size, self._jnp

        def plain(x: Any) -> Any:
            """As many results, of the same shapes and dtypes."""
            return self._ops.MXFP8(x[..., :size].astype(jnp.float8_e4m3fn), x[..., : size // 32].astype(jnp.uint8))

        jitted: dict[str, Callable[..., Any]] = {
            "jit of m3ops_jax.swiglu_oai_quantize": self._jax.jit(self._ops.swiglu_oai_quantize),
            "jit of a plain jnp slice and cast to the same results": self._jax.jit(plain),
        }
        return [Cost(what, timing.host_us(partial(f, gate_up), self._wait)) for what, f in jitted.items()]

    def programs(self) -> list[Cost]:
        return [cost for program in PROGRAMS for cost in self._program(program, self.make(program.workload, 0))]

    def _program(self, program: Program, inputs: Inputs) -> Iterator[Cost]:
        for (name, op), (way, form), (how, options) in product(
            self._both(program.workload.op).items(), program.forms.items(), OPTIONS.items()
        ):
            call = partial(self._jax.jit(partial(form, op), compiler_options=options), *inputs)
            us = timing.host_us(call, self._wait, calls=20) / program.count
            yield Cost(f"{program.workload.id}, {name}, {way}{how}", us)

    def layers(self) -> Iterator[LayerTime]:
        weights = self.make(layer.WEIGHTS, 0)

        def time(call: Contender, *operands: Any) -> float:
            """Of few calls, for XLA's ragged_dot may take seconds."""
            return timing.host_us(partial(self._jax.jit(call), *operands), self._wait, calls=2, batches=3)

        for workload in layer.TOKENS:
            yield from layer.timed(self._ops, weights, self.make(workload, 1), time)

    def cpu(self) -> list[Cost]:
        gate_up = self._jax.device_put(self.make(ON_CPU, 0)[0], self._jax.devices("cpu")[0])
        calls = {name: partial(self._jax.jit(f), gate_up) for name, f in self._both(ON_CPU.op).items()}
        return [Cost(name, timing.host_us(call, self._wait, calls=1, batches=3)) for name, call in calls.items()]

    def _wait(self, outputs: Any) -> None:
        self._jax.block_until_ready(outputs)

    def release(self) -> None:
        """Nothing: arrays go with their last reference."""
