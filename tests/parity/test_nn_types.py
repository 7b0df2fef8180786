"""Layers for several types of nodes and edges as drop-ins."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gdsl.nn
from tests.parity import drop_in
from tests.parity.drop_in import Case, make_tests, pyg
from tests.programs import harness

drop_in.KINDS["x4"] = drop_in.floats(drop_in.NODES, 4)
drop_in.KINDS["x4 pair"] = lambda g, e: (
    drop_in.floats(drop_in.NODES, 4)(g, e),
    drop_in.floats(drop_in.TARGETS, 4)(g, e),
)

BACK = ["target_to_source"]
CHANGES = ["additive", "scaled", "f-additive", "f-scaled"]
MULTIPLIED = {"attention_mode": "multiplicative-self-attention"}
RGAT = {
    "num_bases": [2], "num_blocks": [2], "mod": CHANGES, "heads": [2], "concat": [False], "negative_slope": [0.1],
    "bias": [False], "attention_mechanism": ["within-relation", "other"],
}  # fmt: skip
RICH = {"heads": 2, "mod": "scaled", "num_blocks": 2, "concat": False}

CASES = [
    Case(
        "RGATConv", (4, 4, 3), x="x4", call={"edge_type": "rel"},
        options={
            **RGAT, "dim": [2], "attention_mode": ["other"], "dropout": [0.3], "aggr": ["mean", "max"], "flow": BACK,
        },
        compiled=RICH,
    ),
    Case(
        "RGATConv", (4, 4, 3), MULTIPLIED, x="x4", call={"edge_type": "rel"}, options={**RGAT, "dim": [2]},
        compiled={"dim": 2, "num_bases": 2, "attention_mechanism": "within-relation", "heads": 2}, note="multiplied",
    ),
    Case(
        "RGATConv", (4, 4, 3), {"edge_dim": 3, "heads": 2}, x="x4", call={"edge_type": "rel", "edge_attr": "e"},
        options={"attention_mode": ["multiplicative-self-attention"], "concat": [False]},
    ),
    Case("RGATConv", (4, 4, 3), {"edge_dim": 1}, x="x4", call={"edge_type": "rel", "edge_attr": "w"}),
    Case(
        "RGATConv", (4, 4, 3), {"heads": 2}, x="x4", call={"edge_type": "rel", "return_attention_weights": "true"},
        options={"flow": BACK, "mod": ["f-scaled"]},
    ),
    Case("RGATConv", (4, 4, 3), x="x4 pair", call={"edge_type": "rel"}, options={"num_blocks": [2]}),
    Case(
        "HEATConv", (5, 4, 2, 3, 2, 3, 2), call={"node_type": "kind", "edge_type": "rel", "edge_attr": "e"},
        options={
            "heads": [2], "concat": [False], "negative_slope": [0.1], "root_weight": [False], "bias": [False],
            "flow": BACK, "aggr": ["max"],
        },
        compiled={"heads": 2, "concat": False},
    ),
]  # fmt: skip

globals().update(make_tests(CASES))


@pytest.fixture(autouse=True)
def filled(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch_geometric leaves this parameter of RGATConv as memory was, and it may be anything."""
    original = pyg.RGATConv.reset_parameters

    def reset_parameters(self: Any) -> None:
        original(self)
        self.l2.data.fill_(1 / self.out_channels)

    monkeypatch.setattr(pyg.RGATConv, "reset_parameters", reset_parameters)


# ------------------------------------------------------------------------- layers on dicts of tensors

COUNTS = {"paper": 7, "author": 5, "term": 4}
SIZES = {"paper": 4, "author": 3, "term": 4}
EDGES = [
    ("author", "writes", "paper"),
    ("paper", "cites", "paper"),
    ("paper", "rev", "author"),
    ("term", "in", "paper"),
]
METADATA = (list(COUNTS), EDGES)
ONE = (["paper"], [("paper", "cites", "paper")])
DOTTED = (["paper"], [("paper", "is.cited", "paper")])
Dicts = tuple[dict[str, Tensor], dict[tuple[str, str, str], Tensor]]


