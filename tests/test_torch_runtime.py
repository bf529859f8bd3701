"""The ops among PyTorch's run-time facilities: autocast, inference mode, streams, CUDA graphs, several devices."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from compare import assert_same_bytes
from test_torch import arrays, every_op, function, tensors

import m3ops_torch
from m3ops.ops import OPS
from m3ops_torch import _direct
from m3ops_torch._operators import parameters

gpu = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA or HIP device")]
two_gpus = [pytest.mark.gpu, pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two GPUs")]
BUSY = 400_000_000
"""Clock cycles that keep a GPU busy for about 0.2 s, far longer than any launch here takes."""


@every_op
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_nothing(name: str, dtype: torch.dtype, device: str) -> None:
    op, operands = function(name), tensors(name, device)
    widened = [t.float() if t.dtype == torch.bfloat16 else t for t in operands]
    for given in (operands, widened):
        want = op(*given)
        with torch.autocast(device, dtype):
            got = op(*given)
        assert_same_bytes(arrays(got), arrays(want))


@every_op
def test_inference_mode(name: str, device: str) -> None:
    op, operands = function(name), tensors(name, device)
    with torch.inference_mode():
        got = op(*operands)
    assert_same_bytes(arrays(got), arrays(op(*operands)))


def both_ways(name: str, operands: list[torch.Tensor]) -> list[Any]:
    """The operator through the dispatcher and the shorter way of later calls."""
    op = function(name)
    op(*operands)  # from now on calls of this kind go to their launch
    assert _direct.kept
    operator = getattr(torch.ops.m3ops, name).default
    params = parameters(OPS[name].of())
    return [lambda *t: op(*t), lambda *t: operator(*t, **params)]


@pytest.mark.parametrize("name", ["swiglu_oai_quantize", "gemma_fused_add_rmsnorm"])
class TestStreams:
    """A launch waits for what came before on the current stream and for nothing else."""

    pytestmark = gpu

    def test_the_current_stream_is_the_one(self, name: str) -> None:
        operands, zeros = tensors(name, "cuda"), [torch.zeros_like(t) for t in tensors(name, "cuda")]
        for call in both_ways(name, operands):
            want = arrays(call(*operands))
            stale = [t.clone() for t in zeros]
            torch.cuda.synchronize()
            side = torch.cuda.Stream()
            with torch.cuda.stream(side):
                torch.cuda._sleep(BUSY)
                for late, given in zip(stale, operands, strict=True):
                    late.copy_(given)
                got = call(*stale)
            side.synchronize()
            assert_same_bytes(arrays(got), want)

    def test_other_streams_are_not_waited_for(self, name: str) -> None:
        operands = tensors(name, "cuda")
        for call in both_ways(name, operands):
            busy, side = torch.cuda.Stream(), torch.cuda.Stream()
            with torch.cuda.stream(side):  # the memory of the results, which the driver would stop the device to give
                want = arrays(call(*operands))
            torch.cuda.synchronize()
            with torch.cuda.stream(busy):
                torch.cuda._sleep(BUSY)
            with torch.cuda.stream(side):
                got = call(*operands)
            side.synchronize()
            assert not busy.query(), "the op waited for a stream that it has nothing to do with"
            assert_same_bytes(arrays(got), want)


@every_op
class TestGraphs:
    """CUDA and HIP graphs."""

    pytestmark = gpu

    def test_replays_read_new_inputs(self, name: str) -> None:
        op, operands = function(name), tensors(name, "cuda")
        op(*operands)  # compiles the kernel, which a capture could not
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            results = op(*operands)
        for shift in range(3):
            for t in (t for t in operands if t.ndim):
                t.copy_(torch.roll(t.view(torch.uint8), 4 * shift, -1).view(t.dtype))
            graph.replay()
            assert_same_bytes(arrays(results), arrays(op(*operands)))

    @pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
    def test_no_synchronisation_and_nothing_else_is_allocated(self, name: str) -> None:
        """Than results and the scratch memory of the plan."""
        operands = tensors(name, "cuda")
        for call in both_ways(name, operands):
            want = arrays(call(*operands))
            before = torch.cuda.memory_stats()["allocation.all.allocated"]
            torch.cuda.set_sync_debug_mode("error")
            try:
                got = call(*operands)
            finally:
                torch.cuda.set_sync_debug_mode("default")
            # Values and scales; digits and factors; twice which slot names a row.
            several = ("swiglu_oai_fake_quant", "moe_scatter_quantize")
            scratch = 2 if name in several or name.endswith("matmul") else 0
            assert torch.cuda.memory_stats()["allocation.all.allocated"] - before == len(want) + scratch
            assert_same_bytes(arrays(got), want)

    def test_reduce_overhead(self, name: str) -> None:
        """torch.compile that records CUDA graphs of what it makes."""
        op = function(name)
        torch._dynamo.reset()  # each op would count as one more version of the same function
        compiled = torch.compile(lambda *t: op(*t), fullgraph=True, mode="reduce-overhead")
        for _ in range(4):
            operands = tensors(name, "cuda")
            torch.compiler.cudagraph_mark_step_begin()
            assert_same_bytes(arrays(compiled(*operands)), arrays(op(*operands)))


@every_op
class TestDevices:
    """More than one GPU."""

    pytestmark = two_gpus

    def test_runs_where_its_tensors_are(self, name: str) -> None:
        """Whichever device is the current one: JAX in the same process sets it too."""
        op = function(name)
        want = arrays(op(*tensors(name, "cuda:0")))
        for current in (0, 1, 0):
            with torch.cuda.device(current):
                for device in ("cuda:0", "cuda:1"):
                    got = op(*tensors(name, device))
                    assert {str(t.device) for t in torch.utils._pytree.tree_leaves(got)} == {device}
                    assert torch.cuda.current_device() == current
                    assert_same_bytes(arrays(got), want)


def test_tensors_of_two_devices_are_refused() -> None:
    """Meta stands for any other device, so that this needs no GPU."""
    x, weight = torch.zeros(2, 64), torch.zeros(64, device="meta")
    with pytest.raises(ValueError, match="weight must be on the device of x, cpu, got meta"):
        m3ops_torch.gemma_rmsnorm(x, weight)


@every_op
def test_meta_tensors(name: str) -> None:
    op, operands = function(name), tensors(name, "cpu")
    got, want = (torch.utils._pytree.tree_leaves(op(*t)) for t in ([t.to("meta") for t in operands], operands))
    assert all(t.is_meta for t in got)
    assert [(t.shape, t.dtype, t.stride()) for t in got] == [(t.shape, t.dtype, t.stride()) for t in want]
