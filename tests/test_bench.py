"""``python -m m3ops bench`` up to where a GPU is needed: both frameworks on the CPU, and made-up device times."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
import torch
from compare import assert_same_bytes

import m3ops_jax
import m3ops_torch
from m3ops.testing.workload import Workload
from m3ops.testing.workloads import WORKLOADS
from m3ops.tools.bench import gradient, jax_side, layer, program, run, timing, torch_side
from m3ops.tools.bench.jax_side import JaxSide
from m3ops.tools.bench.result import CONTENDERS, PARTS, Cost, Report
from m3ops.tools.bench.side import ON_CPU, Contender
from m3ops.tools.bench.table import render
from m3ops.tools.bench.torch_side import TorchSide
from m3ops.tools.run import flat, jax_function, to_numpy, torch_function


class CpuTorch(TorchSide):
    """Results of the CPU, times of nothing."""

    def __init__(self) -> None:
        self._setup(torch, "cpu")
        self.device = "a made-up device"
        made_up = {"flushed_us": lambda call: 20.0, "graph_us": lambda call, launches=20: 2.0}
        self._timers = SimpleNamespace(**made_up, graphed=self._called)

    def _called(self, call: timing.Call) -> timing.Call:
        call()
        return call

    def _compiled(self, formula: Contender) -> Contender:
        compiled: Contender = torch.compile(formula, backend="eager", fullgraph=True)
        return compiled

    def copy_gbps(self) -> float:
        return 1000.0

    def empty_us(self) -> float:
        return 1.0

    def host(self) -> list[Cost]:
        return [Cost("an eager call", 12.5)]


class CpuJax(JaxSide):
    """Results of the CPU, times of nothing."""

    def __init__(self) -> None:
        self._setup(jax, jax.devices("cpu")[0])
        self.device = "a made-up device"

    def time(self, contender: Any, sets: Any, small: bool) -> tuple[str, float]:
        return "call" if small else "batch", 25.0


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> list[Workload]:
    """A few rows of a large workload of each op, of a small one of some, and those with a count of rows."""
    monkeypatch.setattr(run, "ROTATED_BYTES", 1 << 15)
    small = ("swiglu_oai_quantize", "gemma_rmsnorm", "gemma_fused_add_rmsnorm", "mxfp8_quantize")
    some = [w for w in WORKLOADS if w.kind != "small" or w.op in small]
    chosen = {
        (w.op, w.kind, w.into, w.experts, w.live, *w.given): w.with_rows(min(w.num_rows, _few_rows(w))) for w in some
    }
    return [*map(_of_few_columns, chosen.values())]


def _of_few_columns(workload: Workload) -> Workload:
    """A weight of 96 rows where a weight has thousands, and four experts where their sums go over all rows."""
    few = {"mxfp8_matmul": 96, "mxfp8_grouped_matmul": 96, "moe_logits_backward": 4}
    return replace(workload, size=few.get(workload.op, workload.size))


def _few_rows(workload: Workload) -> int:
    if workload.axes.inputs[0].of_matrices:
        return 96
    return 6 if workload.live is None else 12 * workload.experts


def names(report: Report, op: str, small: bool = False) -> set[str]:
    return {row.contender for row in report.rows if row.op == op and (row.mode in ("graph", "call")) == small}


def test_the_loop_on_both_frameworks(tiny: list[Workload]) -> None:
    sides = [CpuTorch(), CpuJax()]
    report = run.start_report(sides, [])
    run.run(sides, tiny, CONTENDERS, report)
    assert not report.failures
    assert len(report.workloads()) == len(tiny)
    everywhere = {"m3ops_torch", "m3ops_jax", "torch.compile", "jax.jit", "copy"}
    assert names(report, "swiglu_oai_quantize") == everywhere | {"chain", "live-rows"}
    assert names(report, "gemma_fused_add_rmsnorm", small=True) == everywhere | {"chain"}
    assert names(report, "mxfp8_dequantize") == everywhere
    assert names(report, "gemma_fused_add_rmsnorm_backward") == everywhere
    # A rival that does not run here is a note, once for each norm workload: Triton has no CPU target.
    assert [note.split(": ")[0] for note in report.notes] == ["fp32-sum, gemma_rmsnorm"] * 2 + [
        "fp32-sum, gemma_fused_add_rmsnorm"
    ] * 2
    padded = {(w.op, w.name): set(report.workloads()[w.op, w.name]) for w in tiny if w.kind == "padded"}
    assert len(padded) == 6
    assert all(contenders == {"m3ops_torch", "live-rows"} for contenders in padded.values())
    row = next(row for row in report.rows if row.contender == "m3ops_torch" and row.mode == "events")
    workload = next(w for w in tiny if (w.op, w.name) == (row.op, row.workload))
    assert (row.us, row.gbps) == (20.0, workload.bytes_moved / 20.0 * 1e-3)
    assert row.of_copy == pytest.approx(row.gbps / 1000)
    assert report.host[0] == Cost("an eager call", 12.5)
    assert {"torch", "jax", "triton", "m3ops"} <= set(report.versions)


@pytest.fixture
def norm_backward(tiny: list[Workload]) -> Workload:
    return next(w for w in tiny if w.op == "gemma_rmsnorm_backward")


def test_backward_is_timed_without_forward(norm_backward: Workload) -> None:
    side, calls = CpuTorch(), []
    forward = torch_function("gemma_rmsnorm")
    backward = gradient.in_torch(norm_backward, lambda *inputs: calls.append(1) or forward(*inputs))
    first, second = side.make(norm_backward, 0), side.make(norm_backward, 1)
    assert side.same(backward(*first), backward(*first))
    assert calls == [1]
    assert not side.same(backward(*first), backward(*second))
    arrays = CpuJax().make(norm_backward, 0)
    vjp = gradient.in_jax(norm_backward, jax_function("gemma_rmsnorm"))
    alone = jax.jit(jax_function("gemma_rmsnorm_backward"))
    programs = [made.lower(*arrays).as_text().partition("\n")[2] for made in (vjp, alone)]
    assert programs[0] == programs[1]


def test_wrong_gradients_are_not_timed(norm_backward: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    right = m3ops_torch.gemma_rmsnorm
    monkeypatch.setattr(m3ops_torch, "gemma_rmsnorm", lambda x, weight: right(x, weight) * 2)
    report = Report("a made-up device", {}, "2026-01-01", 1000.0)
    run.run([CpuTorch()], [norm_backward], ("m3ops_torch", "torch.compile"), report)
    assert "differ from the specification" in report.failures[0]
    assert names(report, "gemma_rmsnorm_backward") == {"torch.compile"}


def test_sums_over_all_rows_are_not_compared_on_some(norm_backward: Workload) -> None:
    report = Report("a made-up device", {}, "2026-01-01", 1000.0)
    run.run([CpuTorch()], [norm_backward.with_rows(200)], ("m3ops_torch",), report)
    assert not report.failures
    assert names(report, "gemma_rmsnorm_backward") == {"m3ops_torch"}


def test_liger_is_a_rival_where_it_is_installed(norm_backward: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    def norm(x: Any, weight: Any, eps: float, offset: float, casting_mode: str, in_place: bool) -> Any:
        assert (eps, offset, casting_mode, in_place) == (1e-6, 1.0, "gemma", False)
        return m3ops_torch.gemma_rmsnorm(x, weight)

    assert gradient.of_liger("gemma_rmsnorm") is None or gradient.find_spec("liger_kernel")
    functional = ModuleType("liger_kernel.transformers.functional")
    functional.liger_rms_norm = norm  # type: ignore[attr-defined]
    monkeypatch.setattr(gradient, "find_spec", lambda name: name)
    monkeypatch.setattr(gradient, "import_module", lambda name: {functional.__name__: functional}[name])
    report = Report("a made-up device", {}, "2026-01-01", 1000.0)
    run.run([CpuTorch()], [norm_backward], CONTENDERS, report)
    assert "Liger" in names(report, "gemma_rmsnorm_backward")
    assert gradient.of_liger("swiglu_oai") is None


@pytest.fixture
def few_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs of three and two calls, all on a few rows, and a layer of few experts."""
    programs = [replace(p, workload=p.workload.with_rows(2)) for p in program.PROGRAMS]
    monkeypatch.setattr(program, "LAYERS", 3)
    monkeypatch.setattr(program, "CALLS", 2)
    monkeypatch.setattr(layer, "HIDDEN", 64)
    monkeypatch.setattr(layer, "WEIGHTS", replace(layer.WEIGHTS, num_rows=8, size=32))
    monkeypatch.setattr(layer, "TOKENS", tuple(replace(w, num_rows=5, size=8) for w in layer.TOKENS[:2]))
    for side in (torch_side, jax_side):
        monkeypatch.setattr(side, "PROGRAMS", programs)
        monkeypatch.setattr(side, "ON_CPU", ON_CPU.with_rows(2))


