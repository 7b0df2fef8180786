"""All pairs of nodes of each graph, ``graph complete``, against masks over N x N in plain torch."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import gdsl
from gdsl.errors import GraphError, InputError
from gdsl.language.errors import LanguageError
from gdsl.nn import GATConv
from gdsl.runtime.complete import complete_graph
from gdsl.runtime.triton import interpreted

BACKENDS = ["torch", "cpp", *["triton"] * interpreted()]
NODES = 7

# Graphs of one node, numbers that no node has, graphs whose nodes do not stand together, a large one among small ones.
BATCHES: dict[str, list[int] | None] = {
    "sorted": [0, 0, 2, 2, 2, 3, 5],
    "unsorted": [1, 0, 1, 2, 0, 1, 0],
    "large": [0, 1, 1, 1, 1, 1, 1],
    "one": None,
}


class Dense:
    """All pairs, written out: ``mask`` says whether there is an edge from the second node to the first."""

    def __init__(self, batch: Tensor | None, loops: bool, nodes: int = NODES):
        batch = torch.zeros(nodes, dtype=torch.long) if batch is None else batch
        self.mask = (batch[:, None] == batch) & (loops | ~torch.eye(nodes, dtype=torch.bool))
        self.count = self.mask.sum(1, keepdim=True)

    def i(self, x: Tensor) -> Tensor:
        return x[:, None].expand(-1, len(x), -1)

    def j(self, x: Tensor) -> Tensor:
        return x[None].expand(len(x), -1, -1)

    def sum(self, m: Tensor, dim: int = 1) -> Tensor:
        return (m * self.mask[..., None]).sum(dim)

    def mean(self, m: Tensor) -> Tensor:
        return self.sum(m) / self.count.clamp(min=1)

    def max(self, m: Tensor) -> Tensor:
        if not len(m):
            return m.sum(1)
        best = m.masked_fill(~self.mask[..., None], -torch.inf).amax(1)
        return torch.where(self.count > 0, best, best.new_zeros(()))

    def softmax(self, s: Tensor, dim: int = 1) -> Tensor:
        raised = s.exp() * self.mask[..., None]
        total = raised.sum(dim, keepdim=True)
        return raised / torch.where(total > 0, total, total.new_ones(()))


def _attention(p: Dense, x: Tensor, w: Tensor) -> tuple[Tensor, ...]:
    alpha = p.softmax((p.i(x @ w) * p.j(x)).sum(-1, keepdim=True))
    out = p.softmax(p.i(x.cos()) * p.j(x), 0)
    return p.sum(alpha * p.j(x.sin())), p.sum(out * p.i(x), 0)


def _messages(p: Dense, x: Tensor, w: Tensor) -> tuple[Tensor, ...]:
    """Of a network of both nodes and their distance, as EGNN has them."""
    m = torch.tanh(p.i(x) @ w + p.j(x) + (p.i(x) - p.j(x)).square().sum(-1, keepdim=True))
    return (x + p.mean(m) * p.sum(m @ w, 0) * p.count,)


def _moments(p: Dense, x: Tensor, w: Tensor) -> tuple[Tensor, ...]:
    m = p.i(x @ w) * p.j(x)
    variance = p.mean((m - p.i(p.mean(m))).square())
    spread = torch.where(variance > 1e-9, variance, variance.new_ones(())).sqrt()
    return torch.where(variance > 1e-9, spread, spread.new_zeros(())), p.max(m) * -p.max(-m)


TEXTS: dict[str, tuple[str, Callable[..., tuple[Tensor, ...]]]] = {
    "attention": (
        """alpha = softmax(dot(lin(x)[i], x[j]))
        out = softmax(cos(x)[i] * x[j]) at j
        return sum(alpha * sin(x)[j]), sum(out * x[i]) at j""",
        _attention,
    ),
    "messages": (
        """message m = tanh(lin(x[i]) + x[j] + sum[d]((x[i] - x[j]) ** 2))
        update y = x + mean(m) * (sum(lin(m)) at j) * degree(i)""",
        _messages,
    ),
    "moments": (
        """m = lin(x)[i] * x[j]
        return std(m), max(m) * min(m)""",
        _moments,
    ),
}


def layer(body: str, backend: str, loops: bool = True) -> gdsl.Layer:
    torch.manual_seed(0)
    head = f"graph complete(loops = {str(loops).lower()}) node x[d]"
    own = "param w[d, d'] ~ normal def lin(z) = rename(z @ w, d' -> d)" if "lin(" in body else ""
    return gdsl.compile(f"layer L(d) {{ {head} {own} {body} }}", d=4, backend=backend).double()


def batch_of(name: str) -> Tensor | None:
    return None if BATCHES[name] is None else torch.tensor(BATCHES[name])


def derivatives(values: tuple[Tensor, ...], leaves: list[Tensor]) -> list[Tensor]:
    score = sum((v * torch.cos(torch.arange(v.numel()).view_as(v))).sum() for v in values)
    first = torch.autograd.grad(score, leaves, create_graph=True, materialize_grads=True)
    second = torch.autograd.grad(sum(g.sin().sum() for g in first), leaves, materialize_grads=True)
    return [*values, *first, *second]


# The others take some seconds each in Triton's interpreter.
QUICK = (("attention", False), ("moments", True))
WAYS = [
    pytest.param(backend, name, loops, marks=[pytest.mark.slow] * (backend == "triton" and (name, loops) not in QUICK))
    for backend in BACKENDS
    for name in TEXTS
    for loops in (True, False)
]


@pytest.mark.filterwarnings("ignore:(invalid|divide|overflow):RuntimeWarning")  # of NumPy, in Triton's interpreter
@pytest.mark.parametrize(("backend", "name", "loops"), WAYS)
def test_values_and_two_derivatives(backend: str, name: str, loops: bool) -> None:
    text, expected = TEXTS[name]
    made = layer(text, backend, loops)
    for batch in map(batch_of, ["unsorted"] if backend == "triton" else BATCHES):
        x = (0.5 + torch.rand(NODES, 4, dtype=torch.float64)).requires_grad_()
        found, leaves = made(x, batch=batch), [x, made.w]
        found = derivatives(found if isinstance(found, tuple) else (found,), leaves)
        wanted = derivatives(expected(Dense(batch, loops), x, made.w), leaves)
        for one, other in zip(found, wanted, strict=True):
            assert torch.allclose(one, other, rtol=1e-8, atol=1e-8)


@pytest.mark.filterwarnings("ignore:(invalid|divide|overflow):RuntimeWarning")
@pytest.mark.parametrize("backend", BACKENDS)
def test_modules_that_are_read_take_edge_values(backend: str) -> None:
    """Linear maps, networks that a text makes, and a user's module: each becomes a part of the program."""
    text = """layer Net(d, h) {
        graph complete
        node x[d]
        mlp phi(2 * d -> h -> d, tanh)
        linear maps[2](d -> d)
        module gate
        m = phi(cat(x[i], x[j])) * gate(maps[1](x[i] - x[j]); d)
        update y = x + sum(m)
    }"""
    torch.manual_seed(0)
    gate = nn.Sequential(nn.Linear(2, 2), nn.Sigmoid())
    made = gdsl.compile(text, d=2, h=3, gate=gate, backend=backend).double()
    x, batch = torch.randn(5, 2, dtype=torch.float64, requires_grad=True), torch.tensor([1, 0, 1, 1, 2])
    i, j = (v.expand(5, 5, 2) for v in (x[:, None], x[None]))
    wanted = x + Dense(batch, True, 5).sum(made.phi(torch.cat([i, j], -1)) * made.gate(made.maps[1](i - j)))
    leaves = [x, *made.phi.parameters(), *made.gate.parameters(), *made.maps[1].parameters()]
    for one, other in zip(derivatives((made(x, batch=batch),), leaves), derivatives((wanted,), leaves), strict=True):
        assert torch.allclose(one, other, rtol=1e-8, atol=1e-8)


