"""All nodes layer by layer: what the model gives on the whole graph, in the memory of a batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import Data

import gdsl.nn
from gdsl.data import LayerwiseInference
from gdsl.errors import InputError

from . import graphs as made
from .test_neighbors import academic, graph


class Model(nn.Module):
    """Two layers, of which each takes features and edges."""

    def __init__(self, first: nn.Module, second: nn.Module):
        super().__init__()
        self.convs = nn.ModuleList([first, second])

    def forward(self, x: Tensor, edges: Any) -> Tensor:
        return self.convs[1](self.convs[0](x, edges).relu(), edges)

    def by_layers(self) -> list[Any]:
        first, second = self.convs
        return [lambda x, batch: first(x, batch.graph).relu(), lambda x, batch: second(x, batch.graph)]


@pytest.mark.parametrize("batch_size", [1, 7, 100])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("kind", "hops"), [("SAGEConv", 1), ("GATConv", 1), ("GINConv", 1), ("GCNConv", 2)])
def test_layers_give_what_the_model_gives_on_the_whole_graph(kind, hops, batch_size, workers):
    data = graph(50, 300)
    sizes = ((1, 4), (4, 2))
    layers = [nn.Linear(*size) if kind == "GINConv" else size for size in sizes]
    model = Model(*(getattr(gdsl.nn, kind)(*(size if isinstance(size, tuple) else (size,))) for size in layers))
    found = LayerwiseInference(data, batch_size, hops, num_workers=workers)(model.by_layers())
    assert not found.requires_grad
    torch.testing.assert_close(found, model(data.x, data.edge_index).detach())


def test_attributes_of_edges_other_features_and_none_of_the_nodes():
    data = graph(50, 300)
    data.edge_attr = torch.rand(300, 3)
    convs = [gdsl.nn.GATv2Conv(5, 4, edge_dim=3), gdsl.nn.GATv2Conv(4, 2, edge_dim=3)]
    x = torch.randn(50, 5, dtype=torch.float64)
    for conv in convs:
        conv.double()
    data.edge_attr = data.edge_attr.double()

    def layer(conv: nn.Module) -> Any:
        def run(x: Tensor, batch: Any) -> Tensor:
            assert "x" not in batch and "time" not in batch
            return conv(x, batch.graph, batch.edge_attr)

        return run

    expected = x
    for conv in convs:
        expected = conv(expected, data.edge_index, data.edge_attr)
    torch.testing.assert_close(LayerwiseInference(data, 16)([layer(c) for c in convs], x), expected.detach())


def test_several_types():
    data = academic()
    types = {"writes": made.WRITES, "cites": made.CITES, "rev": ("paper", "rev_writes", "author")}
    convs = nn.ModuleDict({f"{name}{k}": gdsl.nn.SAGEConv((w, w), 4) for name in types for k, w in enumerate((1, 4))})

    def layer(k: int) -> Any:
        def run(x: dict[str, Tensor], edges: Any) -> dict[str, Tensor]:
            found: dict[str, list[Tensor]] = {}
            for name, (first, _, last) in types.items():
                given = edges if isinstance(edges, dict) else edges.graph_dict
                found.setdefault(last, []).append(convs[f"{name}{k}"]((x[first], x[last]), given[types[name]]))
            return {type: torch.stack(rows).sum(0) for type, rows in found.items() if k == 0 or type == "paper"}

        return run

    found = LayerwiseInference(data, 8)([layer(0), layer(1)])
    expected = layer(1)(layer(0)(data.x_dict, data.edge_index_dict), data.edge_index_dict)
    assert found.keys() == expected.keys() == {"paper"}
    torch.testing.assert_close(found["paper"], expected["paper"].detach())


def test_a_batch_is_all_that_a_layer_sees():
    data = Data(x=torch.randn(400, 2), edge_index=torch.stack([torch.arange(400), (torch.arange(400) + 1) % 400]))
    sizes = []

    def layer(x: Tensor, batch: Any) -> Tensor:
        sizes.append(len(x))
        return gdsl.nn.SimpleConv()(x, batch.graph)

    found = LayerwiseInference(data, 10)([layer, layer])
    assert torch.equal(found, data.x.roll(2, 0))
    assert max(sizes) <= 12


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (lambda x, batch: gdsl.nn.GCNConv(1, 2)(x, batch.graph), r"layer 1 .* set hops=2"),
        (lambda x, batch: nn.BatchNorm1d(1)(x), "eval mode"),
        (lambda x, batch: nn.functional.dropout(x + 1, 0.5), "eval mode"),
        (lambda x, batch: x[: batch.batch_size], "one row for each of"),
        (lambda x, batch: 3, "one row for each of .* not 3"),
        (lambda x, batch: {"": x}, "must give what it takes, .* not a dict"),
        (lambda x, batch: None, "must give what it takes, .* not None"),
    ],
)
def test_layers_that_would_give_something_else_are_refused(layer, message):
    torch.manual_seed(0)
    with pytest.raises(InputError, match=message):
        LayerwiseInference(graph(50, 300))([lambda x, batch: x, layer])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda data: LayerwiseInference(data, 0), "batch_size"),
        (lambda data: LayerwiseInference(data, hops=0), "hops"),
        (lambda data: LayerwiseInference(3), "must be a torch_geometric Data"),
        (lambda data: LayerwiseInference(data)(nn.Linear(1, 1)), "a list of functions"),
        (lambda data: LayerwiseInference(data)([3]), "a list of functions"),
        (lambda data: LayerwiseInference(data)(None), "a list of functions"),
        (lambda data: LayerwiseInference(data)([], torch.ones(3, 1)), r"a tensor \[20, ...\]"),
        (lambda data: LayerwiseInference(data)([], [1.0]), r"a tensor \[20, ...\]"),
        (lambda data: LayerwiseInference(data)([], {"a": data.x}), "a dictionary with one for each"),
        (lambda data: LayerwiseInference(academic())([], data.x), "a dictionary with one for each"),
        (lambda data: LayerwiseInference(academic())([], {"venue": data.x}), "of 'venue'"),
        (lambda data: LayerwiseInference(Data(edge_index=data.edge_index, num_nodes=20))([]), "have no x"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call(graph(20, 50))
