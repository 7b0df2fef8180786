"""Graphs of other libraries. DGL and torch_sparse are stood in for: they are known by their class."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import torch
from torch_geometric import EdgeIndex
from torch_geometric.data import Data, HeteroData

from gdsl.errors import GraphError
from gdsl.runtime.graph import Graph
from gdsl.runtime.recent import graph_of

# Edges 0 -> 1, 3 -> 0, 3 -> 2, 1 -> 2 of 4 sources and 3 targets.
SOURCE, TARGET = torch.tensor([0, 3, 3, 1]), torch.tensor([1, 0, 2, 2])
EDGES = torch.stack([SOURCE, TARGET])
WEIGHT = torch.tensor([10.0, 20.0, 30.0, 40.0])
WEIGHTED = {(0, 1, 10.0), (3, 0, 20.0), (3, 2, 30.0), (1, 2, 40.0)}


def weighted(graph: Graph) -> set[tuple[int, int, float]]:
    return set(zip(*graph.edge_index.tolist(), graph.edge_weight.tolist(), strict=True))


def adj_t() -> torch.Tensor:
    return torch.sparse_coo_tensor(torch.stack([TARGET, SOURCE]), WEIGHT, (3, 4))


def test_graph():
    graph = Graph(EDGES)
    assert Graph.from_any(graph) is graph
    assert Graph.from_any(graph, 4) is graph
    with pytest.raises(GraphError) as caught:
        Graph.from_any(graph, 6)
    assert str(caught.value) == (
        "the graph has 4 nodes, but 6 are needed here; if some nodes have no edges, give their number: "
        "Graph(edge_index, num_nodes=6)"
    )
    with pytest.raises(GraphError) as caught:
        Graph.from_any(graph, (4, 3))
    assert str(caught.value) == (
        "the graph has 4 source and 4 target nodes, but 4 and 3 are needed here; give both: "
        "Graph(edge_index, num_nodes=(4, 3))"
    )


def test_tensor():
    graph = Graph.from_any(EDGES, (4, 3))
    assert torch.equal(graph.edge_index, EDGES) and graph.num_targets == 3
    assert graph.edge_weight is None


@pytest.mark.parametrize("layout", ["coo", "csr", "csc", "uncoalesced"])
def test_torch_sparse_is_adj_t(layout):
    adj = adj_t().coalesce()
    if layout == "csr":
        adj = adj.to_sparse_csr()
    elif layout == "csc":
        adj = adj.to_sparse_csc()
    elif layout == "uncoalesced":
        half = adj_t() * 0.5
        adj = torch.sparse_coo_tensor(
            torch.cat([half.coalesce().indices()] * 2, dim=1), half.coalesce().values().repeat(2), (3, 4)
        )
    graph = Graph.from_any(adj)
    assert (graph.num_sources, graph.num_targets) == (4, 3)
    assert weighted(graph) == WEIGHTED


def test_torch_sparse_keeps_the_gradient_of_its_values():
    values = WEIGHT.clone().requires_grad_()
    adj = torch.sparse_coo_tensor(torch.stack([TARGET, SOURCE]), values, (3, 4))
    Graph.from_any(adj).edge_weight.square().sum().backward()
    assert torch.equal(values.grad, 2 * WEIGHT)


def matrix(layout: str, values: torch.Tensor) -> torch.Tensor:
    """[3, 4, ...] with a value of any shape for each edge."""
    order = (TARGET * 4 + SOURCE).argsort()
    target, source, values = TARGET[order], SOURCE[order], values[order]
    shape = (3, 4, *values.shape[1:])
    if layout == "coo":
        return torch.sparse_coo_tensor(torch.stack([target, source]), values, shape)
    if layout == "csr":
        return torch.sparse_csr_tensor(torch.tensor([0, 1, 2, 4]), source, values, shape)
    column = (SOURCE[order] * 3 + target).argsort()
    return torch.sparse_csc_tensor(torch.tensor([0, 1, 2, 2, 4]), target[column], values[column], shape)


@pytest.mark.parametrize("layout", ["coo", "csr", "csc"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_values_of_any_shape(layout, shape):
    values = torch.arange(4.0).view(4, *[1] * len(shape)).expand(4, *shape).contiguous()
    graph = Graph.from_any(matrix(layout, values))
    assert (graph.num_sources, graph.num_targets) == (4, 3)
    assert graph.edge_weight.shape == (4, *shape)
    found = graph.edge_weight.reshape(4, -1)[:, 0].tolist()
    assert set(zip(*graph.edge_index.tolist(), found, strict=True)) == {(0, 1, 0), (3, 0, 1), (3, 2, 2), (1, 2, 3)}


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (
            lambda: torch.eye(4).to_sparse_bsr((2, 2)),
            "a sparse adjacency must be in the COO, CSR or CSC format, not sparse_bsr",
        ),
        (
            lambda: torch.ones(2, 4, 3).to_sparse(),
            "a sparse adjacency must be one matrix, with a value of any shape for each edge, and this sparse_coo "
            "tensor of shape [2, 4, 3] has 3 sparse dims",
        ),
        (
            lambda: torch.ones(4).to_sparse(),
            "a sparse adjacency must be one matrix, with a value of any shape for each edge, and this sparse_coo "
            "tensor of shape [4] has 1 sparse dims",
        ),
        (
            lambda: torch.ones(2, 4, 3).to_sparse_csr(),
            "a sparse adjacency must be one matrix, with a value of any shape for each edge, and this sparse_csr "
            "tensor of shape [2, 4, 3] has a batch of matrices",
        ),
        (lambda: torch.eye(4), "edge_index must have shape [2, E], but its shape is [4, 4]"),
        (
            lambda: np.array([[0, 1], [1, 0]]),
            "a graph must be an integer tensor [2, E], a gdsl.Graph, a torch_geometric Data, a torch_sparse "
            "SparseTensor, a torch sparse tensor, a SciPy sparse matrix or a DGL graph, not a ndarray; pass "
            "torch.from_numpy(...)",
        ),
        (
            lambda: hetero(),
            "a graph must be an integer tensor [2, E], a gdsl.Graph, a torch_geometric Data, a torch_sparse "
            "SparseTensor, a torch sparse tensor, a SciPy sparse matrix or a DGL graph, not a HeteroData; pass the "
            "edges of one type: data['a', 'to', 'b']",
        ),
    ],
)
def test_what_is_no_graph_says_why(made, message):
    with pytest.raises(GraphError) as caught:
        Graph.from_any(made())
    assert str(caught.value) == message


@pytest.mark.parametrize("layout", ["coo_matrix", "csr_matrix", "csc_array", "lil_matrix", "dok_matrix"])
def test_scipy_is_an_adjacency(layout):
    coo = scipy.sparse.coo_matrix((WEIGHT.numpy(), (SOURCE.numpy(), TARGET.numpy())), shape=(4, 3))
    graph = Graph.from_any(getattr(scipy.sparse, layout)(coo))
    assert (graph.num_sources, graph.num_targets) == (4, 3)
    assert weighted(graph) == WEIGHTED
    assert weighted(Graph.from_any(coo.astype(np.float64))) == WEIGHTED


@pytest.mark.parametrize("dtype", [bool, np.uint32, np.int64, np.float64, np.longdouble, np.clongdouble])
def test_values_of_scipy(dtype):
    matrix = scipy.sparse.csr_array(([1, 1], ([0, 1], [1, 2])), shape=(3, 3)).astype(dtype)
    assert Graph.from_any(matrix).edge_weight.tolist() == [1, 1]


def test_scipy_sizes_are_checked():
    with pytest.raises(GraphError, match=r"the graph has 4 source and 3 target nodes, but 4 and 4 are needed"):
        Graph.from_any(scipy.sparse.coo_matrix((4, 3)), 4)


def test_pyg_data():
    data = Data(edge_index=EDGES, num_nodes=6)
    graph = Graph.from_any(data)
    assert graph.num_nodes == 6 and torch.equal(graph.edge_index, EDGES)
    only_adj = Data(adj_t=adj_t(), num_nodes=4)
    assert weighted(Graph.from_any(only_adj)) == WEIGHTED


def hetero() -> HeteroData:
    data = HeteroData()
    data["a"].x, data["b"].num_nodes = torch.zeros(5, 2), 3
    data["a", "to", "b"].edge_index = EDGES
    return data


def sizes(graph: Graph) -> tuple[int, int]:
    return graph.num_sources, graph.num_targets


def test_sizes_of_edges_of_one_type_are_kept():
    data = hetero()
    assert sizes(Graph.from_any(data["a", "to", "b"])) == (5, 3)
    with pytest.raises(GraphError, match="the graph has 5 source and 3 target nodes, but 5 and 4 are needed"):
        Graph.from_any(data["a", "to", "b"], (5, 4))
    # They are those of the data, of which the edges are a part.
    assert sizes(Graph.from_any(hetero()["a", "to", "b"])) == (4, 4)


@pytest.mark.parametrize(
    ("told", "right"), [((7, 5), (7, 5)), ((7, None), (7, 3)), ((None, 6), (4, 6)), ((None, None), (4, 4))]
)
def test_sizes_of_an_edge_index_are_kept(told, right):
    edges = EdgeIndex(EDGES, sparse_size=told)
    for graph in (Graph(edges), Graph.from_any(edges), graph_of(edges, None, None)):
        assert sizes(graph) == right
    data = Data(edge_index=edges)
    assert sizes(Graph.from_any(data)) == right
    assert sizes(graph_of(edges, right[0], None)) == (right if told != (None, None) else (4, 3))
    assert sizes(Graph(edges, right)) == sizes(graph_of(edges, *right)) == right


def test_sizes_of_an_edge_index_are_checked():
    edges = EdgeIndex(EDGES, sparse_size=(5, 3))
    for make in (lambda: Graph(edges, (5, 4)), lambda: Graph.from_any(edges, (5, 4)), lambda: graph_of(edges, 5, 4)):
        with pytest.raises(GraphError) as caught:
            make()
        assert str(caught.value) == (
            "the graph has 5 source and 3 target nodes, but 5 and 4 are needed here; give both: "
            "Graph(edge_index, num_nodes=(5, 4))"
        )
    with pytest.raises(GraphError, match=r"edge 1 comes from node 3, but the graph has 3 nodes \(0 to 2\)"):
        Graph(EdgeIndex(EDGES, sparse_size=(3, None)))
    assert sizes(Graph(EdgeIndex(EDGES[:, :0], sparse_size=(3, None)))) == (3, 0)


def test_pyg_edge_index():
    graph = Graph.from_any(EdgeIndex(EDGES, sparse_size=(4, 4)))
    assert type(graph.edge_index) is torch.Tensor
    assert torch.equal(graph.edge_index, EDGES)
    assert torch.equal(Graph(EdgeIndex(EDGES)).in_edges.index, graph.in_edges.index)


class SparseTensor:
    """What torch_sparse's class answers."""

    def coo(self):
        return TARGET, SOURCE, WEIGHT

    def sparse_sizes(self):
        return 3, 4


