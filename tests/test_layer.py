"""Layers as torch modules: made from text, called with any graph, trained, copied, saved and looked into."""

from __future__ import annotations

import copy
import gc
import inspect
import io
import pickle
import threading
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import scipy.sparse
import sympy
import torch
from torch import Tensor, nn

import gdsl
from gdsl.module import api
from gdsl.runtime import backend as backends
from gdsl.runtime import cache
from gdsl.runtime.order import EdgeEnds, Order
from tests.programs.sources import PROGRAMS

GCN, GAT, GIN = (PROGRAMS[name][0] for name in ("GCN", "GAT", "GIN"))

PLAIN = """
# The sum of the neighbours, through a matrix.
layer Plain(in_channels, out_channels = 4) {
    param weight[in_channels, out_channels] ~ glorot
    node x[in_channels]
    edge w = 1
    aggregate a = sum(w * x[j])
    update y = a @ weight
}
"""

DROPOUT = """
layer Drop(p = 0.5) {
    node x[c]
    message m = dropout(x[j], p)
    aggregate a = sum(m)
    update y = dropout(a, p)
    return y, m
}
"""

PAIR = """
layer Pair {
    target z[c]
    source x[c]
    edge rel: int(3)
    param scale[3] ~ ones
    aggregate a = sum(scale[rel] * x[j])
    update y = a - z
    update d = y * y
    return y, d
}
"""

BACKENDS = ("cpp", "torch")
EDGES = torch.tensor([[0, 1, 2, 2, 3, 3, 0], [1, 2, 0, 1, 3, 1, 1]])
N = 5


def features(*shape: int, dtype: torch.dtype = torch.float32, grad: bool = False) -> Tensor:
    return torch.randn(*(shape or (N, 3)), dtype=dtype).requires_grad_(grad)


@pytest.fixture
def sorts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each time that edges are sorted."""
    from gdsl.runtime import prepare

    done: list[int] = []
    sort = prepare.sort

    def counted(edges: EdgeEnds, end: int, sizes: tuple[int, int]) -> Order:
        done.append(end)
        return sort(edges, end, sizes)

    monkeypatch.setattr(prepare, "sort", counted)
    return done


# ------------------------------------------------------------------------------------- from text


def test_define_reads_signature_and_docstring_from_the_text() -> None:
    Conv = gdsl.define(GAT)
    assert str(inspect.signature(Conv)) == ("(in_channels, out_channels, heads=1, slope=0.2, p=0.0, *, backend='auto')")
    assert Conv.__name__ == "GATConv"
    assert Conv.__doc__ == (
        "Velickovic et al., 2018.\n\nlayer GATConv(in_channels, out_channels, heads = 1, slope = 0.2, p = 0.0)"
    )
    conv = Conv(3, 4, heads=2)
    assert isinstance(conv, Conv) and isinstance(conv, gdsl.Layer) and isinstance(conv, nn.Module)
    assert issubclass(Conv, gdsl.Layer)
    assert repr(conv) == "GATConv(in_channels=3, out_channels=4, heads=2, slope=0.2, p=0.0)"
    assert {k: tuple(v.shape) for k, v in conv.state_dict().items()} == {
        "weight": (3, 2, 4), "att_src": (2, 4), "att_dst": (2, 4), "bias": (2, 4),
    }  # fmt: skip


def test_the_same_text_gives_the_same_class() -> None:
    Conv = gdsl.define(GCN)
    assert gdsl.define(GCN, layer="GCNConv") is Conv
    assert gdsl.define(GCN + "\n") is not Conv
    for again in (copy.deepcopy(Conv(3, 4)), pickle.loads(pickle.dumps(Conv(3, 4)))):
        assert type(again) is Conv


class Wider(gdsl.define(GCN)):  # type: ignore[misc]
    """A subclass of the user's, with state and a forward of its own."""

    def __init__(self, channels: int):
        super().__init__(channels, 4)
        self.factor = 2.0

    def forward(self, *args: Any) -> Tensor:
        return self.factor * super().forward(*args)


def test_subclasses() -> None:
    conv, x = Wider(3), features()
    assert list(inspect.signature(Wider).parameters) == ["channels"]
    base = gdsl.compile(GCN, 3, 4)
    base.load_state_dict(conv.state_dict())
    for made in (conv, copy.deepcopy(conv), pickle.loads(pickle.dumps(conv))):
        assert type(made) is Wider
        torch.testing.assert_close(made(x, EDGES), 2 * base(x, EDGES))


def test_define_takes_modules_as_arguments() -> None:
    Conv = gdsl.define(GIN)
    assert str(inspect.signature(Conv)) == "(nn, eps=0.0, train_eps=False, *, backend='auto')"
    mlp = nn.Linear(3, 2)
    for conv in (Conv(mlp), Conv(nn=mlp), Conv(mlp, 0.0), gdsl.compile(GIN, nn=mlp)):
        assert conv.nn is mlp
        assert conv(features(), EDGES).shape == (N, 2)
    assert Conv(mlp, 0.5).arguments["eps"] == 0.5


def test_arguments_by_place_and_by_name() -> None:
    made = [
        gdsl.compile(PLAIN, 3, 2),
        gdsl.compile(PLAIN, 3, out_channels=2),
        gdsl.compile(PLAIN, in_channels=3, out_channels=2),
        gdsl.define(PLAIN)(3, 2),
        gdsl.define(PLAIN)(out_channels=2, in_channels=3),
    ]
    assert {tuple(conv.weight.shape) for conv in made} == {(3, 2)}
    assert gdsl.compile(PLAIN, 3).weight.shape == (3, 4)


def test_one_of_several_layers() -> None:
    text = PLAIN + DROPOUT
    assert gdsl.compile(text, 3, layer="Plain")(features(), EDGES).shape == (N, 4)
    assert gdsl.define(text, layer="Drop").__name__ == "Drop"
    with pytest.raises(gdsl.InputError, match=r"^the text has 2 layers, Plain, Drop: say which with layer=\.\.\.$"):
        gdsl.compile(text, 3)
    with pytest.raises(gdsl.InputError, match=r"^the text has no layer `Gone`; it has Plain, Drop$"):
        gdsl.define(text, layer="Gone")


