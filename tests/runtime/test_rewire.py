"""Self-loops, against torch_geometric."""

from __future__ import annotations

import pytest
import torch
import torch_geometric.utils as pyg
from hypothesis import given
from hypothesis import strategies as st

from gdsl.errors import GraphError
from gdsl.runtime.graph import Graph
from gdsl.runtime.rewire import rewire_edge_value

FILLS = [1.0, 2.5, "sum", "add", "mean", "max", "min", "mul"]


@st.composite
def edge_lists(draw: st.DrawFn) -> tuple[torch.Tensor, int]:
    """With loops, parallel edges and isolated nodes; a node has one loop at most, as torch_geometric leaves
    it open which of several it keeps."""
    nodes = draw(st.integers(1, 6))
    node = st.integers(0, nodes - 1)
    edges = draw(st.lists(st.tuples(node, node), max_size=20))
    edges = [e for n, e in enumerate(edges) if e[0] != e[1] or e not in edges[:n]]
    return torch.tensor(edges, dtype=torch.long).view(-1, 2).t(), nodes


@given(edge_lists(), st.sampled_from(FILLS), st.sampled_from([(), (3,)]))
def test_add_remaining_self_loops(drawn, fill, shape):
    edge_index, nodes = drawn
    value = torch.randn(edge_index.shape[1], *shape)
    rewired = Graph(edge_index, nodes).add_remaining_self_loops()
    edges, values = pyg.add_remaining_self_loops(edge_index, value, fill, nodes)
    assert torch.equal(rewired.graph.edge_index, edges)
    torch.testing.assert_close(rewire_edge_value(rewired, value, fill), values)


@given(edge_lists(), st.sampled_from(FILLS), st.sampled_from([(), (3,)]))
def test_add_self_loops_as_in_gat(drawn, fill, shape):
    edge_index, nodes = drawn
    value = torch.randn(edge_index.shape[1], *shape)
    rewired = Graph(edge_index, nodes).add_self_loops()
    edges, values = pyg.remove_self_loops(edge_index, value)
    edges, values = pyg.add_self_loops(edges, values, fill, nodes)
    assert torch.equal(rewired.graph.edge_index, edges)
    torch.testing.assert_close(rewire_edge_value(rewired, value, fill), values)


@given(edge_lists())
def test_remove_self_loops(drawn):
    edge_index, nodes = drawn
    value = torch.randn(edge_index.shape[1], 2)
    rewired = Graph(edge_index, nodes).remove_self_loops()
    edges, values = pyg.remove_self_loops(edge_index, value)
    assert torch.equal(rewired.graph.edge_index, edges)
    assert torch.equal(rewire_edge_value(rewired, value, 1.0), values)
    assert rewired.added is None and rewired.loop_edge is None
    assert rewired.graph.num_nodes == nodes


def test_what_was_kept_and_added():
    rewired = Graph(torch.tensor([[0, 1, 1, 1, 2], [1, 1, 2, 1, 0]]), 3).add_remaining_self_loops()
    assert rewired.kept.tolist() == [0, 2, 4]
    assert rewired.added.tolist() == [0, 1, 2]
    assert rewired.loop_edge.tolist() == [-1, 3, -1]
    value = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    assert rewire_edge_value(rewired, value, 9.0).tolist() == [1.0, 3.0, 5.0, 9.0, 4.0, 9.0]

    without = Graph(torch.tensor([[0, 1], [1, 0]]), 2)
    assert without.add_self_loops().kept is None
    assert without.remove_self_loops().kept is None
    assert without.add_self_loops().loop_edge is None


def test_no_nodes_and_no_edges():
    empty = Graph(torch.empty(2, 0, dtype=torch.long), 0).add_remaining_self_loops()
    assert empty.added is None and empty.graph.num_edges == 0
    lonely = Graph(torch.empty(2, 0, dtype=torch.long), 3).add_remaining_self_loops()
    assert lonely.graph.edge_index.tolist() == [[0, 1, 2], [0, 1, 2]]
    assert rewire_edge_value(lonely, torch.empty(0, 2), 5.0).tolist() == [[5.0, 5.0]] * 3


def test_bipartite_has_the_smaller_number_of_loops():
    rewired = Graph(torch.tensor([[4, 1], [0, 1]]), (5, 3)).add_self_loops()
    assert rewired.graph.edge_index.tolist() == [[4, 0, 1, 2], [0, 0, 1, 2]]
    assert (rewired.graph.num_sources, rewired.graph.num_targets) == (5, 3)


def test_made_once():
    graph = Graph(torch.tensor([[0, 1], [1, 0]]))
    assert graph.add_self_loops() is graph.add_self_loops()
    assert graph.add_remaining_self_loops() is graph.add_remaining_self_loops()
    assert graph.remove_self_loops() is graph.remove_self_loops()


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("transform", ["add_self_loops", "add_remaining_self_loops", "remove_self_loops"])
def test_derivative(transform, fill):
    edge_index = torch.tensor([[0, 1, 1, 3, 2], [1, 1, 2, 2, 0]])
    rewired = getattr(Graph(edge_index, 4), transform)()
    value = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: rewire_edge_value(rewired, v, fill), value)


def test_a_tensor_as_fill_is_differentiable():
    rewired = Graph(torch.tensor([[0, 1], [1, 2]])).add_self_loops()
    fill = torch.tensor([1.0, 2.0], requires_grad=True)
    out = rewire_edge_value(rewired, torch.zeros(2, 2), fill)
    out.sum().backward()
    assert out[2:].tolist() == [[1.0, 2.0]] * 3
    assert fill.grad.tolist() == [3.0, 3.0]


def test_messages():
    rewired = Graph(torch.tensor([[0, 1], [1, 2]])).add_self_loops()
    with pytest.raises(GraphError) as caught:
        rewire_edge_value(rewired, torch.zeros(3, 2), 1.0)
    assert str(caught.value) == (
        "an edge value must have one row for each of the graph's 2 edges, but its shape is [3, 2]"
    )
    with pytest.raises(GraphError) as caught:
        rewire_edge_value(rewired, torch.zeros(2), "median")
    assert str(caught.value) == (
        "a loop's value is a number or one of 'sum', 'mean', 'max', 'min', 'mul', not 'median'"
    )
