"""The loop: every workload, every contender, bytes before times."""

from __future__ import annotations

import gc
import math
import os
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

import m3ops
from m3ops.testing.workload import Workload
from m3ops.tools.bench import check
from m3ops.tools.bench.jax_side import JaxSide
from m3ops.tools.bench.plot import draw
from m3ops.tools.bench.result import CONTENDERS, OURS, TIMED_BY_JAX, Report, Row
from m3ops.tools.bench.side import Contender, Side, Unavailable
from m3ops.tools.bench.table import render
from m3ops.tools.bench.torch_side import TorchSide
from m3ops.tools.progress import Progress

ROTATED_BYTES = 2**30
"""Inputs that back-to-back calls go around: four times the largest cache of a GPU."""


def main(
    workloads: Sequence[Workload], parts: Sequence[str], contenders: Sequence[str], json_path: Path, png_path: Path
) -> int:
    """Runs the benchmark, writes both files, prints the table; 1 if there is no GPU or a check of ours failed."""
    sides, notes = find_sides(_kinds(contenders))
    if not sides:
        print("bench needs a CUDA or ROCm device and PyTorch or JAX to reach it:", *notes, sep="\n  ", file=sys.stderr)
        return 1
    report = start_report(sides, [f"{note}; its columns are absent" for note in notes])
    run(sides, workloads, contenders, report, parts, json_path)
    problem = draw(report, png_path)
    report.notes += [problem] if problem else []
    print(render(report))
    print("written:", json_path, *([] if problem else [png_path]))
    return 1 if report.failures else 0


def _kinds(contenders: Sequence[str]) -> list[Callable[[], Side]]:
    """The sides that these contenders need; a first one in any case."""
    wanted: list[Callable[[], Side]] = [TorchSide] if set(contenders) - set(TIMED_BY_JAX) else []
    return wanted + [JaxSide] if set(contenders) & set(TIMED_BY_JAX) else wanted


def find_sides(kinds: Sequence[Callable[[], Side]]) -> tuple[list[Side], list[str]]:
    """The frameworks that can take part, and why the others cannot."""
    sides, notes = [], []
    for kind in kinds:
        try:
            sides.append(kind())
        except (Unavailable, ImportError) as error:
            notes.append(str(error))
    return sides, notes


def start_report(sides: Sequence[Side], notes: list[str]) -> Report:
    """A report with the machine's own figures: device, versions, copy bandwidth, an empty kernel."""
    versions = {"m3ops": m3ops.__version__, "numpy": np.__version__}
    for side in sides:
        versions |= side.versions
    date = datetime.now(UTC).isoformat(timespec="seconds")
    first = sides[0]
    report = Report(first.device, versions, date, copy_gbps=first.copy_gbps(), empty_us=first.empty_us(), notes=notes)
    report.cores = os.cpu_count()
    first.release()
    return report


def run(
    sides: Sequence[Side],
    workloads: Sequence[Workload],
    contenders: Sequence[str],
    report: Report,
    parts: Sequence[str] = ("host",),
    json_path: Path | None = None,
) -> None:
    """Checks and times, fills in the report, and writes it at each step: a run that is stopped leaves what it has."""
    begun = perf_counter()

    def save() -> None:
        report.seconds = round(perf_counter() - begun, 1)
        if json_path is not None:
            report.save(json_path)

    with Progress(len(workloads) + len(parts), "workload") as progress:
        for workload in workloads:
            progress.at(workload.id)
            try:
                _Workload(sides, workload, contenders, report).run()
            except Exception as error:  # out of memory at one size leaves the others
                report.failures.append(f"{workload.id}: {_describe(error)}")
            gc.collect()
            for side in sides:
                side.release()
            save()
            progress.step()
        for part in parts:
            progress.at(part)
            for side in sides:
                if f"m3ops_{side.name}" in contenders:
                    try:
                        for cost in getattr(side, part)():
                            getattr(report, part).append(cost)
                    except Exception as error:
                        report.failures.append(f"{part}, {side.name}: {_describe(error)}")
                    side.release()
                    save()
            progress.step()


