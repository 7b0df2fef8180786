"""examples/knowledge.py: ranks are right, and what it learns is better than what it starts from."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch


@pytest.fixture
def knowledge(examples_on_path: Path) -> Any:
    return importlib.import_module("knowledge")


def table(out: str) -> dict[str, list[float]]:
    """The mean of each metric, by the name of the row."""
    rows = {}
    for line in out.splitlines():
        if "±" in line:
            cells = line.split("±")
            rows[line[:18].strip()] = [float(cell.split()[-1]) for cell in cells[:-1]]
    return rows


def test_codex_is_read_as_written(data_root: Path, examples_on_path: Path) -> None:
    data = importlib.import_module("data")
    codex = data.load_codex("codex-s", data_root)
    if codex is None:
        pytest.skip("no codex-s in the data folder")
    assert (codex.num_entities, codex.num_relations) == (2_034, 42)
    assert [len(part) for part in (codex.train, codex.val, codex.test)] == [32_888, 1_827, 1_828]
    everything = torch.cat([codex.train, codex.val, codex.test])
    assert len(everything.unique(dim=0)) == len(everything)
    assert len(everything[:, [0, 2]].unique()) == 2_034
    assert len(everything[:, 1].unique()) == 42
    # The first line of the file, by hand: names are numbered in their order.
    lines = [line.split("\t") for line in (data_root / "codex-s" / "train.txt").read_text().splitlines()]
    first = codex.train[:, 1] == codex.train[0, 1]
    assert int(first.sum()) == sum(relation == lines[0][1] for _, relation, _ in lines)


def test_ranks_by_hand(knowledge: Any) -> None:
    """Three tails to choose from for the one test triple: one is known already, one scores the same."""
    triples = torch.tensor([[0, 0, 1], [2, 0, 3], [0, 0, 2]])
    data = knowledge.TripleData("by hand", 4, 1, triples[:1], triples[1:2], triples[2:])
    ranking = knowledge.Ranking(data, data.test)
    assert ranking.questions.tolist() == [[0, 0, 2], [2, 1, 0]]

    class Fixed(torch.nn.Module):
        def forward(self, graph: Any, edge_type: Any) -> None:
            return None

        def scores(self, h: None, questions: torch.Tensor) -> torch.Tensor:
            # Tails of (0, 0): 1 scores most and is known, 2 is asked for, and 3 scores the same. Heads: 0 is first.
            return torch.tensor([[0.0, 9.0, 5.0, 5.0], [9.0, 1.0, 1.0, 1.0]])

    mrr, *hits = ranking(Fixed(), None, None)
    assert mrr == pytest.approx((1 / 1.5 + 1) / 2)
    assert hits == [0.5, 1.0, 1.0]


def test_it_learns_codex(
    knowledge: Any, data_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not (data_root / "codex-s").is_dir():
        pytest.skip("no codex-s in the data folder")
    monkeypatch.setenv("GDSL_DATA", str(data_root))
    knowledge.main(["--short", "--models", "rgcn"])
    rows = table(capsys.readouterr().out)
    assert rows["RGCN untrained"][0] < 0.02
    assert rows["RGCN"][0] > 0.05
    _, *hits = rows["RGCN"]
    assert hits == sorted(hits)


def test_without_data_it_learns_generated_triples(
    knowledge: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GDSL_DATA", str(tmp_path))
    knowledge.main(["--models", "rgcn", "--seeds", "1", "--epochs", "10"])
    out = capsys.readouterr().out
    assert "Training on generated triples instead" in out
    rows = table(out)
    assert rows["RGCN untrained"][0] < 0.1
    assert rows["RGCN"][0] > 0.5


def test_unknown_model(knowledge: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        knowledge.main(["--models", "none"])
    assert "there is no model none" in capsys.readouterr().err
