"""Layers of gdsl.nn inside torch_geometric's tools that ask what a module is, against its own layers there."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import types
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gdsl
import gdsl.data
import gdsl.nn
from gdsl.module import host
from tests.parity import drop_in

pyg = pytest.importorskip("torch_geometric.nn")
utils = pytest.importorskip("torch_geometric.utils")

META = (["a", "b"], [("a", "r", "b"), ("b", "s", "a"), ("a", "t", "a")])
COUNTS = {"a": 5, "b": 3}
LIBRARIES = (pyg, gdsl.nn)


def features() -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(0)
    return {name: torch.randn(count, 4, generator=g, dtype=torch.float64) for name, count in COUNTS.items()}


def edges() -> dict[Any, Tensor]:
    g = torch.Generator().manual_seed(1)
    return {
        kind: torch.stack([torch.randint(COUNTS[end], (9,), generator=g) for end in kind[::2]]) for kind in META[1]
    }


class Plain(nn.Module):
    """Two layers between parts that a conversion takes for functions of nodes."""

    def __init__(self, lib: Any, layer: Callable[[Any, int, int], nn.Module]):
        super().__init__()
        self.lin = lib.Linear(4, 4)
        self.one, self.two = layer(lib, 4, 6), layer(lib, 6, 3)
        self.norm = lib.BatchNorm(6)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = self.lin(x).relu()
        return self.two(self.norm(self.one(x, edge_index)).relu(), edge_index)


class Whole(nn.Module):
    """A number for each graph."""

    def __init__(self, lib: Any):
        super().__init__()
        self.conv, self.pool, self.lin = lib.SAGEConv(4, 6), lib.MeanAggregation(), lib.Linear(6, 2)

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        return self.lin(self.pool(self.conv(x, edge_index).relu(), batch))


class Forms(nn.Module):
    """In place, in lists, with features of edges, joined."""

    def __init__(self, lib: Any):
        super().__init__()
        self.convs = nn.ModuleList([lib.SAGEConv((4, 4), 4) for _ in range(2)])
        self.lins = nn.ModuleDict({str(k): nn.Linear(4, 4) for k in range(2)})
        self.mlp = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
        self.edge, self.gine = lib.Linear(3, 4), lib.GINEConv(nn.Linear(4, 4))
        self.attention = lib.TransformerConv((4, 4), 4, edge_dim=3)
        self.norm, self.jump = lib.LayerNorm(4), lib.JumpingKnowledge("cat")

    def forward(self, x: Tensor, edge_index: Tensor, edge_attr: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        for k in range(2):
            x = self.convs[k](x, edge_index).relu_() + self.lins[str(k)](x)
        y = self.gine(self.mlp(x), edge_index, self.edge(edge_attr)).tanh_()
        z = self.attention(self.norm(y), edge_index, edge_attr)
        return self.jump([x, y, z]), {"edges": self.edge(edge_attr)}


class Own:
    """A layer of a user's own, on either base."""

    def __new__(cls, lib: Any, sources: int, size: int) -> Any:
        class Layer(lib.MessagePassing):
            def __init__(self) -> None:
                super().__init__(aggr="mean")
                self.lin = nn.Linear(sources, size)

            def reset_parameters(self) -> None:
                self.lin.reset_parameters()

            def forward(self, x: Any, edge_index: Tensor) -> Tensor:
                x = (x, x) if isinstance(x, Tensor) else x
                return self.lin(self.propagate(edge_index, x=x, size=(x[0].size(0), x[1].size(0))))

            def message(self, x_j: Tensor) -> Tensor:
                return x_j.tanh()

        return Layer()