# ------------------------------------------------------------------------------------- the call


def _csr(edges: Tensor) -> Tensor:
    """The transposed adjacency, as torch_geometric stores it: rows are targets."""
    return torch.sparse_coo_tensor(edges.flip(0), torch.ones(edges.shape[1]), (N, N)).coalesce().to_sparse_csr()


def _scipy(edges: Tensor) -> scipy.sparse.coo_matrix:
    return scipy.sparse.coo_matrix((torch.ones(edges.shape[1]).numpy(), edges.numpy()), (N, N))


def _data(edges: Tensor) -> Any:
    return pytest.importorskip("torch_geometric.data").Data(edge_index=edges, num_nodes=N)


GRAPHS: dict[str, Callable[[Tensor], Any]] = {
    "int64": lambda e: e,
    "int32": lambda e: e.int(),
    "non-contiguous": lambda e: e.t().contiguous().t(),
    "Graph": lambda e: gdsl.Graph(e, N),
    "COO": lambda e: torch.sparse_coo_tensor(e.flip(0), torch.ones(e.shape[1]), (N, N)),
    "CSR": _csr,
    "CSC": lambda e: _csr(e).to_sparse_csc(),
    "SciPy": _scipy,
    "Data": _data,
}


@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", GRAPHS)
def test_graph_formats(kind: str, backend: str) -> None:
    edges = EDGES[:, :6]  # a COO tensor would add the values of an edge that is there twice
    conv, x = gdsl.compile(PLAIN, 3, backend=backend), features()
    expected = torch.zeros(N, 3).index_add(0, edges[1], x[edges[0]]) @ conv.weight
    torch.testing.assert_close(conv(x, GRAPHS[kind](edges)), expected)
    torch.testing.assert_close(conv(x=x, edge_index=GRAPHS[kind](edges)), expected)
    torch.testing.assert_close(conv(graph=GRAPHS[kind](edges), x=x), expected)


def test_raw_edges_are_sorted_once(sorts: list[int]) -> None:
    """One sort for each end, for several layers and passes, on the same tensor."""
    edges, x = EDGES.clone(), features(grad=True)
    first, second = gdsl.compile(PLAIN, 3, backend="cpp"), gdsl.compile(PLAIN, 4, backend="cpp")
    for _ in range(3):
        second(first(x, edges), edges).sum().backward()
    assert sorted(sorts) == [0, 1]


@pytest.mark.parametrize(
    "change",
    [
        lambda e: e[1].fill_(4),
        lambda e: e.t()[0].copy_(torch.tensor([4, 4])),
        lambda e: e.numpy().__setitem__((1, 0), 3),
        lambda e: e.set_(torch.tensor([[0], [3]])),
    ],
    ids=["fill", "view", "numpy", "set"],
)
def test_a_change_in_place_is_seen(change: Callable[[Tensor], Any]) -> None:
    conv, edges, x = gdsl.compile(PLAIN, 3), EDGES.clone(), features()
    conv(x, edges)
    change(edges)
    torch.testing.assert_close(conv(x, edges), conv(x, gdsl.Graph(edges, N)))
    assert not torch.equal(conv(x, edges), conv(x, EDGES))


@pytest.mark.parametrize("backend", BACKENDS)
def test_optional_inputs(backend: str) -> None:
    conv, x, w = gdsl.compile(PLAIN, 3, backend=backend), features(), torch.rand(EDGES.shape[1], requires_grad=True)
    plain = conv(x, EDGES)
    torch.testing.assert_close(plain, conv(x, EDGES, torch.ones(EDGES.shape[1])))
    torch.testing.assert_close(plain, conv(x, EDGES, None))
    weighted = conv(x, EDGES, w=w)
    expected = torch.zeros(N, 3).index_add(0, EDGES[1], w[:, None] * x[EDGES[0]]) @ conv.weight
    torch.testing.assert_close(weighted, expected)
    ours, theirs = (torch.autograd.grad(y.square().sum(), w)[0] for y in (weighted, expected))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("backend", BACKENDS)
def test_bipartite_and_several_results(backend: str) -> None:
    """The pair is (source, target), whatever the order of the text; each result has its own gradient."""
    conv = gdsl.compile(PAIR, backend=backend)
    x, z, rel = features(4, 2), features(3, 2), torch.tensor([0, 1, 2, 0, 1])
    edges = torch.tensor([[0, 1, 2, 3, 3], [0, 0, 1, 2, 0]])
    with torch.no_grad():
        conv.scale.copy_(torch.tensor([1.0, 2.0, 3.0]))
    y = torch.zeros(3, 2).index_add(0, edges[1], (rel + 1.0)[:, None] * x[edges[0]]) - z
    calls = [
        conv((x, z), edges, rel),
        conv(z, x, edges, rel),
        conv(x=x, z=z, edge_index=edges, rel=rel.int()),
        conv((x, z), gdsl.Graph(edges, (4, 3)), rel=rel),
    ]
    for found in calls:
        assert isinstance(found, tuple)
        torch.testing.assert_close(found, (y, y * y))
    ours, theirs = calls[0][1], (y - 0 * conv.scale.sum()) ** 2
    torch.testing.assert_close(ours, theirs)
    (by_scale,) = torch.autograd.grad(ours.sum(), conv.scale, retain_graph=True)
    assert by_scale.abs().min() > 0
    (only_first,) = torch.autograd.grad(calls[0][0].sum(), conv.scale)
    expected = torch.zeros(3).index_add(0, rel, x[edges[0]].sum(1))
    torch.testing.assert_close(only_first, expected)


# ------------------------------------------------------------------------------------- dropout


