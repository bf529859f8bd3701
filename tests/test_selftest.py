"""``python -m m3ops selftest`` says what is wrong, and where, and what it did not run."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from backends import planned
from specification import reference

from m3ops.row_count import NAME
from m3ops.testing.case import Case
from m3ops.testing.cases import ALWAYS, CASES, family, few_cases
from m3ops.testing.layer import LAYER
from m3ops.tools import cli, selftest
from m3ops.tools.run import run_torch


def _only(monkeypatch: pytest.MonkeyPatch, run: selftest.Run, *, compiles: bool = False) -> None:
    front_end = selftest.FrontEnd("m3ops_torch", "cpu", run, compiles, threads=2)
    monkeypatch.setattr(selftest, "_front_ends", lambda: iter([front_end]))


def on_the_cpu(*args: object) -> selftest.Arrays:
    return run_torch("cpu", *args)  # type: ignore[arg-type]


def test_passes_on_this_machine(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _only(monkeypatch, on_the_cpu)
    assert selftest.selftest() == 0
    printed = capsys.readouterr()
    every = len(CASES) + 1  # the layer
    assert f"m3ops_torch on cpu: {every} of {every} cases" in printed.out
    assert "Not run" not in printed.out
    assert all(f"pass  {op} " in printed.out for op in {"moe_layer", *(case.op for case in CASES)})
    got, expected = printed.out.split("digest of these results ")[1].split("\n")[0].split(", expected ")
    assert got == expected
    assert printed.err.startswith(f"[0/{every}] ")


@pytest.mark.parametrize("arguments", [[], ["--full"]])
def test_a_front_end_that_compiles_runs_few_cases_unless_told(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _only(monkeypatch, on_the_cpu, compiles=True)
    monkeypatch.setattr(selftest, "CASES", (*few_cases(), LAYER, *(case for case in CASES if case.name == "one row")))
    assert cli.main(["selftest", *arguments]) == 0
    printed, few, every = capsys.readouterr().out, len(few_cases()) + 1, len(selftest.CASES)
    assert f"m3ops_torch on cpu: {every if arguments else few} of {every} cases" in printed
    assert (f"Not run: {every - few} cases of m3ops_torch. " in printed) == (not arguments)


def test_few_cases_cover_every_op_dtype_option_and_kernel() -> None:
    def ops(cases: tuple[Case, ...]) -> set[str]:
        return {case.op for case in cases}

    def dtypes(cases: tuple[Case, ...]) -> set[str]:
        return {case.make()[0].dtype.name for case in cases}

    def options(cases: tuple[Case, ...]) -> set[tuple[str, object]]:
        given = itertools.chain.from_iterable(case.given.items() for case in cases)
        return {(name, value if isinstance(value, str | bool) else None) for name, value in given}

    def counts(cases: tuple[Case, ...]) -> set[tuple[str, bool]]:
        return {(family(case), NAME in case.operands()) for case in cases}

    def kernels(cases: tuple[Case, ...]) -> set[str]:
        full = [case for case in cases if all(array.size for array in case.operands().values())]
        return {launch.kernel.__name__ for case in full for launch in planned(case.call, case.operands()).launches}

    assert ops(few_cases()) == ops(CASES)
    assert counts(few_cases()) == counts(CASES)
    assert dtypes(few_cases()) == dtypes(CASES)
    assert options(few_cases()) == options(CASES)
    assert kernels(few_cases()) == kernels(CASES)
    assert {*ALWAYS} <= {case.id for case in few_cases()}
    assert len(few_cases()) < len(CASES) / 10


def test_names_op_case_and_element(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    broken = next(case for case in CASES if case.id == "mxfp8_quantize: one row")

    def run(op: str, arrays: tuple[np.ndarray, ...], given: dict[str, object]) -> list[np.ndarray]:
        results = [np.array(out) for out in reference(op, *arrays, **given)]
        if op == broken.op and np.array_equal(arrays[0], broken.make()[0]):
            results[1][0, 1] ^= 1
        return results

    _only(monkeypatch, run)
    assert selftest.selftest() == 1
    printed = capsys.readouterr().out
    assert "m3ops_torch: mxfp8_quantize: one row: result 1: 1 of 2 elements differ, first at (0, 1)" in printed
    assert "FAIL  mxfp8_quantize" in printed
    assert "pass  swiglu_oai " in printed


def test_an_error_is_a_failure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*_: object) -> list[np.ndarray]:
        raise RuntimeError("no kernel image")

    _only(monkeypatch, run)
    assert selftest.selftest() == 1
    assert "gemma_rmsnorm: N = 13: RuntimeError: no kernel image" in capsys.readouterr().out


def test_no_front_end(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(selftest, "_front_ends", lambda: iter(()))
    assert selftest.selftest() == 2
    assert "in a checkout, pip install '.[jax]' or '.[torch]'" in capsys.readouterr().err
