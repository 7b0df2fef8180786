"""docs/layers.md says what the layers are."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import gdsl.nn
from gdsl.nn.conv.base import Programmed, program_text
from tests.parity import catalogue


def test_every_layer_and_its_program(repository: Path) -> None:
    docs = repository / "docs"
    page = (docs / "layers.md").read_text(encoding="utf-8")
    for names in gdsl.nn._FAMILIES.values():
        for name in names:
            kind = getattr(gdsl.nn, name)
            row = catalogue.row(name)
            assert row in page, f"{name} is not there: make the page again, see tests/parity/catalogue.py"
            if kind.__name__ == name and issubclass(kind, Programmed):
                (program,) = re.findall(r"\[text\]\((\S+)\)", row)
                assert (docs / program).read_text(encoding="utf-8") == program_text(kind.program_name)


def test_how_many_names_there_are(repository: Path) -> None:
    """The table counts what can be imported."""
    page = (repository / "docs" / "layers.md").read_text(encoding="utf-8")
    assert catalogue.by_name() in page, "make the page again, see tests/parity/catalogue.py"
    rows = dict(re.findall(r"^\| (\w+) \| (\d+ \| \d+) \|", page, re.MULTILINE))
    here = every = 0
    for module in sorted(("conv", *catalogue.PARTS)):
        names = import_module(f"torch_geometric.nn.{module}").__all__
        found = [name for name in names if hasattr(gdsl.nn, name)]
        assert rows[module] == f"{len(found)} | {len(names)}"
        here, every = here + len(found), every + len(names)
        for name in found:
            assert callable(getattr(gdsl.nn, name))
            assert getattr(import_module(f"gdsl.nn.{module}"), name) is getattr(gdsl.nn, name)
    assert rows["all"] == f"{here} | {every}"
    assert {*catalogue.MISSING}.isdisjoint(gdsl.nn._HOMES), "said to be missing"


def test_every_part_is_described(repository: Path) -> None:
    page = (repository / "docs" / "layers.md").read_text(encoding="utf-8")
    for module in catalogue.PARTS:
        assert catalogue.part(module) in page, f"{module}: make the page again, see tests/parity/catalogue.py"


def test_the_page_is_up_to_date(repository: Path) -> None:
    assert (repository / "docs" / "layers.md").read_text(encoding="utf-8") == catalogue.text()
