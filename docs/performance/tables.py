"""Prints the tables of performance.md from the benchmark's JSON files beside this script."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from m3ops.testing.workloads import WORKLOADS
from m3ops.tools.bench.layer import of_copy
from m3ops.tools.bench.result import Report, Row

GPUS = ("h100", "h200")
LARGE = ("m3ops_torch", "m3ops_jax", "torch.compile", "jax.jit", "chain", "fp32-sum", "copy")
DECODE = ("m3ops_torch", "torch.compile", "chain", "fp32-sum", "copy")
PADDED = ("m3ops_torch", "live-rows")
GRADIENT = ("m3ops_torch", "m3ops_jax", "torch.compile", "jax.jit", "Liger", "copy")
KINDS = {(w.op, w.name): w.kind for w in WORKLOADS}
HEADS = {"chain": "two kernels", "fp32-sum": "fp32 sum", "live-rows": "live rows alone"}
LAYERS = {
    "m3ops_torch, fast": "fast",
    "m3ops_torch, exact": "exact",
    "bfloat16, torch._grouped_mm": "bfloat16",
    "m3ops_jax, fast": "fast, JAX",
    "m3ops_jax, exact": "exact, JAX",
    "bfloat16, jax.lax.ragged_dot": "bfloat16, JAX",
}
TOLD = ("interleaved", "out=")
"""What the size does not tell of a workload."""


def main() -> None:
    files = Path(__file__).parent
    reports = {gpu: Report.load(files / f"{gpu}.json") for gpu in GPUS}
    parts = {gpu: Report.load(path) for gpu in GPUS if (path := files / f"{gpu}-parts.json").exists()}
    for heading, lines in {
        "Large inputs": tables(reports, "large", LARGE),
        "Decode": tables(reports, "small", DECODE),
        "Counted rows": tables(reports, "padded", PADDED),
        "Gradients": tables(parts, "gradient", GRADIENT),
        "Experts": layers(parts),
        "Programs of many ops": costs(parts, "programs", "us an op", 1),
        "On a CPU": costs(parts, "cpu", "ms a call", 1000),
        "What a call costs the host": costs(reports, "host", "us on the host", 1),
    }.items():
        if measured := list(lines):
            print(f"## {heading}\n", *measured, sep="\n")


def tables(reports: dict[str, Report], kind: str, contenders: tuple[str, ...]) -> Iterator[str]:
    """A table for each op, with a line for each GPU and workload of this kind."""
    workloads = {
        key: rows
        for report in reports.values()
        for key, rows in report.workloads().items()
        if KINDS[key] == kind and any(name in rows for name in contenders)
    }
    ops = dict.fromkeys(op for op, _ in workloads)
    for op in ops:
        names = [n for n in contenders if any(n in rows for (of, _), rows in workloads.items() if of == op)]
        yield f"`{op}`\n"
        yield f"| rows x size | GPU | {' | '.join(HEADS.get(name, name) for name in names)} |"
        yield "|---" * (2 + len(names)) + "|"
        for (of, workload), rows in workloads.items():
            if of != op:
                continue
            size = ", ".join(["{} x {}".format(*next(iter(rows.values())).shape), *told(workload)])
            for gpu, report in reports.items():
                if timed := report.workloads().get((op, workload)):
                    cells = (_cell(timed.get(name), report) for name in names)
                    yield f"| {size} | {gpu.upper()} | {' | '.join(cells)} |"
                    size = ""
        yield ""


def told(workload: str) -> list[str]:
    """The part of a workload's name that its size does not tell."""
    return [part for part in workload.split(", ") if part in TOLD]


def _cell(row: Row | None, report: Report) -> str:
    if row is None:
        return ""
    if row.mode == "graph":
        multiple = f" ({row.us / report.empty_us:.1f}x)" if report.empty_us and row.contender == "m3ops_torch" else ""
        return f"{row.us:.2f}{multiple}"
    fraction = f"{row.of_copy:.2f}"
    bold = f"**{fraction}**" if row.contender == "m3ops_torch" else fraction
    return f"{row.us:.0f} ({bold})"


def costs(reports: dict[str, Report], part: str, head: str, us: int) -> Iterator[str]:
    """What one call costs, in units of so many us, by the machines where this part was measured."""
    by_gpu = {
        gpu: {cost.what: cost.us for cost in of} for gpu, report in reports.items() if (of := getattr(report, part))
    }
    whats = dict.fromkeys(what for of in by_gpu.values() for what in of)
    if whats:
        yield f"| {head} | {' | '.join(f'{gpu.upper()} machine' for gpu in by_gpu)} |"
        yield "|---" * (1 + len(by_gpu)) + "|"
    for what in whats:
        cells = (_short(of[what] / us) if what in of else "" for of in by_gpu.values())
        yield f"| {what} | {' | '.join(cells)} |"


def layers(reports: dict[str, Report]) -> Iterator[str]:
    """A mixture of experts of each number of tokens; experts are those that have tokens in PyTorch's calls."""
    if any(report.layers for report in reports.values()):
        yield f"| tokens | experts with tokens | {' | '.join(LAYERS.values())} | copy over fast | GPU |"
        yield "|---" * (4 + len(LAYERS)) + "|"
    for gpu, report in reports.items():
        for tokens in dict.fromkeys(each.tokens for each in report.layers):
            of = {each.contender: each for each in report.layers if each.tokens == tokens and each.us is not None}
            cells = [f"{of[name].us:,.0f}" if name in of else "" for name in LAYERS]
            first = of.get(next(iter(LAYERS)))
            experts, fraction = (first.experts, f"{of_copy(first, report.copy_gbps):.2f}") if first else ("", "")
            yield f"| {tokens} | {experts} | {' | '.join(cells)} | {fraction} | {gpu.upper()} |"


def _short(number: float) -> str:
    return f"{number:.0f}" if number >= 20 else f"{number:.1f}"


if __name__ == "__main__":
    main()
