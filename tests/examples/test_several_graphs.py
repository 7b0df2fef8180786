"""examples/several_graphs.py: each text is what torch and torch_geometric give, with two derivatives."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def example(examples_on_path: Path) -> Any:
    return importlib.import_module("several_graphs")


@pytest.mark.parametrize("name", ["Exphormer", "HGT", "Molecule"])
def test_it_is_what_torch_gives(example: Any, name: str) -> None:
    made = example.CASES[name].make().double()
    made.backend = "torch"
    assert all(gap < 1e-9 for gap in example.compared(example.CASES[name], made, 9))


def test_all_are_tried(example: Any) -> None:
    assert [line.split("(")[0].removeprefix("layer ") for line in example.TEXT.split("\n") if line[:6] == "layer "] == [
        case.layer for case in example.CASES.values()
    ]


@pytest.mark.slow
def test_the_table(example: Any, capsys: pytest.CaptureFixture[str]) -> None:
    example.main(["--short"])
    assert capsys.readouterr().out.count("\n| ") == 3
