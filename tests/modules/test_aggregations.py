"""Aggregations with hooks, with parts that no program reads, and subclasses: they run, alone and in a layer."""

from __future__ import annotations

import copy
import importlib.machinery
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module
from torch.nn.utils import parametrize

import gdsl
import gdsl.nn as G
from gdsl.nn import aggr as A
from tests.modules.gin import by_default

pyg = pytest.importorskip("torch_geometric.nn")
EDGES = torch.tensor([[0, 1, 2, 3, 4, 0, 2], [1, 2, 0, 0, 5, 5, 2]])
INDEX = torch.tensor([0, 0, 1, 1, 1, 3])


def features(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()


class Own(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(x)


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.PReLU(), nn.Linear(4, 1))


GATES: dict[str, Callable[[], nn.Module]] = {
    "Dropout": lambda: nn.Sequential(nn.Linear(3, 1), nn.Dropout(0.0), nn.Hardtanh()),
    "Dropout in training": lambda: nn.Sequential(nn.Linear(3, 1), nn.Dropout(0.4)),
    "BatchNorm": lambda: nn.Sequential(nn.Linear(3, 1), nn.BatchNorm1d(1)),
    "PReLU": _mlp,
    "MLP": lambda: pyg.MLP([3, 4, 1], norm=None),
    "MLP with a norm": lambda: pyg.MLP([3, 4, 1]),
    "Linear of torch_geometric": lambda: pyg.Linear(3, 1),
    "own": lambda: nn.Sequential(nn.Linear(3, 1), Own()),
    "a score a feature": lambda: nn.Sequential(nn.Linear(3, 3), Own()),
    "read": lambda: nn.Linear(3, 1),
}


@pytest.mark.parametrize("training", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize("kind", by_default(GATES, ("Dropout in training", "BatchNorm", "PReLU", "MLP with a norm")))
def test_gates(kind: str, training: bool) -> None:
    gate, value = GATES[kind]().double(), nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.3)).double()
    theirs = pyg.aggr.AttentionalAggregation(copy.deepcopy(gate), copy.deepcopy(value)).train(training)
    ours = A.AttentionalAggregation(gate, value).train(training)
    x = features(6, 3)
    for _ in range(2):
        torch.manual_seed(3)
        expected = theirs(x, INDEX, dim_size=5)
        torch.manual_seed(3)
        found = ours(x, INDEX, dim_size=5)
        torch.testing.assert_close(found, expected)
        weights = torch.randn_like(found)
        a, b = (
            torch.autograd.grad((weights * y).sum(), [x, *m.parameters()])
            for y, m in ((found, ours), (expected, theirs))
        )
        torch.testing.assert_close(a, b)
        torch.testing.assert_close(list(ours.buffers()), list(theirs.buffers()))


@pytest.mark.parametrize("kind", by_default(GATES, ("own", "PReLU")))
def test_deep_sets(kind: str) -> None:
    local, final = GATES[kind]().double(), nn.Sequential(nn.PReLU(), nn.Identity()).double()
    theirs, ours = (m.DeepSetsAggregation(copy.deepcopy(local), copy.deepcopy(final)) for m in (pyg.aggr, A))
    x = features(6, 3)
    torch.manual_seed(3)
    expected = theirs(x, INDEX, dim_size=5)
    torch.manual_seed(3)
    torch.testing.assert_close(ours(x, INDEX, dim_size=5), expected)


@pytest.mark.parametrize("kind", ["PReLU", "BatchNorm", "own"])
def test_gates_in_a_layer(kind: str) -> None:
    gate = GATES[kind]().double()
    layers = []
    for library in (G, pyg):
        torch.manual_seed(0)
        layers.append(library.SAGEConv(3, 2, aggr=library.aggr.AttentionalAggregation(copy.deepcopy(gate))).double())
    ours, theirs = layers
    ours.backend = "torch"
    x = features(6, 3)
    torch.testing.assert_close(ours(x, EDGES), theirs(x, EDGES))
    torch.testing.assert_close(list(ours.buffers()), list(theirs.buffers()))


