"""Aggregations by themselves and inside a layer, against torch_geometric's."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gdsl.nn.aggr as ours
from gdsl.nn import Linear, SAGEConv, WLConv, pool
from tests.parity.drop_in import mlp, pyg, set_backend
from tests.programs import harness

GROUPS, ROWS, CHANNELS = 7, 30, 4

Make = Callable[[Any], nn.Module]



def perceptron(aggr: Any, norm: str | None, size: int) -> nn.Module:
    """A perceptron of the library that an aggregation is of."""
    made: nn.Module = import_module(aggr.__name__.replace(".aggr", ".models")).MLP([CHANNELS, 5, size], norm=norm)
    return made


HISTOGRAM = torch.tensor([2, 3, 4, 1])

# name -> (its maker from either library, whether it is read into a program)
AGGREGATIONS: dict[str, tuple[Make, bool]] = {
    "sum": (lambda a: a.SumAggregation(), True),
    "mean": (lambda a: a.MeanAggregation(), True),
    "max": (lambda a: a.MaxAggregation(), True),
    "min": (lambda a: a.MinAggregation(), True),
    "mul": (lambda a: a.MulAggregation(), True),
    "var": (lambda a: a.VarAggregation(), True),
    "var, semi-gradient": (lambda a: a.VarAggregation(semi_grad=True), True),
    "std": (lambda a: a.StdAggregation(), True),
    "softmax": (lambda a: a.SoftmaxAggregation(t=0.5), True),
    "softmax, learned": (lambda a: a.SoftmaxAggregation(learn=True), True),
    "softmax, by channel": (lambda a: a.SoftmaxAggregation(learn=True, channels=CHANNELS), True),
    "softmax, semi-gradient": (lambda a: a.SoftmaxAggregation(semi_grad=True), True),
    "power mean": (lambda a: a.PowerMeanAggregation(p=2.0), True),
    "power mean, learned": (lambda a: a.PowerMeanAggregation(p=1.5, learn=True), True),
    "power mean, by channel": (lambda a: a.PowerMeanAggregation(p=0.5, learn=True, channels=CHANNELS), True),
    "power mean, one limit": (lambda a: a.PowerMeanAggregation(p=2.0, clamp_min=None, clamp_max=2.0), True),
    "median": (lambda a: a.MedianAggregation(), True),
    "quantile": (lambda a: a.QuantileAggregation(0.3), True),
    "quantiles": (lambda a: a.QuantileAggregation([0.1, 0.8]), True),
    **{
        f"quantile, {way}": (lambda a, way=way: a.QuantileAggregation(0.3, way, fill_value=2.0), False)
        for way in ("lower", "higher", "nearest", "midpoint", "linear")
    },
    "sort": (lambda a: a.SortAggregation(k=3), False),
    "variance preserving": (lambda a: a.VariancePreservingAggregation(), True),
    "several": (lambda a: a.MultiAggregation(["mean", "max", "std"]), True),
    "several, one": (lambda a: a.MultiAggregation(["mean"]), True),
    **{
        f"several, {mode}": (lambda a, mode=mode: a.MultiAggregation(["mean", "max", "sum"], mode=mode), True)
        for mode in ("sum", "mean", "max", "min", "logsumexp", "std", "var")
    },
    "several, projected": (
        lambda a: a.MultiAggregation(
            ["mean", "max"], mode="proj", mode_kwargs={"in_channels": CHANNELS, "out_channels": 3}
        ),
        True,
    ),
    "several, with attention": (
        lambda a: a.MultiAggregation(
            ["mean", "max", "sum"],
            mode="attn",
            mode_kwargs={"in_channels": CHANNELS, "out_channels": 6, "num_heads": 2},
        ),
        False,
    ),
    "several, with one that is no program": (
        lambda a: a.MultiAggregation(["mean", "lstm"], [{}, {"in_channels": 4, "out_channels": 4}]), False,
    ),
    "degree scaler": (
        lambda a: a.DegreeScalerAggregation(
            ["mean", "max"], ["identity", "amplification", "attenuation", "linear", "inverse_linear"], HISTOGRAM
        ),
        True,
    ),
    "degree scaler, trained": (
        lambda a: a.DegreeScalerAggregation(["sum"], ["linear", "attenuation"], HISTOGRAM, train_norm=True), True,
    ),
    "lstm": (lambda a: a.LSTMAggregation(CHANNELS, 3), False),
    "gru": (lambda a: a.GRUAggregation(CHANNELS, 3), False),
    "set2set": (lambda a: a.Set2Set(CHANNELS, processing_steps=2), False),
    "attention": (lambda a: a.AttentionalAggregation(mlp(CHANNELS, 5, 1)(), mlp(CHANNELS, 6)()), True),
    "attention, by feature": (lambda a: a.AttentionalAggregation(mlp(CHANNELS, CHANNELS)()), True),
    "perceptron": (lambda a: a.MLPAggregation(CHANNELS, 3, 5, num_layers=1), False),
    "perceptron, deep": (lambda a: a.MLPAggregation(CHANNELS, 3, 8, num_layers=2, hidden_channels=5, norm=None), False),
    "set transformer": (lambda a: a.SetTransformerAggregation(CHANNELS, heads=2, layer_norm=True), False),
    "set transformer, seeds": (
        lambda a: a.SetTransformerAggregation(CHANNELS, 3, num_encoder_blocks=2, num_decoder_blocks=0, concat=False),
        False,
    ),
    "multiset transformer": (lambda a: a.GraphMultisetTransformer(CHANNELS, 3, heads=2), False),
    "multiset transformer, deep": (
        lambda a: a.GraphMultisetTransformer(CHANNELS, 2, num_encoder_blocks=2, layer_norm=True), False
    ),
    "monoid": (lambda a: a.LCMAggregation(CHANNELS, 3), False),
    "monoid, of rows": (lambda a: a.LCMAggregation(CHANNELS, CHANNELS, project=False), False),
    "patches": (lambda a: a.PatchTransformerAggregation(CHANNELS, 3, 2, 4, heads=2, aggr=["mean", "max"]), False),
    "deep sets": (lambda a: a.DeepSetsAggregation(mlp(CHANNELS, 5)(), mlp(5, 3)()), True),
    # torch_geometric keeps perceptrons of its own under other names, and tells them the group of each row.
    "attention, perceptron": (lambda a: a.AttentionalAggregation(perceptron(a, None, 1), mlp(CHANNELS, 6)()), True),
    "attention, norms of groups": (
        lambda a: a.AttentionalAggregation(perceptron(a, "GraphNorm", 1), perceptron(a, "LayerNorm", 3)), False,
    ),
    "deep sets, perceptrons": (
        lambda a: a.DeepSetsAggregation(perceptron(a, None, CHANNELS), perceptron(a, None, 3)), True,
    ),
    "deep sets, norms of groups": (lambda a: a.DeepSetsAggregation(perceptron(a, "PairNorm", 3)), False),
}  # fmt: skip


def build(name: str) -> tuple[nn.Module, nn.Module]:
    """Ours and theirs with the same weights, in float64."""
    make, _ = AGGREGATIONS[name]
    torch.manual_seed(0)
    mine = make(ours).double()
    theirs = make(pyg.aggr).double()
    assert {k: v.shape for k, v in mine.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}
    mine.load_state_dict(theirs.state_dict())
    return mine, theirs


def rows(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Rows sorted by group; the last group has none. (An empty first one is an error in torch_geometric's quantile.)"""
    g = torch.Generator().manual_seed(seed)
    index = torch.randint(GROUPS - 1, (ROWS,), generator=g).sort().values
    return torch.randn(ROWS, CHANNELS, generator=g, dtype=torch.float64), index


