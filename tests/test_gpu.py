"""What only a GPU can show: launch configuration, large offsets, untouched memory, repeatability."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch_launch
from backends import no_gpu, planned
from compare import assert_same_bytes
from corpus import Call
from specification import reference

import m3ops_torch
from m3ops.op import Op, bind
from m3ops.ops import OPS
from m3ops.plan import Plan
from m3ops.planning.tiling import tiling
from m3ops.testing.arrays import bit_patterns, normal
from m3ops.testing.case import operands
from m3ops.tiles.rows import Tile
from m3ops.tools.run import flat, to_numpy, to_tensor, torch_function

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(no_gpu() is not None, reason=str(no_gpu()))]

GUARD = 4096


def launch(
    plan: Plan, inputs: dict[str, np.ndarray], expected: dict[str, np.ndarray], op: type[Op] = Op
) -> list[np.ndarray]:
    """Runs a plan into results between guard zones, which have to stay as they were.

    Results are poisoned, but those that the op inserts to begin as its inputs.
    """
    memory, results = {}, {}
    for name, want in expected.items():
        memory[name] = torch.full((want.nbytes + 2 * GUARD,), 0xA5, dtype=torch.uint8, device="cuda")
        inner = memory[name][GUARD : GUARD + want.nbytes].view(getattr(torch, want.dtype.name))
        results[name] = inner.view(want.shape)
    tensors = {name: to_tensor(array, "cuda") for name, array in inputs.items()}
    for given, result in op.updates.items() if op.inserts else ():
        if result in results:
            results[result].copy_(tensors[given])
    torch_launch.launch(plan, {**tensors, **results})
    for around in memory.values():
        assert (around[:GUARD] == 0xA5).all(), "written before a result"
        assert (around[-GUARD:] == 0xA5).all(), "written past a result"
    return [to_numpy(result) for result in results.values()]


def on_this_gpu(op: Op, inputs: dict[str, np.ndarray]) -> Plan:
    return planned(op, inputs, torch_launch.target())


def with_tile(plan: Plan, tile: Tile, programs: int, num_warps: int, **options: Any) -> Plan:
    """The plan of one launch with another tile."""
    (one,) = plan.launches
    constants = {**one.constants, "TILE": tile}
    forced = dataclasses.replace(
        one, grid=(programs,), constants=constants, num_warps=num_warps, options={**one.options, **options}
    )
    return dataclasses.replace(plan, launches=(forced,))


@pytest.mark.parametrize("number", range(8))
@pytest.mark.parametrize("op", OPS)
def test_guard_zones(op: str, number: int) -> None:
    """Every op writes all of its results and nothing beside them. Small enough for compute-sanitizer."""
    call = Call(op, number)
    inputs = call.operands(0)
    expected = call.call.reference(inputs)
    if any(want.size for want in expected.values()):
        results = launch(on_this_gpu(call.call, inputs), inputs, expected, OPS[op])
        assert_same_bytes(results, [*expected.values()])


@pytest.mark.parametrize("op", OPS)
def test_a_hundred_runs_of_every_op(op: str) -> None:
    call = Call(op, 9)
    inputs = [to_tensor(array, "cuda") for array in call.arrays(0)]
    expected = call.expected(0)
    for _ in range(100):
        results = flat(torch_function(op)(*inputs, **call.given))
        assert_same_bytes([to_numpy(result) for result in results], expected)


TILES = [(r, c, w) for r, c, w in itertools.product([1, 2, 8], [32, 128, 1024], [1, 2, 4, 8]) if r * c <= 4096]


@pytest.mark.parametrize("flags", [{"enable_fp_fusion": fused} for fused in (True, False)], ids=["fused", "unfused"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("swiglu_oai", {}),
        ("swiglu_oai", {"layout": "interleaved"}),
        ("swiglu_oai_quantize", {}),
        ("swiglu_oai_quantize", {"layout": "interleaved"}),
        ("mxfp8_quantize", {}),
    ],
    ids=str,
)
def test_any_tile_gives_the_same_bytes(name: str, given: dict[str, str], dtype: str, flags: dict[str, bool]) -> None:
    x = np.concatenate([normal((9, 1344), dtype, 3.0), bit_patterns((4, 1344), dtype)])
    op = OPS[name].of(**given)
    inputs = operands(op, [x])
    plan, expected = on_this_gpu(op, inputs), op.reference(inputs)
    size = next(iter(expected.values())).shape[-1]
    for rows, cols, warps in TILES:
        t = tiling(13, size, rows, cols, warps)
        forced = with_tile(plan, t.tile, t.num_tiles, warps, **flags)
        assert_same_bytes(launch(forced, inputs, expected), [*expected.values()])


@pytest.mark.parametrize("reload", [False, True])
@pytest.mark.parametrize("size", [96, 128, 1500, 6144])
@pytest.mark.parametrize("name", ["gemma_rmsnorm", "gemma_fused_add_rmsnorm"])
def test_any_tile_gives_the_same_norm(name: str, size: int, reload: bool) -> None:
    arrays = [normal((13, size), "float32"), normal((13, size), "float32", 2.0), normal((size,), "float32")]
    op = OPS[name].of()
    inputs = bind(op, arrays if "add" in name else arrays[::2])
    plan, expected = on_this_gpu(op, inputs), op.reference(inputs)
    widest = 1 << (size - 1).bit_length()
    for rows, cols, warps in itertools.product([1, 2, 4, 16], [widest, widest // 2, widest // 4], [1, 4, 16]):
        if 32 * warps <= rows * widest <= min(32768, 256 * 32 * warps):
            forced = with_tile(plan, Tile(rows, cols, True, -(-size // cols), reload), -(-13 // rows), warps)
            assert_same_bytes(launch(forced, inputs, expected), [*expected.values()])


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    x = to_tensor(normal((257, 6144), "bfloat16", 3.0), "cuda")
    weight = to_tensor(normal((6144,), "bfloat16"), "cuda")
    values, scales = m3ops_torch.swiglu_oai_quantize(x)
    norm = m3ops_torch.gemma_rmsnorm(x, weight)
    for row in (0, 100, 256):
        alone = m3ops_torch.swiglu_oai_quantize(x[row])
        assert torch.equal(alone.values.view(torch.uint8), values[row].view(torch.uint8))
        assert torch.equal(alone.scales, scales[row])
        assert torch.equal(m3ops_torch.gemma_rmsnorm(x[row], weight), norm[row])


@pytest.mark.parametrize("num_rows", [2**31 // 6144 + 5])
def test_offsets_past_two_to_the_31(num_rows: int) -> None:
    """The last rows lie past 2**31 elements and 2**32 bytes."""
    x = torch.empty(num_rows, 6144, dtype=torch.bfloat16, device="cuda")
    tail = normal((8, 6144), "bfloat16", 3.0)
    x[-8:] = to_tensor(tail, "cuda")
    values, scales = m3ops_torch.swiglu_oai_quantize(x)
    assert_same_bytes([to_numpy(values[-8:]), to_numpy(scales[-8:])], reference("swiglu_oai_quantize", tail))
    del values, scales
    weight = normal((6144,), "bfloat16")
    norm = m3ops_torch.gemma_rmsnorm(x, to_tensor(weight, "cuda"))
    assert_same_bytes([to_numpy(norm[-8:])], reference("gemma_rmsnorm", tail, weight))


def test_a_stride_past_two_to_the_31() -> None:
    base = torch.empty(2**31 + 512, dtype=torch.bfloat16, device="cuda")
    rows = base.as_strided((2, 128), (2**31, 1))
    data = normal((2, 128), "bfloat16")
    rows.copy_(to_tensor(data, "cuda"))
    (expected,) = reference("swiglu_oai", data)
    assert_same_bytes([to_numpy(m3ops_torch.swiglu_oai(rows))], [expected])


def test_misaligned_storage() -> None:
    wide = to_tensor(normal((5, 6200), "bfloat16", 3.0), "cuda")
    for offset in (1, 2, 3, 4, 8):
        x = wide[:, offset : offset + 6144]
        expected = reference("swiglu_oai_quantize", to_numpy(x))
        assert_same_bytes([to_numpy(t) for t in m3ops_torch.swiglu_oai_quantize(x)], expected)


def test_a_thousand_runs() -> None:
    x = to_tensor(normal((64, 6144), "bfloat16", 3.0), "cuda")
    weight = to_tensor(normal((6144,), "bfloat16"), "cuda")
    first = (*m3ops_torch.swiglu_oai_quantize(x), m3ops_torch.gemma_rmsnorm(x, weight))
    for _ in range(1000):
        again = (*m3ops_torch.swiglu_oai_quantize(x), m3ops_torch.gemma_rmsnorm(x, weight))
        assert all(torch.equal(a.view(torch.uint8), b.view(torch.uint8)) for a, b in zip(first, again, strict=True))


# --- Launches that overlap --------------------------------------------------------------------------------------------


def on_the_gpu() -> tuple[torch.Tensor, torch.Tensor]:
    """Rows and a weight of a norm."""
    return to_tensor(normal((4096, 3072), "bfloat16"), "cuda"), to_tensor(normal((3072,), "bfloat16", 0.25), "cuda")


def back_and_forth(x: torch.Tensor, weight: torch.Tensor, wait: Callable[[], None] = lambda: None) -> torch.Tensor:
    """Each kernel reads what the one before has written, and writes where that one has read."""
    memory = [x.clone(), torch.zeros_like(x)]
    for step in range(60):
        rows = len(x) if step % 3 else 16  # long kernels after short ones, and the other way around
        source, into = memory[step % 2], memory[1 - step % 2]
        m3ops_torch.gemma_rmsnorm(source[:rows], weight, out=into[:rows])
        wait()
    return torch.cat(memory).view(torch.int16)


def test_kernels_follow_each_other() -> None:
    """A kernel that begins while the one before it runs gives what it gives alone."""
    given = on_the_gpu()
    want = back_and_forth(*given, torch.cuda.synchronize)
    assert torch.equal(back_and_forth(*given), want)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = back_and_forth(*given)
    for _ in range(5):
        graph.replay()
        assert torch.equal(got, want)


def fork_and_join(x: torch.Tensor, weight: torch.Tensor, side: torch.cuda.Stream) -> torch.Tensor:
    """Two streams, each of which needs what the other has; no memory is given back before all is done."""
    main, kept = torch.cuda.current_stream(), []
    for _ in range(20):
        first = m3ops_torch.gemma_rmsnorm(x, weight)
        side.wait_stream(main)
        with torch.cuda.stream(side):
            beside = m3ops_torch.gemma_rmsnorm(first, weight)
        again = m3ops_torch.gemma_rmsnorm(first[:16], weight)
        main.wait_stream(side)
        x, residual = m3ops_torch.gemma_fused_add_rmsnorm(beside[:16], again, weight)
        x = torch.cat([x, residual, beside[32:]])
        kept += [first, beside, again, x]
    if not torch.cuda.is_current_stream_capturing():
        torch.cuda.synchronize()
    return x.view(torch.int16)


def test_kernels_of_two_streams_follow_each_other() -> None:
    given, side = on_the_gpu(), torch.cuda.Stream()
    want = fork_and_join(*given, torch.cuda.current_stream())
    assert torch.equal(fork_and_join(*given, side), want)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = fork_and_join(*given, side)
    for _ in range(5):
        graph.replay()
        assert torch.equal(got, want)