def dicts(metadata: Any, sizes: Any, seed: int = 1) -> Dicts:
    """Features that want gradients, and edges; the last node of each type has none."""
    g = torch.Generator().manual_seed(seed)
    nodes, edges = metadata
    size = sizes if isinstance(sizes, dict) else dict.fromkeys(nodes, sizes)
    x = {
        kind: torch.randn(COUNTS[kind], size[kind], generator=g, dtype=torch.float64).requires_grad_() for kind in nodes
    }
    found = {}
    for kind in edges:
        ends = [torch.randint(COUNTS[end] - 1, (9,), generator=g) for end in (kind[0], kind[-1])]
        found[kind] = torch.stack(ends)
    return x, found


@dataclass(frozen=True)
class Typed:
    """A layer on dicts: its arguments, and those of its call."""

    layer: str
    sizes: Any
    args: tuple[Any, ...]
    metadata: Any
    kwargs: dict[str, Any] = field(default_factory=dict)
    call: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return f"{self.layer} {self.sizes} {self.kwargs} {self.call}"


TYPED = [
    Typed("HGTConv", SIZES, (4,), METADATA),
    Typed("HGTConv", SIZES, (4,), METADATA, {"heads": 2}),
    Typed("HGTConv", 4, (4,), METADATA, {"heads": 2}),
    Typed("HGTConv", 3, (4,), METADATA),
    Typed("HGTConv", 4, (4,), DOTTED, {"heads": 4}),
    Typed("HANConv", SIZES, (4,), METADATA),
    Typed("HANConv", SIZES, (4,), METADATA, {"heads": 2, "negative_slope": 0.1}),
    Typed("HANConv", 4, (4,), ONE, {"heads": 2}, {"return_semantic_attention_weights": True}),
    Typed("HANConv", SIZES, (4,), METADATA, {}, {"return_semantic_attention_weights": True}),
]
typed = pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in TYPED])


def made(case: Typed, namespace: Any) -> nn.Module:
    torch.manual_seed(3)
    layer: nn.Module = getattr(namespace, case.layer)(case.sizes, *case.args, case.metadata, **case.kwargs)
    return layer.double().eval()


def outcome(layer: nn.Module, x: dict[str, Tensor], edges: Any, call: dict[str, Any]) -> dict[str, Tensor]:
    """Outputs by name, and gradients by inputs and parameters."""
    result = layer(x, edges, **call)
    parts = result if isinstance(result, tuple) else (result,)
    found = {f"{k} {name}": value for k, part in enumerate(parts) for name, value in part.items()}
    given = {name: value for name, value in found.items() if value is not None}
    wanted = {**{f"d/d{k}": v for k, v in x.items()}, **{f"d/d{k}": v for k, v in layer.named_parameters()}}
    score = sum((harness._weights(v, 0.7) * v).sum() for v in given.values())
    grads = torch.autograd.grad(score, list(wanted.values()), allow_unused=True)
    for (name, value), grad in zip(wanted.items(), grads, strict=True):
        given[name] = torch.zeros_like(value) if grad is None else grad
    return given


def compare(case: Typed, backend: str) -> None:
    ours, theirs = made(case, gdsl.nn), made(case, pyg)
    mine, other = ours.state_dict(), theirs.state_dict()
    assert list(mine) == list(other)
    for name, value in other.items():
        assert torch.equal(mine[name], value), name
    with torch.no_grad():
        for k, p in enumerate(theirs.parameters()):
            p.add_(torch.rand(p.shape, generator=torch.Generator().manual_seed(k), dtype=p.dtype) / 4)
    ours.load_state_dict(theirs.state_dict())
    assert repr(ours) == repr(theirs)
    drop_in.set_backend(ours, backend)
    x, edges = dicts(case.metadata, case.sizes)
    found, expected = outcome(ours, x, edges, case.call), outcome(theirs, x, edges, case.call)
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name].shape == value.shape, name
        assert harness.difference([found[name]], [value]) < 1e-9, name


@typed
def test_dicts(case: Typed) -> None:
    compare(case, "torch")


@typed
def test_dicts_generated_code(case: Typed) -> None:
    compare(case, "cpp")


@pytest.mark.slow
@typed
def test_dicts_interpreted_gpu_kernels(case: Typed) -> None:
    compare(case, "triton")


