"""The documentation builds without a warning, has a page for everything, and shows what was measured."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
import write_tables

import m3ops_jax
import m3ops_torch
from m3ops.ops import OPS
from m3ops.tools.bench.result import Cost, LayerTime, Report, Row

ROOT = Path(__file__).parents[1]
FRONT_ENDS = {"jax": m3ops_jax, "torch": m3ops_torch}
REPORTS = {gpu: Report.load(ROOT / "docs" / "performance" / f"{gpu.lower()}.json") for gpu in ("H100", "H200")}


PAGES = (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_lines_of_prose_are_short(page: Path) -> None:
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    assert not [line for line in prose.splitlines() if len(line) > 120 and not line.startswith(("|", "    "))]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_every_public_name_has_its_reference(front_end: str, site: Path) -> None:
    page = (site / "reference" / f"{front_end}.html").read_text()
    names = [name for name in FRONT_ENDS[front_end].__all__ if not name.startswith("_")]
    assert not [name for name in names if not re.search(rf'id="m3ops_{front_end}\.[\w.]*\b{name}"', page)]
    assert set(OPS) <= set(names)


def test_modules_have_their_reference(site: Path) -> None:
    for front_end, names in {
        "jax": ("GemmaRMSNorm", "DenseMLP", "MoE"),
        "torch": ("GemmaRMSNorm", "MoE", "SwigluOAI"),
    }.items():
        page = (site / "reference" / f"{front_end}.html").read_text()
        assert not [name for name in names if not re.search(rf'id="m3ops_{front_end}\.\w+\.{name}"', page)]


def test_pages_read_well(site: Path) -> None:
    assert not list(site.rglob("*.py"))
    for html in (*site.glob("*.html"), *site.glob("reference/*.html")):
        # Two powers in one paragraph, 2**31 and 2**32, make what is between them bold; Sphinx's roles are not Markdown.
        assert not re.findall(r"\d<strong>.*|:[a-z]+:<code>.*", html.read_text()), html.name


# --- What was measured ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in write_tables.PAGES if name != "rocm.md"])
def test_pages_have_the_tables_that_the_script_writes(name: str) -> None:
    """Over other numbers too. tests/test_rocm_code.py compares the table of AMD's code, which has to be compiled."""
    page, write = (write_tables.DOCS / name).read_text(), write_tables.PAGES[name]
    assert write(page) == page
    spoiled = re.sub(r"^(\|[^|\n]+\|[^|\n]+\| )0 ", r"\1 1 ", page.replace("(**1.02**)", "(2)"), flags=re.MULTILINE)
    assert write(spoiled) == page != spoiled


def test_parts_of_a_report_have_their_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients, programs, layers and CPUs stand in the sections that the page has for them."""
    report = REPORTS["H100"]
    backward = Row(
        "gemma_rmsnorm_backward", "hidden training step", (16384, 6144), "events", "m3ops_torch", 210, 1, 0.97
    )
    row = replace(backward, contender="Liger", us=330.0, of_copy=0.61)
    layers = [LayerTime(16, 54, "m3ops_torch, fast", 1e3), LayerTime(64, 118, "m3ops_jax, fast", 2e3)]
    costs = {"programs": [Cost("a chain", 2.24)], "cpu": [Cost("jax.jit", 168e3)]}
    more = replace(report, rows=[backward, row], layers=layers, **costs)
    monkeypatch.setattr(Report, "load", lambda path: more if "parts" in path.stem else REPORTS[path.stem.upper()])
    page = write_tables.measurements((ROOT / "docs" / "performance.md").read_text())
    sections = {heading: body for heading, _, body in (part.partition("\n") for part in page.split("\n## "))}
    assert "| 16384 x 6144 | H100 | 210 (**0.97**) | 330 (0.61) |" in sections["Gradients"]
    assert "| H100 machine | H200 machine |\n|---|---|---|\n| a chain | 2.2 | 2.2 |" in sections["Programs of many ops"]
    assert "| jax.jit | 168 | 168 |" in sections["On a CPU"]
    lines = [line for line in sections["Experts"].splitlines() if line.startswith("|")]
    ours, of_jax = "| 16 | 54 | 1,000 |  |  |  |  |  | {} | {} |", "| 64 |  |  |  |  | 2,000 |  |  |  | {} |"
    assert lines[2:] == [line for gpu in REPORTS for line in (ours.format("1.04", gpu), of_jax.format(gpu))]
    assert "backward" not in sections["Large inputs"]
    assert write_tables.measurements(page) == page


def test_readme_has_the_speeds_of_its_data() -> None:
    readme = " ".join((ROOT / "README.md").read_text().split())
    large = {
        gpu: [
            row.of_copy or 0
            for row in report.rows
            if row.contender == "m3ops_torch" and row.mode == "events" and row.op in OPS
        ]
        for gpu, report in REPORTS.items()
    }
    ranges = [f"{min(of_gpu):.2f} to {max(of_gpu):.2f}" for of_gpu in large.values()]
    timed = [report.workloads()["swiglu_oai_quantize", "MoE prefill"] for report in REPORTS.values()]
    both = {name: " and ".join(f"{rows[name].of_copy:.2f}" for rows in timed) for name in timed[0]}
    for said in (
        f"large inputs run at {ranges[0]} of the speed of a device-to-device copy on the H100",
        f"on the H100 and at {ranges[1]} on the H200",
        f"(65536, 3072) runs at {both['m3ops_torch']} of it",
        f"reaches {both['torch.compile']} under `torch.compile` and {both['jax.jit']} under `jax.jit`",
        f"From JAX the op runs at {both['m3ops_jax']}, by the wall clock",
    ):
        assert said in readme


def test_bars_of_the_picture() -> None:
    """As a reader takes them: a bar by its colour in the legend and the GPU below it, the number on it."""
    picture: dict[str, Any] = runpy.run_path(str(ROOT / "docs" / "picture.py"))
    figure, axis = plt.subplots()
    picture["draw_speed"](axis)
    labels = [label.get_text() for label in axis.get_legend().get_texts()]
    contenders = dict(zip(labels, ("m3ops_torch", "m3ops_jax", "torch.compile", "jax.jit"), strict=True))
    assert "PyTorch" in labels[0]
    assert "JAX" in labels[1]
    assert labels[2:] == ["torch.compile", "jax.jit"]
    colours = {patch.get_facecolor(): text for patch, text in zip(axis.get_legend().get_patches(), labels, strict=True)}
    gpus = [label.get_text().removeprefix("NVIDIA ") for label in axis.get_xticklabels()]
    numbers = {round(text.get_position()[0], 3): text.get_text() for text in axis.texts}
    found = {}
    for bar in axis.patches:
        middle = bar.get_x() + bar.get_width() / 2
        name, gpu = contenders[colours[bar.get_facecolor()]], gpus[round(middle)]
        found[gpu, name] = bar.get_height()
        assert numbers[round(middle, 3)] == f"{bar.get_height():.2f}"
    plt.close(figure)
    assert found == {
        (gpu, name): report.workloads()["swiglu_oai_quantize", "MoE prefill"][name].of_copy
        for gpu, report in REPORTS.items()
        for name in contenders.values()
    }
