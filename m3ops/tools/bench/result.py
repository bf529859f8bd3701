"""What a run measured, and its JSON form.

The file is one object:

    device        name of the GPU
    versions      {package: version}, with "cuda" or "hip" for what PyTorch was built with
    date          start of the run, ISO 8601, UTC
    seconds       length of the run
    copy_gbps     GB/s of a 1 GiB device-to-device copy, bytes read plus bytes written, timed like the large workloads
    empty_us      microseconds of an empty kernel in a graph replay, null without PyTorch
    rows          [{op, workload, shape, mode, contender, us, gbps, of_copy}]
    cores         how many the host's CPU has
    host          [{what, us}]: microseconds of one call in a loop that never waits, device time hidden
    programs      [{what, us}]: microseconds of one op in a program of many, see program.py
    layers        [{tokens, experts, contender, us}]: microseconds of a mixture of experts and how many experts have
                  tokens, see layer.py; null where a rival could not run
    cpu           [{what, us}]: microseconds of one call on the host's CPU
    notes         what is absent and why
    failures      checks that failed; nothing was timed there

A row's ``shape`` is [rows, elements of a row of the result]. ``gbps`` counts each input byte read once and each output
byte written once, whatever the contender moves, and of rows that do not count the zeros alone; ``of_copy`` is
``gbps / copy_gbps``. Both are null in mode "call".
``mode`` says how ``us``, a median, was taken:

    events   device events around one call, the L2 cache flushed before (PyTorch, large and gradients)
    graph    replay of a graph of 20 calls, by call, inputs in the cache (PyTorch, small and padded)
    batch    wall clock of many asynchronous calls, by call, over inputs larger than any cache (JAX, the same)
    call     the same over one input: the host's time by call, with the device's where that is longer (JAX, small)
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

OURS = ("m3ops_torch", "m3ops_jax")
RIVALS = ("torch.compile", "jax.jit", "Liger", "chain", "fp32-sum", "live-rows")
CONTENDERS = (*OURS, *RIVALS, "copy")
"""Ours; the plain formulas compiled; Liger's norms, of gradients; two kernels unfused; norms that ``tl.sum`` in fp32;
for a buffer of which not all rows count, our call on those that do, after one zero fill of all results where they are
new; a copy of as many bytes.
"""

TIMED_BY_JAX = ("m3ops_jax", "jax.jit")

COMPARABLE = {"events": {"events", "batch"}, "batch": {"events", "batch"}, "graph": {"graph"}, "call": {"call"}}


@dataclass(frozen=True)
class Row:
    """One timing; the attributes are described above."""

    op: str
    workload: str
    shape: tuple[int, int]
    mode: str
    contender: str
    us: float
    gbps: float | None
    of_copy: float | None


PARTS = ("host", "programs", "layers", "cpu")
"""What is measured beside the workloads: an attribute of a report, which a method of a side fills."""


@dataclass(frozen=True)
class Cost:
    """Microseconds that one call costs."""

    what: str
    us: float


@dataclass(frozen=True)
class LayerTime:
    """One timing of a mixture of experts."""

    tokens: int
    experts: int
    contender: str
    us: float | None


@dataclass
class Report:
    """Everything a run found out; the attributes are described above."""

    device: str
    versions: dict[str, str]
    date: str
    copy_gbps: float
    empty_us: float | None = None
    seconds: float = 0.0
    rows: list[Row] = field(default_factory=list)
    cores: int | None = None
    host: list[Cost] = field(default_factory=list)
    programs: list[Cost] = field(default_factory=list)
    layers: list[LayerTime] = field(default_factory=list)
    cpu: list[Cost] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def workloads(self) -> dict[tuple[str, str], dict[str, Row]]:
        """``(op, workload) -> {contender: row}``, in the order of timing."""
        grouped: dict[tuple[str, str], dict[str, Row]] = {}
        for row in self.rows:
            grouped.setdefault((row.op, row.workload), {})[row.contender] = row
        return grouped

    def save(self, path: Path) -> None:
        """Writes the file, or leaves the one that is there: a run may be stopped at any time."""
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        new.write_text(json.dumps(asdict(self), indent=1) + "\n")
        new.replace(path)

    @classmethod
    def load(cls, path: Path) -> Report:
        data: dict[str, Any] = json.loads(path.read_text())
        rows = [Row(**{**row, "shape": tuple(row["shape"])}) for row in data.pop("rows")]
        kinds = {part: LayerTime if part == "layers" else Cost for part in PARTS}
        data |= {part: [kind(**cost) for cost in data.get(part, [])] for part, kind in kinds.items()}
        return cls(rows=rows, **data)


def best_rival(ours: Row, rows: Iterable[Row]) -> Row | None:
    """The fastest rival that was timed in a comparable way."""
    rivals = [row for row in rows if row.contender in RIVALS and row.mode in COMPARABLE[ours.mode]]
    return min(rivals, key=lambda row: row.us, default=None)