@pytest.mark.usefixtures("few_calls")
def test_programs_and_cpus_are_timed() -> None:
    report = Report("a made-up device", {}, "2026-01-01", 1000.0)
    run.run([CpuTorch(), CpuJax()], [], CONTENDERS, report, PARTS)
    assert not report.failures
    programs = {cost.what: cost.us for cost in report.programs}
    assert len(programs) == 2 + 12 + 4
    assert programs["gemma_fused_add_rmsnorm: 64 in a chain, m3ops_torch, CUDA graph"] == 2.0 / 64
    assert programs["mxfp8_quantize: 16 side by side, m3ops_jax, unrolled, graphs of any size"] > 0
    assert len(report.layers) == 2 * (3 + 3)
    assert {(each.tokens, each.us) for each in report.layers[:6]} == {(5, 20.0)}
    assert {each.contender for each in report.layers[6:]} == {
        *("m3ops_jax, fast", "m3ops_jax, exact"),
        "bfloat16, jax.lax.ragged_dot",
    }
    assert [cost.what for cost in report.cpu] == ["m3ops_torch", "the formula, eager", "m3ops_jax", "jax.jit"]
    text = render(report)
    assert "jax.lax.scan, unroll=4, graphs of any size" in text
    assert "(2, 6144)" not in text
    assert "(4096, 6144)" in text


