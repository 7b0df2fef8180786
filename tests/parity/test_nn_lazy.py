"""Sizes of -1, which the first call tells: the same state, words and numbers after it, and states that load."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import Any

import pytest
import torch
from torch.nn.parameter import UninitializedParameter

import gdsl.nn
from tests.parity.drop_in import Case, build, draw, outcome, pyg, set_backend
from tests.programs import harness

FAMILIES = ("basic", "simple", "spectral", "attention", "edge", "points", "relations", "types", "mixed")

# Where torch_geometric's layer refuses -1, or does not survive its first call; those of ours that take it are tried in
# their families. ARMAConv with one layer gets a second root weight there, which is never read.
NOT_THERE = {
    "AntiSymmetricConv", "APPNP", "ARMAConv", "ChebConv", "CGConv", "DNAConv", "EGConv", "FastRGCNConv", "GCN2Conv",
    "GatedGraphConv", "MixHopConv", "NNConv", "PDNConv", "PNA", "PNAConv", "RGATConv", "RGCNConv", "SSGConv", "TAGConv",
    "ResGatedGraphConv edge_attr",
}  # fmt: skip


def lazy(case: Case) -> Case | None:
    """The same layer with -1 for the sizes of its inputs; None where its first argument is none."""
    first: Any = case.args[0] if case.args else None
    if isinstance(first, bool) or not isinstance(first, int | tuple):
        return None
    return replace(case, args=(-1 if isinstance(first, int) else (-1, -1), *case.args[1:]))


TABLES = [case for name in (*FAMILIES, "models") for case in import_module(f"tests.parity.test_nn_{name}").CASES]
CASES = {
    case.id: case
    for case in map(lazy, TABLES)
    if case is not None and not {case.layer, case.id} & NOT_THERE and case.note != "refused" and case.x != "source"
}


FIRST = {case.layer: case for case in reversed(CASES.values())}


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=name, marks=[] if FIRST[case.layer] is case else pytest.mark.slow)
        for name, case in CASES.items()
    ],
)
def test_first_call(case: Case) -> None:
    ours, theirs = build(case, gdsl.nn, {}), build(case, pyg, {})
    set_backend(ours, "torch")
    assert repr(ours) == repr(theirs)
    sizes = [
        {k: None if isinstance(v, UninitializedParameter) else v.shape for k, v in layer.named_parameters()}
        for layer in (ours, theirs)
    ]
    assert sizes[0] == sizes[1]
    assert None in sizes[0].values(), "nothing is lazy"
    first, graph, values = draw(case, 1)
    for layer in (ours, theirs):
        layer(*first, *(() if graph is None else (graph,)), **values)
    assert repr(ours) == repr(theirs)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}
    ours.load_state_dict(theirs.state_dict())
    found, expected = (outcome(layer, first, graph, values) for layer in (ours, theirs))
    assert harness.difference(list(found.values()), list(expected.values())) < max(case.exact, 1e-9)


def test_states_of_lazy_layers() -> None:
    x, edges = torch.randn(9, 5), torch.randint(9, (2, 24))
    for name in ("GCNConv", "SAGEConv", "GATConv", "TransformerConv", "GraphConv"):
        known = getattr(pyg, name)(5, 4)
        layer = getattr(gdsl.nn, name)(-1, 4)
        layer.load_state_dict(known.state_dict())
        assert torch.allclose(layer(x, edges), known(x, edges), atol=1e-5)
