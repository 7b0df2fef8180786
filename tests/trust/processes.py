"""What the processes of test_processes.py run: importable, so that a spawned process finds it."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Dataset

import gdsl
import gdsl.nn
from tests.programs import harness

SAMPLES = 8

MEAN = """
layer Mean(c, d) {
    node x[c]
    param weight[c, d] ~ glorot
    aggregate a = mean(x[j])
    update y = a @ weight
}
"""


class Own(gdsl.nn.MessagePassing):
    """A layer of a user's own, with parameters in ``message``."""

    def __init__(self) -> None:
        super().__init__(aggr="mean")
        self.mix = nn.Linear(8, 4)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        return self.propagate(edges, x=x)  # type: ignore[no-any-return]

    def message(self, x_i: Tensor, x_j: Tensor) -> Tensor:  # type: ignore[override]
        """From both ends."""
        return self.mix(torch.cat([x_i, x_j - x_i], dim=-1)).tanh()  # type: ignore[no-any-return]


class Net(nn.Module):
    """Three layers, one of each front door: the library, a message in torch, and a program."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = gdsl.nn.GATConv(5, 4)
        self.own = Own()
        self.second = gdsl.compile(MEAN, 4, 3)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        return self.second(self.own(self.first(x, edges).relu(), edges), edges)  # type: ignore[no-any-return]


def sample(k: int) -> tuple[Tensor, Tensor]:
    """Features and edges of graph number k."""
    nodes = 5 + k
    return torch.cos(torch.arange(nodes * 5.0) + k).view(nodes, 5), harness.random_edges(nodes, 3 * nodes, k)


def loss(net: nn.Module, k: int) -> Tensor:
    return net(*sample(k)).square().mean()  # type: ignore[no-any-return]


def train_apart(rank: int, world: int, folder: str) -> None:
    """One step of DistributedDataParallel over gloo; rank 0 writes the gradients down."""
    dist.init_process_group("gloo", rank=rank, world_size=world, init_method=f"file://{folder}/meet")
    net = DistributedDataParallel(Net())
    share = range(rank, SAMPLES, world)
    (sum(loss(net, k) for k in share) / len(share)).backward()  # type: ignore[union-attr]
    if rank == 0:
        torch.save([p.grad for p in net.parameters()], Path(folder) / "grads.pt")
    # Nobody takes gloo's threads down while another process still talks to them, or while what uses them is alive.
    dist.barrier()
    del net
    dist.destroy_process_group()


class Graphs(Dataset[Tensor]):
    """Graphs on which a layer has run, in whatever process the loader runs."""

    def __init__(self, net: nn.Module):
        self.net = net

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, k: int) -> Tensor:
        with torch.no_grad():
            return self.net(*sample(k)).sum(0)  # type: ignore[no-any-return]
