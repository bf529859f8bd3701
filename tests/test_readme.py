"""README and the pages in docs/: their snippets run as they stand, their commands and links exist."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import rocm_lowering

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "m3ops" / "numerics" / "README.md",
    *ROOT.glob("docs/*.md"),
]
SNIPPETS = [
    (f"{page.relative_to(ROOT)}-{number}", snippet)
    for page in PAGES
    for number, snippet in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
]

# What a snippet's comments and text say it gives: name, then shapes of its arrays, or platforms of an export.
PROMISED: dict[str, Any] = {
    "values": (16, 3072),
    "scales": (16, 96),
    "exported": ("cpu", "cuda", "rocm"),
    "quantized": ((200, 3072), (256, 96)),
}


def given(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(given(part) for part in value)
    return value.platforms if hasattr(value, "platforms") else tuple(value.shape)


def stand_in(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty modules for a package that is not installed."""
    parent = None
    for name in (path[: match.start()] for match in re.finditer(r"\.|$", path)):
        module = sys.modules.get(name) or ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        if parent:
            setattr(parent, name.rpartition(".")[2], module)
        parent = module


@pytest.mark.parametrize("snippet", [s for _, s in SNIPPETS], ids=[name for name, _ in SNIPPETS])
def test_snippet(snippet: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if "compile_for" in snippet:
        rocm_lowering.install_stub()
    for path in re.findall(r"^import (sglang[\w.]+)", snippet, re.MULTILINE):
        stand_in(path, monkeypatch)
    names: dict[str, Any] = {}
    exec(snippet, names)
    for name in names.keys() & PROMISED.keys():
        assert given(names[name]) == PROMISED[name]


def test_there_is_a_snippet_for_each_front_end() -> None:
    readme = "".join(s for name, s in SNIPPETS if name.startswith("README"))
    assert {"m3ops_jax", "m3ops_torch"} <= set(re.findall(r"\bm3ops_\w+", readme))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_exist(page: Path) -> None:
    """CI runs ``make lint``, ``demo`` and ``test``; a page names nothing that is not there."""
    text = page.read_text()
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^    make ([\w-]+)|`make ([\w-]+)", text, re.MULTILINE):
        assert re.search(rf"^{''.join(target)}:", makefile, re.MULTILINE), target
    for command in re.findall(r"python -m m3ops (\w+)", text):
        assert f'add_parser("{command}"' in (ROOT / "m3ops" / "cli.py").read_text()
    for path in re.findall(r"python ((?:tests|docs|notebooks)/[\w/]+\.py)", text):
        assert (ROOT / path).is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target
