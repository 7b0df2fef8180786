"""Batches of a packed data set are those of torch_geometric, with graphs that are ready."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch_geometric.data import Batch as TheirBatch
from torch_geometric.data import Data, HeteroData
from torch_geometric.loader import DataLoader
from torch_geometric.transforms import AddLaplacianEigenvectorPE

import gdsl
import gdsl.data.columns
import gdsl.data.topology
import gdsl.nn
from gdsl.data import Loader, Packed, pack, pack_arrays
from gdsl.errors import GraphError, InputError
from gdsl.runtime import prepare
from gdsl.runtime.recent import graph_of

from . import graphs as made

SIZES = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 12)), min_size=1, max_size=8)


@contextmanager
def only_torch() -> Iterator[None]:
    """As on a machine without a compiler."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (gdsl.data.columns, gdsl.data.topology):
            patch.setattr(module, "native", lambda name: None)
        patch.setattr(prepare, "native", lambda **_: None)
        yield


@contextmanager
def only_tensors() -> Iterator[None]:
    """As in a batch that is so large that its orders are made of tensors."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "room_for_order", lambda rows, edges, most: None)
        yield


WAYS = st.sampled_from([nullcontext, only_torch, only_tensors])


@contextmanager
def no_sorting() -> Iterator[None]:
    """Fails where edges are sorted, or a list of edges is read."""

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a graph of a batch was prepared again")

    with pytest.MonkeyPatch.context() as patch:
        for name in ("sort", "take", "take_sorted"):
            patch.setattr(prepare, name, refuse)
        yield


def assert_same(found: Any, expected: Any, name: str = "") -> None:
    if isinstance(expected, Tensor):
        assert found.dtype == expected.dtype, name
        assert torch.equal(found, expected), name
    else:
        assert found == expected, name


def assert_same_store(found: Any, expected: Any) -> None:
    for name, value in expected.items():
        assert_same(found[name], value, name)
    assert set(found.keys()) >= set(expected.keys())
    assert set(found.keys()) - set(expected.keys()) <= {"num_nodes", "num_graphs", "batch", "ptr"}


def assert_ready(batch: Any, edge_index: Tensor, sizes: Any, orders: Any = ("in_edges", "out_edges")) -> None:
    """The graph has its orders, which are those that sorting gives."""
    expected = gdsl.Graph(edge_index, sizes)
    for name in orders:
        found = batch.graph.__dict__[name]
        for part in ("rowptr", "index", "edge", "blocks", "hubs", "chunks"):
            assert_same(getattr(found, part), getattr(getattr(expected, name), part), part)
    assert batch.graph._edges.facts.loops == expected._edges.facts.loops
    assert torch.equal(batch.graph.edge_index, edge_index)


# -- what is in a batch ----------------------------------------------------------------------------


@given(SIZES, st.integers(0, 99), st.sampled_from(["", "source", "target"]), WAYS, st.data())
def test_batches_are_those_of_torch_geometric(sizes, seed, order, way, data):
    items = made.many(partial(made.molecule, order=order), sizes, seed)
    ids = data.draw(st.lists(st.integers(0, len(items) - 1), min_size=1, max_size=10))
    with way():
        found = pack(items).batch(ids)
        expected = TheirBatch.from_data_list([items[k] for k in ids])
        assert_same_store(found, expected._store)
        assert (found.num_graphs, found.num_nodes, found.num_edges) == (
            expected.num_graphs, expected.num_nodes, expected.num_edges
        )  # fmt: skip
        assert_ready(found, expected.edge_index, expected.num_nodes)


@pytest.mark.parametrize("largest", [(250, 250), (300, 700), (90, 33_000)])
@pytest.mark.parametrize("threads", [1, 3])
def test_graphs_of_very_different_sizes_in_parts_of_threads(largest, threads):
    # Numbers of one, two and four bytes; blocks of less than a line of the cache up to many.
    random = torch.Generator().manual_seed(0)
    sizes = [(1, 0), (3, 5), (17, 16), (16, 65), (64, 64), (65, 129), largest, (2, 1)] * 12
    items = made.many(made.molecule, sizes)
    for item in items:
        item.wide = torch.randn(item.num_nodes, 37, generator=random)
        item.small = torch.randint(9, (item.num_nodes,), generator=random, dtype=torch.uint8)
    packed, before = pack(items), torch.get_num_threads()
    ids = torch.randperm(len(items), generator=random)
    expected = TheirBatch.from_data_list([items[k] for k in ids])
    torch.set_num_threads(threads)
    try:
        found = packed.batch(ids)
    finally:
        torch.set_num_threads(before)
    assert_same_store(found, expected._store)
    assert_ready(found, expected.edge_index, expected.num_nodes)
    fewer = packed.read.edges[""].listed.values.dtype
    assert fewer is {250: torch.uint8, 700: torch.int16, 33_000: torch.int32}[largest[1]]


@given(SIZES, st.integers(0, 99), WAYS)
def test_batches_of_several_types_are_those_of_torch_geometric(sizes, seed, way):
    items = made.many(made.academic, sizes, seed)
    with way():
        found = pack(items).batch(range(len(items)))
        expected = TheirBatch.from_data_list(items)
        assert (found.node_types, found.edge_types) == (expected.node_types, expected.edge_types)
        assert_same(found.year, expected.year)
        for type in (*expected.node_types, *expected.edge_types):
            assert_same_store(found[type], expected[type])
        for type in expected.edge_types:
            ends = tuple(expected[t].num_nodes for t in (type[0], type[2]))
            assert_ready(found[type], expected[type].edge_index, ends)
    assert found.x_dict.keys() == expected.x_dict.keys()
    assert list(found.edge_index_dict) == expected.edge_types
    assert list(found.graph_dict) == expected.edge_types


class Pair(Data):
    """Two graphs in one object, as torch_geometric's documentation has it."""

    def __inc__(self, key, value, *args):
        if key == "edge_index_s":
            return self.x_s.size(0)
        if key == "edge_index_t":
            return torch.tensor([[self.x_s.size(0)], [self.x_t.size(0)]])
        return super().__inc__(key, value, *args)

    def __cat_dim__(self, key, value, *args):
        return None if key == "whole" else super().__cat_dim__(key, value, *args)


