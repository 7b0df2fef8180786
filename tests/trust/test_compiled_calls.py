"""Calls of every shape: torch.compile and torch.export give what the layer gives, values, gradients and errors.

Layers whose inputs are integers alone, that only pool, that have no node inputs, and with every choice of the optional
ones; graphs as edges and as :class:`gdsl.Graph`; several changes of the graph, and values of edges on it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gdsl
import gdsl.nn
from gdsl.nn.conv.inputs import Misfit

EDGES = torch.tensor([[0, 1, 2, 3, 4, 4, 2, 0], [1, 2, 0, 0, 3, 4, 2, 2]])
ACROSS = torch.tensor([[0, 1, 2, 3, 4, 4], [1, 2, 0, 0, 3, 3]])
BATCH = torch.tensor([0, 0, 1, 1, 1])
KINDS = torch.tensor([0, 1, 2, 1, 0])

Args = tuple[tuple[Any, ...], dict[str, Any]]


def real(*shape: int) -> Tensor:
    return torch.linspace(-1, 1, torch.Size(shape).numel(), dtype=torch.float64).sin().view(shape)


X, Y, W, E = real(5, 3), real(4, 3), real(8) + 1, real(8, 2)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compiled(layer: nn.Module, **options: Any) -> Callable[..., Any]:
    return torch.compile(layer, fullgraph=True, **{"backend": "aot_eager", **options})  # type: ignore[no-any-return]


def exported(layer: nn.Module, strict: bool) -> Callable[..., Any]:
    """Exported anew for each call."""

    def run(*args: Any, **kwargs: Any) -> Any:
        return torch.export.export(layer, args, kwargs, strict=strict).module()(*args, **kwargs)

    return run


WAYS: dict[str, Callable[[nn.Module], Callable[..., Any]]] = {
    "compiled": compiled,
    "compiled for all sizes": lambda layer: compiled(layer, dynamic=True, backend="eager"),
    "exported": lambda layer: exported(layer, strict=False),
    "exported strictly": lambda layer: exported(layer, strict=True),
}

# Those that take a pair with None in it: ``torch.export(strict=True)`` does not.
LAX = ["compiled for all sizes", "exported", "compiled"]


def outcome(layer: nn.Module, call: Callable[..., Any], args: Args) -> list[Tensor] | Exception:
    """Results and gradients, or the error."""
    given = torch.utils._pytree.tree_map(
        lambda v: v.clone().requires_grad_() if isinstance(v, Tensor) and v.is_floating_point() else v, args
    )
    leaves = [v for v in torch.utils._pytree.tree_leaves(given) if isinstance(v, Tensor) and v.requires_grad]
    leaves += list(layer.parameters())
    try:
        found = call(*given[0], **given[1])
    except Exception as error:
        return error
    results = list(found) if isinstance(found, tuple) else [found]
    score = sum((r * real(*r.shape)).sum() for r in results if r.requires_grad)
    grads = torch.autograd.grad(score, leaves, allow_unused=True) if isinstance(score, Tensor) else [None] * len(leaves)
    return [*results, *(torch.zeros_like(x) if g is None else g for g, x in zip(grads, leaves, strict=True))]


def same(layer: nn.Module, args: Args, ways: list[str] | None = None) -> None:
    """Every way gives what the layer gives, or refuses what it refuses, with an error of gdsl that says the same."""
    wanted = outcome(layer, layer, args)
    for way in ways or WAYS:
        torch._dynamo.reset()
        found = outcome(layer, WAYS[way](layer), args)
        if isinstance(wanted, Exception):
            assert isinstance(wanted, gdsl.GdslError), wanted
            assert isinstance(found, type(wanted)), (way, found)
            assert str(found).startswith(str(wanted)), (way, found)
        else:
            assert not isinstance(found, Exception), (way, found)
            for a, b in zip(found, wanted, strict=True):
                torch.testing.assert_close(a, b, msg=lambda text, way=way: f"{way}: {text}")


# ------------------------------------------------------------------------------------------ programs

PROGRAMS: dict[str, tuple[str, list[Args]]] = {
    "integers of nodes": (
        "layer P(d = 2) { node k: int(3) param t[3, d] ~ glorot aggregate a = sum(t[k[j]]) update y = a }",
        [((KINDS, EDGES), {}), ((KINDS.int(), EDGES.int()), {})],
    ),
    "integers of edges": (
        "layer P(d = 2) { edge k: int(3) param t[3, d] ~ glorot aggregate a = sum(t[k]) update y = a }",
        [((EDGES, torch.arange(8) % 3), {}), ((torch.zeros(2, 0, dtype=torch.long), torch.arange(0)), {})],
    ),
    "integers and no parameters": (
        "layer P { node k: int(3) node b: bool aggregate a = max(k[j]) update y = where(b, 0.5 * a, k) }",
        [((KINDS, KINDS > 0, EDGES), {})],
    ),
    "integers, pooled": (
        "layer P { node k: int(3) pool z = max(k) pool m = mean(k) return z, m }",
        [((KINDS, EDGES), {}), ((KINDS, EDGES), {"batch": BATCH}), ((KINDS, EDGES), {"batch": BATCH, "num_graphs": 3})],
    ),
    "pooled": (
        "layer P(d = 3) { node x[d] param w[d, d'] ~ glorot pool z = mean(x @ w) return z }",
        [
            ((X, EDGES), more)
            for more in (
                {},
                {"batch": BATCH},
                {"batch": BATCH, "num_graphs": 4},
                {"num_graphs": 2},
                {"batch": BATCH.int()},
            )
        ],
    ),
    "no inputs": (
        "layer P(d = 2) { param w[d] ~ glorot aggregate a = sum(w) update y = a + w }",
        [((EDGES,), {}), ((EDGES.int(),), {})],
    ),
    "sources alone": (
        "layer P(d = 3) { source x[d] aggregate a = sum(x[j]) update y = a }",
        [((X, ACROSS), {}), ((X, ACROSS.flip(0)), {})],
    ),
    "two changes of the graph": (
        "layer P(d = 3) { graph remove_self_loops graph add_self_loops(w = 0.5, k = 1) node x[d] edge w edge k: int(2)"
        " aggregate a = sum(w * x[j] * (1 + k)) update y = a }",
        [((X, EDGES, W, torch.arange(8) % 2), {})],
    ),
    "two additions of loops": (
        'layer P(d = 3) { graph add_self_loops(w = "mean") graph add_remaining_self_loops(w = 7) node x[d] edge w'
        " aggregate a = sum(w * x[j]) update y = a }",
        [((X, EDGES, W), {})],
    ),
    "the same everywhere": (
        "layer P(d = 3) { node x[d] global q[d] global t = 1 aggregate a = sum(x[j]) update y = t * a * q }",
        [((X, X[0].clone(), EDGES), {}), ((X, X[1].clone(), EDGES), {"t": torch.tensor(0.5)})],
    ),
    "queries": (
        "layer P(d = 3, R = 2) { node x[d] edge rel: int(R) global q[R, d] aggregate a = sum(q[rel] * x[j])"
        " update y = a }",
        [((X, X[:2].clone(), EDGES, torch.arange(8) % 2), {})],
    ),
    "a change of a graph without features": (
        'layer P(d = 2) { graph add_remaining_self_loops(w = "max") edge w param p[d] ~ glorot aggregate a = sum(w * p)'
        " update y = a }",
        [((EDGES, W), {})],
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs(name: str) -> None:
    text, calls = PROGRAMS[name]
    layer = gdsl.compile(text).double()
    same(layer, calls[0], ["compiled for all sizes", "exported strictly"])
    for args, way in zip(calls[1:], itertools.cycle(["compiled", "exported"]), strict=False):
        same(layer, args, [way])


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_in_every_way(name: str) -> None:
    text, calls = PROGRAMS[name]
    layer = gdsl.compile(text).double()
    for args in calls:
        same(layer, args)


OPTIONAL = """
layer P(d = 3) {
    graph add_self_loops(w = 1)
    node x[d]
    node z[d] = none
    node k: int(3) = none
    edge w = none
    graph u[d] = none
    param t[3, d] ~ glorot

    h = x
    if z { h = h + z }
    if k { h = h * t[k] }
    message m = h[j]
    if w { m = w * m }
    aggregate a = sum(m)
    y = a
    if u { y = y * u[g] }
    return y
}
"""
GIVEN: dict[str, Any] = {"z": X.sin(), "k": KINDS, "w": W, "u": real(2, 3), "batch": BATCH}
CHOICES = [names for count in range(len(GIVEN) + 1) for names in itertools.combinations(GIVEN, count)]


@pytest.mark.parametrize(
    "ways", [pytest.param(None, marks=pytest.mark.slow), *(pytest.param([way], id=way) for way in WAYS)]
)
def test_every_choice_of_optional_inputs(ways: list[str] | None) -> None:
    """All in every way with ``--slow``, otherwise a quarter in each."""
    layer = gdsl.compile(OPTIONAL, backend="torch").double()
    first = 0 if ways is None else list(WAYS).index(ways[0])
    for names in CHOICES if ways is None else CHOICES[first :: len(WAYS)]:
        same(layer, ((X, EDGES), {name: GIVEN[name] for name in names}), ways)


def test_one_compilation_for_each_choice_of_optional_inputs() -> None:
    """What was recorded without an input is not used with it, nor the other way round."""
    layer = gdsl.compile(OPTIONAL, backend="torch").double()
    call = compiled(layer)
    for names in [(), ("w",), ("z", "w"), ("z",), (), ("w",), ("k",)]:
        given = {name: GIVEN[name] for name in names}
        torch.testing.assert_close(call(X, EDGES, **given), layer(X, EDGES, **given))


# ------------------------------------------------------------------------------------------ mistakes

MISTAKES: dict[str, Args] = {
    "missing": ((X,), {}),
    "too many": ((X, EDGES, 1, 2, 3, 4, 5, 6), {}),
    "twice": ((X, EDGES), {"x": X}),
    "unknown": ((X, EDGES), {"y": X}),
    "no tensor": ((X.tolist(), EDGES), {}),
    "dims": ((X[:, :2], EDGES), {}),
    "dims of another": ((X, EDGES), {"z": X[:, None]}),
    "a number": ((X.sum(), EDGES), {}),
    "dtype": ((X.float(), EDGES), {}),
    "kind": ((X, EDGES), {"k": X[:, 0]}),
    "rows": ((X, EDGES), {"z": X[:4]}),
    "rows of edges": ((X, EDGES), {"w": W[:3]}),
    "rows of graphs": ((X, EDGES), {"u": real(3, 3), "batch": BATCH, "num_graphs": 2}),
    "batch of floats": ((X, EDGES), {"batch": BATCH.double()}),
    "batch of rows": ((X, EDGES), {"batch": BATCH[:3], "num_graphs": 2}),
    "no count": ((X, EDGES), {"num_graphs": "two"}),
    "a negative count": ((X, EDGES), {"num_graphs": -1}),
    "a node that there is not": ((X, EDGES + 1), {}),
    "edges of floats": ((X, EDGES.double()), {}),
    "edges of three rows": ((X, torch.cat([EDGES, EDGES[:1]])), {}),
}

UNBOUND = {"missing", "twice", "unknown"}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes(case: str) -> None:
    """The layer's own error, which Dynamo does not wrap. What fits no signature is torch.export's to refuse."""
    ways = ["compiled"] if case in UNBOUND else ["compiled", "exported", "exported strictly"]
    same(gdsl.compile(OPTIONAL, backend="torch").double(), MISTAKES[case], ways)


@pytest.mark.parametrize("case", sorted(UNBOUND))
def test_an_export_of_arguments_that_fit_no_signature(case: str) -> None:
    args, kwargs = MISTAKES[case]
    with pytest.raises(TypeError):
        torch.export.export(gdsl.compile(OPTIONAL, backend="torch").double(), args, kwargs, strict=False)


def test_mistakes_at_layers_of_the_library() -> None:
    """With the names of the call's arguments; what torch raises there, too."""
    conv = gdsl.nn.GCNConv(3, 2).double()
    for args in [(X, EDGES, W[:3]), (X[:, :2], EDGES), (X.float(), EDGES)]:
        with pytest.raises(Misfit) as wanted:
            conv(*args)
        for call in (compiled(conv), exported(conv, strict=False)):
            torch._dynamo.reset()
            with pytest.raises(Misfit) as found:
                call(*args)
            assert str(found.value).startswith(str(wanted.value))