SUMMED = ("GCNConv", "GATConv", "SAGEConv", "PNAConv", "GINConv", "HEATConv", "DNAConv", "TAGConv")
SCALERS = ["identity", "amplification", "attenuation", "linear", "inverse_linear"]
KINDS: dict[str, Callable[[Any], Any]] = {
    **{
        name: lambda m, name=name: getattr(m, f"{name}Aggregation")()
        for name in ("Sum", "Mean", "Max", "Min", "Mul", "Var", "Std", "Median", "VariancePreserving")
    },
    "Softmax": lambda m: m.SoftmaxAggregation(learn=True),
    "PowerMean": lambda m: m.PowerMeanAggregation(p=2.0, learn=True),
    "Quantile": lambda m: m.QuantileAggregation([0.2, 0.7]),
    "Sort": lambda m: m.SortAggregation(2),
    "LSTM": lambda m: m.LSTMAggregation(3, 2),
    "Set2Set": lambda m: m.Set2Set(3, 2),
    "Multi": lambda m: m.MultiAggregation(["mean", "std", "max"]),
    "Multi proj": lambda m: m.MultiAggregation(
        ["mean", "std"], mode="proj", mode_kwargs={"in_channels": 3, "out_channels": 3}
    ),
    "Multi attn": lambda m: m.MultiAggregation(
        ["mean", "std"], mode="attn", mode_kwargs={"in_channels": 3, "out_channels": 4, "num_heads": 2}
    ),
    "DegreeScaler": lambda m: m.DegreeScalerAggregation(["mean", "std"], SCALERS, torch.tensor([0, 2, 3])),
    "Attentional": lambda m: m.AttentionalAggregation(nn.Linear(3, 1)),
    "DeepSets": lambda m: m.DeepSetsAggregation(nn.Linear(3, 3), nn.Linear(3, 2)),
}  # fmt: skip


@pytest.mark.parametrize("kind", by_default(KINDS, ("Mean", "Std", "Multi", "DegreeScaler", "Attentional", "DeepSets")))
def test_a_hook_on_every_part(kind: str) -> None:
    """The numbers stay, and each part is called."""
    aggrs = []
    for m in (A, pyg.aggr):
        torch.manual_seed(0)
        aggrs.append(KINDS[kind](m).double())
    ours, theirs = aggrs
    ours.load_state_dict(theirs.state_dict())
    x = features(6, 3)
    torch.testing.assert_close(ours(x, INDEX, dim_size=5), theirs(x, INDEX, dim_size=5))
    seen: list[str] = []
    for name, part in ours.named_modules():
        part.register_forward_hook(lambda m, args, y, name=name: seen.append(name))
    found, expected = ours(x, INDEX, dim_size=5), theirs(x, INDEX, dim_size=5)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(y.square().sum(), x) for y in (found, expected)))
    lists = (nn.ModuleList, nn.ModuleDict, nn.modules.linear.NonDynamicallyQuantizableLinear)  # which torch calls never
    called = {name for name, part in ours.named_modules() if not isinstance(part, lists)}
    assert set(seen) == called


@pytest.mark.parametrize("kind", by_default(KINDS, ("Mean", "Std", "Multi", "DegreeScaler", "Attentional", "DeepSets")))
def test_hooks_in_a_layer(kind: str) -> None:
    aggr = KINDS[kind](A)
    torch.manual_seed(0)
    conv = G.SimpleConv(aggr=aggr).double()
    conv.backend = "torch"
    x = features(6, 3)
    expected = conv(x, EDGES)
    calls: list[str] = []
    handle = conv.aggr_module.register_forward_hook(lambda m, args, y: calls.append("own"))
    torch.testing.assert_close(conv(x, EDGES), expected)
    assert calls == ["own"]
    handle.remove()
    everywhere = torch_module.register_module_forward_hook(lambda m, args, y: calls.append("all"))
    try:
        torch.testing.assert_close(conv(x, EDGES), expected)
    finally:
        everywhere.remove()
    assert calls.count("all") >= 2
    torch.testing.assert_close(conv(x, EDGES), expected)


class Tripled(A.MeanAggregation):
    def forward(self, x: Tensor, index: Tensor | None = None, *args: Any, **kwargs: Any) -> Tensor:
        return 3 * super().forward(x, index, *args, **kwargs)


