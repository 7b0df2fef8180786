"""Examples that train gdsl's layers and torch_geometric's in turns: each learns what it is for, with both."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Batches are small: more threads wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def rows(out: str) -> list[list[str]]:
    lines = out.splitlines()
    start = next(k for k, line in enumerate(lines) if line.startswith("model "))
    return [line.split() for line in lines[start + 1 :]]


# Chance is one in seven, one in eight and one in eight.
@pytest.mark.parametrize(
    ("name", "models", "floor"), [("sampled", ["GraphSAGE", "GAT"], 80), ("academic", ["HeteroSAGE"], 40)]
)
def test_it_learns(examples_on_path: Path, capsys: Any, name: str, models: list[str], floor: float) -> None:
    importlib.import_module(name).main(["--short"])
    found = rows(capsys.readouterr().out)
    assert [row[:2] for row in found] == [[m, library] for m in models for library in ("gdsl", "torch_geometric")]
    assert all(float(row[2]) > floor and float(row[3]) > 0 for row in found)


def test_clouds_are_learnt(examples_on_path: Path, capsys: Any) -> None:
    importlib.import_module("clouds").main(["--short"])
    found = rows(capsys.readouterr().out)
    assert [row[:2] for row in found] == [["PointNet++", "gdsl"], ["PointNet++", "torch_geometric"]]
    assert all(float(row[2]) > 40 for row in found)


def test_a_model_of_both_libraries_is_the_same(examples_on_path: Path) -> None:
    academic = importlib.import_module("academic")
    data = academic.academic(200)
    models = [
        entry.model
        for entry in importlib.import_module("peers").entries(
            "",
            lambda library: academic.Network(library, {"paper": 64, "author": 1, "venue": 1}, data.edge_types),
            lambda library: {"batches": [], "loss": None, "accuracy": None},
        )
    ]
    first, second = (model(data.x_dict, data.edge_index_dict)["paper"] for model in models)
    torch.testing.assert_close(first, second)


def test_a_graph_of_fields(examples_on_path: Path) -> None:
    """Two thirds of what is joined is of one field, and all types of nodes are joined both ways."""
    data = importlib.import_module("academic").academic(800)
    source, target = data["paper", "cites", "paper"].edge_index
    alike = (data["paper"].y[source] == data["paper"].y[target]).float().mean()
    assert 0.55 < float(alike) < 0.75
    for a, name, b in (("author", "writes", "paper"), ("venue", "prints", "paper"), ("paper", "cites", "paper")):
        assert torch.equal(data[a, name, b].edge_index, data[b, f"rev_{name}", a].edge_index.flip(0))
        assert data.validate()


def test_without_torch_geometric(examples_on_path: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "torch_geometric.nn", None)
    importlib.import_module("sampled").main(["--short", "--models", "sage"])
    found = capsys.readouterr()
    assert "nothing to compare with" in found.err
    assert [row[:2] for row in rows(found.out)] == [["GraphSAGE", "gdsl"]]
    monkeypatch.setitem(sys.modules, "torch_geometric.data", None)
    with pytest.raises(SystemExit):
        importlib.import_module("academic").main(["--short"])


def test_unknown_model(examples_on_path: Path, capsys: Any) -> None:
    with pytest.raises(SystemExit):
        importlib.import_module("sampled").main(["--models", "sage,none"])
    assert "there is no model none" in capsys.readouterr().err