LAYERS: dict[str, Callable[[Any, int, int], nn.Module]] = {
    "SAGE": lambda lib, a, b: lib.SAGEConv((a, a), b),
    "lazy SAGE": lambda lib, a, b: lib.SAGEConv((-1, -1), b),
    "GAT": lambda lib, a, b: lib.GATConv((a, a), b, add_self_loops=False),
    "GIN": lambda lib, a, b: lib.GINConv(nn.Linear(a, b)),
    "Graph": lambda lib, a, b: lib.GraphConv((a, a), b),
    "own": Own,
}
MODELS: dict[str, Callable[[Any], nn.Module]] = {
    "GraphSAGE": lambda lib: lib.GraphSAGE((-1, -1), 6, 2, 3, jk="cat", norm="batch"),
    "GAT": lambda lib: lib.GAT((4, 4), 6, 2, 3, add_self_loops=False),
    "GIN": lambda lib: lib.GIN(4, 6, 2, 3),
}


def _drawn(name: str, value: Tensor) -> Tensor:
    """Numbers for a parameter, which conversions may have left as they were in memory, or for a buffer."""
    if not value.is_floating_point():
        return value.clone()
    drawn = torch.randn(value.shape, dtype=value.dtype)
    return drawn.abs() if "running" in name else drawn


def both(make: Callable[[Any], nn.Module], call: Callable[[nn.Module], Any]) -> list[Any]:
    """Outputs and gradients of a model of either library with the same parameters."""
    results: list[Any] = []
    state = None
    for lib in LIBRARIES:
        torch.manual_seed(2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = make(lib).double()
        drop_in.set_backend(model, "torch")
        with torch.no_grad():
            call(model)  # sizes that come with a call
        if state is None:
            state = {name: _drawn(name, value) for name, value in model.state_dict().items()}
        model.load_state_dict(state)
        outputs = drop_in.flat(call(model))
        grads = torch.autograd.grad(sum(o.sin().sum() for o in outputs), list(model.parameters()), allow_unused=True)
        names = [name for name, _ in model.named_parameters()]
        results.append((outputs, dict(zip(names, grads, strict=True))))
    return results


def agree(results: list[Any]) -> None:
    (theirs, their_grads), (ours, our_grads) = results
    assert len(ours) == len(theirs) and our_grads.keys() == their_grads.keys()
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, atol=1e-10)
    for name, grad in their_grads.items():
        assert (grad is None) == (our_grads[name] is None), name
        assert grad is None or torch.allclose(our_grads[name], grad, rtol=1e-9, atol=1e-8), name


# ------------------------------------------------------------------------------------ what a layer is


def test_layers_and_aggregations_are_instances() -> None:
    conv, aggr = gdsl.nn.GCNConv(3, 2), gdsl.nn.MeanAggregation()
    assert isinstance(conv, pyg.MessagePassing) and issubclass(gdsl.nn.MessagePassing, pyg.MessagePassing)
    assert isinstance(aggr, pyg.Aggregation) and isinstance(conv.aggr_module, pyg.Aggregation)
    assert not isinstance(conv, pyg.GCNConv | pyg.Aggregation) and not isinstance(aggr, pyg.MessagePassing)
    assert not isinstance(pyg.GCNConv(3, 2), gdsl.nn.MessagePassing)
    assert not isinstance(gdsl.nn.HeteroConv({("a", "r", "a"): conv}), pyg.MessagePassing)


COUNTED = """
ASAPooling(4) | SAGPooling(4) | TopKPooling(4) | EdgePooling(4) | PANPooling(4) | ClusterPooling(4)
MemPooling(4, 3, 2, 2) | SchNet(8, 8, 2, 5) | DimeNet(8, 4, 2, 4, 3, 3) | DimeNetPlusPlus(8, 4, 2, 8, 4, 4, 3, 3)
GraphUNet(4, 8, 3, 2) | AttentiveFP(4, 8, 3, 2, 2, 2) | DeepGCNLayer(lib.GCNConv(4, 4)) | LINKX(5, 4, 4, 2, 1)
LightGCN(5, 3, 2) | LabelPropagation(2, 0.5) | CorrectAndSmooth(2, 0.5, 2, 0.5) | DirGNNConv(lib.GCNConv(4, 4))
AntiSymmetricConv(4) | GPSConv(4, lib.GCNConv(4, 4)) | HGTConv(4, 4, META) | HANConv(4, 4, META) | WLConv()
HeteroConv({META[1][0]: lib.SAGEConv((4, 4), 4)}) | GraphMultisetTransformer(4, 2) | RGCNConv(4, 4, 2)
GAT(4, 4, 2) | SGFormer(4, 4, 3) | GAE(lib.GCNConv(4, 4)) | FiLMConv(4, 4, 2) | SignedConv(4, 4, True)
"""