@typed
def test_dicts_bfloat16(case: Typed) -> None:
    layer = made(case, gdsl.nn)
    drop_in.set_backend(layer, "torch")
    x, edges = dicts(case.metadata, case.sizes)
    with torch.no_grad():
        expected = layer(x, edges)
        found = layer.bfloat16()({kind: value.bfloat16() for kind, value in x.items()}, edges)
    for kind, value in expected.items():
        assert value is None or (
            found[kind].dtype == torch.bfloat16 and harness.difference([found[kind].double()], [value]) < 0.1
        )


def test_dicts_lazy_sizes() -> None:
    x, edges = dicts(METADATA, SIZES)
    x = {kind: value.float() for kind, value in x.items()}
    for layer in (gdsl.nn.HGTConv(-1, 4, METADATA), gdsl.nn.HANConv(-1, 4, METADATA)):
        y = layer(x, edges)
        assert y["paper"].shape == (7, 4)
        assert all(p.shape.numel() for p in layer.parameters())


def test_a_part_of_the_types_and_another_order() -> None:
    x, edges = dicts(METADATA, SIZES)
    fewer = {kind: edges[kind] for kind in (EDGES[2], EDGES[0])}
    for name in ("HGTConv", "HANConv"):
        theirs = getattr(pyg, name)(SIZES, 4, METADATA).double()
        ours = getattr(gdsl.nn, name)(SIZES, 4, METADATA).double()
        ours.load_state_dict(theirs.state_dict())
        some = {kind: x[kind] for kind in ("author", "paper")}
        # torch_geometric's HGTConv takes types of edges for sorted.
        expected = theirs(some, {kind: edges[kind] for kind in (EDGES[0], EDGES[2])})
        found = ours(some, fewer)
        assert found.keys() == expected.keys()
        assert all(harness.difference([found[k]], [expected[k]]) < 1e-9 for k in expected)


def test_edges_of_hgt_are_joined_once() -> None:
    x, edges = dicts(METADATA, SIZES)
    layer = gdsl.nn.HGTConv(SIZES, 4, METADATA).double()
    layer(x, edges)
    kept = layer._joined
    layer(x, edges)
    assert layer._joined is kept
    others = {kind: value.clone() for kind, value in edges.items()}
    others[EDGES[0]][0, 0] = (others[EDGES[0]][0, 0] + 1) % 4
    y = layer(x, others)
    assert layer._joined is not kept
    assert not torch.equal(y["paper"], layer(x, edges)["paper"])


def test_copies_of_layers_on_dicts() -> None:
    x, edges = dicts(METADATA, SIZES)
    for layer in (gdsl.nn.HGTConv(SIZES, 4, METADATA).double(), gdsl.nn.HANConv(SIZES, 4, METADATA).double()):
        y = layer(x, edges)["paper"]
        assert torch.equal(copy.deepcopy(layer)(x, edges)["paper"], y)
        assert torch.equal(pickle.loads(pickle.dumps(layer))(x, edges)["paper"], y)


def test_types_without_nodes_or_edges() -> None:
    x, edges = dicts(METADATA, SIZES)
    x["author"] = x["author"][:0]
    edges[EDGES[0]] = edges[EDGES[2]] = edges[EDGES[0]][:, :0]
    for name in ("HGTConv", "HANConv"):
        theirs = getattr(pyg, name)(SIZES, 4, METADATA).double()
        ours = getattr(gdsl.nn, name)(SIZES, 4, METADATA).double()
        ours.load_state_dict(theirs.state_dict())
        found, expected = ours(x, edges), theirs(x, edges)
        assert {k: v if v is None else v.shape for k, v in found.items()} == {
            k: v if v is None else v.shape for k, v in expected.items()
        }
        assert harness.difference([found["paper"]], [expected["paper"]]) < 1e-9


# --------------------------------------------------------------------------------------- HeteroConv

AGGREGATIONS = ["sum", "mean", "min", "max", "mul", "cat", None]


