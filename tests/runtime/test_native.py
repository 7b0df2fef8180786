"""Calls that native code repeats: the same bits as Python's, and Python's call wherever something is not as it was."""

from __future__ import annotations

import contextlib
import copy
import gc
import io
import threading
import weakref
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

import gdsl
import gdsl.nn as gnn
from gdsl.module import repeated
from gdsl.module.shared import Repeated
from gdsl.passes.options import GraphShape
from gdsl.runtime import functions, native

pytestmark = pytest.mark.usefixtures("native_code")

GCN = """layer GCN(d, o) { param w[d, o] ~ glorot param b[o] ~ normal node x[d] graph add_self_loops
    h = x @ w / sqrt(degree(i)) aggregate a = sum(h[j]) update y = a / sqrt(degree(i)) + b }"""
ATTENTION = """layer A(d, h, o) { param w[d, h, o] ~ glorot param att[o] ~ normal node x[d] edge e
    z = x @ w s = exp(e) * (leaky_relu(z[i] + z[j], 0.2) @ att) p = softmax(s)
    aggregate a = sum(p * z[j]) update y = merge(a, h, o) }"""
TWO = """layer T(d) { param w[d] ~ normal node x[d] aggregate m = max(x[j] * w) aggregate s = sum(tanh(x[j]))
    update y = m + s return y, s }"""
BIPARTITE = """layer B(d, f, o) { source x[d] target z[f] param w[d, o] ~ glorot param v[f, o] ~ glorot
    aggregate a = mean(x[j]) update y = a @ w + z @ v }"""
DROPOUT = """layer D(d) { node x[d] param w[d] ~ normal aggregate a = sum(dropout(x[j] * w, 0.5)) update y = a }"""
EPS = """layer E(d) { node x[d] param eps ~ normal aggregate a = sum(x[j]) update y = a + (1 + eps) * x }"""
LAYERS = ["GCN", "attention", "two results", "bipartite", "dropout", "eps"]


def made(name: str) -> gdsl.Layer:
    torch.manual_seed(0)
    texts = dict(zip(LAYERS, (GCN, ATTENTION, TWO, BIPARTITE, DROPOUT, EPS), strict=True))
    sizes = {"d": 6, "o": 4, "h": 2, "f": 3}
    arguments = texts[name].partition("(")[2].partition(")")[0].split(", ")
    return gdsl.compile(texts[name], **{a: sizes[a] for a in arguments})


def inputs(name: str, nodes: int, edges: int, seed: int = 0) -> tuple[Any, ...]:
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(nodes, 6, generator=random).requires_grad_()
    edge_index = torch.randint(max(nodes, 1), (2, edges if nodes else 0), generator=random)
    if name == "attention":
        return x, edge_index, torch.randn(edge_index.shape[1], generator=random).requires_grad_()
    if name == "bipartite":
        return (x, torch.randn(nodes, 3, generator=random).requires_grad_()), edge_index
    return x, edge_index


def by(layer: nn.Module, args: tuple[Any, ...], **more: Any) -> list[Tensor]:
    """Results and gradients of everything."""
    tensors = [t for a in args for t in (a if isinstance(a, tuple) else (a,)) if isinstance(t, Tensor)]
    asked = [*(t for t in tensors if t.requires_grad), *(p for p in layer.parameters() if p.requires_grad)]
    torch.manual_seed(1)
    found = layer(*args, **more)
    results = list(found) if isinstance(found, tuple) else [found]
    if not any(r.requires_grad for r in results):
        return results
    total = sum((r * torch.linspace(0.5, 1.5, r.numel()).view_as(r)).sum() for r in results if r.requires_grad)
    grads = torch.autograd.grad(total, asked, allow_unused=True)
    return [*results, *(torch.zeros(()) if g is None else g for g in grads)]


@contextlib.contextmanager
def in_python(layer: nn.Module) -> Iterator[nn.Module]:
    """A copy of a layer whose calls are Python's."""
    module, state = native._module, native._state
    native._module, native._state = None, "missing"
    try:
        yield copy.deepcopy(layer)
    finally:
        native._module, native._state = module, state


def python(layer: nn.Module, *args: Any, **more: Any) -> list[Tensor]:
    with in_python(layer) as copied:
        return by(copied, *args, **more)


def is_native(result: Any) -> bool:
    tensor = result[0] if isinstance(result, tuple | list) else result
    return tensor.grad_fn is not None and tensor.grad_fn.name() == "GdslBackward"


