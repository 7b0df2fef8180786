"""The adjacency as a sparse matrix of torch or of torch_sparse: rows are targets, values are weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gdsl
import gdsl.nn
from tests.parity.drop_in import NODES, graph_of, pyg
from tests.programs import harness

# Those that have edge weights take the values for them; torch_geometric's SAGE and GIN, which have none, multiply by
# the values of torch's matrices and not by those of torch_sparse's, and ours by neither.
WEIGHTED: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "GCNConv": ((5, 4), {}),
    "GCNConv improved": ((5, 4), {"improved": True}),
    "GraphConv": ((5, 4), {}),
    "SGConv": ((5, 4, 2), {}),
    "SSGConv": ((5, 4, 0.2, 2), {}),
    "TAGConv": ((5, 4), {}),
    "APPNP": ((2, 0.2), {}),
    "LGConv": ((), {}),
    "MixHopConv": ((5, 4), {}),
    "TransformerConv": ((5, 4), {}),
    "GATConv": ((5, 4), {"add_self_loops": False}),
    "LEConv": ((5, 4), {}),
    "GatedGraphConv": ((6, 2), {}),
    "EGConv": ((5, 8), {"num_heads": 4}),
}
PLAIN: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "SAGEConv": ((5, 4), {}),
    "GINConv": ((nn.Linear(5, 4),), {}),
    "AGNNConv": ((), {"add_self_loops": False}),
    "EdgeConv": ((nn.Linear(10, 4),), {}),
    "CGConv": ((5,), {}),
    "GENConv": ((5, 4), {}),
    "FeaStConv": ((5, 4), {"add_self_loops": False}),
    "GeneralConv": ((5, 4), {}),
    "ResGatedGraphConv": ((5, 4), {}),
    "FAConv": ((5,), {}),
}
# Those that take the features of edges besides the matrix.
FEATURES: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "GINEConv": ((nn.Linear(5, 4),), {"edge_dim": 3}),
    "CGConv": ((5, 3), {}),
    "GMMConv": ((5, 4, 3, 2), {}),
    "GENConv": ((5, 4), {"edge_dim": 3}),
    "NNConv": ((5, 4, nn.Linear(3, 20)), {}),
    "ResGatedGraphConv": ((5, 4), {"edge_dim": 3}),
    "GATv2Conv": ((5, 4), {"add_self_loops": False, "edge_dim": 3}),
    "TransformerConv": ((5, 4), {"edge_dim": 3}),
    "GeneralConv": ((5, 4), {"in_edge_channels": 3}),
}


# Those that give their attention weights.
ATTENTION: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "GATConv": ((5, 4), {"heads": 2}),
    "GATConv plain": ((5, 4), {"add_self_loops": False}),
    "GATv2Conv": ((5, 4), {"heads": 2}),
    "TransformerConv": ((5, 4), {"heads": 2}),
    "FAConv": ((5,), {}),
    "FAConv plain": ((5,), {"add_self_loops": False}),
}


def matrix(layout: torch.layout, weighted: bool) -> Tensor:
    graph = graph_of("any", 1, False)
    assert graph is not None
    values = torch.rand(graph.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.1
    whole = torch.sparse_coo_tensor(graph.flip(0), values, (NODES, NODES)).coalesce()
    if not weighted:
        whole = torch.sparse_coo_tensor(whole.indices(), torch.ones_like(whole.values()), whole.shape).coalesce()
    return whole if layout is torch.sparse_coo else whole.to_sparse_csr()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr], ids=["coo", "csr"])
@pytest.mark.parametrize("name", [*WEIGHTED, *PLAIN])
def test_same_numbers(name: str, layout: torch.layout) -> None:
    arguments, options = {**WEIGHTED, **PLAIN}[name]
    ours, theirs = (getattr(library, name.split()[0])(*arguments, **options).double() for library in (gdsl.nn, pyg))
    theirs.load_state_dict(ours.state_dict())
    x = [torch.randn(NODES, 5, dtype=torch.float64)] * (2 if name == "FAConv" else 1)
    adjacency = matrix(layout, name in WEIGHTED)
    assert harness.difference([ours(*x, adjacency)], [theirs(*x, adjacency)]) < 1e-9


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FEATURES)
def test_features_of_edges_beside_a_matrix(name: str) -> None:
    arguments, options = FEATURES[name]
    ours, theirs = (getattr(library, name)(*arguments, **options).double() for library in (gdsl.nn, pyg))
    theirs.load_state_dict(ours.state_dict())
    x, adjacency = torch.randn(NODES, 5, dtype=torch.float64), matrix(torch.sparse_csr, False)
    e = torch.randn(adjacency.values().shape[0], 3, dtype=torch.float64)
    assert harness.difference([ours(x, adjacency, e)], [theirs(x, adjacency, e)]) < 1e-9


def test_messages_against_the_edges_of_a_matrix_are_refused() -> None:
    with pytest.raises(ValueError, match="target_to_source"):
        gdsl.nn.SAGEConv(5, 4, flow="target_to_source")(torch.randn(NODES, 5), matrix(torch.sparse_csr, False).float())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr], ids=["coo", "csr"])
@pytest.mark.parametrize("name", ATTENTION)
def test_attention_weights_are_a_matrix(name: str, layout: torch.layout) -> None:
    arguments, options = ATTENTION[name]
    ours, theirs = (getattr(library, name.split()[0])(*arguments, **options).double() for library in (gdsl.nn, pyg))
    theirs.load_state_dict(ours.state_dict())
    x = [torch.randn(NODES, 5, dtype=torch.float64)] * (2 if name.startswith("FA") else 1)
    adjacency = matrix(layout, False)
    y, (found, alpha) = ours(*x, adjacency, return_attention_weights=True)
    z, (expected, beta) = theirs(*x, adjacency, return_attention_weights=True)
    assert found.layout is expected.layout is layout
    assert found.shape == expected.shape
    assert harness.difference([y, alpha, _dense(found)], [z, beta, _dense(expected)]) < 1e-9


def _dense(matrix: Tensor) -> Tensor:
    """[N, N, ...], also where torch has no conversion of blocks."""
    if matrix.layout is torch.sparse_csr:
        rows = torch.arange(matrix.shape[0]).repeat_interleave(matrix.crow_indices().diff())
        places = torch.stack([rows, matrix.col_indices()])
        matrix = torch.sparse_coo_tensor(places, matrix.values(), matrix.shape)
    return matrix.to_dense()


class SparseTensor:
    """What is asked of torch_sparse's class. The package is a C++ extension for one version of torch, and not among
    this project's; torch_geometric without it cannot take such a matrix at all, so that its calls with edges tell what
    should come out.
    """

    def __init__(self, row: Tensor, col: Tensor, value: Tensor | None, sparse_sizes: tuple[int, int]):
        order = (row * sparse_sizes[1] + col).argsort(stable=True)
        self.row, self.col, self.value = row[order], col[order], None if value is None else value[order]
        self.sizes = sparse_sizes

    def coo(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Rows, which are targets, columns and values."""
        return self.row, self.col, self.value

    def sparse_sizes(self) -> tuple[int, int]:
        """The number of rows and of columns."""
        return self.sizes


