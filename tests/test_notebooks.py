"""The notebooks run from their sources, what is committed is a run of them, and their charts say what was measured."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import nbformat
import pytest
import smollm2
import torch
from execute import FOLDER, NAMES, execute, read
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from m3ops.testing.workloads import WORKLOADS
from m3ops.tools.bench.plot import LABELS
from m3ops.tools.bench.result import CONTENDERS, Report
from m3ops_torch import mxfp8_matmul

REPORTS = [Report.load(FOLDER.parent / "docs" / "performance" / f"{gpu}.json") for gpu in ("h100", "h200")]
CONTENDER_OF = {LABELS.get(name, name): name for name in CONTENDERS}


@pytest.mark.parametrize("name", NAMES)
def test_committed_notebook_is_a_run_of_its_source(name: str) -> None:
    """``python notebooks/execute.py NAME`` makes it so."""
    committed, source = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4), read(name)
    nbformat.validate(committed)
    assert [(c.id, c.cell_type, c.source) for c in committed.cells] == [
        (c.id, c.cell_type, c.source) for c in source.cells
    ]
    code = [cell for cell in committed.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not [output for cell in code for output in cell.outputs if output.output_type == "error"]


@pytest.mark.parametrize("name", NAMES)
def test_runs(name: str) -> None:
    notebook = execute(name)
    assert any(cell.cell_type == "code" and cell.outputs for cell in notebook.cells)


def test_every_notebook_has_its_source() -> None:
    assert set(NAMES) == {path.stem for path in FOLDER.glob("*.ipynb")}
    assert len(NAMES) >= 5


@pytest.mark.parametrize("wrong", [False, True])
def test_one_bit_fails_the_demo(
    wrong: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The demo on two layers of its model, and where PyTorch's products have one wrong bit."""

    def two_layers(path: Path) -> Any:
        config, params, tokenizer = load(path)
        layers = {name: weight[:2] for name, weight in params["layers"].items()}
        return config._replace(layers=2), {**params, "layers": layers}, tokenizer

    def one_bit(*args: Any) -> torch.Tensor:
        product = mxfp8_matmul(*args)
        product.view(torch.int16)[-1, -1] ^= 1
        return product

    load = smollm2.load
    monkeypatch.setattr(smollm2, "load", two_layers)
    if wrong:
        monkeypatch.setattr("m3ops_torch.mxfp8_matmul", one_bit)
    assert smollm2.run_demo(length=1) == wrong
    assert ("\n0 of " in capsys.readouterr().out) != wrong


# --- The charts of notebook 04: each point and bar is read off as a reader would -------------------------------------


@pytest.fixture(scope="module")
def charts() -> Iterator[list[Figure]]:
    """The figures, drawn in this process."""
    shown: list[Figure] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(FOLDER)
        patch.setattr(torch.cuda, "is_available", lambda: False)
        patch.setattr(plt, "show", lambda: shown.append(plt.gcf()))
        with plt.rc_context():
            plt.switch_backend("agg")
            runpy.run_path("04_speed.py")
    for figure in shown:
        figure.canvas.draw()
    yield shown
    plt.close("all")


def inside(axis: Axes, x: float, y: float) -> bool:
    """Whether a point is not cut off."""
    (left, right), (low, high) = sorted(axis.get_xlim()), sorted(axis.get_ylim())
    return left <= x <= right and low <= y <= high


def points(axis: Axes) -> dict[str, list[tuple[float, float]]]:
    """By contender the points that stand for it, none of them cut off."""
    found = {}
    for line in axis.lines:
        if (label := str(line.get_label())) in CONTENDER_OF:
            found[CONTENDER_OF[label]] = list(zip(*map(list, line.get_data()), strict=True))
    assert all(inside(axis, *point) for line in found.values() for point in line)
    return found


def large(report: Report, contender: str) -> dict[str, float | None]:
    """The fractions of the copy bandwidth by name in the chart."""
    timed = report.workloads().items()
    return {
        f"{op}, {workload}": rows[contender].of_copy
        for (op, workload), rows in timed
        if contender in rows and rows[contender].mode in ("events", "batch")
    }


def test_times_against_bytes(charts: list[Figure]) -> None:
    moved = {(w.op, w.name): w.bytes_moved for w in WORKLOADS}
    for axis, report in zip(charts[0].axes, REPORTS, strict=True):
        for contender, found in points(axis).items():
            rows = [row for row in report.rows if row.contender == contender and row.mode in ("events", "graph")]
            assert sorted(found) == sorted((moved[row.op, row.workload], row.us) for row in rows)


def test_fractions_stand_beside_their_names(charts: list[Figure]) -> None:
    """The labels are those at the left, which both panels share."""
    figure = charts[1]
    left = figure.axes[0]
    names = dict(zip(left.get_yticks(), (label.get_text() for label in left.get_yticklabels()), strict=True))
    for axis, report in zip(figure.axes, REPORTS, strict=True):
        found = points(axis)
        assert set(found) == {"m3ops_torch", "m3ops_jax", "torch.compile", "jax.jit"}
        for contender, of_contender in found.items():
            assert {names[y]: x for x, y in of_contender} == large(report, contender)


def test_bars_of_a_decode_step(charts: list[Figure]) -> None:
    places = {"swiglu": ("swiglu_oai_quantize", "decode"), "gemma": ("gemma_fused_add_rmsnorm", "hidden decode")}
    for axis, report in zip(charts[2].axes, REPORTS, strict=True):
        assert axis.get_title().startswith(report.device.split()[1])
        labels = [label.get_text().split("\n") for label in axis.get_xticklabels()]
        assert len(labels) == 6
        for container in axis.containers:
            bars: Any = container
            for bar in bars:
                op, rows = labels[round(bar.get_x() + bar.get_width() / 2)]
                timed = report.workloads()[places[op][0], f"{places[op][1]}, {rows}"]
                assert bar.get_height() == timed[CONTENDER_OF[bars.get_label()]].us
            assert len(bars) == len(labels)
