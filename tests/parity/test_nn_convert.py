"""gdsl.nn.convert over the whole library: from torch_geometric's layer the same one that our constructor makes.

Whether that one gives torch_geometric's numbers is what the other tables are about; here each class is called once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

import gdsl.nn
from gdsl.nn.conversion.arguments import READERS, TAKEN
from gdsl.nn.conversion.twins import kind_of
from tests.parity.drop_in import Case, build, draw, outcome, pyg, set_backend, single
from tests.programs import harness

FAMILIES = (
    "basic", "simple", "spectral", "attention", "edge", "points", "relations", "types", "mixed", "mesh", "models",
    "frames", "whole",
)  # fmt: skip

CASES = [case for name in FAMILIES for case in import_module(f"tests.parity.test_nn_{name}").CASES]


def seq(*sizes: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(sizes[0], sizes[1]), nn.ReLU(), nn.Linear(sizes[1], sizes[-1]))


TYPES = (["a", "b"], [("a", "to", "b"), ("b", "of", "a")])
DEGREES = torch.tensor([0, 3, 2])
JOINED = {"in_channels": 4, "out_channels": 4}
RING = torch.tensor([[0, 1, 2], [1, 2, 0]])

# Classes without a table, as a library makes them.
OTHERS: list[Callable[[Any], nn.Module]] = [
    lambda n: n.APPNP(2, 0.1, 0.3, True, False, False),
    lambda n: n.ARGA(n.GCNConv(5, 4), seq(4, 4, 1)),
    lambda n: n.ARGVA(n.GCNConv(5, 4), seq(4, 4, 1)),
    lambda n: n.ASAPooling(5),
    lambda n: n.ASAPooling(5, 0.8, GNN=n.GraphConv, dropout=0.3, add_self_loops=True),
    lambda n: n.AttentionalAggregation(nn.Linear(5, 1), seq(5, 4, 5)),
    lambda n: n.AttentionalAggregation(n.MLP([5, 4, 1], norm="GraphNorm"), n.MLP([5, 4, 3], norm="GraphNorm")),
    lambda n: n.BatchNorm(5, 1e-3, 0.2, False, True, True),
    lambda n: n.BatchNorm(5, track_running_stats=False),
    lambda n: n.ClusterPooling(5, "sigmoid", 0.1),
    lambda n: n.ComplEx(7, 3, 4, sparse=True),
    lambda n: n.CorrectAndSmooth(3, 0.5, 2, 0.7, False, 2.0),
    lambda n: n.DMoNPooling([5, 4], 3, 0.2),
    lambda n: n.DeepGCNLayer(n.GENConv(4, 4), n.LayerNorm(4), nn.ReLU(), "res", 0.1),
    lambda n: n.DeepGCNLayer(),
    lambda n: n.DeepGraphInfomax(4, n.GCNConv(5, 4), torch.sigmoid, torch.flip),
    lambda n: n.DeepSetsAggregation(seq(5, 4, 4), n.MLP([4, 3])),
    lambda n: n.DeepSetsAggregation(n.MLP([5, 4, 3], norm="PairNorm")),
    lambda n: n.DegreeScalerAggregation("mean", "linear", DEGREES),
    lambda n: n.DegreeScalerAggregation(["mean", "max"], ["identity", "inverse_linear"], DEGREES, True),
    lambda n: n.DenseGATConv(5, 4, 2, False, 0.1, 0.3),
    lambda n: n.DenseGCNConv(5, 4, True, False),
    lambda n: n.DenseGINConv(seq(5, 4, 4), 0.3, True),
    lambda n: n.DenseGraphConv(5, 4, "mean", False),
    lambda n: n.DenseSAGEConv(5, 4, True, False),
    lambda n: n.DiffGroupNorm(5, 3, 0.1, affine=False),
    lambda n: n.DimeNet(8, 2, 1, 3, 3, 2, act=torch.tanh),
    lambda n: n.DimeNetPlusPlus(8, 2, 1, 4, 3, 6, 3, 2, act=nn.ReLU()),
    lambda n: n.DirGNNConv(n.SAGEConv(5, 4), 0.3),
    lambda n: n.DirGNNConv(n.GCNConv(5, 4), root_weight=False),
    lambda n: n.DistMult(7, 3, 4, margin=2.0),
    lambda n: n.DynamicEdgeConv(seq(10, 4, 4), 3, "mean"),
    lambda n: n.NNConv(5, 4, seq(3, 4, 20), "max", False),
    lambda n: n.EdgePooling(5, n.EdgePooling.compute_edge_score_sigmoid, 0.1, 0.0),
    lambda n: n.EdgePooling(5),
    lambda n: n.EquilibriumAggregation(5, 4, [6, 3], 2, 0.2),
    lambda n: n.GAE(n.GCNConv(5, 4)),
    lambda n: n.GCN2Conv(4, 0.1, 0.5, 3, False),
    lambda n: n.GENConv(5, 4, "powermean", p=2.0, learn_p=True, msg_norm=True, learn_msg_scale=True, num_layers=1),
    lambda n: n.GPSConv(4, None, norm="layer_norm", attn_type="performer"),
    lambda n: n.GPSConv(4, n.GCNConv(4, 4), 2, 0.1, act="elu", attn_kwargs={"dropout": 0.5}),
    lambda n: n.GPSConv(4, n.GINConv(seq(4, 4, 4)), norm=None),
    lambda n: n.GRUAggregation(5, 4, num_layers=2),
    lambda n: n.GraphMultisetTransformer(4, 2, 2, 2, True, 0.1),
    lambda n: n.GraphNorm(5, 1e-3),
    lambda n: n.GraphSizeNorm(),
    lambda n: n.GravNetConv(5, 4, 2, 3, 3),
    lambda n: n.HANConv({"a": 5, "b": 3}, 4, TYPES, 2, 0.1, 0.3),
    lambda n: n.HGTConv({"a": 5, "b": 3}, 4, TYPES, 2),
    lambda n: n.HGTConv(-1, 4, TYPES, 2),
    lambda n: n.HeteroBatchNorm(5, 3, affine=False),
    lambda n: n.HeteroBatchNorm(5, 3, track_running_stats=False),
    lambda n: n.HeteroConv({TYPES[1][0]: n.SAGEConv((5, 3), 4), TYPES[1][1]: n.GraphConv(3, 4)}, "max"),
    lambda n: n.HeteroDictLinear({"a": 5, "b": -1}, 4, bias=False),
    lambda n: n.HeteroDictLinear(-1, 4, ["a", "b"]),
    lambda n: n.HeteroLinear(5, 4, 3, bias=False),
    lambda n: n.HeteroLinear(-1, 4, 3, True),
    lambda n: n.HeteroJumpingKnowledge(["a", "b"], "lstm", 4, 2),
    lambda n: n.HeteroLayerNorm(5, 3, affine=False),
    lambda n: n.InnerProductDecoder(),
    lambda n: n.InstanceNorm(5, 1e-3, 0.2, True, True),
    lambda n: n.JumpingKnowledge("cat"),
    lambda n: n.JumpingKnowledge("lstm", 4, 2),
    lambda n: n.KGEModel(7, 3, 4),
    lambda n: n.LCMAggregation(4, 4, False),
    lambda n: n.LCMAggregation(5, 4),
    lambda n: n.LINKX(7, 5, 4, 3, 2, 2, 2, 0.3),
    lambda n: n.LSTMAggregation(5, 4, bidirectional=True),
    lambda n: n.LabelPropagation(3, 0.5),
    lambda n: n.LayerNorm(5, affine=False, mode="node"),
    lambda n: n.LightGCN(7, 4, 2, torch.ones(3), normalize=False),
    lambda n: n.LightGCN(7, 4, 2),
    lambda n: n.Linear(-1, 4, bias_initializer="zeros"),
    lambda n: n.Linear(5, 4, False, "kaiming_uniform"),
    lambda n: n.MLPAggregation(5, 4, 3, num_layers=2, hidden_channels=6, norm=None),
    lambda n: n.MaskLabel(3, 5, "concat"),
    lambda n: n.MaxAggregation(),
    lambda n: n.MeanAggregation(),
    lambda n: n.MeanSubtractionNorm(),
    lambda n: n.MedianAggregation(1.0),
    lambda n: n.MemPooling(5, 4, 2, 3, 0.5),
    lambda n: n.MessageNorm(True),
    lambda n: n.MetaLayer(seq(5, 4, 4)),
    lambda n: n.MetaPath2Vec({TYPES[1][0]: RING, TYPES[1][1]: RING}, 4, TYPES[1], 3, 2),
    lambda n: n.MinAggregation(),
    lambda n: n.MulAggregation(),
    lambda n: n.MultiAggregation(["mean", "max"], mode="attn", mode_kwargs={**JOINED, "num_heads": 2}),
    lambda n: n.MultiAggregation(["mean", "max"], mode="logsumexp"),
    lambda n: n.MultiAggregation(["mean", "max"], mode="proj", mode_kwargs={**JOINED, "bias": False}),
    lambda n: n.MultiAggregation([n.SoftmaxAggregation(learn=True), "lstm"], [{}, JOINED]),
    lambda n: n.NeuralFingerprint(5, 4, 3, 2, max_degree=3, bias=False),
    lambda n: n.Node2Vec(RING, 4, 3, 2),
    lambda n: n.PANConv(5, 4, 2),
    lambda n: n.PANPooling(5, min_score=0.1, multiplier=2.0, nonlinearity="relu"),
    lambda n: n.PNAConv(4, 4, ["mean", "max"], ["identity"], DEGREES, train_norm=True, post_layers=2),
    lambda n: n.PMLP(5, 4, 3, 2, 0.2, norm=False),
    lambda n: n.PMLP(5, 4, 3, 3, bias=False),
    lambda n: n.PairNorm(2.0, True),
    lambda n: n.PatchTransformerAggregation(5, 4, 2, 6, 1, 2, 0.1, ["mean", "std"]),
    lambda n: n.PerformerAttention(8, 2, 4),
    lambda n: n.PositionalEncoding(6, 1e-3, 2.0),
    lambda n: n.PowerMeanAggregation(2.0, True, 5, 1e-3, 50.0),
    lambda n: n.PowerMeanAggregation(3.0),
    lambda n: n.QuantileAggregation([0.2, 0.7], "midpoint", 1.0),
    lambda n: n.RECT_L(5, 4, False, 0.3),
    lambda n: n.RotatE(7, 3, 4, margin=2.0),
    lambda n: n.SAGEConv(5, 4, ["mean", "std"], project=True),
    lambda n: n.SAGEConv((5, 3), 4, n.MedianAggregation(2.0), root_weight=False),
    lambda n: n.SAGEConv(5, 4, "softmax", aggr_kwargs={"learn": True, "t": 0.5}),
    lambda n: n.SAGPooling(5),
    lambda n: n.SAGPooling(5, 0.7, n.GATConv, None, 2.0, "relu", heads=1, dropout=0.2),
    lambda n: n.SGFormer(5, 4, 3, trans_num_heads=2, gnn_num_layers=1, aggregate="cat"),
    lambda n: n.SGFormerAttention(8, 2, 4, True),
    lambda n: n.SchNet(8, 6, 2, 5, max_num_neighbors=7),
    lambda n: n.SchNet(8, 6, 2, 5, readout="mean", mean=1.0, std=2.0, atomref=torch.ones(100, 1)),
    lambda n: n.Set2Set(5, 3, num_layers=2),
    lambda n: n.SetTransformerAggregation(4, 2, 2, 1, 2, False, True, 0.1),
    lambda n: n.SignedGCN(5, 4, 2, 3.0),
    lambda n: n.SoftmaxAggregation(0.5, True, channels=5),
    lambda n: n.SoftmaxAggregation(0.5, semi_grad=True),
    lambda n: n.SortAggregation(3),
    lambda n: n.SplineConv((5, 3), 4, 2, [3, 2], [True, False], 2),
    lambda n: n.StdAggregation(True),
    lambda n: n.SumAggregation(),
    lambda n: n.TemporalEncoding(6),
    lambda n: n.TopKPooling(5, 0.7, nonlinearity="relu"),
    lambda n: n.TopKPooling(5, 3),
    lambda n: n.TransE(7, 3, 4, p_norm=2.0),
    lambda n: n.VGAE(n.GCNConv(5, 4)),
    lambda n: n.VarAggregation(True),
    lambda n: n.VariancePreservingAggregation(),
    lambda n: n.WLConv(),
    lambda n: n.XConv(5, 4, 2, 3, dilation=2),
]

# What no conversion is for: bases to derive from, and what is no module.
NO_LAYER = {
    "Aggregation", "KNNIndex", "L2KNNIndex", "MIPSKNNIndex", "ApproxL2KNNIndex", "ApproxMIPSKNNIndex", "MessagePassing",
}  # fmt: skip

# What a layer of ours has learned from its calls, and where torch keeps parts and hooks.
INNER = {*nn.Module().__dict__, "_store", "_texts", "_options", "_programs", "_normalised"}


@pytest.fixture(autouse=True)
def pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes that ask for another package are made without it."""
    monkeypatch.setattr("torch_geometric.typing.WITH_KNN", True)
    monkeypatch.setattr("torch_geometric.nn.conv.spline_conv.spline_basis", max)
    monkeypatch.setattr("torch_geometric.nn.models.node2vec.WITH_PYG_LIB", True)
    monkeypatch.setattr("torch_geometric.nn.models.node2vec.torch.ops.pyg", pytest, raising=False)
    monkeypatch.setattr(pytest, "random_walk", max, raising=False)


