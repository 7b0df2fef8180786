"""Sampled neighbourhoods: what may be in them, by property; the native code gives what the Python code gives."""

from __future__ import annotations

import math
import pickle
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.data import Data, HeteroData

import gdsl
import gdsl.data.sampler
import gdsl.nn
from gdsl.data import LinkNeighborLoader, NeighborLoader, NodeData
from gdsl.data.sampled import DISJOINT, INDUCED, REPLACE
from gdsl.data.sampler import Sampler
from gdsl.errors import GraphError, InputError

from . import graphs as made
from .test_loader import assert_ready, no_sorting


@contextmanager
def only_python() -> Iterator[None]:
    """As on a machine without a compiler."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gdsl.data.sampler, "native", lambda name: None)
        yield


def graph(nodes: int, edges: int, seed: int = 0) -> Data:
    """A graph with all that sampling can ask for. The numbers of nodes and edges are in their features."""
    random = torch.Generator().manual_seed(seed)
    edge_index = made.edges(nodes, nodes, edges, random)
    edges = edge_index.shape[1]
    return Data(
        x=torch.arange(nodes, dtype=torch.float32).unsqueeze(1),
        edge_index=edge_index,
        edge_attr=torch.arange(edges),
        time=torch.randint(20, (nodes,), generator=random),
        edge_time=torch.randint(20, (edges,), generator=random),
        weight=torch.rand(edges, generator=random) * (torch.rand(edges, generator=random) < 0.8),
        name="a graph",
        num_nodes=nodes,
    )


def academic(seed: int = 0) -> HeteroData:
    random = torch.Generator().manual_seed(seed)
    data = made.academic(30, 40, random)
    data["paper", "rev_writes", "author"].edge_index = data[made.WRITES].edge_index.flip(0)
    for type in data.node_types:
        data[type].x = torch.arange(data[type].num_nodes, dtype=torch.float32).unsqueeze(1)
        data[type].time = torch.randint(20, (data[type].num_nodes,), generator=random)
    return data


def stores(batch: Any) -> list[tuple[Any, Any, Any, Any]]:
    """The edges of each type, the nodes at both ends, and the type."""
    if not batch.edge_types:
        return [("", batch, batch, batch)]
    return [(t, batch[t], batch[t[0]], batch[t[2]]) for t in batch.edge_types]


def assert_is_part(batch: Any, data: Any, reverse: bool = False) -> None:
    """All edges are edges of the graph, all values those of their nodes and edges, and the graph is ready."""
    for type, store, source, target in stores(batch):
        whole = data[type] if type else data
        numbers = torch.stack([source.n_id[store.edge_index[0]], target.n_id[store.edge_index[1]]])
        expected = whole.edge_index[:, store.e_id]
        either = (numbers == expected).all(0) | (numbers == expected.flip(0)).all(0)
        assert bool(either.all()) if reverse else torch.equal(numbers, expected)
        assert bool((store.edge_index[1].diff() >= 0).all())
        if "edge_attr" in store:
            assert torch.equal(store.edge_attr, whole.edge_attr[store.e_id])
        for nodes in (source, target):
            assert torch.equal(nodes.x[:, 0].long(), nodes.n_id)
        assert_ready(store, store.edge_index, (source.num_nodes, target.num_nodes), ["in_edges"])


SETTINGS = st.fixed_dictionaries(
    {
        "replace": st.booleans(),
        "disjoint": st.booleans(),
        "subgraph_type": st.sampled_from(["directional", "induced", "bidirectional"]),
        "time_attr": st.sampled_from([None, None, "time", "edge_time"]),
        "temporal_strategy": st.sampled_from(["uniform", "last"]),
        "weight_attr": st.sampled_from([None, "weight"]),
    }
).filter(lambda s: s["time_attr"] is None or s["weight_attr"] is None)
FAN_OUTS = st.lists(st.sampled_from([-1, 0, 1, 2, 3, 40]), min_size=0, max_size=3)


@given(st.integers(1, 30), st.integers(0, 90), FAN_OUTS, SETTINGS, st.integers(0, 9), st.data())
def test_any_sample_is_a_right_part_of_the_graph(nodes, edges, fan_outs, settings, seed, draw):
    data = graph(nodes, edges, seed)
    seeds = draw.draw(st.lists(st.integers(0, nodes - 1), min_size=1, max_size=6, unique=True))
    times = torch.randint(20, (len(seeds),)) if settings["time_attr"] == "edge_time" else None
    given = {"input_nodes": torch.tensor(seeds), "input_time": times, "batch_size": 4, "seed": seed, "num_workers": 0}
    loader = NeighborLoader(data, fan_outs, **given, **settings)
    with only_python():
        again = list(loader)
    loader.epoch = 0
    for batch, other in zip(loader, again, strict=True):
        assert_is_part(batch, data, reverse=settings["subgraph_type"] == "bidirectional")
        assert batch.name == "a graph"
        assert batch.n_id[: batch.batch_size].tolist() == [seeds[k] for k in batch.input_id]
        for key, value in batch:
            same = torch.equal(value, other[key]) if isinstance(value, Tensor) else value == other[key]
            assert same, key
        disjoint = settings["disjoint"] or settings["time_attr"] is not None
        met = list(zip(batch.batch.tolist() if disjoint else [0] * batch.num_nodes, batch.n_id.tolist(), strict=True))
        assert len(set(met)) == len(met)
        if disjoint:
            assert torch.equal(batch.batch[batch.edge_index[0]], batch.batch[batch.edge_index[1]])
            assert batch.batch[: batch.batch_size].tolist() == list(range(batch.batch_size))
        if settings["time_attr"] == "time":
            assert bool((data.time[batch.n_id] <= batch.seed_time[batch.batch]).all())
        if settings["time_attr"] == "edge_time":
            limit = batch.seed_time[batch.batch[batch.edge_index[1]]]
            assert bool((data.edge_time[batch.e_id] <= limit).all())
        if settings["weight_attr"] and -1 not in fan_outs and settings["subgraph_type"] != "induced":
            assert bool((data.weight[batch.e_id] > 0).all())
        if settings["subgraph_type"] == "directional":
            assert_by_hop(batch, data, fan_outs, settings)


def assert_by_hop(batch: Any, data: Data, fan_outs: list[int], settings: dict[str, Any]) -> None:
    """Each hop takes as many edges into each of the last hop's nodes as it may, and its nodes are what is new."""
    assert sum(batch.num_sampled_nodes) == batch.num_nodes
    assert sum(batch.num_sampled_edges) == batch.num_edges
    assert batch.num_sampled_nodes[0] == batch.batch_size
    bounds = [0, *torch.tensor(batch.num_sampled_nodes).cumsum(0).tolist()]
    edge = 0
    for hop, fan_out in enumerate(fan_outs):
        part = slice(edge, edge + batch.num_sampled_edges[hop])
        edge = part.stop
        ids, targets = batch.e_id[part], batch.edge_index[1, part]
        for place in range(bounds[hop], bounds[hop + 1]):
            mine = ids[targets == place].tolist()
            allowed = data.edge_index[1] == batch.n_id[place]
            if settings["time_attr"] == "time":
                allowed &= data.time[data.edge_index[0]] <= batch.seed_time[batch.batch[place]]
            if settings["time_attr"] == "edge_time":
                allowed &= data.edge_time <= batch.seed_time[batch.batch[place]]
            if settings["weight_attr"] and fan_out > 0:
                allowed &= data.weight > 0
            options = allowed.nonzero().squeeze(1).tolist()
            assert set(mine) <= set(options)
            last = settings["temporal_strategy"] == "last" and settings["time_attr"] is not None
            if fan_out < 0:
                assert sorted(mine) == options
            elif settings["replace"] and not last:
                assert len(mine) == (fan_out if options else 0)
            else:
                assert len(mine) == len(set(mine)) == min(fan_out, len(options))
            if last and fan_out > 0:
                times = data.edge_time if settings["time_attr"] == "edge_time" else data.time[data.edge_index[0]]
                left = set(options) - set(mine)
                assert not left or not mine or max(times[list(left)]) <= min(times[mine])
        new = range(bounds[hop + 1], bounds[hop + 2])
        assert set(new) <= set(batch.edge_index[0, part].tolist())


