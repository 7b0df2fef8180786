"""Parts of a graph: what GraphSAINT draws, by property; clusters are those of torch_geometric."""

from __future__ import annotations

import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch_geometric.loader
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.data import Data

import gdsl.data
import gdsl.nn
from gdsl import Graph
from gdsl.data import (
    ClusterData,
    ClusterLoader,
    GraphSAINTEdgeSampler,
    GraphSAINTNodeSampler,
    GraphSAINTRandomWalkSampler,
)
from gdsl.data.sampler import walks
from gdsl.errors import GraphError, InputError

from . import graphs as made
from .test_loader import no_sorting
from .test_neighbors import academic, assert_chances, assert_is_part, graph, only_python

SAMPLERS: dict[str, Any] = {
    "walks": lambda data, draws, **more: GraphSAINTRandomWalkSampler(data, draws, 3, **more),
    "edges": GraphSAINTEdgeSampler,
    "nodes": GraphSAINTNodeSampler,
}


def assert_has_all_edges_between(batch: Any, data: Data) -> None:
    assert_is_part(batch, data)
    assert len(batch.n_id.unique()) == batch.num_nodes
    expected = torch.isin(data.edge_index, batch.n_id).all(0).nonzero().squeeze(1)
    assert torch.equal(batch.e_id.sort().values, expected)


# -- GraphSAINT ------------------------------------------------------------------------------------


@given(st.integers(1, 30), st.integers(0, 60), st.integers(1, 20), st.integers(0, 6), st.integers(0, 2**64 - 1))
def test_walks_go_along_edges_and_are_the_same_in_python(nodes, edges, count, length, key):
    data = graph(nodes, edges, seed=key % 7)
    order = Graph(data.edge_index, nodes).out_edges
    found = walks(order, count, length, key)
    with only_python():
        assert torch.equal(found, walks(order, count, length, key))
    there = set(zip(*data.edge_index.tolist(), strict=True))
    leads_on = set(data.edge_index[0].tolist())
    for path in found.tolist():
        for pair in pairwise(path):
            assert pair in there or (pair[0] == pair[1] and pair[0] not in leads_on)


def test_each_way_of_a_walk_has_the_same_chance():
    edge_index = torch.tensor([[0, 0, 0, 1, 2], [1, 1, 2, 0, 2]])
    found = walks(Graph(edge_index, 4).out_edges, 6_000, 1, key=3)
    chances = {(0, 1): 1 / 6, (0, 2): 1 / 12, (1, 0): 1 / 4, (2, 2): 1 / 4, (3, 3): 1 / 4}
    assert_chances(Counter(map(tuple, found.tolist())), chances, 6_000)


@pytest.mark.parametrize("kind", SAMPLERS)
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_have_all_edges_between_what_was_drawn(kind, workers):
    data = graph(60, 300)
    loader = SAMPLERS[kind](data, 10, num_steps=4, sample_coverage=3, num_workers=workers)
    batches = list(loader)
    assert len(loader) == len(batches) == 4
    for batch in batches:
        assert_has_all_edges_between(batch, data)
        assert batch.name == "a graph"
        assert torch.equal(batch.node_norm, loader.node_norm[batch.n_id])
        assert torch.equal(batch.edge_norm, loader.edge_norm[batch.e_id])


@pytest.mark.parametrize("kind", SAMPLERS)
def test_a_seed_gives_the_same_for_any_number_of_threads(kind):
    data = graph(3_000, 30_000)
    threads, runs = torch.get_num_threads(), []
    try:
        for count, workers in ((1, 0), (2, 3)):
            torch.set_num_threads(count)
            more = {"num_steps": 3, "sample_coverage": 1, "seed": 4, "num_workers": workers}
            loader = SAMPLERS[kind](data, 2_500, **more)
            epochs = [[b.n_id for b in loader] for _ in range(2)]
            assert not torch.equal(epochs[0][0], epochs[1][0])
            assert not torch.equal(epochs[0][0], epochs[0][1])
            runs.append([*epochs[0], *epochs[1], loader.node_norm, loader.edge_norm])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