def test_dropout_mask_is_the_same_on_every_backend() -> None:
    x, found = features(N, 64, dtype=torch.float64, grad=True), []
    for backend in BACKENDS:
        conv = gdsl.compile(DROPOUT, backend=backend)
        torch.manual_seed(3)
        y, m = conv(x, EDGES)
        found.append((y, m, *torch.autograd.grad(y.square().sum(), x)))
    torch.testing.assert_close(found[0], found[1])
    mask, again = (found[0][1] == 0), gdsl.compile(DROPOUT)(x, EDGES)[1] == 0
    assert 0.3 < mask.double().mean() < 0.7
    assert not torch.equal(mask, again), "each call draws its own mask"


@pytest.mark.parametrize("backend", BACKENDS)
def test_dropout_keeps_the_mean(backend: str) -> None:
    """20,000 draws of 0 or 1 / (1 - p): their mean is 1 within 5 standard deviations."""
    edges, p = torch.stack([torch.zeros(200, dtype=torch.long), torch.arange(200) % 5]), 0.3
    _, m = gdsl.compile(DROPOUT, p=p, backend=backend)(torch.ones(5, 100), edges)
    assert {round(v, 4) for v in m.unique().tolist()} == {0.0, round(1 / (1 - p), 4)}
    assert abs(float(m.mean()) - 1) < 5 * (p / (1 - p) / m.numel()) ** 0.5