def kept(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """All that a module and its parts keep, but for numbers."""
    for path, part in module.named_modules(remove_duplicate=False):
        yield f"{path} class", kind_of(part)
        for name, value in (*part._parameters.items(), *part._buffers.items()):
            yield f"{path}.{name}", plain(value)
        for name, value in part.__dict__.items():
            if name not in INNER:
                yield f"{path}.{name}", plain(value)


def plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return "lazy" if isinstance(value, UninitializedParameter) else tuple(value.shape)
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, int | float | str | type | None):
        return value
    return getattr(value, "__qualname__", type(value))


def check(old: nn.Module, like: nn.Module) -> nn.Module:
    """The converted layer, which is as our constructor makes it, on torch_geometric's parameters."""
    held = {name: id(value) for name, value in (*old.named_parameters(), *old.named_buffers())}
    words, names = repr(old), list(old.state_dict(keep_vars=True))
    made = gdsl.nn.convert(old, verbose=False)
    assert kind_of(made).__module__.startswith("gdsl."), gdsl.nn.convertible(old)
    assert dict(kept(made)) == dict(kept(like))
    assert held.items() <= {name: id(v) for name, v in (*made.named_parameters(), *made.named_buffers())}.items()
    assert [id(p) for p in made.parameters()] == [id(p) for p in old.parameters()]
    tables = dict(like.named_buffers()).items() - dict(like.state_dict(keep_vars=True)).items()
    assert all(torch.equal(made.get_buffer(name), value) for name, value in tables)
    assert list(made.state_dict(keep_vars=True)) == names and repr(old) == words
    return made