def test_own_rules_of_a_class_are_followed():
    random = torch.Generator().manual_seed(0)
    items = [
        Pair(
            x_s=torch.randn(a, 2), x_t=torch.randn(b, 3), whole=torch.randn(4),
            edge_index_s=made.edges(a, a, 5, random), edge_index_t=made.edges(a, b, 7, random), num_nodes=a,
        )
        for a, b in [(3, 2), (4, 5), (1, 1)]
    ]  # fmt: skip
    loader = Loader(items, 2, follow_batch=["x_s", "x_t"])
    for found, expected in zip(loader, DataLoader(items, 2, follow_batch=["x_s", "x_t"]), strict=True):
        assert_same_store(found, expected._store)


def test_unusual_numbers_are_shifted_as_in_torch_geometric():
    items = [
        Data(x=torch.randn(n, 1), small_index=torch.arange(n, dtype=torch.int16), real_index=torch.rand(n), index=n)
        for n in (2, 3, 4)
    ]
    assert_same_store(pack(items).batch([0, 1, 2]), TheirBatch.from_data_list(items)._store)


def test_point_clouds_have_no_graph_until_edges_are_made():
    items = [Data(pos=torch.randn(n, 3)) for n in (4, 5)]
    batch = pack(items).batch([1, 0])
    with pytest.raises(AttributeError, match="no edges"):
        _ = batch.graph
    batch.edge_index = torch.tensor([[0, 5], [1, 6]])
    assert batch.graph.num_nodes == 9


def test_a_written_edge_index_has_another_graph():
    batch = pack(made.many(made.molecule, made.sizes(4))).batch([0, 1, 2, 3])
    ready = batch.graph
    assert graph_of(batch.edge_index, batch.num_nodes, batch.num_nodes) is ready
    batch.edge_index[0] = 0
    assert torch.equal(batch.graph.edge_index[0], torch.zeros(batch.num_edges, dtype=torch.int64))
    assert not torch.equal(ready.edge_index, batch.edge_index)
    batch.edge_index = torch.zeros(2, 1, dtype=torch.int64)
    assert batch.graph.num_edges == batch.num_edges == 1


def test_transforms_of_torch_geometric_before_packing():
    items = [AddLaplacianEigenvectorPE(2, is_undirected=True)(item) for item in _rings(3)]
    batch = pack(items).batch([2, 0])
    assert_same(batch.laplacian_eigenvector_pe, torch.cat([items[k].laplacian_eigenvector_pe for k in (2, 0)]))