@pytest.mark.parametrize("python", [False, True])
@pytest.mark.parametrize("settings", [{}, {"disjoint": True}, {"time_attr": "time"}, {"subgraph_type": "induced"}])
def test_several_types(settings, python):
    data = academic()
    fan_outs = {made.WRITES: [2, -1], made.CITES: [3, 2], ("paper", "rev_writes", "author"): [0, 2]}
    given = {"input_nodes": ("paper", torch.arange(10, 20)), "batch_size": 5, "seed": 1, "num_workers": 0}
    loader = NeighborLoader(data, fan_outs, **given, **settings)
    with only_python() if python else nullcontext():
        batches = list(loader)
    for number, batch in enumerate(batches):
        paper = batch["paper"]
        assert_is_part(batch, data)
        assert paper.batch_size == 5
        assert paper.input_id.tolist() == list(range(5 * number, 5 * number + 5))
        assert paper.n_id[:5].tolist() == list(range(10 + 5 * number, 15 + 5 * number))
        assert torch.equal(batch.year, data.year)
        assert batch["author"].n_id.unique().numel() == batch["author"].num_nodes or settings
        if "time_attr" in settings:
            for type in data.node_types:
                assert bool((data[type].time[batch[type].n_id] <= paper.seed_time[batch[type].batch]).all())
        if settings.get("subgraph_type") == "induced":
            for type in data.edge_types:
                ends = [torch.isin(data[type].edge_index[k], batch[t].n_id) for k, t in ((0, type[0]), (1, type[2]))]
                assert batch[type].num_edges == int((ends[0] & ends[1]).sum())
        elif not settings:
            writes = batch[made.WRITES]
            assert int(writes.edge_index[1, : writes.num_sampled_edges[0]].bincount().max()) <= 2


