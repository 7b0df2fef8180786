"""Sampled training under DDP: processes share the batches of one, whose numbers may be uneven."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.algorithms.join import Join
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch_geometric.data import Data

from gdsl.data import NeighborLoader
from gdsl.distributed import average_gradients
from gdsl.errors import GraphError, InputError
from gdsl.nn import SAGEConv
from tests.distributed.pool import Pool

NODES, BATCH = 40, 6  # seven batches, of which the last has four seeds


def loader(**more: Any) -> NeighborLoader:
    random = torch.Generator().manual_seed(0)
    x, y = torch.randn(NODES, 5, generator=random, dtype=torch.float64), torch.arange(NODES) % 3
    data = Data(x=x, y=y, edge_index=torch.randint(NODES, (2, 200), generator=random))
    return NeighborLoader(data, [4, 3], batch_size=BATCH, shuffle=True, seed=3, **more)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.second = SAGEConv(5, 8).double(), SAGEConv(8, 3).double()

    def forward(self, x: Tensor, graph: Any) -> Tensor:
        return self.second(self.first(x, graph).relu(), graph)  # type: ignore[no-any-return]


def loss_of(model: nn.Module, batch: Any) -> Tensor:
    return F.cross_entropy(model(batch.x, batch.graph)[: batch.batch_size], batch.y[: batch.batch_size])


def by_ddp(group: Any, workers: int) -> list[Tensor]:
    model = DistributedDataParallel(Network(), process_group=group)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    share = loader(rank=group.rank(), world=group.size(), num_workers=workers)
    for _ in range(2):
        with Join([model]):
            for batch in share:
                optimizer.zero_grad()
                loss_of(model, batch).backward()
                optimizer.step()
    return [p.detach() for p in model.module.parameters()]


def by_one(world: int) -> list[Tensor]:
    """The mean of the gradients of so many batches makes a step."""
    model = Network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    batches = loader()
    for _ in range(2):
        found = list(batches)
        for first in range(0, len(found), world):
            optimizer.zero_grad()
            for batch in found[first : first + world]:
                (loss_of(model, batch) / world).backward()
            optimizer.step()
    return [p.detach() for p in model.parameters()]


@pytest.mark.parametrize("world", [2, 3])
def test_processes_train_as_one_does(pool: Pool, world: int) -> None:
    expected = by_one(world)
    for workers in (0, 2):
        for found in pool.together(by_ddp, workers, world=world):
            torch.testing.assert_close(found[: len(expected)], expected, rtol=1e-10, atol=1e-12)


# -- gradients without DDP --------------------------------------------------------------------------


def averaged(group: Any) -> Any:
    model = nn.ModuleDict({"a": nn.Linear(2, 1), "b": nn.Linear(1, 1), "c": nn.Linear(1, 1)})
    rank = group.rank()
    for p in model["a"].parameters():
        p.grad = torch.full_like(p, float(rank))
    if rank:  # the others have none
        model["b"].weight.grad = torch.full((1, 1), 4.0)
    model["c"].weight.requires_grad_(False)
    model["c"].bias.grad = torch.ones(1)
    average_gradients(model, ["c.bias"], group)
    return {name: None if p.grad is None else p.grad.flatten().tolist() for name, p in model.named_parameters()}


def test_gradients_are_averaged(pool: Pool) -> None:
    for found in pool.together(averaged, world=2):
        assert found == {
            "a.weight": [0.5, 0.5], "a.bias": [0.5], "b.weight": [2.0], "b.bias": None,
            "c.weight": None, "c.bias": [0.5],
        }  # fmt: skip


def of_two_models(group: Any) -> list[str]:
    """And of one, in which the rows of each process differ."""
    torch.manual_seed(group.rank())
    model, found = nn.Linear(2, 1), []
    for rows in ([], ["weight", "bias"]):
        try:
            average_gradients(model, rows, group)
            found.append("alike")
        except GraphError as error:
            found.append(str(error))
    return found


def test_parameters_that_differ_are_two_models(pool: Pool) -> None:
    for first, second in pool.together(of_two_models, world=2):
        assert first.startswith("the parameters of processes 0 and 1 differ, so that they train two models")
        assert second == "alike"


def of_a_copy_on_one(group: Any) -> list[Any]:
    """One process goes on with a copy of the model, of which it knows nothing yet; then with one that differs."""
    torch.manual_seed(0)
    model, found = nn.Linear(2, 1), []
    for step in range(3):
        model = copy.deepcopy(model) if group.rank() and step else model
        with torch.no_grad():
            model.weight += group.rank() * (step == 2)
        model(torch.full((2,), 1.0 + group.rank())).backward()
        try:
            average_gradients(model, group=group)
            found.append(model.weight.grad.tolist())
        except GraphError as error:
            found.append(str(error).split(",")[0])
        model.zero_grad()
    return found


def test_a_model_that_is_new_on_one_process_is_compared_by_all(pool: Pool) -> None:
    for found in pool.together(of_a_copy_on_one, world=2):
        assert found == [[[1.5, 1.5]], [[1.5, 1.5]], "the parameters of processes 0 and 1 differ"]


def test_rows_of_unknown_parameters_are_refused() -> None:
    for rows, what in ((["rows"], "no parameter 'rows'"), ("weight", "rows must be a list of names")):
        with pytest.raises(InputError, match=what):
            average_gradients(nn.Linear(1, 1), rows)
