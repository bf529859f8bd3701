"""Imports point one way, and the two front ends are alike."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import m3ops
import m3ops_jax
import m3ops_torch
from m3ops.ops import OPS

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


ALLOWED = {  # file name within an op's folder -> files of ops' folders it may import
    "spec": {"spec"},
    "kernel": set(),
    "plan": {"kernel", "plan"},
    "__init__": {"spec", "plan"},
}


@pytest.mark.parametrize("path", sorted((ROOT / "ops").glob("*/*.py")), ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_arrows_within_an_op(path: Path) -> None:
    imports = {node.module for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)}
    of_ops = {module.split(".")[-1] for module in imports if module and module.startswith("m3ops.ops.")}
    assert of_ops <= ALLOWED[path.stem]
    assert path.stem != "spec" or "m3ops.numerics.tile" not in imports
    assert path.stem != "kernel" or "m3ops.numerics.exact" not in imports


def test_front_ends_export_the_same_names() -> None:
    assert set(m3ops_jax.__all__) - {"compile_for"} == set(m3ops_torch.__all__)
    assert set(OPS) <= set(m3ops_jax.__all__)


@pytest.mark.parametrize("name", OPS)
def test_front_ends_have_the_same_signatures_and_defaults(name: str) -> None:
    jax_parameters, torch_parameters = (
        [
            (p.name, p.kind, p.default if p.name != "out_dtype" else _dtype_name(p.default))
            for p in inspect.signature(getattr(module, name)).parameters.values()
        ]
        for module in (m3ops_jax, m3ops_torch)
    )
    core = [
        *((name, inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.empty) for name in OPS[name].inputs),
        *((p.name, p.kind, p.default) for p in OPS[name].params.values()),
    ]
    core.append(("num_rows", inspect.Parameter.KEYWORD_ONLY, None))
    # PyTorch's callers may give memory for the results; JAX's donate arguments.
    assert torch_parameters == [*core, ("out", inspect.Parameter.KEYWORD_ONLY, None)]
    assert jax_parameters == core


def _dtype_name(dtype: object) -> str | None:
    return None if dtype is None else getattr(dtype, "__name__", str(dtype)).removeprefix("torch.")
