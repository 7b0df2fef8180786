"""Layers of a user's own on gdsl's base class and on torch_geometric's: the same text, the same numbers."""

from __future__ import annotations

import copy
import pickle
import random
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gdsl.errors import InternalWarning
from gdsl.nn import MessagePassing
from gdsl.nn.softmax import softmax
from tests.parity.drop_in import NODES, graph_of, outcome, pyg, set_backend
from tests.programs import harness

pyg_softmax = pytest.importorskip("torch_geometric.utils").softmax

Make = Callable[[Any], nn.Module]


def gcn(base: Any) -> nn.Module:
    """The first layer of torch_geometric's tutorial."""

    class GCN(base):
        def __init__(self) -> None:
            super().__init__(aggr="add")
            self.lin = nn.Linear(5, 4, bias=False)
            self.bias = nn.Parameter(torch.randn(4))

        def forward(self, x: Tensor, edge_index: Tensor, w: Tensor) -> Tensor:
            return self.propagate(edge_index, x=self.lin(x), norm=w) + self.bias

        def message(self, x_j: Tensor, norm: Tensor) -> Tensor:
            return norm.view(-1, 1) * x_j

    return GCN()


def edge_conv(base: Any) -> nn.Module:
    """The second layer of torch_geometric's tutorial."""

    class Edge(base):
        def __init__(self) -> None:
            super().__init__(aggr="max")
            self.mlp = nn.Sequential(nn.Linear(10, 6), nn.ReLU(), nn.Linear(6, 4))

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.propagate(edge_index, x=x)

        def message(self, x_i: Tensor, x_j: Tensor) -> Tensor:
            return self.mlp(torch.cat([x_i, x_j - x_i], dim=1))

    return Edge()


def attention(base: Any, function: Any = None) -> nn.Module:
    """Heads, a softmax over the edges into a node, and an update that asks for an argument."""
    soft = function or softmax

    class Attention(base):
        def __init__(self) -> None:
            super().__init__(aggr="add", node_dim=0)
            self.lin = nn.Linear(5, 6, bias=False)
            self.att = nn.Parameter(torch.randn(1, 2, 6))
            self.slope = 0.2

        def forward(self, x: Tensor, edge_index: Tensor, e: Tensor) -> Tensor:
            return self.propagate(edge_index, x=self.lin(x).view(-1, 2, 3), e=e)

        def message(self, x_i: Tensor, x_j: Tensor, e: Tensor, index: Tensor, ptr: Any, size_i: int) -> Tensor:
            score = (torch.cat([x_i, x_j], dim=-1) * self.att).sum(dim=-1)
            score = F.leaky_relu(score + e[:, :1], self.slope)
            alpha = soft(score, index, ptr, size_i)
            return x_j * alpha.unsqueeze(-1)

        def update(self, inputs: Tensor, x: Tensor) -> Tensor:
            return (inputs + x).flatten(1)

    return Attention()


def many_ops(base: Any) -> nn.Module:
    """Most of what is read."""

    class Many(base):
        def __init__(self) -> None:
            super().__init__(aggr=["mean", "std", "max"], flow="target_to_source")
            self.w = nn.Parameter(torch.randn(5, 4))
            self.register_buffer("scale", torch.rand(4))

        def forward(self, x: Tensor, edge_index: Tensor, e: Tensor) -> Tensor:
            return self.propagate(edge_index, x=(x, x.flip(0)), e=e, power=2)

        def message(self, x_i: Tensor, x_j: Tensor, e: Tensor, power: int) -> Tensor:
            a = torch.tanh(x_j @ self.w) * self.scale - 1
            b = F.elu(1 / (1 + (x_i**power).sum(dim=1, keepdim=True)))
            c = F.softmax(x_i.matmul(self.w), dim=-1).clamp(min=0.1)
            d = torch.where(a > b, a, -c).abs().sqrt() + F.gelu(a).mean(-1).unsqueeze(1)
            pairs = d.reshape(-1, 2, 2).transpose(1, 2).flatten(1)
            return torch.cat((pairs, e[..., 1:], x_i.norm(dim=1, keepdim=True), 0.5 * b), dim=-1)

    return Many()