def _rings(count: int) -> list[Data]:
    found = []
    for n in range(5, 5 + count):
        ring = torch.stack([torch.arange(n), (torch.arange(n) + 1) % n])
        found.append(Data(x=torch.ones(n, 1), edge_index=torch.cat([ring, ring.flip(0)], dim=1)))
    return found


@given(SIZES, st.integers(0, 99), st.booleans())
def test_arrays_are_packed_as_the_same_graphs_one_by_one(sizes, seed, shuffled):
    random = torch.Generator().manual_seed(seed)
    items = made.many(made.molecule, sizes, seed)
    whole = TheirBatch.from_data_list(items)
    order = torch.randperm(whole.num_edges, generator=random) if shuffled else torch.arange(whole.num_edges)
    found = pack_arrays(
        whole.edge_index[:, order], whole.batch, nodes={"x": whole.x}, edges={"edge_attr": whole.edge_attr[order]},
        graphs={"y": whole.y}, num_graphs=len(items),
    )  # fmt: skip
    ids = list(reversed(range(len(items))))
    one, other = found.batch(ids), pack(items).batch(ids)
    for name in ("x", "y", "batch", "ptr"):
        assert_same(one[name], other[name], name)
    rows = [torch.cat([b.edge_index.t().float(), b.edge_attr], dim=1) for b in (one, other)]
    assert torch.equal(*(r.unique(dim=0) for r in rows))
    assert_ready(one, one.edge_index, one.num_nodes)


# -- which graphs are in a batch -------------------------------------------------------------------


def _names(loader: Loader) -> list[list[str]]:
    return [batch.name for batch in loader]


def test_a_seed_gives_the_same_batches_for_any_number_of_threads():
    packed = pack(made.many(made.molecule, made.sizes(50)))
    runs = []
    for prefetch, workers in ((2, 0), (2, 1), (5, 3)):
        loader = Loader(packed, 8, shuffle=True, seed=3, prefetch=prefetch, num_workers=workers)
        first, second = _names(loader), _names(loader)
        assert sorted(chain(*first)) == sorted(chain(*second)) == sorted(packed.batch(range(50)).name)
        assert first != second
        loader.epoch = 0
        assert _names(loader) == first
        runs.append((first, second))
    assert runs[0] == runs[1] == runs[2]
    assert _names(Loader(packed, 8, shuffle=True, seed=4)) != runs[0][0]


@pytest.mark.parametrize(("drop_last", "sizes"), [(False, [4, 4, 2]), (True, [4, 4])])
def test_the_last_batch(drop_last, sizes):
    loader = Loader(_rings(10), 4, drop_last=drop_last)
    assert len(loader) == len(sizes)
    assert len(loader.dataset) == 10
    assert [batch.num_graphs for batch in loader] == sizes


@given(SIZES, st.integers(9, 30), st.integers(12, 40), st.one_of(st.none(), st.integers(1, 4)), st.booleans())
def test_a_budget_is_kept_and_used(sizes, max_nodes, max_edges, batch_size, shuffle):
    packed = pack(made.many(made.molecule, sizes))
    loader = Loader(packed, batch_size, shuffle, max_nodes=max_nodes, max_edges=max_edges, seed=0)
    parts = loader.batches()
    assert sorted(torch.cat(parts).tolist()) == list(range(len(sizes)))
    totals = [(int(packed.num_nodes[p].sum()), int(packed.num_edges[p].sum()), len(p)) for p in parts]
    limits = (max_nodes, max_edges, batch_size or len(sizes))
    assert all(have <= most for total in totals for have, most in zip(total, limits, strict=True))
    for total, after in zip(totals, parts[1:], strict=False):  # not even the next graph would have fitted
        more = (int(packed.num_nodes[after[0]]), int(packed.num_edges[after[0]]), 1)
        assert any(a + b > most for a, b, most in zip(total, more, limits, strict=True))


def test_attributes_are_followed():
    items, keys = made.many(made.molecule, made.sizes(5)), ["edge_index", "face", "y"]
    loaders = Loader(items, 3, follow_batch=keys), DataLoader(items, 3, follow_batch=keys)
    for found, expected in zip(*loaders, strict=True):
        assert_same_store(found, expected._store)
        assert found.edge_index_batch.shape == found.edge_index[0].shape


