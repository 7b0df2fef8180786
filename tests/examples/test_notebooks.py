"""The notebooks run, and what they show is stored with them.

After a change that is meant, run ``GDSL_UPDATE=1 pytest tests/examples/test_notebooks.py``, and look at what they show.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
pytest.importorskip("ipykernel", reason="ipykernel is not installed")

FOLDER = Path(__file__).parents[2] / "examples"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
# Of a notebook in the repository, and of the lines of what one cell shows.
MOST_BYTES, MOST_LINES = 60_000, 40


def test_there_are_some() -> None:
    assert len(NOTEBOOKS) >= 2


def code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds(cell: Any) -> list[str]:
    """What a cell shows: "stream", "execute_result", "error"."""
    return [output.output_type for output in cell.outputs]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stored = nbformat.read(path, as_version=4)
    nbformat.validate(stored)
    before = nbformat.from_dict(stored)
    # The kernel is a process of its own, which imports this gdsl.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(FOLDER.parent), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    client = nbclient.NotebookClient(nbformat.from_dict(stored), timeout=300, kernel_name="python3")
    ran = client.execute(cwd=str(FOLDER))  # raises where a cell does that is not meant to
    if os.environ.get("GDSL_UPDATE"):
        write(ran, path)
        before = ran
    for old, new in zip(code(before), code(ran), strict=True):
        meant = "raises-exception" in old.metadata.get("tags", ())
        assert ("error" in kinds(new)) == meant, new.source
        assert kinds(old) == kinds(new), f"what this cell shows is not stored: {new.source}"
        assert old.execution_count == new.execution_count
        for output in old.outputs:
            for words in texts(output):
                assert len(words.splitlines()) <= MOST_LINES, old.source
    assert path.stat().st_size < MOST_BYTES


def texts(output: Any) -> list[str]:
    data = output.get("data", {})
    return [output[key] for key in ("text",) if key in output] + [data[key] for key in ("text/plain",) if key in data]


def write(notebook: Any, path: Path) -> None:
    """Without what is another one each time."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", ()):
            if output.output_type == "error":
                output.traceback = output.evalue.splitlines()
    notebook.metadata.pop("widgets", None)
    notebook.metadata.language_info = {"name": "python"}
    nbformat.write(notebook, path)
