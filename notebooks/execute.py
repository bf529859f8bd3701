"""Executes the notebooks and writes them with their outputs.

The source of a notebook is the ``.py`` file beside it, in jupytext's percent format; edit that one, or the notebook in
Jupyter with jupytext, which keeps the two together.

    python notebooks/execute.py                     # all of them
    python notebooks/execute.py 01_mxfp8_by_hand    # one
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import jupytext
import nbformat
from jupyter_client import AsyncKernelManager
from nbclient import NotebookClient

FOLDER = Path(__file__).parent
NAMES = tuple(sorted(path.stem for path in FOLDER.glob("[0-9]*.py")))
TIMEOUT = 300  # seconds, of one cell, where many programs share the processor


def read(name: str) -> nbformat.NotebookNode:
    """The notebook that the source of this name describes, not executed. Its cell ids are the same every time."""
    notebook = jupytext.read(FOLDER / f"{name}.py")
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
    return notebook


def execute(name: str) -> nbformat.NotebookNode:
    """Runs a notebook in a new kernel, on the m3ops beside it.

    Raises:
        nbclient.exceptions.CellExecutionError: A cell raised an exception.
    """
    notebook = read(name)
    path = os.pathsep.join(filter(None, (str(FOLDER.parent), os.environ.get("PYTHONPATH"))))
    with tempfile.TemporaryDirectory() as scratch:
        kernel = AsyncKernelManager(kernel_name="python3", transport="ipc", ip=f"{scratch}/kernel")
        resources = {"metadata": {"path": str(FOLDER)}}
        options = {"timeout": TIMEOUT, "record_timing": False, "coalesce_streams": True, "resources": resources}
        client = NotebookClient(notebook, kernel, **options)
        # A kernel that the client did not make itself it would leave running.
        client.execute(cleanup_kc=True, env=os.environ | {"PYTHONPATH": path})
    notebook.metadata.pop("language_info", None)  # the version of this machine's Python
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not _of_the_disassembler(output)]
    return notebook


def _of_the_disassembler(output: nbformat.NotebookNode) -> bool:
    """NVIDIA's warns of a file format, which it reads all the same."""
    return output.get("name") == "stderr" and output.text.startswith("nvdisasm warning")


def main() -> None:
    """Command line: ``python notebooks/execute.py [name ...]``."""
    for name in sys.argv[1:] or NAMES:
        print(name, flush=True)
        nbformat.write(execute(name), FOLDER / f"{name}.ipynb")


if __name__ == "__main__":
    main()