def test_a_graph_of_another_kind_runs_as_it_is_where_a_tracer_may_stop() -> None:
    layer, matrix = gdsl.compile(OPTIONAL, backend="torch").double(), torch.sparse_coo_tensor(EDGES.flip(0), W, (5, 5))
    torch.testing.assert_close(torch.compile(layer, backend="eager")(X, matrix), layer(X, matrix))


# -------------------------------------------------------------------------------------------- layers

TEXT = "layer P(d = 3, p = 2.0) { node x[d] aggregate a = SUM(x[j]) update y = p * a }"


@pytest.mark.parametrize("backend", ["eager", pytest.param("aot_eager", marks=pytest.mark.slow)])
def test_layers_of_other_texts_and_arguments_share_no_trace(backend: str) -> None:
    """All layers have one ``forward``: what was recorded of one is for those of the same text and arguments alone."""
    layers = [gdsl.compile(TEXT.replace("SUM", how), backend="torch") for how in ("sum", "max")]
    layers += [gdsl.compile(TEXT.replace("SUM", "max"), backend="torch", p=p) for p in (3.0, 2.0)]
    x = X.float()
    shared = torch.compile(lambda layer, x: layer(x, EDGES), backend=backend, fullgraph=True)
    for layer in layers:
        torch.testing.assert_close(compiled(layer, backend=backend)(x, EDGES), layer(x, EDGES))
        torch.testing.assert_close(shared(layer, x), layer(x, EDGES))
    layers[0].arguments["p"] = 5.0
    torch.testing.assert_close(shared(layers[0], x), layers[0](x, EDGES))


