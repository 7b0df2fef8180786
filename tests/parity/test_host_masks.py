"""Edge masks on every layer, as torch_geometric's explainers set them: outputs and gradients, by the mask too."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

import gdsl
import gdsl.nn
from tests.parity import drop_in
from tests.parity.drop_in import Case, pyg
from tests.programs import harness

utils = pytest.importorskip("torch_geometric.explain.algorithm.utils")

FAMILIES = "attention basic edge mesh mixed models points relations simple spectral types whole".split()
CASES = [
    (case, options)
    for family in FAMILIES
    for case in getattr(import_module(f"tests.parity.test_nn_{family}"), "CASES", ())
    if case.graph is not None and case.layer.endswith(("Conv", "APPNP", "AttentiveFP", "GCN", "GraphSAGE"))
    for options in drop_in.single(case)
]

# By default one call of each class.
FIRST = {case.layer: case for case, _ in reversed(CASES)}

# Where torch_geometric's layers stop at an assertion, since they send messages several times or beside the graph.
MORE = {"RGCNConv", "FastRGCNConv", "FiLMConv"}
# Their messages are not those of the edges that a user gives: an error says so.
NONE = {"PANConv"}
# The mask is on the neighbours there, and in torch_geometric on what the kernels make of them.
APART = {"MeshCNNConv"}
# Another answer of torch_geometric's with a mask of ones than without a mask.
TORN = {"GATv2Conv", "FAConv"}

REFUSED = (ValueError, AssertionError, TypeError, RuntimeError, NotImplementedError, IndexError)


def masked(layer: nn.Module, case: Case, mask: Tensor | None) -> dict[str, Tensor]:
    """Outputs and gradients of a call with a mask, or without."""
    first, graph, values = drop_in.draw(case, 1)
    assert graph is not None
    given = None if mask is None else mask.clone().requires_grad_()
    if given is not None:
        utils.set_masks(layer, given, graph)
    found = drop_in.outcome(layer, first, graph, values)
    if given is not None:
        outputs = [t for t in drop_in.flat(layer(*first, graph, **values)) if t.requires_grad]
        score = sum((harness._weights(t.double(), 0.7) * t).sum() for t in outputs)
        (by_mask,) = torch.autograd.grad(score, given, allow_unused=True) if outputs else (None,)
        found["d/dmask"] = torch.zeros_like(given) if by_mask is None else by_mask
        utils.clear_masks(layer)
    return found


def same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], exact: float) -> None:
    assert found.keys() == expected.keys()
    for part, value in expected.items():
        assert found[part].shape == value.shape
        assert harness.difference([found[part].double()], [value.double()]) < exact, part


@pytest.mark.parametrize(
    ("case", "options"),
    [
        pytest.param(
            case,
            options,
            id=" ".join([case.id, *(f"{name}={drop_in._word(value)}" for name, value in options.items())]),
            marks=[] if FIRST[case.layer] is case and not options else pytest.mark.slow,
        )
        for case, options in CASES
    ],
)
def test_a_mask_on_each_layer(case: Case, options: Mapping[str, Any]) -> None:
    made = drop_in.pair(case, options)
    if made is None:
        return
    ours, theirs = made
    drop_in.same_state(case, ours, theirs)
    drop_in.set_backend(ours, "torch")
    counts = [sum(isinstance(part, pyg.MessagePassing) for part in layer.modules()) for layer in made]
    assert counts[0] == counts[1]
    if not counts[0] or case.layer in APART:
        return
    _, graph, _ = drop_in.draw(case, 1)
    mask = torch.randn(graph.shape[1], dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    if case.layer in NONE:
        with pytest.raises(ValueError, match=f"mask is of {len(mask)} edges, and {case.layer} sends"):
            masked(ours, case, mask)
        return
    try:
        expected = masked(theirs, case, mask)
    except REFUSED:
        if case.layer not in MORE and options.get("flow") is None:
            with pytest.raises(REFUSED):
                masked(ours, case, mask)
        return
    if case.layer in TORN and options.get("flow") == "target_to_source":
        ones = torch.full_like(mask, 40.0)  # of which the sigmoid is 1
        expected = masked(ours, case, None)
        found = masked(ours, case, ones)
        del found["d/dmask"]
        same(found, expected, case.exact)
        return
    same(masked(ours, case, mask), expected, case.exact)


def test_without_a_sigmoid_and_with_loops_of_the_layers_own() -> None:
    graph = torch.tensor([[0, 1, 2, 2], [1, 1, 0, 2]])
    x = torch.randn(3, 4, dtype=torch.float64)
    mask = torch.tensor([0.3, 0.9, 0.1, 0.5], dtype=torch.float64)
    theirs = pyg.GCNConv(4, 2).double()
    ours = gdsl.nn.GCNConv(4, 2).double()
    ours.load_state_dict(theirs.state_dict())
    for layer in (ours, theirs):
        utils.set_masks(layer, mask, graph, apply_sigmoid=False)
    assert torch.allclose(ours(x, graph), theirs(x, graph), atol=1e-12)


@pytest.mark.parametrize("layer", ["RGCNConv", "FastRGCNConv"])
def test_a_mask_where_torch_geometric_sends_no_single_message(layer: str) -> None:
    x, graph = torch.randn(4, 3, dtype=torch.float64), torch.tensor([[0, 1, 2, 3, 0], [1, 1, 1, 0, 1]])
    kind, mask = torch.tensor([0, 0, 1, 1, 0]), torch.rand(5, dtype=torch.float64)
    conv = getattr(gdsl.nn, layer)(3, 2, 2, backend="torch").double()
    utils.set_masks(conv, mask, graph, apply_sigmoid=False)
    expected = x @ conv.root + conv.bias
    for r in range(2):
        sums, counts = torch.zeros(4, 3, dtype=torch.float64), torch.zeros(4, 1, dtype=torch.float64)
        sums.index_add_(0, graph[1, kind == r], mask[kind == r, None] * x[graph[0, kind == r]])
        counts.index_add_(0, graph[1, kind == r], torch.ones(int((kind == r).sum()), 1, dtype=torch.float64))
        expected = expected + sums / counts.clamp(min=1) @ conv.weight[r]
    assert torch.allclose(conv(x, graph, kind), expected, atol=1e-12)


class Attention(nn.Module):
    """Two layers of a user's own, on a base that is filled in."""

    base: type

    def __init__(self) -> None:
        super().__init__()

        class Layer(self.base):  # type: ignore[misc,name-defined]
            def __init__(self, size: int) -> None:
                super().__init__(aggr="sum")
                self.lin = nn.Linear(size, 3)

            def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
                return self.propagate(edge_index, x=self.lin(x))

            def message(self, x_i: Tensor, x_j: Tensor) -> Tensor:
                return leaky_relu(x_i + x_j) * x_j

        self.one, self.two = Layer(4), Layer(3)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.two(self.one(x, edge_index).tanh(), edge_index)


