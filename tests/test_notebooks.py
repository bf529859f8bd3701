"""The notebooks run from their sources, and what is committed is a run of them."""

from __future__ import annotations

import nbformat
import pytest
from execute import FOLDER, NAMES, execute, read


@pytest.mark.parametrize("name", NAMES)
def test_committed_notebook_is_a_run_of_its_source(name: str) -> None:
    """``python notebooks/execute.py NAME`` makes it so."""
    committed, source = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4), read(name)
    nbformat.validate(committed)
    assert [(c.id, c.cell_type, c.source) for c in committed.cells] == [
        (c.id, c.cell_type, c.source) for c in source.cells
    ]
    code = [cell for cell in committed.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not [output for cell in code for output in cell.outputs if output.output_type == "error"]


@pytest.mark.parametrize("name", NAMES)
def test_runs(name: str) -> None:
    notebook = execute(name)
    assert any(cell.cell_type == "code" and cell.outputs for cell in notebook.cells)


def test_every_notebook_has_its_source() -> None:
    assert set(NAMES) == {path.stem for path in FOLDER.glob("*.ipynb")}
    assert len(NAMES) >= 5
