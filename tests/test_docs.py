"""The documentation builds without a warning and has a page for everything."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from m3ops.ops import OPS

ROOT = Path(__file__).parents[1]


def test_site_builds_without_warnings(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    for front_end in ("jax", "torch"):
        page = (tmp_path / "reference" / f"{front_end}.html").read_text()
        assert not [op for op in OPS if f'id="m3ops_{front_end}.{op}.{op}"' not in page]
    assert not list(tmp_path.rglob("*.py"))
    for html in (*tmp_path.glob("*.html"), *tmp_path.glob("reference/*.html")):
        # Two powers in one paragraph, 2**31 and 2**32, make what is between them bold; Sphinx's roles are not Markdown.
        assert not re.findall(r"\d<strong>.*|:[a-z]+:<code>.*", html.read_text()), html.name


def test_performance_page_has_the_tables_of_its_data(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(ROOT / "docs" / "performance" / "tables.py"), run_name="__main__")
    page = (ROOT / "docs" / "performance.md").read_text().splitlines()
    assert not [line for line in capsys.readouterr().out.splitlines() if line.startswith("|") and line not in page]
