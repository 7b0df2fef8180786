"""What reads or permutes nodes of any process: embeddings for recommendation, losses of all pairs, corrupted graphs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import gdsl.nn as gnn
from gdsl.distributed import average_gradients, together
from tests.distributed.parts import local, near, owned, whole
from tests.distributed.pool import Pool
from tests.distributed.work import set_backend

NODES, SIZE = 11, 4
draw = torch.Generator().manual_seed(0)
EDGES = torch.randint(NODES, (2, 30), generator=draw)
WEIGHT = torch.rand(30, generator=draw, dtype=torch.float64)
TABLE = torch.randn(NODES, SIZE, generator=draw, dtype=torch.float64)
GOOD, BAD = (torch.randint(NODES, (2, 9), generator=draw) for _ in range(2))
SOME = torch.tensor([0, 3, 3, 9, 10])
EMPTY = torch.tensor([0, 1, 2, 0, 0, 2, 1, 1, 0, 2, 2])  # of four processes one owns nothing


def recommended(table: Tensor, graph: Any, weight: Tensor, share: slice) -> Any:
    """The model, the scores of a share of the pairs and of edges, what is recommended, and the loss of all pairs."""
    model = gnn.LightGCN(len(table), SIZE, 2, alpha=torch.tensor([0.5, 0.3, 0.2])).double()
    set_backend(model, "torch")
    model.embedding.weight.data = table.clone()
    good, bad, some = GOOD[:, share], BAD[:, share], SOME[share]
    labels = torch.cat([good[1] % 2, bad[0] % 2])
    with together(graph):
        first, second = model(graph, good, weight), model(graph, bad, weight)
        loss = model.recommendation_loss(first, second, some, 0.1) + model.recommendation_loss(first, second)
        loss = loss + model.link_pred_loss(torch.cat([first, second]), labels)
        loss = loss + model.link_pred_loss(first, good[0] % 2, reduction="sum")
    best = model.recommend(graph, weight, some, torch.tensor([8, 1, 5, 6]), k=2), model.recommend(graph, weight, k=3)
    loss.backward()
    return model, [first.detach(), model(graph, edge_weight=weight).detach(), *best, loss.detach()]


def recommended_on_part(rank: int, world: int, group: Any, own_rows: bool) -> Any:
    graph, mine = local(EDGES, EMPTY.clamp(max=world - 1), rank, world, group)
    table = TABLE[graph.halo.own_ids] if own_rows else TABLE
    model, found = recommended(table, graph, WEIGHT[mine], slice(rank, None, world))
    average_gradients(model, rows=["embedding.weight"] if own_rows else [], group=group)
    return *found, model.embedding.weight.grad


@pytest.mark.parametrize("own_rows", [False, True])
def test_recommendation_on_several_processes(pool: Pool, own_rows: bool) -> None:
    """Each process has a share of the pairs, and all embeddings or those of its own nodes."""
    model, (first, edges, best, of_each, loss) = recommended(TABLE, EDGES, WEIGHT, slice(None))
    for world in (1, 2, 4):
        owner = EMPTY.clamp(max=world - 1)
        got = pool.run(world, recommended_on_part, own_rows)
        ids = [owned(owner, r) for r in range(world)]
        shares = [torch.arange(r, 9, world) for r in range(world)]
        near(whole([g[0] for g in got], shares), first, "scores")
        near(whole([g[1] for g in got], [owned(owner[EDGES[1]], r) for r in range(world)]), edges, "scores of edges")
        assert torch.equal(whole([g[2] for g in got], [torch.arange(r, 5, world) for r in range(world)]), best)
        assert torch.equal(whole([g[3] for g in got], ids), of_each)
        for g in got:
            near(g[4], loss, "loss")
        gradient = model.embedding.weight.grad
        assert gradient is not None
        for found in [whole([g[5] for g in got], ids)] if own_rows else [g[5] for g in got]:
            near(found, gradient, "gradient")


def mean_of(z: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return gnn.global_mean_pool(z, None)[0].sigmoid()


def permuted(x: Tensor, edge_index: Any, edge_weight: Tensor) -> Any:
    return x[torch.randperm(len(x))], edge_index, edge_weight


def changed(x: Tensor, edge_index: Any, edge_weight: Tensor) -> Any:
    return x, edge_index, edge_weight * 2


def told_apart(
    x: Tensor, graph: Any, weight: Tensor, seed: int, named: bool = False, corruption: Any = permuted
) -> Any:
    torch.manual_seed(1)
    model = gnn.DeepGraphInfomax(6, gnn.GCNConv(SIZE, 6), mean_of, corruption).double()
    set_backend(model, "torch")
    torch.manual_seed(seed)
    x = x.clone().requires_grad_()
    found = model(x=x, edge_index=graph, edge_weight=weight) if named else model(x, graph, weight)
    with together(graph):
        loss = model.loss(*found)
    loss.backward()
    return model, [t.detach() for t in (*found, loss)], x.grad


def told_apart_on_part(rank: int, world: int, group: Any, named: bool) -> Any:
    graph, mine = local(EDGES, EMPTY.clamp(max=world - 1), rank, world, group)
    model, found, grad = told_apart(TABLE[graph.halo.own_ids], graph, WEIGHT[mine], 7 + rank, named)
    average_gradients(model, group=group)
    return *found, grad / world, [p.grad for p in model.parameters()]


@pytest.mark.parametrize("named", [False, True])
def test_nodes_are_permuted_as_on_one_process(pool: Pool, named: bool) -> None:
    """By the generator of the first process."""
    model, (good, bad, summary, loss), grad = told_apart(TABLE, EDGES, WEIGHT, 7)
    for world in (1, 2, 4):
        got = pool.run(world, told_apart_on_part, named)
        ids = [owned(EMPTY.clamp(max=world - 1), r) for r in range(world)]
        for k, wanted in {0: good, 1: bad, 4: grad}.items():
            near(whole([g[k] for g in got], ids), wanted, f"rows {k}")
        for g in got:
            near(g[2], summary, "summary")
            near(g[3], loss, "loss")
            for found, parameter in zip(g[5], model.parameters(), strict=True):
                near(found, parameter.grad, "gradient of a parameter")


def changes_edges(rank: int, world: int, group: Any) -> Any:
    graph, mine = local(EDGES, EMPTY.clamp(max=1), rank, world, group)
    return told_apart(TABLE[graph.halo.own_ids], graph, WEIGHT[mine], 7, corruption=changed)


def test_a_corruption_of_edges_is_refused(pool: Pool) -> None:
    with pytest.raises(AssertionError, match="a corruption may change the first argument alone") as error:
        pool.run(2, changes_edges)
    assert all(f"process {rank} of 2:" in str(error.value) for rank in range(2))
