"""Readouts and poolings against torch_geometric's."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch_geometric.data import Data
from torch_geometric.nn import pool as torch_pool

import gdsl
from gdsl.errors import GraphError, InputError
from gdsl.nn import GCNConv, GraphConv, pool
from gdsl.nn.models import GraphUNet
from tests.parity.drop_in import NODES, graph_of, pyg, set_backend
from tests.programs import harness


@pytest.mark.parametrize("name", ["global_add_pool", "global_mean_pool", "global_max_pool"])
@pytest.mark.parametrize("shape", [(NODES, 4), (NODES,)])
def test_readouts(name: str, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    batch = torch.arange(NODES) // 4
    for arguments in ((None,), (batch,), (batch, 5)):
        ours, theirs = getattr(pool, name)(x, *arguments), getattr(pyg, name)(x, *arguments)
        assert ours.shape == theirs.shape
        assert harness.difference([ours], [theirs]) < 1e-12
        mine, other = (torch.autograd.grad((y * y.detach().cos()).sum(), x)[0] for y in (ours, theirs))
        assert harness.difference([mine], [other]) < 1e-12


@pytest.mark.parametrize("make", [lambda e: gdsl.Graph(e, 3), lambda _: gdsl.CompleteGraph(num_nodes=3)])
@pytest.mark.parametrize(
    "layer", [pool.TopKPooling, pool.SAGPooling, pool.EdgePooling, pool.ClusterPooling, partial(GraphUNet, 4, 4, 2)]
)
def test_what_makes_new_edges_takes_a_list_of_edges(layer: Callable[..., Any], make: Callable[[Tensor], Any]) -> None:
    graph = make(torch.tensor([[0, 1], [1, 2]]))
    with pytest.raises(InputError, match=rf"takes edge_index \[2, E\], not a {type(graph).__name__}: pass"):
        layer(4)(torch.randn(3, 4), graph, batch=torch.zeros(3, dtype=torch.long))


def test_asap_takes_a_graph_and_no_complete_one() -> None:
    layer, x, edges = pool.ASAPooling(4), torch.randn(3, 4), torch.tensor([[0, 1], [1, 2]])
    for one, other in zip(layer(x, gdsl.Graph(edges, 3)), layer(x, edges), strict=True):
        assert one is other is None or torch.equal(one, other)
    with pytest.raises(GraphError, match="cannot run on a complete graph"):
        layer(x, gdsl.CompleteGraph(num_nodes=3))


def test_pooling_by_paths_takes_their_weights() -> None:
    with pytest.raises(InputError, match="the sparse matrix that PANConv gives"):
        pool.PANPooling(4)(torch.randn(3, 4), torch.tensor([[0, 1], [1, 2]]))


OPTIONS: list[dict[str, Any]] = [
    {}, {"ratio": 0.8}, {"ratio": 2}, {"min_score": 0.2}, {"multiplier": 3.0}, {"nonlinearity": "sigmoid"},
    {"nonlinearity": torch.relu},
]  # fmt: skip


@pytest.mark.parametrize("name", ["TopKPooling", "SAGPooling", "EdgePooling", "ASAPooling", "PANPooling"])
def test_same_draws(name: str) -> None:
    states = []
    for library in (pool, pyg):
        torch.manual_seed(0)
        made = getattr(library, name)(5)
        states.append([*made.state_dict().values(), torch.rand(1)])
        made.reset_parameters()
        states[-1] += [*made.state_dict().values(), torch.rand(1)]
    assert harness.difference(*states) == 0


def named(options: dict) -> str:
    """A test's name, the same in every process: without the addresses of functions."""
    return str({key: getattr(value, "__name__", value) for key, value in options.items()})