def outcome(aggr: nn.Module, *args: Any, **kwargs: Any) -> list[Tensor]:
    """The result and its gradients."""
    x = args[0].clone().requires_grad_()
    y = aggr(x, *args[1:], **kwargs)
    score = (harness._weights(y.double(), 0.7) * y).sum()
    return [y.detach(), *torch.autograd.grad(score, [x, *aggr.parameters()])]


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_by_itself(name: str) -> None:
    mine, theirs = build(name)
    x, index = rows()
    expected = outcome(theirs, x, index, dim_size=GROUPS)
    for a, b in zip(outcome(mine, x, index, dim_size=GROUPS), expected, strict=True):
        assert a.shape == b.shape
        assert harness.difference([a], [b]) < 1e-9
    assert repr(mine) == repr(theirs)


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_in_a_layer(name: str) -> None:
    """As the ``aggr`` of a layer; where it is read, nothing runs between kernels."""
    mine, _ = build(name)
    x, index = rows(1)
    graph = torch.stack([torch.arange(ROWS) % GROUPS, index])
    features = x[:GROUPS]
    width = mine(x, index, dim_size=GROUPS).shape[1]
    layer = SAGEConv(CHANNELS, 3, aggr=mine, root_weight=False)
    layer.lin_l = Linear(width, 3)
    layer = layer.double()
    expected = layer.lin_l(mine(features[graph[0]], index, dim_size=GROUPS))
    for backend in ("torch", "cpp"):
        set_backend(layer, backend)
        assert harness.difference([layer(features, graph)], [expected]) < 1e-9
    reads = AGGREGATIONS[name][1]
    assert ("aggr_module: read into the program" in layer.explain()) == reads


