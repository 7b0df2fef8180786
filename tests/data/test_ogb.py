"""Raw folders of Open Graph Benchmark, written in small: what gdsl reads is what was written, and what ogb reads."""

from __future__ import annotations

import gzip
import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch
from torch_geometric.data import Batch as TheirBatch
from torch_geometric.loader import DataLoader

import gdsl.nn
from gdsl.data import Loader, NeighborLoader, NodeData, Packed, load_ogb, load_ogb_split, pack
from gdsl.errors import GraphError, InputError

from . import raw_ogb
from .test_loader import assert_ready, assert_same, assert_same_store
from .test_neighbors import assert_is_part


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, dict[str, Any], list[dict[str, Any]]]:
    return tmp_path, raw_ogb.arxiv(tmp_path), raw_ogb.molhiv(tmp_path)


def test_one_graph_is_what_was_written(written):
    root, arxiv, _ = written
    found = load_ogb("ogbn-arxiv", root)
    assert isinstance(found, NodeData)
    assert_same(found.edge_index, arxiv["edge_index"])
    assert_same(found.x, arxiv["x"])
    assert_same(found.y, arxiv["y"][:, 0])
    masks = {"train": found.train_mask, "valid": found.val_mask, "test": found.test_mask}
    split = load_ogb_split("ogbn-arxiv", str(root))
    for part, mask in masks.items():
        assert torch.equal(mask.nonzero().squeeze(1), arxiv[part].sort().values)
        assert_same(split[part], arxiv[part])
    conv = gdsl.nn.SAGEConv(128, 40)
    for batch in NeighborLoader(found, [5, 5], found.train_mask, batch_size=8):
        torch.nn.functional.cross_entropy(conv(batch.x, batch.graph)[: batch.batch_size], batch.y[: batch.batch_size])


def test_molecules_are_what_was_written(written):
    root, _, molecules = written
    packed = load_ogb("ogbg-molhiv", root)
    assert isinstance(packed, Packed) and len(packed) == len(molecules)
    for batch, expected in zip(packed, molecules, strict=True):
        for name, value in expected.items():
            assert_same(batch[name], value, name)
    split = load_ogb_split("ogbg-molhiv", root)
    assert sorted(torch.cat(list(split.values())).tolist()) == list(range(len(molecules)))
    assert sum(batch.num_graphs for batch in Loader(packed[split["train"]], 3)) == len(split["train"])


def test_what_is_not_there(tmp_path, monkeypatch):
    monkeypatch.delenv("GDSL_DATA", raising=False)
    for root in (None, tmp_path):
        assert load_ogb("ogbn-arxiv", root) is None and load_ogb_split("ogbg-molhiv", root) is None
    with pytest.raises(InputError, match="'ogbn-mag' is none of ogbn-arxiv"):
        load_ogb("ogbn-mag", tmp_path)
    raw_ogb.molhiv(tmp_path)
    (tmp_path / "ogbg_molhiv").rename(tmp_path / "ogbg_molhiv_pyg")
    monkeypatch.setenv("GDSL_DATA", str(tmp_path))
    assert len(load_ogb("ogbg-molhiv")) == 12


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def _lines(path: Path, change: Any) -> None:
    with gzip.open(path, "rt") as file:
        lines = file.readlines()
    with gzip.open(path, "wt") as file:
        file.writelines(change(lines))


