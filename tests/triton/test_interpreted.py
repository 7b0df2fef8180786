"""The Triton backend in Triton's interpreter: every program, its gradients and second derivatives, as on the others."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gdsl.runtime import triton as runtime
from tests.programs import harness
from tests.programs.sources import PROGRAMS
from tests.programs.test_programs import LISTED, NAMES

pytestmark = pytest.mark.skipif(not runtime.interpreted(), reason="Triton was imported for a GPU, not to interpret")


@pytest.mark.parametrize("name", NAMES)
def test_every_program(name: str) -> None:
    made = harness.layer(name, "triton")
    plain = harness.twin(made, "torch")
    values = harness.inputs(made, harness.random_edges(9, 24, seed=1), 9)
    expected = harness.oracle(plain, values)
    for order, (a, b) in enumerate(zip(harness.run(made, values), expected, strict=True)):
        assert harness.difference(a, b) < 1e-9, f"derivative of order {order}"


@pytest.mark.parametrize("graph", harness.HARD_GRAPHS)
@pytest.mark.parametrize("name", LISTED)
def test_hard_graphs(name: str, graph: str) -> None:
    made = harness.layer(name, "triton")
    plain = harness.twin(made, "torch")
    edges = torch.tensor(harness.HARD_GRAPHS[graph], dtype=torch.long)
    values = harness.inputs(made, edges, 7)
    for a, b in zip(harness.run(made, values), harness.run(plain, values), strict=True):
        assert harness.difference(a, b) < 1e-9


@pytest.mark.parametrize("name", LISTED)
def test_no_nodes(name: str) -> None:
    made = harness.layer(name, "triton")
    values = harness.inputs(made, torch.zeros(2, 0, dtype=torch.long), 0)
    outputs, _, _ = harness.run(made, values)
    assert all(o.shape[0] == 0 for o in outputs)


@given(
    name=st.sampled_from([n for n in LISTED if n in PROGRAMS]),
    nodes=st.integers(1, 12),
    edges=st.integers(0, 40),
    seed=st.integers(0, 10**6),
)
def test_random_graphs(name: str, nodes: int, edges: int, seed: int) -> None:
    made = harness.layer(name, "triton")
    plain = harness.twin(made, "torch")
    values = harness.inputs(made, harness.random_edges(nodes, edges, seed), nodes, seed)
    for a, b in zip(harness.run(made, values), harness.run(plain, values), strict=True):
        assert harness.difference(a, b) < 1e-9