FIRST = {case.layer: case for case in reversed(CASES)}


def every(case: Case) -> Iterator[Mapping[str, Any]]:
    """The options of a case that torch_geometric takes."""
    for options in single(case):
        try:
            build(case, pyg, options)
        except (ValueError, RuntimeError, AssertionError, TypeError, NotImplementedError):
            continue
        yield options


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, id=c.id, marks=[] if FIRST[c.layer] is c else pytest.mark.slow) for c in CASES],
)
def test_layers(case: Case) -> None:
    for options in every(case):
        made = check(build(case, pyg, options), build(case, gdsl.nn, options))
        if case is not FIRST[case.layer] or options:
            continue
        set_backend(made, "torch")
        first, graph, values = draw(case, 1)
        found, wanted = (outcome(layer, first, graph, values) for layer in (made, build(case, pyg, options)))
        assert found.keys() == wanted.keys()
        assert harness.difference(list(found.values()), list(wanted.values())) < case.exact


def name_of(make: Callable[[Any], Any]) -> str:
    return inspect.getsource(make).strip().removeprefix("lambda n: n.").rstrip(",")


# torch_geometric and ours work out spherical harmonics when they make one.
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(make, id=name_of(make), marks=pytest.mark.slow if "DimeNet" in name_of(make) else [])
        for make in OTHERS
    ],
)
def test_others(make: Callable[[Any], nn.Module]) -> None:
    torch.manual_seed(0)
    old = make(pyg)
    torch.manual_seed(0)
    check(old, make(gdsl.nn))


def test_nothing_is_left_out() -> None:
    named = {case.layer for case in CASES} | {name_of(make).partition("(")[0] for make in OTHERS}
    classes = {name for name in gdsl.nn._HOMES if inspect.isclass(getattr(gdsl.nn, name)) and hasattr(pyg, name)}
    assert classes - named - NO_LAYER == set()


def test_the_tables_are_of_classes_and_arguments_that_there_are() -> None:
    for name, readers in READERS.items():
        taken = inspect.signature(getattr(gdsl.nn, name).__init__).parameters
        assert {k for k in readers if k != "**"} <= {*taken}, name
        assert "**" not in readers or any(p.kind is p.VAR_KEYWORD for p in taken.values()), name
    assert all(hasattr(gdsl.nn, name) for name in TAKEN)