@pytest.mark.parametrize("kind", SAMPLERS)
def test_norms_make_sums_of_samples_right_on_average(kind):
    """What is drawn often counts for less: the mean of a loss, and the sum of messages into a node that was drawn.

    Few edges lead both ways, so that counts of the sources in the place of those of the targets are noticed.
    """
    data = graph(12, 40, seed=1)
    data.x = data.x.double() + 1
    loader = SAMPLERS[kind](data, 3, num_steps=500, sample_coverage=1_000, seed=0, num_workers=0)
    steps, loss, messages, met = 0, 0.0, torch.zeros(12, dtype=torch.float64), torch.zeros(12)
    for _ in range(5):
        for batch in loader:
            steps += 1
            loss += float(batch.node_norm.double() @ batch.x[:, 0])
            met[batch.n_id] += 1
            source, target = batch.edge_index
            messages.index_add_(0, batch.n_id[target], batch.edge_norm.double() * batch.x[source, 0])
    seen = torch.bincount(data.edge_index[1], minlength=12) > 0
    seen &= met > 0
    expected = torch.zeros(12, dtype=torch.float64).index_add(0, data.edge_index[1], data.x[data.edge_index[0], 0])
    drawn = loader.node_norm < 12  # all but what no sample meets, of which a loss cannot know
    assert loss / steps == pytest.approx(float(data.x[drawn].sum()) / 12, rel=0.05)
    torch.testing.assert_close((messages / met)[seen], expected[seen], rtol=0.2, atol=0.0)


def test_edges_are_drawn_by_the_degrees_of_their_ends():
    """Of few edges, and of so many that they are drawn in another way."""
    edges = torch.tensor([[0, 0, 0, 4], [1, 2, 3, 3]])
    weight = torch.tensor([1 / 3 + 1, 1 / 3 + 1, 1 / 3 + 1 / 2, 1 + 1 / 2])
    chances = dict(zip([(0, 1), (0, 2), (0, 3), (3, 4)], (weight / weight.sum()).tolist(), strict=True))
    for copies in (1, 6):
        data = Data(edge_index=torch.cat([edges + 5 * k for k in range(copies)], dim=1), num_nodes=5 * copies)
        loader = GraphSAINTEdgeSampler(data, 1, num_steps=3_000, num_workers=0)
        assert_chances(Counter(tuple((batch.n_id % 5).tolist()) for batch in loader), chances, 3_000)
        for draws in (3, 4 * copies, 99):
            loader = GraphSAINTEdgeSampler(data, draws)
            for key in range(20):
                drawn = loader._drawn(key).reshape(2, -1)
                assert drawn.unique(dim=1).shape == drawn.shape == (2, min(draws, 4 * copies))


def test_nodes_are_drawn_by_the_edges_out_of_them():
    data = Data(edge_index=torch.tensor([[0, 0, 0, 4], [1, 2, 3, 3]]), num_nodes=5)
    found = Counter(batch.n_id.item() for batch in GraphSAINTNodeSampler(data, 1, num_steps=6_000, num_workers=0))
    assert_chances(found, {0: 0.75, 4: 0.25}, 6_000)


def test_norms_are_kept_for_the_next_run(tmp_path, monkeypatch):
    data = graph(40, 200)

    def make(**changes: Any) -> Any:
        given = {"data": data, "batch_size": 5, "walk_length": 2, "sample_coverage": 5, "save_dir": tmp_path, **changes}
        return GraphSAINTRandomWalkSampler(**given)

    first = make()
    (path,) = tmp_path.iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(GraphSAINTRandomWalkSampler, "_norms", lambda self: pytest.fail("they were counted again"))
        again = make()
    assert torch.equal(first.edge_norm, again.edge_norm) and torch.equal(first.node_norm, again.node_norm)
    for changes in ({"data": graph(40, 200, seed=1)}, {"batch_size": 6}, {"walk_length": 3}):
        with pytest.raises(InputError, match="another graph or to other settings"):
            make(**changes)
    with pytest.raises(InputError, match="cannot be made"):
        make(save_dir=path / "below")
    torch.save((first.node_norm, first.edge_norm), path)
    with pytest.raises(InputError, match="cannot be read"):
        make()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="cannot be read"):
        make()


def test_batches_of_parts_go_into_layers_and_nothing_is_sorted():
    data = graph(60, 400)
    conv = gdsl.nn.SAGEConv(1, 4)
    clusters = ClusterData(data, 4, cluster=torch.arange(60) % 4)
    loaders = [GraphSAINTRandomWalkSampler(data, 8, 2, num_steps=3), ClusterLoader(clusters, 2)]
    for loader in loaders:
        for batch in list(loader):  # all of them first: what makes the next one sorts
            expected = conv(batch.x, batch.edge_index.clone())
            with no_sorting():
                found = conv(batch.x.requires_grad_(), batch.graph)
                found.sum().backward()
            torch.testing.assert_close(found, expected)


