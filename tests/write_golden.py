"""Writes the digests of all cases to m3ops/testing/golden.json: ``python tests/write_golden.py``.

Run it after adding cases. If it changes a digest that exists, published bytes change: say so in the CHANGELOG.
"""

from __future__ import annotations

import json
from pathlib import Path

import m3ops.testing
from m3ops.testing.case import digest
from m3ops.testing.cases import CASES, golden
from m3ops.testing.layer import LAYER

if __name__ == "__main__":
    digests = {case.id: digest(case.expected()) for case in (*CASES, LAYER)}
    in_place = {name: digests[name] for name in golden() if name in digests}  # so that a diff shows what is new
    path = Path(m3ops.testing.__file__).with_name("golden.json")
    path.write_text(json.dumps(in_place | digests, indent=1) + "\n")