def test_torch_sparse_library():
    graph = Graph.from_any(SparseTensor())
    assert (graph.num_sources, graph.num_targets) == (4, 3)
    assert weighted(graph) == WEIGHTED


def dgl_graph(relations: int = 1):
    class DGLGraph:
        __module__ = "dgl.heterograph"
        canonical_etypes = [("a", str(n), "b") for n in range(relations)]

        def edges(self):
            return SOURCE.int(), TARGET.int()

        def num_src_nodes(self):
            return 4

        def num_dst_nodes(self):
            return 3

    return DGLGraph()


def test_dgl():
    graph = Graph.from_any(dgl_graph())
    assert torch.equal(graph.edge_index, EDGES)
    assert (graph.num_sources, graph.num_targets) == (4, 3)
    with pytest.raises(GraphError) as caught:
        Graph.from_any(dgl_graph(2))
    assert str(caught.value) == "a DGL graph must have one edge type, not 2; pass one: graph[etype]"


@pytest.mark.parametrize("thing", [None, "edges", [[0, 1], [1, 0]], Data()])
def test_anything_else(thing):
    with pytest.raises(GraphError) as caught:
        Graph.from_any(thing)
    assert str(caught.value) == (
        "a graph must be an integer tensor [2, E], a gdsl.Graph, a torch_geometric Data, a torch_sparse "
        "SparseTensor, a torch sparse tensor, a SciPy sparse matrix or a DGL graph, "
        f"not a {type(thing).__name__}"
    )