FAR_EDGE = Data(edge_index=torch.tensor([[0], [9]]), num_nodes=2)
NO_EDGES = Data(x=torch.ones(3, 1), edge_index=torch.empty(2, 0, dtype=torch.long))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda data: GraphSAINTNodeSampler(data, 0), InputError, "batch_size must be an integer of at least 1"),
        (lambda data: GraphSAINTNodeSampler(data, 2, 0), InputError, "num_steps"),
        (lambda data: GraphSAINTNodeSampler(data, 2, sample_coverage=-1), InputError, "sample_coverage"),
        (lambda data: GraphSAINTRandomWalkSampler(data, 2, -1), InputError, "walk_length"),
        (lambda data: GraphSAINTRandomWalkSampler(academic(), 2, 1), InputError, "nodes and edges of one type"),
        (lambda data: GraphSAINTEdgeSampler(NO_EDGES, 2), InputError, "no nodes or edges"),
        (lambda data: GraphSAINTNodeSampler(Data(x=torch.ones(2, 1)), 2), InputError, "no edge_index"),
        (lambda data: GraphSAINTNodeSampler(FAR_EDGE, 2), GraphError, "node 9"),
        (lambda data: GraphSAINTNodeSampler(data.update({"node_norm": data.x}), 2), InputError, "of their own"),
        (lambda data: ClusterData(data, 0), InputError, "num_parts"),
        (lambda data: ClusterData(data, 21), InputError, "20 nodes cannot be divided into 21 parts"),
        (lambda data: ClusterData(data, 2, sparse_format="coo"), InputError, "sparse_format"),
        (lambda data: ClusterData(data, 2, cluster=torch.full((20,), 2)), InputError, "numbers of 2 parts"),
        (lambda data: ClusterData(data, 2, cluster=[0, 1]), InputError, r"cluster must be integers \[20\]"),
        (lambda data: ClusterData(academic(), 2), InputError, "one type"),
        (lambda data: ClusterLoader(data), InputError, "a gdsl.data.ClusterData is needed"),
        (lambda data: ClusterLoader(ClusterData(data, 1), batch_size=0), InputError, "batch_size"),
        (lambda data: ClusterData(data, 1)["a"], InputError, "the number of a part"),
        (lambda data: ClusterData(data, 1)[1], IndexError, "no part 1"),
    ],
)
def test_bad_arguments_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call(graph(20, 50))


def test_a_graph_without_edges():
    for batch in GraphSAINTRandomWalkSampler(NO_EDGES, 2, 3, num_steps=2, sample_coverage=4):
        assert batch.num_edges == 0 and 1 <= batch.num_nodes <= 2
        assert bool(batch.node_norm.isfinite().all())


# -- clusters --------------------------------------------------------------------------------------


def theirs(data: Data, parts: int, cluster: Tensor, **settings: Any) -> torch_geometric.loader.ClusterData:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch_geometric.loader.ClusterData, "_metis", lambda self, edges, nodes: cluster)
        return torch_geometric.loader.ClusterData(data, parts, log=False, **settings)


def told(batch: Any, source: Tensor, target: Tensor) -> tuple[list[Any], list[Any]]:
    """Nodes and edges by their numbers in the graph, whatever their order."""
    rows = torch.stack([source, target, batch.edge_attr, batch.edge_weight.double()], dim=1)
    nodes = torch.cat([batch.x, batch.time.unsqueeze(1)], dim=1)
    return sorted(map(tuple, nodes.tolist())), sorted(map(tuple, rows.tolist()))


def within(batch: Any) -> tuple[list[Any], list[Any]]:
    return told(batch, *batch.x[:, 0].long()[batch.edge_index])


@given(st.integers(1, 25), st.integers(0, 80), st.integers(1, 5), st.integers(1, 3), st.integers(0, 9))
def test_clusters_are_those_of_torch_geometric(nodes, edges, parts, batch_size, seed):
    """In each part torch_geometric may have another order of nodes, and it takes no part without edges."""
    ring = torch.arange(nodes)
    data, parts = graph(nodes, edges, seed), min(parts, nodes)
    data.edge_index = torch.cat([data.edge_index, torch.stack([ring, (ring + 1) % nodes])], dim=1)
    data.edge_attr, data.edge_weight = torch.arange(data.num_edges), torch.rand(data.num_edges)
    del data.edge_time, data.weight
    cluster = torch.randperm(nodes, generator=torch.Generator().manual_seed(seed)) % parts
    for row, format in enumerate(("csr", "csc")):
        settings = {"sparse_format": format, "keep_inter_cluster_edges": True}
        own, their = ClusterData(data, parts, **settings, cluster=cluster), theirs(data, parts, cluster, **settings)
        for found, expected in zip(own, their, strict=True):
            sides = []
            for batch, perm in ((found, own.partition.node_perm), (expected, their.partition.node_perm)):
                ends = list(batch.edge_index)
                ends[row], ends[1 - row] = batch.x[:, 0].long()[ends[row]], perm[ends[1 - row]]
                sides.append(told(batch, *ends))
            assert sides[0] == sides[1]
    own, their = ClusterData(data, parts, cluster=cluster), theirs(data, parts, cluster)
    assert [within(batch) for batch in own] == [within(batch) for batch in their]
    loaders = ClusterLoader(own, batch_size), torch_geometric.loader.ClusterLoader(their, batch_size=batch_size)
    assert len(loaders[0]) == len(loaders[1])
    for found, expected in zip(*loaders, strict=True):
        assert found.num_nodes == expected.num_nodes
        assert within(found) == within(expected)
        assert_has_all_edges_between(found, data)


