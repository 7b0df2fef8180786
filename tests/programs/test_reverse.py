"""``e[reverse]``: which edge it is, its gradients, and edges that have none."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import gdsl
from gdsl.language.errors import LanguageError

# Loops, edges that are there twice or three times, and edges that nothing answers.
EDGES = {
    "pairs": [[0, 1, 2, 1, 3, 0], [1, 0, 1, 2, 0, 3]],
    "loops": [[0, 0, 1, 1, 2], [0, 1, 1, 0, 2]],
    "parallel": [[0, 1, 0, 1, 0, 2, 1, 2], [1, 0, 1, 0, 2, 0, 2, 1]],
    "alone": [[0, 1, 2, 0, 0, 1, 3], [1, 2, 3, 1, 1, 0, 3]],
    "none": [[], []],
}
TEXT = """layer L(d) {
    node x[d]
    edge e[d]
    m = tanh(e * x[j])
    heard = sum(m)[j] - MARK
    update y = x + sum(sin(heard) * e)
    return y, heard
}"""


def expected_reverse(edges: Tensor) -> list[int | None]:
    """The k-th edge i -> j for the k-th edge j -> i."""
    pairs = [tuple(pair) for pair in edges.T.tolist()]
    found: list[int | None] = []
    for number, (j, i) in enumerate(pairs):
        rank = pairs[:number].count((j, i))
        back = [n for n, pair in enumerate(pairs) if pair == (i, j)]
        found.append(back[rank] if rank < len(back) else None)
    return found


@pytest.mark.parametrize("name", EDGES)
def test_which_edge(name: str) -> None:
    edges = torch.tensor(EDGES[name], dtype=torch.long)
    found = gdsl.Graph(edges, 4).reversed_edges
    assert found.dtype == torch.int32
    assert found.tolist() == [-1 if back is None else back for back in expected_reverse(edges)]


def derivatives(y: Tensor, heard: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    score = (y.cos().sum() + heard.square().sum(), *leaves)
    first = torch.autograd.grad(score[0], leaves, create_graph=True)
    return [y, heard, *first, *torch.autograd.grad(sum(g.sin().sum() for g in first), leaves)]


@pytest.mark.parametrize("backend", ["torch", "cpp"])
@pytest.mark.parametrize("name", EDGES)
def test_values_and_two_derivatives(backend: str, name: str) -> None:
    edges = torch.tensor(EDGES[name], dtype=torch.long)
    back = expected_reverse(edges)
    torch.manual_seed(0)
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    e = torch.randn(edges.shape[1], 3, dtype=torch.float64, requires_grad=True)
    mark = "m[reverse]" if None not in back else "reverse(m, 0.25)"
    made = gdsl.compile(TEXT.replace("MARK", mark), d=3, backend=backend)
    found = derivatives(*made(x, gdsl.Graph(edges, 4), e), [x, e])

    j, i = edges
    m = torch.tanh(e * x[j])
    rows = [torch.full((3,), 0.25, dtype=torch.float64) if k is None else m[k] for k in back]
    heard = torch.zeros_like(x).index_add(0, i, m)[j] - (torch.stack(rows) if rows else m)
    y = x + torch.zeros_like(x).index_add(0, i, torch.sin(heard) * e)
    for one, other in zip(found, derivatives(y, heard, [x, e]), strict=True):
        assert torch.allclose(one, other, atol=1e-10)


def test_an_edge_without_one_is_named_before_anything_runs() -> None:
    made = gdsl.compile(TEXT.replace("MARK", "m[reverse]"), d=3)
    edges = torch.tensor(EDGES["alone"])
    message = r"edge 1 from node 1 to node 2 has none: .* or a default, as in reverse\(e, 0\)"
    with pytest.raises(gdsl.GraphError, match=message):
        made(torch.ones(4, 3), edges, torch.ones(7, 3))


def test_the_loops_that_a_program_adds_are_their_own_reverse() -> None:
    text = "layer L { graph add_self_loops(w = 2) node x edge w update y = x * sum(w[reverse]) }"
    found = gdsl.compile(text)(torch.ones(3), torch.tensor([[0, 1], [1, 0]]), torch.tensor([5.0, 7.0]))
    assert found.tolist() == [7.0, 9.0, 2.0]  # into node 0 goes the edge of 7, whose reverse has 5


def test_integers_keep_their_bound() -> None:
    text = "layer L(R) { node x edge rel: int(R) param p[R] ~ arange update y = x * sum(p[rel[reverse]]) }"
    made = gdsl.compile(text, R=3)
    found = made(torch.ones(2), torch.tensor([[0, 1], [1, 0]]), torch.tensor([1, 2]))
    assert found.tolist() == [1.0, 2.0]


def test_two_sets_of_nodes() -> None:
    text = "layer L { edge w message m = w[reverse] source x target z update y = sum(m) + 0 * z + sum(x[j]) }"
    with pytest.raises(LanguageError, match="edges from sources to targets have no reverse"):
        gdsl.compile(text)


def test_an_argument_of_that_name_is_an_index() -> None:
    made = gdsl.compile("layer L(d, reverse = 1) { node x[d] update y = x[reverse] }", d=3)
    x = torch.randn(2, 3)
    assert torch.equal(made(x, torch.empty(2, 0, dtype=torch.long)), x[:, 1])