@pytest.mark.parametrize("where", ["update y = x * dropout(p, 0.5)", "update y = sum(x[j] * dropout(p, 0.5))"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_dropout_of_a_parameter(backend: str, where: str) -> None:
    """One draw for each of its numbers, whatever the rows that read it; the gradient has the same zeros."""
    conv = gdsl.compile(f"layer P {{ node x[c] param p[c] ~ ones {where} }}", c=100, backend=backend)
    y = conv(torch.ones(5, 100), torch.stack([torch.arange(5), torch.arange(5).roll(1)]))
    assert set(y.unique().tolist()) == {0.0, 2.0} and bool((y == y[0]).all())
    y.sum().backward()
    assert torch.equal(conv.p.grad, 5 * y[0].detach())


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_dropout_in_evaluation_or_with_p_0(backend: str) -> None:
    x = features()
    for conv in (gdsl.compile(DROPOUT, backend=backend).eval(), gdsl.compile(DROPOUT, p=0.0, backend=backend)):
        y, m = conv(x, EDGES)
        assert torch.equal(m, x[EDGES[0]])
        torch.testing.assert_close(y, torch.zeros(N, 3).index_add(0, EDGES[1], m))


@pytest.mark.parametrize("backend", BACKENDS)
def test_dropout_backward_uses_the_same_mask(backend: str) -> None:
    conv = gdsl.compile(DROPOUT, backend=backend)

    def once(x: Tensor) -> Tensor:
        torch.manual_seed(5)
        return conv(x, EDGES)[0].sin()

    x = features(dtype=torch.float64, grad=True)
    assert torch.autograd.gradcheck(once, x)
    assert torch.autograd.gradgradcheck(once, x)


# ------------------------------------------------------------------------------------- state


def _compiled() -> gdsl.Layer:
    return gdsl.compile(GCN, 3, 4)


def _defined() -> gdsl.Layer:
    return gdsl.define(GCN)(3, 4, bias=True)


def _saved(conv: gdsl.Layer) -> gdsl.Layer:
    buffer = io.BytesIO()
    torch.save(conv, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@pytest.mark.parametrize("make", [_compiled, _defined], ids=["compile", "define"])
@pytest.mark.parametrize(
    "again", [copy.deepcopy, lambda conv: pickle.loads(pickle.dumps(conv)), _saved], ids=["deepcopy", "pickle", "torch"]
)
def test_copies(make: Callable[[], gdsl.Layer], again: Callable[[gdsl.Layer], gdsl.Layer]) -> None:
    """A copy, before and after a call, has its own parameters, the same numbers and the same text."""
    conv, x = make(), features()
    for _ in range(2):
        other = again(conv)
        assert isinstance(other, gdsl.Layer) and repr(other) == repr(conv) and other.source == conv.source
        assert torch.equal(other(x, EDGES), conv(x, EDGES))
        with torch.no_grad():
            other.weight.add_(1)
        assert not torch.equal(other(x, EDGES), conv(x, EDGES))
        other(x, EDGES).sum().backward()
        assert other.weight.grad is not None and conv.weight.grad is None


def test_state_dict() -> None:
    conv, other, x = _compiled(), _compiled(), features()
    assert not torch.equal(conv(x, EDGES), other(x, EDGES))
    other.load_state_dict(conv.state_dict())
    assert torch.equal(conv(x, EDGES), other(x, EDGES))
    state = conv.state_dict()
    with pytest.raises(RuntimeError, match="Missing key"):
        other.load_state_dict({"weight": state["weight"]})
    with pytest.raises(RuntimeError, match="Unexpected key"):
        other.load_state_dict({**state, "more": torch.zeros(1)})
    with pytest.raises(RuntimeError, match="size mismatch"):
        gdsl.compile(GCN, 3, 5).load_state_dict(state)


def test_state_of_an_optional_input_exists_before_the_first_call() -> None:
    conv = gdsl.compile(PROGRAMS["GAT_edge"][0], 3, 4, edge_dim=2)
    assert {"weight_edge", "att_edge"} <= conv.state_dict().keys()


def test_dtypes_follow_the_module() -> None:
    conv, x = _compiled(), features()
    single = conv(x, EDGES)
    double = conv.double()(x.double(), EDGES)
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    torch.testing.assert_close(single.double(), double, rtol=1e-5, atol=1e-6)
    assert torch.equal(conv.float()(x, EDGES), single)


@pytest.mark.parametrize("backend", ["auto", "torch"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype: torch.dtype, backend: str) -> None:
    conv, x = gdsl.compile(GAT, 3, 4, heads=2, backend=backend), features(grad=True)
    exact = conv(x, EDGES)
    narrow = x.detach().to(dtype).requires_grad_()
    y = conv.to(dtype)(narrow, EDGES)
    y.sum().backward()
    assert y.dtype == narrow.grad.dtype == dtype
    torch.testing.assert_close(y.float(), exact, rtol=0.05, atol=0.05)


# ------------------------------------------------------------------------------------- autograd


def _reference(conv: gdsl.Layer, x: Tensor, w: Tensor | None = None) -> Tensor:
    m = x[EDGES[0]] if w is None else w[:, None] * x[EDGES[0]]
    return x.new_zeros(x.shape).index_add(0, EDGES[1], m) @ conv.weight


@pytest.mark.parametrize("backend", BACKENDS)
def test_frozen_parameters(backend: str) -> None:
    conv, x = gdsl.compile(PLAIN, 3, backend=backend).requires_grad_(False), features(grad=True)
    conv(x, EDGES).sum().backward()
    (expected,) = torch.autograd.grad(_reference(conv, x).sum(), x)
    torch.testing.assert_close(x.grad, expected)
    assert conv.weight.grad is None
    assert not conv(x.detach(), EDGES).requires_grad
    conv.requires_grad_(True)(x.detach(), EDGES).sum().backward()
    assert conv.weight.grad is not None


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients(mode: Callable[[], Any], backend: str) -> None:
    conv, x, edges = gdsl.compile(GCN, 3, 4, backend=backend), features(), EDGES.clone()
    with mode():
        fresh = conv(x, edges + 0)  # edges that were made inside too
        quiet = conv(x, edges)
    assert not quiet.requires_grad and torch.equal(quiet, fresh)
    loud = conv(x, edges)
    torch.testing.assert_close(quiet.clone(), loud.detach())
    loud.sum().backward()
    assert conv.weight.grad is not None


GRADIENTS: dict[str, Callable[[Tensor], Tensor]] = {
    "expanded": lambda y: torch.ones(1).expand_as(y),
    "transposed": lambda y: features(*reversed(y.shape)).t(),
    "strided": lambda y: features(y.shape[0], 2 * y.shape[1])[:, ::2],
    "zero": torch.zeros_like,
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", GRADIENTS)
def test_output_gradients_of_any_layout(kind: str, backend: str) -> None:
    conv, x = gdsl.compile(PLAIN, 3, backend=backend), features(grad=True)
    y = conv(x, EDGES)
    gradient = GRADIENTS[kind](y.detach())
    ours = torch.autograd.grad(y, [x, conv.weight], gradient)
    theirs = torch.autograd.grad(_reference(conv, x), [x, conv.weight], gradient)
    torch.testing.assert_close(ours, theirs)


INPUTS: dict[str, Callable[[], Tensor]] = {
    "transposed": lambda: features(3, N).t(),
    "strided": lambda: features(2 * N, 6)[::2, ::2],
    "expanded": lambda: features(1, 3).expand(N, 3),
    "offset": lambda: features(N + 1, 3)[1:],
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", INPUTS)
def test_inputs_of_any_layout(kind: str, backend: str) -> None:
    conv, x, w = gdsl.compile(PLAIN, 3, backend=backend), INPUTS[kind]().requires_grad_(), torch.rand(14)[::2]
    before = x.detach().clone()
    y, expected = conv(x, EDGES, w), _reference(conv, x, w)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(*(torch.autograd.grad(v.square().sum(), x) for v in (y, expected)))
    assert torch.equal(x, before)


@pytest.mark.parametrize("backend", BACKENDS)
def test_backward_twice(backend: str) -> None:
    conv, x = gdsl.compile(GAT, 3, 4, backend=backend), features(grad=True)
    y = conv(x, EDGES).square().sum()
    y.backward(retain_graph=True)
    once = [p.grad.clone() for p in (x, *conv.parameters())]
    y.backward()
    for p, g in zip((x, *conv.parameters()), once, strict=True):
        assert torch.equal(p.grad, g + g), "gradients accumulate"
    with pytest.raises(RuntimeError, match="second time"):
        y.backward()


def test_an_input_changed_before_the_backward_is_noticed() -> None:
    conv, x = gdsl.compile(GAT, 3, 4), features()
    y = conv(x, EDGES)
    x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


# ------------------------------------------------------------------------------------- models


class Net(nn.Module):
    def __init__(self, backend: str):
        super().__init__()
        self.one = gdsl.compile(GAT, 3, 4, heads=2, p=0.1, backend=backend)
        self.two = gdsl.define(GCN)(8, 2, backend=backend)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        return self.two(self.one(x, edges).relu(), edges)


@pytest.mark.parametrize("backend", BACKENDS)
def test_training(backend: str) -> None:
    net, x, y = Net(backend), features(), torch.tensor([0, 1, 0, 1, 1])
    assert len(list(net.parameters())) == 6
    optimiser = torch.optim.Adam(net.parameters(), lr=0.05)

    def loss() -> Tensor:
        return nn.functional.cross_entropy(net(x, EDGES), y)

    before = loss().item()
    for _ in range(30):
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()
    net.eval()
    assert loss().item() < 0.5 * before
    assert torch.equal(net(x, EDGES), net(x, EDGES))


# ------------------------------------------------------------------------------------- modules


class Odd(nn.Module):
    """A module that no table knows, with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([0.5, -1.0, 2.0]))

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(x * self.scale)


class Sum(nn.Module):
    """An aggregator of the user's."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, m: Tensor, index: Tensor, ptr: Tensor | None = None, dim_size: int | None = None) -> Tensor:
        assert bool((index.diff() >= 0).all())
        return self.scale * m.new_zeros(dim_size, m.shape[1]).index_add(0, index, m)


def _gin(module: nn.Module, x: Tensor) -> Tensor:
    return module(x + x.new_zeros(x.shape).index_add(0, EDGES[1], x[EDGES[0]]))


STACKS = {
    "linear": lambda: nn.Linear(3, 2),
    "mlp": lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Sequential(nn.Linear(4, 2, bias=False), nn.Tanh())),
    "activations": lambda: nn.Sequential(
        nn.SiLU(), nn.LeakyReLU(0.1), nn.ELU(), nn.GELU(), nn.Softplus(), nn.Sigmoid()
    ),
    "norms": lambda: nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 4), nn.LayerNorm(4)).eval(),
}
OPAQUE = {
    "own": Odd,
    "batch norm in training": lambda: nn.BatchNorm1d(3),
    "own inside": lambda: nn.Sequential(Odd(), nn.Linear(3, 2)),
    "subclass": lambda: type("Mine", (nn.Linear,), {})(3, 2),
}  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", [*STACKS, *OPAQUE])
def test_modules(kind: str, backend: str) -> None:
    """Known modules are read into the program, others run as they are; the numbers and gradients are the same."""
    module = (STACKS | OPAQUE)[kind]()
    conv, x = gdsl.compile(GIN, nn=module, backend=backend).train(kind in OPAQUE), features(grad=True)
    twin = copy.deepcopy(module)
    y, expected = conv(x, EDGES), _gin(twin, x)
    torch.testing.assert_close(y, expected)
    ours = torch.autograd.grad(y.square().sum(), [x, *module.parameters()])
    theirs = torch.autograd.grad(expected.square().sum(), [x, *twin.parameters()])
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    how = "runs as it is, between kernels, on whole tensors" if kind in OPAQUE else "read into the program"
    assert f"== modules ==\n    nn: {how}" in conv.explain()
    if kind == "batch norm in training":
        torch.testing.assert_close(module.running_mean, twin.running_mean)
        assert int(module.num_batches_tracked) == 1, "it ran once"


def test_a_module_is_shared_not_copied() -> None:
    module = nn.Linear(3, 3)
    one, two = gdsl.compile(GIN, nn=module), gdsl.compile(GIN, nn=module)
    x = features()
    with torch.no_grad():
        module.weight.zero_()
        module.bias.fill_(7.0)
    assert torch.equal(one(x, EDGES), torch.full((N, 3), 7.0)) and torch.equal(two(x, EDGES), one(x, EDGES))
    assert set(one.state_dict()) == {"nn.weight", "nn.bias"}


@pytest.mark.parametrize("backend", BACKENDS)
def test_module_as_aggregator(backend: str) -> None:
    source, _ = PROGRAMS["SAGE_module"]
    conv, x = gdsl.compile(source, 3, 2, lstm=Sum(), backend=backend), features(grad=True)
    twin = copy.deepcopy(conv.lstm)
    a = twin.scale * torch.zeros(N, 3).index_add(0, EDGES[1], x[EDGES[0]])
    y, expected = conv(x, EDGES), a @ conv.weight_l + x @ conv.weight_r
    torch.testing.assert_close(y, expected)
    ours = torch.autograd.grad(y.square().sum(), [x, conv.lstm.scale, conv.weight_l])
    theirs = torch.autograd.grad(expected.square().sum(), [x, twin.scale, conv.weight_l])
    torch.testing.assert_close(ours, theirs)
    assert "    lstm: runs as it is, between kernels, on the edges sorted by node" in conv.explain()


def _hook(module: nn.Module) -> None:
    module[1].register_forward_hook(lambda m, args, y: 3 * y)


CHANGES: dict[str, Callable[[gdsl.Layer], Any]] = {
    "replaced": lambda conv: setattr(conv, "nn", nn.Sequential(nn.Linear(3, 4), nn.ReLU())),
    "a part replaced": lambda conv: conv.nn.__setitem__(2, nn.Tanh()),
    "a setting": lambda conv: setattr(conv.nn[2], "negative_slope", 0.9),
    "a hook": lambda conv: _hook(conv.nn),
    "frozen norm": lambda conv: conv.nn[0].eval(),
    "new data": lambda conv: conv.nn[1].weight.data.mul_(2),
}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", CHANGES)
def test_a_module_changed_after_a_call(kind: str, training: bool) -> None:
    module = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2), nn.LeakyReLU())
    conv, x = gdsl.compile(GIN, nn=module, backend="torch").train(training), features()
    before = conv(x, EDGES)
    CHANGES[kind](conv)
    after = conv(x, EDGES)
    torch.testing.assert_close(after, _gin(copy.deepcopy(conv.nn), x))
    assert not torch.equal(after, before) or (kind == "frozen norm" and not training)


def test_construction_leaves_a_module_as_it_is() -> None:
    """A trained module keeps its weights; ``reset_parameters`` draws them anew."""
    module = nn.Sequential(nn.Linear(3, 2), nn.ReLU())
    weight = module[0].weight.detach().clone()
    conv = gdsl.compile(GIN, nn=module)
    assert torch.equal(module[0].weight, weight)
    conv.reset_parameters()
    assert not torch.equal(module[0].weight, weight)


# ------------------------------------------------------------------------------------- threads, compilers


def test_threads_share_a_layer() -> None:
    """A new layer called by many threads at once compiles and sorts without a race."""
    source = GAT.replace("GATConv", "ThreadedGAT")
    conv, x = gdsl.compile(source, 3, 4, heads=2, backend="cpp"), features()
    edges = EDGES.clone()
    expected = gdsl.compile(source, 3, 4, heads=2, backend="torch")
    expected.load_state_dict(conv.state_dict())
    results: list[Any] = []
    barrier = threading.Barrier(6)

    def work() -> None:
        mine = x.clone().requires_grad_()
        barrier.wait()
        for _ in range(3):
            y = conv(mine, edges)
            results.append((y.detach(), *torch.autograd.grad(y.square().sum(), mine)))

    threads = [threading.Thread(target=work) for _ in range(6)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert len(results) == 18
    x.requires_grad_()
    y = expected(x, edges)
    torch.testing.assert_close(results[0], (y.detach(), *torch.autograd.grad(y.square().sum(), x)))
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


def test_dims_of_the_call_are_checked_with_it() -> None:
    """What only some sizes allow is no mistake before the size is known."""
    text = "layer C() { node x[d] update y = %s }"
    x = torch.rand(4, 7, dtype=torch.float64)
    torch.testing.assert_close(gdsl.compile(text % "x[5]")(x, EDGES[:, :0]), x[:, 5])
    turn = gdsl.compile(text % "cross(x, x + 1)")
    torch.testing.assert_close(turn(x[:, :3], EDGES[:, :0]), torch.linalg.cross(x[:, :3], x[:, :3] + 1))
    with pytest.raises(gdsl.LanguageError, match="cross needs two vectors"):
        turn(x, EDGES[:, :0])
    with pytest.raises(gdsl.LanguageError, match="unknown name `z`"):
        gdsl.compile(text % "x[5] + z")


@pytest.mark.parametrize("backend", BACKENDS)
def test_results_made_of_an_optional_input_live_on_edges(backend: str) -> None:
    """With and without it."""
    text = "layer C() { node x edge w = 1 m = 2 * w const k = 3 aggregate y = sum(m * x[j]) return y, w, m, k }"
    conv, x = gdsl.compile(text, backend=backend), torch.rand(7)
    ones = torch.ones(EDGES.shape[1])
    for got, expected in zip(conv(x, EDGES), conv(x, EDGES, ones), strict=True):
        torch.testing.assert_close(got, expected)
    assert [tuple(t.shape) for t in conv(x, EDGES)] == [(7,), tuple(ones.shape), tuple(ones.shape), ()]
    assert "k = 3" in conv.explain() or "k = 3" in str(conv.program)


def test_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "find_compiler", lambda: None)
    monkeypatch.setattr(backends, "_warned", set())
    monkeypatch.delenv("CXX", raising=False)
    source, x = PLAIN.replace("Plain", "Uncompiled"), features()
    install = "install a C++ compiler: `apt install g++`, `dnf install gcc-c++` or `xcode-select --install`, or set CXX"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        one, two = gdsl.compile(source, 3), gdsl.compile(source, 3)
        for conv in (one, one, two):
            torch.testing.assert_close(conv(x, EDGES), _reference(conv, x))
    assert [str(w.message) for w in caught] == [
        f"no C++ compiler was found: layers run on the slow torch backend. {install}"
    ]
    with pytest.raises(gdsl.CompilerError) as error:
        gdsl.compile(source, 3, backend="cpp")(x, EDGES)
    assert str(error.value) == f"no C++ compiler was found; {install}"


# ------------------------------------------------------------------------------------- the look inside


def test_kernels() -> None:
    conv = gdsl.compile(GAT, 3, 4, heads=2)
    kernels = conv.kernels
    assert {k.direction for k in kernels} == {"forward", "backward"}
    assert [k.direction for k in kernels] == sorted((k.direction for k in kernels), reverse=True)
    assert len({k.name for k in kernels}) == len(kernels)
    for k in kernels:
        assert k.language == "cpp"
        assert k.name in k.source and k.source.count("{") == k.source.count("}")
        for cost in (k.bytes, k.flops):
            assert isinstance(cost, sympy.Expr) and cost.free_symbols
            small, large = (float(cost.subs(dict.fromkeys(cost.free_symbols, n))) for n in (10, 20))
            assert 0 < small < large
    symbols = {str(s) for k in kernels for cost in (k.bytes, k.flops) for s in cost.free_symbols}
    assert {"N", "E"} <= symbols <= {"N", "E", "heads", "in_channels", "out_channels"}


def test_kernels_are_the_same_each_time() -> None:
    conv = gdsl.compile(GAT, 3, 4, heads=2)
    for _ in range(2):
        assert all(a is b for a, b in zip(conv.kernels, conv.kernels, strict=True))
        assert all(a is b for a, b in zip(conv.kernels_for("triton"), conv.kernels_for("triton"), strict=True))
        conv(torch.randn(4, 3), torch.tensor([[0, 1], [1, 2]]))
    before = conv.kernels
    conv.kernels.clear()
    assert conv.kernels == before and conv.kernels_for("triton", target="sm_80")[0] is not conv.kernels_for("triton")[0]
    assert conv.choose(save="nothing").kernels[0] is not before[0]


@pytest.mark.parametrize("make", [gdsl.compile, lambda text, **given: gdsl.define(text)(**given)])
def test_the_signature_of_a_call(make: Callable[..., gdsl.Layer]) -> None:
    def words(text: str, **given: Any) -> str:
        found = inspect.signature(make(text, **given).forward)
        return str(found.replace(return_annotation=inspect.Signature.empty))

    assert words(PLAIN, in_channels=3) == "(x, graph, w=None)"
    assert words(PAIR) == "(z, x, graph, rel)"
    assert words("layer P(d) { node x[d] pool s = sum(x) return s }", d=3) == "(x, graph, batch=None, num_graphs=None)"
    # Where the arguments of the layer decide what a call takes, the text alone does not say it.
    either = "layer L(d, two) { if two { source x[d] target z[d] } else { node x[d] } aggregate y = sum(x[j]) "
    either += "return y }"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gdsl.LanguageWarning)
        assert "*args" in words(either, d=3, two=False)
    bound = inspect.signature(make(PLAIN, in_channels=3).forward).bind("x", "graph")
    assert bound.arguments == {"x": "x", "graph": "graph"}


