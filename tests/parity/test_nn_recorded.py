"""What a user sees of each class of gdsl.nn, as recorded: signatures, attributes, state, draws from a seed and words.

torch_geometric's classes are compared elsewhere where they are peers; this holds what they have no word on, such as
annotations, ``**kwargs``, documentation, attributes and the parts that are ours alone. After a change that is meant:
``python -m tests.parity.test_nn_recorded``.
"""

from __future__ import annotations

import copy
import functools
import inspect
import json
import pickle
import zlib
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

import gdsl.nn
from tests.parity.drop_in import Case, build, mlp, single

FILE = Path(__file__).with_name("recorded.json")
TABLES = ("basic", "simple", "spectral", "attention", "edge", "points", "relations", "types", "mixed", "mesh", "models",
          "whole", "frames")  # fmt: skip

META = (["a", "b"], [("a", "to", "b"), ("b", "of", "a")])
# Of the classes without a table of cases, and of sizes that come with the first call.
CALLS = """
SGConv(-1, 4) | TAGConv(-1, 4, 1) | ChebConv(-1, 4, 2) | ARMAConv(-1, 4, 2, 2) | ARMAConv(-1, 4, shared_weights=True)
ClusterGCNConv(-1, 4) | MixHopConv(-1, 4) | GraphConv(-1, 4) | GraphConv((-1, -1), 4) | LEConv(-1, 4)
MFConv(-1, 4, 1) | SignedConv(-1, 4, True) | SignedConv(-1, 4, False) | GATv2Conv(-1, 4)
GATv2Conv((-1, -1), 4, edge_dim=3) | TransformerConv(-1, 4) | SuperGATConv(-1, 4) | FAConv(-1) | FeaStConv(-1, 4)
GeneralConv(-1, 4) | HypergraphConv(-1, 4) | GATConv(-1, 4) | GATConv((-1, -1), 4, 2, residual=True) | GCNConv(-1, 4)
SAGEConv(-1, 4) | SAGEConv((-1, -1), 4) | PointTransformerConv(-1, 4) | GMMConv(-1, 4, 2, 3) | SplineConv(-1, 4, 2, 3)
ResGatedGraphConv(-1, 4) | GENConv(-1, 4) | EGConv(-1, 8) | HEATConv(-1, 4, 2, 2, 3, -1, 3) | FiLMConv(-1, 4)
GENConv((-1, -1), 4, msg_norm=True) | NNConv(-1, 4, mlp(3, 5)()) | NNConv((-1, -1), 4, mlp(3, 5)(), root_weight=False)
SplineConv(5, 4, 2, 3) | SplineConv((5, 3), 4, 2, [3, 4], [True, False], root_weight=False, bias=False, aggr="add")
GravNetConv(5, 4, 3, 2, 3) | GravNetConv(-1, 4, 3, 2, 3) | DynamicEdgeConv(mlp(10, 4)(), 3) | XConv(8, 4, 3, 4)
XConv(8, 4, 3, 4, hidden_channels=3, bias=False) | PANConv(5, 4, 3) | PANConv(-1, 4, 2) | WLConv()
ECConv(5, 4, mlp(3, 20)()) | DirGNNConv(GCNConv(5, 4)) | DirGNNConv(SAGEConv(5, 4), 0.3, False)
PointConv(mlp(8, 4)()) | MFConv((5, 3), 4, 2, False) | GPSConv(4, GCNConv(4, 4), heads=2)
GPSConv(4, None, norm=None, act="elu") | GPSConv(4, None, 2, attn_type="performer") | HANConv(5, 4, META, 2)
HANConv({"a": 5, "b": -1}, 4, META) | HGTConv(5, 4, META, 2) | HGTConv({"a": 5, "b": -1}, 4, META)
HeteroConv({("a", "to", "b"): SAGEConv((5, 3), 4)}) | GCN2Conv(5, 0.1, shared_weights=False) | Aggregation()
SumAggregation() | MeanAggregation() | MaxAggregation() | MinAggregation() | MulAggregation() | VarAggregation()
VarAggregation(semi_grad=True) | StdAggregation() | StdAggregation(True) | VariancePreservingAggregation()
SoftmaxAggregation() | SoftmaxAggregation(0.5, True, channels=3) | PowerMeanAggregation()
PowerMeanAggregation(2.0, True) | MedianAggregation() | MedianAggregation(2.0) | QuantileAggregation(0.3)
QuantileAggregation([0.1, 0.8], "lower", 1.0) | SortAggregation(3) | MultiAggregation(["mean", "max"])
LSTMAggregation(4, 3) | GRUAggregation(4, 3) | Set2Set(4, 2)
MultiAggregation(["mean", "max"], mode="proj", mode_kwargs={"in_channels": 4, "out_channels": 3})
MultiAggregation(["mean", "max"], mode="attn", mode_kwargs={"in_channels": 4, "out_channels": 4, "num_heads": 2})
DegreeScalerAggregation("sum", ["linear"], torch.tensor([2, 3, 4]))
DegreeScalerAggregation(["sum"], "linear", torch.tensor([2, 3, 4]), True) | AttentionalAggregation(mlp(4, 1)())
DeepSetsAggregation(mlp(4, 5)(), mlp(5, 3)()) | MLPAggregation(4, 3, 5, num_layers=1) | LCMAggregation(4, 3)
LCMAggregation(4, 4, False) | PatchTransformerAggregation(4, 3, 2, 4, heads=2, aggr=["mean", "max"])
SetTransformerAggregation(4, heads=2, layer_norm=True)
SetTransformerAggregation(4, 3, num_decoder_blocks=0, concat=False) | GraphMultisetTransformer(4, 2)
GraphMultisetTransformer(4, 2, 2, 2, True) | EquilibriumAggregation(4, 3, [5]) | PerformerAttention(4, 2)
PerformerAttention(4, 2, None, qkv_bias=True) | SGFormerAttention(4) | SGFormerAttention(4, 2, None)
ClusterPooling(4) | ClusterPooling(4, "tanh", 0.1, 0.2) | MemPooling(4, 3, 2, 2) | DenseGATConv(4, 3)
DenseGCNConv(4, 3) | DenseGATConv(4, 3, 2, False, bias=False) | DenseGCNConv(-1, 3, True, False)
DenseGINConv(mlp(4, 3)(), 0.3, True) | DenseGINConv(mlp(4, 3)()) | DenseGraphConv(4, 3)
DenseGraphConv(-1, 3, "max", False) | DenseSAGEConv(4, 3, True, False) | DenseSAGEConv(-1, 3)
HeteroDictLinear({"a": 4, "b": 3}, 2) | HeteroDictLinear(4, 2, ["a", "b"]) | HeteroLinear(4, 3, 2)
HeteroLinear(-1, 3, 2, bias=False) | DMoNPooling(4, 2) | DMoNPooling([4, 3], 2, 0.5) | PositionalEncoding(4)
PositionalEncoding(4, 2.0, 1e-3) | TemporalEncoding(4) | KGEModel(4, 2, 3) | ComplEx(4, 2, 3) | DistMult(4, 2, 3, 2.0)
RotatE(4, 2, 3) | TransE(4, 2, 3, p_norm=2.0, sparse=True) | Linear(4, 3) | Linear(-1, 3, False, "glorot", "zeros")
GAE(mlp(4, 3)()) | VGAE(mlp(4, 3)()) | ARGA(mlp(4, 3)(), mlp(3, 1)()) | ARGVA(mlp(4, 3)(), mlp(3, 1)())
InnerProductDecoder() | DimeNet(4, 2, 1, 3, 3, 2) | DimeNetPlusPlus(4, 2, 1, 3, 2, 2, 3, 2) | MaskLabel(3, 4)
MaskLabel(3, 4, "concat") | MetaLayer(node_model=mlp(4, 3)())
DeepGraphInfomax(4, mlp(3, 4)(), torch.mean, torch.flip) | JumpingKnowledge("cat") | JumpingKnowledge("lstm", 4, 3)
HeteroJumpingKnowledge(["a", "b"], "lstm", 4, 3) | CorrectAndSmooth(2, 0.5, 2, 0.5)
CorrectAndSmooth(2, 0.5, 2, 0.5, False, 2.0) | LabelPropagation(2, 0.5) | LightGCN(5, 3, 2) | LightGCN(5, 3, 2, 0.3)
NeuralFingerprint(4, 3, 2, 2) | NeuralFingerprint(4, 3, 2, 1, max_degree=2) | PMLP(4, 3, 2, 3)
PMLP(4, 3, 2, 2, 0.1, False, False) | RECT_L(4, 3) | RECT_L(4, 3, False, 0.2) | SignedGCN(4, 6, 2)
MetaPath2Vec({("a", "to", "a"): torch.tensor([[0, 1], [1, 0]])}, 4, [("a", "to", "a")], 3, 2)
SchNet(4, 4, 2, 5) | SchNet(4, 4, 1, 5, readout="mean") | SGFormer(4, 4, 3) | SGFormer(4, 4, 3, aggregate="cat")
Node2Vec(torch.tensor([[0, 1], [1, 0]]), 4, 3, 2) | MessagePassing() | BatchNorm(4) | BatchNorm(4, 0.1, None, False)
DiffGroupNorm(4, 2) | GraphNorm(4) | GraphNorm(4, 0.1) | GraphSizeNorm() | HeteroBatchNorm(4, 2)
HeteroBatchNorm(4, 2, affine=False) | HeteroLayerNorm(4, 2) | InstanceNorm(4) | InstanceNorm(4, 0.1, 0.2, True, True)
LayerNorm(4) | LayerNorm(4, 0.1, False, "node") | MeanSubtractionNorm() | MessageNorm() | MessageNorm(True)
PairNorm() | PairNorm(2.0, True) | ASAPooling(4) | TopKPooling(4) | ASAPooling(4, 3, GNN=GCNConv, add_self_loops=True)
EdgePooling(4) | EdgePooling(4, dropout=0.2) | PANPooling(4) | PANPooling(4, min_score=0.2) | SAGPooling(4)
SAGPooling(4, 0.3, GCNConv, bias=False) | TopKPooling(4, 3, 0.1, 2.0, "relu")
SGConv(in_channels=5, out_channels=4, K=2, node_dim=0, flow="target_to_source", backend="torch")
APPNP(alpha=0.1, K=2) | SGConv() | SGConv(5, 4, 1, False, True, True, 3) | TAGConv(5, 4, k=3)
TAGConv(5, 4, K=2, in_channels=3) | GCN2Conv(5, 0.1, 0.5) | ChebConv(5, 4, 0) | ChebConv(5, 4, 2, "no")
GCNConv(5, 4, add_self_loops=True, normalize=False) | EGConv(5, 4) | GMMConv(5, 4) | SGConv(5, 4, flow="up")
SGConv(5, 4, node_dim=1) | SAGEConv(-1, 4, project=True) | GATConv(5) | RGCNConv(5, 4, 2, 2, 2)
RGATConv(5, 4, 2, mod="scaled", dropout=0.1) | PANConv(5, 4, 2, aggr="max") | SimpleConv(combine_root="no")
GINEConv(nn.ReLU(), edge_dim=3) | SplineConv(5, 4, 2, 1) | HGTConv(5, 3, META, 2)
SuperGATConv(5, 4, attention_type="no") | HypergraphConv(5, 4, attention_mode="no") | GPSConv(4, None, attn_type="no")
LayerNorm() | BatchNorm(4, track_running_stats=False, allow_single_element=True)
"""


