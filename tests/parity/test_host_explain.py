"""torch_geometric's explainers, their metrics, and hooks, on models of gdsl.nn and of its own."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gdsl
import gdsl.nn
from tests.parity import drop_in

pyg = pytest.importorskip("torch_geometric.nn")
explain = pytest.importorskip("torch_geometric.explain")
captum = pytest.importorskip("torch_geometric.explain.algorithm.captum")
utils = pytest.importorskip("torch_geometric.explain.algorithm.utils")

LIBRARIES = (pyg, gdsl.nn)
EDGES = 20
G = torch.Generator().manual_seed(0)
X = torch.randn(8, 4, generator=G)
GRAPH = torch.randint(8, (2, EDGES), generator=G)
WEIGHT = torch.rand(EDGES, generator=G)
CLASSES = {"mode": "multiclass_classification", "task_level": "node", "return_type": "log_probs"}

Make = Callable[[Any, int, int], nn.Module]
LAYERS: dict[str, Make] = {
    "GCN": lambda lib, a, b: lib.GCNConv(a, b),
    "SAGE": lambda lib, a, b: lib.SAGEConv(a, b),
    "GIN": lambda lib, a, b: lib.GINConv(nn.Linear(a, b)),
    "GAT": lambda lib, a, b: lib.GATConv(a, b),
    "GATv2": lambda lib, a, b: lib.GATv2Conv(a, b),
    "Transformer": lambda lib, a, b: lib.TransformerConv(a, b),
}


class Net(nn.Module):
    def __init__(self, lib: Any, layer: Make):
        super().__init__()
        self.one, self.two = layer(lib, 4, 6), layer(lib, 6, 3)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.two(self.one(x, edge_index).relu(), edge_index).log_softmax(-1)


def same(layer: str, what: Callable[[nn.Module], Tensor]) -> None:
    """The same tensor of both libraries, and a model that is as it was before."""
    found, state = [], None
    for lib in LIBRARIES:
        torch.manual_seed(1)
        model = Net(lib, LAYERS[layer]).eval()
        drop_in.set_backend(model, "torch")
        state = state or model.state_dict()
        model.load_state_dict(state)
        before = model(X, GRAPH)
        torch.manual_seed(2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found.append(what(model))
        assert torch.allclose(model(X, GRAPH), before, atol=1e-6)
    theirs, ours = found
    assert ours.shape == theirs.shape and torch.allclose(ours, theirs, atol=1e-4)
    assert bool((theirs != 0).any())


def of_nodes(model: nn.Module) -> Tensor:
    made = explain.Explainer(
        model,
        explain.GNNExplainer(epochs=10),
        explanation_type="model",
        node_mask_type="attributes",
        edge_mask_type="object",
        model_config=CLASSES,
    )
    found = made(X, GRAPH, index=2)
    told = [*explain.metric.fidelity(made, found), explain.metric.unfaithfulness(made, found)]
    return torch.cat([found.edge_mask, found.node_mask.flatten(), torch.tensor(told)])


def parametric(model: nn.Module) -> Tensor:
    algorithm = explain.PGExplainer(epochs=2, lr=0.003)
    made = explain.Explainer(
        model, algorithm, explanation_type="phenomenon", edge_mask_type="object", model_config=CLASSES
    )
    target = torch.arange(8) % 3
    for epoch in range(2):
        for index in (0, 3):
            algorithm.train(epoch, model, X, GRAPH, target=target, index=index)
    return made(X, GRAPH, target=target, index=2).edge_mask


def of_attention(model: nn.Module) -> Tensor:
    made = explain.Explainer(
        model, explain.AttentionExplainer(), explanation_type="model", edge_mask_type="object", model_config=CLASSES
    )
    return made(X, GRAPH, index=2).edge_mask


def of_messages(model: nn.Module) -> Tensor:
    made = explain.Explainer(
        model,
        explain.GraphMaskExplainer(2, epochs=2, log=False),
        explanation_type="model",
        node_mask_type="attributes",
        edge_mask_type="object",
        model_config=CLASSES,
    )
    found = made(X, GRAPH, index=2)
    for part in model.modules():
        if isinstance(part, pyg.MessagePassing):
            part.explain = None
    return torch.cat([found.edge_mask, found.node_mask.flatten()])


def masked(model: nn.Module) -> Tensor:
    made = explain.Explainer(
        model, explain.DummyExplainer(), explanation_type="model", edge_mask_type="object", model_config=CLASSES
    )
    given = torch.linspace(0, 1, EDGES)
    return torch.stack([made.get_masked_prediction(X, GRAPH, None, mask) for mask in (given, 0 * given)])


def of_captum(model: nn.Module) -> Tensor:
    """The gradients that Captum's methods take, of both masks."""
    given = captum.CaptumModel(model, "node_and_edge", 2)
    nodes, mask = X.unsqueeze(0).requires_grad_(), torch.full((1, EDGES), 0.5, requires_grad=True)
    out = given(nodes, mask, GRAPH)
    grads = torch.autograd.grad(out[:, 1].sum(), [nodes, mask])
    return torch.cat([out.flatten(), *(grad.flatten() for grad in grads)])


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("what", [of_nodes, parametric, masked, of_captum])
def test_explainers_by_masks(layer: str, what: Callable[[nn.Module], Tensor]) -> None:
    same(layer, what)


