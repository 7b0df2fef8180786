"""Tables of measurements are those of the files in benchmarks/results, and the picture is what its script draws."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path

import pytest

from docs.site import picture

RESULTS = "benchmarks/results"


@pytest.fixture(scope="module")
def report():
    folder = str(Path(__file__).parents[2] / "benchmarks")
    sys.path.insert(0, folder)
    yield importlib.import_module("report")
    sys.path.remove(folder)


def tables(page: str) -> dict[str, str]:
    return dict(re.findall(r"<!-- begin ([\w-]+) -->\n(.*?)\n<!-- end \1 -->", page, re.DOTALL))


def test_tables_are_those_of_the_files(repository: Path, report) -> None:
    found = tables((repository / "docs" / "performance.md").read_text(encoding="utf-8"))
    named = {name: re.findall(rf"`({RESULTS}/[\w.-]+)`$", text) for name, text in found.items()}
    for name, (file,) in named.items():
        path = repository / file
        if path.suffix == ".json":
            assert found[name] == report.render(json.loads(path.read_text()), file), f"{name}: run benchmarks/report.py"
        else:
            assert path.exists()


def test_the_table_of_the_readme(repository: Path, report) -> None:
    found = tables((repository / "README.md").read_text(encoding="utf-8"))
    measured = json.loads((repository / RESULTS / "layers.json").read_text())
    assert found == {"readme": report.short(measured)}, "run benchmarks/report.py"


def test_the_picture(repository: Path) -> None:
    drawn = (repository / "docs" / "picture.svg").read_text(encoding="utf-8")
    assert drawn == picture.picture(), "make it again: python -m docs.site.picture > docs/picture.svg"


def test_the_readme_is_short(repository: Path) -> None:
    assert len((repository / "README.md").read_text(encoding="utf-8").splitlines()) <= 100