BROKEN: list[tuple[str, str, Any, type[Exception], str]] = [
    ("ogbn-arxiv", "raw/edge.csv.gz", Path.unlink, InputError, "cannot be read"),
    ("ogbn-arxiv", "raw/edge.csv.gz", _cut, InputError, "cannot be read"),
    ("ogbn-arxiv", "raw/node-feat.csv.gz", lambda p: _lines(p, lambda t: t[1:]), InputError, "39 lines, and 40"),
    ("ogbn-arxiv", "raw/node-label.csv.gz", lambda p: _lines(p, lambda t: [*t, "x\n"]), InputError, "cannot be read"),
    ("ogbn-arxiv", "raw/edge.csv.gz", lambda p: _lines(p, lambda t: ["0,99\n", *t[1:]]), GraphError, "node 99"),
    ("ogbn-arxiv", "raw/edge.csv.gz", lambda p: _lines(p, lambda t: [f"0,{k}" for k in t]), InputError, "3 ends"),
    ("ogbn-arxiv", "split/time/test.csv.gz", lambda p: _lines(p, lambda t: ["99\n"]), InputError, "test names a node"),
    ("ogbn-arxiv", "split/time/test.csv.gz", Path.unlink, InputError, "cannot be read"),
    ("ogbg-molhiv", "raw/edge-feat.csv.gz", lambda p: _lines(p, lambda t: t[1:]), InputError, "are needed"),
    ("ogbg-molhiv", "raw/graph-label.csv.gz", _cut, InputError, "cannot be read"),
    ("ogbg-molhiv", "raw/graph-label.csv.gz", lambda p: _lines(p, lambda t: t[1:]), InputError, "cannot be read"),
    ("ogbg-molhiv", "raw/edge.csv.gz", lambda p: _lines(p, lambda t: ["0,60\n", *t[1:]]), GraphError, "edge"),
]


@pytest.mark.parametrize(("name", "file", "change", "error", "message"), BROKEN)
def test_broken_folders_are_refused(written, name, file, change, error, message):
    root = written[0]
    change(root / name.replace("-", "_") / file)
    with pytest.raises(error, match=message):
        load_ogb(name, root)


def test_labels_that_are_left_empty(written):
    root = written[0]
    path = root / "ogbg_molhiv" / "raw" / "graph-label.csv.gz"
    _lines(path, lambda lines: ["1,\n", ",0\n", *("0,1\n" for _ in lines[2:])])
    y = load_ogb("ogbg-molhiv", root).batch(range(3)).y
    assert y.dtype is torch.float32
    assert y.nan_to_num(-1).tolist() == [[1, -1], [-1, 0], [0, 1]]


# -- through the package ---------------------------------------------------------------------------


def through_ogb(name: str, root: Path) -> Any:
    """ogb's own data set. It stores torch_geometric's classes, which torch loads where they are named as safe."""
    pytest.importorskip("ogb", reason="ogb, which reads these folders too, is not installed")
    from ogb.graphproppred import PygGraphPropPredDataset
    from ogb.nodeproppred import PygNodePropPredDataset
    from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
    from torch_geometric.data.storage import GlobalStorage

    made = PygNodePropPredDataset if name.startswith("ogbn") else PygGraphPropPredDataset
    known = [DataEdgeAttr, DataTensorAttr, GlobalStorage]
    with torch.serialization.safe_globals(known), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        return made(name, root=str(root))


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
def test_molecules_through_ogb_are_packed(written):
    root = written[0]
    theirs = through_ogb("ogbg-molhiv", root)
    packed, read = pack(theirs), load_ogb("ogbg-molhiv", root)
    for found, own, expected in zip(Loader(packed, 5), Loader(read, 5), DataLoader(theirs, 5), strict=True):
        assert_same_store(found, expected._store)
        assert_same_store(own, expected._store)
        assert_ready(found, expected.edge_index, expected.num_nodes)
    for part, ids in theirs.get_idx_split().items():
        assert_same(load_ogb_split("ogbg-molhiv", root)[part], ids)
        assert_same(packed[ids].batch(range(len(ids))).x, TheirBatch.from_data_list(theirs[ids]).x)


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
def test_one_graph_through_ogb_is_sampled(written):
    root, arxiv, _ = written
    theirs = through_ogb("ogbn-arxiv", root)
    (data,), own = theirs, load_ogb("ogbn-arxiv", root)
    for name in ("x", "edge_index"):
        assert_same(getattr(own, name), data[name], name)
    assert torch.equal(own.y, data.y[:, 0])
    split = theirs.get_idx_split()
    for batch in NeighborLoader(data, [4, 4], split["train"], batch_size=8):
        assert_same(batch.node_year, arxiv["node_year"][batch.n_id])
        batch.x = batch.n_id.unsqueeze(1)
        assert_is_part(batch, data)
