"""Embeddings of nodes against torch_geometric's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gdsl
import gdsl.nn
from gdsl.nn.models import node2vec, signed
from tests.parity.drop_in import NODES, graph_of, outcome, pyg
from tests.programs import harness


def some_graph() -> Tensor:
    graph = graph_of("symmetric", 1, False)
    assert graph is not None
    return graph


class Losses(nn.Module):
    """A model's loss as its result."""

    def __init__(self, model: nn.Module, name: str, *args: Any, **kwargs: Any):
        super().__init__()
        self.model, self.name, self.args, self.kwargs = model, name, args, kwargs

    def forward(self) -> Any:
        return getattr(self.model, self.name)(*self.args, **self.kwargs)


@pytest.mark.parametrize("alpha", [None, 0.3, torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)])
@pytest.mark.parametrize("normalize", [True, False])
def test_lightgcn(alpha: Any, normalize: bool) -> None:
    made = []
    for library in (gdsl.nn, pyg):
        torch.manual_seed(0)
        made.append(library.LightGCN(NODES, 4, 2, alpha, normalize=normalize).double())
    ours, theirs = made
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert harness.difference(list(ours.state_dict().values()), list(theirs.state_dict().values())) == 0
    graph, weight = some_graph(), torch.rand(some_graph().shape[1], dtype=torch.float64)
    pairs = torch.randint(NODES, (2, 7))
    labels, some = torch.randint(2, (7,)), torch.tensor([1, 3, 4])
    scores = torch.randn(2, 7, dtype=torch.float64)
    for name, args in {
        "forward": (graph,), "get_embedding": (graph, weight), "link_pred_loss": (scores[0], labels),
        "recommendation_loss": (scores[0], scores[1]),
    }.items():  # fmt: skip
        found, expected = (outcome(Losses(model, name, *args), (), None, {}) for model in made)
        assert found.keys() == expected.keys()
        assert harness.difference(list(found.values()), list(expected.values())) < 1e-9
    for name, args in {
        "forward": (graph, pairs, weight), "predict_link": (graph, pairs), "recommend": (graph,),
    }.items():  # fmt: skip
        found, expected = (getattr(model, name)(*args) for model in made)
        assert harness.difference([found], [expected]) < 1e-9
    for options in ({"prob": True},):
        found, expected = (model.predict_link(graph, pairs, **options) for model in made)
        assert harness.difference([found], [expected]) < 1e-9
    found, expected = (model.recommend(graph, weight, some, torch.arange(2, NODES), 2) for model in made)
    assert torch.equal(found, expected)
    found, expected = (model.recommendation_loss(scores[0], scores[1], some, 0.5) for model in made)
    assert harness.difference([found], [expected]) < 1e-9
    assert harness.difference([ours.recommendation_loss(*scores, lambda_reg=0)],
                              [theirs.recommendation_loss(*scores, lambda_reg=0)]) < 1e-9  # fmt: skip
    matrix = gdsl.Graph(graph, NODES)
    assert torch.allclose(ours(matrix)[matrix.edge_index[0].argsort()].sort()[0], ours(graph).sort()[0])
    for model in made:
        torch.manual_seed(1)
        model.reset_parameters()
    assert harness.difference(list(ours.state_dict().values()), list(theirs.state_dict().values())) == 0
    with pytest.raises(AssertionError, match="2 layers have 3 weights, not 2"):
        gdsl.nn.LightGCN(NODES, 4, 2, torch.ones(2))


