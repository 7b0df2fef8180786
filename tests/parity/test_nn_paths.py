"""PANConv against its formula on dense matrices: torch_geometric's needs torch_sparse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gdsl import Graph
from gdsl.nn import PANConv, pool
from tests.parity.drop_in import IN, NODES, graph_of, pyg, set_backend


def dense(layer: PANConv, graph: Tensor) -> Tensor:
    """M by powers of the adjacency matrix; Z counts the entries of a row, as torch_geometric's does."""
    adjacency = torch.zeros(NODES, NODES, dtype=torch.float64)
    for j, i in graph.t().tolist():
        adjacency[i, j] += 1
    powers = [torch.linalg.matrix_power(adjacency, n) for n in range(layer.filter_size + 1)]
    total = sum(layer.weight[: n + 1].prod() * power for n, power in enumerate(powers))
    root = sum(powers).ne(0).sum(1).double().rsqrt()  # type: ignore[union-attr]
    return root.unsqueeze(1) * total * root


@pytest.mark.parametrize("filter_size", [0, 1, 3])
@pytest.mark.parametrize("backend", ["torch", "cpp", pytest.param("triton", marks=pytest.mark.slow)])
def test_values_and_gradients(filter_size: int, backend: str) -> None:
    torch.manual_seed(0)
    layer = PANConv(IN, 4, filter_size).double()
    set_backend(layer, backend)
    assert list(layer.state_dict()) == ["weight", "lin.weight", "lin.bias"]
    assert repr(layer) == f"PANConv(5, 4, filter_size={filter_size})"
    assert torch.equal(layer.weight, torch.full((filter_size + 1,), 0.5, dtype=torch.float64))
    torch.nn.init.uniform_(layer.weight, 0.5, 1.5)
    graph = graph_of("any", 1, False)
    assert graph is not None
    x = torch.randn(NODES, IN, dtype=torch.float64, requires_grad=True)
    y, transition = layer(x, graph)
    matrix = dense(layer, graph)
    expected = layer.lin(matrix @ x)
    assert torch.allclose(y, expected)
    assert torch.allclose(transition.to_dense(), matrix)
    assert transition.layout is torch.sparse_coo
    assert torch.equal(transition.coalesce().indices().t(), matrix.nonzero())

    wanted = [x, *layer.parameters()]
    mix, weights = torch.randn_like(y), torch.randn_like(matrix)
    scores = [(mix * a).sum() + (weights * m).sum() for a, m in ((y, transition.to_dense()), (expected, matrix))]
    for a, b in zip(*(torch.autograd.grad(score, wanted) for score in scores), strict=True):
        assert torch.allclose(a, b)


def test_other_graphs_and_dtypes() -> None:
    graph = graph_of("any", 1, False)
    assert graph is not None
    x, layer = torch.randn(NODES, IN), PANConv(-1, 4, 2)
    y, transition = layer(x, graph)
    adjacency = torch.sparse_coo_tensor(
        graph.flip(0), torch.ones(graph.shape[1]), (NODES, NODES), check_invariants=True
    )
    for other in (Graph(graph, NODES), adjacency):
        if other is adjacency:  # coalesced: parallel edges are one
            y, transition = layer(x, adjacency.coalesce().indices().flip(0))
        found = layer(x, other)
        assert torch.allclose(found[0], y, atol=1e-6)
        assert torch.allclose(found[1].to_dense(), transition.to_dense(), atol=1e-6)
    expected = layer(x, graph)[0]
    half, transition = layer.bfloat16()(x.bfloat16(), graph)
    assert half.dtype is transition.dtype is torch.bfloat16
    assert torch.allclose(half.float(), expected, atol=0.1)


def test_refuses() -> None:
    graph = graph_of("any", 1, False)
    with pytest.raises(ValueError, match="aggregation 'max'"):
        PANConv(IN, 4, 2, aggr="max")
    with pytest.raises(ValueError, match="along the edges"):
        PANConv(IN, 4, 2, flow="target_to_source")(torch.randn(NODES, IN), graph)


class SparseTensor:
    """What torch_geometric's pooling asks of torch_sparse's class, which is not there."""

    def __init__(self, matrix: Tensor):
        self.matrix = matrix.coalesce()

    def coo(self) -> tuple[Tensor, Tensor, Tensor]:
        """Rows, columns and values."""
        return (*self.matrix.indices(), self.matrix.values())

    def sparse_sizes(self) -> tuple[int, int]:
        """How many of each."""
        return tuple(self.matrix.shape)


@pytest.mark.parametrize(
    "options", [{}, {"ratio": 3}, {"min_score": 0.05}, {"multiplier": 0.5, "nonlinearity": "relu"}]
)
def test_pooling(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    ours, theirs = (library.PANPooling(IN, **options).double() for library in (pool, pyg))
    ours.load_state_dict(theirs.state_dict())
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert repr(ours) == repr(theirs)
    batch = torch.arange(NODES) // 5
    x = torch.randn(NODES, IN, dtype=torch.float64, requires_grad=True)
    _, matrix = PANConv(IN, 4, 2).double()(x, graph_of("any", 1, False))
    values = matrix.detach().values().requires_grad_()

    def outcome(layer: nn.Module, kind: Callable[[Tensor], Any]) -> list[Tensor]:
        """Results and gradients."""
        given = torch.sparse_coo_tensor(matrix.detach().indices(), values, matrix.shape, check_invariants=True)
        found = layer(x, kind(given), batch)
        score = found[0].square().sum() + found[2].square().sum()
        return [*found, *torch.autograd.grad(score, [x, values, *layer.parameters()], materialize_grads=True)]

    expected = outcome(theirs, SparseTensor)
    for kind in (Tensor.coalesce, SparseTensor):
        for a, b in zip(outcome(ours, kind), expected, strict=True):
            assert a.shape == b.shape
            assert torch.allclose(a, b)
    assert ours(x, matrix)[3].sum() == 0