def as_it_is(base: Any) -> nn.Module:
    """An ``aggregate`` of its own."""

    class AsItIs(base):
        def __init__(self) -> None:
            super().__init__()
            self.lin = nn.Linear(5, 4)

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.propagate(edge_index, x=x)

        def message(self, x_j: Tensor) -> Tensor:
            return self.lin(x_j).cumsum(dim=1)

        def aggregate(self, inputs: Tensor, index: Tensor, dim_size: int) -> Tensor:
            return inputs.new_zeros(dim_size, 4).index_add(0, index, inputs)

    return AsItIs()


def edge_updates(base: Any) -> nn.Module:
    class EdgeUpdates(base):
        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            alpha = self.edge_updater(edge_index, x=x)
            return self.propagate(edge_index, x=x, alpha=alpha)

        def edge_update(self, x_j: Tensor, x_i: Tensor) -> Tensor:
            return (x_j * x_i).sum(-1, keepdim=True).tanh()

        def message(self, x_j: Tensor, alpha: Tensor) -> Tensor:
            return x_j * alpha

    return EdgeUpdates()


def plain(base: Any) -> nn.Module:
    """No method at all."""

    class Plain(base):
        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.propagate(edge_index, x=x)

    return Plain(aggr="mean")


LAYERS: dict[str, tuple[Make, tuple[str, ...], bool]] = {
    "gcn": (gcn, ("w",), True),
    "edge conv": (edge_conv, (), True),
    "attention": (attention, ("e",), True),
    "many ops": (many_ops, ("e",), True),
    "its own aggregate": (as_it_is, (), False),
    "edge updates": (edge_updates, (), True),
    "plain": (plain, (), True),
}


def arguments(names: tuple[str, ...], graph: Tensor) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(5)
    every = {
        "w": torch.rand(graph.shape[1], generator=g, dtype=torch.float64),
        "e": torch.rand(graph.shape[1], 3, generator=g, dtype=torch.float64),
    }
    return {name: every[name] for name in names}


