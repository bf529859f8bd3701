"""What torch.compile makes for AMD GPUs: its kernels and the launches of our operators, executed on the CPU."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from compare import assert_same_bytes
from rocm import inductor, torch_device
from rocm.launch import Launch
from test_torch import arrays, function, tensors

from m3ops.ops import OPS


def amd_gpu(arch: str, launches: list[Launch]) -> contextlib.AbstractContextManager[None]:
    """The operators that graphs call launch on an AMD GPU; CPU tensors play the part of its tensors."""

    def execute(launch: Launch) -> None:
        launches.append(launch)
        launch.run()

    return torch_device.device(arch, execute)


ARCHS = ("gfx942", "gfx950")
pytestmark = pytest.mark.parametrize("arch", ARCHS)


@pytest.mark.parametrize("name", OPS)
def test_a_graph_launches_the_code_of_eager_calls(name: str, arch: str) -> None:
    op, operands = function(name), tensors(name, "cpu")
    want = arrays(op(*operands))
    torch._dynamo.reset()
    compiled = torch.compile(op, fullgraph=True, dynamic=True)
    assert_same_bytes(arrays(compiled(*operands)), want)
    in_graph: list[Launch] = []
    with torch._dynamo.config.patch(error_on_recompile=True), amd_gpu(arch, in_graph):
        got = compiled(*operands)
    assert_same_bytes(arrays(got), want)
    eager: list[Launch] = []
    with torch_device.device(arch, eager.append):
        op(*operands)
    for graph_launch, eager_launch in zip(in_graph, eager, strict=True):
        assert graph_launch.image == eager_launch.image
        assert (graph_launch.grid, graph_launch.threads) == (eager_launch.grid, eager_launch.threads)


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with what Inductor generates for each GPU."""
    folder = tmp_path_factory.mktemp("generated")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, inductor.__file__, folder, *ARCHS], check=True, env=environment)
    return folder


def test_all_that_inductor_generates(arch: str, generated: Path) -> None:
    operands = [torch.randn(shape).bfloat16() for shape in inductor.OPERANDS]
    call = inductor.load((generated / f"{arch}.py").read_text(), generated)
    launches: list[Launch] = []
    with amd_gpu(arch, launches):
        got = call(list(operands))
    names = [launch.kernel.name for launch in launches]
    ours = ["_gemma_rmsnorm_kernel", "_swiglu_oai_kernel"]
    assert [name for name in names if not name.startswith("triton_")] == ours
    assert names.index(ours[0]) > 0, "kernels of Inductor before ours"
    assert names[-1] not in ours, "and after"
    assert_same_bytes(arrays(got), arrays(inductor.block(*operands)))
