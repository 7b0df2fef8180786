"""gdsl.Graph: what it accepts and refuses, and its sorted orders."""

from __future__ import annotations

import copy
import pickle
import threading
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gdsl.codegen.schedule import BLOCK_WORK, MAX_BLOCKS
from gdsl.errors import GdslError, GraphError
from gdsl.runtime import graph as module
from gdsl.runtime import order as by_torch
from gdsl.runtime.graph import Graph
from gdsl.runtime.order import index_dtype

EDGES = torch.tensor([[0, 1, 2, 2, 1], [1, 2, 1, 0, 1]])


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    num_sources, num_targets = draw(st.integers(0, 8)), draw(st.integers(0, 8))
    most = 30 if num_sources and num_targets else 0
    edge = st.tuples(st.integers(0, max(num_sources - 1, 0)), st.integers(0, max(num_targets - 1, 0)))
    edges = draw(st.lists(edge, max_size=most))
    return Graph(torch.tensor(edges, dtype=torch.long).view(-1, 2).t(), (num_sources, num_targets))


@given(graphs())
def test_orders(graph):
    source, target = graph.edge_index.tolist()
    for order, row, other, rows in (
        (graph.in_edges, target, source, graph.num_targets),
        (graph.out_edges, source, target, graph.num_sources),
    ):
        expected = sorted(range(graph.num_edges), key=lambda e, row=row: (row[e], e))
        assert order.edge.tolist() == expected
        assert order.index.tolist() == [other[e] for e in expected]
        assert order.rowptr.tolist() == [sum(r < n for r in row) for n in range(rows + 1)]
        assert {order.rowptr.dtype, order.index.dtype, order.edge.dtype} == {torch.int32}
        assert order.blocks.dtype == torch.int64
        assert order.blocks.tolist() == ([0, rows] if rows else [0])
    assert graph.in_degree.tolist() == [target.count(n) for n in range(graph.num_targets)]
    assert graph.out_degree.tolist() == [source.count(n) for n in range(graph.num_sources)]
    assert graph.position.tolist() == [target[:e].count(target[e]) for e in range(graph.num_edges)]
    assert graph.position.dtype == torch.int32
    assert graph.in_degree.dtype == torch.int64