SIZE = {"size": (5, 4)}
LIBRARY: dict[str, tuple[Callable[[], nn.Module], list[Args]]] = {
    "GCNConv": (lambda: gdsl.nn.GCNConv(3, 2), [((X, EDGES), {}), ((X, EDGES.int(), W), {})]),
    "SAGEConv": (
        lambda: gdsl.nn.SAGEConv((3, 3), 2),
        [((X, EDGES), {}), (((X, Y), ACROSS), {}), (((X, None), ACROSS), SIZE), (((X, None), EDGES), {})],
    ),
    "GINConv": (
        lambda: gdsl.nn.GINConv(nn.Sequential(nn.Linear(3, 2), nn.ReLU())),
        [((X, EDGES), {}), (((X, Y), ACROSS), {}), (((X, None), ACROSS), SIZE)],
    ),
    "GATConv": (
        lambda: gdsl.nn.GATConv(3, 2, edge_dim=2, fill_value="max"),
        [((X, EDGES), {}), ((X, EDGES, E), {})],
    ),
    "GATConv of pairs": (
        lambda: gdsl.nn.GATConv((3, 3), 2, add_self_loops=False),
        [(((X, Y), ACROSS), {}), (((X, None), ACROSS), SIZE)],
    ),
    "GraphConv": (
        lambda: gdsl.nn.GraphConv(3, 2),
        [((X, EDGES, W), {}), (((X, None), ACROSS), SIZE), (((X, Y), ACROSS, W[:6]), {})],
    ),
    "NNConv": (
        lambda: gdsl.nn.NNConv(3, 2, nn.Linear(2, 6)),
        [((X, EDGES, E), {}), ((X, EDGES), {}), (((X, None), ACROSS, E[:6]), SIZE)],
    ),
    "RGCNConv": (
        lambda: gdsl.nn.RGCNConv(5, 2, 3),
        [((None, EDGES, torch.arange(8) % 3), {}), ((torch.arange(5), EDGES, torch.arange(8) % 3), {})],
    ),
    "ChebConv": (
        lambda: gdsl.nn.ChebConv(3, 2, 2),
        [
            ((X, EDGES), {"batch": BATCH, "lambda_max": torch.tensor([2.0, 3.0])}),
            ((X, EDGES, W), {"lambda_max": 2.5}),
        ],
    ),
    "PointNetConv": (lambda: gdsl.nn.PointNetConv(), [((X, X, EDGES), {}), ((None, X, EDGES), {})]),
    "CGConv": (lambda: gdsl.nn.CGConv(3, dim=2), [((X, EDGES, E), {}), ((X, EDGES), {})]),
    "GINEConv": (lambda: gdsl.nn.GINEConv(nn.Linear(3, 2), edge_dim=2), [((X, EDGES, E), {}), ((X, EDGES), {})]),
}