def test_modules_inside_a_layer_that_is_called() -> None:
    text = """layer Inner(d) { linear map(d -> d) node x[d] message m = map(x[i] * x[j]) update y = sum(m) }
    layer Outer(d) { graph complete use inner = Inner(d) node x[d] update y = x + inner(x) }"""
    made = gdsl.compile(text, layer="Outer", d=2, backend="torch").double()
    x, batch = torch.randn(5, 2, dtype=torch.float64), torch.tensor([1, 0, 1, 1, 2])
    weight, bias = (p for _, p in sorted(made.named_parameters(), reverse=True))
    m = (x[:, None] * x) @ weight.T + bias
    assert torch.allclose(made(x, batch=batch), x + Dense(batch, True, 5).sum(m))


class Flipped(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flip(-1)


def hooked() -> nn.Module:
    made = nn.Linear(4, 4)
    made.register_forward_hook(lambda *_: None)
    return made


@pytest.mark.parametrize("make", [Flipped, hooked, lambda: nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))])
def test_modules_that_run_as_they_are_are_refused_by_name(make: Callable[[], nn.Module]) -> None:
    head = "layer L(d) { graph complete node x[d] module phi"
    with pytest.raises(LanguageError, match="module `phi` runs as it is"):
        gdsl.compile(f"{head} update y = sum(phi(x[i] * x[j])) }}", d=4, phi=make())
    # On nodes there is nothing against it, nor on the edges of a list.
    made = gdsl.compile(f"{head} update y = sum(phi(x; d)[j]) }}", d=4, phi=make().eval())
    listed = gdsl.compile("layer L(d) { node x[d] module phi update y = sum(phi(x[i] * x[j])) }", d=4, phi=make())
    x = torch.randn(3, 4)
    assert torch.allclose(made(x), made.phi(x).sum(0).expand(3, 4), atol=1e-6)
    with pytest.raises(GraphError, match="complete graph: module `phi` runs as it is"):
        listed(x, gdsl.CompleteGraph(num_nodes=3))