def features() -> Tensor:
    return torch.randn(NODES, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("backend", ["torch", "cpp"])
def test_same_numbers(name: str, backend: str) -> None:
    make, wanted, fused = LAYERS[name]
    theirs = (
        make(pyg.MessagePassing).double()
        if name != "attention"
        else attention(pyg.MessagePassing, pyg_softmax).double()
    )
    ours = make(MessagePassing).double()
    ours.load_state_dict(theirs.state_dict())
    set_backend(ours, backend)
    graph = graph_of("any", 1, False)
    assert graph is not None
    expected = outcome(theirs, (features(),), graph, arguments(wanted, graph))
    found = outcome(ours, (features(),), graph, arguments(wanted, graph))
    assert found.keys() == expected.keys()
    for part, value in expected.items():
        assert harness.difference([found[part]], [value]) < 1e-9, part
    assert (ours.how == "fused") == fused, ours.how


def test_the_softmax_of_torch_geometric_is_known() -> None:
    ours = attention(MessagePassing, None)
    graph = graph_of("any", 1, False)
    assert graph is not None
    ours(features().float(), graph, arguments(("e",), graph)["e"].float())
    assert ours.how == "fused"
    src, index = torch.randn(10, 2), torch.randint(4, (10,))
    assert torch.allclose(softmax(src, index, num_nodes=6), pyg_softmax(src, index, num_nodes=6))
    assert torch.allclose(softmax(src.t(), index, dim=1), pyg_softmax(src.t(), index, dim=1))


def made(message: Callable[..., Tensor], **attributes: Any) -> MessagePassing:
    """A layer with this method."""

    class Conv(MessagePassing):
        def __init__(self) -> None:
            super().__init__()
            for name, value in attributes.items():
                setattr(self, name, value)

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.propagate(edge_index, x=x)

    Conv.message = message  # type: ignore[method-assign]
    return Conv()


GLOBAL = 2.0


@dataclass
class Config:
    factor: float = 2.0


CONFIG = Config()


def configured() -> float:
    """Reads an object that may change."""
    return CONFIG.factor


CONSTANT = torch.full((5,), 2.0)

# Methods, and a word of how they run: "fused", or what is not.
METHODS: dict[str, tuple[Callable[..., Tensor], dict[str, Any], str]] = {
    "a condition on values": (lambda self, x_j: x_j if x_j.sum() > 0 else -x_j, {}, "over the edges"),
    "a function that has no form": (lambda self, x_j: x_j.cumsum(1), {}, "cumsum"),
    "an index into the edges": (lambda self, x_j: x_j * x_j[0], {}, "an index into the edges"),
    "chance": (lambda self, x_j: x_j * random.random(), {}, "fused"),
    "chance of torch": (lambda self, x_j: x_j * torch.rand(1), {}, "fused"),
    "an object": (lambda self, x_j: x_j * self.config.factor, {"config": Config()}, "fused"),
    "an object in a function": (lambda self, x_j: x_j * configured(), {}, "fused"),
    "a tensor from elsewhere": (lambda self, x_j: x_j * CONSTANT, {}, "fused"),
    "the number of edges": (lambda self, x_j: x_j / x_j.size(0), {}, "fused"),
    "an index": (lambda self, x_j, index: x_j * index.view(-1, 1), {}, "fused"),
}


@pytest.mark.parametrize("name", METHODS)
def test_how_methods_run(name: str) -> None:
    message, attributes, how = METHODS[name]
    layer = made(message, **attributes)
    graph = graph_of("any", 1, False)
    assert graph is not None
    x = features().float()
    random.seed(0)
    torch.manual_seed(0)
    y = layer(x, graph)
    assert how in layer.how
    random.seed(0)
    torch.manual_seed(0)
    expected = message(layer, x[graph[0]], *([graph[1]] if name == "an index" else []))
    assert torch.allclose(y, torch.zeros_like(x).index_add(0, graph[1], expected), atol=1e-6)


def test_plain_attributes_and_globals_may_change(monkeypatch: pytest.MonkeyPatch) -> None:
    def message(self: Any, x_j: Tensor) -> Tensor:
        return x_j * self.factor * GLOBAL * self.table["a"][0]

    layer = made(message, factor=1.0, table={"a": [1.0]})
    graph = graph_of("any", 1, False)
    assert graph is not None
    x = features().float()
    first = layer(x, graph)
    assert layer.how == "fused"
    layer.factor = 3.0
    assert torch.allclose(layer(x, graph), 3 * first)
    layer.table["a"][0] = 2.0
    assert torch.allclose(layer(x, graph), 6 * first)
    monkeypatch.setitem(message.__globals__, "GLOBAL", 4.0)
    assert torch.allclose(layer(x, graph), 12 * first)
    assert layer.how == "fused"


def test_dropout_in_training_only() -> None:
    layer = made(lambda self, x_j: F.dropout(x_j, p=0.5, training=self.training))
    graph = torch.stack([torch.arange(1000) % NODES, torch.arange(1000) % NODES])
    x = torch.ones(NODES, 5)
    y = layer(x, graph)
    assert layer.how == "fused"
    assert not torch.equal(y, layer(x, graph))
    assert torch.allclose(y.mean() / layer.eval()(x, graph).mean(), torch.tensor(1.0), atol=0.2)
    assert torch.equal(layer(x, graph), layer(x, graph))


def test_copies() -> None:
    layer = plain(MessagePassing)
    graph = graph_of("any", 1, False)
    assert graph is not None
    x = features()
    y = layer(x, graph)
    assert torch.equal(copy.deepcopy(layer)(x, graph), y)


def test_missing_arguments() -> None:
    class Conv(MessagePassing):
        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.propagate(edge_index, x=x)

        def message(self, x_j: Tensor, w: Tensor) -> Tensor:
            return x_j * w

    with pytest.raises(TypeError, match="Required parameter 'w' is empty"):
        Conv()(torch.randn(3, 2), torch.tensor([[0], [1]]))


def test_pickled_by_its_class() -> None:
    layer = pickle.loads(pickle.dumps(Pickled()))
    assert layer(torch.ones(2, 3), torch.tensor([[0], [1]])).tolist() == [[0.0] * 3, [2.0] * 3]


class Pickled(MessagePassing):
    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.propagate(edge_index, x=x)

    def message(self, x_j: Tensor) -> Tensor:
        return 2 * x_j


@pytest.mark.parametrize("error", [KeyError, IndexError, AssertionError])
def test_a_bug_of_the_compiler_is_told_and_the_layer_runs(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: Any) -> Any:
        raise error("x.0")

    monkeypatch.setattr("gdsl.nn.message_passing.ready_for", broken)
    name = f"Broken{error.__name__}"
    layer, twin = (type(name, (base,), {})(aggr="mean") for base in (MessagePassing, pyg.MessagePassing))
    x, edges = torch.randn(5, 3), torch.randint(5, (2, 9))
    with pytest.warns(InternalWarning, match=f"could not compile it: {error.__name__}.*bug of gdsl"):
        found = layer.propagate(edges, x=x)
    assert torch.allclose(found, twin.propagate(edges, x=x))
    assert error.__name__ in layer.how


class Drawn:
    """A layer on either base class, with an aggregation of a name."""

    def __init__(self, aggr: Any):
        self.aggr = aggr

    def __call__(self, base: Any) -> nn.Module:
        aggr = self.aggr

        class Turned(base):
            def __init__(self) -> None:
                super().__init__(aggr=aggr)
                self.lin = nn.Linear(5, 3)

            def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
                return self.propagate(edge_index, x=self.lin(x))

            def message(self, x_i: Tensor, x_j: Tensor) -> Tensor:
                return torch.tanh(x_j - x_i)

        return Turned()


AGGREGATIONS = ["sum", "mean", "max", "std", "median", "softmax", ["sum", "max"]]


@pytest.mark.parametrize("aggr", AGGREGATIONS, ids=str)
def test_hooks_on_the_aggregation(aggr: Any) -> None:
    """They are called once a call, see what torch_geometric's see, and may change it; without them the layer fuses."""
    found = []
    x, edges = torch.randn(NODES, 5, dtype=torch.float64), torch.randint(NODES, (2, 30))
    layer, twin = (Drawn(aggr)(base).double() for base in (MessagePassing, pyg.MessagePassing))
    twin.load_state_dict(layer.state_dict())
    layer(x, edges)
    assert layer.how == "fused"
    for made in (layer, twin):
        seen: list[Any] = []
        hooks = [
            made.aggr_module.register_forward_pre_hook(lambda m, given, seen=seen: seen.append(given[0].detach())),
            made.aggr_module.register_forward_hook(lambda m, given, y, seen=seen: (seen.append(y.detach()), 2 * y)[1]),
            made.aggr_module.register_full_backward_hook(lambda m, dx, dy, seen=seen: seen.append(dy[0])),
        ]
        y = made(x.clone().requires_grad_(), edges)
        y.square().sum().backward()
        found.append([*seen, y.detach(), *(p.grad for p in made.parameters())])
        for hook in hooks:
            hook.remove()
    assert len(found[0]) == len(found[1]) == 6
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)
    assert "has hooks" in layer.how
    layer(x, edges)
    assert layer.how == "fused"