def test_parts_of_a_set_share_its_arrays():
    packed = pack(made.many(made.molecule, made.sizes(10)))
    part = packed[2:8][[0, -1, 3]]
    assert [len(packed), len(packed[packed.num_nodes > 5]), len(part)] == [10, int((packed.num_nodes > 5).sum()), 3]
    assert torch.equal(part.batch([0, 1, 2]).x, packed.batch([2, 7, 5]).x)
    assert part.read is packed.read
    assert torch.equal(part[1].x, packed[7].x)


def test_left_out_keys_are_not_there():
    items = made.many(made.molecule, made.sizes(4))
    for found, expected in zip(
        Loader(items, 2, exclude_keys=["x", "name"]), DataLoader(items, 2, exclude_keys=["x", "name"]), strict=True
    ):
        assert_same_store(found, expected._store)
        assert "x" not in found and "name" not in found


def test_arguments_of_torchs_loader_that_change_nothing():
    found = Loader(_rings(4), batch_size=2, num_workers=2, pin_memory=True, persistent_workers=True)
    assert [batch.num_nodes for batch in found] == [11, 15]


def test_a_transform_is_called_with_each_batch():
    found = list(Loader(_rings(3), 2, transform=lambda batch: batch.num_nodes))
    assert found == [11, 7]


# -- what takes a batch ----------------------------------------------------------------------------


class Network(nn.Module):
    def __init__(self, library: Any, pool: Any):
        super().__init__()
        mlp = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 8))
        self.convs = nn.ModuleList([library.GINConv(mlp), library.SAGEConv(8, 8), library.GCNConv(8, 8)])
        self.pool, self.last = pool, nn.Linear(8, 3)

    def forward(self, x: Tensor, graph: Any, batch: Tensor, size: int) -> Tensor:
        for conv in self.convs:
            x = conv(x, graph).relu()
        return self.last(self.pool(x, batch, size))


def test_batches_go_into_layers_of_both_libraries_and_nothing_is_sorted():
    import torch_geometric.nn as theirs

    items = made.many(made.molecule, made.sizes(20))
    for item in items:  # so that a layer may add self-loops to what is sorted
        kept = item.edge_index[0] != item.edge_index[1]
        item.edge_index, item.edge_attr = item.edge_index[:, kept], item.edge_attr[kept]
    own, their = Network(gdsl.nn, gdsl.nn.global_add_pool), Network(theirs, theirs.global_add_pool)
    own.load_state_dict(their.state_dict())
    loader = Loader(items, 8, shuffle=True, seed=0)
    for batch in loader:  # kernels are compiled, and prepared graphs of compilation are forgotten
        own(batch.x, batch.graph, batch.batch, batch.num_graphs).sum().backward()
    for batch in loader:
        expected = their(batch.x, batch.edge_index, batch.batch, batch.num_graphs)
        for edges in (batch.graph, batch.edge_index):
            own.zero_grad()
            with no_sorting():
                found = own(batch.x, edges, batch.batch, batch.num_graphs)
                found.sum().backward()
            torch.testing.assert_close(found, expected)


def test_layers_of_several_types():
    items = made.many(made.academic, made.sizes(6))
    batch = pack(items).batch(range(6))
    conv = gdsl.nn.SAGEConv((2, 3), 4)
    with_graph = conv((batch["author"].x, batch["paper"].x), batch[made.WRITES].graph)
    plain = conv((batch["author"].x, batch["paper"].x), batch[made.WRITES].edge_index.clone())
    torch.testing.assert_close(with_graph, plain)


def test_batches_of_inference_mode_serve_training():
    packed = pack(made.many(made.molecule, made.sizes(8)))
    with torch.inference_mode():
        (batch,) = Loader(packed, 8)
        (moved,) = (b.to("cpu") for b in Loader(packed, 8))
        _ = batch.edge_index, batch.batch
    conv = gdsl.nn.SAGEConv(5, 4)
    for found in (batch, moved):
        for edges in (found.graph, found.edge_index):
            out = gdsl.nn.global_add_pool(conv(found.x, edges), found.batch, found.num_graphs)
            out.sum().backward()
    batch.edge_index[0] = 0
    assert not batch.graph.edge_index[0].any()


