"""Named cases of every op: what the tests check on each backend and ``python -m m3ops selftest`` on any device.

Each case pins a numeric corner or a way of passing arrays. Its inputs are made from integers by a generator whose
stream NumPy guarantees, so the digests in golden.json hold on every machine.
"""

from __future__ import annotations

import json
from importlib import resources

from m3ops.testing.case import Case
from m3ops.testing.discovery import modules

CASES: tuple[Case, ...] = tuple(case for module in modules("cases") for case in module.CASES)


def golden() -> dict[str, str]:
    """The published digests by the ids of the cases."""
    digests: dict[str, str] = json.loads(resources.files("m3ops.testing").joinpath("golden.json").read_text())
    return digests
