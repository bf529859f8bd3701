"""Shared fixtures."""

from __future__ import annotations

import pytest
from backends import BACKENDS, Backend


@pytest.fixture(params=BACKENDS, ids=lambda backend: backend.name)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each backend that this machine has."""
    chosen: Backend = request.param
    if reason := chosen.missing():
        pytest.skip(reason)
    return chosen
