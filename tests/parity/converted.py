"""What the tests of gdsl.nn.convert share: a model with layers of all sorts, and whether two give the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gdsl.nn as ours
from gdsl.nn.conversion.twins import kind_of

theirs: Any = pytest.importorskip("torch_geometric.nn")

N = 9


def edges(seed: int = 1) -> Tensor:
    return torch.randint(N, (2, 30), generator=torch.Generator().manual_seed(seed))


def features(size: int = 5, seed: int = 2) -> Tensor:
    return torch.randn(N, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def convert(model: nn.Module, **options: Any) -> Any:
    return ours.convert(model, verbose=False, **options)


def is_ours(module: nn.Module) -> bool:
    return kind_of(module).__module__.startswith("gdsl.")


def near(found: Any, wanted: Any) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)


class Mine(theirs.MessagePassing):  # type: ignore[misc]
    """A layer of a user's own."""

    def __init__(self, size: int):
        super().__init__()
        self.lin = theirs.Linear(size, size)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        result: Tensor = self.propagate(edge_index, x=self.lin(x))
        return result

    def message(self, x_j: Tensor) -> Tensor:
        return x_j.tanh()


class Scaled(theirs.GCNConv):  # type: ignore[misc]
    """A layer of torch_geometric's with a message of a user's own."""

    def message(self, x_j: Tensor, edge_weight: Tensor) -> Tensor:
        return 2 * edge_weight.view(-1, 1) * x_j


class Net(nn.Module):
    """Layers of all sorts, one of them twice, and lists and methods that modules keep besides their parts."""

    def __init__(self) -> None:
        super().__init__()
        self.first = theirs.GCNConv(5, 5)
        self.own = Mine(5)
        self.scaled = Scaled(5, 5)
        gin = theirs.GINConv(nn.Sequential(nn.Linear(5, 5), nn.ReLU(), theirs.Linear(5, 5)))
        self.convs = nn.ModuleList([gin, self.first])
        self.norm = theirs.BatchNorm(5)
        self.readout = theirs.MeanAggregation()
        self.order = [self.own, self.scaled]
        self.act = self.squashed

    def squashed(self, x: Tensor) -> Tensor:
        return self.norm(x).tanh()  # type: ignore[no-any-return]

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        x = self.act(self.first(x, edge_index))
        for conv in self.order:
            x = conv(x, edge_index)
        for conv in self.convs:
            x = conv(x, edge_index)
        return self.readout(x)  # type: ignore[no-any-return]


def net() -> Net:
    torch.manual_seed(0)
    return Net().double()