def warm(layer: nn.Module, args: tuple[Any, ...]) -> nn.Module:
    """A layer whose calls with such tensors native code repeats."""
    for _ in range(4):
        by(layer, args)
    assert is_native(layer(*args))
    assert is_whole(layer, args)
    return layer


def is_whole(layer: nn.Module, args: tuple[Any, ...]) -> bool:
    """Whether native code repeats a call from its arguments on, and not stages of it."""
    with mock.patch.object(functions, "run", side_effect=functions.run) as stages:
        layer(*args)
    return not stages.called


def same(layer: nn.Module, args: tuple[Any, ...]) -> None:
    for a, b in zip(by(layer, args), python(layer, args), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", LAYERS)
def test_the_same_bits(name: str) -> None:
    layer = warm(made(name), inputs(name, 30, 60))
    for seed, (nodes, edges) in enumerate([(30, 60), (31, 55), (30, 60), (1, 1), (2, 9), (7, 0), (0, 0), (300, 900)]):
        for _ in range(3):  # other shapes are compiled for first
            same(layer, inputs(name, nodes, edges, seed))
    large = inputs(name, 500, 20_000)
    for _ in range(3):
        same(layer, large)
        assert not is_native(layer(*large))


@pytest.mark.parametrize("name", LAYERS)
def test_in_double_precision(name: str) -> None:
    def double(args: tuple[Any, ...]) -> tuple[Any, ...]:
        def wide(t: Tensor) -> Tensor:
            return t.detach().double().requires_grad_() if t.is_floating_point() else t

        return tuple(tuple(map(wide, a)) if isinstance(a, tuple) else wide(a) for a in args)

    layer = warm(made(name).double(), double(inputs(name, 20, 50)))
    same(layer, double(inputs(name, 21, 50, 3)))


def test_arguments_by_name() -> None:
    layer = warm(made("attention"), inputs("attention", 30, 60))
    x, edge_index, e = inputs("attention", 30, 60, 1)
    for _ in range(3):
        y = layer(x, graph=edge_index, e=e)
        assert torch.equal(y, layer(x, edge_index, e))
    assert is_native(y)
    for wrong in ({"nothing": e}, {"e": e, "x": x}):
        with pytest.raises(gdsl.InputError):
            layer(x, edge_index, **wrong)
    sizes = made("bipartite")
    for nodes, targets in ((30, 30), (30, 20), (12, 20), (12, 0)):
        z = torch.randn(targets, 3, requires_grad=True)
        edges = torch.stack(
            [torch.randint(nodes, (40 * bool(targets),)), torch.randint(max(targets, 1), (40 * bool(targets),))]
        )
        args = (torch.randn(nodes, 6, requires_grad=True), z), edges
        for _ in range(4):
            same(sizes, args)
        assert is_native(sizes(*args))
        assert torch.equal(sizes(*args), sizes(*args[0], edges))


def test_which_gradients_are_asked_for() -> None:
    layer = made("GCN")
    for _ in range(2):
        for x_asks, w_asks, b_asks in [(1, 1, 1), (0, 1, 1), (1, 0, 0), (0, 0, 1), (0, 0, 0), (1, 0, 1)]:
            layer.w.requires_grad_(bool(w_asks))
            layer.b.requires_grad_(bool(b_asks))
            for seed in range(4):
                x, edge_index = inputs("GCN", 30, 60, seed)
                args = x.detach().requires_grad_(bool(x_asks)), edge_index
                same(layer, args)
            assert is_native(layer(*args)) == bool(x_asks or w_asks or b_asks)
            with torch.no_grad():
                same(layer, args)


def test_inputs_that_do_not_lie_as_kernels_read_them() -> None:
    layer = warm(made("GCN"), inputs("GCN", 30, 60))
    x, edge_index = inputs("GCN", 30, 60, 5)
    wide = torch.randn(30, 12)
    kinds: list[tuple[Any, Any]] = [
        (wide[:, ::2].requires_grad_(), edge_index),
        (wide[:, :6].requires_grad_(), edge_index),
        (torch.randn(6, 30).t().requires_grad_(), edge_index),
        (torch.randn(1, 6).expand(30, 6).requires_grad_(), edge_index),
        (torch._neg_view(torch.randn(30, 6)).requires_grad_(), edge_index),
        (x, edge_index.int()),
        (x, edge_index.t().contiguous().t()),
        (x, edge_index.flip(1)),
        (x, gdsl.Graph(edge_index, 30)),
        (x, gdsl.Graph(edge_index, 30).reverse()),
        (nn.Parameter(torch.randn(30, 6)), edge_index),
    ]
    for kind in kinds:
        for _ in range(3):
            same(layer, kind)


def test_a_graph_is_prepared_once() -> None:
    layer, x = made("GCN"), torch.randn(30, 6, requires_grad=True)
    graph = gdsl.Graph(torch.randint(30, (2, 60)), 30)
    warm(layer, (x, graph))
    assert graph._small is graph._small
    again = copy.deepcopy(graph)
    assert "_small" not in again.__dict__
    same(layer, (x, again))


def test_edges_that_are_written_to() -> None:
    layer = warm(made("GCN"), inputs("GCN", 30, 60))
    x, edge_index = inputs("GCN", 30, 60, 2)
    for _ in range(3):
        same(layer, (x, edge_index))
        edge_index.random_(30)
    shared = edge_index.numpy()
    for k in range(3):
        shared[:] = k  # has no version counter
        same(layer, (x, edge_index))
    view = edge_index[:, :50]
    same(layer, (x, view))


def test_second_derivatives() -> None:
    for name in ("GCN", "attention", "two results", "eps"):
        args = inputs(name, 12, 30)
        layer = warm(made(name), args)

        def curvature(layer: nn.Module, args: tuple[Any, ...] = args) -> list[Tensor]:
            found = layer(*args)
            total = sum(r.sin().sum() for r in (found if isinstance(found, tuple) else (found,)))
            asked = [args[0], *layer.parameters()]
            first = torch.autograd.grad(total, asked, create_graph=True)
            second = torch.autograd.grad(sum(f.square().sum() for f in first), asked, allow_unused=True)
            return [s for s in second if s is not None]

        with in_python(layer) as copied:
            expected = curvature(copied)
        torch.testing.assert_close(curvature(layer), expected)


def test_a_first_derivative_after_many_calls() -> None:
    layer = made("GCN")
    x, edge_index = inputs("GCN", 30, 60)
    for _ in range(4):
        y = layer(x, edge_index)
    assert is_native(y)
    for _ in range(12):  # Python's, until it has compiled the adjoint
        same(layer, (x, edge_index))


def test_what_no_native_call_can_do_is_asked_for_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    find = repeated.Finder.__call__
    monkeypatch.setattr(repeated.Finder, "__call__", lambda self, *args: (asked.append(1), find(self, *args))[1])
    text = "layer M(d) { node x[d] param w[d] ~ normal aggregate a = median(x[j] * w) update y = a }"
    layer = gdsl.compile(text, d=6)
    for seed in range(40):
        args = inputs("GCN", 30, 60, seed)
        same(layer, args)
        assert not is_native(layer(*args))
    assert 0 < len(asked) <= 40


def test_a_derivative_that_python_has_to_compute_is_asked_for_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its adjoint is there, and would be refused again: a gradient that does not lie as it is read."""
    asked: list[int] = []
    find = repeated.Finder.__call__
    monkeypatch.setattr(repeated.Finder, "__call__", lambda self, *args: (asked.append(1), find(self, *args))[1])
    args = inputs("GCN", 30, 60)
    layer = warm(made("GCN"), args)
    before, ones = len(asked), torch.ones(30, 4)
    expected = torch.autograd.grad(layer(*args), args[0], -ones)
    for _ in range(6):
        result = layer(*args)
        assert is_native(result)
        assert torch.equal(torch.autograd.grad(result, args[0], torch._neg_view(ones))[0], expected[0])
    assert len(asked) == before


def test_some_gradients_of_several() -> None:
    layer = warm(made("two results"), inputs("two results", 20, 40))
    x, edge_index = inputs("two results", 20, 40, 1)
    for which in (0, 1, 0):
        for _ in range(6):
            with in_python(layer) as copied:
                expected = torch.autograd.grad(copied(x, edge_index)[which].sum(), x)
            assert torch.equal(torch.autograd.grad(layer(x, edge_index)[which].sum(), x)[0], expected[0])
    y, s = layer(x, edge_index)
    (gx,) = torch.autograd.grad((y + s).sum(), x, retain_graph=True)
    (gw,) = torch.autograd.grad((y + s).sum(), layer.w)
    with in_python(layer) as copied:
        y, s = copied(x, edge_index)
        expected = torch.autograd.grad((y + s).sum(), (x, copied.w))
    assert torch.equal(gx, expected[0])
    assert torch.equal(gw, expected[1])


def test_what_torch_says_of_misuse() -> None:
    layer = warm(made("GCN"), inputs("GCN", 30, 60))
    x, edge_index = inputs("GCN", 30, 60)
    y = layer(x, edge_index)
    y.sum().backward()
    with pytest.raises(RuntimeError, match="second time"):
        y.sum().backward()
    y = layer(x, edge_index)
    with torch.no_grad():
        layer.w.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
    y = layer(x, edge_index)
    y.relu_()  # a result is the caller's own
    y.sum().backward()


def test_inputs_that_are_written_to_before_the_backward_pass() -> None:
    """A value that torch has computed may be, a view of one, too; a leaf and its views may not."""
    layer = warm(made("two results"), inputs("two results", 30, 60))
    x, edge_index = inputs("two results", 30, 60)
    (expected,) = torch.autograd.grad(layer(x, edge_index)[0].sum(), x)
    for view in (lambda h: h, lambda h: h[:], lambda h: h.t().t()):
        base = x * 1.0
        y = layer(view(base), edge_index)[0]
        assert is_native(y)
        base.zero_()
        (g,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        assert torch.equal(g, expected)
        assert g.requires_grad
    for view in (lambda h: h, lambda h: h[:]):
        y = layer(view(x), edge_index)[0]
        with torch.no_grad():
            x.mul_(1.0)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()


def test_memory_that_is_swapped_before_the_backward_pass() -> None:
    layer = warm(made("GCN"), inputs("GCN", 30, 60))
    x, edge_index = inputs("GCN", 30, 60)
    with in_python(layer) as copied:
        pass
    for module in (layer, copied):
        with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t[:1]):
            y = module(x, edge_index)
        assert is_native(y) == (module is layer)
        with pytest.raises(RuntimeError, match="has shape"):
            y.sum().backward()
    zeros = torch._efficientzerotensor((30, 6), requires_grad=True)
    torch.testing.assert_close(layer(zeros, edge_index), layer(torch.zeros(30, 6), edge_index))


@pytest.mark.filterwarnings("ignore:Anomaly")
def test_hooks_and_surroundings_of_autograd() -> None:
    layer = warm(made("GCN"), inputs("GCN", 30, 60))
    x, edge_index = inputs("GCN", 30, 60)
    packed: list[Tensor] = []

    def pack(t: Tensor) -> Tensor:
        packed.append(t)
        return t.clone()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        y = layer(x, edge_index)
    assert is_native(y)
    assert packed
    (g,) = torch.autograd.grad(y.sum(), x)
    again = torch.utils.checkpoint.checkpoint(layer, x, edge_index, use_reentrant=False)
    assert torch.equal(torch.autograd.grad(again.sum(), x)[0], g)
    with in_python(layer) as copied:
        expected = torch.autograd.functional.jacobian(lambda v: copied(v, edge_index), x, vectorize=True)
    found = torch.autograd.functional.jacobian(lambda v: layer(v, edge_index), x, vectorize=True)
    torch.testing.assert_close(found, expected)
    whole = torch.func.jacrev(lambda v: layer(v, edge_index))(x)
    torch.testing.assert_close(whole, expected)
    with torch.inference_mode():
        assert layer(x, edge_index).is_inference()
    with torch.autocast("cpu", torch.bfloat16), in_python(layer) as copied:
        expected = copied(x, edge_index)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x, edge_index).dtype is expected.dtype is torch.bfloat16
    with torch.autograd.detect_anomaly(check_nan=False):
        layer(x, edge_index).sum().backward()


def test_wrong_input_is_refused_as_by_python() -> None:
    layer = warm(made("GCN"), inputs("GCN", 30, 60))
    x, edge_index = inputs("GCN", 30, 60)
    bad = edge_index.clone()
    bad[0, 7] = 30
    for args in [
        (x, bad),
        (x, -edge_index - 1),
        (x[:, :5], edge_index),
        (x[:10], edge_index),
        (x, edge_index.float()),
        (x, edge_index[:1]),
        (x, gdsl.Graph(edge_index, 31)),
        (x.double(), edge_index),
        (x,),
        (None, edge_index),
    ]:
        for _ in range(2):
            with pytest.raises((gdsl.InputError, gdsl.GraphError)) as found:
                layer(*args)
            with in_python(layer) as copied, pytest.raises(type(found.value)) as expected:
                copied(*args)
            assert str(found.value) == str(expected.value)


def test_sizes_have_the_shape_that_kernels_are_compiled_for() -> None:
    random = torch.Generator().manual_seed(0)
    keys: dict[int, GraphShape] = {}
    shapes: dict[GraphShape, int] = {}
    for k in range(3000):
        high = (4, 40, 400, 16_000)[k % 4]
        sizes = [int(torch.randint(high, (), generator=random)) for _ in range(3)]
        if k % 3 == 0:
            sizes[0] = sizes[1]
        shape, key = GraphShape.of(*sizes), native._module.shape_key(*sizes)
        assert keys.setdefault(key, shape) == shape
        assert shapes.setdefault(shape, key) == key


def test_threads() -> None:
    layer = warm(made("attention"), inputs("attention", 300, 900))
    calls = [inputs("attention", 300, 900, seed) for seed in range(6)]
    with in_python(layer) as copied:
        expected = [by(copied, args) for args in calls]
    wrong: list[int] = []

    def work(k: int) -> None:
        for _ in range(20):
            found = by(layer, calls[k])
            if not all(torch.equal(a, b) for a, b in zip(found, expected[k], strict=True)):
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_nothing_is_left_behind() -> None:
    edges = [torch.randint(30, (2, 60)) for _ in range(3)]
    x = torch.randn(30, 6, requires_grad=True)
    layer: Any = gnn.GCNConv(6, 6)
    for edge_index in edges * 3:
        layer(x, edge_index).sum().backward()
    assert layer._repeated.calls is not None
    layer.register_forward_hook(lambda module, args, result, layer=layer: None)  # a cycle
    gone, stays = weakref.ref(layer), layer(x, edges[0])
    del layer
    gc.collect()
    assert gone() is None
    # What a result needs lives as long as it.
    (g,) = torch.autograd.grad(stays.sin().sum(), x, create_graph=True)
    g.sum().backward()
    kept = weakref.ref(edges[0])
    del edges, edge_index
    gc.collect()
    assert kept() is None


# -- layers of the library -------------------------------------------------------------------------


CONVS: dict[str, Callable[[], nn.Module]] = {
    "GCN": lambda: gnn.GCNConv(6, 6),
    "SAGE": lambda: gnn.SAGEConv(6, 6),
    "GIN": lambda: gnn.GINConv(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 6)), train_eps=True),
    "GAT": lambda: gnn.GATConv(6, 3, heads=2),
    "GAT with dropout": lambda: gnn.GATConv(6, 3, heads=2, dropout=0.5),
}


# Further classes whose calls are repeated: how they are made, and what they are called with besides the graph.
MORE: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "Graph": (lambda: gnn.GraphConv(6, 6), "x"),
    "Graph, weighted": (lambda: gnn.GraphConv(6, 6), "x w"),
    "LE": (lambda: gnn.LEConv(6, 6), "x"),
    "Simple": (lambda: gnn.SimpleConv("mean", combine_root="sum"), "x"),
    "GatedGraph": (lambda: gnn.GatedGraphConv(6, 2), "x"),
    "GINE": (lambda: gnn.GINEConv(nn.Linear(6, 6), edge_dim=3), "x e"),
    "Edge": (lambda: gnn.EdgeConv(nn.Sequential(nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 6))), "x"),
    "CG": (lambda: gnn.CGConv(6, dim=3), "x e"),
    "ResGated": (lambda: gnn.ResGatedGraphConv(6, 6), "x"),
    "GEN": (lambda: gnn.GENConv(6, 6), "x"),
    "GATv2": (lambda: gnn.GATv2Conv(6, 3, heads=2), "x"),
    "AGNN": (lambda: gnn.AGNNConv(), "x"),
    "Transformer": (lambda: gnn.TransformerConv(6, 3, heads=2, edge_dim=3), "x e"),
    "FA": (lambda: gnn.FAConv(6), "x x"),
    "FeaSt": (lambda: gnn.FeaStConv(6, 6, heads=2), "x"),
    "General": (lambda: gnn.GeneralConv(6, 6), "x"),
    "SG": (lambda: gnn.SGConv(6, 6, K=2), "x"),
    "TAG": (lambda: gnn.TAGConv(6, 6, K=2), "x w"),
    "APPNP": (lambda: gnn.APPNP(2, 0.1, dropout=0.3), "x"),
    "LG": (lambda: gnn.LGConv(), "x"),
    "ARMA": (lambda: gnn.ARMAConv(6, 6, num_stacks=2, dropout=0.2), "x"),
    "MixHop": (lambda: gnn.MixHopConv(6, 6), "x"),
    "PointNet": (lambda: gnn.PointNetConv(nn.Linear(9, 6)), "x p"),
    "PointGNN": (lambda: gnn.PointGNNConv(nn.Linear(6, 3), nn.Linear(9, 6), nn.Linear(6, 6)), "x p"),
    "GMM": (lambda: gnn.GMMConv(6, 6, dim=3, kernel_size=2), "x e"),
    "PDN": (lambda: gnn.PDNConv(6, 6, edge_dim=3, hidden_channels=64), "x e"),
    "EG": (lambda: gnn.EGConv(6, 6, aggregators=["sum", "mean", "max"], num_heads=2, num_bases=2), "x"),
    "PNA": (lambda: gnn.PNAConv(6, 6, ["mean", "std"], ["identity", "amplification"], torch.tensor([2, 9, 9, 4])), "x"),
}


def given(kinds: str, nodes: int, edges: int, seed: int) -> tuple[Any, ...]:
    random = torch.Generator().manual_seed(seed)
    sizes = {"x": (nodes, 6), "p": (nodes, 3), "w": (edges,), "e": (edges, 3)}
    tensors = {k: torch.rand(sizes[k], generator=random).requires_grad_() for k in kinds.split()}
    edge_index = torch.randint(nodes, (2, edges), generator=random)
    first, *rest = kinds.split()
    at_nodes = [tensors[k] for k in rest if k in "xp"]
    return tensors[first], *at_nodes, edge_index, *(tensors[k] for k in rest if k in "we")


@pytest.mark.parametrize("name", MORE)
def test_more_layers_of_the_library(name: str) -> None:
    torch.manual_seed(0)
    make, kinds = MORE[name]
    layer, natively = make(), 0
    for seed in range(12):
        args = given(kinds, 20 + seed % 5, 50 + seed % 3, seed)
        if seed > 3:
            same(layer, args)
        natively += is_native(by(layer, args))
    assert natively


def test_a_layer_of_a_mesh() -> None:
    torch.manual_seed(0)
    layer, natively = gnn.MeshCNNConv(6, 4), 0
    for nodes in range(10, 22):
        x, targets = torch.randn(nodes, 6, requires_grad=True), torch.arange(nodes).repeat_interleave(4)
        args = x, torch.stack([torch.randint(nodes, (4 * nodes,)), targets])
        same(layer, args)
        natively += is_native(by(layer, args))
    assert natively


def conv(name: str) -> nn.Module:
    torch.manual_seed(0)
    return warm(CONVS[name](), (torch.randn(30, 6, requires_grad=True), torch.randint(30, (2, 60))))


@pytest.mark.parametrize("name", CONVS)
def test_layers_of_the_library(name: str) -> None:
    layer = conv(name)
    for seed in range(5):
        x, edge_index = inputs("GCN", 30 - seed, 60, seed)
        same(layer, (x, edge_index))
        for _ in range(3):
            by_name = layer(x=x, edge_index=edge_index)
        assert is_native(by_name)
    with pytest.raises(TypeError, match="edge_index"):
        layer(x=x)
    with pytest.raises(TypeError, match="unexpected"):
        layer(x, edge_index, nothing=1)
    layer.eval()
    for _ in range(4):
        same(layer, (x, edge_index))


def test_weights_of_edges() -> None:
    x, w = torch.randn(30, 6, requires_grad=True), torch.rand(60, requires_grad=True)
    plain = torch.stack([torch.randint(15, (60,)), torch.randint(15, 30, (60,))])
    layer = warm(gnn.GCNConv(6, 6), (x, plain, w))
    for edge_index in (plain, plain.flip(0), torch.randint(30, (2, 60))):
        for _ in range(3):
            same(layer, (x, edge_index, w))


def _replace(layer: Any) -> None:
    layer.lin = copy.deepcopy(layer.lin)
    with torch.no_grad():
        layer.lin.weight.mul_(2)


def _parametrise(layer: Any) -> None:
    torch.nn.utils.parametrizations.weight_norm(layer.lin, "weight")


CHANGES: dict[str, Callable[[Any], Any]] = {
    "no loops": lambda layer: setattr(layer, "add_self_loops", False),
    "improved": lambda layer: setattr(layer, "improved", True),
    "not normalised": lambda layer: (setattr(layer, "add_self_loops", False), setattr(layer, "normalize", False)),
    "no bias": lambda layer: setattr(layer, "bias", None),
    "flow": lambda layer: setattr(layer, "flow", "target_to_source"),
    "another module": _replace,
    "a module with a bias": lambda layer: setattr(layer, "lin", nn.Linear(6, 6)),
    "another tensor": lambda layer: setattr(layer.lin, "weight", nn.Parameter(torch.ones(6, 6))),
    "written to": lambda layer: layer.lin.weight.data.fill_(0.5),
    "through its dictionary": lambda layer: layer.__dict__.update(improved=True),
    "double": lambda layer: layer.double(),
    "parametrised": _parametrise,
    "another aggregation": lambda layer: setattr(layer, "aggr_module", gnn.aggr.MaxAggregation()),
    "choices": lambda layer: layer.choose(aggregate="last"),
    "backend": lambda layer: setattr(layer, "backend", "torch"),
    "cached": lambda layer: setattr(layer, "cached", True),
    "loaded": lambda layer: layer.load_state_dict({k: v * 2 + 1 for k, v in layer.state_dict().items()}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_layer_that_is_changed(change: str) -> None:
    layer = conv("GCN")
    CHANGES[change](layer)
    for seed in range(4):
        x, edge_index = inputs("GCN", 30, 60, 0 if change == "cached" else seed)
        x = x.detach().to(layer.lin.weight.dtype).requires_grad_()
        for a, b in zip(by(layer, (x, edge_index)), python(layer, (x, edge_index)), strict=True):
            torch.testing.assert_close(a, b)


def test_a_pruned_layer() -> None:
    layer, plain = conv("GCN"), gnn.GCNConv(6, 6)
    prune.random_unstructured(layer.lin, "weight", 0.5)
    for seed in range(4):
        x, edge_index = inputs("GCN", 30, 60, seed)
        with torch.no_grad():
            y = layer(x, edge_index)  # a hook makes the weight
            plain.lin.weight.copy_(layer.lin.weight)
            torch.testing.assert_close(y, plain(x, edge_index))
            layer.lin.weight_mask.logical_not_()
            layer.lin.weight_orig.add_(1)


def test_a_layer_that_keeps_its_graph() -> None:
    layer: Any = gnn.GCNConv(6, 6, cached=True)
    x, edge_index = inputs("GCN", 30, 60)
    first = layer(x, edge_index)
    for seed in range(5):
        assert torch.equal(layer(x, inputs("GCN", 30, 60, seed)[1]), first)


@pytest.mark.parametrize("remain", [False, True])
def test_loops_with_values(remain: bool) -> None:
    """Old loops remain, the last of a node's, or all loops that are added get the same value."""
    torch.manual_seed(0)
    how = f"graph add_{'remaining_' if remain else ''}self_loops(w = 0.5)"
    text = f"""layer L(d) {{ node x[d] edge w edge v[d] = 1.5 {how}
                            message m = w * v * x[j] aggregate a = sum(m) update y = a }}"""
    layer, reference = gdsl.compile(text, d=6), gdsl.compile(text, d=6, backend="torch")

    def args(seed: int) -> tuple[Any, ...]:
        x, edge_index = inputs("GCN", 12, 60, seed)
        edge_index = torch.cat([edge_index, torch.tensor([[3, 3, 5], [3, 3, 5]]), edge_index[:, :4]], dim=1)
        count, random = edge_index.shape[1], torch.Generator().manual_seed(seed)
        more = [torch.randn(count, *dims, generator=random).requires_grad_() for dims in ((), (6,))]
        return x, edge_index, *more

    warm(layer, args(0))
    for seed in range(6):
        given = args(seed)
        for _ in range(3):  # other shapes are compiled for first
            same(layer, given)
        assert is_whole(layer, given)
        torch.testing.assert_close(by(layer, given), by(reference, given))


def test_a_layer_that_gets_a_bias() -> None:
    torch.manual_seed(0)
    x, edge_index = inputs("GCN", 30, 60)
    layer: Any = warm(gnn.GCNConv(6, 6, bias=False), (x, edge_index))
    layer.bias = nn.Parameter(torch.ones(6))
    same(layer, (x, edge_index))


def test_hooks_on_parts() -> None:
    for part in ("nn", "nn.0", "aggr_module", ""):
        layer = conv("GIN")
        calls: list[int] = []
        layer.get_submodule(part).register_forward_hook(lambda *_, calls=calls: calls.append(1))
        x, edge_index = inputs("GCN", 30, 60)
        for k in range(4):
            layer(x, edge_index).sum().backward()
            assert len(calls) == k + 1
    layer, calls = conv("GIN"), []
    handle = torch.nn.modules.module.register_module_forward_hook(lambda *_: calls.append(1))
    try:
        layer(x, edge_index)
        assert len(calls) > 1
    finally:
        handle.remove()


@pytest.mark.parametrize("where", ["aggregators", "kept"])
def test_what_is_in_lists_and_dictionaries(where: str) -> None:
    torch.manual_seed(0)
    layer: Any = gnn.EGConv(6, 6, aggregators=["sum", "mean"], num_heads=2, num_bases=2)
    layer.kept = {"aggregators": layer.aggregators}
    warm(layer, inputs("GCN", 30, 60))
    if where == "aggregators":
        layer.aggregators[0] = "max"
    else:
        assert layer._repeated.calls(layer, inputs("GCN", 30, 60), ()) is not None
        layer.kept["aggregators"] = None
        assert layer._repeated.calls(layer, inputs("GCN", 30, 60), ()) is None
    same(layer, inputs("GCN", 30, 60))


def test_more_tensors_than_native_code_tells_apart() -> None:
    torch.manual_seed(0)
    names = [f"w{k}" for k in range(45)]
    declared, added = (form.join(names) for form in ("[d] ~ normal param ", " + "))
    text = f"layer M(d) {{ node x[d] param {declared}[d] ~ normal aggregate a = sum(x[j]) update y = a + {added} }}"
    for layer in (gdsl.compile(text, d=6), gnn.GINConv(nn.Sequential(*(nn.Linear(6, 6) for _ in range(25))))):
        for seed in range(5):
            same(layer, inputs("GCN", 30, 60, seed))


def test_a_backend_that_is_chosen_later() -> None:
    layer = warm(made("GCN"), inputs("GCN", 30, 60))
    for backend, natively in (("torch", False), ("cpp", True), ("torch", False), ("auto", True)):
        layer.backend = backend
        found = layer(*inputs("GCN", 30, 60))
        assert is_native(found) == natively
        assert layer._text.store.last[0].backend == ("cpp" if natively else "torch")


def test_training_that_is_no_bool() -> None:
    args = inputs("dropout", 30, 60)
    layer = made("dropout").eval()
    for _ in range(5):
        by(layer, args)
    layer.training = 1  # type: ignore[assignment]
    same(layer, args)


def test_copies() -> None:
    layer = conv("GCN")
    x, edge_index = inputs("GCN", 30, 60)
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    buffer.seek(0)
    for other in (copy.deepcopy(layer), copy.copy(layer), torch.load(buffer, weights_only=False)):
        with torch.no_grad():
            other.lin.weight.add_(1)
        for _ in range(4):
            same(other, (x, edge_index))
            same(layer, (x, edge_index))


def test_a_compiled_layer() -> None:
    layer = conv("GCN")
    x, edge_index = inputs("GCN", 30, 60)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, edge_index), layer(x, edge_index))
    exported = torch.export.export(layer, (x, edge_index)).module()
    torch.testing.assert_close(exported(x, edge_index), layer(x, edge_index))


