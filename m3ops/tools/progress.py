"""A progress bar on stderr: tqdm's on a terminal, a line for each title elsewhere."""

from __future__ import annotations

import importlib
import sys
from types import TracebackType
from typing import Any


class Progress:
    """Counts ``total`` steps of one ``unit``; use as a context manager."""

    def __init__(self, total: int, unit: str) -> None:
        self._bar: Any = None
        self._total, self._done, self._title = total, 0, ""
        if sys.stderr.isatty():
            try:
                self._bar = importlib.import_module("tqdm").tqdm(total=total, unit=unit, leave=False)
            except ImportError:
                print("tqdm is not installed: plain progress (in a checkout, pip install '.[bench]')", file=sys.stderr)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()

    def at(self, title: str) -> None:
        """Names what is under way."""
        if self._bar is not None:
            self._bar.set_postfix_str(title)
        elif title != self._title:
            print(f"[{self._done}/{self._total}] {title}", file=sys.stderr, flush=True)
        self._title = title

    def step(self) -> None:
        """One step is done."""
        self._done += 1
        if self._bar is not None:
            self._bar.update()
