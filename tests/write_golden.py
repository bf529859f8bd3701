"""Writes the digests of all cases to m3ops/cases/golden.json: ``python tests/write_golden.py``.

Run it after adding cases. If it changes a digest that exists, published bytes change: say so in the CHANGELOG.
"""

from __future__ import annotations

import json
from pathlib import Path

import m3ops.cases
from m3ops.cases import CASES, digest

if __name__ == "__main__":
    path = Path(m3ops.cases.__file__).with_name("golden.json")
    path.write_text(json.dumps({case.id: digest(case.expected()) for case in CASES}, indent=1) + "\n")