@pytest.mark.parametrize("layer", ["GCN", "SAGE"])
def test_the_explainer_that_puts_another_method_in_place(layer: str) -> None:
    same(layer, of_messages)


@pytest.mark.parametrize("layer", ["GAT", "GATv2", "Transformer"])
def test_the_explainer_by_attention(layer: str) -> None:
    same(layer, of_attention)


def test_layers_without_attention_have_none_to_explain() -> None:
    with pytest.raises(ValueError, match="Could not collect any attention"):
        of_attention(Net(gdsl.nn, LAYERS["SAGE"]))


def test_a_heterogeneous_explanation() -> None:
    kinds = [("a", "r", "b"), ("b", "s", "a")]
    x = {"a": X[:5], "b": X[5:]}
    graph = {kinds[0]: torch.tensor([[0, 1, 4], [0, 2, 1]]), kinds[1]: torch.tensor([[0, 1, 2], [1, 0, 3]])}
    found, state = [], None
    for lib in LIBRARIES:
        net = Net(lib, lambda lib, a, b: lib.SAGEConv((a, a), b))
        drop_in.set_backend(net, "torch")
        model = pyg.to_hetero(net, (["a", "b"], kinds)).eval()
        state = state or model.state_dict()
        model.load_state_dict(state)
        torch.manual_seed(2)
        made = explain.Explainer(
            explained(model),
            explain.GNNExplainer(epochs=5),
            explanation_type="model",
            edge_mask_type="object",
            model_config=CLASSES,
        )
        result = made(x, graph, index=1)
        found.append(torch.cat([result[kind].edge_mask for kind in kinds]))
    assert torch.allclose(found[0], found[1], atol=1e-4) and bool(found[0].any())


def explained(model: nn.Module) -> nn.Module:
    class OfA(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Any, edge_index: Any) -> Tensor:
            return self.model(x, edge_index)["a"]

    return OfA()


# ------------------------------------------------------------------------------------ hooks


