"""What ``python -m m3ops bench`` shows and takes: reports and charts of made-up timings, and the command line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import jax
import pytest
import torch

from m3ops import __version__
from m3ops.testing.workloads import WORKLOADS
from m3ops.tools import cli
from m3ops.tools.bench import run
from m3ops.tools.bench.jax_side import JaxSide
from m3ops.tools.bench.plot import draw
from m3ops.tools.bench.result import CONTENDERS, PARTS, Cost, LayerTime, Report, Row, best_rival
from m3ops.tools.bench.side import Unavailable
from m3ops.tools.bench.table import render
from m3ops.tools.bench.torch_side import TorchSide

# Reports, from made-up timings.


def made_up_report() -> Report:
    report = Report("Some GPU 80GB", {"m3ops": "0.1.0", "torch": "2.11.0", "jax": "0.11.2"}, "2026-01-01T00:00", 3000.0)
    report.empty_us = 1.07
    fractions = dict(zip(CONTENDERS, (0.99, 0.97, 0.91, 0.5, 0.6, 0.55, 0.98, 1.02, 1.0), strict=True))
    for workload in WORKLOADS:
        for name, fraction in fractions.items():
            fused = workload.op in ("swiglu_oai_quantize", "gemma_fused_add_rmsnorm")
            if (workload.live is not None) != (name == "live-rows") and name != "m3ops_torch":
                continue
            if (name == "chain" and not fused) or (name == "fp32-sum" and "norm" not in workload.forward):
                continue
            if name in ("Liger", "chain", "fp32-sum") and (name == "Liger") != (workload.kind == "gradient"):
                continue
            by_jax = name in ("m3ops_jax", "jax.jit")
            mode = ("call" if by_jax else "graph") if workload.small else ("batch" if by_jax else "events")
            gbps = None if mode == "call" else 3000.0 * fraction
            us = workload.bytes_moved / (3e6 * fraction) + 1
            of_copy = None if gbps is None else fraction
            shape = (workload.num_rows, workload.size)
            report.rows.append(Row(workload.op, workload.name, shape, mode, name, us, gbps, of_copy))
    report.host = [Cost("an eager call", 50.0)]
    report.programs = [Cost("some op: 64 in a chain", 2.25)]
    report.layers = [LayerTime(16, 53, "fast", 1027.0), LayerTime(16, 53, "a rival", None)]
    report.cores, report.cpu = 16, [Cost("m3ops_torch", 480e3)]
    return report


def test_a_report_survives_json(tmp_path: Path) -> None:
    report = made_up_report()
    report.save(tmp_path / "new folder" / "bench.json")
    assert Report.load(tmp_path / "new folder" / "bench.json") == report


def test_the_best_rival_is_timed_alike() -> None:
    def row(name: str, mode: str, us: float) -> Row:
        return Row("swiglu_oai", "decode", (1, 384), mode, name, us, None, None)

    ours = row("m3ops_torch", "graph", 2.0)
    rows = [ours, row("jax.jit", "call", 1.0), row("torch.compile", "graph", 3.0), row("chain", "graph", 4.0)]
    assert best_rival(ours, rows) == rows[2]
    assert best_rival(row("m3ops_jax", "batch", 30.0), rows) is None
    assert best_rival(row("m3ops_jax", "batch", 30.0), [row("chain", "events", 31.0)]) is not None


def test_the_table_shows_every_workload_and_ratio() -> None:
    report = made_up_report()
    report.failures = ["m3ops_jax, somewhere: bytes differ"]
    text = render(report)
    for workload in WORKLOADS:
        assert f"{workload.num_rows} x {workload.size}" in text
        assert workload.name in text
    assert "0.97 live-rows" in text
    assert "1.08 chain" in text or "1.09 torch.compile" in text
    assert "50.00  an eager call" in text
    assert "2.25  some op: 64 in a chain" in text
    assert "on 16 CPU cores, ms\n   480.00  m3ops_torch" in text
    assert "FAILED: m3ops_jax" in text
    assert max(map(len, text.splitlines())) < 240
    assert render(Report("x", {}, "2026-01-01", 1.0))


def test_a_chart_is_drawn(tmp_path: Path) -> None:
    assert draw(made_up_report(), tmp_path / "bench.png") is None
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")


def test_no_chart_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert "matplotlib is not installed" in str(draw(made_up_report(), tmp_path / "bench.png"))
    assert "no large workload" in str(draw(Report("x", {}, "2026-01-01", 1.0), tmp_path / "bench.png"))


# The command line.


def test_the_size_chooses_workloads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    chosen: dict[str, Any] = {}
    for size in cli.SIZES:
        monkeypatch.setattr(run, "main", lambda workloads, *_, size=size: chosen.update({size: workloads}) or 0)
        assert cli.main(["bench", "--size", size, "--op", "swiglu_oai_quantize"]) == 0
    assert chosen["all"] == [w for w in WORKLOADS if w.op == "swiglu_oai_quantize"]
    assert sum(len(chosen[size]) for size in ("large", "small", "padded")) == len(chosen["all"])
    assert [(w.live, w.experts) for w in chosen["padded"]] == [(8, 1), (8, 1), (8, 32), (1024, 32)]
    assert not chosen["gradient"]
    cli.main(["bench", "--size", "gradient", "--op", "gemma_rmsnorm", "swiglu_oai"])
    assert {w.op for w in chosen["cpu"]} == {"gemma_rmsnorm_backward", "swiglu_oai_backward"}


@pytest.mark.parametrize(
    ("size", "parts"),
    [
        ("all", PARTS),
        ("large", ("host",)),
        ("programs", ("host", "programs")),
        ("layers", ("host", "layers")),
        ("cpu", ("host", "cpu")),
    ],
)
def test_the_size_chooses_parts(size: str, parts: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "main", lambda workloads, chosen, *_: int(tuple(chosen) != parts))
    assert cli.main(["bench", "--size", size]) == 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["frobnicate"], "frobnicate"),
        (["bench", "--op", "gelu"], "gelu"),
        (["bench", "--size", "medium"], "medium"),
        (["bench", "--contender", "cublas"], "cublas"),
    ],
)
def test_wrong_arguments(arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert complaint in capsys.readouterr().err


def test_without_a_command_the_help_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    assert "COMMAND" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert not caught.value.code
    assert capsys.readouterr().out == f"m3ops {__version__}\n"


def test_without_a_gpu_bench_says_what_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(jax, "devices", lambda platform: (_ for _ in ()).throw(RuntimeError(platform)))
    assert cli.main(["bench"]) == 1
    complaint = capsys.readouterr().err
    assert "bench needs a CUDA or ROCm device" in complaint
    assert "torch" in complaint
    assert "jax" in complaint
    assert "columns" not in complaint


def test_a_missing_framework_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setitem(sys.modules, "jax", None)
    sides, notes = run.find_sides((TorchSide, JaxSide))
    assert not sides
    assert "torch cannot be imported" in notes[0]
    assert "jax cannot be imported" in notes[1]
    with pytest.raises(Unavailable):
        TorchSide()
