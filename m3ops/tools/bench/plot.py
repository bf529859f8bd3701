"""The report as a chart: bandwidth of the large workloads beside that of a copy, one panel an op."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from m3ops.tools.bench.result import CONTENDERS, Report, Row

# Blue is ours. Okabe and Ito's hues, which colour-blind readers can tell apart, light enough to write on.
COLORS = {
    "m3ops_torch": "#4C9BD6",
    "m3ops_jax": "#9CCBEF",
    "torch.compile": "#E8894A",
    "jax.jit": "#F3C46B",
    "Liger": "#A8A05A",
    "chain": "#D99BBE",
    "fp32-sum": "#6CC5A4",
    "live-rows": "#7F8FD1",
    "copy": "#CCCCCC",
}
LABELS = {
    "torch.compile": "torch.compile of the formula",
    "jax.jit": "jax.jit of the formula",
    "chain": "two kernels, unfused",
    "fp32-sum": "Triton norm, fp32 tl.sum",
    "live-rows": "our call on the rows that count alone",
    "copy": "copy of as many bytes",
}


def draw(report: Report, path: Path) -> str | None:
    """Writes the chart, or returns why not."""
    rows = [row for row in report.rows if row.mode in ("events", "batch")]
    if not rows:
        return "no large workload was timed: no chart"
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return "matplotlib is not installed: no chart (in a checkout, pip install '.[bench]')"
    ops = list(dict.fromkeys(row.op for row in rows))
    columns = min(len(ops), 3)
    lines = -(-len(ops) // columns)
    figure = Figure(figsize=(2 + 4.6 * columns, 1.9 + 3.4 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False, sharey=True).ravel()
    for axis, op in zip(axes, ops, strict=False):
        _panel(axis, op, [row for row in rows if row.op == op])
    for axis in axes[len(ops) :]:
        axis.set_visible(False)
    for axis in axes[::columns]:
        axis.set_ylabel("bandwidth / that of a 1 GiB copy")
        axis.set_ylim(0, 1.05 * max(1.0, *(row.of_copy or 0.0 for row in rows)))
    _around(figure, report, [name for name in CONTENDERS if any(row.contender == name for row in rows)], list(axes))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return None


def _panel(axis: Any, op: str, rows: Sequence[Row]) -> None:
    workloads = list(dict.fromkeys((row.workload, row.shape) for row in rows))
    names = [name for name in CONTENDERS if any(row.contender == name for row in rows)]
    width = 0.84 / len(names)
    for number, name in enumerate(names):
        timed = {row.workload: row.of_copy or 0.0 for row in rows if row.contender == name}
        places = [at + (number - (len(names) - 1) / 2) * width for at, (w, _) in enumerate(workloads) if w in timed]
        heights = [timed[w] for w, _ in workloads if w in timed]
        axis.bar(places, heights, 0.92 * width, color=COLORS[name], label=name)
        for place, height in zip(places, heights, strict=True):
            axis.text(place, 0.03, f"{height:.2f}", rotation=90, ha="center", va="bottom", fontsize=8.5)
    axis.axhline(1, color="black", linewidth=0.8, linestyle="--")
    axis.set_title(op, fontsize=11, fontweight="bold")
    labels = [f"{name.replace(', ', ',\n')}\n{m} x {size}" for name, (m, size) in workloads]
    axis.set_xticks(range(len(workloads)), labels, fontsize=8)
    axis.tick_params(axis="x", length=0)
    axis.spines[["top", "right"]].set_visible(False)


def _around(figure: Any, report: Report, names: Sequence[str], axes: Sequence[Any]) -> None:
    """Title and legend."""
    handles: dict[str, Any] = {}
    for axis in axes:
        found, labels = axis.get_legend_handles_labels()
        handles |= dict(zip(labels, found, strict=True))
    shown = [LABELS.get(name, name) for name in names]
    figure.legend([handles[name] for name in names], shown, loc="outside lower center", ncols=len(names), frameon=False)
    packages = ("torch", "jax", "triton", "cuda", "hip")
    versions = ", ".join(f"{name} {report.versions[name]}" for name in packages if name in report.versions)
    figure.suptitle(
        f"m3ops {report.versions['m3ops']} on {report.device}, bfloat16 (1 = copy at {report.copy_gbps:.0f} GB/s; "
        f"higher is better)\n{versions}, {report.date[:10]}",
        fontsize=12,
    )