def test_a_mask_on_a_users_own_layer() -> None:
    results = []
    graph = torch.randint(6, (2, 14), generator=torch.Generator().manual_seed(1))
    x = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    mask = torch.rand(14, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    for base in (pyg.MessagePassing, gdsl.nn.MessagePassing):
        Attention.base = base
        torch.manual_seed(4)
        model = Attention().double()
        before = model(x, graph)
        given = mask.clone().requires_grad_()
        utils.set_masks(model, given, graph)
        if base is gdsl.nn.MessagePassing:
            assert model.one.explain is True
        masked = model(x, graph)
        grads = torch.autograd.grad(masked.sin().sum(), [given, *model.parameters()])
        if base is gdsl.nn.MessagePassing:
            assert "an edge mask" in model.one.how
        utils.clear_masks(model)
        after = model(x, graph)
        assert torch.allclose(before, after, atol=1e-12)
        if base is gdsl.nn.MessagePassing:
            assert model.one.how == "fused"
        results.append([before, masked, *grads])
    for ours, theirs in zip(*results, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-12)


def test_calls_that_native_code_repeats(native_code: None) -> None:
    x, graph = torch.randn(20, 6), torch.randint(20, (2, 50))
    for conv in (gdsl.nn.GCNConv(6, 6), gdsl.nn.GATConv(6, 6)):
        with torch.no_grad():
            plain = [conv(x, graph) for _ in range(4)][-1]
            assert conv._repeated.calls(conv, (x, graph), ()) is not None
            utils.set_masks(conv, torch.zeros(50), graph)
            assert conv._repeated.calls(conv, (x, graph), ()) is None
            assert not torch.allclose(conv(x, graph), plain)
            utils.clear_masks(conv)
            assert torch.equal(conv(x, graph), plain)
            handle = conv.register_message_forward_hook(lambda layer, given, out: out * 0)
            assert not torch.allclose(conv(x, graph), plain)
            handle.remove()
            assert torch.equal(conv(x, graph), plain)
            assert conv._repeated.calls(conv, (x, graph), ()) is not None


def test_a_users_own_way_to_explain_messages() -> None:
    """Not against torch_geometric, which ignores it in a class whose base class has had an object before."""

    class Layer(gdsl.nn.SAGEConv):
        def explain_message(self, inputs: Tensor, x_i: Tensor, x_j: Tensor, index: Tensor, size_i: int) -> Tensor:
            return inputs * (x_i * x_j).sum(-1, keepdim=True) + (index + size_i).unsqueeze(-1)

    graph, x = torch.tensor([[0, 1, 2, 0], [1, 1, 0, 2]]), torch.randn(3, 4, dtype=torch.float64)
    conv = Layer(4, 2, backend="torch").double()
    conv.explain = True
    m = x[graph[0]] * (x[graph[1]] * x[graph[0]]).sum(-1, keepdim=True) + (graph[1] + 3).unsqueeze(-1)
    mean = torch.stack([m[graph[1] == i].mean(0) for i in range(3)])
    assert torch.allclose(conv(x, graph), conv.lin_l(mean) + conv.lin_r(x), atol=1e-12)


def test_layers_that_are_left_out_and_the_method_that_comes_back() -> None:
    conv = gdsl.nn.GCNConv(4, 2)
    x, graph = torch.randn(3, 4), torch.tensor([[0, 1], [1, 2]])
    before = conv(x, graph)
    assert conv.explain is not True and "GCNConv: the rules" in conv.explain(graph)
    conv.explain = False
    utils.set_masks(conv, torch.zeros(2), graph)
    assert conv.explain is False and torch.equal(conv(x, graph), before)
    conv.explain = None
    utils.set_masks(conv, nn.Parameter(torch.zeros(2)), graph)
    assert conv.explain is True and not torch.allclose(conv(x, graph), before)
    with pytest.raises(gdsl.InputError, match="GCNConv ran its last call in torch, for a mask or a hook"):
        print(conv.kernels)
    other = copy.deepcopy(conv)
    assert torch.equal(other(x, graph), conv(x, graph))
    utils.clear_masks(conv)
    assert torch.equal(conv(x, graph), before) and "GCNConv: the rules" in conv.explain()
    assert not torch.allclose(other(x, graph), before)


def test_a_mask_leaves_a_compiled_call_to_python() -> None:
    conv = gdsl.nn.GCNConv(4, 2, backend="torch")
    x, graph = torch.randn(3, 4), torch.tensor([[0, 1], [1, 2]])
    plain = conv(x, graph)
    utils.set_masks(conv, torch.zeros(2), graph)
    masked = conv(x, graph)
    compiled = torch.compile(conv, backend="eager")
    assert torch.allclose(compiled(x, graph), masked) and not torch.allclose(masked, plain)
    utils.clear_masks(conv)
    assert torch.allclose(compiled(x, graph), plain)
    utils.set_masks(conv, torch.zeros(2), graph)
    assert torch.allclose(compiled(x, graph), masked)
    torch.compiler.reset()
    with pytest.raises(Exception, match="has no place for masks"):  # torch's own, with ours in it
        torch.compile(conv, backend="eager", fullgraph=True)(x, graph)


@pytest.mark.parametrize("layer", ["GCNConv", "GraphConv", "TAGConv"])
def test_a_mask_on_several_signals(layer: str) -> None:
    x, graph = torch.randn(2, 3, 5, 4, dtype=torch.float64), torch.tensor([[0, 1, 2, 2, 4], [1, 1, 0, 2, 3]])
    mask = torch.tensor([0.3, 0.9, 0.1, 0.5, 0.7], dtype=torch.float64, requires_grad=True)
    theirs, ours = (getattr(library, layer)(4, 2).double() for library in (pyg, gdsl.nn))
    ours.load_state_dict(theirs.state_dict())
    drop_in.set_backend(ours, "torch")
    found = []
    for conv in (theirs, ours):
        utils.set_masks(conv, mask, graph)
        y = conv(x, graph)
        found.append((y, *torch.autograd.grad(y.sin().sum(), mask)))
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, atol=1e-12)


