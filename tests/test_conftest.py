"""The compilation cache of a run gives no test another's program; only where there is no GPU its cases are left out."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import conftest
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from compare import assert_same_bytes
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from specification import reference

import m3ops_jax
from m3ops.testing.arrays import normal


@pytest.mark.parametrize("kind", [AxisType.Explicit, AxisType.Auto], ids=str)
def test_a_program_is_compiled_once_and_given_to_no_other(kind: AxisType) -> None:
    """Also where XLA divides it, and the program names by an address what it computes."""
    hits: list[str] = []
    jax.monitoring.register_event_listener(lambda event, **_: hits.append(event) if "cache_hits" in event else None)
    mesh = jax.make_mesh((4,), ("a",), axis_types=(kind,), devices=jax.devices("cpu")[:4])
    gate_up = normal((4, 3 * 64), "bfloat16")
    x = jax.device_put(jnp.asarray(gate_up), NamedSharding(mesh, P("a")))
    counts = []
    for alpha in (1.7021, 1.7021, 1.7022):
        hits.clear()
        compiled = jax.jit(functools.partial(m3ops_jax.swiglu_oai, alpha=alpha)).lower(x).compile()
        counts.append(len(hits))
        assert_same_bytes([np.asarray(compiled(x))], reference("swiglu_oai", gate_up, alpha=alpha))
    assert counts == [0, 1, 0]


KNOWN = """
import pytest, sys

class Known:
    def pytest_sessionstart(self):
        sys.modules["conftest"].has_gpu = lambda: {gpu}

pytest.main(sys.argv[1:], [Known()])
"""


def pytest_with(gpu: bool, *arguments: str) -> str:
    """What pytest prints in a process whose conftest takes the machine for one with a GPU, or without."""
    root = Path(__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), str(root / "tests")])}
    command = [sys.executable, "-c", KNOWN.format(gpu=gpu), "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True, env=environment).stdout


CONTRACT = ("tests/test_contract.py", "--collect-only", "-q", "-k", "swiglu_oai and (torch-cpu or torch-gpu)")


def test_cases_for_a_gpu_are_left_out_where_there_is_none() -> None:
    """By a backend among the parameters, too. The line counts what the options would have chosen."""
    without, with_one = (pytest_with(gpu, *CONTRACT) for gpu in (False, True))
    gpu, cpu = ({text.count(f"[torch-{place}-") for text in (without, with_one)} for place in ("gpu", "cpu"))
    assert (gpu, len(cpu)) == ({0, *cpu}, 1)
    assert re.findall(r"^(\d+) GPU cases left out: no GPU here$", without, re.MULTILINE) == [str(max(gpu))]
    assert "left out" not in with_one


def test_a_worker_says_what_it_left_out() -> None:
    """pytest-xdist's processes import conftest anew: without a GPU this runs as it is, with one nothing is left out."""
    printed = pytest_with(conftest.has_gpu(), "tests/test_torch_nn.py", "-n", "1", "-k", "shorter_way")
    assert ("1 GPU case left out: no GPU here" in printed) == (not conftest.has_gpu())


@pytest.mark.parametrize("found", ["PyTorch", "a driver", "JAX", ""])
def test_a_gpu_is_found(found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By each sign alone, so that one that PyTorch cannot use is not taken for none."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: found == "PyTorch")
    monkeypatch.setattr(conftest, "DRIVERS", (str(tmp_path if found == "a driver" else tmp_path / "missing"),))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu" if found == "JAX" else "cpu")
    assert conftest.has_gpu() == bool(found)
