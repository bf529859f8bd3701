"""Products in fast arithmetic: within the bound that the op states, and a row's bytes whatever the other rows.

The named cases, whose sums are exact, say that everything else is right. Here sums are rounded: by a GPU, or in AMD
code as the executor's model of a matrix instruction rounds them, which for gfx950 does so at random.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import rocm.launch
from backends import BACKENDS
from compare import assert_same_bytes
from rocm import jax_device, torch_device

from m3ops.ops import EVERY_OP
from m3ops.ops.mxfp8_matmul.cases import matrix
from m3ops.testing.case import Case

Arrays = tuple[np.ndarray, ...]
GPUS = [backend for backend in BACKENDS if backend.name.endswith("-gpu")]
AMD = {
    "torch-gfx942": functools.partial(torch_device.run, "gfx942"),
    "jax-gfx942": functools.partial(jax_device.run, "gfx942"),
    "torch-gfx950": functools.partial(torch_device.run, "gfx950"),
}


@pytest.fixture(params=[*AMD, *(pytest.param(gpu.name, marks=pytest.mark.gpu) for gpu in GPUS)])
def run(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Arrays]:
    """Computes an op somewhere where sums are rounded."""
    monkeypatch.setattr(rocm.launch, "launch", functools.partial(rocm.launch.launch, exact_sums=False))
    if request.param in AMD:
        return AMD[request.param]
    (backend,) = (gpu for gpu in GPUS if gpu.name == request.param)
    if reason := backend.missing():
        pytest.skip(reason)
    return backend.run


def operands(rows: int, columns: int, size: int) -> Arrays:
    """Scales within 2**8 of each other, so that no term is lost in a larger one, and no product leaves fp16."""
    return *matrix((rows, size), "fast x", range(110, 118)), *matrix((columns, size), "fast w", range(110, 118))


@pytest.mark.parametrize("out_dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("shape", [(20, 70, 1056), (776, 24, 96)], ids=str)
def test_it_is_within_the_bound_of_the_specification(run: Any, shape: tuple[int, int, int], out_dtype: str) -> None:
    arrays, given = operands(*shape), {"out_dtype": out_dtype, "arithmetic": "fast"}
    op = EVERY_OP["mxfp8_matmul"].of(**given)
    (got,) = run("mxfp8_matmul", arrays, given)
    (want,) = Case("mxfp8_matmul", "", lambda: arrays, given).expected()
    difference = np.abs(got.astype(np.float64) - want.astype(np.float64))
    assert np.all(difference <= op.error_bound(*arrays))
    assert out_dtype != "float32" or difference.any()  # it is another arithmetic


def test_a_row_does_not_depend_on_the_batch(run: Any, request: pytest.FixtureRequest) -> None:
    """Each number of rows has another tile; from some number on the weight is made bfloat16 beforehand."""
    if "gfx950" in request.node.callspec.id:
        pytest.skip("the executor rounds sums of gfx950 at random, since no model of its hardware is known")
    given = {"arithmetic": "fast", "out_dtype": "float32"}
    x, scales, *w = operands(776, 24, 288)
    (whole,) = run("mxfp8_matmul", (x, scales, *w), given)
    for rows in (slice(0, 1), slice(3, 20), slice(100, 140), slice(5, 100), slice(8, 520), slice(4, 776)):
        part = run("mxfp8_matmul", (x[rows], scales[rows], *w), given)
        assert_same_bytes(part, (whole[rows],))


def test_both_front_ends_give_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rocm.launch, "launch", functools.partial(rocm.launch.launch, exact_sums=False))
    runs = [AMD["torch-gfx942"], AMD["jax-gfx942"]] if any(gpu.missing() for gpu in GPUS) else [g.run for g in GPUS]
    arrays, given = operands(33, 40, 1056), {"arithmetic": "fast", "out_dtype": "float32"}
    first, second = (run("mxfp8_matmul", arrays, given) for run in runs)
    assert_same_bytes(first, second)
