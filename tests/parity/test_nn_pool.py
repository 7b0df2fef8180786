"""Readouts and poolings against torch_geometric's."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gdsl.nn import GCNConv, pool
from tests.parity.drop_in import NODES, graph_of, pyg
from tests.programs import harness


@pytest.mark.parametrize("name", ["global_add_pool", "global_mean_pool", "global_max_pool"])
@pytest.mark.parametrize("shape", [(NODES, 4), (NODES,)])
def test_readouts(name: str, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    batch = torch.arange(NODES) // 4
    for arguments in ((None,), (batch,), (batch, 5)):
        ours, theirs = getattr(pool, name)(x, *arguments), getattr(pyg, name)(x, *arguments)
        assert ours.shape == theirs.shape
        assert harness.difference([ours], [theirs]) < 1e-12
        mine, other = (torch.autograd.grad((y * y.detach().cos()).sum(), x)[0] for y in (ours, theirs))
        assert harness.difference([mine], [other]) < 1e-12


OPTIONS: list[dict[str, Any]] = [
    {}, {"ratio": 0.8}, {"ratio": 2}, {"min_score": 0.2}, {"multiplier": 3.0}, {"nonlinearity": "sigmoid"},
    {"nonlinearity": torch.relu},
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("kind", ["TopKPooling", "SAGPooling", "SAGPooling of GCN"])
@pytest.mark.parametrize("batched", [False, True])
def test_kept_nodes(kind: str, options: dict[str, Any], batched: bool) -> None:
    torch.manual_seed(0)
    name, _, gcn = kind.partition(" of ")
    ours = getattr(pool, name)(5, **options, **({"GNN": GCNConv} if gcn else {})).double()
    theirs = getattr(pyg, name)(5, **options, **({"GNN": pyg.GCNConv} if gcn else {})).double()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    assert repr(ours) == repr(theirs)
    graph = graph_of("any", 1, False)
    assert graph is not None
    x = torch.randn(NODES, 5, dtype=torch.float64, requires_grad=True)
    e = torch.randn(graph.shape[1], 2, dtype=torch.float64)
    batch = torch.arange(NODES) // 5 if batched else None
    found, expected = ours(x, graph, e, batch), theirs(x, graph, e, batch)
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        assert harness.difference([a.double()], [b.double()]) < 1e-9
    mine = torch.autograd.grad(found[0].sum(), [x, *ours.parameters()])
    other = torch.autograd.grad(expected[0].sum(), [x, *theirs.parameters()])
    for a, b in zip(mine, other, strict=True):
        assert harness.difference([a], [b]) < 1e-9


def test_soft_clusters() -> None:
    g = torch.Generator().manual_seed(0)
    x, adj, s = (torch.randn(2, 6, size, generator=g, dtype=torch.float64) for size in (4, 6, 3))
    mask = torch.rand(2, 6, generator=g) > 0.3
    for arguments in ((), (mask,), (mask, False)):
        found, expected = (library.dense_diff_pool(x, adj, s, *arguments) for library in (pool, pyg))
        for a, b in zip(found, expected, strict=True):
            assert torch.allclose(a, b)
    assert pool.dense_diff_pool(x[0], adj[0], s[0])[0].shape == (1, 3, 4)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="At least one"):
        pool.TopKPooling(5, ratio=None)
    with pytest.raises(ValueError, match="At least one"):
        pool.topk(torch.randn(3), None, torch.zeros(3, dtype=torch.long))
