"""Layers and poolings on dense adjacencies, and linear maps by type, against torch_geometric's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

import gdsl.nn
from tests.parity.drop_in import flat, mlp, outcome, pyg
from tests.programs import harness

GRAPHS, NODES, IN, OUT, CLUSTERS = 2, 6, 4, 3, 3

LAYERS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("DenseGCNConv", (IN, OUT), {}),
    ("DenseGCNConv", (IN, OUT), {"improved": True, "bias": False}),
    ("DenseSAGEConv", (IN, OUT), {}),
    ("DenseSAGEConv", (IN, OUT), {"normalize": True, "bias": False}),
    *[("DenseGraphConv", (IN, OUT), {"aggr": aggr}) for aggr in ("add", "mean", "max")],
    ("DenseGraphConv", (IN, OUT), {"bias": False}),
    ("DenseGINConv", (mlp(IN, 5, OUT),), {}),
    ("DenseGINConv", (mlp(IN, OUT),), {"eps": 0.3, "train_eps": True}),
    ("DenseGATConv", (IN, OUT), {}),
    ("DenseGATConv", (IN, OUT), {"heads": 2, "negative_slope": 0.1, "bias": False}),
    ("DenseGATConv", (IN, OUT), {"heads": 2, "concat": False, "dropout": 0.5}),
    ("DMoNPooling", (IN, CLUSTERS), {}),
    ("DMoNPooling", ([IN, 5], CLUSTERS), {"dropout": 0.5}),
]


def inputs(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Features, symmetric adjacencies of zeros and ones, and which nodes there are."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(GRAPHS, NODES, IN, generator=g, dtype=torch.float64)
    adj = (torch.rand(GRAPHS, NODES, NODES, generator=g) < 0.4).double()
    return x, (adj + adj.transpose(1, 2)).clamp(max=1), torch.arange(NODES) < torch.tensor([[NODES], [4]])


def build(library: Any, name: str, args: tuple[Any, ...], options: dict[str, Any]) -> nn.Module:
    torch.manual_seed(1)
    return getattr(library, name)(*[a() if callable(a) else a for a in args], **options).double()


@pytest.mark.parametrize(("name", "args", "options"), LAYERS, ids=[f"{name} {options}" for name, _, options in LAYERS])
@pytest.mark.parametrize("training", [False, True])
def test_layers(name: str, args: tuple[Any, ...], options: dict[str, Any], training: bool) -> None:
    made = [build(library, name, args, options).train(training) for library in (gdsl.nn, pyg)]
    ours, theirs = made
    assert repr(ours) == repr(theirs)
    for again in (False, True):
        for layer in made if again else ():
            torch.manual_seed(2)
            layer.reset_parameters()
        assert list(ours.state_dict()) == list(theirs.state_dict())
        assert harness.difference(list(ours.state_dict().values()), list(theirs.state_dict().values())) == 0
    x, adj, mask = inputs()
    calls: list[tuple[tuple[Tensor, ...], dict[str, Any]]] = [
        ((x, adj), {}), ((x, adj), {"mask": mask}), ((x[0], adj[0]), {}), ((x, adj[:1]), {"mask": mask}),
    ]  # fmt: skip
    if name in ("DenseGCNConv", "DenseGINConv", "DenseGATConv"):
        full = adj.clone()
        full[..., 0] = 1  # without loops, a node without edges has no attention
        calls.append(((x, full), {"add_loop": False}))
    if name in ("DenseGCNConv", "DenseGINConv", "DenseSAGEConv", "DMoNPooling"):
        del calls[3]  # there the mask asks for as many adjacencies as features
        calls.append(((x, adj[:1]), {}))
    for given, values in calls:
        results = []
        for layer in made:
            torch.manual_seed(3)
            results.append(outcome(layer, given, None, values))
        assert results[0].keys() == results[1].keys()
        if name == "DMoNPooling" and values:  # there, the cluster loss has the sizes of other graphs: see below
            results = [{part: value for part, value in result.items() if part in OTHERS} for result in results]
        for part, value in results[1].items():
            assert results[0][part].shape == value.shape
            assert harness.difference([results[0][part]], [value]) < 1e-9, part


OTHERS = [f"output {k}" for k in range(5)]


def test_clusters_of_graphs_of_several_sizes() -> None:
    """The losses are the means of those of each graph."""
    layer = gdsl.nn.DMoNPooling(IN, CLUSTERS).double()
    x, adj, mask = inputs()
    adj = adj * mask.unsqueeze(1) * mask.unsqueeze(2)
    each = [layer(x[k, :n], adj[k, :n, :n]) for k, n in enumerate(mask.sum(dim=1).tolist())]
    whole = layer(x, adj, mask)
    for k in (3, 4, 5):
        assert torch.allclose(whole[k], torch.stack([found[k] for found in each]).mean())


@pytest.mark.parametrize(
    ("name", "options"),
    [("dense_diff_pool", {}), ("dense_diff_pool", {"normalize": False}), ("dense_mincut_pool", {}),
     ("dense_mincut_pool", {"temp": 0.5})],
)  # fmt: skip
def test_soft_clusters(name: str, options: dict[str, Any]) -> None:
    x, adj, mask = inputs()
    s = torch.randn(GRAPHS, NODES, CLUSTERS, dtype=torch.float64)

    class Call(nn.Module):
        def __init__(self, library: Any):
            super().__init__()
            self.function = getattr(library, name)

        def forward(self, *args: Tensor) -> Any:
            return self.function(*args, **options)

    for given in ((x, adj, s), (x, adj, s, mask), (x[0], adj[0], s[0])):
        found, expected = (outcome(Call(library), given, None, {}) for library in (gdsl.nn, pyg))
        assert found.keys() == expected.keys()
        assert harness.difference(list(found.values()), list(expected.values())) < 1e-9


def test_sizes_that_the_first_call_tells() -> None:
    x, adj, _ = inputs()
    for name in ("DenseGCNConv", "DenseGATConv"):
        layers = [getattr(library, name)(-1, OUT).double() for library in (gdsl.nn, pyg)]
        for layer in layers:
            layer(x, adj)
        layers[0].load_state_dict(layers[1].state_dict())
        assert harness.difference(*[[layer(x, adj)] for layer in layers]) < 1e-9
    with pytest.raises(AssertionError, match="'sum'"):
        gdsl.nn.DenseGraphConv(IN, OUT, "sum")


@pytest.mark.parametrize("size", [IN, -1])
@pytest.mark.parametrize(
    "options",
    [{}, {"bias": False}, {"weight_initializer": "glorot", "bias_initializer": "zeros"},
     {"weight_initializer": "uniform"}, {"is_sorted": True}],
    ids=str,
)  # fmt: skip
def test_linear_maps_by_type(size: int, options: dict[str, Any]) -> None:
    types = torch.tensor([2, 0, 2, 3, 0, 0])
    types = types.sort()[0] if "is_sorted" in options else types
    x = torch.randn(NODES, IN, dtype=torch.float64)
    made = [build(library, "HeteroLinear", (size, OUT, 4), options) for library in (gdsl.nn, pyg)]
    assert repr(made[0]) == repr(made[1])
    if size == -1:
        assert isinstance(made[0].weight, UninitializedParameter)
        for lin in made:
            torch.manual_seed(4)
            lin(x, types)
    assert repr(made[0]) == repr(made[1])
    assert list(made[0].state_dict()) == list(made[1].state_dict())
    assert harness.difference(*[list(lin.state_dict().values()) for lin in made]) == 0
    found, expected = (outcome(lin, (x,), None, {"type_vec": types}) for lin in made)
    assert harness.difference(list(found.values()), list(expected.values())) < 1e-12


@pytest.mark.parametrize(
    ("sizes", "types"),
    [({"a": IN, "b": 2}, None), ({"a": -1, "b": -1}, ["b", "a"]), (IN, ["a", "b"]), (-1, ["a", "b"])],
)
@pytest.mark.parametrize("bias", [True, False])
def test_linear_maps_of_dicts(sizes: Any, types: Any, bias: bool) -> None:
    made = [build(library, "HeteroDictLinear", (sizes, OUT, types), {"bias": bias}) for library in (gdsl.nn, pyg)]
    assert repr(made[0]) == repr(made[1])
    assert made[0].types == made[1].types
    given = {"a": torch.randn(NODES, IN, dtype=torch.float64)}
    given["b"] = torch.randn(NODES, 2 if isinstance(sizes, dict) else IN, dtype=torch.float64)
    for lin in made:
        torch.manual_seed(4)
        lin(given)
    assert repr(made[0]) == repr(made[1])
    assert list(made[0].state_dict()) == list(made[1].state_dict())
    if -1 not in (sizes.values() if isinstance(sizes, dict) else [sizes]):
        assert harness.difference(*[list(lin.state_dict().values()) for lin in made]) == 0
    made[0].load_state_dict(made[1].state_dict())
    for part in (given, {"b": given["b"]}):
        found, expected = (lin(part) for lin in made)
        assert list(found) == list(expected)
        assert harness.difference(flat(found), flat(expected)) < 1e-12


@pytest.mark.parametrize("arguments", [(IN, OUT), ({"a": IN}, OUT, ["b"])], ids=str)
def test_linear_maps_of_dicts_refuse(arguments: Any) -> None:
    for library in (gdsl.nn, pyg):
        with pytest.raises(ValueError, match="types"):
            library.HeteroDictLinear(*arguments)
    with pytest.raises(RuntimeError, match="Weight initializer 'best' not supported"):
        gdsl.nn.HeteroLinear(IN, OUT, 2, weight_initializer="best")
    with pytest.raises(RuntimeError, match="Bias initializer 'best' not supported"):
        gdsl.nn.HeteroLinear(IN, OUT, 2, bias_initializer="best")