class _Workload:
    """One workload on every side."""

    def __init__(self, sides: Sequence[Side], workload: Workload, contenders: Sequence[str], report: Report) -> None:
        self._sides, self._workload, self._contenders, self._report = sides, workload, contenders, report
        source = sides[0]
        sets = [source.make(workload, seed) for seed in range(_count_sets(workload))]
        self._rows = check.sample_rows(workload)
        sampled = self._sampled(source, sets[0])
        self._want = check.of_rows(workload, check.expected(workload, sampled))
        self._bound = check.error_bound(workload, sampled)
        self._sets = {source.name: sets}
        self._ours: dict[str, tuple[Any, ...]] = {}

    def _sampled(self, side: Side, inputs: Sequence[Any]) -> list[np.ndarray]:
        """The rows that are checked, and whole what has none, such as the weight of a product."""
        sampled = []
        for array, axes in zip(inputs, self._workload.axes.inputs, strict=True):
            every = np.arange(array.shape[-2]) if array.ndim > 1 else self._rows
            (own,) = side.rows([array], self._rows if axes.rows else every)
            sampled.append(own[self._rows] if axes.rows and not axes.axes else own)  # positions, a vector, came whole
        some_rows = self._workload.some_rows
        return list(some_rows(sampled, self._rows)) if some_rows else sampled

    def run(self) -> None:
        for side in self._sides:
            if side.name not in self._sets:
                source = self._sides[0]
                self._sets[side.name] = [side.adopt(source.share(made)) for made in self._sets[source.name]]
        made = [(side, name, variants) for side in self._sides for name, variants in self._variants(side).items()]
        # Ours first: what they return is compared across frameworks before anything is timed.
        passed = [item for item in sorted(made, key=lambda item: CONTENDERS.index(item[1])) if self._passes(*item)]
        if self._same_everywhere():
            self._ours.clear()
            for side, name, variants in passed:
                self._time(side, name, variants)

    def _variants(self, side: Side) -> dict[str, list[Contender]]:
        return {name: made for name, made in side.contenders(self._workload).items() if name in self._contenders}

    def _passes(self, side: Side, name: str, variants: list[Contender]) -> bool:
        try:
            if name != "copy":
                for variant in variants:
                    self._check(side, name, variant)
        except Exception as error:  # a rival that does not compile here is a finding, not the end
            self._record(name, error)
            return False
        return True

    def _check(self, side: Side, name: str, contender: Contender) -> None:
        results = side.results(contender(*self._sets[side.name][0]))
        got = check.picked(self._workload, side.rows, check.of_rows(self._workload, results), self._rows)
        if name in OURS:
            if self._bound is None:
                check.same_bytes(got, self._want)
            else:
                check.within(got, self._want, self._bound)
            self._ours[side.name] = results
        else:
            check.close(got, self._want)

    def _same_everywhere(self) -> bool:
        """Whether PyTorch and JAX gave the same bytes, in every row."""
        torch, jax = (next((s for s in self._sides if s.name == name), None) for name in ("torch", "jax"))
        if not (isinstance(torch, TorchSide) and jax is not None and {"torch", "jax"} <= set(self._ours)):
            return True
        same = torch.same(self._ours["torch"], torch.adopt(jax.share(self._ours["jax"])))
        if not same:
            self._record("m3ops_jax", check.CheckFailed("bytes differ from m3ops_torch's"))
        return same

    def _time(self, side: Side, name: str, variants: list[Contender]) -> None:
        workload = self._workload
        try:
            timed = [side.time(variant, self._sets[side.name], workload.small) for variant in variants]
        except Exception as error:
            self._record(name, error)
            return
        mode, us = min(timed, key=lambda pair: pair[1])
        gbps = None if mode == "call" else workload.bytes_moved / us * 1e-3
        of_copy = None if gbps is None else gbps / self._report.copy_gbps
        shape = (workload.num_rows, workload.size)
        self._report.rows.append(Row(workload.op, workload.name, shape, mode, name, us, gbps, of_copy))

    def _record(self, name: str, error: Exception) -> None:
        """What went wrong: a failure of ours, a note about a rival."""
        message = f"{name}, {self._workload.id}: {_describe(error)}"
        (self._report.failures if name in OURS else self._report.notes).append(message)


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0][:200]}"


def _count_sets(workload: Workload) -> int:
    if workload.small:
        return 1
    return math.ceil(ROTATED_BYTES / sum(spec.nbytes for spec in workload.inputs))