@pytest.mark.parametrize(("loops", "heads", "width"), [(True, 2, 5), (False, 4, 16)])
def test_many_nodes(loops: bool, heads: int, width: int) -> None:
    """Graphs of more and of fewer nodes than a kernel takes at a time, with several vectors a node."""
    text = """layer Heads(heads, width) {
        graph complete(loops = true)
        node q[heads, width]
        node k[heads, width]
        alpha = softmax(sum[width](q[i] * k[j]))
        near = sum(where(sum[width](k[i] * tanh(k)[j]) > 0, 1, 0))
        return sum(alpha * k[j]), sum(tanh(sum[width](q[j] * k[i]))) at j * near
    }"""
    made = gdsl.compile(text.replace("true", str(loops).lower()), heads=heads, width=width, backend="cpp").double()
    batch = torch.tensor([0] * 70 + [1] + [2] * 33 + [3] * 9)[torch.randperm(113, generator=torch.manual_seed(2))]
    q, k = (torch.randn(113, heads, width, dtype=torch.float64, requires_grad=True) for _ in range(2))
    p = Dense(batch, loops, 113)
    alpha = p.softmax(torch.einsum("ihw,jhw->ijh", q, k))
    near = p.sum((torch.einsum("ihw,jhw->ijh", k, k.tanh()) > 0).double())
    wanted = torch.einsum("ijh,jhw->ihw", alpha, k), p.sum(torch.einsum("jhw,ihw->ijh", q, k).tanh(), 0) * near
    for one, other in zip(derivatives(made(q, k, batch=batch), [q, k]), derivatives(wanted, [q, k]), strict=True):
        assert torch.allclose(one, other, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("loops", [True, False])
def test_ties_share_a_gradient_and_a_draw_is_of_its_edge(backend: str, loops: bool) -> None:
    """Which edges win, and which are dropped, is told by their numbers: the same by both ends, on all backends."""
    text = "return max(tanh(x)[i] * tanh(x)[j]), sum(dropout(x[j], 0.5)), sum(dropout(x[i], 0.5)) at j"
    rows = [[1.0, 2, 2, 1], [1, 2, 3, 1], [1, 1, 2, 1], [1, 5, 4, 2], [1, 0, 0, 0]]
    x = torch.tensor(rows, dtype=torch.float64, requires_grad=True)
    found = []
    for one in (layer(text, backend, loops), layer(text, "torch", loops)):
        torch.manual_seed(3)
        values = one(x, batch=torch.tensor([1, 0, 1, 0, 1]))
        found.append([*values, *torch.autograd.grad(sum((v * v).sum() for v in values), x)])
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other)


