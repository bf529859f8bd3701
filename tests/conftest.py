"""Shared fixtures, and what makes a run of the tests short."""

from __future__ import annotations

import functools
import gc
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest
import torch
from backends import Backend

from m3ops.testing.case import Case
from m3ops.testing.cases import few_cases

# For the tests of sharding, where JAX_NUM_CPU_DEVICES does not say otherwise. It has to be said before JAX starts its
# CPU backend; a program uses one device unless told.
if jax.config.jax_num_cpu_devices < 1:
    jax.config.update("jax_num_cpu_devices", 8)


SLOW = (
    *("test_amdgcn_*", "test_rocm_*", "test_mxfp8_matmul_fast"),  # AMD GPUs' code is compiled, and executed in Python
    "test_jax_*",  # XLA compiles programs of many devices, of gradients, for export; test_jax.py has one of each kind
    "test_torch_compile",  # so does inductor, with a C++ compiler
    *("test_corpus", "test_axes", "test_exhaustive", "test_pieces"),  # generated and exhaustive calls; all cases again
    *("test_grouped_linear", "test_sharded_experts", "test_torch_dtensor"),  # layers that train, and on many devices
    *("test_notebooks", "test_bench*", "test_workloads", "test_selftest"),  # what stands around the library, as a whole
    *("test_docs", "test_readme", "test_package", "test_conftest"),
)
"""Files of tests that take long, by what takes long in them."""

COMPILED = {"jax-cpu", "interpreter"}
"""Backends that take long for a case: XLA compiles it, or Triton's interpreter runs its programs one by one."""

DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""What the drivers of GPUs put into the file system: NVIDIA's, AMD's, and Windows' for Linux in it."""

LEFT_OUT = pytest.StashKey[int]()


@functools.cache
def is_slow(path: Path) -> bool:
    """Whether a file's tests are left to ``make test-all``."""
    return any(path.match(f"{name}.py") for name in SLOW)


def has_gpu() -> bool:
    """Whether this machine has a GPU, be it one that PyTorch and JAX cannot use. Its cases are then not left out: those
    that cannot run are skipped, one by one, and say what is missing.
    """
    return torch.cuda.is_available() or any(map(os.path.exists, DRIVERS)) or jax.default_backend() != "cpu"


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """Where PyTorch's tensors are."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA or HIP device")
    return str(request.param)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--corpus", choices=("sample", "full"), default="sample", help="how many generated calls to try")


def pytest_configure(config: pytest.Config) -> None:
    """XLA compiles one program once a run: the workers share a folder of JAX's compilation cache, new for each run.

    Many tests compile what another has compiled, and a third of a run's processor time is XLA's. A cached program is
    what the default compilation gave. The processes that tests start do without.
    """
    folder = getattr(config, "workerinput", {}).get("m3ops_xla_cache")
    if folder is None:
        made = tempfile.TemporaryDirectory(prefix="m3ops-xla-")
        config.add_cleanup(made.cleanup)
        folder = made.name
    config.m3ops_xla_cache = folder  # type: ignore[attr-defined]
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_remove_custom_partitioning_ptr_from_cache_key", True)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """pytest-xdist starts a worker."""
    node.workerinput["m3ops_xla_cache"] = node.config.m3ops_xla_cache


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """Marks by kind what ``make test`` and ``make quick`` leave to ``make test-all``, and what needs a GPU.

    Of the cases that ``-m`` and ``-k`` choose, those that need a GPU are left out where there is none.
    """
    few = few_cases()
    for item in items:
        given = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        backends = {value.name for value in given.values() if isinstance(value, Backend)}
        if any(name.endswith("-gpu") for name in backends):
            item.add_marker("gpu")
        further = isinstance(given.get("case"), Case) and given["case"] not in few
        if further:
            item.add_marker("further")
        if (further and backends & COMPILED) or is_slow(item.path):
            item.add_marker("slow")
    yield
    left_out = [item for item in items if item.get_closest_marker("gpu")]
    if left_out and not has_gpu():
        config.stash[LEFT_OUT] = len(left_out)
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("gpu")]


def pytest_collection_finish() -> None:
    """Garbage is looked for less often, and not among the modules and the tests, which are there until the end."""
    gc.freeze()
    gc.set_threshold(10_000)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of pytest-xdist says how many cases it left out; each worker leaves out the same."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["m3ops_left_out"] = session.config.stash.get(LEFT_OUT, 0)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A worker of pytest-xdist has ended. One that crashed says nothing."""
    if left_out := getattr(node, "workeroutput", {}).get("m3ops_left_out", 0):
        node.config.stash[LEFT_OUT] = left_out


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if left_out := config.stash.get(LEFT_OUT, 0):
        terminalreporter.write_line(f"{left_out} GPU case{'s' * (left_out > 1)} left out: no GPU here")