@pytest.mark.parametrize("text", [text for line in COUNTED.strip().splitlines() for text in line.split(" | ")])
def test_tools_count_as_many_layers(text: str) -> None:
    """Explainers take as many hops as there are."""
    counts = []
    for lib in LIBRARIES:
        name = text.split("(")[0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = eval(text, {"lib": lib, "META": META, name: getattr(lib, name)})
        counts.append(sum(isinstance(part, pyg.MessagePassing) for part in made.modules()))
    assert counts[0] == counts[1]


def test_nothing_but_the_class_is_theirs() -> None:
    conv = gdsl.nn.GCNConv(3, 2)
    names = {name for kind in (pyg.MessagePassing, pyg.Aggregation) for name in vars(kind)}
    inherited = {
        name
        for part in (conv, conv.aggr_module, gdsl.nn.GATConv(3, 2))
        for name in names
        if hasattr(part, name) and "torch_geometric" in str(getattr(getattr(type(part), name, None), "__module__", ""))
    }
    assert not inherited
    for name in ("propagate", "_collect", "_lift", "edge_updater", "special_args"):
        assert not hasattr(conv, name) and not hasattr(type(conv), name) and name not in dir(conv)
    conv._lift = 3  # an attribute of a user's own
    assert conv._lift == 3
    assert repr(conv) == "GCNConv(3, 2)" and repr(conv.aggr_module) == "SumAggregation()"


def test_copies_files_and_compilers_see_what_they_saw() -> None:
    conv = gdsl.nn.GCNConv(3, 2, backend="torch")
    x, graph = torch.randn(4, 3), torch.tensor([[0, 1, 2], [1, 2, 3]])
    expected = conv(x, graph)
    for other in (copy.deepcopy(conv), copy.copy(conv), pickle.loads(pickle.dumps(conv))):
        assert type(other) is gdsl.nn.GCNConv and torch.equal(other(x, graph), expected)
    assert torch.allclose(torch.compile(conv, backend="eager", fullgraph=True)(x, graph), expected)
    assert torch.allclose(torch.export.export(conv, (x, graph)).module()(x, graph), expected)
    aggr = gdsl.nn.MeanAggregation()
    calls: list[Any] = []
    aggr.register_forward_hook(lambda module, given, result: calls.append(result))
    assert torch.equal(aggr(x, torch.tensor([0, 0, 1, 1])), calls[0])


def test_torch_geometric_may_come_later() -> None:
    text = (
        "import pickle, sys; import gdsl.nn as G; conv = G.GCNConv(3, 2); file = pickle.dumps(conv); "
        "assert 'torch_geometric' not in sys.modules; "
        "from torch_geometric.nn.conv.message_passing import MessagePassing; import torch_geometric.nn as P; "
        "assert P.MessagePassing is MessagePassing; again = pickle.loads(file); "
        "assert isinstance(conv, P.MessagePassing) and isinstance(again, P.MessagePassing); "
        "assert isinstance(G.MeanAggregation(), P.Aggregation); assert type(again) is G.GCNConv; print('right')"
    )
    found = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=300, check=False)
    assert found.stdout.strip() == "right", found.stderr


