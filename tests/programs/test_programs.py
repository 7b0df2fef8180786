"""Every program of the collection on every backend: values, gradients and second derivatives."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.programs import harness
from tests.programs.sources import PROGRAMS

# Its aggregator is a torch module with a recurrence: see test_module_aggregator.
NAMES = [name for name in PROGRAMS if name != "SAGE_module"]
LISTED = [
    "GCN", "SAGE_mean", "SAGE_max", "GAT_edge", "GATv2", "GIN", "EdgeConv", "APPNP", "RGCN", "SAGE_bipartite",
    "TwoRounds",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_backends_agree_with_torch_autograd(name: str) -> None:
    compiled = harness.layer(name, "cpp")
    plain = harness.twin(compiled, "torch")
    values = harness.inputs(compiled, harness.random_edges(9, 24, seed=1), 9)
    expected = harness.oracle(plain, values)
    for made in (compiled, plain):
        found = harness.run(made, values)
        for order, (a, b) in enumerate(zip(found, expected, strict=True)):
            assert harness.difference(a, b) < 1e-9, f"{made.backend}: derivative of order {order}"


@pytest.mark.parametrize("graph", harness.HARD_GRAPHS)
@pytest.mark.parametrize("name", LISTED)
def test_hard_graphs(name: str, graph: str) -> None:
    compiled = harness.layer(name, "cpp")
    plain = harness.twin(compiled, "torch")
    edges = torch.tensor(harness.HARD_GRAPHS[graph], dtype=torch.long)
    values = harness.inputs(compiled, edges, 7)
    for a, b in zip(harness.run(compiled, values), harness.run(plain, values), strict=True):
        assert harness.difference(a, b) < 1e-9
    assert all(torch.isfinite(t).all() for part in harness.run(compiled, values) for t in part)


@pytest.mark.parametrize("name", LISTED)
def test_no_nodes(name: str) -> None:
    compiled = harness.layer(name, "cpp")
    values = harness.inputs(compiled, torch.zeros(2, 0, dtype=torch.long), 0)
    outputs, _, _ = harness.run(compiled, values)
    assert all(o.shape[0] == 0 for o in outputs)


_layers: dict[str, object] = {}


@given(
    name=st.sampled_from(LISTED),
    nodes=st.integers(1, 12),
    edges=st.integers(0, 40),
    seed=st.integers(0, 10**6),
)
def test_random_graphs(name: str, nodes: int, edges: int, seed: int) -> None:
    if name not in _layers:
        _layers[name] = harness.layer(name, "cpp")
    compiled = _layers[name]
    plain = harness.twin(compiled, "torch")
    values = harness.inputs(compiled, harness.random_edges(nodes, edges, seed), nodes, seed)
    for a, b in zip(harness.run(compiled, values), harness.run(plain, values), strict=True):
        assert harness.difference(a, b) < 1e-9


@pytest.mark.parametrize("name", LISTED)
def test_float32(name: str) -> None:
    """float32 against float64: 1e-5, as the backends promise."""
    exact = harness.layer(name, "cpp")
    single = harness.twin(exact, "cpp").float()
    values = harness.inputs(exact, harness.random_edges(9, 24, seed=2), 9)
    narrow = {k: v.float() if isinstance(v, torch.Tensor) and v.is_floating_point() else v for k, v in values.items()}
    with torch.no_grad():
        a, b = single(**narrow), exact(**values)
    for x, y in zip(a if isinstance(a, tuple) else (a,), b if isinstance(b, tuple) else (b,), strict=True):
        torch.testing.assert_close(x.double(), y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", LISTED)
def test_same_bits(name: str) -> None:
    """Forward and backward give the same bits on every run and with any number of threads."""
    made = harness.layer(name, "cpp")
    values = harness.inputs(made, harness.random_edges(400, 20_000, seed=3), 400)
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 2, 2):
            torch.set_num_threads(count)
            outputs, first, _ = harness.run(made, values)
            found.append([*outputs, *first])
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        # Dense products are torch's own; with another number of threads it may add in another order.
        same = torch.equal if other is found[2] else lambda a, b: torch.allclose(a, b, rtol=1e-12, atol=1e-12)
        reference = found[1] if other is found[2] else found[0]
        assert all(same(a, b) for a, b in zip(reference, other, strict=True))
