"""Programs in orders that few graphs ask for: the same numbers and two derivatives, whatever is multiplied first."""

from __future__ import annotations

from typing import Any

import pytest

import gdsl
from gdsl.passes import dense, layout, reassociate, slots, tiles
from gdsl.runtime import cpp, execute
from tests.programs import harness
from tests.programs.test_programs import NAMES

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


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Every value of nodes that only products read is made one or two rows at a time. Returns how many tiles ran."""
    for module in (dense, slots, tiles):
        monkeypatch.setattr(module, "DENSE_INTENSITY", 0)
    monkeypatch.setattr(tiles, "LEAST_WIDTH", 1)
    monkeypatch.setattr(execute, "TILE_BYTES", 128)
    by_rows, seen = cpp.CppLaunch.by_rows, []

    def counted(self: cpp.CppLaunch, *given: Any) -> Any:
        for part in by_rows(self, *given):
            seen.append(part[1])
            yield part

    monkeypatch.setattr(cpp.CppLaunch, "by_rows", counted)
    return seen


# Programs none of whose values are read by products alone.
WITHOUT_TILES = set(
    "APPNP AGNN SuperGAT PointNetConv NNConv NNConv_module SplineConv RGCN_bases RGCN_blocks RGAT FiLM HGT Statistics"
    " Owned Tables NBFNet Geometry Selection".split()
)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in WITHOUT_TILES])
def test_a_few_rows_at_a_time(name: str, small_tiles: list[int]) -> None:
    _agrees(harness.layer(name, "cpp"), name)
    assert small_tiles


@pytest.mark.parametrize("backend", ["cpp", "triton"])
@pytest.mark.parametrize("edges", [0, 30])
@pytest.mark.parametrize("name", BY_KIND)
def test_outer_products_of_many_kinds(name: str, edges: int, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "MAX_ACCUMULATOR", 0)
    monkeypatch.setattr(reassociate, "PROPOSALS", [reassociate.matrix_an_edge])
    made = harness.layer(name, backend)
    made.choose(aggregate="last")
    _agrees(made, name, edges)
    steps = [s for _, plan in made._ran()[0].inspection.plans for s in plan.steps]
    assert any(o.op == "grouped_product" for s in steps for o in s.outputs)


# A dim of the message has the name of one that is summed inside it, or picked from.
SAME_NAMES = {
    "summed": """
        layer Back(f = 4, c = 3, u = 4) {
            node x[f]
            edge e[f]
            param a[f, c] ~ glorot
            param b[c, u] ~ glorot
            aggregate y = sum(rename((x[j] * e) @ a @ b, u -> f) + e)
            return y
        }
    """,
    "picked": """
        layer Outer(f = 4, o = 2, k = 3) {
            node x[f]
            edge e[k]
            edge rel: int(k)
            param w[k, f, o] ~ glorot
            aggregate y = sum(e * (x[j] @ w[rel]))
            return y
        }
    """,
}


@pytest.mark.parametrize("order", ["auto", "first", "last"])
@pytest.mark.parametrize("text", SAME_NAMES.values(), ids=SAME_NAMES)
def test_dims_of_one_name_stay_apart(text: str, order: str) -> None:
    made = gdsl.compile(text, backend="cpp").double()
    made.choose(aggregate=order)
    _agrees(made, made.definition.name)
