"""Changes the numerics, plans and kernels one spot at a time and counts the changes that the CPU tests notice.

    python tests/mutate.py --sample 100      # a sample, the same one every time; all of them without --sample

Each mutant is tried in a copy of the tree, in processes forked from one that has imported the frameworks. It goes
through those of :data:`CHECKS` that concern its file; the first that fails has noticed it. What takes more than
``--limit`` seconds of processor time, an endless loop as a rule, counts as noticed. After ``--minutes`` no further one
is tried.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import re
import resource
import shutil
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
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
    parser.add_argument("--minutes", type=float, default=float("inf"), help="for how long (no limit)")
    parser.add_argument("--limit", type=int, default=300, help="seconds for one mutant in one check (%(default)s)")
    parser.add_argument("--only", default="", help="part of the names of the mutants to try")
    args = parser.parse_args()
    for name in PRELOADED:
        importlib.import_module(name)
    known = [mutant for mutant in mutants_of(ROOT) if args.only in mutant.name]
    chosen = sorted(known, key=lambda mutant: zlib.crc32(mutant.name.encode()))[: args.sample]
    tried, survived = 0, []
    with tempfile.TemporaryDirectory() as directory:
        tree = _copied_to(Path(directory))
        for check in CHECKS:
            if any(map(check.concerns, chosen)) and not _passes(tree, partial(check.run, ""), args.limit):
                sys.exit(f"{check.name}: fails without any change")
        end = time.monotonic() + 60 * args.minutes
        for mutant in chosen:
            if time.monotonic() > end:
                break
            tried += 1
            if _survives(tree, mutant, args.limit):
                survived.append(mutant)
    for mutant in survived:
        print(f"survived: {mutant.name}")
    print(f"{tried - len(survived)} of {tried} noticed, of {len(known)} there are")


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


def _survives(tree: Path, mutant: Mutant, limit: int) -> bool:
    """Whether all checks pass in a tree with one change."""
    path = tree / mutant.path
    family = path.parent.name if "/ops/" in mutant.path else ""
    original = path.read_bytes()
    path.write_bytes(mutant.apply(original))
    start = time.monotonic()
    concerned = (check for check in CHECKS if check.concerns(mutant))
    noticed = next((check for check in concerned if not _passes(tree, partial(check.run, family), limit)), None)
    path.write_bytes(original)
    print(f"{time.monotonic() - start:4.0f} s  {mutant.name}: {noticed.name if noticed else 'alive'}", flush=True)
    return noticed is None


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


def _contract(family: str, *, first: bool) -> int:
    """The contract on the specification and in the interpreter: a family's cases, else some first and then the rest."""
    contract = importlib.import_module("test_contract")
    backends = importlib.import_module("backends").BACKENDS
    interpreter = next(backend for backend in backends if backend.name == "interpreter")
    cases = sorted(contract.CASES, key=lambda case: zlib.crc32(case.id.encode()))
    own = [case for case in cases if f".ops.{family}." in type(case.call).__module__]
    for case in own or (cases[:FIRST] if first else cases[FIRST:]):
        contract.test_specification_has_not_moved(case)
        contract.test_same_bytes_as_the_specification(interpreter, case)
    return 0


def _pytest(*args: str, some: str = "") -> Callable[[str], int]:
    """Runs tests: of a family those with its name if there are any, else all, or some."""

    def run(family: str) -> int:
        chosen = ["-k", family or some]
        status = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *args, *chosen]))
        return 0 if status == pytest.ExitCode.NO_TESTS_COLLECTED else status

    return run


@dataclass(frozen=True)
class Check:
    """Tests that concern the files whose names match; ``run`` takes the family of the mutated file, if it has one."""

    name: str
    files: str
    run: Callable[[str], int]

    def concerns(self, mutant: Mutant) -> bool:
        return bool(re.search(self.files, mutant.path))


FIRST = 100
"""Cases on which a mutant of no one op is tried first: most are noticed there, and one that is not costs little."""

CHECKS = (
    Check("some cases", "", partial(_contract, first=True)),
    Check("rows", "rows|tiling|plan", lambda _: _pytest("tests/test_rows.py")("")),
    Check(
        "oracles",
        "exact|constants|formats|tile",
        _pytest("tests/test_exact_fp32.py", "tests/test_exact_functions.py", "tests/test_scale_rules.py"),
    ),
    Check("layouts", "scale|rows|tiling|quantize", _pytest("tests/test_scale_layouts.py")),
    Check("launches", "rows|tile|tiling|kernel|plan", _pytest("tests/test_interpreter_launch.py")),
    Check("counts", "row_count|rows|scales|kernel", _pytest("tests/test_row_count.py")),
    Check(
        "gradients",
        "exact|constants|tile|row_sums|backward",
        _pytest("tests/test_gradients.py", "tests/test_gradient_launches.py"),
    ),
    Check(
        "sharding",
        "scale_layouts|row_count",
        _pytest("tests/test_jax_sharding.py", some="test_rows and mxfp8_quantize"),
    ),
    Check("all cases", "m3ops/[^/]*[.]py|numerics", partial(_contract, first=False)),
    Check("AMD", "tile|kernel|plan", _pytest("tests/test_rocm_contract.py", some="random")),
)


if __name__ == "__main__":
    main()
