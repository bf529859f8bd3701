"""Imports point one way, and the two front ends are alike."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import m3ops
import m3ops_jax
import m3ops_torch
from m3ops.ops import OPS
from m3ops.tools import front_ends

ROOT = Path(m3ops.__file__).parent


def _fresh(code: str) -> set[str]:
    """Runs code in a new process and returns the top-level modules it has loaded."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*{{name.split('.')[0] for name in sys.modules}})"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT.parent,
    )
    return set(done.stdout.split())


def test_core_imports_neither_framework() -> None:
    modules = [path.relative_to(ROOT.parent).with_suffix("") for path in ROOT.rglob("*.py") if path.stem[0] != "_"]
    code = "\n".join(f"import {'.'.join(path.parts)}" for path in modules)
    assert not _fresh(code) & {"jax", "jaxlib", "torch", "m3ops_jax", "m3ops_torch"}


@pytest.mark.parametrize(("front_end", "other"), [("m3ops_jax", "torch"), ("m3ops_torch", "jax")])
def test_front_ends_import_alone(front_end: str, other: str) -> None:
    assert other not in _fresh(f"import {front_end}")


def test_every_kernel_waits_for_the_one_before_it() -> None:
    """Of what it does that is the first, so that all that came before it has ended too."""
    kernels = [
        (function, path)
        for path in (*(ROOT / "ops").rglob("*.py"), *(ROOT / "tiles").rglob("*.py"))
        for function in ast.parse(path.read_text()).body
        if isinstance(function, ast.FunctionDef) and function.name.endswith("_kernel")
    ]
    assert len(kernels) > 20
    for function, path in kernels:
        first, *others = function.body
        begin = others[0] if ast.get_docstring(function) else first
        assert ast.unparse(begin) == "launches.begin(OVERLAPS)", (path, function.name)


ALLOWED = {  # kind of file within a family's folder -> kinds of files of such folders it may import at its top
    "spec": {"spec"},
    "kernel": {"kernel"},
    "plan": {"kernel", "plan", "spec"},
    "cases": {"cases"},
    "workloads": set(),
    "formula": {"formula"},
    "__init__": {"spec"},
}


def _kind(stem: str) -> str:
    """``backward_plan`` is a plan, ``cases_quantize`` are cases."""
    return next(kind for kind in ALLOWED if kind in stem)


def _imports(path: Path) -> set[str]:
    """What a file imports at its top. A specification imports its plan, and so Triton, when it is asked for one."""
    statements = (node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ImportFrom))
    return {statement.module for statement in statements if statement.module}


@pytest.mark.parametrize("path", sorted((ROOT / "ops").glob("*/*.py")), ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_arrows_within_a_family(path: Path) -> None:
    imports = _imports(path)
    of_families = [module.split(".")[3] for module in imports if re.match(r"m3ops\.ops\.\w+\.", module)]
    assert {_kind(stem) for stem in of_families} <= ALLOWED[_kind(path.stem)]
    numerics = {module.split(".")[2] for module in imports if module.startswith("m3ops.numerics.")}
    assert _kind(path.stem) != "spec" or ("tile" not in numerics and "triton" not in imports)
    assert _kind(path.stem) != "kernel" or "exact" not in numerics


def _storey(path: Path) -> int:
    """How high a file of the core stands: tools, what tests share with them, the ops and what they make, the rest."""
    folder, *inner = path.relative_to(ROOT).parts
    if folder == "ops" and len(inner) > 1 and _kind(path.stem) in ("cases", "workloads", "formula"):
        return 2
    made_of_ops = {"layers.py": 1, "checkpoint.py": 1}
    return {"tools": 3, "__main__.py": 3, "testing": 2, "ops": 1, **made_of_ops}.get(folder, 0)


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_arrows_within_the_core(path: Path) -> None:
    for module in _imports(path):
        if module.startswith("m3ops."):
            imported = ROOT.joinpath(*module.split(".")[1:])
            assert _storey(imported) <= _storey(path), module


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_only_tools_import_the_front_ends(path: Path) -> None:
    assert _storey(path) == 3 or not re.search(r"^\s*(from|import) m3ops_", path.read_text(), re.MULTILINE)


def test_the_specification_needs_no_triton() -> None:
    """Where Triton has no wheel, the CPU path works without it."""
    assert "triton" not in _fresh("import m3ops.ops")


def test_generated_functions_are_those_of_the_ops() -> None:
    assert front_ends.main(["--check"]) == 0


def test_front_ends_export_the_same_names() -> None:
    assert set(m3ops_jax.__all__) - {"compile_for"} == set(m3ops_torch.__all__)
    assert set(OPS) <= set(m3ops_jax.__all__)