def test_signed_gcn(monkeypatch: pytest.MonkeyPatch) -> None:
    # Pairs are drawn in other ways: here all take the same.
    monkeypatch.setattr(signed, "absent_pairs", lambda edges, nodes, count: edges.flip(0)[:, :5])
    monkeypatch.setattr(signed, "unconnected", lambda edges, nodes: (edges[0] + 1) % nodes)
    theirs = "torch_geometric.nn.models.signed_gcn."
    monkeypatch.setattr(f"{theirs}negative_sampling", lambda edges, nodes: edges.flip(0)[:, :5])
    monkeypatch.setattr(
        f"{theirs}structured_negative_sampling", lambda edges, nodes: (*edges, (edges[0] + 1) % nodes)
    )
    made = []
    for library in (gdsl.nn, pyg):
        torch.manual_seed(0)
        made.append(library.SignedGCN(5, 4, 2, lamb=3).double())
    assert repr(made[0]) == repr(made[1])
    states = [list(model.state_dict().values()) for model in made]
    assert list(made[0].state_dict()) == list(made[1].state_dict())
    assert harness.difference(*states) == 0
    graph, x = some_graph(), torch.randn(NODES, 5, dtype=torch.float64)
    friends, foes = graph[:, ::2], graph[:, 1::2]
    found = [outcome(model, (x, friends), foes, {}) for model in made]
    assert harness.difference(*[list(result.values()) for result in found]) < 1e-9
    z = torch.randn(NODES, 4, dtype=torch.float64)
    for name in ("nll_loss", "loss"):
        found = [outcome(Losses(model, name, z, friends, foes), (), None, {}) for model in made]
        assert harness.difference(*[list(result.values()) for result in found]) < 1e-9
    for model in made:
        torch.manual_seed(1)
        model.reset_parameters()
    assert harness.difference(*[list(model.state_dict().values()) for model in made]) == 0
    parts = []
    for model in made:
        torch.manual_seed(2)
        parts.append(model.split_edges(graph, 0.3))
    assert all(map(torch.equal, *parts))


def test_scores_and_features_of_signed_gcn() -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("scipy")
    made = [library.SignedGCN(2, 4, 1).double() for library in (gdsl.nn, pyg)]
    made[0].load_state_dict(made[1].state_dict())
    graph, z = some_graph(), torch.randn(NODES, 4, dtype=torch.float64)
    friends, foes = graph[:, ::2], graph[:, 1::2]
    assert made[0].test(z, friends, foes) == pytest.approx(made[1].test(z, friends, foes))
    ours, theirs = (model.create_spectral_features(friends, foes, NODES).abs() for model in made)
    assert torch.allclose(ours, theirs, atol=1e-3)  # scikit-learn draws where it starts


def test_nodes_without_an_edge_from_the_source() -> None:
    edges = torch.tensor([[0, 0, 1, 2], [0, 1, 2, 0]])
    drawn = torch.stack([signed.unconnected(edges, 3) for _ in range(50)])
    assert drawn[:, :2].unique().tolist() == [2]
    assert drawn[:, 2].unique().tolist() == [0, 1]
    assert drawn[:, 3].unique().tolist() == [1, 2]
    with pytest.raises(ValueError, match="node 0 has edges to all 2 nodes"):
        signed.unconnected(edges[:, :2], 2)


def test_node2vec(monkeypatch: pytest.MonkeyPatch) -> None:
    # torch_geometric's walks are another package's: here it walks as we do.
    def walks(rowptr: Tensor, col: Tensor, start: Tensor, length: int, p: float, q: float) -> Tensor:
        return node2vec.random_walk(rowptr, col, start, length, p, q)

    monkeypatch.setattr("torch_geometric.nn.models.node2vec.WITH_PYG_LIB", True)
    monkeypatch.setattr(torch.ops, "pyg", SimpleNamespace(random_walk=walks), raising=False)
    graph = some_graph()
    made = []
    for library in (gdsl.nn, pyg):
        torch.manual_seed(0)
        made.append(library.Node2Vec(graph, 4, 6, 3, walks_per_node=2, p=0.5, q=2.0, num_negative_samples=3))
    ours, theirs = (model.double() for model in made)
    assert repr(ours) == repr(theirs)
    assert torch.equal(ours.embedding.weight, theirs.embedding.weight)
    assert torch.equal(ours.rowptr, theirs.rowptr)
    assert torch.equal(ours.col, theirs.col)
    found = []
    for model in made:
        torch.manual_seed(1)
        found.append([model.sample([0, 3, 5]), next(iter(model.loader(batch_size=4, shuffle=True)))])
    for one, other in zip(*found, strict=True):
        assert all(map(torch.equal, one, other))
        results = [outcome(Losses(model, "loss", *one), (), None, {}) for model in made]
        assert harness.difference(*[list(result.values()) for result in results]) < 1e-9
    assert torch.equal(ours(), ours.embedding.weight)
    assert torch.equal(ours(torch.tensor([2])), ours.embedding.weight[[2]])
    with pytest.raises(AssertionError, match="no context of 7"):
        gdsl.nn.Node2Vec(graph, 4, 6, 7)
    assert (
        gdsl.nn.Node2Vec(torch.empty(2, 0, dtype=torch.long), 4, 6, 3, num_nodes=2)
        .pos_sample(torch.tensor([1]))
        .unique()
        == 1
    )


