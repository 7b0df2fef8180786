"""Inputs that a model writes to once a layer has read them, as ``h += conv(h)`` does: the gradients of the call."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.parity import drop_in
from tests.parity.drop_in import Case
from tests.parity.test_nn_convert import CASES
from tests.programs import harness

# Classes whose gradients need the inputs, and on which torch_geometric trains all the same: it has copies on the edges.
READING = (
    "EdgeConv CGConv GINEConv GENConv PNAConv MFConv FeaStConv GeneralConv PointNetConv PPFConv PointGNNConv "
    "ResGatedGraphConv PointTransformerConv GMMConv RGATConv HEATConv GIN PNA"
).split()
FIRST = {case.layer: case for case in reversed(CASES) if case.layer in READING}


def hidden(value: Any) -> Any:
    """What a model has computed from it."""
    if isinstance(value, tuple):
        return tuple(map(hidden, value))
    return value * 1.0 if isinstance(value, Tensor) and value.is_floating_point() else value


def gradients(layer: nn.Module, case: Case, *, writes: bool) -> list[Tensor]:
    first, graph, values = drop_in.draw(case, 1)
    first, values = drop_in.leaves(first), {k: drop_in.leaves(v) for k, v in values.items()}
    given = [*map(hidden, first)], {k: hidden(v) for k, v in values.items()}
    outputs = drop_in.flat(layer(*given[0], *(() if graph is None else (graph,)), **given[1]))
    if writes:
        for value in drop_in.flat([*given[0], *given[1].values()]):
            if value.is_floating_point():
                value.relu_().add_(1.0)
    score = sum((harness._weights(o.double(), 0.7) * o).sum() for o in outputs if o.is_floating_point())
    wanted = [t for t in drop_in.flat([*first, *values.values()]) if t.requires_grad] + list(layer.parameters())
    found = torch.autograd.grad(score, wanted, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for g, x in zip(found, wanted, strict=True)]


@pytest.mark.parametrize("layer", READING)
def test_inputs_are_written_to(layer: str) -> None:
    case = FIRST[layer]
    made = drop_in.pair(case, {})
    assert made is not None
    ours, theirs = made
    drop_in.same_state(case, ours, theirs)
    drop_in.set_backend(ours, "torch")
    for a, b in zip(*(gradients(ours, case, writes=w) for w in (False, True)), strict=True):
        assert torch.equal(a, b)
