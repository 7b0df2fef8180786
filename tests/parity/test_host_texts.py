"""Layers that are texts inside torch_geometric's tools: masks, hooks, hops and explainers, as on its own layers."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gdsl
import gdsl.nn
from tests.parity.drop_in import pyg

explain = pytest.importorskip("torch_geometric.explain")
utils = pytest.importorskip("torch_geometric.explain.algorithm.utils")
metrics = pytest.importorskip("torch_geometric.explain.metric")
from torch_geometric.utils import get_embeddings, get_num_hops  # noqa: E402

NODES = 7
RING = torch.stack([torch.arange(NODES), (torch.arange(NODES) + 1) % NODES])
# With a loop, which some layers take away, and an edge that is there twice.
GRAPH = torch.cat([RING, torch.tensor([[0, 3, 3, 5, 5], [4, 3, 1, 2, 2]])], dim=1)
X = torch.randn(NODES, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
MASK = torch.randn(GRAPH.shape[1], dtype=torch.float64, generator=torch.Generator().manual_seed(2))

CALL = """
use {layer}
layer Calls(out) {{
    node x[features]
    use conv = {layer}({arguments})
    update y = conv(x)
}}
"""

NETWORK = """
use GATConv, GCNConv
layer Network(hidden, out) {
    node x[features]
    use two = GATConv(out, heads = 2)
    h = relu(GCNConv(x; hidden))
    update y = two(h)
}
"""

HOPS = """
layer Hops(d, K = 3) {
    node x[d]
    h = x
    for k in 1..K { h = mean(h[j]) + h }
    update y = h
}
"""


def text(source: str, *args: Any, **kwargs: Any) -> gdsl.Layer:
    return gdsl.compile(source, *args, backend="torch", **kwargs).double()


def network() -> gdsl.Layer:
    torch.manual_seed(3)
    return text(NETWORK, hidden=8, out=3, features=4)


class Twin(nn.Module):
    """What the network is, of torch_geometric's layers, on the parameters of the network."""

    def __init__(self, of: gdsl.Layer):
        super().__init__()
        self.one, self.two = pyg.GCNConv(4, 8), pyg.GATConv(8, 3, heads=2)
        self.double().load_state_dict({name.replace("GCNConv", "one"): v for name, v in of.state_dict().items()})

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.two(self.one(x, edge_index).relu(), edge_index)


def masked(layer: nn.Module, *args: Any, mask: Tensor = MASK, sigmoid: bool = True) -> list[Tensor]:
    """The result of a call with a mask, and the derivatives by the mask and by the first argument."""
    given, x = mask.clone().requires_grad_(), args[0].clone().requires_grad_()
    utils.set_masks(layer, given, GRAPH, apply_sigmoid=sigmoid)
    try:
        y = layer(x, *args[1:])
        return [y, *torch.autograd.grad((y * torch.arange(y.numel()).view_as(y).sin()).sum(), [given, x])]
    finally:
        utils.clear_masks(layer)


def same(found: list[Tensor], expected: list[Tensor]) -> None:
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b, atol=1e-10)


CALLS: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {
    "GCNConv": ("3", (4, 3), {}),
    "GATConv": ("3, heads = 2", (4, 3), {"heads": 2}),
    "GATv2Conv": ("3", (4, 3), {}),
    "SAGEConv": ("3", (4, 3), {}),
    "TransformerConv": ("3", (4, 3), {}),
    "TAGConv": ("3, K = 2", (4, 3), {"K": 2}),
    "APPNP": ("K = 2, alpha = 0.1", (), {"K": 2, "alpha": 0.1}),
}


@pytest.mark.parametrize("layer", CALLS)
def test_a_mask_on_a_call_of_each_layer(layer: str) -> None:
    written, args, kwargs = CALLS[layer]
    theirs = getattr(pyg, layer)(*args, **kwargs).double()
    ours = text(CALL.format(layer=layer, arguments=written), out=3, features=4)
    ours.load_state_dict({f"conv.{name}": value for name, value in theirs.state_dict().items()})
    before = ours(X, GRAPH)
    assert torch.allclose(before, theirs(X, GRAPH), atol=1e-10)
    same(masked(ours, X, GRAPH), masked(theirs, X, GRAPH))
    assert torch.equal(ours(X, GRAPH), before)


