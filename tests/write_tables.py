"""Writes the tables of the pages that the repository can compute: ``PYTHONPATH=.:tests python tests/write_tables.py``.

Those of measurements come from the benchmark's files, those of scale rules and of AMD's code from the tests.
"""

from __future__ import annotations

import contextlib
import io
import re
import runpy
from collections.abc import Callable, Sequence
from pathlib import Path

from rocm import production
from test_scale_rules import published_table

DOCS = Path(__file__).parents[1] / "docs"
TABLE = re.compile(r"^(`\w+`\n|\|)", re.MULTILINE)
"""How a table of measurements begins: with the name of an op or with its head."""


def with_table(page: str, lines: Sequence[str]) -> str:
    """A page with the table that begins as this one does replaced by it."""
    start = page.index(lines[0])
    (old,) = re.findall(r"\A(?:\|.*\n?)+", page[start:])
    return page[:start] + "\n".join(lines) + "\n" + page[start + len(old) :]


def scale_rules(page: str) -> str:
    return with_table(page, published_table())


def amd_code(page: str) -> str:
    """Compiles every kernel, which takes a minute."""
    return with_table(page, [*production.table()])


def measurements(page: str) -> str:
    """Replaces in each section what stands from its first table's name to its last table's end."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        runpy.run_path(str(DOCS / "performance" / "tables.py"), run_name="__main__")
    for section in re.split(r"^## ", printed.getvalue(), flags=re.MULTILINE)[1:]:
        heading, _, tables = section.partition("\n")
        start = next(TABLE.finditer(page, page.index(f"\n## {heading}\n"))).start()
        end = page.find("\n## ", start) % (len(page) + 1)
        old = page[start : page.rindex("|\n", start, end) + 2]
        page = page[:start] + tables.strip() + "\n" + page[start + len(old) :]
    return page


PAGES: dict[str, Callable[[str], str]] = {
    "performance.md": measurements,
    "verification.md": scale_rules,
    "rocm.md": amd_code,
}

if __name__ == "__main__":
    for name, write in PAGES.items():
        path = DOCS / name
        path.write_text(write(path.read_text()))