def wrapped(namespace: Any, aggr: str | None) -> nn.Module:
    torch.manual_seed(1)
    convs = {
        EDGES[0]: namespace.SAGEConv((3, 4), 4),
        EDGES[1]: namespace.GCNConv(4, 4),
        EDGES[2]: namespace.GATConv((4, 3), 4, add_self_loops=False),
        EDGES[3]: namespace.SAGEConv((4, 4), 4),
    }
    with pytest.warns(UserWarning, match="do not get updated"):
        layer: nn.Module = namespace.HeteroConv(convs, aggr)
    return layer.double()


@pytest.mark.parametrize("aggr", AGGREGATIONS)
def test_hetero(aggr: str | None) -> None:
    ours, theirs = wrapped(gdsl.nn, aggr), wrapped(pyg, aggr)
    assert repr(ours) == repr(theirs)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}
    ours.load_state_dict(theirs.state_dict())
    drop_in.set_backend(ours, "torch")
    x, edges = dicts(METADATA, SIZES)
    weights = {EDGES[1]: torch.rand(9, dtype=torch.float64)}
    if aggr == "mul":  # torch.mul takes no stack of results
        theirs.aggr = "prod"
    expected = outcome(theirs, x, edges, {"edge_weight_dict": weights})
    found = outcome(ours, x, edges, {"edge_weight_dict": weights})
    assert list(found) == list(expected)
    assert all(harness.difference([found[name]], [value]) < 1e-9 for name, value in expected.items())


def test_hetero_parts() -> None:
    ours, theirs = wrapped(gdsl.nn, "sum"), wrapped(pyg, "sum")
    assert ours.convs.keys() == theirs.convs.keys()
    assert isinstance(ours.convs[EDGES[0]], gdsl.nn.SAGEConv)
    assert EDGES[0] in ours.convs and ("a", "b", "c") not in ours.convs
    x, edges = dicts(METADATA, SIZES)
    few = {EDGES[2]: edges[EDGES[2]]}
    assert list(ours(x, few)) == list(theirs(x, few)) == ["author"]
    before = ours(x, few)["author"]
    ours.reset_parameters()
    assert not torch.equal(ours(x, few)["author"], before)
    del ours.convs[EDGES[2]]
    assert ours(x, few) == {}
    ours.convs[EDGES[2]] = nn.Identity()
    assert list(ours.convs)[-1] == "<paper___rev___author>"


def test_hetero_refuses() -> None:
    x, edges = dicts(METADATA, SIZES)
    for namespace in (gdsl.nn, pyg):
        with pytest.raises(ValueError, match="need to end with '_dict'"):
            wrapped(namespace, "sum")(x, edges, edge_weight=edges)
        with pytest.raises(ValueError, match="add_self_loops"):
            namespace.HeteroConv({EDGES[0]: namespace.GATConv((3, 4), 4)})
    with pytest.raises(ValueError, match="'median of means' is none"):
        gdsl.nn.HeteroConv({}, "median of means")


# ------------------------------------------------------------------------------------------- others


@pytest.mark.parametrize(
    ("name", "args", "kwargs"),
    [
        ("RGATConv", (4, 4, 3), {"edge_dim": 3}),
        ("RGATConv", (4, 4, 3), {"num_bases": 2}),
        ("HEATConv", (5, 4, 2, 3, 2, 3, 2), {}),
    ],
)
def test_a_seed_gives_the_same_parameters(name: str, args: tuple[int, ...], kwargs: dict[str, Any]) -> None:
    states = []
    for namespace in (gdsl.nn, pyg):
        torch.manual_seed(5)
        layer = getattr(namespace, name)(*args, **kwargs)
        layer.reset_parameters()
        states.append(layer.state_dict())
    ours, theirs = states
    assert list(ours) == list(theirs)
    for key, value in theirs.items():
        assert torch.equal(ours[key], value), key


def one_graph() -> tuple[Tensor, Tensor, Tensor]:
    graph = drop_in.graph_of("any", 1, False)
    assert graph is not None
    g = torch.Generator().manual_seed(1)
    return torch.randn(9, 4, generator=g), graph, torch.randint(3, (graph.shape[1],), generator=g)


