"""What PyTorch does not document: each name is still there, and comes in by one door."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import m3ops_torch

PACKAGE = Path(m3ops_torch.__file__).parent
DOOR = PACKAGE / "_private.py"


def imported_names() -> list[tuple[str, str]]:
    """The names that the door imports, with their modules."""
    imports = [node for node in ast.walk(ast.parse(DOOR.read_text())) if isinstance(node, ast.ImportFrom)]
    return [(str(node.module), alias.name) for node in imports for alias in node.names if node.module != "__future__"]


@pytest.mark.parametrize(("module", "name"), imported_names())
def test_a_name_is_there(module: str, name: str) -> None:
    if module.startswith("torch.distributed"):
        pytest.importorskip("torch.distributed.tensor", reason="PyTorch without torch.distributed")
    namespace = __import__(module, fromlist=[name])
    assert hasattr(namespace, name), f"{module}.{name} is gone; m3ops_torch._private says what it was for"


def test_what_is_no_import_is_there() -> None:
    """Attributes that the door or its guests use."""
    import torch
    from torch._dynamo.variables import functions

    from m3ops_torch import _private

    assert isinstance(torch.autograd.forward_ad._current_level, int)
    assert hasattr(torch.ops.aten.add.Tensor, "redispatch")
    assert hasattr(_private.dtensor().propagator, "register_op_strategy")
    source = Path(functions.__file__).read_text()
    for name in ("_torchdynamo_inline", "_dynamo_marked_constant"):
        assert name in source, f"torch.compile no longer looks for {name}"


def private_names(path: Path) -> list[str]:
    """Names of PyTorch in a file that begin with an underscore: imported, or attributes of what begins with torch."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "torch":
            parts = [*str(node.module).split("."), *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Attribute):
            parts = ast.unparse(node).split(".")
            parts = parts if parts[0] in ("torch", "forward_ad") else []
        else:
            continue
        found += [".".join(parts) for part in parts if part.startswith("_")]
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.name)
def test_there_is_one_door(path: Path) -> None:
    assert bool(private_names(path)) == (path == DOOR), private_names(path)