def test_batches_are_copied_and_sent():
    items = made.many(made.academic, made.sizes(4))
    for packed in (pack(made.many(made.molecule, made.sizes(4))), pack(items)):
        batch = packed.batch([1, 3])
        for again in (copy.copy(batch), copy.deepcopy(batch), pickle.loads(pickle.dumps(batch))):
            for type in ("", *batch.node_types, *batch.edge_types):
                one, other = (b[type] if type else b for b in (again, batch))
                assert_same_store(one, other)
                if "edge_index" in one:
                    assert one.graph.__dict__.keys() >= {"in_edges", "out_edges"}
    batch = packed.batch([0])[made.CITES]
    batch.edge_index[0] = 0
    for again in (copy.copy(batch), copy.deepcopy(batch), pickle.loads(pickle.dumps(batch))):
        assert not again.graph.edge_index[0].any()


def test_packed_sets_are_sent_and_those_of_a_file_opened_anew(tmp_path):
    packed = pack(made.many(made.molecule, made.sizes(6)))
    packed.save(tmp_path / "set")
    expected = packed.batch([4, 2])
    for found in (packed, Packed.load(tmp_path / "set")):
        part = pickle.loads(pickle.dumps(found[[2, 4]].without(["name"])))
        assert torch.equal(part.batch([1, 0]).x, expected.x)
        assert "name" not in part.batch([0])
    assert len(pickle.dumps(found)) < 1_000


def test_a_moved_batch_takes_its_orders_along():
    batch = pack(made.many(made.molecule, made.sizes(5))).batch(range(5))
    expected = batch.graph.in_edges
    moved = batch.graph.to("meta")
    assert moved.__dict__["in_edges"].rowptr.shape == expected.rowptr.shape
    assert batch.to("cpu").graph.in_edges is expected


# -- bad input -------------------------------------------------------------------------------------


def _data(**attributes: Any) -> Data:
    return Data(**{"x": torch.zeros(3, 2), "edge_index": torch.tensor([[0, 1], [1, 2]]), **attributes})


BAD: list[tuple[Any, type[Exception], str]] = [
    ([], InputError, "is empty"),
    ([_data(), _data(y=torch.ones(1))], InputError, "graph 1 has `y` and graph 0 has none"),
    ([_data(y=torch.ones(1)), _data()], InputError, "graph 0 has `y` and graph 1 has none"),
    ([_data(), _data(x=torch.zeros(3, 4))], InputError, r"graph 1: `x` has shape \[3, 4\]"),
    ([_data(), _data(x=torch.zeros(3, 2).double())], InputError, "graph 1: `x`.*float64"),
    ([_data(), _data(edge_index=torch.tensor([[0], [3]]))], GraphError, "graph 1: edge 0 .*goes to node 3.* 3 nodes"),
    ([_data(), _data(edge_index=torch.tensor([[-1], [0]]))], GraphError, "graph 1: edge 0 .*comes from node -1"),
    ([_data(edge_index=torch.tensor([[0.0], [1.0]]))], GraphError, "graph 0: `edge_index` must hold integers"),
    ([_data(edge_index=torch.zeros(3, 2, dtype=torch.long))], GraphError, r"must be a tensor \[2, E\]"),
    ([_data(parts=[torch.ones(1), torch.ones(1)])], InputError, "`parts`.*name of its own"),
    ([_data(adjacency=torch.eye(3).to_sparse())], InputError, "`adjacency` is not a dense tensor"),
    ([torch.ones(3)], InputError, "graph 0 must be a torch_geometric Data"),
    (None, InputError, "a data set or a list of Data is packed, not None"),
    (3, InputError, "is packed, not 3"),
    ("MUTAG", InputError, "is packed, not 'MUTAG'"),
    (_data(), InputError, r"give a list, pack\(\[data\]\)"),
    (HeteroData(a={"x": torch.ones(2, 1)}), InputError, "give a list"),
    ([HeteroData(a={"x": torch.ones(2, 1)}), _data()], InputError, "same attributes"),
]