def of_library(name: str) -> tuple[nn.Module, list[Args]]:
    make, calls = LIBRARY[name]
    layer = make().double()
    layer.backend = "torch"  # type: ignore[assignment]
    return layer, calls


@pytest.mark.parametrize("name", LIBRARY)
def test_layers_of_the_library(name: str) -> None:
    layer, calls = of_library(name)
    for args, way in zip(calls, itertools.cycle(LAX), strict=False):
        same(layer, args, [way])


@pytest.mark.slow
@pytest.mark.parametrize("name", LIBRARY)
def test_layers_of_the_library_in_every_way(name: str) -> None:
    layer, calls = of_library(name)
    for args in calls:
        same(layer, args, LAX)


# --------------------------------------------------------------------------------------------- sizes

GCN = """
layer GCN(c, d) {
    graph add_remaining_self_loops(w = 1)
    node x[c]
    edge w = 1
    param weight[c, d] ~ glorot
    deg = sum(w)
    norm = w * rsqrt(deg[j]) * rsqrt(deg[i])
    aggregate a = sum(norm * (x @ weight)[j])
    update y = a
}
"""
GAT = """
layer GAT(c, d) {
    graph add_self_loops
    node x[c]
    param weight[c, d] ~ glorot
    param att[d] ~ glorot
    h = x @ weight
    alpha = softmax(leaky_relu(dot(h[i] + h[j], att), 0.2))
    aggregate a = sum(alpha * h[j])
    update y = a
}
"""
STREAMED: dict[str, Callable[[], nn.Module]] = {
    "GCN": lambda: gdsl.compile(GCN, 3, 2, backend="torch"),
    "GAT": lambda: gdsl.compile(GAT, 3, 2, backend="torch"),
    "GCNConv": lambda: gdsl.nn.GCNConv(3, 2, backend="torch"),
    "SAGEConv": lambda: gdsl.nn.SAGEConv(3, 2, backend="torch"),
    "GINConv": lambda: gdsl.nn.GINConv(nn.Sequential(nn.Linear(3, 2), nn.ReLU()), backend="torch"),
    "GATConv": lambda: gdsl.nn.GATConv(3, 2, backend="torch"),
}