def test_classes_that_nobody_has_are_forgotten() -> None:
    text = PLAIN.replace("Plain", "Forgotten")
    gdsl.compile(text, in_channels=3)
    gc.collect()
    assert not [name for _, name, _ in api._CLASSES if name == "Forgotten"]
    kind = gdsl.define(text)
    assert type(gdsl.compile(text, in_channels=3)) is kind is gdsl.define(text)


TABLE = "layer L(d) { const table[2, d] node x[d] aggregate y = sum(x[j] * table[0]) return y }"


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (torch.ones(2, 3).to_sparse(), r"sparse_coo tensor: pass table\.to_dense"),
        (torch.ones(2, 3).to_sparse_csc(), r"sparse_csc tensor: pass table\.to_dense"),
        (torch.ones(2, 3, device="meta"), "on the meta device"),
        (torch.ones(2, 3, dtype=torch.complex64), "a table of finite numbers"),
        (torch.full((2, 3), torch.inf), "a table of finite numbers"),
    ],
)
@pytest.mark.filterwarnings("ignore:Sparse")
def test_a_table_without_numbers(value: Tensor, hint: str) -> None:
    with pytest.raises(gdsl.LanguageError, match=hint):
        gdsl.compile(TABLE, d=3, table=value)
    good = gdsl.compile(TABLE, d=3, table=torch.ones(2, 3).to_sparse().to_dense())
    assert good(torch.ones(2, 3), torch.tensor([[0], [1]])).tolist() == [[0, 0, 0], [1, 1, 1]]