def test_a_subclass_with_a_forward_of_its_own_runs() -> None:
    conv = G.SimpleConv(aggr=Tripled())
    mean = G.SimpleConv(aggr="mean")
    multi = G.SimpleConv(aggr=A.MultiAggregation([Tripled(), "max"], mode="sum"))
    both = G.SimpleConv(aggr=A.MultiAggregation(["mean", "max"], mode="sum"))
    largest = G.SimpleConv(aggr="max")
    for layer in (conv, mean, multi, both, largest):
        layer.backend = "torch"
    x = features(6, 3)
    torch.testing.assert_close(conv(x, EDGES), 3 * mean(x, EDGES))
    torch.testing.assert_close(multi(x, EDGES), 3 * mean(x, EDGES) + largest(x, EDGES))
    torch.testing.assert_close(both(x, EDGES), mean(x, EDGES) + largest(x, EDGES))


def test_a_replaced_forward_and_a_parametrised_temperature() -> None:
    class Double(nn.Module):
        def forward(self, t: Tensor) -> Tensor:
            return 2 * t

    aggr = A.SoftmaxAggregation(t=0.7, learn=True).double()
    conv, x = G.SimpleConv(aggr=aggr), features(6, 3)
    conv.backend = "torch"
    conv(x, EDGES)
    parametrize.register_parametrization(aggr, "t", Double())
    expected = pyg.SimpleConv(aggr=pyg.aggr.SoftmaxAggregation(t=1.4, learn=True).double())(x, EDGES)
    torch.testing.assert_close(conv(x, EDGES), expected)
    inner = aggr.forward
    aggr.forward = lambda *args, **kwargs: 5 * inner(*args, **kwargs)
    torch.testing.assert_close(conv(x, EDGES), 5 * expected)


def test_an_option_of_an_aggregation_that_changes() -> None:
    deg = torch.tensor([0, 2, 3])
    x = features(6, 3)
    for make, option, value in (
        (lambda m: m.DegreeScalerAggregation("mean", "linear", deg), "scaler", ["attenuation"]),
        (lambda m: m.SoftmaxAggregation(t=0.5), "t", 2.0),
        (lambda m: m.PowerMeanAggregation(p=1.0), "p", 3.0),
    ):
        ours, theirs = G.SimpleConv(aggr=make(A)).double(), pyg.SimpleConv(aggr=make(pyg.aggr)).double()
        ours.backend = "torch"
        torch.testing.assert_close(ours(x, EDGES), theirs(x, EDGES))
        for layer in (ours, theirs):
            setattr(layer.aggr_module, option, value)
        torch.testing.assert_close(ours(x, EDGES), theirs(x, EDGES))


def test_messages_of_several_dims_reach_an_aggregation_that_runs() -> None:
    x = features(6, 3)
    for name in ("GATConv", "TransformerConv"):
        made = []
        for library in (G, pyg):
            torch.manual_seed(0)
            made.append(getattr(library, name)(3, 4, heads=2).double())
        made[0].backend = "torch"
        seen: list[Any] = []
        made[0].aggr_module.register_forward_hook(lambda m, args, y, seen=seen: seen.append(y.shape[1:]))
        torch.testing.assert_close(made[0](x, EDGES), made[1](x, EDGES))
        assert seen == [(2, 4)]


class _Last(nn.Module):
    """The last row of each group, by rows that it writes to, as it does to their groups."""

    def forward(
        self, x: Tensor, index: Tensor, ptr: Tensor | None = None, dim_size: int | None = None, dim: int = 0
    ) -> Tensor:
        assert bool((index.diff() >= 0).all())
        last = torch.cat([index.diff() > 0, torch.ones(1, dtype=torch.bool)])
        groups = index[last].clone()
        with torch.no_grad():
            index.zero_()
        return x.new_zeros(dim_size or 0, x.shape[1]).index_copy(0, groups, x.mul_(2.0)[last])


