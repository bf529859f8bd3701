"""Finds what the families' folders say: a new file is found by its name."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType

from m3ops.ops import EVERY_OP

FAMILIES = tuple(dict.fromkeys(op.__module__.rpartition(".")[0] for op in EVERY_OP.values()))
"""The packages of the families, in the order of the ops."""


def modules(stem: str) -> Iterator[ModuleType]:
    """The modules ``<stem>`` and ``<stem>_*`` of all families."""
    for family in FAMILIES:
        for found in pkgutil.iter_modules(import_module(family).__path__):
            if found.name.split("_")[0] == stem:
                yield import_module(f"{family}.{found.name}")
