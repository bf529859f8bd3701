"""Shared fixtures."""

from __future__ import annotations

import jax
import pytest
import torch
from backends import BACKENDS, Backend

# For the tests of sharding, where JAX_NUM_CPU_DEVICES does not say otherwise. It has to be said before JAX starts its
# CPU backend; a program uses one device unless told.
if jax.config.jax_num_cpu_devices < 1:
    jax.config.update("jax_num_cpu_devices", 8)


@pytest.fixture(params=BACKENDS, ids=lambda backend: backend.name)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each backend that this machine has."""
    chosen: Backend = request.param
    if reason := chosen.missing():
        pytest.skip(reason)
    return chosen


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """Where PyTorch's tensors are."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA or HIP device")
    return str(request.param)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--corpus", choices=("sample", "full"), default="sample", help="how many generated calls to try")
