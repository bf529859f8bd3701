"""The report as text."""

from __future__ import annotations

from collections.abc import Iterator

from m3ops.tools.bench.layer import of_copy
from m3ops.tools.bench.result import CONTENDERS, OURS, Report, Row, best_rival
from m3ops.tools.bench.side import ON_CPU

LEGEND = """\
us, median; beside it the fraction of copy bandwidth (large), or multiples of an empty kernel's replay (e).
PyTorch: events with the L2 cache flushed (large), graph replay (decode). JAX: wall clock of asynchronous batches over
rotating inputs (large), of one call with the host's part (decode, marked h). GB/s are our kernel's, the better side's.
Ratio: time of the best rival over ours, timed alike; above 1 ours is faster. "copy" moves as many bytes. "live-rows" is
our call on the rows that count alone, after a zero fill of all rows where results are new (no out=). "_backward" is the
backward of autograd or of a vjp, without forward. "graphs of any size" is an option of jax.jit, see program.py."""


def render(report: Report) -> str:
    """The whole report."""
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    empty = f"; empty kernel in a graph {report.empty_us:.2f} us" if report.empty_us else ""
    head = [f"{report.device}: copy of 1 GiB {report.copy_gbps:.0f} GB/s{empty}", versions, report.date, ""]
    tail = [LEGEND, "", *_costs(report), *_layers(report)]
    tail += [f"note: {note}" for note in report.notes] + [f"FAILED: {failure}" for failure in report.failures]
    tail.append(f"{report.seconds:.0f} s in all")
    return "\n".join([*head, *_timings(report), *tail])


def _timings(report: Report) -> list[str]:
    columns = [name for name in CONTENDERS if any(row.contender == name for row in report.rows)]
    ours = [name for name in columns if name in OURS]
    heads = ["rows x size", "workload", *columns, "GB/s", *(f"ratio {name.removeprefix('m3ops_')}" for name in ours)]
    lines: list[str] = []
    by_op: dict[str, list[list[str]]] = {}
    for (op, _), rows in report.workloads().items():
        by_op.setdefault(op, []).append(_cells(rows, columns, ours, report.empty_us))
    every_line = [heads, *(cells for of_op in by_op.values() for cells in of_op)]
    widths = [max(map(len, column)) for column in zip(*every_line, strict=True)]
    for op, all_cells in by_op.items():
        lines += [op, *(_line(cells, widths) for cells in [heads, *all_cells]), ""]
    return lines


def _cells(rows: dict[str, Row], columns: list[str], ours: list[str], empty_us: float | None) -> list[str]:
    first = next(iter(rows.values()))
    cells = ["{} x {}".format(*first.shape), first.workload]
    cells += [_time(rows[name], empty_us) if name in rows else "" for name in columns]
    speeds = [row.gbps for name in ours if (row := rows.get(name)) and row.gbps]
    return [*cells, f"{max(speeds):.0f}" if speeds else "", *(_ratio(rows, name) for name in ours)]


def _time(row: Row, empty_us: float | None) -> str:
    if row.mode == "call":
        return f"{row.us:.1f} h   "
    if row.mode == "graph":
        return f"{row.us:.2f}" + (f" {row.us / empty_us:.1f}e" if empty_us else "")
    return f"{row.us:.1f} {row.of_copy:.2f}"


def _ratio(rows: dict[str, Row], name: str) -> str:
    rival = best_rival(rows[name], rows.values()) if name in rows else None
    return f"{rival.us / rows[name].us:.2f} {rival.contender}" if rival else ""


def _line(cells: list[str], widths: list[int]) -> str:
    sides = ("<", "<", *(">" for _ in cells[2:]))
    return (
        "  "
        + "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(cells, sides, widths, strict=True)).rstrip()
    )


def _costs(report: Report) -> Iterator[str]:
    for heading, costs, us in (
        ("host time of a call, us", report.host, 1),
        ("one op in a program of many, us", report.programs, 1),
        (f"{ON_CPU.op} {ON_CPU.inputs[0].shape} on {report.cores} CPU cores, ms", report.cpu, 1000),
    ):
        if costs:
            yield from [heading, *(f"{cost.us / us:9.2f}  {cost.what}" for cost in costs), ""]


def _layers(report: Report) -> Iterator[str]:
    """PyTorch's in a CUDA graph with the L2 cache flushed, JAX's by the wall clock, the host's part in it."""
    if report.layers:
        yield "a mixture of experts, us, and the fraction of copy bandwidth at which it reads its experts"
    for each in report.layers:
        fraction = of_copy(each, report.copy_gbps)
        cells = "         -     -" if each.us is None else f"{each.us:10.1f}  {fraction:.2f}"
        yield f"{cells}  {each.tokens} tokens, {each.experts} experts, {each.contender}"
    yield from [""] * bool(report.layers)
