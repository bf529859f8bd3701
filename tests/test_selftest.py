"""``python -m m3ops selftest`` says what is wrong, and where."""

from __future__ import annotations

import numpy as np
import pytest
from specification import reference

from m3ops.testing.cases import CASES
from m3ops.tools import selftest
from m3ops.tools.run import run_torch


def _only(monkeypatch: pytest.MonkeyPatch, run: selftest.Run) -> None:
    monkeypatch.setattr(selftest, "_front_ends", lambda: iter([("m3ops_torch", "cpu", run)]))


def test_passes_on_this_machine(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _only(monkeypatch, lambda *args: run_torch("cpu", *args))
    assert selftest.selftest() == 0
    printed = capsys.readouterr().out
    assert all(f"pass  {op} " in printed for op in {case.op for case in CASES})
    got, expected = printed.split("digest of all results ")[1].split("\n")[0].split(", expected ")
    assert got == expected


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
    assert "install m3ops[jax] or m3ops[torch]" in capsys.readouterr().err
