"""The adjacency as a matrix of the real torch_sparse, for every layer: values and gradients, also by the matrix."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gdsl
import gdsl.nn
from tests.parity import drop_in
from tests.parity.drop_in import Case
from tests.programs import harness

torch_sparse = pytest.importorskip(
    "torch_sparse", reason="torch_sparse is not installed: it is built from source for one version of torch"
)

FAMILIES = "attention basic edge mesh mixed models points relations simple spectral types whole".split()
CASES = [
    case
    for family in FAMILIES
    for case in getattr(import_module(f"tests.parity.test_nn_{family}"), "CASES", ())
    if case.graph is not None
]
FIRST = {case.layer: case for case in reversed(CASES)}

# What edges may have, as an argument of the call or as the values of the matrix.
OF_EDGES = ("edge_weight", "edge_attr", "edge_type")

# "plain": the matrix has no values, "weights": a number for each edge, "inside": what the call has of edges otherwise.
WAYS = ("plain", "weights", "inside")

# Where ours are as with edges, and torch_geometric's with a matrix are not: docs/layers.md says how.
APART = {("EGConv", "weights"), ("ClusterGCNConv", "weights"), ("RGATConv", "inside")}
# Numbers for each edge where features of edges have another size, or relations are whole numbers: errors of ours.
NOT_MEANT = {("GeneralConv", "weights"), ("GENConv", "weights"), ("RGCNConv", "weights"), ("FiLMConv", "weights")}


def count_of(x: Any, end: int) -> int | None:
    x = x[end] if isinstance(x, tuple) else x
    return len(x) if isinstance(x, Tensor) else None


def flat(result: Any) -> list[Tensor]:
    if isinstance(result, tuple | list):
        return [tensor for part in result for tensor in flat(part)]
    if isinstance(result, torch_sparse.SparseTensor):
        return [result.to_dense()]
    return [result] if isinstance(result, Tensor) else []


def outcome(
    layer: nn.Module, first: tuple[Any, ...], graph: Tensor, values: Mapping[str, Any], inside: Any, sizes: Any
) -> dict[str, Tensor]:
    """Outputs, and gradients by every input, the values of the matrix and every parameter."""
    first, named = drop_in.leaves(first), {name: drop_in.leaves(value) for name, value in values.items()}
    inside = drop_in.leaves(inside)
    matrix = torch_sparse.SparseTensor(row=graph[1], col=graph[0], value=inside, sparse_sizes=sizes)
    torch.manual_seed(0)
    outputs = flat(layer(*first, matrix, **named))
    given = drop_in.flat([*first, *named.values(), *([] if inside is None else [inside])])
    wanted = {f"d/dinput {k}": t for k, t in enumerate(given) if t.requires_grad}
    wanted |= {f"d/d{name}": p for name, p in layer.named_parameters()}
    found = {f"output {k}": o.detach().double() for k, o in enumerate(outputs)}
    floats = [o for o in outputs if o.requires_grad]
    if floats and wanted:
        score = sum((harness._weights(o.double(), 0.7) * o).sum() for o in floats)
        grads = torch.autograd.grad(score, list(wanted.values()), allow_unused=True)
        found |= {k: torch.zeros_like(v) if g is None else g for (k, v), g in zip(wanted.items(), grads, strict=True)}
    return found


def in_order(case: Case) -> tuple[tuple[Any, ...], Tensor, dict[str, Any], tuple[int, int]] | None:
    """A call with its edges in the order of a matrix, and the sizes of that; None where no features tell them."""
    first, graph, values = drop_in.draw(case, 1)
    sources = count_of(first[0], 0)
    if sources is None or not isinstance(graph, Tensor):
        return None
    targets = count_of(first[0], 1) if isinstance(first[0], tuple) else sources
    targets = int(graph[1].max()) + 1 if targets is None else targets
    order = (graph[1] * sources + graph[0]).argsort(stable=True)
    of_edges = {name for name, v in values.items() if isinstance(v, Tensor) and v.shape[:1] == order.shape}
    values = {name: v[order] if name in of_edges else v for name, v in values.items()}
    return first, graph[:, order], dict(values), (targets, sources)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "case", [pytest.param(c, id=c.id, marks=[] if FIRST[c.layer] is c else pytest.mark.slow) for c in CASES]
)
def test_each_layer(case: Case, way: str) -> None:
    made, call = drop_in.pair(case, {}), in_order(case)
    if made is None or call is None:
        return
    ours, theirs = made
    drop_in.same_state(case, ours, theirs)
    drop_in.set_backend(ours, "torch")
    first, graph, values, sizes = call
    of_edges = [name for name in OF_EDGES if name in values]
    inside = None
    if way == "inside":
        if not of_edges:
            return
        inside = values.pop(of_edges[0])
    else:
        for name in of_edges:
            del values[name]
        if way == "weights":
            generator = torch.Generator().manual_seed(3)
            inside = torch.rand(graph.shape[1], dtype=torch.float64, generator=generator) + 0.1
    try:
        expected = outcome(theirs, first, graph, values, inside, sizes)
    except (ValueError, RuntimeError, AssertionError, TypeError, NotImplementedError, IndexError, AttributeError):
        return  # torch_geometric has no such call
    try:
        found = outcome(ours, first, graph, values, inside, sizes)
    except gdsl.InputError:
        assert (case.layer, way) in NOT_MEANT
        return
    assert found.keys() == expected.keys()
    wrong = {
        part
        for part, value in expected.items()
        if harness.difference([found[part].double()], [value.double()]) > max(case.exact, 1e-6)
    }
    if wrong and (case.layer, way) in APART:
        given = {of_edges[0]: inside} if way == "inside" else {}
        assert torch.allclose(found["output 0"], theirs(*first, graph, **values, **given).detach(), atol=1e-6)
        return
    assert not wrong


@pytest.mark.parametrize("layer", ["GCNConv", "SAGEConv", "GraphConv", "GATv2Conv"])
def test_transposed_and_kept(layer: str) -> None:
    """``adj.t()`` of a matrix by source, also one that torch_sparse has put in order itself."""
    graph = torch.stack([torch.arange(12) % 5, (torch.arange(12) * 3 + 1) % 5])
    x, weights = torch.randn(5, 4, dtype=torch.float64), torch.rand(12, dtype=torch.float64)
    conv = getattr(gdsl.nn, layer)(4, 3).double()
    matrix = torch_sparse.SparseTensor.from_edge_index(graph, sparse_sizes=(5, 5))
    assert torch.allclose(conv(x, matrix.t()), conv(x, graph), atol=1e-10)
    if layer in ("GCNConv", "GraphConv"):
        weighted = torch_sparse.SparseTensor.from_edge_index(graph, weights, sparse_sizes=(5, 5))
        assert torch.allclose(conv(x, weighted.t()), conv(x, graph, weights), atol=1e-10)