@pytest.mark.parametrize("hub", [False, True])
def test_blocks_have_equal_work(hub):
    rows, edges = 20_000, 200_000
    target = torch.randint(rows, (edges,))
    if hub:
        target[: edges // 2] = 77
    graph = Graph(torch.stack([torch.randint(rows, (edges,)), target]), rows)
    order = graph.in_edges
    blocks = order.blocks
    assert blocks[0] == 0 and blocks[-1] == rows
    assert (blocks.diff() > 0).all()
    assert blocks.numel() - 1 <= (rows + edges) // BLOCK_WORK
    work = (order.rowptr.long() + torch.arange(rows + 1))[blocks].diff()
    heaviest_row = int(graph.in_degree.max()) + 1
    assert work.max() <= (rows + edges) // ((rows + edges) // BLOCK_WORK) + 1 + heaviest_row
    if not hub:
        assert blocks.numel() - 1 == (rows + edges) // BLOCK_WORK


def test_number_of_blocks_is_bounded_and_independent_of_threads():
    rowptr = torch.arange(0, 5 * 2_000_001, 5)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = by_torch.blocks(rowptr)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(one, by_torch.blocks(rowptr))
    assert one.numel() - 1 == MAX_BLOCKS


def test_sizes():
    graph = Graph(EDGES)
    assert (graph.num_nodes, graph.num_sources, graph.num_targets, graph.num_edges) == (3, 3, 3, 5)
    assert not graph.is_bipartite
    assert Graph(EDGES, 5).num_nodes == 5
    assert Graph(EDGES, np.int64(5)).num_nodes == 5
    assert Graph(EDGES, torch.tensor(5)).num_nodes == 5
    assert Graph(torch.empty(2, 0, dtype=torch.long)).num_nodes == 0
    bipartite = Graph(EDGES, (3, 4))
    assert bipartite.is_bipartite and bipartite.num_targets == 4
    with pytest.raises(GraphError) as caught:
        _ = bipartite.num_nodes
    assert str(caught.value) == ("a bipartite graph has no single number of nodes: it has 3 sources and 4 targets")


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_integer_dtypes(dtype):
    graph = Graph(EDGES.to(dtype), 3)
    assert graph.edge_index.dtype == torch.int64
    assert torch.equal(graph.edge_index, EDGES)


def test_index_dtype_widens():
    assert index_dtype(5, 7, 2**31 - 1) == torch.int32
    assert index_dtype(5, 2**31, 7) == torch.int64
    graph = Graph(EDGES, (2**31, 3))
    assert graph.index_dtype == torch.int64
    order = graph.in_edges
    assert {order.rowptr.dtype, order.index.dtype, order.edge.dtype, graph.position.dtype} == {torch.int64}


WRONG = [
    ([[0], [1]], None, "edge_index must be a tensor, not a list"),
    (np.zeros((2, 3)), None, "edge_index must be a tensor, not a ndarray"),
    (
        torch.zeros(2, 3),
        None,
        "edge_index must hold integers, but its dtype is torch.float32; convert it with edge_index.long()",
    ),
    (
        torch.zeros(2, 3, dtype=torch.bool),
        None,
        "edge_index must hold integers, but its dtype is torch.bool; convert it with edge_index.long()",
    ),
    (EDGES.t(), None, "edge_index must have shape [2, E], but its shape is [5, 2]; pass edge_index.t()"),
    (EDGES[0], None, "edge_index must have shape [2, E], but its shape is [5]"),
    (torch.zeros(3, 5, dtype=torch.long), None, "edge_index must have shape [2, E], but its shape is [3, 5]"),
    (
        torch.tensor([[0, 0, 0, 0, 0, 1], [1, 2, 3, 4, 9, 12]]),
        10,
        "edge 5 goes to node 12, but the graph has 10 nodes (0 to 9)",
    ),
    (torch.tensor([[0, 7], [9, 0]]), 5, "edge 0 goes to node 9, but the graph has 5 nodes (0 to 4)"),
    (torch.tensor([[0, 7], [0, 9]]), 5, "edge 1 comes from node 7, but the graph has 5 nodes (0 to 4)"),
    (
        torch.tensor([[0, 3], [0, 0]]),
        (3, 9),
        "edge 1 comes from node 3, but the graph has 3 source nodes (0 to 2)",
    ),
    (
        torch.tensor([[0, 3], [0, 2]]),
        (4, 2),
        "edge 1 goes to node 2, but the graph has 2 target nodes (0 to 1)",
    ),
    (torch.tensor([[0, 1], [0, -1]]), 5, "edge 1 goes to node -1, but nodes are numbered from 0"),
    (torch.tensor([[-7, 1], [0, 1]]), None, "edge 0 comes from node -7, but nodes are numbered from 0"),
    (EDGES, 0, "edge 0 comes from node 0, but the graph has no nodes"),
    (EDGES, -1, "num_nodes must not be negative, but it is -1"),
    (EDGES, (3, -2), "num_targets must not be negative, but it is -2"),
    (EDGES, float("nan"), "num_nodes must be an int, not nan"),
    (EDGES, 3.0, "num_nodes must be an int, not 3.0"),
    (EDGES, "3", "num_nodes must be an int, not '3'"),
    (EDGES, True, "num_nodes must be an int, not True"),
    (EDGES, torch.tensor(3.0), "num_nodes must be an int, not tensor(3.)"),
    (EDGES, (3, 4.5), "num_targets must be an int, not 4.5"),
    (EDGES, (3, 3, 3), "num_nodes must be an int or a pair (num_sources, num_targets), not 3 numbers"),
    (
        EDGES.to_sparse(),
        None,
        "edge_index is a sparse tensor; make the graph with gdsl.Graph.from_any(...)",
    ),
]


@pytest.mark.parametrize(("edge_index", "num_nodes", "message"), WRONG, ids=[w[2] for w in WRONG])
def test_messages(edge_index, num_nodes, message):
    with pytest.raises(GraphError) as caught:
        Graph(edge_index, num_nodes)
    assert str(caught.value) == message
    assert isinstance(caught.value, GdslError) and isinstance(caught.value, ValueError)


def test_sorted_once(monkeypatch):
    ends = []
    sort = module.prepare.sort
    monkeypatch.setattr(module.prepare, "sort", lambda edges, end, sizes: ends.append(end) or sort(edges, end, sizes))
    graph = Graph(torch.randint(1000, (2, 20_000)), 1000)
    assert not ends
    orders = []
    threads = [threading.Thread(target=lambda: orders.append(graph.in_edges)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(order) for order in orders}) == 1
    assert ends == [1]
    assert graph.out_edges is graph.out_edges
    _ = graph.in_degree, graph.out_degree, graph.position
    assert ends == [1, 0]


def test_writing_to_the_original_does_not_reach_the_graph():
    edges = EDGES.clone()
    graph = Graph(edges, 3)
    edges.fill_(10**9)
    assert torch.equal(graph.edge_index, EDGES)
    assert graph.in_edges.index.max() == 2


def test_built_in_inference_mode_is_usable_in_training():
    with torch.inference_mode():
        graph = Graph(EDGES.clone(), 3)
        tensors = [graph.edge_index, graph.in_edges.index, graph.in_degree, graph.position]
        tensors.append(graph.add_self_loops().graph.edge_index)
    assert not any(t.is_inference() for t in tensors)
    x = torch.randn(3, requires_grad=True)
    x[graph.edge_index[0]].sum().backward()


@pytest.mark.parametrize("clone", [copy.deepcopy, copy.copy, lambda g: pickle.loads(pickle.dumps(g))])
def test_copies(clone):
    graph = Graph(EDGES, (3, 4))
    _ = graph.in_edges, graph.add_self_loops()
    again = clone(graph)
    assert torch.equal(again.edge_index, EDGES)
    assert (again.num_sources, again.num_targets) == (3, 4)
    assert torch.equal(again.in_edges.index, graph.in_edges.index)


def test_repr():
    assert repr(Graph(EDGES)) == "Graph(num_nodes=3, num_edges=5)"
    assert repr(Graph(EDGES, (3, 4))) == "Graph(num_sources=3, num_targets=4, num_edges=5)"
    assert repr(Graph(EDGES).to("meta")) == "Graph(num_nodes=3, num_edges=5, device='meta')"


def test_to_the_same_device_is_the_same_graph():
    graph = Graph(EDGES)
    assert graph.to("cpu") is graph


@pytest.mark.gpu
def test_on_a_gpu():
    edges = torch.randint(100, (2, 1000))
    cpu, gpu = Graph(edges, 100), Graph(edges, 100).to("cuda")
    assert gpu.device.type == "cuda"
    for name in ("rowptr", "index", "edge", "blocks"):
        assert torch.equal(getattr(gpu.in_edges, name).cpu(), getattr(cpu.in_edges, name))
    assert torch.equal(gpu.position.cpu(), cpu.position)
    assert torch.equal(gpu.add_self_loops().graph.edge_index.cpu(), cpu.add_self_loops().graph.edge_index)


@pytest.mark.parametrize("edges", [8, 5000])
def test_a_graph_that_is_sent_to_another_process_stays_where_native_code_knows_it(edges: int) -> None:
    """Multiprocessing moves the tensors that it sends into shared memory, as torch has told it how to."""
    graph = Graph(torch.randint(50, (2, edges), generator=torch.Generator().manual_seed(0)), 50)
    order = graph.in_edges
    addresses, listed = order.addresses, graph._edges.listed.data_ptr()
    sent = ForkingPickler.dumps(graph)
    assert addresses[:3] == tuple(t.data_ptr() for t in (order.rowptr, order.index, order.edge))
    assert addresses[3] == order.blocks.data_ptr() and listed == graph._edges.listed.data_ptr()
    other = pickle.loads(sent)
    assert torch.equal(other.in_edges.edge, order.edge) and torch.equal(other.edge_index, graph.edge_index)
