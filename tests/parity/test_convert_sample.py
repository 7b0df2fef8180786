"""gdsl.nn.convert with a sample: outputs and gradients of both models are compared."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gdsl
import gdsl.nn as ours
from tests.parity.converted import convert, edges, features, is_ours, net, theirs


def test_a_sample_changes_nothing() -> None:
    model = net()
    model.first.cached = True
    state = copy.deepcopy(model.state_dict())
    draws = torch.get_rng_state()
    convert(model, sample=(features(), edges()))
    assert torch.equal(draws, torch.get_rng_state())
    assert model.training and all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert model.first._cached_edge_index is None and all(p.grad is None for p in model.parameters())
    convert(theirs.Linear(2, 2).double(), sample=torch.ones(1, 2, dtype=torch.float64))
    convert(theirs.GCNConv(5, 2).double(), sample={"edge_index": edges(), "x": features()})


class Apart(nn.Module):
    """A model that knows whose its layer is: not the same before and after."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = theirs.GCNConv(5, 4)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        y: Tensor = self.conv(x, edge_index)
        return y + 0.5 * y.square() if isinstance(self.conv, ours.GCNConv) else y


@pytest.mark.parametrize("inplace", [False, True])
def test_a_difference_is_an_error(inplace: bool) -> None:
    model = Apart().double()
    with pytest.raises(gdsl.InputError) as error:
        convert(model, sample=(features(), edges()), inplace=inplace)
    for words in ("output is ", "off at [", "the gradient of conv.lin.weight", "the gradient of argument 0"):
        assert words in str(error.value)
    assert type(model.conv) is theirs.GCNConv, "nothing is changed"
    convert(model, sample=(features(), edges()), tolerance=1e3)


class Wide(Apart):
    def forward(self, x: Tensor, edge_index: Tensor) -> Any:
        y: Tensor = self.conv(x, edge_index)
        return (y, y[:1]) if isinstance(self.conv, ours.GCNConv) else (y, y.float())


def test_other_shapes_and_dtypes_are_an_error() -> None:
    with pytest.raises(gdsl.InputError, match=r"output\[1\] is float64\[1, 4\], and was float32\[9, 4\]"):
        convert(Wide().double(), sample=(features(), edges()))


def test_what_is_recomputed_has_no_gradients_to_compare() -> None:
    def make(**options: Any) -> nn.Module:
        return theirs.DeepGCNLayer(theirs.GCNConv(5, 5), nn.LayerNorm(5), nn.ReLU(), **options).double()

    with pytest.raises(gdsl.InputError, match=r"torch\.utils\.checkpoint.* leave `sample` out"):
        convert(make(ckpt_grad=True).train(), sample=(features(), edges()))
    assert is_ours(convert(make(ckpt_grad=True)))
    convert(make(), sample=(features(), edges()))


def test_noise_is_no_difference() -> None:
    """In float32 a gradient that is 0 in exact numbers is the rest of larger ones."""
    torch.manual_seed(0)
    model = theirs.GAT(5, 8, 3, 2, heads=2)
    for seed in range(3):
        convert(model, sample=(features(seed=seed).float(), edges(seed)))
