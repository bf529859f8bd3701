"""What only a GPU can show: launch configuration, large offsets, untouched memory, repeatability."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from backends import array_spec, no_gpu
from compare import assert_same_bytes
from corpus import Call

import m3ops_torch
from m3ops.cases.case import bit_patterns, normal
from m3ops.cases.run import flat, to_numpy, to_tensor
from m3ops.op import COMPILER_OPTIONS, LaunchPlan
from m3ops.ops import OPS
from m3ops.tiling import RowTiling, tiling
from m3ops_torch import _launch

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(no_gpu() is not None, reason=str(no_gpu()))]

GUARD = 4096


def launch(plan: LaunchPlan, inputs: list[torch.Tensor], expected: tuple[np.ndarray, ...]) -> list[np.ndarray]:
    """Runs a plan into poisoned outputs between guard zones, which have to stay as they were."""
    results = []
    for want in expected:
        memory = torch.full((want.nbytes + 2 * GUARD,), 0xA5, dtype=torch.uint8, device="cuda")
        inner = memory[GUARD : GUARD + want.nbytes].view(getattr(torch, want.dtype.name)).view(want.shape)
        results.append((memory, inner))
    raw = [_launch._to_raw(tensor) for tensor in (*inputs, *(inner for _, inner in results))]
    kernel = plan.kernel[(plan.grid,)]
    arguments = plan.arguments(raw[: len(inputs)], raw[len(inputs) :])
    kernel(*arguments, num_warps=plan.num_warps, **{**COMPILER_OPTIONS, **plan.constants})
    for memory, _ in results:
        assert (memory[:GUARD] == 0xA5).all(), "written before an output"
        assert (memory[-GUARD:] == 0xA5).all(), "written past an output"
    return [to_numpy(inner) for _, inner in results]


def planned(name: str, arrays: list[np.ndarray], **given: Any) -> tuple[LaunchPlan, tuple[np.ndarray, ...]]:
    op = OPS[name]
    params = op.filled(given)
    inputs = tuple(map(array_spec, arrays))
    target = _launch.target_of(torch.device("cuda", 0))
    return op.plan(inputs, op.infer(*inputs, **params), params, target), op.reference(*arrays, **params)


@pytest.mark.parametrize("number", range(8))
@pytest.mark.parametrize("op", OPS)
def test_guard_zones(op: str, number: int) -> None:
    """Every op writes all of its outputs and nothing beside them. Small enough for compute-sanitizer."""
    call = Call(op, number)
    arrays = call.arrays(0)
    plan, expected = planned(op, list(arrays), **call.params)
    if any(want.size for want in expected):
        assert_same_bytes(launch(plan, [to_tensor(array, "cuda") for array in arrays], expected), expected)


@pytest.mark.parametrize("op", OPS)
def test_a_hundred_runs_of_every_op(op: str) -> None:
    call = Call(op, 9)
    inputs = [to_tensor(array, "cuda") for array in call.arrays(0)]
    expected = call.expected(0)
    names = {name: getattr(torch, value) for name, value in call.params.items() if name == "out_dtype" and value}
    for _ in range(100):
        results = flat(getattr(m3ops_torch, op)(*inputs, **{**call.params, **names}))
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
    plan, expected = planned(name, [x], **given)
    size = expected[0].shape[-1]
    for rows, cols, warps in TILES:
        t = tiling(13, size, rows, cols, warps)
        forced = dataclasses.replace(
            plan, grid=t.grid, constants={**plan.constants, **t.constants, **flags}, num_warps=warps
        )
        assert_same_bytes(launch(forced, [to_tensor(x, "cuda")], expected), expected)


@pytest.mark.parametrize("reload", [False, True])
@pytest.mark.parametrize("size", [96, 128, 1500, 6144])
@pytest.mark.parametrize("name", ["gemma_rmsnorm", "gemma_fused_add_rmsnorm"])
def test_any_tile_gives_the_same_norm(name: str, size: int, reload: bool) -> None:
    arrays = [normal((13, size), "float32"), normal((13, size), "float32", 2.0), normal((size,), "float32")]
    arrays = arrays if "add" in name else arrays[::2]
    plan, expected = planned(name, arrays)
    inputs = [to_tensor(array, "cuda") for array in arrays]
    widest = 1 << (size - 1).bit_length()
    for rows, cols, warps in itertools.product([1, 2, 4, 16], [widest, widest // 2, widest // 4], [1, 4, 16]):
        if 32 * warps <= rows * widest <= min(32768, 256 * 32 * warps):
            t = RowTiling(-(-13 // rows), rows, cols, True, warps, -(-size // cols), reload)
            forced = dataclasses.replace(
                plan, grid=t.grid, constants={**plan.constants, **t.constants}, num_warps=warps
            )
            assert_same_bytes(launch(forced, inputs, expected), expected)


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
    assert_same_bytes([to_numpy(values[-8:]), to_numpy(scales[-8:])], planned("swiglu_oai_quantize", [tail])[1])
    del values, scales
    weight = normal((6144,), "bfloat16")
    norm = m3ops_torch.gemma_rmsnorm(x, to_tensor(weight, "cuda"))
    assert_same_bytes([to_numpy(norm[-8:])], planned("gemma_rmsnorm", [tail, weight])[1])


def test_a_stride_past_two_to_the_31() -> None:
    base = torch.empty(2**31 + 512, dtype=torch.bfloat16, device="cuda")
    rows = base.as_strided((2, 128), (2**31, 1))
    data = normal((2, 128), "bfloat16")
    rows.copy_(to_tensor(data, "cuda"))
    (expected,) = planned("swiglu_oai", [data])[1]
    assert_same_bytes([to_numpy(m3ops_torch.swiglu_oai(rows))], [expected])


def test_misaligned_storage() -> None:
    wide = to_tensor(normal((5, 6200), "bfloat16", 3.0), "cuda")
    for offset in (1, 2, 3, 4, 8):
        x = wide[:, offset : offset + 6144]
        expected = planned("swiglu_oai_quantize", [to_numpy(x)])[1]
        assert_same_bytes([to_numpy(t) for t in m3ops_torch.swiglu_oai_quantize(x)], expected)


def test_a_thousand_runs() -> None:
    x = to_tensor(normal((64, 6144), "bfloat16", 3.0), "cuda")
    weight = to_tensor(normal((6144,), "bfloat16"), "cuda")
    first = (*m3ops_torch.swiglu_oai_quantize(x), m3ops_torch.gemma_rmsnorm(x, weight))
    for _ in range(1000):
        again = (*m3ops_torch.swiglu_oai_quantize(x), m3ops_torch.gemma_rmsnorm(x, weight))
        assert all(torch.equal(a.view(torch.uint8), b.view(torch.uint8)) for a, b in zip(first, again, strict=True))