@pytest.mark.parametrize("bases", [None, 2])
@pytest.mark.parametrize("numbers", [None, torch.tensor([3, 0, 1, 2])], ids=["in order", "given"])
def test_a_mask_where_nodes_are_numbers(numbers: Tensor | None, bases: int | None) -> None:
    """As the features that have a 1 at the number."""
    graph, kind = torch.tensor([[0, 1, 2, 3, 0], [1, 1, 1, 0, 1]]), torch.tensor([0, 0, 1, 1, 0])
    conv = gdsl.nn.RGCNConv(4, 2, 2, num_bases=bases, backend="torch").double()
    features = torch.eye(4, dtype=torch.float64)[torch.arange(4) if numbers is None else numbers]
    assert torch.allclose(conv(numbers, graph, kind), conv(features, graph, kind))
    utils.set_masks(conv, torch.tensor([0.3, 0.9, 0.1, 0.5, 0.7], dtype=torch.float64), graph)
    masked = conv(numbers, graph, kind)
    assert torch.allclose(masked, conv(features, graph, kind))
    utils.clear_masks(conv)
    assert not torch.allclose(masked, conv(features, graph, kind))


def test_a_mask_on_whole_numbers() -> None:
    x, graph = torch.tensor([[1, 2], [3, 4], [5, 6]]), torch.tensor([[0, 1, 2], [1, 1, 0]])
    mask = torch.tensor([1.0, 0.5, 0.25])
    for make in (lambda: gdsl.nn.LGConv(normalize=False), gdsl.nn.SimpleConv):
        conv = make()
        conv.backend = "torch"
        utils.set_masks(conv, mask, graph, apply_sigmoid=False)
        assert torch.allclose(conv(x, graph), torch.tensor([[1.25, 1.5], [2.5, 4.0], [0.0, 0.0]]))