def test_all_neighbours_give_what_the_whole_graph_gives():
    data = graph(60, 400)
    conv = torch.nn.ModuleList([gdsl.nn.SAGEConv(1, 4), gdsl.nn.SAGEConv(4, 2)])

    def run(x: Tensor, edges: Any) -> Tensor:
        return conv[1](conv[0](x, edges).relu(), edges)

    expected = run(data.x, data.edge_index)
    for batch in NeighborLoader(data, [-1, -1], batch_size=16, num_workers=1):
        found = run(batch.x, batch.graph)[: batch.batch_size]
        torch.testing.assert_close(found, expected[batch.n_id[: batch.batch_size]])


def test_a_batch_is_not_sorted_by_a_layer():
    data = graph(60, 400)
    conv = gdsl.nn.SAGEConv(1, 4)
    for batch in NeighborLoader(data, [3, 2], batch_size=16, num_workers=1):
        conv(batch.x, batch.graph)  # kernels are compiled
    batches = list(NeighborLoader(data, [3, 2], batch_size=16, num_workers=1))
    with no_sorting():
        for batch in batches:
            conv(batch.x.requires_grad_(), batch.edge_index).sum().backward()


# -- chances ---------------------------------------------------------------------------------------


def star(edges: int, **attributes: Any) -> Data:
    """Edges into node 0 from all others."""
    edge_index = torch.stack([torch.arange(1, edges + 1), torch.zeros(edges, dtype=torch.int64)])
    return Data(edge_index=edge_index, num_nodes=edges + 1, **attributes)