class Counting:
    """A backend that counts the graphs that it is given, forward and backward."""

    def __init__(self) -> None:
        self.forward = self.backward = 0

    def __call__(self, module: Any, examples: Any) -> Any:
        from torch._dynamo.backends.common import aot_autograd

        def count(which: str) -> Any:
            def compile(module: Any, _: Any) -> Any:
                setattr(self, which, getattr(self, which) + 1)
                return module

            return compile

        return aot_autograd(fw_compiler=count("forward"), bw_compiler=count("backward"))(module, examples)


@pytest.mark.parametrize("name", STREAMED)
def test_a_stream_of_graphs_is_compiled_once(name: str) -> None:
    """Thirty graphs of other sizes each, also two with as many nodes as edges and one without edges but for two."""
    layer, count = STREAMED[name](), Counting()
    call = torch.compile(layer, fullgraph=True, dynamic=True, backend=count)
    for k in range(30):
        nodes, edges = (7 + 3 * k, (7 + 3 * k) if k in (4, 9) else 2 if k == 11 else 11 + 5 * k)
        x = real(nodes, 3).float()
        index = torch.randint(0, nodes, (2, edges), generator=torch.Generator().manual_seed(k))
        found = outcome(layer, call, ((x, index), {}))
        wanted = outcome(layer, layer, ((x, index), {}))
        assert isinstance(found, list) and isinstance(wanted, list)
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(a, b)
    assert (count.forward, count.backward) == (1, 1)


def test_an_export_runs_on_other_sizes() -> None:
    """Also of what tells its sizes by its edges alone, and of what changes the graph twice."""
    auto = torch.export.Dim.AUTO
    for name in ("no inputs", "integers of edges", "two changes of the graph", "sources alone"):
        text, calls = PROGRAMS[name]
        layer, (args, _) = gdsl.compile(text, backend="torch").double(), calls[0]
        sizes = tuple(dict.fromkeys(range(v.dim()), auto) for v in args)
        for strict in (False, True):
            exported = torch.export.export(layer, args, strict=strict, dynamic_shapes=sizes)
            # Fewer edges.
            more = tuple(v[..., :5] if v.shape[-1] in (6, 8) else v for v in args)
            torch.testing.assert_close(exported.module()(*more), layer(*more))