def test_a_subclass_with_more_to_do() -> None:
    class More(gnn.GCNConv):
        def forward(self, x: Tensor, edge_index: Any, edge_weight: Tensor | None = None) -> Tensor:
            return super().forward(2 * x, edge_index, edge_weight) + 1

    layer = More(6, 6)
    x, edge_index = inputs("GCN", 30, 60)
    for seed in range(5):
        same(layer, inputs("GCN", 30, 60, seed))
    with torch.no_grad():
        assert not torch.equal(layer(x, edge_index), gnn.GCNConv.forward(layer, x, edge_index))


class Twice(nn.Module):
    """What a layer of the library is to native code."""

    def __init__(self) -> None:
        super().__init__()
        self._repeated = Repeated()

    @repeated.repeatable
    def forward(self, x: Any, edge_index: Any = None) -> Any:
        return x


def test_calls_for_a_gpu_are_not_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    watched: list[Any] = []
    monkeypatch.setattr(repeated, "_watched", lambda forward, self, kept, flat, *_: watched.append(flat))
    layer, here, there = Twice(), torch.zeros(2), torch.zeros(2, device="meta")
    for x in (here, (here, here)):
        layer(x)
    assert len(watched) == 2
    for x in (there, (there, here), [there]):
        assert layer(x) is x
    assert len(watched) == 2


def test_native_code_is_not_built_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked for by calls of a CPU alone, which it could repeat."""
    asked: list[bool] = []
    layer = made("GCN")
    x, edge_index = inputs("GCN", 7, 30)
    with torch.no_grad():
        layer(x, edge_index)
        (known,) = layer._text.known.values()
        known.offered = False
        monkeypatch.setattr(native, "native", lambda: asked.append(True))
        layer._text.repeated.calls = None
        layer(x, edge_index)
        assert asked == [True]
        known.kind = SimpleNamespace(device=torch.device("cuda"), typed=known.kind.typed)
        monkeypatch.setattr("gdsl.module.call.run", lambda *_: (x,))
        assert layer(x, edge_index) is x
    assert asked == [True]
