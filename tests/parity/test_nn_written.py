"""Writing to the input of a layer before its backward pass, as ``h += conv(h)`` does: torch_geometric's gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gdsl.nn as ours

theirs = pytest.importorskip("torch_geometric.nn")

EDGES = torch.tensor([[0, 1, 2, 3, 3, 4, 5, 1, 0], [1, 1, 0, 4, 3, 2, 0, 5, 5]])

LAYERS: dict[str, Callable[[Any], nn.Module]] = {
    # Their gradients need the input, and torch_geometric has a copy of it on the edges.
    "EdgeConv": lambda n: n.EdgeConv(nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 4))),
    "CGConv": lambda n: n.CGConv(4),
    "GINConv": lambda n: n.GINConv(nn.Linear(4, 4)),
    "GENConv": lambda n: n.GENConv(4, 4),
    "PNAConv": lambda n: n.PNAConv(4, 4, ["mean", "max"], ["identity"], torch.tensor([1, 2, 3])),
    "MFConv": lambda n: n.MFConv(4, 4),
    "FeaStConv": lambda n: n.FeaStConv(4, 4),
    "GeneralConv": lambda n: n.GeneralConv(4, 4),
    "SimpleConv max": lambda n: n.SimpleConv("max"),
    "SimpleConv min": lambda n: n.SimpleConv("min"),
    # And those whose gradients do not.
    "SimpleConv": lambda n: n.SimpleConv(),
    "SimpleConv mean": lambda n: n.SimpleConv("mean"),
    "LGConv": lambda n: n.LGConv(),
    "APPNP": lambda n: n.APPNP(2, 0.1),
}


def _gradient(layer: nn.Module, write: bool) -> Tensor:
    x = torch.linspace(-1, 1, 24, dtype=torch.float64).view(6, 4).requires_grad_()
    h = x * 1
    y = layer(h, EDGES)
    if write:
        h += y
    else:
        h = h + y
    h.square().sum().backward()
    assert x.grad is not None
    return x.grad


@pytest.mark.parametrize("name", LAYERS)
def test_an_input_that_is_written_to(name: str) -> None:
    layer, twin = LAYERS[name](ours).double(), LAYERS[name](theirs).double()
    twin.load_state_dict(layer.state_dict())
    expected = _gradient(twin, True)
    for write in (True, False):
        torch.testing.assert_close(_gradient(layer, write), expected, rtol=1e-9, atol=1e-9)
