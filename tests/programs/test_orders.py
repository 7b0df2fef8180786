"""Programs in orders that few graphs ask for: the same numbers and two derivatives, whatever is multiplied first."""

from __future__ import annotations

import pytest

import gdsl
from gdsl.passes import layout, reassociate
from tests.programs import harness

WITH_MATRICES = ["GCN", "SAGE_mean", "NNConv", "GMMConv", "RGCN", "RGCN_bases", "FiLM", "SplineConv", "HGT"]
# Sums of outer products by an integer of an edge, by several, and by an integer of a node.
BY_KIND = ["RGCN", "FiLM", "SplineConv", "HGT"]


def _agrees(made: gdsl.Layer, name: str, edges: int = 30) -> None:
    values = harness.inputs(made, harness.random_edges(9, edges, seed=2), 9)
    expected = harness.oracle(harness.twin(made, "torch"), values)
    for a, b in zip(harness.run(made, values), expected, strict=True):
        assert harness.difference(a, b) < 1e-9, name


@pytest.mark.parametrize("backend", ["cpp", "triton"])
@pytest.mark.parametrize("order", ["first", "last"])
@pytest.mark.parametrize("name", WITH_MATRICES)
def test_products_before_or_after_sums(name: str, order: str, backend: str) -> None:
    made = harness.layer(name, backend)
    made.choose(aggregate=order)
    _agrees(made, name)


@pytest.mark.parametrize("backend", ["cpp", "triton"])
@pytest.mark.parametrize("edges", [0, 30])
@pytest.mark.parametrize("name", BY_KIND)
def test_outer_products_of_many_kinds(name: str, edges: int, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "MAX_ACCUMULATOR", 0)
    monkeypatch.setattr(reassociate, "PROPOSALS", [reassociate.matrix_an_edge])
    made = harness.layer(name, backend)
    made.choose(aggregate="last")
    _agrees(made, name, edges)
    steps = [s for _, plan in made._inspect().plans for s in plan.steps]
    assert any(o.op == "grouped_product" for s in steps for o in s.outputs)