def test_a_mask_on_the_neighbours_of_a_mesh() -> None:
    graph = torch.stack([torch.randint(3, (12,)), torch.arange(12) >> 2])
    conv, x = gdsl.nn.MeshCNNConv(4, 2, None), torch.randn(3, 4)
    drop_in.set_backend(conv, "torch")
    mask = torch.rand(12)
    utils.set_masks(conv, mask, graph, apply_sigmoid=False)
    m = (x[graph[0]] * mask[:, None]).view(3, 4, 4)
    parts = (x, (m[:, 0] - m[:, 2]).abs(), m[:, 0] + m[:, 2], (m[:, 1] - m[:, 3]).abs(), m[:, 1] + m[:, 3])
    expected = sum(kernel(part) for kernel, part in zip(conv.kernels, parts, strict=True))
    assert torch.allclose(conv(x, graph), expected, atol=1e-5)


def test_what_a_mask_has_no_place_for() -> None:
    graph = torch.tensor([[0, 1], [1, 2]])
    conv = gdsl.nn.GCNConv(4, 2)
    utils.set_masks(conv, torch.zeros(2), graph)
    with pytest.raises(ValueError, match="the mask is of 2 edges, and GCNConv sends 4 messages"):
        conv(torch.randn(3, 4), torch.tensor([[0], [1]]))
    conv._edge_mask = None
    with pytest.raises(ValueError, match="Did you forget to initialize it"):
        conv(torch.randn(3, 4), graph)
    counts = gdsl.nn.SimpleConv()
    utils.set_masks(counts, torch.zeros(2), graph)
    with pytest.raises(gdsl.InputError, match="complex"):
        counts(torch.ones(3, 4, dtype=torch.complex64), graph)


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_a_mask_of_the_entries_of_a_transition_matrix(steps: int) -> None:
    """torch_geometric's PANConv multiplies its messages, which are the entries of M in the order of rows."""
    torch.manual_seed(0)
    graph = torch.tensor([[3, 0, 0, 1, 2, 2], [0, 1, 2, 2, 3, 3]])
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    layer = gdsl.nn.PANConv(3, 2, steps, backend="torch").double()
    before, matrix = layer(x, graph)
    places, values = matrix.coalesce().indices(), matrix.coalesce().values()
    mask = torch.randn(len(values), dtype=torch.float64, requires_grad=True)
    utils.set_masks(layer, mask, graph)
    found, beside = layer(x, graph)
    assert torch.allclose(beside.to_dense(), matrix.to_dense())
    masked_matrix = torch.zeros(4, 4, dtype=torch.float64).index_put(tuple(places), values * mask.sigmoid())
    expected = layer.lin(masked_matrix @ x)
    assert torch.allclose(found, expected, atol=1e-12) and not torch.allclose(found, before, atol=1e-3)
    for ours, theirs in zip(
        *(torch.autograd.grad(y.sin().sum(), (x, mask, layer.weight), retain_graph=True) for y in (found, expected)),
        strict=True,
    ):
        assert torch.allclose(ours, theirs, atol=1e-10)
    utils.clear_masks(layer)
    seen: list[Any] = []
    layer.register_message_forward_hook(lambda module, given, out: seen.append((given[0]["edge_weight"], out)))
    assert torch.allclose(layer(x, graph)[0], before, atol=1e-12)
    assert torch.allclose(seen[0][0], values) and seen[0][1].shape == (len(values), 3)


def test_a_mask_of_edges_is_none_of_a_transition_matrix() -> None:
    """Also where there are as many of both: a mask in the order of the edges would be on other entries."""
    x, ring = torch.randn(4, 3), torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
    layer = gdsl.nn.PANConv(3, 2, 0, backend="torch")
    utils.set_masks(layer, torch.zeros(4), ring)
    with pytest.raises(gdsl.InputError, match="may be of the edges or of the entries of M"):
        layer(x, ring)
    loops = torch.arange(4).repeat(2, 1)
    utils.set_masks(layer, torch.zeros(4), loops)
    assert torch.allclose(layer(x, loops)[0], layer.lin(x / 4), atol=1e-6)  # M is I / 2, and the mask a half
    twice = gdsl.nn.PANConv(3, 2, 1, backend="torch")
    utils.set_masks(twice, torch.zeros(4), ring)  # 4 edges and 4 loops are 8 entries, as many as a mask of loops makes
    with pytest.raises(ValueError, match="the mask is of 4 edges, and PANConv sends 8 messages"):
        twice(x, ring)
