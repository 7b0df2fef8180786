"""Models around a user's own, and penalties, against torch_geometric's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gdsl.nn
from tests.parity.drop_in import EDGE, IN, NODES, Case, graph_of, make_tests, outcome, pyg
from tests.programs import harness

CASES = [
    Case("LINKX", (NODES, IN, 4, 3, 2), options={"num_edge_layers": [2], "num_node_layers": [2], "dropout": [0.5]},
         call={"edge_weight": "w"}),
    Case("LINKX", (NODES, IN, 4, 3, 1), x="none", note="without features"),
]  # fmt: skip

globals().update(make_tests(CASES))


class Edges(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(2 * IN + EDGE + 2, 3)

    def forward(self, source: Tensor, target: Tensor, e: Any, u: Any, batch: Any) -> Tensor:
        return self.lin(torch.cat([source, target, e, u[batch]], dim=1))


class Nodes(nn.Module):
    def forward(self, x: Tensor, edge_index: Tensor, e: Any, u: Any, batch: Any) -> Tensor:
        return x.index_add(0, edge_index[1], e @ torch.ones(3, IN, dtype=x.dtype))


class Whole(nn.Module):
    def forward(self, x: Tensor, edge_index: Tensor, e: Any, u: Any, batch: Any) -> Tensor:
        return u.index_add(0, batch, x[:, :2])


@pytest.mark.parametrize("parts", [(True, True, True), (True, False, False), (False, False, True), (False,) * 3])
def test_meta_layer(parts: tuple[bool, ...]) -> None:
    made = []
    for library in (gdsl.nn, pyg):
        torch.manual_seed(0)
        models = [kind() if wanted else None for kind, wanted in zip((Edges, Nodes, Whole), parts, strict=True)]
        made.append(library.MetaLayer(*models).double())
    assert repr(made[0]) == repr(made[1])
    graph = graph_of("any", 1, False)
    assert graph is not None
    x, u = torch.randn(NODES, IN, dtype=torch.float64), torch.randn(2, 2, dtype=torch.float64)
    values = {"edge_attr": torch.randn(graph.shape[1], EDGE).double(), "u": u, "batch": torch.arange(NODES) // 5}
    found, expected = (outcome(layer, (x,), graph, values) for layer in made)
    assert found.keys() == expected.keys()
    assert harness.difference(list(found.values()), list(expected.values())) < 1e-12


@pytest.mark.parametrize("method", ["add", "concat"])
def test_masked_labels(method: str) -> None:
    made = []
    for library in (gdsl.nn, pyg):
        torch.manual_seed(0)
        made.append(library.MaskLabel(3, IN, method).double())
    assert repr(made[0]) == repr(made[1])
    x, mask = torch.randn(NODES, IN, dtype=torch.float64), torch.arange(NODES) % 2 == 0
    values = {"y": torch.randint(3, (NODES,)), "mask": mask}
    found, expected = (outcome(layer, (x,), None, values) for layer in made)
    assert found.keys() == expected.keys()
    assert harness.difference(list(found.values()), list(expected.values())) < 1e-12
    drawn = []
    for layer in made:
        torch.manual_seed(1)
        drawn.append(layer.ratio_mask(mask, 0.5))
    assert torch.equal(*drawn)
    with pytest.raises(ValueError, match="got 'mean'"):
        gdsl.nn.MaskLabel(3, IN, "mean")


class Infomax(nn.Module):
    """All that a model of this kind computes."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, graph: Tensor, w: Tensor) -> list[Tensor]:
        found = self.model(x, graph, edge_weight=w)
        return [*found, self.model.loss(*found), self.model.discriminate(found[0], found[2][None], sigmoid=False)]


@pytest.mark.parametrize("several", [True, False])
def test_deep_graph_infomax(several: bool) -> None:
    def corruption(x: Tensor, graph: Tensor, edge_weight: Tensor) -> Any:
        return (x.flip(0), graph, 2 * edge_weight) if several else (x.flip(0), graph)

    made = []
    for library in (gdsl.nn, pyg):
        torch.manual_seed(0)
        made.append(
            library.DeepGraphInfomax(4, library.GCNConv(IN, 4), lambda z, *_, **__: z.mean(0).sigmoid(), corruption)
        )
    assert repr(made[0]) == repr(made[1])
    for again in (False, True):
        for model in made if again else ():
            torch.manual_seed(1)
            model.reset_parameters()
        assert harness.difference(*[list(model.state_dict().values()) for model in made]) == 0
    graph = graph_of("any", 1, False)
    assert graph is not None
    x, w = torch.randn(NODES, IN, dtype=torch.float64), torch.rand(graph.shape[1], dtype=torch.float64)
    found, expected = (outcome(Infomax(model.double()), (x,), graph, {"w": w}) for model in made)
    assert found.keys() == expected.keys()
    assert harness.difference(list(found.values()), list(expected.values())) < 1e-9


def test_embeddings_are_tried_by_a_regression(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nearest:
        """In the place of scikit-learn's: the label of the nearest row."""

        def __init__(self, penalty: str, solver: str):
            assert (penalty, solver) == ("l1", "lbfgs")

        def fit(self, x: Any, y: Any) -> Any:
            self.x, self.y = torch.as_tensor(x), torch.as_tensor(y)
            return self

        def score(self, x: Any, y: Any) -> float:
            found = self.y[torch.cdist(torch.as_tensor(x), self.x).argmin(dim=1)]
            return float((found == torch.as_tensor(y)).double().mean())

    monkeypatch.setitem(__import__("sys").modules, "sklearn", SimpleNamespace())
    monkeypatch.setitem(__import__("sys").modules, "sklearn.linear_model", SimpleNamespace(LogisticRegression=Nearest))
    z, y = torch.randn(6, 3, requires_grad=True), torch.arange(6) % 2
    infomax = gdsl.nn.DeepGraphInfomax(3, nn.Identity(), torch.mean, lambda x: x)
    node2vec = gdsl.nn.Node2Vec(torch.tensor([[0, 1], [1, 0]]), 3, 4, 2)
    for model in (infomax, node2vec):
        assert model.test(z, y, z[:4] + 1e-3, torch.tensor([0, 1, 0, 0]), penalty="l1") == 0.75


def test_penalties() -> None:
    x, batch = torch.randn(NODES, IN, dtype=torch.float64, requires_grad=True), torch.tensor([0] * 4 + [2] * 5)
    pairs = [(library.functional.bro(x, batch, p), p) for p in (2, "fro", 1) for library in (gdsl.nn, pyg)]
    pairs += [(library.functional.gini(x), None) for library in (gdsl.nn, pyg)]
    for (found, _), (expected, _) in zip(pairs[::2], pairs[1::2], strict=True):
        assert harness.difference([found], [expected]) < 1e-9
        a, b = (torch.autograd.grad(y, x, retain_graph=True)[0] for y in (found, expected))
        assert harness.difference([a], [b]) < 1e-8