WRITES, CITES = ("author", "writes", "paper"), ("paper", "of", "author")
PATHS = {
    WRITES: torch.tensor([[0, 0, 1, 3, 3], [2, 0, 1, 4, 2]]),  # author 2 writes nothing
    CITES: torch.tensor([[2, 0, 1, 2, 1], [0, 0, 1, 3, 0]]),  # and nobody has paper 4
}


def test_metapath2vec() -> None:
    made = []
    for library in (gdsl.nn, pyg):
        torch.manual_seed(0)
        made.append(library.MetaPath2Vec(PATHS, 4, [WRITES, CITES], 5, 3, 2, 3))
    ours, theirs = made
    assert repr(ours) == repr(theirs)
    assert torch.equal(ours.embedding.weight, theirs.embedding.weight)
    assert ours.num_nodes_dict == theirs.num_nodes_dict
    found = []
    for model in made:
        torch.manual_seed(1)
        found.append([model._sample([0, 2, 3]), next(iter(model.loader(batch_size=3, shuffle=True)))])
        model.double()
    for one, other in zip(*found, strict=True):
        assert all(map(torch.equal, one, other))
        assert ours.dummy_idx in one[0]
        results = [outcome(Losses(model, "loss", *one), (), None, {}) for model in made]
        assert harness.difference(*[list(result.values()) for result in results]) < 1e-9
    for name, batch in (("paper", None), ("author", torch.tensor([1, 0]))):
        assert torch.equal(ours(name, batch), theirs(name, batch))
    for arguments, error in (
        (([WRITES, WRITES], 2, 2), ValueError),
        (([WRITES], 2, 2), AttributeError),
        (([WRITES, CITES], 2, 4), AssertionError),
    ):
        for library in (gdsl.nn, pyg):
            with pytest.raises(error):
                library.MetaPath2Vec(PATHS, 4, *arguments)


@pytest.mark.parametrize(("p", "q"), [(1.0, 1.0), (0.25, 4.0), (4.0, 0.5)])
def test_walks_are_as_probable_as_the_paper_says(p: float, q: float) -> None:
    edges = {0: [1, 2, 3], 1: [0, 2], 2: [0, 1, 4], 3: [0], 4: [2]}
    col = torch.tensor([to for node in edges for to in edges[node]])
    rowptr = torch.tensor([0, 3, 5, 8, 9, 10])
    torch.manual_seed(0)
    walks = node2vec.random_walk(rowptr, col, torch.zeros(40_000, dtype=torch.long), 2, p, q)
    for middle in edges[0]:
        odds = {to: 1 / p if to == 0 else 1.0 if to in edges[0] else 1 / q for to in edges[middle]}
        taken = walks[walks[:, 1] == middle, 2]
        assert abs(len(taken) / len(walks) - 1 / 3) < 0.02
        for to, odd in odds.items():
            assert abs(float((taken == to).double().mean()) - odd / sum(odds.values())) < 0.02