@pytest.mark.parametrize("aggr", ["sum", ["mean", "max"]], ids=str)
def test_the_summary_of_a_model(aggr: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch_geometric's summary puts hooks on every part, also inside of layers."""
    rows: list[Any] = []

    def tabulate(table: Any, *given: Any, **options: Any) -> str:
        rows.append(table)
        return ""

    monkeypatch.setitem(sys.modules, "tabulate", types.SimpleNamespace(tabulate=tabulate))

    class Net(nn.Module):
        def __init__(self, base: Any) -> None:
            super().__init__()
            self.conv, self.act = Drawn(aggr)(base), nn.ReLU()

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.act(self.conv(x, edge_index))

    x, edges = torch.randn(NODES, 5), torch.randint(NODES, (2, 30))
    for base in (MessagePassing, pyg.MessagePassing):
        pyg.summary(Net(base), x, edges, max_depth=5, leaf_module=None)
    # Inside of several aggregations torch_geometric computes some together.
    mine, theirs = ([row for row in found if not row[0].startswith("│    │")] for found in rows)
    assert mine == theirs and any("aggr_module" in row[0] for row in mine)


class _OfAnotherName(MessagePassing):
    def forward(s, x: Tensor, edge_index: Tensor) -> Tensor:
        found: Tensor = s.propagate(edge_index, x=x)
        return found

    def message(me, x_j: Tensor) -> Tensor:
        return 2 * x_j


def test_self_by_another_name() -> None:
    """Python does not care; see findings/self-by-another-name.sh."""
    x, edges = torch.ones(3, 1), torch.tensor([[0, 1], [1, 2]])
    assert _OfAnotherName()(x, edges).flatten().tolist() == [0.0, 2.0, 2.0]