def test_the_import_may_fail_at_first_or_have_happened(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "peer_of_gdsl.py"
    path.write_text("import torch\nif torch.peer_fails:\n    raise RuntimeError\nclass Base(torch.nn.Module): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(torch, "peer_fails", True, raising=False)

    @host.stands_for("peer_of_gdsl", "Base")
    class Stands(nn.Module):
        pass

    class Layer(Stands):
        pass

    with pytest.raises(RuntimeError):
        import peer_of_gdsl
    monkeypatch.setattr(torch, "peer_fails", False)
    import peer_of_gdsl

    assert isinstance(Layer(), peer_of_gdsl.Base)

    @host.stands_for("peer_of_gdsl", "Base")
    class Later(nn.Module):
        pass

    assert isinstance(Later(), peer_of_gdsl.Base)
    sys.modules.pop("peer_of_gdsl")


# ------------------------------------------------------------------------------------ what is made of a model


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("aggr", ["sum", "max"])
def test_to_hetero(layer: str, aggr: str) -> None:
    def make(lib: Any) -> nn.Module:
        model = Plain(lib, LAYERS[layer])
        drop_in.set_backend(model, "torch")
        return pyg.to_hetero(model, META, aggr=aggr)

    agree(both(make, lambda model: model(features(), edges())))


@pytest.mark.parametrize("aggr", ["sum", "mean", "mul"])
def test_to_hetero_of_many_forms(aggr: str) -> None:
    g = torch.Generator().manual_seed(2)
    attr = {kind: torch.randn(9, 3, generator=g, dtype=torch.float64) for kind in META[1]}
    agree(both(lambda lib: pyg.to_hetero(Forms(lib), META, aggr), lambda model: model(features(), edges(), attr)))


@pytest.mark.parametrize("model", MODELS)
def test_to_hetero_of_a_model_of_the_library(model: str) -> None:
    agree(both(lambda lib: pyg.to_hetero(MODELS[model](lib), META), lambda made: made(features(), edges())))


def test_to_hetero_of_a_model_that_pools() -> None:
    batches = {name: torch.arange(count) // 3 for name, count in COUNTS.items()}
    agree(both(lambda lib: pyg.to_hetero(Whole(lib), META), lambda model: model(features(), edges(), batches)))


@pytest.mark.parametrize("layer", ["SAGE", "GIN", "own"])
@pytest.mark.parametrize("bases", [1, 3])
def test_to_hetero_with_bases(layer: str, bases: int) -> None:
    def make(lib: Any) -> nn.Module:
        return pyg.to_hetero_with_bases(Plain(lib, LAYERS[layer]), META, num_bases=bases, in_channels={"x": 4})

    agree(both(make, lambda model: model(features(), edges())))


def test_a_conversion_refuses_what_it_refuses() -> None:
    def make(lib: Any) -> nn.Module:
        return Plain(lib, lambda lib, a, b: lib.GCNConv(a, b))

    for lib in LIBRARIES:
        with pytest.raises(ValueError, match="'add_self_loops' attribute set to 'True'"):
            pyg.to_hetero(make(lib), META)


def test_sequential() -> None:
    def make(lib: Any) -> nn.Module:
        return pyg.Sequential(
            "x, edge_index",
            [(lib.GCNConv(4, 6), "x, edge_index -> x"), nn.ReLU(), (lib.GATConv(6, 3), "x, edge_index -> x")],
        )

    agree(both(make, lambda model: model(features()["a"], edges()[META[1][2]])))


def test_hops_and_embeddings() -> None:
    from torch_geometric.utils import _subgraph

    x, graph = features()["a"], edges()[META[1][2]]
    found = []
    for lib in LIBRARIES:
        torch.manual_seed(3)
        for model in (Plain(lib, LAYERS["SAGE"]), lib.GCN(4, 6, 3, 2)):
            model = model.double()
            assert _subgraph.get_num_hops(model) == (2 if isinstance(model, Plain) else 3)
            found += utils.get_embeddings(model, x, graph)
    half = len(found) // 2
    assert half == 5
    for theirs, ours in zip(found[:half], found[half:], strict=True):
        assert torch.allclose(ours, theirs, atol=1e-10)


@pytest.mark.parametrize("backend", ["torch", "cpp"])
@pytest.mark.parametrize("model", ["GCN", "GAT", "GraphSAGE"])
def test_influence_of_nodes_on_others(model: str, backend: str) -> None:
    """A vectorised Jacobian with respect to the features."""
    data = pytest.importorskip("torch_geometric.data")
    g = torch.Generator().manual_seed(5)
    x, graph = torch.randn(7, 4, generator=g), torch.randint(7, (2, 16), generator=g)
    theirs, ours = (getattr(lib, model)(4, 6, 2, 3).eval() for lib in LIBRARIES)  # the function takes single precision
    ours.load_state_dict(theirs.state_dict())
    drop_in.set_backend(ours, backend)
    found = []
    for made in (theirs, ours):
        torch.manual_seed(6)  # of the nodes that are drawn
        found.append(utils.total_influence(made, data.Data(x=x, edge_index=graph), max_hops=2, num_samples=4))
    (rows, breadth), (our_rows, our_breadth) = found
    assert rows[1:].abs().min() > 0
    assert torch.allclose(our_rows, rows, atol=1e-5) and abs(our_breadth - breadth) < 1e-5


@pytest.mark.parametrize("leaf", ["MessagePassing", None])
def test_summary(leaf: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    table = types.ModuleType("tabulate")
    table.tabulate = lambda content, **kwargs: repr(content)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tabulate", table)
    x, graph = torch.randn(5, 4), edges()[META[1][2]]
    told = []
    for lib in LIBRARIES:
        model = nn.ModuleDict({"a": lib.GCN(4, 6, 2, 3, norm="batch")})["a"]
        drop_in.set_backend(model, "torch")
        told.append(pyg.summary(model, x, graph, leaf_module=leaf))
        told[-1] += pyg.summary(lib.SAGEConv(4, 3), x, graph, leaf_module=leaf)
    assert told[0] == told[1]


def test_sampled_neighbours_are_trimmed() -> None:
    graph = torch.tensor([[1, 2, 3, 4, 4], [0, 0, 1, 2, 1]])  # one node, two neighbours, two of theirs
    x, weight = torch.randn(5, 4, dtype=torch.float64), torch.rand(5, dtype=torch.float64)
    theirs, ours = (lib.GCN(4, 6, 2, 3).double() for lib in LIBRARIES)
    ours.load_state_dict(theirs.state_dict())
    hops: dict[str, Any] = {"num_sampled_nodes_per_hop": [1, 2, 2], "num_sampled_edges_per_hop": [2, 3]}
    expected = theirs(x, graph, weight, **hops)
    assert torch.allclose(ours(x, graph, weight, **hops), expected, atol=1e-10)
    prepared = gdsl.Graph(graph, 5)
    assert torch.allclose(ours(x, prepared, weight, **hops), expected, atol=1e-10)
    trimmed = utils.trim_to_layer(1, *hops.values(), x, graph, weight)
    conv = ours.convs[1], theirs.convs[1]
    conv[0].load_state_dict(conv[1].state_dict())
    x, graph, weight = trimmed
    assert torch.allclose(conv[0](x.repeat(1, 2)[:, :6], graph, weight), conv[1](x.repeat(1, 2)[:, :6], graph, weight))


@pytest.mark.parametrize("model", ["GCN", "GraphSAGE", "GAT"])
def test_batches_of_the_loader_are_trimmed(model: str) -> None:
    data = pytest.importorskip("torch_geometric.data")
    g = torch.Generator().manual_seed(6)
    given = data.Data(
        x=torch.randn(60, 4, generator=g, dtype=torch.float64), edge_index=torch.randint(60, (2, 400), generator=g)
    )
    theirs, ours = (getattr(lib, model)(4, 6, 2, 3).double().eval() for lib in LIBRARIES)
    ours.load_state_dict(theirs.state_dict())
    drop_in.set_backend(ours, "torch")
    batch = next(iter(gdsl.data.NeighborLoader(given, [3, 2], batch_size=8, num_workers=0)))
    hops = list(batch.num_sampled_nodes), list(batch.num_sampled_edges)
    names = ("num_sampled_nodes_per_hop", "num_sampled_edges_per_hop")
    expected = theirs(batch.x, batch.edge_index, **dict(zip(names, hops, strict=True)))
    for graph in (batch.edge_index, batch.graph):
        found = ours(batch.x, graph, **dict(zip(names, hops, strict=True)))
        assert torch.allclose(found[: batch.batch_size], expected[: batch.batch_size], atol=1e-10)


# ------------------------------------------------------------------------------------ what a layer keeps


@pytest.mark.parametrize("layer", ["GCNConv", "SGConv", "SSGConv", "APPNP", "GCN2Conv", "FAConv", "EGConv", "DNAConv"])
def test_a_graph_that_is_kept_can_be_forgotten(layer: str) -> None:
    args: dict[str, tuple[Any, ...]] = {
        "APPNP": (2, 0.1), "GCN2Conv": (4, 0.1), "FAConv": (4,), "DNAConv": (4,), "SSGConv": (4, 4, 0.1),
        "EGConv": (4, 8),
    }  # fmt: skip
    x = torch.randn(3, 4, dtype=torch.float64)
    first, second = torch.tensor([[0, 1], [1, 2]]), torch.tensor([[2], [0]])
    found = []
    for lib in LIBRARIES:
        torch.manual_seed(4)
        conv = getattr(lib, layer)(*args.get(layer, (4, 4)), cached=True).double().eval()
        drop_in.set_backend(conv, "torch")
        features = (x.unsqueeze(1),) if layer == "DNAConv" else (x, x) if layer in ("GCN2Conv", "FAConv") else (x,)
        name = {"SGConv": "_cached_x", "SSGConv": "_cached_h"}.get(layer, "_cached_edge_index")
        assert getattr(conv, name) is None
        before = conv(*features, first)
        assert getattr(conv, name) is not None and torch.equal(conv(*features, second), before)
        setattr(conv, name, None)
        found.append((before, conv(*features, second)))
    for ours, theirs in zip(*found, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-10)


def test_only_none_can_be_assigned_to_what_is_kept() -> None:
    conv = gdsl.nn.GCNConv(4, 2, cached=True)
    with pytest.raises(gdsl.InputError, match="None forgets the graph"):
        conv._cached_edge_index = (torch.tensor([[0], [1]]), torch.ones(1))
    conv._cached_adj_t = None


def test_the_object_that_reads_methods() -> None:
    found = []
    for base in (pyg.MessagePassing, gdsl.nn.MessagePassing):

        class Layer(base):  # type: ignore[misc,valid-type]
            def message(self, x_i: torch.Tensor, x_j: torch.Tensor, edge_attr: torch.Tensor) -> torch.Tensor:
                return x_i + x_j * edge_attr

            def update(self, inputs: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
                return inputs + x

        inspector = Layer().inspector
        found.append([
            {name: inspector.get_param_names(name) for name in ("message", "aggregate", "update", "edge_update")},
            inspector.get_flat_param_names(["message", "aggregate", "update"], exclude={"index", "ptr", "dim_size"}),
            inspector.collect_param_data("message", {"x_i": 1, "x_j": 2, "edge_attr": 3, "index": 4}),
            [inspector.implements(name) for name in ("message", "update")],
        ])  # fmt: skip
    assert found[0] == found[1]
    assert not hasattr(gdsl.nn.GCNConv(2, 2), "inspector")
