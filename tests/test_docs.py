"""The documentation builds without a warning and has a page for everything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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
