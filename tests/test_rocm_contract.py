"""The contract on AMD GPUs: each front end's own launches, executed as machine code, give the specification's bytes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from compare import assert_same_bytes
from rocm import jax_device, torch_device

from m3ops.cases import CASES, Case
from m3ops.cases.run import Arrays

FRONT_ENDS = {"jax": jax_device.run, "torch": torch_device.run}

# One case an op and dtype where the targets are not those of MI300X and MI355X: the rules are the same, the
# instructions are not. gfx90a, CDNA 2; gfx1100 and gfx1201, RDNA 3 and 4; gfx1250, CDNA 5.
OTHER_ARCHS = ("gfx90a", "gfx1100", "gfx1201", "gfx1250")
SOME_CASES = tuple(case for case in CASES if "random bits" in case.name or "every byte, scales 64" in case.name)


@pytest.mark.parametrize("arch", ["gfx942", "gfx950"])
@pytest.mark.parametrize("front_end", FRONT_ENDS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_same_bytes_as_the_specification(front_end: str, arch: str, case: Case) -> None:
    check(FRONT_ENDS[front_end], arch, case)


@pytest.mark.parametrize("arch", OTHER_ARCHS)
@pytest.mark.parametrize("front_end", FRONT_ENDS)
@pytest.mark.parametrize("case", SOME_CASES, ids=lambda case: case.id)
def test_same_bytes_on_other_targets(front_end: str, arch: str, case: Case) -> None:
    check(FRONT_ENDS[front_end], arch, case)


def check(run: Callable[..., Arrays], arch: str, case: Case) -> None:
    assert_same_bytes(run(arch, case.op, case.make(), case.params), case.expected())