def test_a_network_of_two_rounds() -> None:
    ours = network()
    theirs = Twin(ours)
    names = [name for name, _ in ours.named_parameters()]
    assert isinstance(ours, pyg.MessagePassing) and get_num_hops(ours) == get_num_hops(theirs) == 2
    assert get_num_hops(nn.Sequential(ours, nn.ReLU())) == 2
    assert [name for name, _ in ours.named_parameters()] == names and "round" not in repr(ours)
    same(masked(ours, X, GRAPH), masked(theirs, X, GRAPH))
    same(get_embeddings(ours, X, GRAPH), get_embeddings(theirs, X, GRAPH))
    for other in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert get_num_hops(other) == 2 and torch.equal(other(X, GRAPH), ours(X, GRAPH))


def alone(mask: Tensor) -> Tensor:
    """A mask as numbers, one for each edge."""
    return mask[:, None]


def mean_at(m: Tensor, end: Tensor) -> Tensor:
    counts = torch.zeros(NODES, dtype=m.dtype).index_add(0, end, torch.ones(len(end), dtype=m.dtype))
    return torch.zeros(NODES, m.shape[1], dtype=m.dtype).index_add(0, end, m) / counts.clamp(min=1)[:, None]


def sum_at(m: Tensor, end: Tensor) -> Tensor:
    return torch.zeros(NODES, m.shape[1], dtype=m.dtype).index_add(0, end, m)


def hops(x: Tensor, mask: Tensor) -> Tensor:
    for _ in range(3):
        x = mean_at(x[GRAPH[0]] * alone(mask), GRAPH[1]) + x
    return x


def spread(x: Tensor, mask: Tensor) -> Tensor:
    m = x[GRAPH[0]] * alone(mask)
    middle = mean_at(m, GRAPH[1])
    return mean_at((m - middle[GRAPH[1]]) ** 2, GRAPH[1]) + sum_at(x[GRAPH[0]] * alone(mask), GRAPH[1])


def attended(x: Tensor, mask: Tensor) -> Tensor:
    """Scores are not masked, but the messages that they weigh."""
    score = (x[GRAPH[0]] * x[GRAPH[1]]).sum(-1, keepdim=True).exp()
    alpha = score / sum_at(score, GRAPH[1])[GRAPH[1]]
    return sum_at(alpha * x[GRAPH[0]] * alone(mask), GRAPH[1])


def normalised(x: Tensor, mask: Tensor) -> Tensor:
    """Degrees are not masked."""
    degree = torch.zeros(NODES, dtype=x.dtype).index_add(0, GRAPH[1], torch.ones(len(mask), dtype=x.dtype))
    scale = degree.rsqrt()
    return sum_at((scale[GRAPH[0]] * scale[GRAPH[1]] * mask)[:, None] * x[GRAPH[0]], GRAPH[1])


def backwards(x: Tensor, mask: Tensor) -> Tensor:
    return sum_at(x[GRAPH[1]] * alone(mask), GRAPH[0])


def folded(x: Tensor, mask: Tensor) -> Tensor:
    rows = [torch.zeros(4, dtype=x.dtype) for _ in range(NODES)]
    for k in range(len(mask)):
        rows[GRAPH[1, k]] = 0.9 * rows[GRAPH[1, k]] + x[GRAPH[0, k]] * mask[k]
    return torch.stack(rows)


