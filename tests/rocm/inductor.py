"""What Inductor generates for AMD GPUs, on a machine without one; the kernels run on the device of ``torch_device``.

``python inductor.py FOLDER ARCH...`` writes it. In a process of its own: PyTorch keeps what it is told about the GPU.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
import triton
from torch._inductor import config
from torch._inductor.debug import DebugContext
from torch._inductor.graph import GraphLowering
from torch._inductor.runtime.hints import DeviceProperties
from torch._inductor.virtualized import V
from torch._subclasses import fake_tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from triton.runtime import driver

import m3ops_torch
from m3ops.target import Target
from rocm import torch_device


def _properties(arch: str) -> DeviceProperties:
    target = Target.named(arch)
    return DeviceProperties(
        type="hip",
        index=0,
        multi_processor_count=target.multiprocessors,
        cc=arch,  # type: ignore[arg-type]
        major=9,
        regs_per_multiprocessor=65536,
        max_threads_per_multi_processor=2048,
        max_threads_per_block=1024,
        warp_size=target.warp_size,
    )


@contextlib.contextmanager
def _amd_gpu(arch: str) -> Iterator[None]:
    """What Inductor asks of PyTorch about the GPU that it generates code for."""
    properties = _properties(arch)
    facts = SimpleNamespace(**properties._asdict(), gcnArchName=arch, name=arch, minor=0)
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(torch.version, "hip", "7.0"))
        stack.enter_context(mock.patch.object(fake_tensor, "init_gpu_context"))
        stack.enter_context(mock.patch.object(driver, "_active", torch_device._driver(arch)))
        stack.enter_context(mock.patch.object(DeviceProperties, "create", return_value=properties))
        for name, value in {
            "is_available": lambda: True,
            "device_count": lambda: 1,
            "current_device": lambda: 0,
            "set_device": lambda device: None,
            "_lazy_init": lambda: None,
            "get_device_capability": lambda device=None: (9, 5),
            "get_device_properties": lambda device=None: facts,
        }.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, value))
        yield


def block(x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Ops between elementwise code, with Python's float64 numbers in both."""
    normalized, residual = m3ops_torch.gemma_fused_add_rmsnorm(x * 1.1, residual.neg(), weight, eps=1.3e-6)
    values, scales = m3ops_torch.swiglu_oai_quantize(normalized, alpha=1.702, beta=0.9, limit=6.7)
    return values, scales + 1, residual.abs() * 0.7


OPERANDS = ((8, 128), (8, 128), (128,))
"""Shapes of the operands of ``block``, in bfloat16."""


def generate(arch: str) -> str:
    """The module that Inductor would run for ``block``: its Triton kernels and ``call``, which launches all."""
    # One thread: a pool of processes would be started and never used.
    with _amd_gpu(arch), config.patch(compile_threads=1), FakeTensorMode() as mode:
        fake = [torch.empty(shape, dtype=torch.bfloat16, device="cuda:0") for shape in OPERANDS]
        graph = GraphLowering(make_fx(block)(*fake), example_inputs=fake)
        with V.set_graph_handler(graph), V.set_fake_mode(mode), V.set_debug_handler(DebugContext()):
            graph.run(*fake)
            return graph.codegen()[0].value


class _Kernel:
    """A kernel as the generated module calls it."""

    def __init__(self, source: str, path: Path, name: str) -> None:
        # Inductor's decorator picks a launch configuration by timing; what remains is the kernel itself.
        kernel = re.search(r"@triton\.jit\n.*", source, re.DOTALL)
        assert kernel
        imports = (
            "import triton\nimport triton.language as tl\n"
            "from torch._inductor.runtime.triton_helpers import libdevice, math as tl_math\n"
        )
        path.write_text(imports + kernel.group(0))
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self.function = getattr(module, name)

    def run(self, *args: Any, stream: int) -> None:
        block = 64
        self.function[(triton.cdiv(args[-1], block),)](*args, XBLOCK=block, num_warps=1)


def load(code: str, folder: Path) -> Callable[[list[torch.Tensor]], tuple[torch.Tensor, ...]]:
    """The ``call`` of a generated module, with its tensors in the memory of the CPU and its kernels in ``folder``."""
    numbers = itertools.count()

    class Compiler:
        def triton(self, name: str, source: str, **_: Any) -> _Kernel:
            return _Kernel(source, folder / f"{name}_{next(numbers)}.py", name)

        def wait(self, _: Any) -> None:
            pass

    for cuda, cpu in {
        "async_compile = AsyncCompile()": "",
        "del async_compile": "",
        "from torch._C import _cuda_getCurrentRawStream as get_raw_stream\n": "",
        "get_raw_stream(0)": "0",
        "empty_strided_cuda(": "empty_strided_cpu(",
        "with torch.cuda._DeviceGuard(0):": "if True:",
        "torch.cuda.set_device(0)": "pass",
    }.items():
        assert cuda in code, cuda
        code = code.replace(cuda, cpu)
    names: dict[str, Any] = {"async_compile": Compiler(), "__name__": "generated"}
    exec(code, names)
    return names["call"]


if __name__ == "__main__":
    for arch in sys.argv[2:]:
        Path(sys.argv[1], f"{arch}.py").write_text(generate(arch))
