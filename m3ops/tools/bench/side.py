"""What a framework's half of the benchmark offers to the loop in run.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from m3ops.testing.workload import Workload
from m3ops.testing.workloads import WORKLOADS
from m3ops.tools.bench.result import Cost, LayerTime

Inputs = tuple[Any, ...]
Contender = Callable[..., Any]
Shared = tuple[Any, str]
"""An array as integers of its elements' size, and the name of its dtype."""


ONE_CALL = next(w for w in WORKLOADS if w.op == "swiglu_oai_quantize" and w.num_rows == 4)
"""The call for which the time of the host is measured."""

ON_CPU = ONE_CALL.with_rows(4096)
"""The call that is timed on a CPU."""


class Unavailable(Exception):
    """Why a framework cannot take part."""


class Side(Protocol):
    """A framework with a GPU: makes inputs, computes, times.

    Attributes:
        name: ``"torch"`` or ``"jax"``.
        device: Name of the GPU.
        versions: Versions of its packages.
    """

    name: str
    device: str
    versions: dict[str, str]

    def make(self, workload: Workload, seed: int) -> Inputs:
        """Random inputs on the device, normal numbers where they are floats."""
        ...

    def share(self, arrays: Sequence[Any]) -> list[Shared]:
        """Finished arrays in the form that every framework's DLPack takes."""
        ...

    def adopt(self, shared: Sequence[Shared]) -> Inputs:
        """Another framework's arrays as this one's, the bytes unchanged."""
        ...

    def results(self, outputs: Any) -> tuple[Any, ...]:
        """What a contender gave, as a flat tuple of arrays."""
        ...

    def rows(self, arrays: Sequence[Any], rows: np.ndarray) -> list[np.ndarray]:
        """These rows of each matrix, of all of a batch, and vectors whole, as NumPy arrays."""
        ...

    def contenders(self, workload: Workload) -> dict[str, list[Contender]]:
        """Contenders by name; of several variants the fastest counts."""
        ...

    def time(self, contender: Contender, sets: Sequence[Inputs], small: bool) -> tuple[str, float]:
        """Mode and microseconds of a call on these sets of inputs."""
        ...

    def copy_gbps(self) -> float:
        """Bandwidth of a 1 GiB copy, bytes read plus bytes written."""
        ...

    def empty_us(self) -> float | None:
        """Microseconds of an empty kernel in a graph replay."""
        ...

    def host(self) -> list[Cost]:
        """Host time of a call, and of a plain one of the same shape."""
        ...

    def programs(self) -> list[Cost]:
        """Time of one op in programs of many."""
        ...

    def layers(self) -> Iterator[LayerTime]:
        """Time of a mixture of experts of several numbers of tokens."""
        ...

    def cpu(self) -> list[Cost]:
        """Time of a call on the CPU, and of the plain formula."""
        ...

    def release(self) -> None:
        """Gives back what a workload left in memory."""
        ...
