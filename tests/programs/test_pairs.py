"""Pairs of edges that follow each other, k -> j -> i, against a list of them in plain torch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import gdsl
from gdsl.errors import GraphError
from gdsl.language.errors import LanguageError
from gdsl.runtime.triton import interpreted

BACKENDS = ["torch", "cpp", *["triton"] * interpreted()]

# Loops, edges that are there twice, edges that go back, a node with many edges, edges without a pair.
EDGES = {
    "mixed": [[0, 1, 2, 3, 4, 0, 0, 2, 2, 1], [1, 1, 0, 0, 4, 1, 1, 3, 2, 0]],
    "line": [[0, 1, 2, 3], [1, 2, 3, 4]],
    "back": [[0, 1, 1, 2], [1, 0, 2, 1]],
    "hub": [[1, 2, 3, 4, 0, 0, 0], [0, 0, 0, 0, 1, 2, 5]],
    "no_edges": [[], []],
}
NODES = 6


class Listed:
    """The pairs of a graph, written out, and what the layers below are made of."""

    def __init__(self, edges: Tensor, backtracking: bool):
        self.j, self.i = edges
        self.count = edges.shape[1]
        found = [
            (one, two)
            for two in range(self.count)
            for one in range(self.count)
            if self.i[one] == self.j[two] and (backtracking or self.j[one] != self.i[two])
        ]
        self.kj, self.ji = torch.tensor(found, dtype=torch.long).view(-1, 2).T

    def summed(self, t: Tensor, at: Tensor) -> Tensor:
        return t.new_zeros(self.count, *t.shape[1:]).index_add(0, at, t)

    def at_nodes(self, e: Tensor) -> Tensor:
        return e.new_zeros(NODES, *e.shape[1:]).index_add(0, self.i, e)

    def extreme(self, t: Tensor, at: Tensor, how: str) -> Tensor:
        rows = [getattr(t[at == r], how)(0) if (at == r).any() else t.new_zeros(t.shape[1:]) for r in range(self.count)]
        return torch.stack(rows) if rows else self.summed(t, at)

    def softmax(self, s: Tensor, at: Tensor) -> Tensor:
        raised = s.exp()
        return raised / self.summed(raised, at)[at]


def _angles(p: Listed, x: Tensor, e: Tensor, w: Tensor) -> tuple[Tensor, ...]:
    v = x[p.j] - 0.5 * x[p.i]
    t = torch.tanh(e[p.kj] * v[p.ji]) @ w
    a = p.summed(t, p.ji)
    return p.at_nodes(a * e), a


def _softmax(p: Listed, x: Tensor, e: Tensor, w: Tensor) -> tuple[Tensor, ...]:
    alpha = p.softmax((e[p.kj] * e[p.ji]).sum(1), p.ji)
    b = p.summed(alpha[:, None] * x[p.j][p.kj], p.ji)
    out = p.softmax(e[p.ji], p.kj)
    return p.at_nodes(torch.tanh(b @ w)) + x, p.summed(out * e[p.ji], p.kj)


def _extremes(p: Listed, x: Tensor, e: Tensor, w: Tensor) -> tuple[Tensor, ...]:
    t = e[p.kj] * (e[p.ji] @ w)
    top, least = p.extreme(t, p.ji, "amax"), p.extreme(t - 5.0, p.kj, "amin")
    count = torch.bincount(p.ji, minlength=p.count)[:, None]
    return (x + p.at_nodes(top * least * count),)


def _rounds(p: Listed, x: Tensor, e: Tensor, w: Tensor) -> tuple[Tensor, ...]:
    m = e
    for _ in range(2):
        s = p.summed(m[p.kj] * x[p.i][p.kj], p.ji) / (1 + torch.bincount(p.kj, minlength=p.count))[:, None]
        m = torch.tanh(e + s @ w)
    return p.at_nodes(m), m


TEXTS: dict[str, tuple[str, Callable[..., tuple[Tensor, ...]]]] = {
    "angles": (
        """v = x[j] - 0.5 * x[i]
        message t = lin(tanh(e[kj] * v[ji]))
        aggregate a = sum(t)
        update y = sum(a * e)
        return y, a""",
        _angles,
    ),
    "softmax": (
        """alpha = softmax(dot(e[kj], e[ji]))
        aggregate b = sum(alpha * x[j][kj])
        update y = sum(tanh(lin(b))) + x
        out = sum(softmax(e[ji]) at kj * e[ji]) at kj
        return y, out""",
        _softmax,
    ),
    "extremes": (
        """t = e[kj] * lin(e[ji])
        update y = x + sum(max(t) * min(t - 5) at kj * degree(ji))""",
        _extremes,
    ),
    "rounds": (
        """m = e
        for k in 1..2 {
            s = sum(m[kj] * x[i][kj]) / (1 + degree(kj))
            m = tanh(e + lin(s))
        }
        update y = sum(m)
        return y, m""",
        _rounds,
    ),
}


def layer(name: str, backend: str, backtracking: bool) -> gdsl.Layer:
    torch.manual_seed(0)
    without = "" if backtracking else "graph non_backtracking"
    head = f"{without} node x[d] edge e[d] param w[d, d'] ~ normal def lin(z) = rename(z @ w, d' -> d)"
    text = f"layer L(d) {{ {head} {TEXTS[name][0]} }}"
    return gdsl.compile(text, d=3, backend=backend).double()


def derivatives(values: tuple[Tensor, ...], leaves: list[Tensor]) -> list[Tensor]:
    score = sum((v * torch.cos(torch.arange(v.numel()).view_as(v))).sum() for v in values)
    first = torch.autograd.grad(score, leaves, create_graph=True, materialize_grads=True)
    second = torch.autograd.grad(sum(g.sin().sum() for g in first), leaves, materialize_grads=True)
    return [*values, *first, *second]


# The others take some seconds each in Triton's interpreter.
QUICK = ("angles", "extremes")
WAYS = [
    pytest.param(backend, name, back, marks=[pytest.mark.slow] * (backend == "triton" and (back or name not in QUICK)))
    for backend in BACKENDS
    for name in TEXTS
    for back in (True, False)
]


@pytest.mark.filterwarnings("ignore:(invalid|divide):RuntimeWarning")  # of NumPy, in Triton's interpreter
@pytest.mark.parametrize(("backend", "name", "backtracking"), WAYS)
def test_values_and_two_derivatives(backend: str, name: str, backtracking: bool) -> None:
    made = layer(name, backend, backtracking)
    for edges in (torch.tensor(e, dtype=torch.long) for e in EDGES.values()):
        x = (1 + torch.rand(NODES, 3, dtype=torch.float64)).requires_grad_()
        e = (1 + torch.rand(edges.shape[1], 3, dtype=torch.float64)).requires_grad_()
        found = made(x, gdsl.Graph(edges, NODES), e)
        expected = TEXTS[name][1](Listed(edges, backtracking), x, e, made.w)
        leaves = [x, e, made.w]
        found = derivatives(found if isinstance(found, tuple) else (found,), leaves)
        for one, other in zip(found, derivatives(expected, leaves), strict=True):
            assert torch.allclose(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
def test_ties_share_a_gradient(backend: str) -> None:
    made = gdsl.compile("layer L { node x edge e aggregate a = max(e[kj]) update y = sum(a) + 0 * x }", backend=backend)
    edges = torch.tensor([[0, 1, 2, 3], [3, 3, 3, 4]])  # three edges before the last
    e = torch.tensor([2.0, 2.0, 1.0, 7.0], requires_grad=True)
    made(torch.zeros(5), edges, e).sum().backward()
    assert e.grad is not None and e.grad.tolist() == [0.5, 0.5, 0.0, 0.0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_edge_whose_pairs_all_go_back_has_none(backend: str) -> None:
    text = "graph non_backtracking node x edge e a = max(e[kj]) n = degree(ji) return a, n, degree(kj), sum(a) + x"
    made = gdsl.compile(f"layer L {{ {text} }}", backend=backend)
    a, into, out, y = made(torch.zeros(3), torch.tensor([[0, 1, 1], [1, 0, 2]]), torch.tensor([-3.0, -4.0, -5.0]))
    assert a.tolist() == [0.0, 0.0, -3.0]
    assert into.tolist() == [0.0, 0.0, 1.0] and out.tolist() == [1.0, 0.0, 0.0]
    assert y.tolist() == [0.0, 0.0, -3.0]


def test_integers_keep_their_bound_and_their_dim() -> None:
    text = "layer L(R) { node x edge rel: int(R) param p[R] ~ arange update y = sum(sum(p[rel[kj]] * p[rel][ji])) + x }"
    made = gdsl.compile(text, R=4)
    assert made(torch.zeros(3), torch.tensor([[0, 1], [1, 2]]), torch.tensor([2, 3])).tolist() == [0.0, 0.0, 6.0]


def test_an_input_that_is_left_out_is_read_where_it_would_be() -> None:
    """Its default is the same everywhere, and yet what is reduced are pairs."""
    text = "layer L { node x edge w = 2 t = 0.5 * w[ji] a = sum(t) return a, sum(softmax(w[kj])) }"
    made, edges = gdsl.compile(text), torch.tensor([[0, 1, 2], [1, 2, 1]])
    for given in ((), (torch.full((3,), 2.0),)):
        a, ones = made(torch.zeros(3), edges, *given)
        assert a.tolist() == [0.0, 2.0, 1.0] and ones.tolist() == [0.0, 1.0, 1.0]


def test_no_pair_lies_in_memory() -> None:
    """Neither forward nor backward: a graph with a million pairs and a thousand edges."""
    count = 512
    edges = torch.cat([torch.stack([torch.arange(count), torch.full((count,), count)]),
                       torch.stack([torch.full((count,), count), torch.arange(count)])], 1)  # fmt: skip
    made = layer("angles", "cpp", True).float()
    x = torch.rand(count + 1, 3, requires_grad=True)
    e = torch.rand(2 * count, 3, requires_grad=True)
    made(x, edges, e)[0].sum().backward()  # compiled
    assert "pairs that end in each edge" in str(made.explain(gdsl.Graph(edges, count + 1)))
    with torch.profiler.profile(profile_memory=True) as seen:
        made(x, edges, e)[0].sum().backward()
    assert max(event.cpu_memory_usage for event in seen.events()) < 4 * count * count / 4


def test_what_no_walk_can_hold_is_added_from_a_list() -> None:
    """The gradient of a matrix of more numbers than a core's cache holds."""
    text = (
        "layer L(d, k) { node x edge e[d] param w[d, k] ~ normal t = tanh((e[kj] * e[ji]) @ w) return sum(sum(t)), x }"
    )
    edges, e = torch.tensor([[0, 1, 2, 0], [1, 2, 1, 0]]), torch.randn(4, 260, dtype=torch.float64, requires_grad=True)
    found = []
    for backend in ("torch", "cpp"):
        torch.manual_seed(0)
        made = gdsl.compile(text, d=260, k=260, backend=backend).double()
        y, _ = made(torch.zeros(3, dtype=torch.float64), edges, e)
        found.append([y, *torch.autograd.grad(y.sin().sum(), [e, made.w])])
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other)


