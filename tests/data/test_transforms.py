"""torch_geometric's transforms on batches, and its loaders over packed sets: what they give for its own batches."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch_geometric.transforms as T
from torch import Tensor
from torch_geometric.data import Batch as TheirBatch
from torch_geometric.data import Data, HeteroData
from torch_geometric.loader import ClusterData as TheirClusters
from torch_geometric.loader import ClusterLoader, DataLoader

import gdsl.nn
from gdsl.data import Batch, Loader, NeighborLoader, pack
from gdsl.errors import InputError
from gdsl.runtime.graph import Graph

from . import graphs as made
from .test_loader import assert_ready, assert_same_store, no_sorting

# Of all 66 those that users of batches ask for, of each kind: edges added and left out, nodes added and left out,
# attributes of nodes and edges, positions, splits, other forms of the edges.
TRANSFORMS: dict[str, Callable[[], Any]] = {
    "ToUndirected": T.ToUndirected,
    "AddSelfLoops": T.AddSelfLoops,
    "AddRemainingSelfLoops": T.AddRemainingSelfLoops,
    "RemoveSelfLoops": T.RemoveSelfLoops,
    "RemoveDuplicatedEdges": T.RemoveDuplicatedEdges,
    "RemoveIsolatedNodes": T.RemoveIsolatedNodes,
    "VirtualNode": T.VirtualNode,
    "NormalizeFeatures": T.NormalizeFeatures,
    "Constant": T.Constant,
    "LocalDegreeProfile": T.LocalDegreeProfile,
    "OneHotDegree": lambda: T.OneHotDegree(40),
    "AddLaplacianEigenvectorPE": lambda: T.AddLaplacianEigenvectorPE(2, is_undirected=True),
    "AddRandomWalkPE": lambda: T.AddRandomWalkPE(3),
    "GCNNorm": T.GCNNorm,
    "Distance": T.Distance,
    "Center": T.Center,
    "RandomRotate": lambda: T.RandomRotate(30),
    "RandomNodeSplit": lambda: T.RandomNodeSplit(num_val=3, num_test=3),
    "LineGraph": T.LineGraph,
    "Compose": lambda: T.Compose([T.ToUndirected(), T.AddSelfLoops(), T.NormalizeFeatures()]),
}


def _items(count: int = 6) -> list[Data]:
    items = made.many(made.molecule, [(n, 2 * n) for n in range(6, 6 + count)])
    # What these transforms do not know how to change where nodes or edges come or go.
    for item in items:
        for name in ("ring_index", "pair_index", "face", "mask", "z", "num_nodes"):
            del item[name]
    return items


def _changed(transform: Any, data: Any) -> Any:
    torch.manual_seed(0)
    random.seed(0)
    return transform(data)


def _assert_same(found: Batch, expected: Any) -> None:
    assert isinstance(found, Batch)
    for type in ("", *found.node_types, *found.edge_types):
        store: Any = found[type] if type else found
        theirs = expected._global_store if isinstance(expected, HeteroData) else expected._store
        their = expected[type] if type else theirs
        assert_same_store(store, their)
        if "edge_index" in store:
            ends = expected.num_nodes
            if type:
                ends = expected[type[0]].num_nodes, expected[type[2]].num_nodes
            fresh = Graph(their.edge_index, ends)
            assert torch.equal(store.graph.edge_index, their.edge_index)
            assert torch.equal(store.graph.in_edges.rowptr.long(), fresh.in_edges.rowptr.long())


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_of_joined_batches(name: str) -> None:
    items, transform = _items(), TRANSFORMS[name]()
    expected = [_changed(transform, batch) for batch in DataLoader(items, 3)]

    class Seeded(T.BaseTransform):
        def forward(self, data: Any) -> Any:
            return _changed(transform, data)

    loader = Loader(items, 3, transform=Seeded(), num_workers=0)
    for found, other in zip(loader, expected, strict=True):
        _assert_same(found, other)
    _assert_same(_changed(lambda b: b.transformed(transform), next(iter(Loader(items, 3)))), expected[0])


def test_transforms_of_several_types() -> None:
    items = made.many(made.academic, [(4, 9), (6, 5)])
    for item in items:
        del item["paper"].best_index
    for transform in (T.ToUndirected(), T.NormalizeFeatures(), T.Compose([T.Constant(), T.AddSelfLoops()])):
        (found,) = Loader(items, 2, transform=transform)
        _assert_same(found, transform(TheirBatch.from_data_list(items)))
    assert "rev_writes" in [type[1] for type in next(iter(Loader(items, 2, transform=T.ToUndirected()))).edge_types]


@pytest.mark.parametrize("name", ["ToUndirected", "AddSelfLoops", "NormalizeFeatures", "Compose", "OneHotDegree"])
def test_transforms_of_sampled_batches(name: str) -> None:
    data, transform = made.many(made.molecule, [(60, 300)])[0], TRANSFORMS[name]()
    plain, changed = (
        NeighborLoader(data, [4, 3], batch_size=20, seed=0, transform=t) for t in (None, transform)
    )
    for batch, found in zip(plain, changed, strict=True):
        expected = transform(Data(**dict(batch.items())))
        _assert_same(found, expected)
        assert found.batch_size == batch.batch_size
    _assert_same(changed([3, 4]), transform(Data(**dict(plain([3, 4]).items()))))


def test_a_split_gives_batches() -> None:
    split = T.RandomLinkSplit(num_val=0.2, num_test=0.2)
    ((train, val, test),) = Loader(_items(), 6, transform=split)
    assert all(isinstance(batch, Batch) for batch in (train, val, test))
    assert train.num_edges < test.num_edges and train.edge_label_index.shape[0] == 2
    assert train.graph.num_nodes == test.graph.num_nodes == train.num_nodes


def test_a_graph_is_kept_where_its_edges_are() -> None:
    batch, conv = next(iter(Loader(_items(), 3))), gdsl.nn.GINConv(torch.nn.Linear(5, 2))
    with no_sorting():
        found = batch.transformed(T.Compose([T.NormalizeFeatures(), T.Distance(), T.Center()]))
        assert found.graph is batch.graph
        conv(found.x, found.edge_index)
    expected = batch.graph.edge_index.flip(1)

    class InPlace(T.BaseTransform):
        def forward(self, data: Any) -> Any:
            data.edge_index.copy_(data.edge_index.flip(1).clone())
            return data

    found = batch.transformed(InPlace())
    assert torch.equal(found.graph.edge_index, expected) and torch.equal(batch.graph.edge_index, expected)


def test_other_functions_get_the_batch_itself() -> None:
    (found,) = Loader(_items(), 6, transform=lambda batch: batch.graph.num_edges)
    assert found == sum(item.num_edges for item in _items())
    batch = pack(_items()).batch([0])
    with pytest.raises(AttributeError, match=r"batch.transformed\(transform\)"):
        T.ToUndirected()(batch)


def test_graphs_of_a_changed_batch() -> None:
    batch = next(iter(Loader(_items(), 3)))
    found = batch.transformed(T.NormalizeFeatures())
    assert torch.equal(found[1].x, found.x[found.batch == 1]) and len(found[1].x) == 7
    with pytest.raises(InputError, match="cannot be cut into graphs"):
        _ = batch.transformed(T.AddSelfLoops())[1]


# -- packed sets as torch_geometric's --------------------------------------------------------------


def test_one_graph_of_a_set_is_data() -> None:
    items, others = _items(), made.many(made.academic, [(4, 9), (6, 5)])
    for given, kind in ((items, Data), (others, HeteroData)):
        packed = pack(given)
        for found, expected in zip(packed, given, strict=True):
            assert isinstance(found, kind)
            assert found.to_dict().keys() == expected.to_dict().keys()
        assert isinstance(packed[-1], kind)
    assert torch.equal(pack(items)[2].edge_index, items[2].edge_index)
    assert torch.equal(pack(items)[1:][2].x, items[3].x)


@pytest.mark.parametrize("make", [made.molecule, made.academic])
def test_torch_geometric_s_loader_over_a_packed_set(make: Any) -> None:
    items = made.many(make, [(n, 2 * n) for n in range(3, 9)])
    parts = torch.utils.data.random_split(pack(items), [4, 2], generator=torch.Generator().manual_seed(0))
    assert [len(part) for part in parts] == [4, 2]
    for found, expected in zip(DataLoader(pack(items), 4), DataLoader(items, 4), strict=True):
        for store, other in zip(found.stores, expected.stores, strict=True):
            for name, value in other.items():
                if name == "num_nodes" and "x" in store:  # which tells it
                    continue
                assert torch.equal(store[name], value) if isinstance(value, Tensor) else store[name] == value
    for batch in DataLoader(parts[0], 4):
        assert batch.num_graphs == 4


def test_torch_geometric_s_clusters_of_a_graph_of_a_set(monkeypatch: pytest.MonkeyPatch) -> None:
    # METIS, which it needs a package for.
    monkeypatch.setattr(TheirClusters, "_metis", lambda self, _, nodes: torch.arange(nodes) % self.num_parts)
    items = _items()
    both = (ClusterLoader(TheirClusters(data, 3, log=False), batch_size=2) for data in (pack(items)[4], items[4]))
    for found, expected in zip(*both, strict=True):
        assert torch.equal(found.x, expected.x) and torch.equal(found.edge_index, expected.edge_index)


def test_transforms_before_packing() -> None:
    transform = T.Compose([T.ToUndirected(), T.AddSelfLoops()])
    packed = pack(map(transform, _items()))
    expected = TheirBatch.from_data_list([transform(item) for item in _items()])
    found = packed.batch(range(len(packed)))
    assert_ready(found, expected.edge_index, expected.num_nodes)


def test_without_torch_geometric(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = pack(_items())
    monkeypatch.setitem(__import__("sys").modules, "torch_geometric.data", None)
    monkeypatch.setitem(__import__("sys").modules, "torch_geometric.transforms", None)
    assert packed.batch([3]).num_graphs == 1
    assert next(iter(Loader(packed, 2, transform=lambda batch: batch.num_graphs))) == 2
    with pytest.raises(InputError, match=r"packed.batch\(\[number\]\)"):
        packed[3]
