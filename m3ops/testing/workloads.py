"""All workloads: what ``python -m m3ops bench`` times and the tests run a few rows of."""

from __future__ import annotations

from m3ops.testing.discovery import modules
from m3ops.testing.workload import Workload

WORKLOADS: tuple[Workload, ...] = tuple(workload for module in modules("workloads") for workload in module.WORKLOADS)