@pytest.mark.parametrize("options", OPTIONS, ids=named)
@pytest.mark.parametrize("kind", ["TopKPooling", "SAGPooling", "SAGPooling of GCN"])
@pytest.mark.parametrize("batched", [False, True])
def test_kept_nodes(kind: str, options: dict[str, Any], batched: bool) -> None:
    torch.manual_seed(0)
    name, _, gcn = kind.partition(" of ")
    ours = getattr(pool, name)(5, **options, **({"GNN": GCNConv} if gcn else {})).double()
    theirs = getattr(pyg, name)(5, **options, **({"GNN": pyg.GCNConv} if gcn else {})).double()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    assert repr(ours) == repr(theirs)
    graph = graph_of("any", 1, False)
    assert graph is not None
    x = torch.randn(NODES, 5, dtype=torch.float64, requires_grad=True)
    e = torch.randn(graph.shape[1], 2, dtype=torch.float64)
    batch = torch.arange(NODES) // 5 if batched else None
    found, expected = ours(x, graph, e, batch), theirs(x, graph, e, batch)
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        assert harness.difference([a.double()], [b.double()]) < 1e-9
    mine = torch.autograd.grad(found[0].sum(), [x, *ours.parameters()])
    other = torch.autograd.grad(expected[0].sum(), [x, *theirs.parameters()])
    for a, b in zip(mine, other, strict=True):
        assert harness.difference([a], [b]) < 1e-9