@pytest.mark.usefixtures("few_calls")
def test_the_layers_that_are_timed_compute_the_same() -> None:
    """Up to what rounding to MXFP8 costs; their weights are the same numbers."""
    side, other = CpuTorch(), CpuJax()
    bias, *weights = side.make(layer.WEIGHTS, 0)
    w13, w2 = (m3ops_torch.mxfp8_dequantize(m3ops_torch.MXFP8(*weights[i : i + 2])) for i in (0, 2))
    in_bf16 = (w[part] for part in (slice(-1), -1) for w in (w13, w2))
    operands = *side.make(layer.TOKENS[1], 1), bias, *weights[:4], *in_bf16
    operands = (operands[0] * 1e-3, *operands[1:])
    adopted = other.adopt(side.share(operands))
    exact = layer.in_mxfp8(m3ops_torch, "exact", *operands).double()
    in_jax = layer.in_mxfp8(m3ops_jax, "exact", *adopted)
    assert_same_bytes([np.asarray(in_jax)], [to_numpy(exact.bfloat16())])
    (_, in_torch), (_, of_jax) = layer.RIVALS.values()
    rivals = in_torch(m3ops_torch, *operands), of_jax(m3ops_jax, *adopted)
    for got in (to_numpy(rivals[0]), np.asarray(rivals[1])):
        assert np.linalg.norm(got.astype(np.float64) - exact.numpy()) < 0.1 * np.linalg.norm(exact.numpy())


@pytest.mark.usefixtures("few_calls")
def test_a_rival_without_room_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: Any) -> None:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setitem(layer.RIVALS, "m3ops_torch", ("a rival", no_room))
    report = Report("a made-up device", {}, "2026-01-01", 1000.0)
    run.run([CpuTorch()], [], CONTENDERS, report, ("layers",))
    assert not report.failures
    assert [each.us for each in report.layers] == 2 * [20.0, 20.0, None]
    assert f"         -     -  5 tokens, {report.layers[0].experts} experts, a rival: OutOfMemoryError" in render(
        report
    )


@pytest.mark.usefixtures("few_calls")
def test_what_cannot_be_timed_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CpuJax, "programs", lambda self: [][0])
    report = Report("a made-up device", {}, "2026-01-01", 1000.0)
    run.run([CpuTorch(), CpuJax()], [], CONTENDERS, report, PARTS)
    assert ["programs, jax: IndexError" in failure for failure in report.failures] == [True]
    assert len(report.cpu) == 4


@pytest.mark.usefixtures("few_calls")
def test_all_forms_of_a_program_give_the_same_bytes() -> None:
    here, there = CpuTorch(), CpuJax()
    for each in torch_side.PROGRAMS:
        inputs, op = here.make(each.workload, 0), each.workload.op
        written_out = next(iter(each.forms.values()))
        expected = [to_numpy(tensor) for tensor in flat(written_out(torch_function(op), *inputs))]
        arrays = there.adopt(here.share(inputs))
        for form in each.forms.values():
            assert_same_bytes([np.asarray(a) for a in flat(form(jax_function(op), *arrays))], expected)


@pytest.mark.parametrize(("side", "columns"), [(CpuTorch, {"m3ops_torch", "copy"}), (CpuJax, {"m3ops_jax", "jax.jit"})])
def test_the_loop_on_one_framework(tiny: list[Workload], side: Any, columns: set[str]) -> None:
    report = Report("a made-up device", {}, "2026-01-01", 1000.0)
    wanted = ("m3ops_torch", "m3ops_jax", "jax.jit", "copy")
    run.run([side()], [w for w in tiny if w.op == "mxfp8_quantize"], wanted, report)
    assert not report.failures
    assert names(report, "mxfp8_quantize") == columns