def test_lazy_sizes_of_heat() -> None:
    x, graph, rel = one_graph()
    layer = gdsl.nn.HEATConv(-1, 4, 2, 3, 2, -1, 2)
    y = layer(x, graph, torch.zeros(9, dtype=torch.long), rel, torch.randn(graph.shape[1], 3))
    assert y.shape == (9, 4) and layer.hetero_lin.weight.shape == (2, 4, 4)


def test_weights_are_dropped_in_training() -> None:
    x, graph, rel = one_graph()
    kinds, attr = torch.zeros(9, dtype=torch.long), torch.randn(graph.shape[1], 3)
    features, edges = dicts(ONE, 4)
    features = {kind: value.detach().float() for kind, value in features.items()}
    calls: list[tuple[nn.Module, Callable[[nn.Module], Tensor]]] = [
        (gdsl.nn.RGATConv(4, 4, 3, dropout=0.5), lambda layer: layer(x, graph, rel)),
        (gdsl.nn.HEATConv(4, 4, 2, 3, 2, 3, 2, dropout=0.5), lambda layer: layer(x, graph, kinds, rel, attr)),
        (gdsl.nn.HANConv(4, 4, ONE, dropout=0.5), lambda layer: layer(features, edges)["paper"]),
    ]
    for layer, call in calls:
        assert not torch.equal(call(layer), call(layer))
        layer.eval()
        assert torch.equal(call(layer), call(layer))


def test_bad_calls() -> None:
    x, graph, rel = one_graph()
    attr = torch.rand(graph.shape[1], 3)
    for namespace in (gdsl.nn, pyg):
        with pytest.raises(AssertionError):
            namespace.RGATConv(4, 4, 3)(x, graph, rel, attr)
        with pytest.raises(ValueError, match="non-continuous"):
            namespace.RGATConv(4, 4, 3, num_blocks=2)(x.long(), graph, rel)
        with pytest.raises(ValueError, match="same time"):
            namespace.RGATConv(4, 4, 3, num_blocks=2, num_bases=2)
        with pytest.raises(ValueError, match="dropout"):
            namespace.RGATConv(4, 4, 3, dropout=0.5, mod="scaled")
        with pytest.raises(AssertionError):
            namespace.RGATConv(4, 4, 3, num_blocks=3)
        with pytest.raises(ValueError, match="divisible by the number of heads"):
            namespace.HGTConv(4, 4, METADATA, heads=3)
        features, edges = dicts(METADATA, 4)
        unknown = {("paper", "likes", "paper"): edges[EDGES[1]]}
        for name, error in (("HGTConv", KeyError), ("HANConv", AttributeError)):
            with pytest.raises(error):
                getattr(namespace, name)(4, 4, METADATA).double()(features, unknown)
    with pytest.raises(ValueError, match="edge_type must be from 0 to 2"):
        gdsl.nn.RGATConv(4, 4, 3)(x, graph, rel + 1)
    with pytest.raises(ValueError, match="bipartite"):
        gdsl.nn.HEATConv(4, 4, 2, 3, 2, 3, 2)((x, x), graph, rel, rel, attr)


@pytest.mark.parametrize("name", ["HGTConv", "HANConv"])
@pytest.mark.parametrize("grads", [True, False])
def test_results_can_be_written_to(name: str, grads: bool) -> None:
    """As torch_geometric's: the result of one type changes no other, and has its gradients."""
    metadata = (["a", "b"], [("a", "t", "b"), ("b", "t", "a")])
    x = {"a": torch.randn(4, 8), "b": torch.randn(3, 8)}
    edges = {("a", "t", "b"): torch.tensor([[0, 1], [0, 2]]), ("b", "t", "a"): torch.tensor([[0, 1], [0, 2]])}
    mine = getattr(gdsl.nn, name)(8, 8, metadata, heads=2)
    theirs = getattr(pyg, name)(8, 8, metadata, heads=2)
    mine.load_state_dict(theirs.state_dict())
    found = []
    for layer in (mine, theirs):
        with torch.set_grad_enabled(grads):
            results = layer(x, edges)
            results["a"].mul_(2)
        if grads:
            sum(y.sin().sum() for y in results.values()).backward()
        found.append([*results.values(), *(p.grad for p in layer.parameters() if p.grad is not None)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