@pytest.mark.parametrize("end", ["i", "j"])
def test_edges_that_are_sorted_reach_an_aggregation_as_they_are(end: str) -> None:
    """They are neither sorted again nor lent: what the module writes to is its own."""
    x = features(6, 2)
    mixed = EDGES if end == "i" else EDGES.flip(0)
    row, other = (1, "j") if end == "i" else (0, "i")
    text = f"layer L {{ module last  node x[d]  message m = 3 * x[{other}]  aggregate y = last(m) at {end}  return y }}"
    layer = gdsl.compile(text, last=_Last(), d=2, backend="torch")
    edges = mixed[:, mixed[row].argsort(stable=True)].contiguous()
    before = edges.clone()
    graph = gdsl.Graph(edges, 6)
    assert graph.is_sorted(row) and not gdsl.Graph(mixed, 6).is_sorted(row)
    for given in (edges, graph):
        found = layer(x, given)
        torch.testing.assert_close(found, layer(x, mixed), rtol=0, atol=0)
        torch.testing.assert_close(edges, before)
        torch.testing.assert_close(graph.edge_index, before)
        (slope,) = torch.autograd.grad(found.sum(), x)
        torch.testing.assert_close(slope, torch.autograd.grad(layer(x, mixed).sum(), x)[0], rtol=0, atol=0)


@pytest.mark.parametrize("name", by_default(SUMMED, ("GATConv", "PNAConv", "HEATConv")))
def test_summary(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch_geometric's summary puts a hook on every module."""
    table = types.ModuleType("tabulate")  # what prints the table is another package
    table.tabulate = lambda rows, **kwargs: "\n".join(" ".join(map(str, row)) for row in rows)
    table.__spec__ = importlib.machinery.ModuleSpec("tabulate", None)
    monkeypatch.setitem(sys.modules, "tabulate", table)
    x = torch.randn(6, 4)
    deg = torch.tensor([1, 2, 3])
    made, args = {
        "GINConv": lambda: (G.GINConv(nn.Sequential(nn.Linear(4, 4), nn.ReLU())), (x,)),
        "PNAConv": lambda: (G.PNAConv(4, 4, ["mean", "std"], ["linear", "identity"], deg), (x,)),
        "HEATConv": lambda: (G.HEATConv(4, 4, 2, 2, 3, 2, 3), (x,)),
        "DNAConv": lambda: (G.DNAConv(4), (torch.randn(6, 2, 4),)),
    }.get(name, lambda: (getattr(G, name)(4, 4), (x,)))()
    further = (torch.randint(2, (6,)), torch.randint(2, (7,)), torch.randn(7, 2)) if name == "HEATConv" else ()
    made.backend = "torch"
    expected = made(*args, EDGES, *further)
    text = pyg.summary(made, *args, EDGES, *further, max_depth=5, leaf_module=None)
    for part in made.children():
        assert type(part).__name__ in text
    torch.testing.assert_close(made(*args, EDGES, *further), expected)


@pytest.mark.parametrize("where", ["out_lin", "a map", "weights"])
def test_parts_of_hgt_with_hooks(where: str) -> None:
    """Its last maps are read as weights, unless one of them has to run."""
    types_, edges = ["a", "b"], [("a", "r", "b"), ("b", "s", "a"), ("b", "t", "b")]
    made = []
    for library in (G, pyg):
        torch.manual_seed(0)
        made.append(library.HGTConv({"a": 3, "b": 4}, 4, (types_, edges), heads=2).double())
    made[0].load_state_dict(made[1].state_dict())
    made[0].backend = "torch"
    x = {"a": features(5, 3), "b": features(6, 4)}
    graph = {kind: torch.randint(5, (2, 9)) for kind in edges}
    counts = []
    for layer in made:
        seen: list[int] = []
        counts.append(seen)
        part = {"out_lin": layer.out_lin, "a map": layer.out_lin.lins["a"], "weights": layer.k_rel}[where]
        part.register_forward_hook(lambda m, args, y, seen=seen: seen.append(1))
        if where == "a map":
            part.register_forward_hook(lambda m, args, y: y.tanh())
    found, expected = made[0](x, graph), made[1](x, graph)
    torch.testing.assert_close(found, expected)
    assert counts[0] == counts[1] == [1]
    a, b = (torch.autograd.grad(sum(v.square().sum() for v in y.values()), list(x.values())) for y in (found, expected))
    torch.testing.assert_close(a, b)