@pytest.mark.parametrize("declared", ["param b[d] ~ zeros", "buffer b[d] ~ zeros", "buffer b[d] ~ [1, 2, 3]"])
def test_numbers_for_what_is_no_argument(declared: str) -> None:
    text = f"layer L(d) {{ node x[d] {declared} aggregate a = sum(x[j]) update y = a + b }}"
    with pytest.raises(gdsl.LanguageError, match=r"has no argument `b`(.|\n)*copy numbers into it afterwards"):
        gdsl.compile(text, d=3, b=torch.ones(3))
    given = gdsl.compile(text.replace(declared, "const b[d]"), d=3, b=torch.ones(3))
    assert given(torch.zeros(2, 3), torch.tensor([[0], [1]])).tolist() == [[1, 1, 1]] * 2


def test_costs_of_a_sum() -> None:
    """Each edge reads an index and a row of c float32; each node reads a row pointer and writes a row."""
    conv = gdsl.compile("layer Total {\n    node x[c]\n    update y = sum(x[j])\n}\n", c=4)
    (kernel,) = [k for k in conv.kernels if k.direction == "forward"]
    values = {"N": 100, "E": 1000, "c": 4}
    at = {s: values[str(s)] for s in kernel.bytes.free_symbols}
    assert kernel.flops.subs({s: values[str(s)] for s in kernel.flops.free_symbols}) == 1000 * 4
    assert 0 <= kernel.bytes.subs(at) - (1000 * 4 * (4 + 1) + 100 * 4 * (4 + 1)) <= 1000 * 4 + 100 * 8


