"""torch_geometric's CaptumExplainer, with Captum itself, on models of gdsl.nn and of its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gdsl
import gdsl.nn
from tests.parity import drop_in
from tests.parity import test_host_texts as texts

pyg = pytest.importorskip("torch_geometric.nn")
explain = pytest.importorskip("torch_geometric.explain")
utils = pytest.importorskip("torch_geometric.utils")
pytest.importorskip("captum", reason="needs the package captum")

LIBRARIES = (pyg, gdsl.nn)
METHODS = ["IntegratedGradients", "Saliency", "InputXGradient", "Deconvolution", "GuidedBackprop"]
CLASSES = {"mode": "multiclass_classification", "task_level": "node", "return_type": "log_probs"}
LAYERS = {
    "GCN": lambda lib, a, b: lib.GCNConv(a, b),
    "GAT": lambda lib, a, b: lib.GATConv(a, b),
    "SAGE": lambda lib, a, b: lib.SAGEConv(a, b),
    "GIN": lambda lib, a, b: lib.GINConv(nn.Linear(a, b)),
    "EdgeConv": lambda lib, a, b: lib.EdgeConv(nn.Linear(2 * a, b)),
}
SOFTMAX = """
layer Softmax(c) {
    linear lin(d -> c)
    param att[c] ~ glorot
    node x[d]
    h = lin(x)
    alpha = softmax(tanh(dot(att, h[j])))
    message m = alpha * h[j]
    aggregate y = sum(m)
    return y
}
"""
GRAPH = torch.tensor([[0, 1, 2, 3, 4, 0, 2, 4, 1], [1, 2, 3, 4, 0, 2, 0, 1, 4]])
KINDS = ("a", "to", "b"), ("b", "back", "a")


class Net(nn.Module):
    def __init__(self, lib: Any, layer: str):
        super().__init__()
        self.one, self.two = LAYERS[layer](lib, 3, 4), LAYERS[layer](lib, 4, 2)
        self.act = nn.ReLU()

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        found: Tensor = self.two(self.act(self.one(x, edge_index)), edge_index).log_softmax(-1)
        return found


class Softmax(pyg.MessagePassing):  # type: ignore[name-defined,misc]
    def __init__(self, d: int, c: int):
        super().__init__(aggr="sum")
        self.lin, self.att = pyg.Linear(d, c), nn.Parameter(torch.randn(c))

    def forward(self, x: Tensor, edge_index: Tensor) -> Any:
        return self.propagate(edge_index, x=self.lin(x))

    def message(self, x_j: Tensor, index: Tensor, size_i: int | None) -> Tensor:
        alpha: Tensor = utils.softmax((x_j @ self.att).tanh(), index, num_nodes=size_i)
        return alpha[:, None] * x_j


class Texts(Net):
    """Layers that are texts, and the same written by hand."""

    def __init__(self, lib: Any):
        super().__init__(lib, "GCN")
        makes = (lambda d, c: gdsl.compile(SOFTMAX, c, d=d)) if lib is gdsl.nn else Softmax
        self.one, self.two = makes(3, 4), makes(4, 2)


class Hetero(nn.Module):
    def __init__(self, lib: Any):
        super().__init__()
        one = {KINDS[0]: lib.SAGEConv((3, 3), 4), KINDS[1]: lib.GATConv((3, 3), 4, add_self_loops=False)}
        self.one, self.two = lib.HeteroConv(one), nn.Linear(4, 2)

    def forward(self, x: dict[str, Tensor], edge_index: dict[Any, Tensor]) -> Tensor:
        h = self.one(x, edge_index)
        found: Tensor = self.two((h["a"] + h["b"]).relu()).log_softmax(-1)
        return found


def explained(model: nn.Module, method: str, edges: bool, *given: Any) -> list[Tensor]:
    """Masks of one node's class."""
    made = explain.Explainer(
        model,
        explain.CaptumExplainer(method, **({"n_steps": 5} if method == "IntegratedGradients" else {})),
        explanation_type="model",
        node_mask_type="attributes",
        edge_mask_type="object" if edges else None,
        model_config=CLASSES,
    )
    torch.manual_seed(3)
    found = made(*given, index=torch.tensor([1]))
    parts = list(found.node_stores) + list(found.edge_stores) if isinstance(given[0], dict) else [found]
    return [part[name] for part in parts for name in ("node_mask", "edge_mask") if name in part]


def same(models: list[nn.Module], method: str, edges: bool, *given: Any) -> None:
    found = []
    for model in models:
        model.load_state_dict(models[0].state_dict())
        drop_in.set_backend(model, "torch")
        found.append(explained(model.eval(), method, edges, *given))
    assert len(found[0]) > 0
    for theirs, ours in zip(*found, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)
        assert bool((theirs != 0).any())


@pytest.mark.parametrize(
    ("layer", "method"),
    [(layer, "IntegratedGradients") for layer in LAYERS] + [("GAT", method) for method in METHODS[1:]],
)
def test_attributions_of_nodes_and_edges(layer: str, method: str) -> None:
    torch.manual_seed(0)
    edges = method not in ("Deconvolution", "GuidedBackprop")
    same([Net(lib, layer) for lib in LIBRARIES], method, edges, torch.randn(5, 3), GRAPH)


@pytest.mark.parametrize("method", ["IntegratedGradients", "Saliency"])
def test_attributions_of_several_types(method: str) -> None:
    torch.manual_seed(0)
    x = {"a": torch.randn(5, 3), "b": torch.randn(5, 3)}
    same([Hetero(lib) for lib in LIBRARIES], method, True, x, dict.fromkeys(KINDS, GRAPH))


class Classes(nn.Module):
    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        found: Tensor = self.net(x, edge_index).log_softmax(-1)
        return found


@pytest.mark.parametrize("method", METHODS)
def test_attributions_in_layers_that_are_texts(method: str) -> None:
    torch.manual_seed(2)
    edges = method not in ("Deconvolution", "GuidedBackprop")
    same([Texts(lib) for lib in LIBRARIES], method, edges, torch.randn(5, 3), GRAPH)


@pytest.mark.parametrize("method", METHODS)
def test_attributions_in_a_text_of_two_rounds(method: str) -> None:
    torch.manual_seed(2)
    net = texts.network()
    edges = method not in ("Deconvolution", "GuidedBackprop")
    ours, theirs = (
        explained(Classes(made).eval(), method, edges, texts.X, texts.GRAPH) for made in (net, texts.Twin(net))
    )
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, atol=1e-8) and bool((other != 0).any())
