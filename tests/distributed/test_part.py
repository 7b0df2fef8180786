"""A graph in parts: every edge and node is in one of them, values come to it and go back, and bad input is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch_geometric.data import HeteroData

import gdsl
from gdsl.distributed import Division, GraphPart, Traffic, divide, load_part, partition, save_parts, wire
from gdsl.errors import GraphError, InputError
from tests.distributed.pool import Pool
from tests.distributed.processes import CaseError


def edges(nodes: int, count: int, sources: int | None = None, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    ends = [torch.randint(n, (count,), generator=random) for n in (sources or nodes, nodes)]
    return torch.stack(ends)


def hub(nodes: int) -> Tensor:
    """Every node to the first one and back, and loops."""
    others = torch.arange(nodes)
    return torch.cat([torch.stack([others, others * 0]), torch.stack([others * 0, others])], dim=1)


GRAPHS = {
    "random": gdsl.Graph(edges(40, 160), 40),
    "parallel edges": gdsl.Graph(edges(5, 100), 5),
    "a hub": gdsl.Graph(hub(17), 17),
    "isolated nodes": gdsl.Graph(edges(10, 30), 60),
    "no edges": gdsl.Graph(edges(1, 0), 9),
    "fewer nodes than parts": gdsl.Graph(edges(2, 5), 2),
    "no nodes": gdsl.Graph(torch.empty(2, 0, dtype=torch.long), 0),
    "bipartite": gdsl.Graph(edges(20, 90, sources=33), (33, 20)),
}


def papers() -> HeteroData:
    data = HeteroData()
    data["paper"].num_nodes, data["author"].num_nodes = 30, 21
    data["author", "writes", "paper"].edge_index = edges(30, 80, sources=21)
    data["paper", "cites", "paper"].edge_index = edges(30, 70, seed=1)
    data["paper", "by", "author"].edge_index = edges(30, 80, sources=21).flip(0)
    return data


# -- parts, without processes -----------------------------------------------------------------------


def check_parts(made: Division) -> None:
    """The parts have all edges, once, and what one sends is what the other receives."""
    parts = [made.part(k) for k in range(made.parts)]
    assert "reads" not in made.__dict__
    _ = made.reads  # of which parts are then taken
    for one, other in zip(parts, (made.part(k) for k in range(made.parts)), strict=True):
        for type, found in one.edges.items():
            assert all(torch.equal(getattr(found, n), getattr(other.edges[type], n)) for n in ("halo_ids", "send"))
    for type, count in made.source.num_nodes.items():
        assert torch.cat([p.own[type] for p in parts]).sort().values.tolist() == list(range(count))
        assert all(p.num_nodes(type) == count for p in parts)
    for type, graph in made.source.graphs.items():
        source_type, target_type = made.source.ends(type)
        assert torch.cat([p.edges[type].edge_ids for p in parts]).sort().values.tolist() == list(range(graph.num_edges))
        for k, part in enumerate(parts):
            found = part.edges[type]
            readable = torch.cat([part.own[source_type], found.halo_ids])
            ends = torch.stack([readable[found.edge_index[0]], part.own[target_type][found.edge_index[1]]])
            assert torch.equal(ends, graph.edge_index[:, found.edge_ids])
            # Nothing is received twice, or without need.
            assert found.edge_index[0].unique().numel() >= len(found.halo_ids) == found.halo_ids.unique().numel()
            received = found.halo_ids.split(found.receive_counts)
            for other, halo in zip(parts, received, strict=True):
                sent = other.edges[type].send.split(other.edges[type].send_counts)[k]
                assert torch.equal(other.own[source_type][sent], halo)
            assert found.receive_counts[k] == found.send_counts[k] == 0


@pytest.mark.parametrize("parts", [1, 3, 4])
@pytest.mark.parametrize("name", GRAPHS)
def test_parts_have_all_edges_and_what_they_read(name: str, parts: int) -> None:
    made = divide(GRAPHS[name], parts, "hash")
    check_parts(made)
    local = made.part(parts - 1).local()
    assert (local.num_sources, local.num_targets) == tuple(
        len(made.part(parts - 1).own[end]) for end in made.source.ends(next(iter(made.source.graphs)))
    )
    assert int(made.edge_counts.sum()) == GRAPHS[name].num_edges


def test_parts_of_several_types() -> None:
    made = divide(papers(), 3, "hash")
    check_parts(made)
    local = made.part(1).local()
    assert set(local) == set(papers().edge_types)
    assert local["author", "writes", "paper"].num_sources == len(made.part(1).node_ids("author"))


def test_all_nodes_of_one_owner_leave_empty_parts() -> None:
    made = divide(GRAPHS["random"], 3, torch.full((40,), 1))
    check_parts(made)
    assert (made.cut, made.balance) == (0.0, 3.0)
    assert made.part(0).local().num_edges == 0


def test_what_a_partition_costs_is_told() -> None:
    # 0 -> 1 -> 2 -> 3 -> 0, in halves: two of four edges are cut, and each part reads one row.
    ring = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
    made = divide(ring, 2, [0, 0, 1, 1])
    assert (made.cut, made.balance) == (0.5, 1.0)
    assert made.halo_counts.tolist() == [1, 1]
    assert repr(made) == (
        "Division(2 parts, 50% of the edges cut, busiest 1.00 of the mean, halo 0.50 of the own nodes, at most 1)"
    )
    assert repr(made.part(0)) == "GraphPart(0 of 2, 2 own nodes, 2 edges, halo 1)"


def test_hash_balances_nodes_and_knows_no_graph() -> None:
    first, second = (divide(edges(1000, n), 4, "hash", 1000).owner[""] for n in (10, 20))
    assert torch.equal(first, second)
    assert int(torch.bincount(first).max()) < 300


def test_metis_balances_edges() -> None:
    pytest.importorskip("pymetis", reason="pymetis, which divides graphs, is not installed")
    # A few nodes have most of the edges: by nodes alone the busiest part would have many times the mean.
    random = torch.Generator().manual_seed(0)
    target = (torch.rand(4000, generator=random) ** 4 * 400).long()
    graph = gdsl.Graph(torch.stack([torch.randint(400, (4000,), generator=random), target]), 400)
    made = divide(graph, 4)
    assert made.balance < 1.2
    check_parts(made)
    assert divide(graph, 4).fingerprint == made.fingerprint
    check_parts(divide(papers(), 3))


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: divide(GRAPHS["random"], 0, "hash"), InputError, "parts must be an integer of at least 1"),
        (lambda: divide(GRAPHS["random"], 2, "luck"), InputError, "how is 'metis', 'hash' or the owner of each node"),
        (lambda: divide(GRAPHS["random"], 2, torch.zeros(39)), InputError, r"owners of nodes must be integers \[40\]"),
        (lambda: divide(GRAPHS["random"], 2, torch.full((40,), 2)), InputError, "numbers of 2 processes"),
        (lambda: divide(papers(), 2, torch.zeros(51)), InputError, "dictionary by type: 'paper', 'author'"),
        (lambda: divide(papers(), 2, {"paper": [0] * 30}), InputError, "owners of nodes of type 'author' are missing"),
        (lambda: divide(torch.tensor([[0], [7]]), 2, "hash", 3), GraphError, "7"),
        (lambda: divide("graph", 2, "hash"), InputError, "data must be"),
        (lambda: divide(divide(hub(4), 2, "hash").part(0).local(), 2, "hash"), InputError, "a part already"),
        (lambda: divide(hub(4), 2, "hash").part(2), InputError, "there is no part 2"),
    ],
)
def test_what_cannot_be_divided_is_refused(make: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        make()


# -- values -----------------------------------------------------------------------------------------


def values_of_nodes(group: Any, ends: Tensor, sizes: Any, how: str, x: Tensor) -> Any:
    part = partition(gdsl.Graph(ends, sizes), how=how, group=group)
    type = None if len(part.own) == 1 else "source"
    own = part.scatter(x, type)
    assert torch.equal(own, x[part.node_ids(type)])
    assert torch.equal(part.gather(own, type), x)
    alone = part.scatter(x if part.rank == part.parts - 1 else None, type)
    assert torch.equal(alone, own) and alone.dtype == x.dtype
    e = torch.randn(ends.shape[1], 2, dtype=torch.float64)  # the same everywhere, by the seed
    assert torch.equal(part.gather_edges(part.scatter_edges(e)), e)
    return part.rank


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bool, torch.bfloat16, torch.complex64])
def test_values_come_to_their_owners_and_go_back(pool: Pool, world: int, dtype: torch.dtype) -> None:
    for graph in GRAPHS.values():
        sizes = (graph.num_sources, graph.num_targets) if graph.is_bipartite else graph.num_nodes
        x = (torch.randn(graph.num_sources, 3) * 3).to(dtype)
        found = pool.together(values_of_nodes, graph.edge_index, sizes, "hash", x, world=world)
        assert found == list(range(world))


def mapped_values(group: Any, path: str, x: Tensor) -> None:
    part = partition(hub(17), how="hash", group=group)
    assert torch.equal(part.scatter(path), x[part.node_ids()])
    assert torch.equal(part.scatter(np.load(path, mmap_mode="r") if part.rank == 0 else None), x[part.node_ids()])


def test_values_of_a_file_are_read_by_rows(pool: Pool, tmp_path: Path) -> None:
    x = torch.randn(17, 3)
    np.save(tmp_path / "x.npy", x.numpy())
    pool.together(mapped_values, str(tmp_path / "x.npy"), x, world=2)


def gradients(group: Any, x: Tensor, weight: Tensor) -> Any:
    part = partition(hub(17), how="hash", group=group)
    own = part.scatter(x).requires_grad_()
    (part.gather(own) * weight).square().sum().backward()
    by_gather, own.grad = own.grad, None
    part.mean(own.square().sum(dim=1)).backward()
    assert float(part.mean(torch.ones(40_000, dtype=torch.float16).fill_(0.5))) == 0.5  # of more rows than it counts
    return part.node_ids(), by_gather, own.grad, float(part.mean(own[:, 0]))


def test_gradients_are_those_of_ddp(pool: Pool) -> None:
    """Where every process computes the same loss, the mean over processes is the gradient of one process."""
    x, weight = torch.randn(17, 2, dtype=torch.float64), torch.randn(17, 2, dtype=torch.float64)
    whole = x.clone().requires_grad_()
    (one,) = torch.autograd.grad((whole * weight).square().sum(), whole)
    (two,) = torch.autograd.grad(whole.square().sum(dim=1).mean(), whole)
    for ids, by_gather, by_mean, mean in pool.together(gradients, x, weight, world=3):
        torch.testing.assert_close(by_gather / 3, one[ids])
        torch.testing.assert_close(by_mean / 3, two[ids])
        assert mean == pytest.approx(float(x[:, 0].mean()))


def sent(group: Any) -> Any:
    part = partition(hub(17), how=torch.arange(17) % 2, group=group)
    before = dist.all_reduce
    with Traffic() as found:
        wire.exchange_rows(torch.randn(3, 3), [1, 2], [2, 2] if part.rank else [1, 1], group)
        part.total(torch.ones(4))
    assert dist.all_reduce is before
    return found.rows, found.reduced, found.calls


def test_bytes_that_are_sent_are_counted(pool: Pool) -> None:
    # Rows of three float32: two to the other process from the first one, one from the second. A sum goes round a ring.
    assert pool.together(sent, world=2) == [
        (24, 16.0, [(24, 1), (0, 16)]),
        (12, 16.0, [(12, 1), (0, 16)]),
    ]


# -- files ------------------------------------------------------------------------------------------


def saved(folder: Path, parts: int = 2, seed: int = 0) -> Division:
    made = divide(edges(40, 160, seed=seed), parts, "hash", 40)
    x = torch.arange(80.0).view(40, 2)
    save_parts(made, folder, nodes={"x": x, "y": np.arange(40)}, edges={"weight": torch.arange(160)})
    return made


def loaded(group: Any, folder: str) -> Any:
    part = load_part(folder, group)
    return part.fingerprint, part.node_ids(), part.nodes, part.edge_values, part.edge_ids(), part.local().num_edges


def test_each_process_reads_its_own_part(pool: Pool, tmp_path: Path) -> None:
    made = saved(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["part-0-of-2.gdsl", "part-1-of-2.gdsl"]
    every = pool.together(loaded, str(tmp_path), world=2)
    for k, (fingerprint, ids, nodes, values, edge_ids, count) in enumerate(every):
        part = made.part(k)
        assert fingerprint == made.fingerprint and torch.equal(ids, part.node_ids()) and count == len(edge_ids)
        assert torch.equal(nodes["x"], torch.arange(80.0).view(40, 2)[ids]) and torch.equal(nodes["y"], ids)
        assert torch.equal(values["weight"], edge_ids)


def test_saved_parts_are_those_that_were_divided(tmp_path: Path) -> None:
    from gdsl.distributed.saved import read

    made = divide(papers(), 2, "hash")
    save_parts(made, tmp_path, nodes={"x": {"paper": torch.randn(30, 2)}})
    for k in range(2):
        found, expected = read(tmp_path, k, 2), made.part(k)
        assert (found.counts, found.fingerprint) == (expected.counts, expected.fingerprint)
        for type, own in expected.edges.items():
            for name in ("edge_index", "edge_ids", "send", "halo_ids"):
                assert torch.equal(getattr(found.edges[type], name), getattr(own, name))
        assert found.nodes["x"]["paper"].shape == (len(expected.own["paper"]), 2)
        found.nodes["x"]["paper"].zero_()  # memory of its own


@pytest.mark.parametrize(
    ("nodes", "match"),
    [
        ({"x": torch.zeros(39)}, r"`x` must have 40 rows, and its shape is \[39\]"),
        ({"x": {"paper": torch.zeros(40)}}, "there are no nodes of type 'paper'"),
        ({"x": "missing.npy"}, "missing.npy cannot be read"),
        ({"x": np.array([None] * 40)}, "`x` hold object, which tensors do not"),
        ({"x": np.arange(40, dtype=np.uint16)}, "`x` is uint16"),
    ],
)
def test_values_that_cannot_be_saved_are_refused(tmp_path: Path, nodes: Any, match: str) -> None:
    with pytest.raises(InputError, match=match):
        save_parts(divide(edges(40, 160), 2, "hash", 40), tmp_path / "new", nodes=nodes)


# -- bad input, on every process -------------------------------------------------------------------


def refused(pool: Pool, match: str, case: Any, *args: Any, world: int = 2) -> None:
    """Every process raises an error with these words, and goes on."""
    with pytest.raises(CaseError) as caught:
        pool.together(case, *args, world=world)
    for error in caught.value.errors:
        assert error is not None and error[0] in ("InputError", "GraphError")
        assert match in error[1], error[1]


def test_a_part_that_is_missing(pool: Pool, tmp_path: Path) -> None:
    saved(tmp_path)
    (tmp_path / "part-1-of-2.gdsl").unlink()
    refused(pool, "part-1-of-2.gdsl is not there: the part is missing", loaded, str(tmp_path))


def test_another_number_of_processes(pool: Pool, tmp_path: Path) -> None:
    saved(tmp_path, 4)
    refused(pool, "a graph in 4 parts, and there are 3 processes", loaded, str(tmp_path), world=3)


def test_no_folder(pool: Pool, tmp_path: Path) -> None:
    refused(pool, "there is no such folder", loaded, str(tmp_path / "none"))


def test_parts_of_two_graphs(pool: Pool, tmp_path: Path) -> None:
    saved(tmp_path / "one")
    saved(tmp_path / "two", seed=1)
    (tmp_path / "two" / "part-1-of-2.gdsl").replace(tmp_path / "one" / "part-1-of-2.gdsl")
    refused(pool, "the parts of a graph must be the same on all processes", loaded, str(tmp_path / "one"))


def test_a_part_under_the_name_of_another(pool: Pool, tmp_path: Path) -> None:
    saved(tmp_path)
    (tmp_path / "part-0-of-2.gdsl").write_bytes((tmp_path / "part-1-of-2.gdsl").read_bytes())
    refused(pool, "this is part 1 of 2, under another name", loaded, str(tmp_path))


@pytest.mark.parametrize("place", [3, 20, 100, -3])
def test_a_damaged_part(pool: Pool, tmp_path: Path, place: int) -> None:
    saved(tmp_path)
    path = tmp_path / "part-1-of-2.gdsl"
    raw = bytearray(path.read_bytes())
    raw[place] ^= 1
    path.write_bytes(raw)
    refused(pool, "part-1-of-2.gdsl", loaded, str(tmp_path))


def own_graph(group: Any, graphs: list[Tensor], hows: list[Any], parts: int | None) -> None:
    rank = group.rank()
    partition(graphs[rank], parts, hows[rank], 40, group)


@pytest.mark.parametrize(
    ("second", "hows", "parts", "match"),
    [
        (edges(40, 160, seed=1), ["hash", "hash"], None, "the graph and how it is divided must be the same"),
        (edges(40, 161), ["hash", "hash"], None, "the graph and how it is divided must be the same"),
        (edges(40, 160), ["hash", torch.zeros(40)], None, "integers [40]"),
        (edges(40, 160), [torch.zeros(40).long(), torch.ones(40).long()], None, "must be the same"),
        (edges(40, 160), ["hash", "hash"], 3, "there are 2 processes, and 3 parts are asked for"),
        (edges(50, 160), ["hash", "hash"], None, "but the graph has 40 nodes"),
    ],
)
def test_a_graph_that_differs_on_one_process(
    pool: Pool, second: Tensor, hows: list[Any], parts: int | None, match: str
) -> None:
    refused(pool, match, own_graph, [edges(40, 160), second], hows, parts)


def own_values(group: Any, method: str, values: list[Any]) -> None:
    part = partition(hub(4), how=[0, 0, 1, 1], group=group)
    getattr(part, method)(values[part.rank])


@pytest.mark.parametrize(
    ("method", "values", "match"),
    [
        ("scatter", [torch.zeros(4, 2), torch.zeros(5, 2)], "must have 4 rows, and their shape is [5, 2]"),
        ("scatter", [torch.zeros(4, 2), torch.zeros(4, 3)], "process 0 has rows of float32 [2], process 1 of"),
        ("scatter", [torch.zeros(4), torch.zeros(4).long()], "process 0 has rows of float32 [], process 1 of int64 []"),
        ("scatter", [None, None], "no process gives values of nodes"),
        ("scatter", [torch.zeros(4), "missing.npy"], "missing.npy cannot be read"),
        ("scatter_edges", [torch.zeros(7), None], "values of edges must have 8 rows"),
        ("gather", [torch.zeros(2), torch.zeros(3)], "process 1: 2 rows of nodes are owned here, and [3] is given"),
        ("gather", [torch.zeros(2), torch.zeros(2, 1)], "rows of nodes must be the same on all processes"),
        ("gather", [torch.zeros(2), None], "process 1: 2 rows of nodes are owned here, and None is given"),
    ],
)
def test_values_that_do_not_fit(pool: Pool, method: str, values: list[Any], match: str) -> None:
    with pytest.raises(CaseError) as caught:
        pool.together(own_values, method, values, world=2)
    for rank, error in enumerate(caught.value.errors):
        assert error is not None and error[0] == "InputError"
        assert match in f"process {rank}: {error[1]}" or match in error[1]


def alone(group: Any) -> Any:
    part = partition(hub(5), group=group)
    x = torch.randn(5, 2)
    return torch.equal(part.scatter(x), x) and torch.equal(part.gather(x), x) and isinstance(part, GraphPart)


def test_one_process_needs_nothing() -> None:
    assert alone(None)