def test_costs_of_a_pick() -> None:
    """Of a table that an edge picks one row of, only that row is read, also where the table is worked on first."""
    text = "layer Pick(r) {\n    node x[r, c]\n    edge rel: int(r)\n    update y = sum(%s[rel])\n}\n"
    for table in ("x[j]", "relu(x)[j]"):
        (kernel,) = [k for k in gdsl.compile(text % table, r=7, c=4).kernels if k.direction == "forward"]
        found = kernel.bytes.subs({s: {"N": 100, "E": 1000, "c": 4, "r": 7}[str(s)] for s in kernel.bytes.free_symbols})
        assert found == 4 * (1000 * (4 + 1 + 2) + 100 * (4 + 1))  # features, rel, both ends; results, row pointers


def test_explain_and_program() -> None:
    conv = gdsl.compile(GAT, 3, 4, heads=2, p=0.5)
    text = conv.explain()
    for title in ("GATConv: the rules", "optimised", "backward", "kept from forward to backward", "plan"):
        assert f"\n== {title} ==" in text
    assert "alpha" in text and all(k.name in text for k in conv.kernels)
    assert not conv.program.uses_seed, "before a call: the program in evaluation"
    conv(features(), EDGES)
    assert conv.program.uses_seed, "then that of the last call"
    assert [name for name, _ in conv.program.outputs] == ["y"]
    assert conv.source == GAT.strip().partition("\n")[2]


def test_explain_before_a_call_needs_the_sizes() -> None:
    with pytest.raises(gdsl.InputError) as error:
        gdsl.compile(DROPOUT).explain()
    assert str(error.value) == (
        "the size of dim `c` is only known from a call: call the layer once, or give c=... when compiling it"
    )
    assert "kernel" in gdsl.compile(DROPOUT, c=3).explain()


def test_anything_else_with_an_edge_index() -> None:
    """A graph is known by what it has, not by its class."""
    conv, x = gdsl.compile(PLAIN, 3), features()
    assert torch.equal(conv(x, SimpleNamespace(edge_index=EDGES)), conv(x, EDGES))


# ------------------------------------------------------------------------------- repeated calls


MEAN = """
layer Mean(in_channels, out_channels) {
    param weight[in_channels, out_channels] ~ glorot
    node x[in_channels]
    edge kind: int(3)
    aggregate a = sum(x[j] @ weight * (kind + 1))
    update y = a
}
"""


def test_a_repeated_call_notices_what_changed() -> None:
    """The second call of a kind skips checks of what is the same, and of nothing else."""
    layer = gdsl.compile(MEAN, 3, 2)
    graph = gdsl.Graph(torch.tensor([[0, 1, 2], [1, 2, 0]]), 3)
    x, kind = torch.rand(3, 3), torch.tensor([0, 1, 2])
    first = layer(x, graph, kind)
    assert torch.equal(layer(x, graph, kind), first)
    with pytest.raises(gdsl.InputError, match="edge 1 has kind = 7"):
        layer(x, graph, torch.tensor([0, 7, 2]))
    with pytest.raises(gdsl.InputError, match="must have shape"):
        layer(torch.rand(3, 4), graph, kind)
    with pytest.raises(gdsl.InputError, match="float64"):
        layer(x.double(), graph, kind)
    with pytest.raises(gdsl.InputError, match="rows"):
        layer(torch.rand(4, 3), graph, kind)
    with pytest.raises(gdsl.InputError, match="rows"):
        layer(x, gdsl.Graph(torch.tensor([[0, 1], [1, 2]]), 3), kind)
    other = gdsl.Graph(torch.tensor([[0, 1, 2], [2, 0, 1]]), 3)
    assert not torch.equal(layer(x, other, kind), first)
    layer.weight = torch.nn.Parameter(layer.weight.detach() * 2)
    torch.testing.assert_close(layer(x, graph, kind), first * 2)
    layer.double()
    torch.testing.assert_close(layer(x.double(), graph, kind), first.double() * 2)