def calls() -> Iterator[tuple[str, Callable[[], Any]]]:
    """What is made, by a name."""
    for table in TABLES:
        cases: list[Case] = import_module(f"tests.parity.test_nn_{table}").CASES
        for n, case in enumerate(cases):
            for options in single(case):
                words = ", ".join(f"{k}={v!r}" for k, v in options.items() if not callable(v))
                if len(words) < 60 and (words or not options):
                    yield f"{table} {n} {case.layer} {words}".strip(), lambda c=case, o=options: build(c, gdsl.nn, o)
    names = {"torch": torch, "nn": nn, "mlp": mlp, "META": META}
    for text in (call.strip() for line in CALLS.strip().splitlines() for call in line.split(" | ")):
        yield text, lambda text=text: eval(text, {**names, **{n: getattr(gdsl.nn, n) for n in gdsl.nn._HOMES}})


def seen(made: Any) -> dict[str, Any]:
    """What a user sees of an object."""
    state = dict(_state(made)) if isinstance(made, nn.Module) else {}
    plain = {
        k: repr(v) for k, v in sorted(vars(made).items())
        if not k.startswith("_") and isinstance(v, int | float | str | list | tuple | type(None))
    }  # fmt: skip
    return {"repr": repr(made), "state": {k: number(v) for k, v in state.items()}, "attributes": plain}


