"""Nearest neighbours, by the tree and by distances, against comparing all pairs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gdsl.errors import InputError
from gdsl.runtime import neighbors
from gdsl.runtime.neighbors import knn_graph


def expected(x: torch.Tensor, k: int, batch: torch.Tensor, loop: bool) -> list[tuple[int, int]]:
    """Positions on a small grid, where sums of squares are exact and ties are many."""
    edges = []
    for i in range(len(x)):
        others = [j for j in range(len(x)) if batch[i] == batch[j] and (loop or i != j)]
        others.sort(key=lambda j, i=i: (float((x[i] - x[j]).square().sum()), j))
        edges += [(j, i) for j in others[:k]]
    return edges


@pytest.mark.parametrize("tree", [True, False])
@given(
    st.lists(st.tuples(*[st.integers(0, 3)] * 2), max_size=25),
    st.integers(1, 6),
    st.integers(1, 3),
    st.booleans(),
)
def test_against_all_pairs(tree, points, k, groups, loop):
    x = torch.tensor(points, dtype=torch.float32).view(-1, 2)
    batch = torch.randint(groups, (len(points),))
    with pytest.MonkeyPatch.context() as patch:
        if not tree:
            patch.setattr(neighbors, "tree_class", lambda: None)
            patch.setattr(neighbors, "CHUNK_ELEMENTS", 40)
        found = knn_graph(x, k, batch, loop)
        assert list(zip(*found.tolist(), strict=True)) == expected(x, k, batch, loop)
        alone = knn_graph(x, k, loop=loop)
        assert list(zip(*alone.tolist(), strict=True)) == expected(x, k, torch.zeros(len(points)), loop)


@pytest.mark.parametrize("dimensions", [3, neighbors.TREE_DIMENSIONS + 1])
def test_shape(dimensions):
    edges = knn_graph(torch.randn(50, dimensions), 4)
    assert edges.shape == (2, 200) and edges.dtype == torch.int64
    assert edges[1].tolist() == [n for n in range(50) for _ in range(4)]
    assert (edges[0] != edges[1]).all()


def test_same_place_for_all():
    edges = knn_graph(torch.zeros(100, 3), 3)
    assert edges[0, :12].tolist() == [1, 2, 3, 0, 2, 3, 0, 1, 3, 0, 1, 2]


def test_one_dimension_integers_and_gradients():
    assert knn_graph(torch.tensor([0, 1, 5, 7]), 1)[0].tolist() == [1, 0, 3, 2]
    assert not knn_graph(torch.randn(5, 2, requires_grad=True), 2).requires_grad


def test_few_points():
    assert knn_graph(torch.empty(0, 3), 2).shape == (2, 0)
    assert knn_graph(torch.zeros(1, 3), 2).shape == (2, 0)
    assert knn_graph(torch.zeros(1, 3), 2, loop=True).tolist() == [[0], [0]]
    assert knn_graph(torch.zeros(2, 3), 9).tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize(
    ("x", "k", "batch", "message"),
    [
        (torch.zeros(2, 3, 4), 1, None, "positions must have shape [N, d], but their shape is [2, 3, 4]"),
        (torch.zeros(2, 3), 0, None, "the number of neighbours must be at least 1, but it is 0"),
        (torch.zeros(2, 3), 1, torch.zeros(3), "batch must have shape [2], but its shape is [3]"),
        (
            torch.tensor([[0.0, 1.0], [float("inf"), 0.0]]),
            1,
            None,
            "positions must be finite, but node 1 has [inf, 0.0]",
        ),
    ],
)
def test_messages(x, k, batch, message):
    with pytest.raises(InputError) as caught:
        knn_graph(x, k, batch)
    assert str(caught.value) == message