def test_a_repeated_call_with_an_edge_index_sees_a_write_to_it() -> None:
    layer = gdsl.compile(MEAN, 3, 2)
    edge_index, x, kind = torch.tensor([[0, 1, 2], [1, 2, 0]]), torch.rand(3, 3), torch.tensor([0, 1, 2])
    first = layer(x, edge_index, kind)
    edge_index[1] = torch.tensor([2, 0, 1])
    wanted = layer(x, gdsl.Graph(edge_index, 3), kind)
    assert torch.equal(layer(x, edge_index, kind), wanted)
    assert not torch.equal(wanted, first)
    edge_index[1, 0] = 5
    with pytest.raises(gdsl.GraphError):
        layer(x, edge_index, kind)


def test_the_same_tensor_as_two_inputs() -> None:
    layer = gdsl.compile("layer Two { node x[a] node z[a] aggregate s = sum(x[j] - 2 * z[j]) update y = s }")
    graph, x = gdsl.Graph(torch.tensor([[0, 1], [1, 0]]), 2), torch.rand(2, 3)
    assert torch.equal(layer(x, x, graph), layer(x, x.clone(), graph))
    assert torch.equal(layer(x, x, graph), layer(x, x.clone(), graph))


def test_choices() -> None:
    layer = gdsl.compile(MEAN, 3, 2)
    graph, x, kind = gdsl.Graph(torch.tensor([[0, 1, 2], [1, 2, 0]]), 3), torch.rand(3, 3), torch.tensor([0, 1, 2])
    wanted = layer(x, graph, kind)
    for choices in ({"aggregate": "first"}, {"aggregate": "last", "save": "nothing"}, {"save": "all"}):
        assert layer.choose(**choices) is layer
        x.requires_grad_()
        found = layer(x, graph, kind)
        torch.testing.assert_close(found, wanted)
        found.sum().backward()
    with pytest.raises(gdsl.InputError, match="there is no choice `speed`; there are memory, aggregate"):
        layer.choose(speed="high")
    with pytest.raises(gdsl.InputError, match="`aggregate` is one of auto, first, last, not 'middle'"):
        layer.choose(aggregate="middle")


def test_remembered_kinds_of_calls_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gdsl.kept.Kept.most", 3)
    layer = gdsl.compile("layer Sum { node x[a] aggregate s = sum(x[j]) update y = s }")
    for nodes in range(2, 12):
        y = layer(torch.ones(nodes, 2), gdsl.Graph(torch.tensor([[0], [1]]), nodes))
        assert y.sum() == 2
        assert len(layer._text.known) <= 3


def test_the_only_place_of_a_parameter() -> None:
    """A view without dims, on every backend."""
    for backend in ("torch", "cpp"):
        layer = gdsl.compile("layer L { param t[1] ~ constant(2) node x[c] update y = t[0] * x }", backend=backend)
        x = torch.randn(4, 3)
        y = layer(x, torch.zeros(2, 0, dtype=torch.long))
        assert torch.equal(y, 2 * x)
        y.sum().backward()
        assert torch.allclose(layer.t.grad, x.sum().reshape(1))


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        ("node x[d] node z[d] = 0.5 return z, x", [(3, 2), (3, 2)]),
        ("node x[d] node z = 0.5 a = 2 * z return a, z + 1, x", [(3,), (3,), (3, 2)]),
        ("node x[d] node z = 0.5 m = z[j] return m, x", [(4,), (3, 2)]),
        ("node x[d] edge w[d] = 1 return w, x", [(4, 2), (3, 2)]),
        ("node x[d] graph c = 2 pool p = sum(x) return c, p", [(1,), (1, 2)]),
        ("source x[d] target z[d] = 0.5 update y = z return z, y", [(5, 2), (5, 2)]),
        ("source x[d] = 3 target z[d] return x, z", [(3, 2), (5, 2)]),
    ],
)
@pytest.mark.parametrize("backend", ["torch", "cpp"])
def test_a_default_that_is_returned_has_its_rows(text: str, shapes: list[tuple[int, ...]], backend: str) -> None:
    """The shape of a result does not depend on whether an input was passed."""
    made = gdsl.compile(f"layer L(d) {{ {text} }}", d=2, backend=backend)
    edge_index = torch.tensor([[0, 1, 2, 0], [1, 2, 0, 2]])
    bipartite = "source" in text
    sources, targets = (3, 5) if bipartite else (3, 3)
    rows = {"node": 3, "source": sources, "target": targets, "edge": 4, "graph": 1}
    inputs = {i.name: torch.rand(rows[i.domain], *(2,) * i.rank) for i in made.signature.inputs if not i.optional}
    graph = gdsl.Graph(edge_index, (sources, targets) if bipartite else 3)
    results = made(**inputs, graph=graph)
    assert [tuple(r.shape) for r in results] == shapes
    every = {i.name: torch.rand(rows[i.domain], *(2,) * i.rank) for i in made.signature.inputs}
    passed = made(**every, graph=graph)
    assert [tuple(r.shape) for r in passed] == shapes


@pytest.mark.parametrize("backend", ["torch", "cpp"])
def test_dropout_of_a_default_of_nodes_is_drawn_for_each_node(backend: str) -> None:
    made = gdsl.compile("layer L(d) { node x[d] node z = 1 update y = x * dropout(z, 0.5) }", d=2, backend=backend)
    torch.manual_seed(0)
    y = made(torch.ones(200, 2), torch.zeros(2, 0, dtype=torch.long))
    assert set(y[:, 0].tolist()) == {0.0, 2.0}
    assert torch.equal(y[:, 0], y[:, 1])