def test_groups_as_ranges_and_other_dims() -> None:
    x, index = rows()
    ptr = torch.cat([torch.zeros(1, dtype=torch.long), torch.bincount(index, minlength=GROUPS).cumsum(0)])
    expected = ours.MeanAggregation()(x, index, dim_size=GROUPS)
    assert torch.equal(ours.MeanAggregation()(x, ptr=ptr), expected)
    assert torch.equal(ours.MeanAggregation()(x.t(), index, dim_size=GROUPS, dim=1), expected.t())
    blocks = x.view(ROWS, 2, 2)
    assert torch.equal(
        ours.MaxAggregation()(blocks, index, dim_size=GROUPS, dim=0).flatten(1),
        ours.MaxAggregation()(x, index, dim_size=GROUPS),
    )
    assert torch.equal(ours.SumAggregation()(x), x.sum(0, keepdim=True)) or torch.allclose(
        ours.SumAggregation()(x), x.sum(0, keepdim=True)
    )
    assert len(ours.SumAggregation()(x, index)) == int(index.max()) + 1


@pytest.mark.parametrize(
    "call",
    [
        lambda a, x, i: a.SumAggregation()(x, i, dim_size=2),
        lambda a, x, i: a.SumAggregation()(x, ptr=torch.tensor([0, ROWS]), dim_size=3),
        lambda a, x, i: a.SumAggregation()(x, i, dim=4),
        lambda a, x, i: a.SoftmaxAggregation(learn=True, semi_grad=True),
        lambda a, x, i: a.SoftmaxAggregation(channels=3),
        lambda a, x, i: a.PowerMeanAggregation(channels=3),
        lambda a, x, i: a.QuantileAggregation(1.5),
        lambda a, x, i: a.QuantileAggregation([]),
        lambda a, x, i: a.QuantileAggregation(0.5, "cubic"),
        lambda a, x, i: a.MultiAggregation([]),
        lambda a, x, i: a.MultiAggregation("mean"),
        lambda a, x, i: a.MultiAggregation(["mean"], [{}, {}]),
        lambda a, x, i: a.MultiAggregation(["mean", "avg"]),
        lambda a, x, i: a.MultiAggregation(["mean"], mode="proj"),
        lambda a, x, i: a.DegreeScalerAggregation(3, "linear", HISTOGRAM),
        lambda a, x, i: a.LSTMAggregation(4, 3)(x.float(), i.flip(0)),
        lambda a, x, i: a.LCMAggregation(4, 3, project=False),
        lambda a, x, i: a.SetTransformerAggregation(4)(x.float(), i.flip(0)),
    ],
)
def test_refusals(call: Callable[..., Any]) -> None:
    x, index = rows()
    for library in (pyg.aggr, ours):
        with pytest.raises(ValueError):
            call(library, x, index)


