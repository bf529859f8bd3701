"""Changes the numerics, plans and kernels one spot at a time and counts the changes that the CPU tests notice.

    python tests/mutate.py --sample 150      # a sample, the same one every time; all of them without --sample

Each mutant is tried in a copy of the tree, in processes forked from one that has imported the frameworks: the contract
tests on the specification and in the interpreter, called without pytest, then those of :data:`TESTS`, file by file. Those
about the mutated op come first; the first failure ends a mutant. What takes longer than ``--timeout`` seconds, an endless
loop as a rule, counts as noticed.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import shutil
import signal
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from mutants import Mutant, mutants_of

ROOT = Path(__file__).parent.parent
COPIED = ("m3ops", "m3ops_jax", "m3ops_torch", "tests", "pyproject.toml")
PRELOADED = ("jax", "torch", "triton.runtime.interpreter", "triton.compiler", "gfloat", "ml_dtypes")

TESTS = (
    ("tests/test_rows.py",),
    ("tests/test_interpreter_launch.py",),
    ("tests/test_scale_rules.py", "tests/test_oracles.py"),
    ("tests/test_rocm_contract.py", "-k", "test_same_bytes_on_other_targets and torch"),
)
"""Arguments of the runs of pytest that follow the contract tests. The last executes AMD machine code."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sample", type=int, help="how many mutants to try (all)")
    parser.add_argument("--timeout", type=float, default=400.0, help="seconds for one mutant (%(default)s)")
    parser.add_argument("--only", default="", help="part of the names of the mutants to try")
    args = parser.parse_args()
    for name in PRELOADED:
        importlib.import_module(name)
    chosen = [mutant for mutant in mutants_of(ROOT) if args.only in mutant.name]
    chosen.sort(key=lambda mutant: zlib.crc32(mutant.name.encode()))
    with tempfile.TemporaryDirectory() as directory:
        tree = _copied_to(Path(directory))
        if not _survives(tree, None, 10 * args.timeout):
            sys.exit("the tests fail without any change")
        _report(tree, chosen[: args.sample], args.timeout)


def _copied_to(tree: Path) -> Path:
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, tree / name)
    for name in (".venv", ".cache"):
        if (ROOT / name).exists():
            (tree / name).symlink_to((ROOT / name).resolve())
    return tree


def _report(tree: Path, mutants: list[Mutant], timeout: float) -> None:
    tried: Counter[str] = Counter()
    survived: Counter[str] = Counter()
    for number, mutant in enumerate(mutants, 1):
        start = time.monotonic()
        noticed = not _survives(tree, mutant, timeout)
        tried[mutant.path] += 1
        survived[mutant.path] += not noticed
        verdict = "noticed " if noticed else "SURVIVED"
        print(f"{number:4} {verdict} {time.monotonic() - start:5.0f} s  {mutant.name}", flush=True)
    for path in sorted(tried):
        print(f"{tried[path] - survived[path]:4} of {tried[path]:4}  {path}")
    noticed = tried.total() - survived.total()
    print(f"{noticed} of {tried.total()} noticed, {100 * noticed / max(tried.total(), 1):.1f} %")


def _survives(tree: Path, mutant: Mutant | None, timeout: float) -> bool:
    """Whether all tests pass in a tree with one change, or with none."""
    if mutant is None:
        return _passes(tree, "", timeout)
    path = tree / mutant.path
    original = path.read_bytes()
    path.write_bytes(mutant.apply(original))
    try:
        return _passes(tree, path.parent.name if mutant.path.startswith("m3ops/ops/") else "", timeout)
    finally:
        path.write_bytes(original)


def _passes(tree: Path, op: str, timeout: float) -> bool:
    runs: list[Callable[[], int]] = [partial(_contract, op), *(partial(_pytest, list(args)) for args in TESTS)]
    return all(_in_child(tree, run, timeout) for run in runs)


def _in_child(tree: Path, run: Callable[[], int], timeout: float) -> bool:
    """Whether a function, run in a fork with the tree's modules, gives 0 within a time."""
    if (child := os.fork()) == 0:
        os._exit(_quietly(tree, run))
    previous = signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
    signal.setitimer(signal.ITIMER_REAL, timeout)
    try:
        return os.waitpid(child, 0)[1] == 0
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def _quietly(tree: Path, run: Callable[[], int]) -> int:
    sys.dont_write_bytecode = True
    sys.path[:] = [str(tree), str(tree / "tests"), *(path for path in sys.path if path != str(ROOT / "tests"))]
    os.chdir(tree)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        try:
            return run()
        except Exception:  # a mutant may fail to import
            return 1


def _contract(op: str) -> int:
    """The contract tests on the specification and in the interpreter, those of one op first, else in a random order."""
    contract = importlib.import_module("test_contract")
    backends = importlib.import_module("backends").BACKENDS
    interpreter = next(backend for backend in backends if backend.name == "interpreter")
    for case in sorted(contract.CASES, key=lambda case: (case.op != op, zlib.crc32(case.id.encode()))):
        contract.test_specification_has_not_moved(case)
        contract.test_same_bytes_as_the_specification(interpreter, case)
    return 0


def _pytest(args: list[str]) -> int:
    status = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *args]))
    return 0 if status == pytest.ExitCode.NO_TESTS_COLLECTED else status


if __name__ == "__main__":
    main()
