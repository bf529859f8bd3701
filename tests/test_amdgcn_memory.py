"""Loads, stores, grids, loops and arguments on the interpreter of AMD machine code."""

import numpy as np
import pytest
from amdgcn import launch
from amdgcn.compiling import ARCHS, compile_sample
from amdgcn.memory import Memory
from amdgcn.samples import collatz_kernel, copy_kernel, loop_kernel, scalar_kernel

WIDTHS = {"i8": np.int8, "i16": np.int16, "i32": np.int32, "i64": np.int64}
GRID = (3, 2, 4)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("name", WIDTHS)
@pytest.mark.parametrize("masked", [False, True], ids=["full", "masked"])
@pytest.mark.parametrize("wide", [False, True], ids=["int32", "int64"])
@pytest.mark.parametrize("aligned", [False, True], ids=["any", "aligned"])
def test_copy_on_a_three_axis_grid(arch, name, masked, wide, aligned):
    """1- to 16-byte accesses, 32- and 64-bit offsets; bytes outside the mask stay as they were."""
    for block in (64, 1024) if aligned else (256,):
        n, stride = (block - 5, block + (16 if aligned else 3)) if masked else (block, block)
        kernel = compile_sample(
            copy_kernel, arch, {"x_ptr": "*" + name, "o_ptr": "*" + name, "stride": "i32", "n": "i32"},
            {"BLOCK": block, "MASKED": masked, "WIDE": wide}, num_warps=1, aligned=aligned,
        )  # fmt: skip
        info = np.iinfo(WIDTHS[name])
        rows = GRID[0] * GRID[1] * GRID[2]
        x = np.random.default_rng(0).integers(info.min, info.max, (rows, stride), WIDTHS[name])
        out = np.full_like(x, 77)
        launch(kernel, GRID, [x, out, stride, n])
        assert (out[:, :n] == x[:, :n]).all()
        assert (out[:, n:] == 77).all()


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("length", [0, 1, 255, 256, 1000])
def test_loops_and_branches(arch, length):
    rows, stride = 7, 1024
    x = np.random.default_rng(1).integers(-1000, 1000, (rows, stride)).astype(np.int32)
    signature = {"x_ptr": "*i32", "o_ptr": "*i32", "n": "i32", "stride": "i32"}
    out = np.zeros(rows, np.int32)
    launch(compile_sample(loop_kernel, arch, signature, {"BLOCK": 256}), (rows,), [x, out, length, stride])
    sums = x[:, :length].sum(1)
    assert (out == np.where(np.arange(rows) % 3 == 1, -sums, sums)).all()


def collatz(x: int) -> int:
    steps = 0
    while x > 1:
        x, steps = (x // 2 if x % 2 == 0 else 3 * x + 1), steps + 1
    return steps


@pytest.mark.parametrize("arch", ARCHS)
def test_waves_that_go_separate_ways(arch):
    x = np.arange(1, 60, dtype=np.int32)
    out = np.zeros_like(x)
    kernel = compile_sample(collatz_kernel, arch, {"x_ptr": "*i32", "o_ptr": "*i32", "n": "i32"}, {})
    launch(kernel, (x.size,), [x, out, x.size], max_waves=64)
    assert out.tolist() == [collatz(int(value)) for value in x]


@pytest.mark.parametrize("arch", ARCHS)
def test_scalar_arguments(arch):
    signature = {"o_ptr": "*fp32", "alpha": "fp32", "beta": "fp32", "k": "i32", "wide": "i64"}
    kernel = compile_sample(scalar_kernel, arch, signature, {})
    out = np.zeros(64, np.float32)
    launch(kernel, (1,), [out, 1.5, np.float32(-0.25), -3, 2**40 + 2**17])
    assert (out == np.float32(np.arange(64) * 1.5 - 0.25) - 3 + np.float32(2**40 + 2**17)).all()


@pytest.mark.parametrize("arch", ARCHS)
def test_batches_of_waves_do_not_change_results(arch):
    signature = {"x_ptr": "*i16", "o_ptr": "*i16", "stride": "i32", "n": "i32"}
    kernel = compile_sample(copy_kernel, arch, signature, {"BLOCK": 1024, "MASKED": True, "WIDE": True}, num_warps=4)
    x = np.random.default_rng(2).integers(-(2**15), 2**15, (24, 1024)).astype(np.int16)
    for max_waves in (1, 8, 4096):
        out = np.zeros_like(x)
        launch(kernel, GRID, [x, out, 1024, 1000], max_waves=max_waves)
        assert (out[:, :1000] == x[:, :1000]).all()


def test_addresses_cross_a_4_gib_line():
    """So that a forgotten carry into the high half of an address is an error and not luck."""
    space = Memory([np.zeros(3 * Memory.GUARD, np.uint8)], set())
    first = space.address(0)
    assert first >> 32 != (first + 3 * Memory.GUARD - 1) >> 32