def sorted_edges(bipartite: bool = False) -> Tensor:
    """Edges in the order in which a matrix has them, without loops."""
    edges = graph_of("any", 1, bipartite)
    assert edges is not None
    edges = edges[:, edges[0] != edges[1]] if not bipartite else edges
    return edges[:, (edges[1] * NODES + edges[0]).argsort(stable=True)]


def made(edges: Tensor, value: Tensor | None, targets: int = NODES) -> SparseTensor:
    """The transposed adjacency matrix of edges, in any order."""
    order = torch.randperm(edges.shape[1])
    source, target = edges[:, order]
    return SparseTensor(target, source, None if value is None else value[order], (targets, NODES))


# name -> (arguments, options, what the values of the matrix are when edges are given instead)
WITH_VALUES: dict[str, tuple[tuple[Any, ...], dict[str, Any], str | None]] = {
    **{name: (arguments, options, "edge_weight") for name, (arguments, options) in WEIGHTED.items()},
    **{name: (arguments, options, None) for name, (arguments, options) in PLAIN.items()},
    **{name: (arguments, options, "edge_attr") for name, (arguments, options) in FEATURES.items()},
    "TransformerConv plain": ((5, 4), {}, None),
    "GATConv": ((5, 4), {"add_self_loops": False, "edge_dim": 3}, "edge_attr"),
    "PDNConv": ((5, 4, 3, 6), {}, "edge_attr"),
    "RGCNConv": ((5, 4, 3), {}, "edge_type"),
    "FiLMConv": ((5, 4, 3), {}, "edge_type"),
    "ChebConv": ((5, 4, 3), {}, "edge_weight"),
    "ARMAConv": ((5, 4, 2, 2), {}, "edge_weight"),
    "MFConv": ((5, 4), {}, None),
    "ClusterGCNConv": ((5, 4), {}, None),
}
# Whose calls with edges take no weights.
del WITH_VALUES["EGConv"], WITH_VALUES["FAConv"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", WITH_VALUES)
def test_a_matrix_of_torch_sparse(name: str) -> None:
    arguments, options, meaning = WITH_VALUES[name]
    ours, theirs = (getattr(library, name.split()[0])(*arguments, **options).double() for library in (gdsl.nn, pyg))
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(NODES, 5, dtype=torch.float64)
    edges = sorted_edges()
    shape = (edges.shape[1], 3) if meaning == "edge_attr" else (edges.shape[1],)
    values = torch.rand(shape, dtype=torch.float64) + 0.1
    if meaning == "edge_type":
        values = torch.randint(3, shape)
    given = {} if meaning is None else {meaning: values}
    expected = theirs(x, edges, **given)
    assert harness.difference([ours(x, made(edges, values))], [expected]) < 1e-6
    if meaning is None:
        assert harness.difference([ours(x, made(edges, None))], [expected]) < 1e-6


def test_a_matrix_of_torch_sparse_between_two_sets_of_nodes() -> None:
    edges = sorted_edges(bipartite=True)
    x = torch.randn(NODES, 5), torch.randn(6, 3)
    for name in ("SAGEConv", "GATv2Conv", "GraphConv"):
        layer = getattr(gdsl.nn, name)((5, 3), 4, **({"add_self_loops": False} if name == "GATv2Conv" else {}))
        assert torch.allclose(layer(x, made(edges, None, 6)), layer(x, edges), atol=1e-6)
    with pytest.raises(ValueError, match="6 target nodes"):
        gdsl.nn.SAGEConv((5, 3), 4)((x[0], torch.randn(7, 3)), made(edges, None, 6))


def test_self_loops_of_a_matrix_of_torch_sparse() -> None:
    """torch_geometric sets its diagonal, whatever there is."""
    edges = torch.tensor([[0, 1, 2, 2], [1, 2, 2, 0]])
    x = torch.randn(3, 5)
    for improved in (False, True):
        layer = gdsl.nn.GCNConv(5, 4, improved=improved)
        set_to = torch.tensor([0.5, 0.25, 2.0 if improved else 1.0, 4.0])
        values = torch.tensor([0.5, 0.25, 7.0, 4.0])
        matrix = SparseTensor(edges[1], edges[0], values, (3, 3))
        assert torch.allclose(layer(x, matrix), layer(x, edges, set_to), atol=1e-6)
        plain = SparseTensor(edges[1], edges[0], None, (3, 3))
        ones = torch.tensor([1.0, 1.0, 2.0 if improved else 1.0, 1.0])
        assert torch.allclose(layer(x, plain), layer(x, edges, ones), atol=1e-6)


def test_loops_that_a_matrix_of_torch_sparse_has() -> None:
    """torch_geometric sets them, where a layer adds some."""
    edges, others = torch.tensor([[0, 1, 2, 2], [1, 2, 2, 0]]), torch.tensor([[0, 1, 2], [1, 2, 0]])
    x, values = torch.randn(3, 5), torch.tensor([0.5, 0.25, 7.0, 4.0])
    simple = gdsl.nn.SimpleConv(combine_root="self_loop")
    weights = torch.tensor([0.5, 0.25, 4.0])
    assert torch.allclose(simple(x, SparseTensor(edges[1], edges[0], None, (3, 3))), simple(x, others))
    assert torch.allclose(simple(x, SparseTensor(edges[1], edges[0], values, (3, 3))), simple(x, others, weights))
    e = torch.randn(4, 3)
    pdn = gdsl.nn.PDNConv(5, 4, 3, 6)
    assert torch.allclose(pdn(x, SparseTensor(edges[1], edges[0], e, (3, 3))), pdn(x, others, e[[0, 1, 3]]), atol=1e-6)


def test_features_and_relations_in_a_matrix_of_torch_sparse() -> None:
    edges, types = torch.tensor([[2, 0, 1], [0, 1, 2]]), torch.tensor([1, 0, 1])
    x, e = torch.randn(3, 5), torch.randn(3, 2)
    attention = gdsl.nn.RGATConv(5, 4, 2, edge_dim=2)
    matrix = SparseTensor(edges[1], edges[0], e, (3, 3))
    assert torch.allclose(attention(x, matrix, types), attention(x, edges, types, e), atol=1e-6)
    conv = gdsl.nn.RGCNConv(5, 4, 2)
    assert torch.allclose(conv(x, SparseTensor(edges[1], edges[0], types.float(), (3, 3))), conv(x, edges, types))
    weights = SparseTensor(edges[1], edges[0], torch.tensor([0.5, 1.0, 1.0]), (3, 3))
    for layer in (conv, gdsl.nn.FiLMConv(5, 4, 2)):
        with pytest.raises(gdsl.InputError, match="taken for relations of the edges, and are no whole numbers"):
            layer(x, weights)
    alone = gdsl.nn.FiLMConv(5, 4, 1)  # has no relations to read
    assert torch.allclose(alone(x, weights), alone(x, edges), atol=1e-6)


def test_attention_weights_as_a_matrix_of_torch_sparse() -> None:
    edges = sorted_edges()
    x = torch.randn(NODES, 5)
    layer = gdsl.nn.GATConv(5, 4, heads=2)
    y, found = layer(x, made(edges, None), return_attention_weights=True)
    z, (seen, alpha) = layer(x, edges, return_attention_weights=True)
    order = (seen[1] * NODES + seen[0]).argsort()
    row, column, value = found.coo()
    assert isinstance(found, SparseTensor)
    assert torch.equal(torch.stack([column, row]), seen[:, order])
    assert torch.allclose(value, alpha[order], atol=1e-6)
    assert torch.allclose(y, z, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "args", "options", "reads"),
    [
        ("LEConv", (5, 4), {}, True),
        ("GraphConv", (5, 4), {}, False),
        ("GraphConv", (5, 4), {"aggr": "median"}, True),
        ("LGConv", (), {"normalize": False, "aggr": "median"}, True),
        ("TAGConv", (5, 4), {}, False),
        ("SimpleConv", (["sum", "max"],), {}, True),
    ],
)
def test_weights_beside_a_matrix_of_torch(name: str, args: Any, options: Any, reads: bool) -> None:
    """As torch_geometric has it: the weights are read where no matrix is multiplied, and the values elsewhere."""
    ours, theirs = (getattr(library, name)(*args, **options).double() for library in (gdsl.nn, pyg))
    theirs.load_state_dict(ours.state_dict())
    ours.backend = "torch"
    x, adjacency = torch.randn(NODES, 5, dtype=torch.float64), matrix(torch.sparse_coo, True)
    edges, values = adjacency.indices().flip(0), adjacency.values()
    weights = torch.rand(len(values), dtype=torch.float64) + 0.1
    adjacency = adjacency.to_sparse_csr()
    # On edges: what its layers read beside a matrix also depends on the first one of their class in the process.
    expected = theirs(x, edges, weights if reads else values)
    assert harness.difference([ours(x, adjacency, weights)], [expected]) < 1e-10
    if reads:
        assert harness.difference([ours(x, made(edges, values), weights)], [expected]) < 1e-10
        assert harness.difference([ours(x, adjacency)], [theirs(x, edges, values)]) < 1e-10
