"""Aggregations and readouts called by themselves under torch.compile and torch.export: one operator, for any sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

import gdsl.nn as gnn

CHANNELS = 3
# Rows and groups, the same in no two calls.
SIZES = [(7, 2), (9, 4), (20, 5)]

MAKERS: dict[str, Callable[[], nn.Module]] = {
    "sum": gnn.SumAggregation,
    "std": gnn.StdAggregation,
    "softmax": lambda: gnn.SoftmaxAggregation(learn=True, channels=CHANNELS),
    "several": lambda: gnn.MultiAggregation(["mean", "max", "var"]),
    "attention": lambda: gnn.AttentionalAggregation(nn.Sequential(nn.Linear(CHANNELS, 4), nn.Tanh(), nn.Linear(4, 1))),
    "a part that runs": lambda: gnn.DeepSetsAggregation(nn.Sequential(nn.Linear(CHANNELS, 4), nn.PReLU())),
}


@pytest.fixture(autouse=True)
def _fresh_tracer() -> None:
    torch._dynamo.reset()
    counters.clear()


def rows(size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    count, groups = size
    random = torch.Generator().manual_seed(count)
    return torch.randn(count, CHANNELS, generator=random), torch.randint(groups, (count,), generator=random)


@pytest.mark.parametrize(
    ("name", "told"),
    [*((name, name in ("std", "several")) for name in MAKERS), pytest.param("sum", True, marks=pytest.mark.slow)],
)
def test_whole_and_for_all_sizes(name: str, told: bool) -> None:
    """With the number of groups and without: results and gradients, and no new trace for a third size."""
    torch.manual_seed(0)
    made = MAKERS[name]()
    compiled = torch.compile(made, backend="aot_eager", fullgraph=True)
    traced = []
    for size in SIZES:
        x, index = rows(size)
        count = size[1] if told else None
        results = []
        for call in (made, compiled):
            leaf = x.clone().requires_grad_()
            made.zero_grad()
            y = call(leaf, index, dim_size=count)
            y.square().sum().backward()
            results.append([y, leaf.grad, *(p.grad for p in made.parameters())])
        for found, expected in zip(*results[::-1], strict=True):
            torch.testing.assert_close(found, expected)
        traced.append(counters["stats"]["unique_graphs"])
    assert traced[1] == traced[2]


def test_what_decides_the_program_is_looked_at() -> None:
    made = gnn.PowerMeanAggregation(p=2.0)
    compiled = torch.compile(made, backend="eager", fullgraph=True)
    x, index = rows(SIZES[0])
    for exponent in (2.0, 3.0):
        made.p = exponent
        torch.testing.assert_close(compiled(x.abs(), index), made(x.abs(), index))


def scaled(scaler: str) -> nn.Module:
    return gnn.DegreeScalerAggregation("mean", [scaler], torch.tensor([0, 3, 4]))


ALIKE: dict[str, list[Callable[[], nn.Module]]] = {
    "lists of names": [lambda: scaled("identity"), lambda: scaled("amplification")],
    "nothing and a number": [
        lambda: gnn.PowerMeanAggregation(2.0, clamp_min=None, clamp_max=None),
        lambda: gnn.PowerMeanAggregation(2.0, clamp_min=None, clamp_max=0.5),
    ],
    "parts": [lambda a=a: gnn.DeepSetsAggregation(nn.Sequential(a)) for a in (nn.ReLU(), nn.Tanh(), nn.ELU(0.7))],
}


@pytest.mark.parametrize("name", ALIKE)
def test_modules_of_one_class_that_differ(name: str) -> None:
    """The tracer takes the trace of another module of the class where it sees no difference. Also in layers."""
    x, index = rows(SIZES[0])
    x = x.abs()
    edges = torch.stack([torch.arange(len(index)), index])
    for make in ALIKE[name]:
        made, layer = make(), gnn.SAGEConv(CHANNELS, 2, aggr=make())
        torch.testing.assert_close(torch.compile(made, backend="eager", fullgraph=True)(x, index), made(x, index))
        compiled = torch.compile(layer, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(x, edges), layer(x, edges))


def test_other_shapes() -> None:
    """Another dimension, ranges of rows, one number a row, no groups."""
    x, index = rows(SIZES[0])
    ranges = torch.tensor([0, 3, 3, 7])
    made = gnn.MeanAggregation()
    compiled = torch.compile(made, backend="eager", fullgraph=True)
    calls: list[tuple[Any, dict[str, Any]]] = [
        (x.t().contiguous(), {"index": index, "dim": 1}),
        (x, {"ptr": ranges}),
        (x[:, 0].contiguous(), {"index": index, "dim": 0}),
        (x, {}),
        (torch.stack([x, 2 * x]), {"index": index, "dim": 1}),
    ]
    for value, more in calls:
        torch.testing.assert_close(compiled(value, **more), made(value, **more))


def test_a_group_that_there_is_not_is_an_error() -> None:
    x, index = rows(SIZES[1])
    compiled = torch.compile(gnn.SumAggregation(), backend="eager", fullgraph=True)
    with pytest.raises((ValueError, RuntimeError, IndexError)):
        compiled(x, index + 5, dim_size=4)


class Classifier(nn.Module):
    """Of whole graphs."""

    def __init__(self, size: int | None) -> None:
        super().__init__()
        self.conv, self.out, self.size = gnn.GCNConv(CHANNELS, 4), nn.Linear(8, 2), size

    def forward(self, x: Tensor, edge_index: Tensor, batch: Tensor) -> Tensor:
        h = self.conv(x, edge_index).relu()
        pooled = [gnn.global_mean_pool(h, batch, self.size), gnn.global_max_pool(h, batch, self.size)]
        return self.out(torch.cat(pooled, dim=-1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("size", [5, None])
def test_a_classifier_of_graphs_is_exported(size: int | None) -> None:
    model = Classifier(size).eval()
    nodes, edges = torch.export.Dim("nodes", min=2), torch.export.Dim("edges", min=2)

    def given(size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
        x, batch = rows(size)
        return x, torch.randint(size[0], (2, 3 * size[0])), batch.sort().values

    exported = torch.export.export(model, given(SIZES[0]), dynamic_shapes=({0: nodes}, {1: edges}, {0: nodes}))
    for size_ in SIZES:
        arguments = given(size_)
        torch.testing.assert_close(exported.module()(*arguments), model(*arguments))