BODIES: dict[str, tuple[str, Any, int]] = {
    "a loop": (HOPS.replace("Hops", "Body"), hops, 3),
    "two reductions of one value": ("layer Body(d) { node x[d]\n update y = var(x[j]) + sum(x[j]) }", spread, 1),
    "attention": (
        "layer Body(d) { node x[d]\n message s = sum[d](x[i] * x[j])\n alpha = softmax(s)\n"
        " aggregate a = sum(alpha * x[j])\n update y = a }", attended, 1,
    ),
    "degrees": (
        "layer Body(d) { node x[d]\n c = 1 / sqrt(sum(1))\n message m = c[i] * c[j] * x[j]\n"
        " aggregate a = sum(m)\n update y = a }", normalised, 1,
    ),
    "at the sources": ("layer Body(d) { node x[d]\n update y = sum(x[i]) at j }", backwards, 1),
    "a fold": ("layer Body(d) { reduce f(acc, m) = 0.9 * acc + m init 0\n node x[d]\n update y = f(x[j]) }", folded, 1),
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
def test_what_is_masked(name: str) -> None:
    source, expected, rounds = BODIES[name]
    layer = text(source, d=4)
    assert get_num_hops(layer) == rounds
    flow = "target_to_source" if name == "at the sources" else "source_to_target"
    assert {part.flow for part in layer.modules() if isinstance(part, pyg.MessagePassing)} == {flow}
    mask = MASK.sigmoid()
    x, given = X.clone().requires_grad_(), mask.clone().requires_grad_()
    y = expected(x, given)
    weights = torch.arange(y.numel()).view_as(y).sin()
    same(masked(layer, X, GRAPH, mask=mask, sigmoid=False), [y, *torch.autograd.grad((y * weights).sum(), [given, x])])
    assert torch.allclose(layer(X, GRAPH), expected(X, torch.ones_like(mask)), atol=1e-10)


@pytest.mark.parametrize("make", ["add_self_loops", "add_remaining_self_loops", "remove_self_loops"])
def test_the_mask_of_a_loop_goes_where_the_loop_goes(make: str) -> None:
    layer = text(f"layer Loops(d) {{ graph {make}\n node x[d]\n update y = sum(x[j]) }}", d=4)
    kept = GRAPH[0] != GRAPH[1]
    mask = MASK.sigmoid()
    expected = sum_at(X[GRAPH[0, kept]] * alone(mask[kept]), GRAPH[1, kept])
    if make != "remove_self_loops":
        expected = expected + X
    found = masked(layer, X, GRAPH, mask=mask, sigmoid=False)[0]
    assert torch.allclose(found, expected, atol=1e-10)


def explained(model: nn.Module, kind: str, **kwargs: Any) -> tuple[Tensor, tuple[float, float]]:
    torch.manual_seed(5)
    algorithm = getattr(explain, kind)(**kwargs)
    trains = kind == "PGExplainer"
    nodes = {"node_mask_type": "attributes"} if kind in ("GNNExplainer", "GraphMaskExplainer") else {}
    config = {"mode": "multiclass_classification", "task_level": "node", "return_type": "raw"}
    explainer = explain.Explainer(
        model, algorithm, explanation_type="phenomenon" if trains else "model", edge_mask_type="object",
        model_config=config, **nodes,
    )  # fmt: skip
    x, target = X.float(), torch.arange(NODES) % 3
    if trains:
        algorithm.train(0, model, x, GRAPH, target=target, index=2)
    found = explainer(x, GRAPH, index=2, **({"target": target} if trains else {}))
    return found.edge_mask, metrics.fidelity(explainer, found)


@pytest.mark.parametrize(
    ("kind", "kwargs"), [("GNNExplainer", {"epochs": 3}), ("PGExplainer", {"epochs": 1}), ("AttentionExplainer", {})]
)
def test_explainers(kind: str, kwargs: dict[str, Any]) -> None:
    ours = network()
    found, expected = (explained(model.float(), kind, **kwargs) for model in (ours, Twin(ours)))
    assert found[0].unique().numel() > 4
    assert torch.allclose(found[0], expected[0], atol=1e-4) and found[1] == expected[1]


def test_an_explainer_of_a_mixed_model() -> None:
    class Mixed(nn.Module):
        def __init__(self, first: nn.Module) -> None:
            super().__init__()
            self.one, self.two = first, pyg.GCNConv(8, 3)

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.two(self.one(x, edge_index).relu(), edge_index)

    theirs = Mixed(pyg.SAGEConv(4, 8))
    ours = Mixed(gdsl.compile(CALL.format(layer="SAGEConv", arguments="8"), out=8, features=4, backend="torch"))
    ours.load_state_dict({n.replace("one.", "one.conv."): v for n, v in theirs.state_dict().items()})
    assert get_num_hops(ours) == 2
    found, expected = (explained(model, "GNNExplainer", epochs=3) for model in (ours, theirs))
    assert torch.allclose(found[0], expected[0], atol=1e-4)


def test_gates_on_the_messages_of_each_round() -> None:
    layer = gdsl.compile(HOPS, d=4, K=2, backend="torch")
    assert [part.in_channels for part in layer.modules() if isinstance(part, pyg.MessagePassing)] == [4, 4]
    found, _ = explained(layer, "GraphMaskExplainer", num_layers=2, epochs=1, log=False)
    assert found.shape == MASK.shape and found.max() > 0


def test_hooks_on_messages() -> None:
    layer = text(HOPS, d=4, K=2)
    before, seen = layer(X, GRAPH), []
    first, second = (part for part in layer.modules() if isinstance(part, pyg.MessagePassing))
    handles = [
        first.register_message_forward_hook(lambda part, given, out: seen.append(given[0]["x_j"]) or out * 0),
        second.register_aggregate_forward_hook(lambda part, given, out: seen.append(out)),
    ]
    assert torch.allclose(layer(X, GRAPH), mean_at(X[GRAPH[0]], GRAPH[1]) + X, atol=1e-10)
    assert torch.equal(seen[0], X[GRAPH[0]]) and torch.allclose(seen[1], mean_at(X[GRAPH[0]], GRAPH[1]), atol=1e-10)
    for handle in handles:
        handle.remove()
    assert torch.equal(layer(X, GRAPH), before)


def test_rounds_are_modules_as_others() -> None:
    layer = text("layer Named(d) { node x[d]\n linear round2(d -> d)\n update y = round2(mean(sum(x[j])[j])) }", d=4)
    names = [name for name, _ in layer.named_modules()]
    assert names == ["", "round2", "round2_"] and [type(layer.get_submodule(n)).__name__ for n in names[1:]] == [
        "Linear", "Round"
    ]
    model = nn.Sequential(text(HOPS, d=4))
    for mode in (False, True):
        assert {part.training for part in model.train(mode).modules()} == {mode}
    assert not any(part.training for part in text(HOPS, d=4).eval().modules())
    assert get_num_hops(pickle.loads(pickle.dumps(copy.deepcopy(model)))) == 3


def test_hooks_on_modules_are_called_as_torch_calls_them() -> None:
    layer, seen = text(HOPS, d=4), list[Any]()
    for part in layer.modules():
        part.register_forward_pre_hook(lambda part, given, named: seen.append(("before", part)), with_kwargs=True)
        part.register_forward_pre_hook(lambda part, given: None)
        part.register_forward_hook(lambda part, given, named, out: seen.append((named, part)), with_kwargs=True)
        part.register_forward_hook(lambda part, given, out: None)
    layer(X, GRAPH)
    first, *others = layer.modules()
    inside = [found for part in others for found in (("before", part), ({}, part))]
    assert seen == [("before", first), *inside, ({}, first)]


def test_optional_inputs_may_make_more_rounds() -> None:
    layer = text(
        "layer Maybe(d) { node x[d]\n edge w = none\n h = sum(x[j])\n if w { h = sum(w * h[j]) }\n update y = h }", d=4
    )
    layer(X, GRAPH)
    assert get_num_hops(layer) == 1
    weights, mask = MASK.cos(), MASK.sigmoid()
    # One round is masked as those before, while there is no module for it.
    found = masked(layer, X, GRAPH, weights, mask=mask, sigmoid=False)[0]
    h = sum_at(X[GRAPH[0]] * alone(mask), GRAPH[1])
    assert torch.allclose(found, sum_at(h[GRAPH[0]] * alone(mask * weights), GRAPH[1]), atol=1e-10)
    layer(X, GRAPH, weights)
    assert get_num_hops(layer) == 2
    assert torch.equal(masked(layer, X, GRAPH, weights, mask=mask, sigmoid=False)[0], found)


def test_parameters_are_listed_without_checking_the_text_again(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = network()
    names = [name for name, _ in layer.named_parameters()]
    monkeypatch.setattr(type(layer._text), "outline", None)
    assert [name for name, _ in layer.named_parameters()] == names


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_mask_of_another_dtype(dtype: torch.dtype) -> None:
    """The layer's is that of the result, as it is without a mask."""
    layer = gdsl.compile(
        "layer Wide(d) { node x[d]\n linear f(d -> d)\n update y = f(sum(x[j])) }", d=4, backend="torch"
    ).to(dtype)
    utils.set_masks(layer, torch.ones(GRAPH.shape[1], dtype=torch.float64), GRAPH, apply_sigmoid=False)
    found = layer(X.to(dtype), GRAPH)
    utils.clear_masks(layer)
    assert torch.allclose(found, layer(X.to(dtype), GRAPH), rtol=0.05, atol=0.05)  # and so of this dtype


def test_a_layer_that_is_left_out() -> None:
    layer = network()
    before = layer(X, GRAPH)
    layer.explain = False
    utils.set_masks(layer, MASK, GRAPH)
    assert torch.equal(layer(X, GRAPH), before)
    layer.explain = None
    assert "Network" in str(layer.explain())
    assert not torch.allclose(masked(layer, X, GRAPH)[0], before)


def test_what_cannot_be_masked_is_said() -> None:
    nearest = text("layer Near(d) { node x[d]\n graph knn(x, 2)\n update y = max(x[j]) }", d=4)
    with pytest.raises(gdsl.InputError, match="Near makes its own edges, which an edge mask is not of"):
        utils.set_masks(nearest, MASK, GRAPH)
    degrees = text("layer Degrees(d) { node x[d]\n c = sum(1)\n e = c[j] - c[i]\n update y = x * sum(abs(e)) }", d=4)
    with pytest.raises(gdsl.InputError, match="Degrees sends no messages that an edge mask could be put on"):
        utils.set_masks(degrees, MASK, GRAPH)
    layer = text(HOPS, d=4)
    utils.set_masks(layer, MASK[:3], GRAPH[:, :3])
    with pytest.raises(ValueError, match="the mask is of 3 edges, and Hops sends 12 messages"):
        layer(X, GRAPH)


def test_names_of_a_text_and_torch_geometric_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = text("layer Own(d) { param flow[d] ~ ones\n node x[d]\n update y = flow * sum(x[j]) }", d=4)
    assert isinstance(layer.flow, nn.Parameter) and "propagate" not in dir(layer)
    plain = text("layer Rows(d) { node x[d]\n update y = 2 * x }", d=4)
    assert not isinstance(plain, pyg.MessagePassing) and not hasattr(plain, "flow")
    monkeypatch.setattr("gdsl.module.host.is_imported", lambda: False)
    assert [name for name, _ in text(HOPS, d=4).named_modules()] == [""]


def test_a_model_by_edge_types() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = text(
                "layer Ends(d, k) { source x[d]\n target z[d]\n linear f(d -> k)\n update y = mean(f(x)[j]) + f(z) }",
                d=4, k=3,
            )  # fmt: skip

        def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
            return self.conv(x, edge_index).relu()

    edge, back = ("p", "to", "q"), ("q", "rev", "p")
    model = pyg.to_hetero(Model(), (["p", "q"], [edge, back]))
    x = {"p": X, "q": X[:5] + 1}
    graph = torch.tensor([[0, 1, 6, 2], [0, 3, 4, 3]])
    found = model(x, {edge: graph, back: graph.flip(0)})
    for kind, (a, b), e in ((edge, ("p", "q"), graph), (back, ("q", "p"), graph.flip(0))):
        expected = model.conv["__".join(kind)]((x[a], x[b]), e).relu()
        assert torch.equal(found[b], expected)
    alone = text("layer Alone(d) { node x[d]\n update y = sum(x[j]) }", d=4)
    with pytest.raises(gdsl.InputError, match="not tuple: a layer between two sets of nodes declares `source` and"):
        alone((X, X[:5]), graph)
    utils.set_hetero_masks(model, {edge: MASK[:4], back: MASK[:4]}, {edge: graph, back: graph.flip(0)})
    assert not torch.allclose(model(x, {edge: graph, back: graph.flip(0)})["q"], found["q"])


@pytest.mark.parametrize("backend", ["cpp", "torch"])
def test_edges_within_a_set_and_between_two_are_of_one_text(backend: str) -> None:
    """torch_geometric gives a layer one tensor where both ends of a type of edges are of one set, else a pair."""
    ends = gdsl.compile(
        "layer Ends(d, k) { source x[d]\n target z[d]\n edge w = 1\n linear f(d -> k)\n linear g(d -> k)\n"
        " update y = sum(w * f(x)[j]) + g(z) }",
        d=4, k=3, backend=backend,
    ).double()  # fmt: skip
    weight = torch.arange(1.0, 1.0 + GRAPH.shape[1], dtype=X.dtype)
    expected = ends(X, X, GRAPH, weight)
    for _ in range(2):  # the second is repeated by native code
        for given in (X, (X, X)):
            assert torch.equal(ends(given, GRAPH, weight), expected)
            assert torch.equal(ends(given, GRAPH, w=weight), expected)
        assert torch.equal(ends(X, gdsl.Graph(GRAPH, len(X)), weight), expected)
        assert torch.equal(ends(X, GRAPH), ends(X, X, GRAPH))
    assert torch.equal(torch.compile(ends, backend="eager", fullgraph=True)(X, GRAPH, weight), expected)
    back = torch.tensor([[0, 3, 4, 3], [0, 1, 6, 2]])
    x, edges = {"p": X, "q": X[:5] + 1}, {("p", "in", "p"): GRAPH, ("q", "to", "p"): back}
    model = pyg.HeteroConv(dict.fromkeys(edges, ends), aggr="sum")
    assert torch.equal(model(x, edges)["p"], ends(X, X, GRAPH) + ends(x["q"], X, back))
    with pytest.raises(gdsl.InputError, match="`z` must hold floating-point numbers"):
        ends(X, X.long(), GRAPH)
    with pytest.raises(gdsl.InputError, match="`graph` is missing"):
        ends(X, GRAPH.to(X.dtype))


def test_a_mask_leaves_a_compiled_call_to_python() -> None:
    layer = network()
    compiled = torch.compile(layer, backend="eager")
    plain = layer(X, GRAPH)
    assert torch.allclose(compiled(X, GRAPH), plain)
    utils.set_masks(layer, MASK, GRAPH)
    assert torch.allclose(compiled(X, GRAPH), layer(X, GRAPH)) and not torch.allclose(compiled(X, GRAPH), plain)
    utils.clear_masks(layer)
    assert torch.allclose(compiled(X, GRAPH), plain)


def test_a_pool_of_the_graphs_of_a_batch() -> None:
    layer = text("layer Pooled(d) { node x[d]\n h = sum(x[j])\n pool y = mean(h) }", d=4)
    batch = torch.tensor([0, 0, 0, 0, 1, 1, 1])
    mask = MASK.sigmoid()
    h = sum_at(X[GRAPH[0]] * alone(mask), GRAPH[1])
    utils.set_masks(layer, mask, GRAPH, apply_sigmoid=False)
    assert torch.allclose(layer(X, GRAPH, batch=batch), torch.stack([h[:4].mean(0), h[4:].mean(0)]), atol=1e-10)


def test_layers_that_are_ours_already_need_no_conversion() -> None:
    model = nn.ModuleList([gdsl.nn.GCNConv(4, 3), text(HOPS, d=4), gdsl.nn.SumAggregation(), pyg.GCNConv(2, 2)])
    found = gdsl.nn.convertible(model)
    assert dict(found.replaced) == {"3": "GCNConv"} and not found.left
