"""The readers of examples/data.py, against known counts and PyTorch Geometric's reading of the same files."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.usefixtures("examples_on_path")


def edge_set(edge_index: torch.Tensor, num_nodes: int) -> torch.Tensor:
    return (edge_index[0] * num_nodes + edge_index[1]).sort().values


@pytest.mark.parametrize(
    ("name", "nodes", "edges", "features", "classes"),
    [("Cora", 2_708, 10_556, 1_433, 7), ("CiteSeer", 3_327, 9_104, 3_703, 6)],
)
def test_planetoid_is_what_pyg_reads(data_root, tmp_path, name, nodes, edges, features, classes):
    import data
    from torch_geometric.datasets import Planetoid

    ours = data.load_planetoid(name, data_root)
    if ours is None:
        pytest.skip(f"no Planetoid/{name} in the data folder")
    assert (ours.num_nodes, ours.num_edges, ours.num_classes) == (nodes, edges, classes)
    assert ours.x.shape == (nodes, features)
    masks = (ours.train_mask, ours.val_mask, ours.test_mask)
    assert [int(mask.sum()) for mask in masks] == [20 * classes, 500, 1_000]

    shutil.copytree(data_root / "Planetoid" / name / "raw", tmp_path / name / "raw")
    theirs = Planetoid(str(tmp_path), name)[0]
    assert torch.equal(ours.x, theirs.x)
    assert torch.equal(ours.y, theirs.y)
    for mask in ("train_mask", "val_mask", "test_mask"):
        assert torch.equal(getattr(ours, mask), getattr(theirs, mask)), mask
    assert torch.equal(edge_set(ours.edge_index, nodes), edge_set(theirs.edge_index, nodes))


def test_citeseer_keeps_its_isolated_test_nodes(data_root):
    import data

    citeseer = data.load_planetoid("citeseer", data_root)
    if citeseer is None:
        pytest.skip("no Planetoid/CiteSeer in the data folder")
    unlisted = ~(citeseer.test_mask | (torch.arange(citeseer.num_nodes) < 2_312))
    assert int(unlisted.sum()) == 15
    assert not citeseer.x[unlisted].any()


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
    assert data.load_planetoid("cora") is None
    assert data.load_musae("git") is None
    assert data.load_codex("codex-s") is None
    monkeypatch.setenv("GDSL_DATA", str(tmp_path / "absent"))
    with pytest.raises(FileNotFoundError, match=r"GDSL_DATA names .*absent"):
        data.load_planetoid("cora")
    with pytest.raises(ValueError, match="not a Planetoid graph; expected one of cora, citeseer, pubmed"):
        data.load_planetoid("corra")


def test_a_planetoid_pickle_runs_no_code(tmp_path: Path):
    import data

    raw = tmp_path / "Planetoid" / "Cora" / "raw"
    raw.mkdir(parents=True)
    (raw / "ind.cora.allx").write_bytes(pickle.dumps(print))
    with pytest.raises(pickle.UnpicklingError, match=r"asks for builtins\.print"):
        data.load_planetoid("cora", tmp_path)


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