class Spy:
    """Hooks that note what they see and change something."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def note(self, *what: Any) -> None:
        self.seen.append(what)

    def before_message(self, layer: nn.Module, given: Any) -> Any:
        self.note("before message", sorted(name for name, value in given[0].items() if value is not None))
        return ({**given[0], "x_j": given[0]["x_j"] * 2},)

    def after_message(self, layer: nn.Module, given: Any, out: Tensor) -> Tensor:
        self.note("after message", out.shape)
        return out + 1

    def before_aggregate(self, layer: nn.Module, given: Any) -> None:
        self.note("before aggregate", sorted(given[0]), given[0]["index"].tolist(), given[0]["dim_size"])

    def after_aggregate(self, layer: nn.Module, given: Any, out: Tensor) -> Tensor:
        self.note("after aggregate", out.shape)
        return out * 3

    def before_propagate(self, layer: nn.Module, given: Any) -> Any:
        edge_index, size, named = given
        self.note("before propagate", edge_index.tolist(), sorted(k for k, v in named.items() if v is not None))
        x = named["x"]
        return edge_index, size, {**named, "x": tuple(v + 1 for v in x) if isinstance(x, tuple) else x + 1}

    def after_propagate(self, layer: nn.Module, given: Any, out: Tensor) -> Tensor:
        self.note("after propagate", out.shape)
        return out - 1

    def after_edge_update(self, layer: nn.Module, given: Any, out: Tensor) -> Tensor:
        self.note("after edge_update", out.shape)
        return out * 0.5

    def on(self, layer: Any, *points: str) -> list[Any]:
        handles = []
        for point in points:
            if point != "edge_update":
                hook = getattr(self, f"before_{point}")
                handles.append(getattr(layer, f"register_{point}_forward_pre_hook")(hook))
            handles.append(getattr(layer, f"register_{point}_forward_hook")(getattr(self, f"after_{point}")))
        return handles


HOOKED: dict[str, tuple[Make, tuple[Tensor, ...]]] = {
    "GCN": (LAYERS["GCN"], (WEIGHT,)),
    "SAGE": (LAYERS["SAGE"], ()),
    "GIN": (LAYERS["GIN"], ()),
    "GAT": (lambda lib, a, b: lib.GATConv(a, b, heads=2), ()),
    "GATv2": (lambda lib, a, b: lib.GATv2Conv(a, b, heads=2), ()),
    "TAG": (lambda lib, a, b: lib.TAGConv(a, b), (WEIGHT,)),
    "Graph": (lambda lib, a, b: lib.GraphConv(a, b), (WEIGHT,)),
}


@pytest.mark.parametrize("layer", HOOKED)
@pytest.mark.parametrize(
    "points",
    [("message",), ("aggregate",), ("propagate",), ("edge_update",), ("propagate", "message", "aggregate")],
    ids=" ".join,
)
def test_hooks(layer: str, points: tuple[str, ...]) -> None:
    make, more = HOOKED[layer]
    found: list[Any] = []
    state = None
    for lib in LIBRARIES:
        conv = make(lib, 4, 3).eval()
        drop_in.set_backend(conv, "torch")
        state = state or conv.state_dict()
        conv.load_state_dict(state)
        before, spy = conv(X, GRAPH, *more), Spy()
        handles = spy.on(conv, *points)
        found.append((conv(X, GRAPH, *more), spy.seen))
        for handle in handles:
            handle.remove()
        assert torch.equal(conv(X, GRAPH, *more), before)
    assert torch.allclose(found[0][0], found[1][0], atol=1e-4)
    assert found[0][1] == found[1][1]


def test_hooks_of_two_sets_of_nodes_and_against_the_edges() -> None:
    pair = (X, torch.randn(5, 4))
    graph = torch.stack([GRAPH[0], GRAPH[1] % 5])
    for layer, kwargs, given in (("SAGEConv", {}, (pair, graph)), ("SAGEConv", {"flow": FLOW}, (X, GRAPH))):
        found, state = [], None
        for lib in LIBRARIES:
            conv = getattr(lib, layer)((4, 4) if isinstance(given[0], tuple) else 4, 3, **kwargs)
            drop_in.set_backend(conv, "torch")
            state = state or conv.state_dict()
            conv.load_state_dict(state)
            spy = Spy()
            spy.on(conv, "propagate", "message", "aggregate")
            # What SAGEConv's own features are is no message of it.
            found.append((conv(*given), spy.seen))
        assert torch.allclose(found[0][0], found[1][0], atol=1e-5)
        assert found[0][1] == found[1][1]


FLOW = "target_to_source"


def test_what_hooks_may_not_do() -> None:
    conv = gdsl.nn.GCNConv(4, 3, backend="torch")
    with pytest.raises(gdsl.InputError, match="no place for a hook on `message_and_aggregate`"):
        conv.register_message_and_aggregate_forward_hook(lambda *given: None)
    handle = conv.register_message_forward_hook(lambda layer, given, out: out[:1])
    with pytest.raises(gdsl.InputError, match=r"gave \[1, 3\], and the program expects shape \[\d+, 3\]"):
        conv(X, GRAPH)
    handle.remove()
    handle = conv.register_propagate_forward_pre_hook(lambda layer, given: (given[0].flip(0), *given[1:]))
    with pytest.raises(gdsl.InputError, match="hook before `propagate` may look at what a program computes"):
        conv(X, GRAPH)
    handle.remove()
    handle = conv.register_aggregate_forward_pre_hook(lambda layer, given: ({**given[0], "dim_size": 3},))
    with pytest.raises(gdsl.InputError, match="hook before `aggregate`"):
        conv(X, GRAPH)
    handle.remove()
    several = gdsl.nn.EGConv(4, 8, aggregators=["sum", "max"], backend="torch")
    several.register_aggregate_forward_hook(lambda *given: None)
    with pytest.raises(gdsl.InputError, match="aggregates a message 2 times"):
        several(X, GRAPH)


def test_hooks_and_a_mask_at_once_in_training() -> None:
    found, state = [], None
    for lib in LIBRARIES:
        conv = lib.GATConv(4, 3).train()
        drop_in.set_backend(conv, "torch")
        state = state or conv.state_dict()
        conv.load_state_dict(state)
        mask = torch.linspace(-1, 1, EDGES, requires_grad=True)
        utils.set_masks(conv, mask, GRAPH)
        spy = Spy()
        spy.on(conv, "message", "edge_update")
        out = conv(X, GRAPH)
        found.append([out, *torch.autograd.grad(out.sin().sum(), [mask, *conv.parameters()][:3])])
    for theirs, ours in zip(*found, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)