@pytest.mark.parametrize(("items", "error", "message"), BAD)
def test_bad_data_sets_are_refused(items, error, message):
    with pytest.raises(error, match=message):
        pack(items)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size must be an integer of at least 1"),
        ({"batch_size": 2.5}, "batch_size"),
        ({"max_nodes": -1}, "max_nodes"),
        ({"max_edges": 3}, "graph 2 has 14 edges, more than the 3"),
        ({"batch_size": 2, "num_workers": -1}, "num_workers"),
        ({"batch_size": 2, "prefetch": 0}, "prefetch"),
        ({"batch_size": True}, "batch_size"),
        ({"seed": "a"}, "seed must be an integer, not 'a'"),
        ({"seed": 1.5}, "seed must be an integer, not 1.5"),
        ({"seed": True}, "seed"),
        ({"follow_batch": "x"}, "follow_batch must be a list of names"),
        ({"exclude_keys": [1]}, "exclude_keys must be a list of names"),
        ({"transform": 3}, "transform must be a function"),
    ],
)
def test_bad_settings_of_a_loader_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        Loader(_rings(3), **arguments)


NO_GRAPHS = [[3], [-4], [0, 7], [0.5], [[0]], "x", ["x"], None, ..., {0}, 1.5]


@pytest.mark.parametrize("graphs", NO_GRAPHS)
def test_graphs_that_are_not_there(graphs):
    packed = pack(_rings(3))
    for find in (packed.batch, packed.__getitem__):
        with pytest.raises(InputError):
            find(graphs)


def test_graphs_are_named_as_those_of_a_list():
    packed = pack(_rings(3))
    assert [b.num_nodes for b in packed] == [5, 6, 7]
    assert [b.num_nodes for b in packed[::-1]] == [7, 6, 5]
    assert [b.num_nodes for b in packed[2:0:-2]] == [7]
    for number in (1, -2, torch.tensor(1), np.int64(-2), np.array(1, dtype=np.uint8)):
        assert packed[number].num_nodes == 6
    assert len(packed[torch.tensor([], dtype=torch.long)]) == len(packed[[]]) == len(packed[np.zeros(3, bool)]) == 0
    assert [b.num_nodes for b in Loader(packed, np.int32(1), seed=torch.tensor(3))] == [5, 6, 7]


def test_a_loader_of_no_graph():
    packed = pack(_rings(3))
    with pytest.raises(InputError, match="is empty"):
        Loader(packed[:0])
    with pytest.raises(InputError, match="mask of 3"):
        packed[torch.tensor([True])]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"batch": torch.tensor([0, 1, 0])}, InputError, "must rise"),
        ({"batch": torch.tensor([0, 0, 1])}, GraphError, "edge 1 goes from graph 0 to graph 1"),
        ({"nodes": {"x": torch.ones(2, 1)}}, InputError, "`x` has 2 rows, and there are 3 nodes"),
        ({"edges": {"e": torch.ones(3, 1)}}, InputError, "`e` has 3 rows, and there are 2 edges"),
        ({"graphs": {"y": torch.ones(3)}, "num_graphs": 2}, InputError, "`y` has 3 rows, and there are 2 graphs"),
        ({"num_graphs": 0}, InputError, "0 graphs"),
        ({"edge_index": torch.tensor([[0], [5]])}, GraphError, "node 5"),
        ({"edge_index": None}, InputError, "edge_index must be a tensor"),
        ({"batch": torch.zeros(3)}, InputError, "batch must be integers"),
        ({"batch": "x"}, InputError, "batch must be a tensor"),
        ({"nodes": [torch.ones(3)]}, InputError, "nodes must be a dictionary"),
        ({"graphs": {"y": 3}}, InputError, "`y` must have a row"),
        ({"num_graphs": "a"}, InputError, "num_graphs must be an integer"),
    ],
)
def test_bad_arrays_are_refused(change, error, message):
    given = {"edge_index": torch.tensor([[0, 1], [1, 2]]), "batch": torch.tensor([0, 0, 0]), **change}
    with pytest.raises(error, match=message):
        pack_arrays(**given)


def test_an_error_of_a_thread_reaches_the_loop():
    def fail(batch: Any) -> Any:
        raise ValueError("not this one")

    with pytest.raises(ValueError, match="not this one"):
        list(Loader(_rings(6), 2, transform=fail, num_workers=2))


def test_a_loop_that_stops_early_leaves_no_thread_behind():
    import threading

    before = threading.active_count()
    for _ in Loader(_rings(8), 2, prefetch=3, num_workers=2):
        break
    assert threading.active_count() == before


def test_packed_sets_are_shown():
    assert repr(pack(_rings(2))) == "Packed(2 graphs, 11 nodes, 22 edges)"
    assert isinstance(pack(_rings(2)), Packed)