def drawn(data: Data, fan_out: int, runs: int, **settings: Any) -> list[list[int]]:
    loader = NeighborLoader(data, [fan_out], [0], num_workers=0, **settings)
    found = []
    for key in range(runs):
        found.append(loader.sampler({0: torch.tensor([0])}, key).edges[0].tolist())
    return found


def assert_chances(counts: Counter, chances: dict[Any, float], runs: int) -> None:
    """No count is five standard deviations off."""
    assert set(counts) <= set(chances)
    for key, chance in chances.items():
        spread = math.sqrt(runs * chance * (1 - chance)) + 1
        assert abs(counts[key] - runs * chance) < 5 * spread, key


RUNS = 6_000


def test_each_set_of_edges_has_the_same_chance():
    found = Counter(tuple(sorted(f)) for f in drawn(star(6), 3, RUNS))
    sets = list(combinations(range(6), 3))
    assert_chances(found, dict.fromkeys(sets, 1 / len(sets)), RUNS)


def test_many_edges_without_replacement():
    """More than are compared one by one."""
    for found in drawn(star(100), 60, 50):
        assert len(set(found)) == 60
    counts = Counter(e for f in drawn(star(100), 60, 500) for e in f)
    assert_chances(counts, dict.fromkeys(range(100), 0.6), 500)


def test_with_replacement_each_draw_is_by_itself():
    found = Counter(tuple(f) for f in drawn(star(3), 2, RUNS, replace=True))
    assert_chances(found, {(a, b): 1 / 9 for a in range(3) for b in range(3)}, RUNS)


WEIGHTS = torch.tensor([4.0, 0.0, 1.0, 3.0])


def test_weights_with_replacement():
    found = Counter(e for f in drawn(star(4, w=WEIGHTS), 1, RUNS, replace=True, weight_attr="w") for e in f)
    assert_chances(found, {0: 0.5, 2: 0.125, 3: 0.375}, RUNS)


def test_weights_without_replacement():
    """One edge after the other, each by its weight among those that are left."""
    found = Counter(tuple(f) for f in drawn(star(4, w=WEIGHTS), 2, RUNS, weight_attr="w"))
    w = {0: 4.0, 2: 1.0, 3: 3.0}
    chances = {(a, b): w[a] / 8 * w[b] / (8 - w[a]) for a in w for b in w if a != b}
    assert_chances(found, chances, RUNS)


def test_times_leave_the_same_chances():
    data = star(5, time=torch.tensor([3, 1, 9, 3, 2, 5]))
    found = Counter(tuple(sorted(f)) for f in _timed(data, 2, "uniform", 3))
    assert_chances(found, dict.fromkeys([(0, 2), (0, 3), (2, 3)], 1 / 3), 900)
    assert {tuple(sorted(f)) for f in _timed(data, 2, "last", 3)} == {(2, 3)}


def _timed(data: Data, fan_out: int, strategy: str, limit: int) -> list[list[int]]:
    loader = NeighborLoader(
        data, [fan_out], [0], torch.tensor([limit]), time_attr="time", temporal_strategy=strategy, num_workers=0
    )
    seeds = {0: torch.tensor([0])}
    return [loader.sampler(seeds, key, torch.tensor([limit])).edges[0].tolist() for key in range(900)]


# -- the same sample -------------------------------------------------------------------------------


def test_a_seed_gives_the_same_sample_for_any_number_of_threads():
    data = graph(3_000, 60_000)
    threads, runs = torch.get_num_threads(), []
    try:
        for count, workers in ((1, 0), (2, 1), (3, 3)):
            torch.set_num_threads(count)
            loader = NeighborLoader(data, [8, 6], batch_size=700, shuffle=True, seed=5, num_workers=workers)
            runs.append([[(b.n_id, b.e_id, b.edge_index) for b in loader] for _ in range(2)])
    finally:
        torch.set_num_threads(threads)
    for run in runs[1:]:
        for one, other in zip(run, runs[0], strict=True):
            assert all(torch.equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True))
    assert not torch.equal(runs[0][0][0][0], runs[0][1][0][0])