def test_wrong_bytes_are_not_timed(tiny: list[Workload], monkeypatch: pytest.MonkeyPatch) -> None:
    right = m3ops_torch.mxfp8_quantize

    def wrong(x: torch.Tensor, **given: Any) -> Any:
        q = right(x, **given)
        q.scales[0, 0] += 1
        return q

    monkeypatch.setattr(m3ops_torch, "mxfp8_quantize", wrong)
    report = Report("a made-up device", {}, "2026-01-01", 1000.0)
    run.run([CpuTorch()], [w for w in tiny if w.op == "mxfp8_quantize"], ("m3ops_torch", "copy"), report)
    assert ["checked elements of result 1 differ" in failure for failure in report.failures] == [True, True, True]
    assert names(report, "mxfp8_quantize") == {"copy"}


def test_rows_that_do_not_count_are_checked(tiny: list[Workload], monkeypatch: pytest.MonkeyPatch) -> None:
    right = m3ops_torch.swiglu_oai_quantize

    def counts_nothing(gate_up: torch.Tensor, num_rows: Any = None, **given: Any) -> Any:
        return right(gate_up, **given)

    monkeypatch.setattr(m3ops_torch, "swiglu_oai_quantize", counts_nothing)
    report = Report("a made-up device", {}, "2026-01-01", 1000.0)
    padded = [w for w in tiny if w.op == "swiglu_oai_quantize" and w.kind == "padded" and w.small]
    run.run([CpuTorch()], padded, ("live-rows", "m3ops_torch"), report)
    assert ["elements of result 0 differ" in failure for failure in report.failures] == [True, True, True]
    assert names(report, "swiglu_oai_quantize", small=True) == {"live-rows"}


def test_frameworks_that_disagree_are_not_timed(tiny: list[Workload], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CpuTorch, "same", lambda *_: False)
    report = Report("a made-up device", {}, "2026-01-01", 1000.0)
    run.run([CpuTorch(), CpuJax()], [w for w in tiny if w.op == "swiglu_oai"], CONTENDERS, report)
    assert all("bytes differ from m3ops_torch's" in failure for failure in report.failures)
    assert not report.rows


@pytest.mark.parametrize("workload", [w for w in WORKLOADS if w.small or "dequantize" in w.op], ids=lambda w: w.id)
def test_arrays_cross_between_frameworks_unchanged(workload: Workload) -> None:
    torch_side, jax_side = CpuTorch(), CpuJax()
    workload = _of_few_columns(workload.with_rows(12))  # of which three tokens of four experts each are scattered
    rows = np.arange(3)
    made = torch_side.make(workload, 1)
    adopted = jax_side.adopt(torch_side.share(made))
    assert_same_bytes(jax_side.rows(adopted, rows), torch_side.rows(made, rows))
    assert torch_side.same(made, torch_side.adopt(jax_side.share(adopted)))
    own = jax_side.make(workload, 1)
    assert [(a.shape, a.dtype.name) for a in own] == [(s.shape, s.dtype) for s in workload.inputs]


def test_bench_writes_both_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(run, "ROTATED_BYTES", 1 << 15)
    monkeypatch.setattr(run, "TorchSide", CpuTorch)
    monkeypatch.setattr(run, "JaxSide", CpuJax)
    chosen = [*{w.kind: w.with_rows(32) for w in WORKLOADS if w.op == "mxfp8_quantize"}.values()]
    files = tmp_path / "bench.json", tmp_path / "bench.png"
    assert run.main(chosen, ("host",), CONTENDERS, *files) == 0
    assert all(file.stat().st_size for file in files)
    assert "a made-up device" in capsys.readouterr().out
    assert len(Report.load(files[0]).workloads()) == len(chosen)


def test_a_run_that_is_stopped_leaves_what_it_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, *_ = (w.with_rows(32) for w in WORKLOADS if w.op == "mxfp8_quantize" and w.small)
    report, made = Report("a made-up device", {}, "2026-01-01", 1000.0), CpuTorch.make

    def stopped(side: CpuTorch, workload: Workload, seed: int) -> Any:
        if workload is second:
            raise KeyboardInterrupt
        return made(side, workload, seed)

    monkeypatch.setattr(CpuTorch, "make", stopped)
    with pytest.raises(KeyboardInterrupt):
        run.run([CpuTorch()], [first, second], CONTENDERS, report, ("host",), tmp_path / "bench.json")
    assert [*Report.load(tmp_path / "bench.json").workloads()] == [(first.op, first.name)]