@pytest.mark.parametrize("backend", ["torch", "cpp"])
def test_the_largest_of_each_graph(backend: str) -> None:
    made = layer("few = where(topk(x[j], 2), x[j], 0) return sum(few), argmax(x[i] * 0 + x[j], x[j])", backend)
    x = torch.tensor([3.0, 1, 2, 5, 4]).double()[:, None].expand(-1, 4)
    few, newest = made(x, batch=torch.tensor([0, 1, 0, 0, 1]))
    assert few[:, 0].tolist() == [8.0, 5.0, 8.0, 8.0, 5.0]
    assert newest[:, 0].tolist() == [5.0, 4.0, 5.0, 5.0, 4.0]


@pytest.mark.parametrize("backend", ["torch", "cpp"])
def test_a_mask_and_values_of_graphs(backend: str) -> None:
    made = gdsl.compile(
        """layer L(d) {
            graph complete
            node x[d]
            node keep: bool
            graph u[d]
            alpha = softmax(where(keep[j], dot(x[i], x[j]), -inf))
            update y = sum(alpha * (x + u[g])[j])
            pool whole = mean(y)
            return y, whole
        }""",
        d=2,
        backend=backend,
    ).double()
    x, u = torch.randn(4, 2, dtype=torch.float64), torch.randn(2, 2, dtype=torch.float64)
    batch, keep = torch.tensor([0, 0, 1, 1]), torch.tensor([True, True, False, False])
    y, whole = made(x, keep, u, batch=batch)
    first = torch.softmax(x[:2] @ x[:2].T, 1) @ (x[:2] + u[0])
    assert torch.allclose(y, torch.cat([first, torch.zeros(2, 2)])) and torch.allclose(whole[0], first.mean(0))


@pytest.mark.parametrize("backend", ["torch", "cpp"])
def test_no_nodes_and_graphs_of_one(backend: str) -> None:
    body = "return sum(softmax(dot(x[i], x[j])) * x[j]), degree(i) + 0 * x"
    for loops in (True, False):
        made, none = layer(body, backend, loops), torch.zeros(0, 4, dtype=torch.float64, requires_grad=True)
        y, degree = made(none, batch=torch.zeros(0, dtype=torch.long))
        (y.sum() + degree.sum()).backward()
        assert y.shape == (0, 4) and made(none)[0].shape == (0, 4)
        x = torch.randn(3, 4, dtype=torch.float64)
        y, degree = made(x, batch=torch.tensor([4, 9, 5]))
        assert torch.allclose(y, x * loops) and degree[:, 0].tolist() == [float(loops)] * 3


