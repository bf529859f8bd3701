"""Generated calls give the specification's bytes on every backend and as AMD machine code.

``pytest tests/test_corpus.py`` tries a few of them, ``pytest tests/test_corpus.py --corpus=full`` all.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from backends import BACKENDS, Backend, specs_of
from compare import assert_same_bytes
from corpus import Call, flags
from rocm import torch_device

from m3ops.ops import OPS

SIZES = {"sample": (2, 2), "full": (32, 8)}
"""Values of ``--corpus``: how many calls of each op, and how often the arrays of each are drawn."""

AMD = tuple(Backend(arch, partial(torch_device.run, arch)) for arch in ("gfx942", "gfx950"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "call" in metafunc.fixturenames:
        calls, _ = SIZES[metafunc.config.getoption("corpus")]
        metafunc.parametrize("call", [Call(op, n) for op in OPS for n in range(calls)], ids=lambda call: call.id)


@pytest.mark.parametrize("where", [*BACKENDS, *AMD], ids=lambda backend: backend.name)
def test_same_bytes_as_the_specification(where: Backend, call: Call, pytestconfig: pytest.Config) -> None:
    if reason := where.missing():
        pytest.skip(reason)
    for time in range(SIZES[pytestconfig.getoption("corpus")][1]):
        assert_same_bytes(where.run(call.op, call.arrays(time), call.given), call.expected(time))


@pytest.mark.parametrize("op", OPS)
def test_the_corpus_is_varied(op: str) -> None:
    """All calls are valid, and among them are several dtypes, strides that are not contiguous, both values of flags."""
    calls = [Call(op, number) for number in range(SIZES["full"][0])]
    for call in calls:
        call.call.check(specs_of(call.operands(0)))
    arrays = [call.arrays(0) for call in calls]
    assert len({array.dtype for group in arrays for array in group}) >= (3 if op != "moe_sort" else 1)
    assert sum(not array.flags.c_contiguous for group in arrays for array in group) > 4
    for flag in flags(op):
        assert {call.given[flag] for call in calls} == {False, True}


def test_a_call_is_the_same_every_time() -> None:
    for first, again in zip(Call("gemma_rmsnorm", 3).arrays(1), Call("gemma_rmsnorm", 3).arrays(1), strict=True):
        assert first.strides == again.strides
        assert np.array_equal(first.view(np.uint8), again.view(np.uint8)) if first.flags.c_contiguous else True
