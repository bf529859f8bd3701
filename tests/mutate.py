"""Changes the numerics, plans and kernels one spot at a time and counts the changes that the CPU tests notice.

    python tests/mutate.py --sample 150      # a sample, the same one every time; all of them without --sample

Each mutant is tried in a copy of the tree, in processes forked from one that has imported the frameworks. The stages of
:data:`STAGES` follow one another: each runs for the mutants that the ones before did not notice, and the first failure
ends a mutant. What takes more than ``--limit`` seconds of processor time, an endless loop as a rule, counts as noticed.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import resource
import shutil
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
COPIED = ("m3ops", "m3ops_jax", "m3ops_torch", "tests", "docs", "pyproject.toml")
PRELOADED = ("jax", "torch", "triton.runtime.interpreter", "triton.compiler", "gfloat", "ml_dtypes")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sample", type=int, help="how many mutants to try (all)")
    parser.add_argument("--limit", type=int, default=300, help="seconds for one mutant in one stage (%(default)s)")
    parser.add_argument("--only", default="", help="part of the names of the mutants to try")
    args = parser.parse_args()
    for name in PRELOADED:
        importlib.import_module(name)
    chosen = [mutant for mutant in mutants_of(ROOT) if args.only in mutant.name]
    chosen.sort(key=lambda mutant: zlib.crc32(mutant.name.encode()))
    with tempfile.TemporaryDirectory() as directory:
        _run_stages(_copied_to(Path(directory)), chosen[: args.sample], args.limit)


def _run_stages(tree: Path, mutants: list[Mutant], limit: int) -> None:
    alive = mutants
    for stage, run in STAGES.items():
        if not _passes(tree, partial(run, ""), limit):
            sys.exit(f"{stage}: fails without any change")
        alive = [mutant for mutant in alive if _survives(tree, mutant, run, limit)]
        print(f"{stage}: {len(mutants) - len(alive)} of {len(mutants)} noticed so far", flush=True)
    tried = Counter(mutant.path for mutant in mutants)
    survived = Counter(mutant.path for mutant in alive)
    for path in sorted(tried):
        print(f"{tried[path] - survived[path]:4} of {tried[path]:4}  {path}")
    print(*(f"survived: {mutant.name}" for mutant in alive), sep="\n")
    noticed = len(mutants) - len(alive)
    print(f"{noticed} of {len(mutants)} noticed, {100 * noticed / max(len(mutants), 1):.1f} %")


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


def _survives(tree: Path, mutant: Mutant, run: Callable[[str], int], limit: int) -> bool:
    """Whether a stage passes in a tree with one change."""
    path = tree / mutant.path
    original = path.read_bytes()
    path.write_bytes(mutant.apply(original))
    start = time.monotonic()
    try:
        passes = _passes(tree, partial(run, path.parent.name if mutant.path.startswith("m3ops/ops/") else ""), limit)
    finally:
        path.write_bytes(original)
    print(f"  {'alive  ' if passes else 'noticed'} {time.monotonic() - start:4.0f} s  {mutant.name}", flush=True)
    return passes


def _passes(tree: Path, run: Callable[[], int], limit: int) -> bool:
    """Whether a function, run in a fork with the tree's modules, gives 0 within a time."""
    if (child := os.fork()) == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
        os._exit(_quietly(tree, run))
    return os.waitpid(child, 0)[1] == 0


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


def _pytest(*args: str) -> Callable[[str], int]:
    return lambda op: int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *args]))


STAGES: dict[str, Callable[[str], int]] = {
    "contract tests on the specification and in the interpreter": _contract,
    "tests/test_rows.py": _pytest("tests/test_rows.py"),
    "tests/test_interpreter_launch.py": _pytest("tests/test_interpreter_launch.py"),
    "tests/test_scale_layouts.py": _pytest("tests/test_scale_layouts.py"),
    "tests/test_scale_rules.py, test_oracles.py": _pytest("tests/test_scale_rules.py", "tests/test_oracles.py"),
    "AMD machine code": _pytest("tests/test_rocm_contract.py", "-k", "test_same_bytes_on_other_targets and torch"),
}
"""What runs, from the fastest to the slowest; each takes the name of the mutated op, if it is of one."""


if __name__ == "__main__":
    main()