def test_nothing_of_all_pairs_lies_in_memory() -> None:
    """Neither forward nor backward nor in the second derivative: half a million pairs of 800 nodes."""
    made = layer(TEXTS["attention"][0], "cpp")
    batch = torch.cat([torch.zeros(700), torch.arange(1, 101)]).long()
    x = torch.rand(800, 4, dtype=torch.float64, requires_grad=True)
    derivatives(made(x, batch=batch), [x, made.w])  # compiled
    with torch.profiler.profile(profile_memory=True) as seen:
        derivatives(made(x, batch=batch), [x, made.w])
    assert max(event.cpu_memory_usage for event in seen.events()) < 700 * 700  # a byte a pair
    assert any("nodes j of the graph of node i, as sources" in k.source for k in made.kernels)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("node x edge w update y = sum(w * x[j])", "`w` would be a number for each pair of nodes"),
        ("node x edge w = 1 update y = sum(w * x[j])", "`w` would be a number for each pair of nodes"),
        ("node x a = softmax(x[j] * x[i]) return sum(a), a", "would be as large as all pairs"),
        ("node x update y = median(x[j])", "a median or quantile takes edge values that lie in memory"),
        ("node x update y = sum(sparsemax(x[i] * x[j]) * x[j])", "`sparsemax` takes edge values that lie in memory"),
        ("reduce f(acc, m) = 0.9 * acc + m init 0 node x update y = f(x[j])", "have no order"),
        ("node x m = x[i] + 2 * x[j] update y = sum(m * m[reverse])", "with i and j exchanged"),
        ("node x m = x[i] + 2 * x[j] update y = sum(sum(m[kj] * m[ji]))", "triples of nodes"),
        ("node x node r: int(3) update y = x * sum[3](max(x[j]) by r[j])", "by kind"),
        ("source x target z update y = z + sum(x[j])", "joins the nodes of one set"),
    ],
)
def test_what_would_be_stored_is_refused(text: str, message: str) -> None:
    with pytest.raises(LanguageError, match=message):
        gdsl.compile(f"layer L {{ graph complete {text} }}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("graph complete graph add_self_loops", "`graph add_self_loops` would change it"),
        ("graph remove_self_loops graph complete", "`graph remove_self_loops` would change it"),
        ("graph complete graph complete", "`graph complete` would change it"),
        ("graph complete(loops = 0)", "true or false"),
        ("s = sum(x[j]) graph complete", "move it up"),
    ],
)
def test_misplaced(text: str, message: str) -> None:
    with pytest.raises(LanguageError, match=message):
        gdsl.compile(f"layer L {{ node x {text} update y = sum(x[j]) }}")


def test_a_batch_that_does_not_fit() -> None:
    made = layer("update y = sum(x[j])", "cpp")
    x = torch.zeros(3, 4, dtype=torch.float64)
    with pytest.raises(InputError, match=r"`batch` must have shape \[3\]"):
        made(x, batch=torch.zeros(2, dtype=torch.long))
    with pytest.raises(InputError, match="int64 or int32"):
        made(x, batch=torch.zeros(3))
    with pytest.raises(InputError, match="there is no `graph`"):
        made(x, graph=torch.zeros(2, 0, dtype=torch.long))


def test_a_gradient_that_would_be_added_from_a_list() -> None:
    """That of a matrix with more numbers than a core's cache holds: refused before any kernel runs."""
    text = "layer L(d, k) { graph complete node x[d] param w[d, k] ~ normal update y = sum(tanh((x[i] * x[j]) @ w)) }"
    made = gdsl.compile(text, d=260, k=260, backend="cpp")
    x = torch.randn(2, 260)
    with pytest.raises(GraphError, match="values of all pairs would have to be stored"):
        made(x)
    made.requires_grad_(False)
    assert made(x).shape == (2, 260)
    made.backend = "torch"
    made.requires_grad_(True)
    made(x).sum().backward()


def test_a_part_of_a_distributed_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    made, x = layer("update y = sum(x[j])", "torch"), torch.zeros(3, 4, dtype=torch.float64)
    monkeypatch.setattr("gdsl.module.run.is_shared", lambda: True)
    with pytest.raises(GraphError, match="of which this process has a part"):
        made(x)


def test_a_look_inside() -> None:
    made, batch = layer("update y = sum(softmax(dot(x[i], x[j])) * x[j])", "cpp"), torch.tensor([1, 0, 1])
    x = torch.randn(3, 4, dtype=torch.float64)
    made(x, batch=batch)
    assert "graph=all_pairs([1, 0, 1], loops=True)" in str(made.reproduce(x, batch=batch))
    assert "5 edges" in str(made.explain(gdsl.CompleteGraph(batch)))


# ------------------------------------------------------------------------------------------- CompleteGraph


@pytest.mark.parametrize("backend", ["torch", "cpp"])
def test_any_layer_runs_on_a_complete_graph(backend: str) -> None:
    """What it gives is what it gives on the list of all edges."""
    torch.manual_seed(0)
    made = GATConv(4, 3, heads=2).double()
    made.backend = backend
    x, batch = torch.randn(6, 4, dtype=torch.float64, requires_grad=True), torch.tensor([1, 0, 1, 1, 0, 2])
    graph = gdsl.CompleteGraph(batch, loops=False)
    listed = gdsl.Graph(graph.edge_index, 6)
    found = []
    for g in (graph, listed):
        y = made(x, g)
        found.append([y, *torch.autograd.grad(y.sin().sum(), [x, *made.parameters()])])
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other)
    assert "_listed" not in gdsl.CompleteGraph(batch).__dict__


