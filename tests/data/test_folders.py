"""The readers of raw folders, against known counts and PyTorch Geometric's reading of the same files."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from gdsl.data import NeighborLoader, load_ogb, load_planetoid, load_tu, pack
from gdsl.data import data_root as named_root
from gdsl.data.tu import read_tu
from gdsl.errors import InputError


def edge_set(edge_index: torch.Tensor, num_nodes: int) -> torch.Tensor:
    return (edge_index[0] * num_nodes + edge_index[1]).sort().values


@pytest.mark.parametrize(
    ("name", "nodes", "edges", "features", "classes"),
    [("Cora", 2_708, 10_556, 1_433, 7), ("CiteSeer", 3_327, 9_104, 3_703, 6)],
)
def test_planetoid_is_what_pyg_reads(data_root, tmp_path, name, nodes, edges, features, classes):
    from torch_geometric.datasets import Planetoid

    ours = load_planetoid(name, data_root)
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


def test_a_small_planetoid_folder_is_what_pyg_reads(tmp_path: Path):
    """Seven hundred nodes with three features: as many as the usual split needs."""
    sparse = pytest.importorskip("scipy.sparse", reason="SciPy, whose matrices these files hold, is not installed")
    from torch_geometric.datasets import Planetoid

    draw = np.random.default_rng(0)
    x, y = (draw.random((700, 3)) < 0.5).astype(np.float32), np.eye(4, dtype=np.int32)[draw.integers(4, size=700)]
    test = draw.permutation(np.arange(640, 700))
    neighbours: dict[int, list[int]] = {node: [] for node in range(700)}
    for one, other in draw.integers(700, size=(1_500, 2)).tolist():
        neighbours[one].append(other)
        neighbours[other].append(one)
    raw = tmp_path / "Planetoid" / "Cora" / "raw"
    raw.mkdir(parents=True)
    for part, value in {
        "x": sparse.csr_matrix(x[:80]), "y": y[:80], "allx": sparse.csr_matrix(x[:640]), "ally": y[:640],
        "tx": sparse.csr_matrix(x[test]), "ty": y[test], "graph": neighbours,
    }.items():  # fmt: skip
        (raw / f"ind.cora.{part}").write_bytes(pickle.dumps(value, protocol=3))
    (raw / "ind.cora.test.index").write_text("\n".join(map(str, test)) + "\n")
    ours, theirs = load_planetoid("cora", tmp_path), Planetoid(str(tmp_path / "Planetoid"), "Cora")[0]
    for name in ("x", "y", "train_mask", "val_mask", "test_mask"):
        assert torch.equal(getattr(ours, name), theirs[name]), name
    assert torch.equal(edge_set(ours.edge_index, 700), edge_set(theirs.edge_index, 700))
    (batch,) = NeighborLoader(theirs, [-1], theirs.train_mask, batch_size=80)
    assert torch.equal(batch.x, theirs.x[batch.n_id])
    for part, content in (
        ("test.index", b"640\n641\n"), ("graph", pickle.dumps(y)), ("allx", pickle.dumps(x)[:900]), ("ty", None),
    ):  # fmt: skip
        whole = (raw / f"ind.cora.{part}").read_bytes()
        (raw / f"ind.cora.{part}").unlink() if content is None else (raw / f"ind.cora.{part}").write_bytes(content)
        with pytest.raises(InputError, match="cannot be read as cora"):
            load_planetoid("cora", tmp_path)
        (raw / f"ind.cora.{part}").write_bytes(whole)


def test_citeseer_keeps_its_isolated_test_nodes(data_root):
    citeseer = load_planetoid("citeseer", data_root)
    if citeseer is None:
        pytest.skip("no Planetoid/CiteSeer in the data folder")
    unlisted = ~(citeseer.test_mask | (torch.arange(citeseer.num_nodes) < 2_312))
    assert int(unlisted.sum()) == 15
    assert not citeseer.x[unlisted].any()


def test_missing_data_is_none_and_a_wrong_folder_an_error(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("GDSL_DATA", str(tmp_path))
    assert named_root() == tmp_path
    assert load_planetoid("cora") is None
    assert load_tu("MUTAG") is None
    monkeypatch.setenv("GDSL_DATA", str(tmp_path / "absent"))
    with pytest.raises(FileNotFoundError, match=r"GDSL_DATA names .*absent"):
        load_planetoid("cora")
    for name in ("corra", 3):
        with pytest.raises(InputError, match="not a Planetoid graph; expected one of cora, citeseer, pubmed"):
            load_planetoid(name)
    for load, name in ((load_planetoid, "cora"), (load_tu, "MUTAG"), (load_ogb, "ogbn-arxiv")):
        assert load(name, str(tmp_path)) is None
        with pytest.raises(InputError, match="the path of a file or folder is needed, not 3"):
            load(name, 3)
    monkeypatch.delenv("GDSL_DATA")
    assert named_root() is None
    assert load_tu("MUTAG") is None


def test_a_planetoid_pickle_runs_no_code(tmp_path: Path):
    raw = tmp_path / "Planetoid" / "Cora" / "raw"
    raw.mkdir(parents=True)
    (raw / "ind.cora.allx").write_bytes(pickle.dumps(print))
    with pytest.raises(InputError, match=r"UnpicklingError: .*asks for builtins\.print"):
        load_planetoid("cora", tmp_path)


@pytest.mark.parametrize("name", ["MUTAG", "ENZYMES"])
def test_tu_is_what_pyg_reads(data_root, tmp_path, name):
    from torch_geometric.datasets import TUDataset

    if not (data_root / "TUDataset" / name).is_dir():
        pytest.skip(f"no TUDataset/{name} in the data folder")
    shutil.copytree(data_root / "TUDataset" / name / name / "raw", tmp_path / name / "raw")
    theirs = TUDataset(str(tmp_path), name)
    _assert_same_set(load_tu(name, data_root), theirs)


def _assert_same_set(ours, theirs) -> None:
    assert len(ours) == len(theirs)
    for key, value in pack(theirs).batch(range(0, len(theirs), 3)):
        if isinstance(value, torch.Tensor):
            assert torch.equal(ours.batch(range(0, len(theirs), 3))[key], value), key
    for k in range(0, len(theirs), 7):
        one, other = ours[k], theirs[k]
        for key, value in other:
            assert torch.equal(one[key], value), key


def _write_tu(raw: Path) -> None:
    """Three small graphs in all files that the format has, with a loop and an edge that is there twice."""
    raw.mkdir(parents=True)
    for part, lines in {
        "A": ["1, 2", "2, 1", "2, 2", "4, 3", "3, 4", "3, 4", "5, 6"],
        "graph_indicator": ["1", "1", "2", "2", "3", "3"],
        "graph_labels": ["1", "-1", "1"],
        "node_labels": ["0, 5", "2, 5", "0, 6", "0, 5", "1, 5", "2, 7"],
        "node_attributes": ["0.5", "1", "1.5", "2", "2.5", "3e2"],
        "edge_labels": ["1", "1", "1", "2", "2", "3", "1"],
        "edge_attributes": ["1, 0.1", "1, 0.2", "1, 0.3", "1, 0.4", "1, 0.5", "1, 0.6", "1, 0.7"],
    }.items():
        (raw / f"SMALL_{part}.txt").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("attributes", [False, True])
@pytest.mark.parametrize("target", ["labels", "attributes"])
def test_all_files_of_a_tu_folder(tmp_path, attributes, target):
    from torch_geometric.datasets import TUDataset

    raw = tmp_path / "TUDataset" / "SMALL" / "SMALL" / "raw"
    _write_tu(raw)
    if target == "attributes":
        (raw / "SMALL_graph_attributes.txt").write_text("0.5\n1.5\n-2\n")
    chosen = {"use_node_attr": attributes, "use_edge_attr": attributes}
    ours = load_tu("SMALL", tmp_path, **chosen)
    _assert_same_set(ours, TUDataset(str(tmp_path / "TUDataset" / "SMALL"), "SMALL", **chosen))


@pytest.mark.parametrize(
    ("part", "text", "message"),
    [
        ("node_labels", "1, 1\n", "1 lines, and 6 are needed"),
        ("A", "1, 2, 3\n", "an edge has 3 ends"),
        ("A", "1, 9\n", "node 8"),
        ("A", "1, 3\n", "from graph 0 to graph 1"),
        ("edge_labels", "a\n", "cannot be read"),
        ("graph_labels", "1\n", "1 graphs"),
        ("graph_labels", None, "cannot be read"),
    ],
)
def test_a_broken_tu_folder_is_refused(tmp_path, part, text, message):
    raw = tmp_path / "raw"
    _write_tu(raw)
    path = raw / f"SMALL_{part}.txt"
    path.unlink()
    if text is not None:
        path.write_text(text)
    if part == "A":
        (raw / "SMALL_edge_labels.txt").unlink()
    with pytest.raises((InputError, ValueError), match=message):
        read_tu(raw, "SMALL")