@given(
    st.sampled_from([0, REPLACE, DISJOINT, REPLACE | DISJOINT, INDUCED]), st.booleans(), st.sampled_from([40, 2**20]),
    st.integers(0, 2**64 - 1),
)  # fmt: skip
def test_native_and_python_samples_are_the_same(flags, wide, count, key):
    """Also of nodes with very many edges, of seeds that come twice, of graphs with int64 orders, and of so many nodes
    that those met are searched for."""
    data = graph(40, 900, seed=3)
    (kind,) = NeighborLoader(data, [1]).sampler.kinds
    if wide:
        kind = replace(kind, rowptr=kind.rowptr.long(), index=kind.index.long(), edge=kind.edge.long())
    sampler = Sampler([count], [kind], [[33, 2]], flags)
    seeds = {0: torch.tensor([3, 7, 3, 0])}
    found = sampler(seeds, key)
    with only_python():
        expected = sampler(seeds, key)
    for name in ("nodes", "ends", "edges", "rowptr"):
        assert all(torch.equal(a, b) for a, b in zip(getattr(found, name), getattr(expected, name), strict=True)), name
    assert (found.num_nodes, found.num_edges) == (expected.num_nodes, expected.num_edges)
    assert found.nodes[0][:4].tolist() == [3, 7, 3, 0]


# -- arguments -------------------------------------------------------------------------------------


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"num_neighbors": [-2]}, InputError, "a fan-out is a number of edges, or -1"),
    ({"num_neighbors": [1.5]}, InputError, "a fan-out"),
    ({"num_neighbors": {("a", "b", "c"): [1]}}, InputError, "names edges"),
    ({"num_neighbors": 3}, InputError, "one fan-out for each hop"),
    ({"num_neighbors": None}, InputError, "one fan-out for each hop"),
    ({"num_neighbors": torch.tensor(3)}, InputError, "one fan-out for each hop"),
    ({"num_neighbors": torch.tensor([[3]])}, InputError, "one fan-out for each hop"),
    ({"num_neighbors": torch.tensor([1.5])}, InputError, "a fan-out"),
    ({"num_neighbors": [True]}, InputError, "a fan-out"),
    ({"input_nodes": "paper"}, InputError, "one type, and input_nodes names 'paper'"),
    ({"input_nodes": ("paper", [1])}, InputError, "all nodes are of one type"),
    ({"input_nodes": ["a"]}, InputError, "input_nodes must be a tensor"),
    ({"input_nodes": 3}, InputError, "input_nodes must be integers"),
    ({"seed": "a"}, InputError, "seed must be an integer"),
    ({"weight_attr": ["weight"]}, InputError, "weight_attr must be the name"),
    ({"time_attr": "time", "input_time": 3}, InputError, "input_time must be integers"),
    ({"transform": "x"}, InputError, "transform must be a function"),
    ({"input_nodes": [20]}, InputError, "input node 20 is not there: there are 20"),
    ({"input_nodes": [-1]}, InputError, "input node -1"),
    ({"input_nodes": [0.5]}, InputError, "must be integers"),
    ({"input_nodes": torch.ones(3, dtype=torch.bool)}, InputError, r"shape \[20\], not \[3\]"),
    ({"subgraph_type": "some"}, InputError, "subgraph_type is one of"),
    ({"temporal_strategy": "first"}, InputError, "temporal_strategy is one of"),
    ({"time_attr": "when"}, InputError, "`when` is neither"),
    ({"time_attr": "x"}, InputError, "times must be integers"),
    ({"time_attr": "edge_time"}, InputError, "give input_time"),
    ({"input_time": torch.zeros(20)}, InputError, "input_time needs time_attr"),
    ({"time_attr": "time", "input_time": torch.zeros(3, dtype=torch.long)}, InputError, r"integers \[20\], not"),
    ({"time_attr": "time", "weight_attr": "weight"}, InputError, "not by both"),
    ({"weight_attr": "w"}, InputError, "`w` is no attribute"),
    ({"weight_attr": "bad"}, InputError, "finite, not negative"),
    ({"batch_size": 0}, InputError, "batch_size"),
    ({"data": torch.ones(3)}, InputError, "must be a torch_geometric Data"),
    ({"data": Data(x=torch.ones(3, 1))}, InputError, "no edge_index"),
    ({"data": Data(x=torch.ones(3, 1), edge_index=torch.tensor([[0], [3]]))}, GraphError, "node 3"),
    ({"data": academic()}, InputError, "is a type or a pair"),
    ({"data": academic(), "input_nodes": "venue"}, InputError, "is a type or a pair"),
    ({"data": academic(), "input_nodes": "paper", "num_neighbors": {made.CITES: [1]}}, InputError, "nothing for edges"),
    ({"data": academic(), "input_nodes": "paper", "subgraph_type": "bidirectional"}, InputError, "of one type"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD)