def test_a_layer_with_edge_values_is_refused_on_a_complete_graph() -> None:
    graph, x = gdsl.CompleteGraph(num_nodes=3), torch.zeros(3)
    for text in ("edge w update y = sum(w * x[j])", "return x, x[i]", "update y = median(x[j])"):
        made = gdsl.compile(f"layer L {{ node x {text} }}")
        with pytest.raises(GraphError, match="cannot run on a complete graph"):
            made(x, graph, *[torch.zeros(9)] * ("edge" in text))


def test_a_complete_graph() -> None:
    batch = torch.tensor([1, 0, 1, 2])
    for loops in (True, False):
        graph = gdsl.CompleteGraph(batch, loops=loops)
        expected = Dense(batch, loops, 4).mask
        source, target = graph.edge_index
        found = torch.zeros(4, 4, dtype=torch.bool)
        found[target, source] = True
        assert torch.equal(found, expected) and graph.num_edges == int(expected.sum())
        assert graph.in_degree.tolist() == expected.sum(1).tolist() == graph.out_degree.tolist()
        assert graph.remove_self_loops().graph.num_edges == 2 and graph.add_self_loops().graph.num_edges == 6
        again = pickle.loads(pickle.dumps(graph))
        for other in (again, graph.to("cpu"), graph.reverse(), graph.non_backtracking().graph):
            assert torch.equal(other.edge_index, graph.edge_index)
        assert graph.repeat(2).num_edges == 2 * graph.num_edges
    with pytest.raises(GraphError, match="do not lie in memory"):
        _ = graph.reversed_edges
    with pytest.raises(GraphError, match="triples"):
        _ = graph.pairs


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "needs `batch`"),
        ({"num_nodes": 2.5}, "must be an int"),
        ({"num_nodes": -1}, "not be negative"),
        ({"batch": torch.zeros(3)}, "must hold integers"),
        ({"batch": torch.zeros(3, 1).long()}, "must hold integers"),
        ({"batch": [0, 1]}, "must be a tensor"),
        ({"batch": torch.tensor([0, -2, 1])}, "node 1 is in graph -2"),
        ({"batch": torch.tensor([-1], dtype=torch.int8)}, "node 0 is in graph -1"),
        ({"batch": torch.zeros(3).long(), "num_nodes": 2}, "3 entries, and there are 2 nodes"),
    ],
)
def test_a_complete_graph_of_nothing(given: dict, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        gdsl.CompleteGraph(**given)


def test_a_batch_that_was_written_to_is_read_again() -> None:
    batch, device = torch.tensor([0, 0, 1]), torch.device("cpu")
    first = complete_graph(batch, 3, True, device)
    assert complete_graph(batch, 3, True, device) is first
    assert complete_graph(batch, 3, False, device).num_edges == 2
    batch[1] = 1
    assert complete_graph(batch, 3, True, device).in_degree.tolist() == [1, 2, 2]
    with torch.inference_mode():
        made = layer("update y = sum(x[j])", "torch")
        assert made(torch.ones(3, 4).double(), batch=torch.tensor([0, 1, 1]))[:, 0].tolist() == [1.0, 2.0, 2.0]


@pytest.mark.parametrize("loops", [True, False])
def test_under_torch_compile(loops: bool) -> None:
    made = layer("update y = sum(softmax(dot(x[i], x[j])) * x[j])", "cpp", loops)
    compiled = torch.compile(made, fullgraph=True)
    x = torch.rand(NODES, 4, dtype=torch.float64, requires_grad=True)
    for batch in (batch_of("unsorted"), batch_of("sorted")):
        found, expected = (f(x, batch=batch) for f in (compiled, made))
        assert torch.allclose(found, expected)
        assert torch.allclose(*(torch.autograd.grad(y.sin().sum(), x)[0] for y in (found, expected)))