def test_clusters_are_shuffled_and_left_out():
    clusters = ClusterData(graph(60, 300), 7, cluster=torch.arange(60) % 7)
    loader = ClusterLoader(clusters, 2, shuffle=True, seed=1, drop_last=True)
    first, second = ([b.n_id for b in loader] for _ in range(2))
    assert len(first) == len(second) == 3
    assert not all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    whole = torch.cat([b.n_id for b in ClusterLoader(clusters, 3, shuffle=True)])
    assert torch.equal(whole.sort().values, torch.arange(60))


def test_metis_is_asked_for_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "pymetis", None)
    with pytest.raises(InputError, match=r"pip install 'gdsl\[metis\]'"):
        ClusterData(graph(20, 50), 2)
    assert len(ClusterData(graph(20, 50), 1)[0].n_id) == 20


@pytest.fixture
def _metis() -> None:
    pytest.importorskip("pymetis", reason="pymetis, which divides graphs, is not installed")


@pytest.mark.usefixtures("_metis")
@pytest.mark.parametrize("recursive", [False, True])
def test_metis_finds_parts_with_few_edges_between_them(recursive):
    """Rings of ten nodes, which are joined by one edge each: no other division cuts so few edges."""
    ring = torch.arange(80)
    ends = torch.cat([torch.stack([ring, ring // 10 * 10 + (ring + k) % 10]) for k in (1, 2, 3)], dim=1)
    bridges = torch.stack([torch.arange(0, 80, 10), (torch.arange(0, 80, 10) + 11) % 80])
    order = torch.randperm(80)
    twice_and_loops = torch.cat([ends[:, :3], ends[:1, :3].expand(2, -1)], dim=1)
    data = Data(edge_index=order[torch.cat([ends, bridges, twice_and_loops], dim=1)], num_nodes=80)
    clusters = ClusterData(data, 8, recursive=recursive)
    assert len(set(zip((ring // 10).tolist(), clusters.cluster[order].tolist(), strict=True))) == 8
    assert torch.equal(clusters.cluster, ClusterData(data, 8, recursive=recursive).cluster)


@pytest.mark.usefixtures("_metis")
@pytest.mark.parametrize("parts", [32, 33])
def test_metis_has_room_for_a_node(parts):
    """Of a grid of 30 x 30 nodes it cut 694 edges for 32 parts, and 322 for 33."""
    node = torch.arange(900).view(30, 30)
    pairs = [(node[1:], node[:-1]), (node[:, 1:], node[:, :-1])]
    ends = torch.cat([torch.stack([a.flatten(), b.flatten()]) for a, b in pairs], dim=1)
    cluster = gdsl.data.clusters.metis(gdsl.Graph(ends, 900), parts)
    assert int((cluster[ends[0]] != cluster[ends[1]]).sum()) < 350
    assert int(cluster.bincount(minlength=parts).max()) <= 30


@pytest.mark.usefixtures("_metis")
def test_clusters_are_kept_for_the_next_run(tmp_path: Path, monkeypatch):
    data = graph(40, 200)
    first = ClusterData(data, 4, save_dir=tmp_path / "new")
    assert [p.relative_to(tmp_path) for p in tmp_path.rglob("*.pt")] == [Path("new/part_4/metis.pt")]
    monkeypatch.setattr(gdsl.data.clusters, "metis", lambda *_: pytest.fail("they were found again"))
    assert torch.equal(ClusterData(data, 4, save_dir=tmp_path / "new").cluster, first.cluster)
    with pytest.raises(InputError, match="another graph"):
        ClusterData(graph(40, 200, seed=1), 4, save_dir=tmp_path / "new")


@pytest.mark.usefixtures("_metis")
def test_metis_takes_graphs_of_any_shape():
    for data in (NO_EDGES, Data(edge_index=made.edges(9, 9, 3, torch.Generator()), num_nodes=9)):
        clusters = ClusterData(data, 2)
        assert sum(len(batch.n_id) for batch in ClusterLoader(clusters)) == data.num_nodes