def test_two_sets_of_nodes() -> None:
    text = "layer L { source x target z edge e update y = sum(sum(e[kj])) + sum(x[j]) + z }"
    with pytest.raises(LanguageError, match="none begins where another ends"):
        gdsl.compile(text)


def test_a_bipartite_graph_has_no_pairs() -> None:
    with pytest.raises(GraphError, match="no edge of a bipartite graph begins where another ends"):
        _ = gdsl.Graph(torch.tensor([[0], [1]]), (3, 2)).pairs


@pytest.mark.parametrize("change", ["to", "reverse", "repeat", "add_self_loops", "pickle"])
def test_what_is_made_of_a_graph_does_not_go_back_either(change: str) -> None:
    import pickle

    graph = gdsl.Graph(torch.tensor([[0, 1, 1], [1, 0, 2]]), 3).non_backtracking().graph
    made = {
        "to": lambda: graph.to("meta"),
        "reverse": graph.reverse,
        "repeat": lambda: graph.repeat(2),
        "add_self_loops": lambda: graph.add_self_loops().graph,
        "pickle": lambda: pickle.loads(pickle.dumps(graph)),
    }[change]()
    assert not made._backtracking


def test_under_torch_compile() -> None:
    made = layer("angles", "cpp", False)
    compiled = torch.compile(made, fullgraph=True)
    edges = torch.tensor(EDGES["mixed"])
    x, e = torch.rand(NODES, 3, dtype=torch.float64), torch.rand(10, 3, dtype=torch.float64, requires_grad=True)
    found, expected = (f(x, edges, e)[0].sum() for f in (compiled, made))
    assert torch.allclose(found, expected)
    grads = [torch.autograd.grad(y, e)[0] for y in (found, expected)]
    assert torch.allclose(*grads)
