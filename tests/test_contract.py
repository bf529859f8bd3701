"""The contract: every op gives the specification's bytes for every named case on every backend."""

from __future__ import annotations

import numpy as np
import pytest
from backends import BACKENDS, Backend
from compare import assert_same_bytes
from interpreter import poisoned

from m3ops import row_count
from m3ops.array import ArraySpec
from m3ops.testing.case import Case, digest
from m3ops.testing.cases import CASES, golden
from m3ops.testing.layer import LAYER

GOLDEN = golden()
COUNTED = [case for case in CASES if row_count.NAME in case.operands() or case.op == "moe_scatter_quantize"]
CALLS = [(backend, case) for backend in BACKENDS for case in CASES if backend.keeps_views or not case.has_views]


@pytest.mark.parametrize(("backend", "case"), CALLS, ids=[f"{backend.name}-{case.id}" for backend, case in CALLS])
def test_same_bytes_as_the_specification(backend: Backend, case: Case) -> None:
    if reason := backend.missing():
        pytest.skip(reason)
    assert_same_bytes(backend.run(case.op, case.make(), case.given), case.expected())


@pytest.mark.parametrize("case", COUNTED, ids=lambda case: case.id)
@pytest.mark.parametrize("into", [b for b in BACKENDS if b.run_into], ids=lambda backend: backend.name)
def test_rows_that_do_not_count_stay_in_given_memory(into: Backend, case: Case) -> None:
    """So does the padding of such a row in a tiled layout of scales; what pads a matrix is zero as ever."""
    if reason := into.missing():
        pytest.skip(reason)
    inputs = case.operands()
    results = case.call.reference(inputs)
    written = case.call.written(inputs, results)
    before = {name: poisoned(ArraySpec(array.shape, array.dtype.name)) for name, array in results.items()}
    wanted = [bits(before[name], results[name], written[name]) for name in results]
    assert into.run_into is not None
    assert_same_bytes(into.run_into(case.op, case.make(), case.given, list(before.values())), wanted)


def bits(before: np.ndarray, after: np.ndarray, written: np.ndarray) -> np.ndarray:
    unsigned = f"u{after.itemsize}"
    return np.where(written, after.view(unsigned), before.view(unsigned)).view(after.dtype)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_specification_has_not_moved(case: Case) -> None:
    """Published bytes are part of the interface: a changed digest is a breaking change."""
    assert digest(case.expected()) == GOLDEN[case.id]


def test_every_golden_digest_has_its_case() -> None:
    assert set(GOLDEN) == {case.id for case in (*CASES, LAYER)}