def test_bad_arguments_are_refused_before_anything_is_sampled(change, error, message):
    data = graph(20, 50)
    data.bad = torch.full((50,), -1.0)
    with pytest.raises(error, match=message):
        NeighborLoader(**{"data": data, "num_neighbors": [2], **change})


def test_masks_and_calls():
    data = graph(20, 50)
    mask = torch.arange(20) % 3 == 0
    loader = NeighborLoader(data, [2], mask, batch_size=4, num_workers=0)
    assert [b.input_id.tolist() for b in loader] == [[0, 3, 6, 9], [12, 15, 18]]
    assert loader([1, 2]).n_id[:2].tolist() == [3, 6]
    with pytest.raises(InputError, match="no input node 7"):
        loader([7])
    with pytest.raises(InputError, match="the places of input nodes"):
        loader("a")


def test_fan_outs_of_any_kind_of_integers():
    data = graph(20, 50)
    expected = next(iter(NeighborLoader(data, [3, 2], seed=0)))
    for fan_outs in (torch.tensor([3, 2]), np.array([3, 2]), (np.int32(3), torch.tensor(2)), range(3, 1, -1)):
        assert torch.equal(next(iter(NeighborLoader(data, fan_outs, seed=0))).n_id, expected.n_id)


def test_a_loader_is_sent_and_node_data_is_sampled():
    node_data = NodeData("small", graph(20, 60).edge_index, 20, torch.arange(20), 2, x=torch.arange(20.0).unsqueeze(1))
    loader = NeighborLoader(node_data, [2], batch_size=8, seed=1, num_workers=0)
    expected = list(loader)
    for found, other in zip(pickle.loads(pickle.dumps(loader)), loader, strict=True):
        assert torch.equal(found.n_id, other.n_id)
    for batch in expected:
        assert torch.equal(batch.y, batch.n_id)
        assert torch.equal(batch.x[:, 0].long(), batch.n_id)


def test_a_graph_without_edges():
    data = Data(x=torch.arange(3.0).unsqueeze(1), edge_index=torch.empty(2, 0, dtype=torch.long))
    (batch,) = NeighborLoader(data, [2, -1], batch_size=3)
    assert (batch.num_nodes, batch.num_edges, batch.num_sampled_nodes) == (3, 0, [3, 0, 0])
    assert_is_part(batch, data)


@pytest.mark.parametrize("workers", [1, 2])
def test_no_seeds_are_no_batches(workers):
    data = Data(x=torch.randn(5, 2), edge_index=torch.randint(5, (2, 9)))
    nobody, nothing = torch.zeros(5, dtype=torch.bool), torch.empty(2, 0, dtype=torch.long)
    for loader in (
        NeighborLoader(data, [2], input_nodes=nobody, batch_size=2, num_workers=workers),
        LinkNeighborLoader(data, [2], edge_label_index=nothing, batch_size=2, num_workers=workers, drop_last=True),
    ):
        assert len(loader) == 0 and list(loader) == []