@pytest.mark.filterwarnings("ignore:.*global_sort_pool")
def test_global_sort_pool() -> None:
    from torch_geometric.nn.glob import global_sort_pool

    x, index = rows()
    x, index = x[:, :CHANNELS], index.sort()[0]
    for k in (2, 9):
        assert torch.equal(pool.global_sort_pool(x, index, k), global_sort_pool(x, index, k))


def test_nothing_to_aggregate() -> None:
    nothing = torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)
    assert ours.MeanAggregation()(*nothing, dim_size=0).shape == (0, 3)
    assert ours.MaxAggregation()(*nothing, dim_size=2).tolist() == [[0.0] * 3] * 2
    for walk in (ours.LSTMAggregation(3, 2, bidirectional=True), ours.GRUAggregation(3, 4)):
        assert walk(*nothing, dim_size=2).tolist() == [[0.0] * 4] * 2
    assert SAGEConv(3, 2, aggr="lstm")(torch.ones(5, 3), torch.zeros(2, 0, dtype=torch.long)).shape == (5, 2)
    assert pool.TopKPooling(3, min_score=0.5)(nothing[0], torch.zeros(2, 0, dtype=torch.long))[0].shape == (0, 3)
    assert WLConv().histogram(nothing[1]).numel() == 0


NETWORKS = {
    **{name: make for name, (make, reads) in AGGREGATIONS.items() if not reads and "quantile" not in name},
    "equilibrium": lambda a: a.EquilibriumAggregation(CHANNELS, 3, [5, 6], grad_iter=2),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_draw_the_same(name: str) -> None:
    made = []
    for library in (ours, pyg.aggr):
        torch.manual_seed(0)
        made.append(NETWORKS[name](library))
    for again in (False, True):
        for aggr in made if again else ():
            torch.manual_seed(1)
            aggr.reset_parameters()
        states = [aggr.state_dict() for aggr in made]
        assert list(states[0]) == list(states[1])
        assert harness.difference(*[list(state.values()) for state in states]) == 0


@pytest.mark.parametrize("grad", [True, False])
def test_equilibrium(grad: bool) -> None:
    results = []
    for library in (ours, pyg.aggr):
        torch.manual_seed(0)
        aggr = library.EquilibriumAggregation(CHANNELS, 3, [5, 6], grad_iter=2).double()
        x, index = rows()
        x.requires_grad_()
        with torch.set_grad_enabled(grad):
            y = aggr(x, index, dim_size=GROUPS)
        wanted = [x, *aggr.parameters()]
        results.append([y, *(g for g in torch.autograd.grad(y.sum(), wanted, allow_unused=True) if g is not None)]
                       if grad else [y])  # fmt: skip
    assert harness.difference(*results) < 1e-5  # torch_geometric begins in float32
    assert results[0][0].dtype is torch.float64
    assert results[0][0].requires_grad == grad
    assert repr(aggr) == "EquilibriumAggregation()"
    assert ours.EquilibriumAggregation(CHANNELS, 3, [5])(rows()[0].float()).shape == (1, 3)


def test_parts_of_sets() -> None:
    from torch_geometric.nn.aggr import utils

    from gdsl.nn.aggr import sets

    for name in ("MultiheadAttentionBlock", "SetAttentionBlock", "PoolingByMultiheadAttention"):
        for args in ((4,), (4, 2)):
            a, b = (getattr(module, name)(*args) for module in (sets, utils))
            assert repr(a) == repr(b)
    with pytest.raises(AssertionError, match="aggregations are of"):
        ours.PatchTransformerAggregation(4, 3, 2, 4, aggr="median")
    assert ours.LCMAggregation(4, 3)(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), dim_size=2).shape == (2, 3)


