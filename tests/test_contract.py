"""The contract: every op gives the specification's bytes for every named case on every backend."""

from __future__ import annotations

import json
from importlib import resources

import pytest
from backends import Backend
from compare import assert_same_bytes

from m3ops.cases import CASES, Case, digest

GOLDEN = json.loads(resources.files("m3ops.cases").joinpath("golden.json").read_text())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_same_bytes_as_the_specification(backend: Backend, case: Case) -> None:
    assert_same_bytes(backend.run(case.op, case.make(), case.params), case.expected())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_specification_has_not_moved(case: Case) -> None:
    """Published bytes are part of the interface: a changed digest is a breaking change."""
    assert digest(case.expected()) == GOLDEN[case.id]


def test_every_golden_digest_has_its_case() -> None:
    assert set(GOLDEN) == {case.id for case in CASES}
