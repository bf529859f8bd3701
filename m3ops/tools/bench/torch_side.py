"""PyTorch's half of the benchmark."""

from __future__ import annotations

import functools
import math
import platform
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from m3ops.array import ArraySpec
from m3ops.ops.gemma_rmsnorm.formula import EPS
from m3ops.planning.tiling import ROW_TILE, power_of_two_at_least
from m3ops.testing import formulas
from m3ops.testing.workload import Workload
from m3ops.tools.bench import gradient, kernel, layer, timing
from m3ops.tools.bench.program import PROGRAMS
from m3ops.tools.bench.result import Cost, LayerTime
from m3ops.tools.bench.side import ON_CPU, ONE_CALL, Contender, Inputs, Shared, Unavailable
from m3ops.tools.run import flat, torch_function


class TorchSide:
    """See :class:`m3ops.tools.bench.side.Side`."""

    name = "torch"

    def __init__(self) -> None:
        try:
            import torch
        except ImportError as error:
            raise Unavailable(f"torch cannot be imported ({error})") from error
        if not torch.cuda.is_available():
            raise Unavailable(f"torch {torch.__version__} sees no CUDA or HIP device")
        self._setup(torch, "cuda")
        self.device = torch.cuda.get_device_name()
        self._timers = timing.DeviceTimers(torch)

    def _setup(self, torch: Any, device: str) -> None:
        import triton

        import m3ops_torch

        self._torch, self._ops, self._device = torch, m3ops_torch, torch.device(device)
        runtime = {"hip": torch.version.hip} if torch.version.hip else {"cuda": torch.version.cuda or "none"}
        self.versions = {"torch": torch.__version__, "triton": triton.__version__, **runtime}
        self.versions["python"] = platform.python_version()

    def make(self, workload: Workload, seed: int) -> Inputs:
        generator = self._torch.Generator(self._device).manual_seed(seed)
        return tuple(self._random(spec, generator, workload) for spec in workload.inputs)

    def _random(self, spec: ArraySpec, generator: Any, workload: Workload) -> Any:
        torch = self._torch
        if spec.dtype == "uint8":  # scales from 2**-17 to 2**12
            return torch.randint(110, 140, spec.shape, dtype=torch.uint8, device=self._device, generator=generator)
        if spec.dtype == "int32" and workload.rows_each:  # sizes of groups
            return torch.full(spec.shape, workload.rows_each, dtype=torch.int32, device=self._device)
        if spec.dtype == "int32":  # slots or positions: each once; or experts
            size = math.prod(spec.shape)
            numbers = torch.randperm(size, device=self._device, generator=generator).int().reshape(spec.shape)
            return numbers % workload.below if workload.below else numbers
        normal = torch.randn(spec.shape, dtype=torch.bfloat16, device=self._device, generator=generator)
        return normal.to(getattr(torch, spec.dtype))

    def share(self, arrays: Sequence[Any]) -> list[Shared]:
        self._wait(arrays)
        return [(self._integers(tensor), _dtype_name(tensor)) for tensor in arrays]

    def adopt(self, shared: Sequence[Shared]) -> Inputs:
        return tuple(self._import(array).view(getattr(self._torch, name)) for array, name in shared)

    def _import(self, array: Any) -> Any:
        try:
            return self._torch.from_dlpack(array)
        except (BufferError, RuntimeError, TypeError, ValueError):  # no way between these releases: through the host
            return self._torch.from_numpy(np.array(array)).to(self._device)

    def results(self, outputs: Any) -> tuple[Any, ...]:
        return flat(outputs)

    def rows(self, arrays: Sequence[Any], rows: np.ndarray) -> list[np.ndarray]:
        index = self._torch.from_numpy(rows).to(self._device)
        picked = [self._integers(a)[..., index, :] if a.ndim > 1 else self._integers(a) for a in arrays]
        return [p.cpu().numpy().view(np.dtype(_dtype_name(a))) for p, a in zip(picked, arrays, strict=True)]

    def same(self, tensors: Sequence[Any], others: Sequence[Any]) -> bool:
        """Whether two results have the same bytes in every row."""
        return all(self._torch.equal(*map(self._integers, pair)) for pair in zip(tensors, others, strict=True))

    def _integers(self, tensor: Any) -> Any:
        return tensor.view({1: self._torch.uint8, 2: self._torch.int16, 4: self._torch.int32}[tensor.itemsize])

    def contenders(self, workload: Workload) -> dict[str, list[Contender]]:
        if workload.live is not None:
            return self._padded(workload, workload.live)
        if workload.kind == "gradient":
            return self._gradients(workload)
        op, given = workload.op, workload.given
        made: dict[str, list[Contender]] = {
            "m3ops_torch": [functools.partial(torch_function(op), **given)],
            "torch.compile": [functools.partial(self._compiled(formulas.TORCH[op]), **given)],
            "copy": [self._copy(workload.bytes_moved // 2)],
        }
        if op in (chains := self._chains()):
            made["chain"] = [functools.partial(chains[op], **given)]
        if op in ("gemma_rmsnorm", "gemma_fused_add_rmsnorm"):
            made["fp32-sum"] = self._fp32_norms(workload)
        return made

    def _compiled(self, formula: Contender) -> Contender:
        compiled: Contender = self._torch.compile(formula, fullgraph=True, dynamic=False)
        return compiled

    def _gradients(self, workload: Workload) -> dict[str, list[Contender]]:
        op = workload.forward
        forwards = {
            "m3ops_torch": torch_function(op),
            "torch.compile": self._compiled(formulas.TORCH[op]),
            "Liger": gradient.of_liger(op),
        }
        made = {name: [gradient.in_torch(workload, forward)] for name, forward in forwards.items() if forward}
        return {**made, "copy": [self._copy(workload.bytes_moved // 2)]}

    def _chains(self) -> dict[str, Contender]:
        ops = self._ops

        def add_then_norm(x: Any, residual: Any, weight: Any) -> tuple[Any, Any]:
            new_residual = x + residual
            return ops.gemma_rmsnorm(new_residual, weight), new_residual

        def add_norm_then_quantize(x: Any, residual: Any, weight: Any) -> tuple[Any, Any]:
            norm, new_residual = ops.gemma_fused_add_rmsnorm(x, residual, weight)
            return ops.mxfp8_quantize(norm), new_residual

        return {
            "gemma_rmsnorm_quantize": lambda x, weight: ops.mxfp8_quantize(ops.gemma_rmsnorm(x, weight)),
            "gemma_fused_add_rmsnorm_quantize": add_norm_then_quantize,
            "swiglu_oai_quantize": lambda *halves, **given: ops.mxfp8_quantize(ops.swiglu_oai(*halves, **given)),
            "gemma_fused_add_rmsnorm": add_then_norm,
        }

    def _padded(self, workload: Workload, live: int) -> dict[str, list[Contender]]:
        """A call that counts rows, and one on those rows alone; into memory that is there, or into new zeros."""
        op = functools.partial(torch_function(workload.op), **workload.given)
        counts = self._torch.full((workload.experts,), live, dtype=self._torch.int32, device=self._device)
        results = tuple(workload.results.values())
        kept = self._zeros(results)

        def buffers(x: Any) -> Any:
            return x.view(workload.experts, -1, x.shape[-1]) if x.ndim > 1 else x

        given = {"out": tuple(map(buffers, self._zeros(results)))} if workload.into else {}

        def of_live(x: Any) -> Any:
            return buffers(x)[:, :live] if x.ndim > 1 else x

        def counted(*inputs: Any) -> tuple[Any, ...]:
            return tuple(x.flatten(0, 1) for x in flat(op(*map(buffers, inputs), num_rows=counts, **given)))

        def alone(*inputs: Any) -> tuple[Any, ...]:
            memory = kept if workload.into else self._zeros(results)
            op(*map(of_live, inputs), out=tuple(map(of_live, memory)))
            return memory

        return {"m3ops_torch": [counted], "live-rows": [alone]}

    def _zeros(self, specs: Sequence[ArraySpec]) -> tuple[Any, ...]:
        """Zeros of these shapes by one fill, as fast as a fill can be."""
        sizes = [spec.nbytes for spec in specs]
        memory = self._torch.zeros(sum(sizes) // 8, dtype=self._torch.int64, device=self._device)
        parts = zip(memory.view(self._torch.uint8).split(sizes), specs, strict=True)
        return tuple(part.view(getattr(self._torch, spec.dtype)).view(spec.shape) for part, spec in parts)

    def _copy(self, size: int) -> Contender:
        torch = self._torch
        source = torch.randint(0, 256, (size,), dtype=torch.uint8, device=self._device)
        destination = torch.empty_like(source)
        return lambda *_: destination.copy_(source)

    def _fp32_norms(self, workload: Workload) -> list[Contender]:
        """The fp32-sum norm with every sensible number of warps."""
        cols = power_of_two_at_least(workload.size)
        rows = min(max(ROW_TILE // cols, 1), workload.num_rows)
        warps = [w for w in (1, 2, 4, 8, 16, 32) if 4 <= rows * cols // (32 * w) <= 64]
        grid = (workload.num_rows // rows,)
        constants = {"SIZE": workload.size, "EPS": EPS, "ROWS": rows, "COLS": cols}
        return [functools.partial(self._fp32_norm, grid, {**constants, "num_warps": w}) for w in warps]

    def _fp32_norm(self, grid: tuple[int], constants: dict[str, Any], *inputs: Any) -> tuple[Any, ...]:
        x, *residual, weight = inputs
        outputs = [self._torch.empty_like(x) for x in (x, *residual)]
        absent = [None] * (1 - len(residual))
        kernel._fp32_rmsnorm_kernel[grid](x, *residual, *absent, weight, *outputs, *absent, **constants)
        return tuple(outputs)

    def time(self, contender: Contender, sets: Sequence[Inputs], small: bool) -> tuple[str, float]:
        call = functools.partial(contender, *sets[0])
        return ("graph", self._timers.graph_us(call)) if small else ("events", self._timers.flushed_us(call))

    def copy_gbps(self) -> float:
        return 2 * 2**30 / self._timers.flushed_us(self._copy(2**30)) * 1e-3

    def empty_us(self) -> float | None:
        x = self._torch.zeros(16, device=self._device)
        return self._timers.graph_us(lambda: kernel._empty_kernel[(1,)](x))

    def host(self) -> list[Cost]:
        (gate_up,) = self.make(ONE_CALL, 0)
        calls: dict[str, Callable[[], Any]] = {
            "m3ops_torch.swiglu_oai_quantize, eager": lambda: self._ops.swiglu_oai_quantize(gate_up),
            "Triton launch of 12 arguments and 2 allocations": lambda: self._plain_launch(gate_up),
        }
        return [Cost(what, timing.host_us(call, self._wait)) for what, call in calls.items()]

    def programs(self) -> list[Cost]:
        costs = []
        for program in PROGRAMS:
            workload, form = program.workload, next(iter(program.forms.values()))
            call = functools.partial(form, torch_function(workload.op), *self.make(workload, 0))
            us = self._timers.graph_us(call, launches=1) / program.count
            costs.append(Cost(f"{workload.id}, m3ops_torch, CUDA graph", us))
        return costs

    def layers(self) -> Iterator[LayerTime]:
        weights = self.make(layer.WEIGHTS, 0)

        def time(call: Contender, *operands: Any) -> float:
            return self._timers.flushed_us(self._timers.graphed(functools.partial(call, *operands)))

        for workload in layer.TOKENS:
            yield from layer.timed(self._ops, weights, self.make(workload, 1), time)

    def cpu(self) -> list[Cost]:
        gate_up = self.make(ON_CPU, 0)[0].cpu()
        functions = {"m3ops_torch": torch_function(ON_CPU.op), "the formula, eager": formulas.TORCH[ON_CPU.op]}
        calls = {what: functools.partial(function, gate_up) for what, function in functions.items()}
        return [Cost(what, timing.host_us(call, self._wait, calls=1, batches=3)) for what, call in calls.items()]

    def _plain_launch(self, gate_up: Any) -> tuple[Any, Any]:
        """What the least wrapper around a kernel with vLLM's arguments does."""
        empty = functools.partial(self._torch.empty, device=self._device, dtype=self._torch.uint8)
        rows, size = ONE_CALL.num_rows, ONE_CALL.size
        values, scales = empty((rows, size)), empty((rows, size // 32))
        strides = (gate_up.stride(0), values.stride(0), scales.stride(0))
        args = (gate_up, values, scales, rows, size, *strides, 1.702, 1.0, 7.0)
        kernel._twelve_arguments_kernel[(rows,)](*args, BLOCK=32)
        return values, scales

    def _wait(self, _: Any) -> None:
        if self._device.type == "cuda":
            self._torch.cuda.synchronize()

    def release(self) -> None:
        self._torch.compiler.reset()  # one formula at eight shapes would reach dynamo's limit of recompilations
        self._torch.cuda.empty_cache()


def _dtype_name(tensor: Any) -> str:
    return str(tensor.dtype).removeprefix("torch.")
