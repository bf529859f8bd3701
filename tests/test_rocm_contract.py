"""The contract on AMD GPUs: each front end's own launches, executed as machine code, give the specification's bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from zlib import crc32

import numpy as np
import pytest
import torch
from compare import assert_same_bytes
from rocm import jax_device, torch_device
from rocm.launch import Launch
from specification import reference

import m3ops_torch
from m3ops.testing.case import Case
from m3ops.testing.cases import CASES
from m3ops.tools.run import Arrays

FRONT_ENDS = {"jax": jax_device.run, "torch": torch_device.run}

# One case an op and dtype where the targets are not those of MI300X and MI355X: the rules are the same, the
# instructions are not. gfx90a, CDNA 2; gfx1100 and gfx1201, RDNA 3 and 4; gfx1250, CDNA 5.
OTHER_ARCHS = ("gfx90a", "gfx1100", "gfx1201", "gfx1250")
SOME_CASES = tuple(case for case in CASES if "random bits" in case.name or "every byte, scales 64" in case.name)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every case by one front end for one GPU; with ``--corpus=full`` by each of them for each."""
    cases, archs = {
        "test_same_bytes_as_the_specification": (CASES, ("gfx942", "gfx950")),
        "test_same_bytes_on_other_targets": (SOME_CASES, OTHER_ARCHS),
    }.get(metafunc.function.__name__, ((), ()))
    if cases:
        full = metafunc.config.getoption("corpus") == "full"
        every = [(*way, case) for case in cases for way in ways(case, archs, full=full)]
        ids = [f"{case.id}-{front_end}-{arch}" for front_end, arch, case in every]
        metafunc.parametrize(("front_end", "arch", "case"), every, ids=ids)


def ways(case: Case, archs: Sequence[str], *, full: bool) -> list[tuple[str, str]]:
    """All front ends, of which JAX has no views, and GPUs; or one of these by the case's name: those of other cases do
    not change where one is added.
    """
    every = list(product(FRONT_ENDS if not case.has_views else ["torch"], archs))
    return every if full else [every[crc32(case.id.encode()) % len(every)]]


def test_same_bytes_as_the_specification(front_end: str, arch: str, case: Case) -> None:
    check(FRONT_ENDS[front_end], arch, case)


def test_same_bytes_on_other_targets(front_end: str, arch: str, case: Case) -> None:
    check(FRONT_ENDS[front_end], arch, case)


@pytest.mark.parametrize("arch", ["gfx950", "gfx1250"])
@pytest.mark.parametrize("case", [c for c in CASES if "just past the largest bfloat16" in c.name], ids=lambda c: c.id)
def test_bfloat16_that_may_saturate(arch: str, case: Case) -> None:
    """On the targets whose conversion to bfloat16 may obey the mode of fp8: a launch runs by both readings."""
    check(torch_device.run, arch, case)


@pytest.mark.parametrize("op", ["swiglu_oai_quantize", "mxfp8_dequantize", "gemma_rmsnorm"])
def test_later_calls_of_torch_launch_the_kept_kernel(op: str) -> None:
    """The second call of one kind skips binding and specialization; other data, other memory, the same code."""
    case = next(case for case in CASES if case.op == op and case.name.startswith("M3"))
    launches: list[Launch] = []
    torch_device.run("gfx950", op, case.make(), case.given, launches.append)
    arrays = [np.flip(array, 0).copy() for array in case.make()]
    torch_device.run("gfx950", op, arrays, case.given, launches.append)
    first, second = launches
    assert (first.assembly, first.grid, first.threads) == (second.assembly, second.grid, second.threads)
    results = torch_device.run("gfx950", op, arrays, case.given)
    assert_same_bytes(results, reference(op, *arrays, **case.given))


def test_views_of_torch_are_not_copied() -> None:
    """The kernel is given the memory of the view itself."""
    x = torch.zeros(3, 9, 2, 96, dtype=torch.bfloat16)[1:, 2:7, :, 32:].transpose(0, 1)
    launches: list[Launch] = []
    with torch_device.device("gfx950", launches.append):
        m3ops_torch.mxfp8_quantize(x)
    (launch,) = launches
    assert launch.args[0].ctypes.data == x.data_ptr()


def check(run: Callable[..., Arrays], arch: str, case: Case) -> None:
    assert_same_bytes(run(arch, case.op, case.make(), case.given), case.expected())
