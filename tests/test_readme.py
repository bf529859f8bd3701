"""README's snippets run as they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import rocm_lowering

README = Path(__file__).parents[1] / "README.md"
SNIPPETS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=range(len(SNIPPETS)))
def test_snippet(snippet: str) -> None:
    if "compile_for" in snippet:
        rocm_lowering.install_stub()
    names: dict[str, Any] = {}
    exec(snippet, names)
    if "values" in names:
        assert (names["values"].shape, names["scales"].shape) == ((16, 3072), (16, 96))
    else:
        assert names["exported"].platforms == ("cpu", "cuda", "rocm")


def test_there_is_a_snippet_for_each_front_end() -> None:
    assert {"m3ops_jax", "m3ops_torch"} <= {name for s in SNIPPETS for name in re.findall(r"import (m3ops_\w+)", s)}
