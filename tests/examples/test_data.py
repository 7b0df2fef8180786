"""The readers of examples/data.py, against known counts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.usefixtures("examples_on_path")


def edge_set(edge_index: torch.Tensor, num_nodes: int) -> torch.Tensor:
    return (edge_index[0] * num_nodes + edge_index[1]).sort().values


@pytest.mark.parametrize(("name", "nodes", "classes"), [("git", 37_700, 2), ("facebook", 22_470, 4)])
def test_musae(data_root, name, nodes, classes):
    import data

    graph = data.load_musae(name, data_root)
    if graph is None:
        pytest.skip(f"no musae/{name}.npz in the data folder")
    assert (graph.num_nodes, graph.num_classes) == (nodes, classes)
    assert (graph.x is None) == (name == "git")
    forward = edge_set(graph.edge_index, nodes)
    assert torch.equal(forward, edge_set(graph.edge_index.flip(0), nodes))
    assert len(forward) == len(forward.unique())
    assert not (graph.edge_index[0] == graph.edge_index[1]).any()


def test_row_normalised_sums_to_one_or_zero():
    import data

    x = data.row_normalised(torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]))
    assert torch.equal(x, torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]))


def test_word_dropout_drops_and_scales_what_is_not_zero():
    import data

    x = torch.zeros(50, 100)
    x[:, ::5] = 2.0
    dropout = data.WordDropout(x, p=0.4)
    dropped = dropout()
    assert not dropped[x == 0].any()
    assert dropped[x != 0].unique().tolist() == pytest.approx([0.0, 2 / 0.6])
    assert (dropped[x != 0] == 0).float().mean().item() == pytest.approx(0.4, abs=0.05)
    assert not torch.equal(dropped.clone(), dropout())
    assert torch.equal(dropout.eval()(), x)


def test_missing_data_is_none_and_a_wrong_folder_an_error(monkeypatch, tmp_path: Path):
    import data

    monkeypatch.setenv("GDSL_DATA", str(tmp_path))
    assert data.load_musae("git") is None
    assert data.load_codex("codex-s") is None
    monkeypatch.setenv("GDSL_DATA", str(tmp_path / "absent"))
    with pytest.raises(FileNotFoundError, match=r"GDSL_DATA names .*absent"):
        data.load_musae("git")


def test_generated_graph_has_the_promised_shape():
    import data

    graph = data.generated(num_nodes=600, num_classes=4, num_features=200)
    assert torch.equal(graph.edge_index, data.generated(600, 4, 200).edge_index)
    assert graph.x is not None
    assert graph.x.shape == (600, 200)
    assert int(graph.edge_index.max()) < 600
    masks = torch.stack([graph.train_mask, graph.val_mask, graph.test_mask])
    assert int(masks.sum(0).max()) == 1
    assert masks.sum(1).tolist() == [80, 120, 240]
    same = (graph.y[graph.edge_index[0]] == graph.y[graph.edge_index[1]]).float().mean().item()
    assert 0.75 < same < 0.95