def _state(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """As ``state_dict``, which not all modules have before their sizes are known."""
    for path, part in module.named_modules():
        values = {**part._parameters, **part._buffers}
        lazy = any(isinstance(value, UninitializedParameter) for value in values.values())
        for name, value in values.items():
            if value is not None and name not in part._non_persistent_buffers_set:
                # Beside a weight that is not there yet, a bias is not drawn.
                drawn = isinstance(value, UninitializedParameter) or not lazy
                yield f"{path}.{name}".lstrip("."), value if drawn else torch.zeros_like(value)


def number(value: Tensor) -> Any:
    """The shape of a tensor, and a number that depends on all of its numbers and their places."""
    if isinstance(value, UninitializedParameter):
        return None
    flat = value.detach().double().flatten()
    return [*value.shape, float((flat * torch.arange(1, len(flat) + 1).sin()).sum())]


def found(make: Callable[[], Any]) -> Any:
    """What is seen of an object, or of the error: when it is made, drawn anew and copied."""
    torch.manual_seed(0)
    try:
        made = make()
    except (TypeError, ValueError, AssertionError, RuntimeError, NotImplementedError) as error:
        return f"{type(error).__name__}: {error}"
    first = seen(made)
    if hasattr(made, "reset_parameters"):
        torch.manual_seed(1)
        made.reset_parameters()
        again = seen(made)["state"]
        first["again"] = again
    words = seen(made)
    assert seen(copy.deepcopy(made)) == words
    try:
        data = pickle.dumps(made)
    except (AttributeError, pickle.PicklingError):  # a function among the arguments
        return first
    assert seen(pickle.loads(data)) == words
    return first


def short(found: Any) -> list[Any]:
    """The same in a few numbers: of words and names, and of the draws."""
    if isinstance(found, str):
        return [found]
    states = [found["state"], found.get("again", {})]
    drawn = [sum(v[-1] for v in state.values() if v is not None) for state in states]
    names = [[(k, v and v[:-1]) for k, v in state.items()] for state in states]
    return [zlib.crc32(repr(part).encode()) for part in (found["repr"], found["attributes"], names)] + drawn


def words(kind: Any) -> dict[str, Any]:
    """Signatures, and what ``help`` says of a class and its methods."""
    homes = ("gdsl.nn", "gdsl.module.hooks")
    methods = {n for c in kind.__mro__ if c.__module__.startswith(homes) for n, v in vars(c).items() if callable(v)}
    shown = sorted(n for n in methods if n in ("forward", "reset_parameters") or not n.startswith("_"))
    docs = [inspect.getdoc(kind) or "", *(inspect.getdoc(getattr(kind, n)) or "" for n in shown)]
    return {
        "made": str(inspect.signature(kind)),
        "called": str(inspect.signature(kind.forward)) if hasattr(kind, "forward") else "",
        "parents": [c.__name__ for c in kind.__mro__ if c.__module__.startswith("gdsl.nn") and c is not kind
                    and c.__name__ in gdsl.nn._HOMES],
        "methods": " ".join(shown),
        "doc": zlib.crc32("\0".join(docs).encode()),
    }  # fmt: skip


CLASSES = [name for name in gdsl.nn._HOMES if inspect.isclass(getattr(gdsl.nn, name))]
MADE = dict(calls())


@functools.cache
def recorded() -> dict[str, Any]:
    """What the file says."""
    found: dict[str, Any] = json.loads(FILE.read_text())
    return found


@pytest.mark.parametrize("name", CLASSES)
def test_words(name: str) -> None:
    assert words(getattr(gdsl.nn, name)) == recorded()["classes"][name]


@pytest.mark.parametrize("name", MADE)
def test_made(name: str) -> None:
    seen, before = short(found(MADE[name])), recorded()["calls"][name]
    assert seen[:3] == before[:3]
    assert seen[3:] == pytest.approx(before[3:], rel=1e-5, abs=1e-5)


def test_every_class_is_made() -> None:
    text = " ".join(MADE)
    assert [name for name in CLASSES if name not in text and name not in ("KNNIndex",) and "KNN" not in name] == []


if __name__ == "__main__":
    classes = {name: words(getattr(gdsl.nn, name)) for name in CLASSES}
    text = json.dumps({"classes": classes, "calls": {name: short(found(make)) for name, make in MADE.items()}})
    FILE.write_text(text.replace('], "', '],\n"').replace('}, "', '},\n"') + "\n")