def weighted_graph(seed: int) -> tuple[Tensor, Tensor]:
    graph = graph_of("any", seed, False)
    assert graph is not None
    return graph, torch.rand(graph.shape[1], generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.1


def same_gradients(found: Tensor, expected: Tensor, mine: list[Tensor], other: list[Tensor]) -> None:
    weights = torch.cos(torch.arange(found.numel(), dtype=found.dtype)).view_as(found)
    given, wanted = (
        torch.autograd.grad((y * weights).sum(), by, allow_unused=True) for y, by in ((found, mine), (expected, other))
    )
    for a, b in zip(given, wanted, strict=True):
        assert harness.difference([torch.zeros(1) if a is None else a], [torch.zeros(1) if b is None else b]) < 1e-9


BACKENDS = ["torch", "cpp", pytest.param("triton", marks=pytest.mark.slow)]
CONTRACTED = [
    {}, {"dropout": 0.3}, {"add_to_edge_score": 0.1}, {"edge_score_method": "tanh"}, {"edge_score_method": "sigmoid"},
    {"edge_score_method": lambda raw, edges, nodes: raw**2 + edges[0] / nodes},
]  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("options", CONTRACTED, ids=[str(k) for k in range(len(CONTRACTED))])
def test_contracted_edges(options: dict[str, Any], backend: str) -> None:
    def build(library: Any) -> Any:
        how = options.get("edge_score_method")
        made = getattr(library.EdgePooling, f"compute_edge_score_{how}") if isinstance(how, str) else how
        return library.EdgePooling(5, **{**options, "edge_score_method": made}).double().eval()

    ours, theirs = build(pool), build(pyg)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    set_backend(ours, backend)
    assert repr(ours) == repr(theirs)
    for seed in (1, 2):
        graph, _ = weighted_graph(seed)
        x = torch.randn(NODES, 5, dtype=torch.float64, requires_grad=True)
        batch = torch.arange(NODES) // 5
        found, expected = ours(x, graph, batch), theirs(x, graph, batch)
        for a, b in zip([*found[:3], *found[3]], [*expected[:3], *expected[3]], strict=True):
            assert a.shape == b.shape
            assert harness.difference([a.double()], [b.double()]) < 1e-9
        same_gradients(found[0], expected[0], [x, *ours.parameters()], [x, *theirs.parameters()])
        for a, b in zip(ours.unpool(found[0], found[3]), theirs.unpool(expected[0], expected[3]), strict=True):
            assert harness.difference([a.double()], [b.double()]) < 1e-9


CLUSTERED: list[dict[str, Any]] = [
    {}, {"ratio": 0.8}, {"ratio": 3}, {"negative_slope": 0.5}, {"add_self_loops": True}, {"GNN": "GraphConv"},
    {"GNN": "GCNConv", "add_self_loops": True},
]  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("options", CLUSTERED, ids=str)
def test_clusters_of_neighbours(options: dict[str, Any], weighted: bool, backend: str) -> None:
    layers = {"GraphConv": (GraphConv, pyg.GraphConv), "GCNConv": (GCNConv, pyg.GCNConv), None: (None, None)}
    mine, other = layers[options.get("GNN")]
    ours = pool.ASAPooling(5, **{**options, "GNN": mine}).double()
    theirs = pyg.ASAPooling(5, **{**options, "GNN": other}).double()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    set_backend(ours, backend)
    assert repr(ours) == repr(theirs)
    for seed in (1, 2):
        graph, weight = weighted_graph(seed)
        x = torch.randn(NODES, 5, dtype=torch.float64, requires_grad=True)
        batch = torch.arange(NODES) // 5
        # Without weights torch_geometric makes a float32 matrix, which does not multiply float64: ones do the same.
        found = ours(x, graph, weight if weighted else None, batch)
        expected = theirs(x, graph, weight if weighted else torch.ones_like(weight), batch)
        for a, b in zip((found[0], *found[3:]), (expected[0], *expected[3:]), strict=True):
            assert a.shape == b.shape
            assert harness.difference([a.double()], [b.double()]) < 1e-9
        # torch's products of sparse matrices leave the columns of a row in some order.
        assert torch.equal(*(edges[:, (edges[0] * NODES + edges[1]).argsort()] for edges in (found[1], expected[1])))
        assert (found[2] is not None) == weighted
        if weighted:
            dense = (torch.zeros(NODES, NODES).double().index_put(tuple(r[1]), r[2]) for r in (found, expected))
            assert torch.allclose(*dense)
        same_gradients(found[0], expected[0], [x, *ours.parameters()], [x, *theirs.parameters()])


def test_weights_of_clusters_are_differentiable() -> None:
    graph, weight = weighted_graph(1)
    layer = pool.ASAPooling(5, ratio=4).double()
    x = torch.randn(NODES, 5, dtype=torch.float64, requires_grad=True)

    def weights(x: Tensor, weight: Tensor) -> Tensor:
        found = layer(x, graph, weight)[2]
        assert found is not None
        return found

    assert torch.autograd.gradcheck(weights, (x, weight.requires_grad_()))


def test_products_of_sparse_matrices() -> None:
    g = torch.Generator().manual_seed(0)
    a, b = (torch.randn(6, 6, generator=g) * (torch.rand(6, 6, generator=g) > 0.6) for _ in range(2))
    edges, values = pool.product(a.nonzero().T, a[a != 0], b.nonzero().T, b[b != 0], 6)
    assert values is not None
    assert torch.allclose(torch.zeros(6, 6).index_put(tuple(edges), values), a @ b)
    pattern, nothing = pool.product(a.nonzero().T, None, b.nonzero().T, None, 6)
    assert torch.equal(pattern, edges)
    assert nothing is None


@pytest.mark.parametrize("seed", range(5))
def test_pairs(seed: int) -> None:
    graph, weight = weighted_graph(seed)
    for given in (weight, None):
        cluster = pool.graclus(graph, given, NODES)
        assert torch.bincount(cluster).max() <= 2
        assert torch.equal(cluster[cluster], cluster), "a pair has the name of its first node"
        pairs = {(int(cluster[n]), n) for n in range(NODES) if cluster[n] != n}
        assert pairs <= {tuple(sorted(edge)) for edge in graph.T.tolist()}
        alone = torch.bincount(cluster, minlength=NODES)[cluster] == 1
        assert not (alone[graph[0]] & alone[graph[1]] & (graph[0] != graph[1])).any(), "one more edge could be taken"

    # One edge after the other, the heaviest first.
    expected = torch.arange(NODES)
    free = set(range(NODES))
    for edge in weight.argsort(descending=True).tolist():
        u, v = sorted(graph[:, edge].tolist())
        if u != v and {u, v} <= free:
            free -= {u, v}
            expected[v] = u
    assert torch.equal(pool.graclus(graph, weight, NODES), expected)
    assert torch.equal(pool.graclus(graph, -weight, NODES), torch.arange(NODES))


def test_cells_of_a_grid() -> None:
    pos = torch.tensor([[0.0, 0.0], [11.0, 9.0], [2.0, 8.0], [2.0, 2.0], [8.0, 3.0]])
    assert pool.voxel_grid(pos, size=5, batch=torch.zeros(5, dtype=torch.long)).tolist() == [0, 5, 3, 0, 1]
    assert pool.voxel_grid(pos, size=5).tolist() == [0, 5, 3, 0, 1]
    cells = pool.voxel_grid(pos, size=[5, 5], start=-1, end=[18.0, 14.0])
    assert cells.tolist() == [0, 10, 4, 0, 1]
    batched = pool.voxel_grid(torch.cat([pos, pos]), size=5, batch=torch.arange(2).repeat_interleave(5))
    assert batched.tolist() == [0, 5, 3, 0, 1, 6, 11, 9, 6, 7]
    assert pool.voxel_grid(pos[:, 0], size=torch.tensor([5.0])).tolist() == [0, 2, 0, 0, 1]


@pytest.mark.parametrize("how", ["max", "avg"])
def test_graphs_of_clusters(how: str) -> None:
    graph, _ = weighted_graph(1)
    g = torch.Generator().manual_seed(0)
    cluster = torch.randint(6, (NODES,), generator=g) + 2 * (torch.arange(NODES) // 5) * 6
    batch = torch.arange(NODES) // 5
    x, pos = torch.randn(NODES, 4, generator=g), torch.rand(NODES, 3, generator=g)
    e = torch.randn(graph.shape[1], 2, generator=g)

    ours, theirs = (getattr(library, f"{how}_pool_x") for library in (pool, torch_pool))
    for arguments in ((), (3, 40)):
        for a, b in zip(ours(cluster, x, batch, *arguments), theirs(cluster, x, batch, *arguments), strict=True):
            assert (a is None and b is None) or torch.allclose(a, b)

    ours, theirs = (getattr(library, f"{how}_pool") for library in (pool, torch_pool))
    for data in (Data(x=x, edge_index=graph, edge_attr=e, pos=pos, batch=batch), Data(pos=pos, edge_index=graph)):
        found, expected = ours(cluster, data.clone()), theirs(cluster, data.clone())
        assert type(found) is type(expected)
        for name in ("x", "edge_index", "edge_attr", "pos", "batch"):
            a, b = getattr(found, name), getattr(expected, name)
            assert (a is None and b is None) or torch.allclose(a, b)
    assert ours(cluster, data, lambda found: "transformed") == "transformed"

    ours, theirs = (getattr(library, f"{how}_pool_neighbor_x") for library in (pool, torch_pool))
    for flow in ("source_to_target", "target_to_source"):
        data = Data(x=x, edge_index=graph)
        assert torch.allclose(ours(data.clone(), flow).x, theirs(data.clone(), flow).x, atol=1e-6)


@pytest.mark.parametrize("name", ["EdgePooling", "ASAPooling"])
def test_copies(name: str) -> None:
    graph, _ = weighted_graph(1)
    layer = getattr(pool, name)(5)
    arguments = (torch.randn(NODES, 5), graph, None if name == "ASAPooling" else torch.zeros(NODES, dtype=torch.long))
    arguments = arguments if name == "EdgePooling" else arguments[:2]
    expected = layer(*arguments)[0]
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(*arguments)[0], expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int32, torch.bool])
def test_a_sum_of_all_nodes_does_not_wrap(dtype: torch.dtype) -> None:
    x = torch.full((300, 1), 100).to(dtype)
    found, wanted = pool.global_add_pool(x, None), pyg.global_add_pool(x, None)
    assert found.dtype == wanted.dtype and torch.equal(found, wanted)