def test_a_number_that_changes() -> None:
    """What is read of an aggregation is read again when it changes."""
    aggr = ours.SoftmaxAggregation(t=1.0)
    x, index = rows()
    aggr(x, index, dim_size=GROUPS)
    aggr.t = 3.0
    assert (
        harness.difference(
            [aggr(x, index, dim_size=GROUPS)], [pyg.aggr.SoftmaxAggregation(t=3.0)(x, index, dim_size=GROUPS)]
        )
        < 1e-12
    )


def of_a_user(library: Any, how: str) -> nn.Module:
    """An aggregation in torch, with what the base has for those."""

    class Own(library.Aggregation):  # type: ignore[misc, name-defined]
        def forward(
            self, x: Tensor, index: Any = None, ptr: Any = None, dim_size: Any = None, dim: int = -2
        ) -> Tensor:
            if how != "dense":
                return self.reduce(x, index, ptr, dim_size, dim, reduce=how)  # type: ignore[no-any-return]
            block, mask = self.to_dense_batch(x, index, ptr, dim_size, dim, fill_value=0.5, max_num_elements=3)
            return (block * mask.unsqueeze(-1)).sum(1) + block.amax(1)  # type: ignore[no-any-return]

    return Own()


@pytest.mark.parametrize("how", ["sum", "add", "mean", "max", "min", "mul", "dense"])
def test_what_an_aggregation_of_a_users_own_asks_for(how: str) -> None:
    """By itself, along another dimension, by ranges of rows, and inside a layer."""
    own, their = of_a_user(ours, how), of_a_user(import_module("torch_geometric.nn.aggr"), how)
    index = torch.arange(ROWS) // 5
    x = torch.randn(ROWS, CHANNELS, dtype=torch.float64)
    found, expected = (x.clone().requires_grad_() for _ in range(2))
    for aggregation, leaf in ((own, found), (their, expected)):
        aggregation(leaf, index, dim_size=GROUPS).square().sum().backward()
    assert torch.allclose(own(x, index, dim_size=GROUPS), their(x, index, dim_size=GROUPS))
    assert torch.allclose(found.grad, expected.grad)  # type: ignore[arg-type]
    if how != "dense":
        assert torch.allclose(own(x, index.flip(0)), their(x, index.flip(0)))
        ranges = torch.tensor([0, 4, 4, 9, ROWS])
        turned = x.t().contiguous()
        assert torch.allclose(own(turned, ptr=ranges, dim=1), own(x, ptr=ranges).t())
        assert torch.allclose(own(turned, index, dim=1), their(turned, index, dim=1))
    edges = harness.random_edges(GROUPS, ROWS, seed=0)
    edges = edges[:, edges[1].argsort(stable=True)]
    nodes = torch.randn(GROUPS, CHANNELS)
    theirs = import_module("torch_geometric.nn").SAGEConv(CHANNELS, 3, aggr=their)
    layer = SAGEConv(CHANNELS, 3, aggr=own)
    layer.load_state_dict(theirs.state_dict())
    assert torch.allclose(layer(nodes, edges), theirs(nodes, edges), atol=1e-5)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda a: a.reduce(torch.ones(3, 2)), RuntimeError, "requires 'index'"),
        (lambda a: a.reduce(torch.ones(3, 2), torch.zeros(3).long(), reduce="most"), ValueError, "invalid `reduce`"),
        (lambda a: a.to_dense_batch(torch.ones(3, 2)), NotImplementedError, "requires 'index'"),
        (lambda a: a.to_dense_batch(torch.ones(3, 2), torch.tensor([1, 0, 1])), ValueError, "not sorted"),
        (lambda a: a.to_dense_batch(torch.ones(3), torch.zeros(3).long()), ValueError, "two-dimensional"),
        (lambda a: a.to_dense_batch(torch.ones(3, 2), torch.zeros(3).long(), dim=1), ValueError, "first dimension"),
    ],
)
def test_mistakes_of_an_aggregation_of_a_users_own(call: Any, error: type[Exception], says: str) -> None:
    for library in (ours, import_module("torch_geometric.nn.aggr")):
        with pytest.raises(error, match=says):
            call(library.Aggregation())
