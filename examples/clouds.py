"""Clouds of points told apart by PointNet++, whose graphs of nearest neighbours are built batch by batch.

    python examples/clouds.py                         with gdsl's layers and torch_geometric's in turns
    python examples/clouds.py --points 256 --epochs 20
    python examples/clouds.py --short                 few shapes and epochs: does it run at all?

The shapes are those of examples/points.py, packed as points without edges: each batch is turned at random, as training
on clouds wants it, thinned twice by farthest point sampling, and joined to nearest neighbours. That is gdsl's work for
both libraries, since torch_geometric's needs packages that do not install from PyPI; the table compares layers.
"""

from __future__ import annotations

import argparse
import math
from typing import Any

import torch
from peers import HEADER, entries, percent, train
from points import SHAPES, sample
from torch import Tensor, nn
from torch.nn import functional as F

import gdsl
from gdsl.data import Batch, Loader, Packed, pack_arrays
from gdsl.nn.neighbors import fps, knn
from gdsl.nn.pool import global_max_pool

NEIGHBOURS = 16


def clouds(each: int, points: int, seed: int) -> Packed:
    """So many of each shape, with as many points each."""
    torch.manual_seed(seed)
    y = torch.arange(len(SHAPES)).repeat(each)
    pos = torch.cat([sample(SHAPES[label], points) for label in y.tolist()])
    batch = torch.arange(len(y)).repeat_interleave(points)
    return pack_arrays(torch.empty(2, 0, dtype=torch.long), batch, nodes={"pos": pos}, graphs={"y": y})


def turned(batch: Batch) -> Batch:
    """Each batch around the vertical by a random angle."""
    angle = torch.rand(()) * 2 * math.pi
    cos, sin = angle.cos(), angle.sin()
    zero, one = torch.zeros(()), torch.ones(())
    turn = torch.stack([torch.stack([cos, -sin, zero]), torch.stack([sin, cos, zero]), torch.stack([zero, zero, one])])
    batch.pos = batch.pos @ turn.t()
    return batch


def _perceptron(*sizes: int) -> nn.Sequential:
    first, hidden, last = sizes
    return nn.Sequential(nn.Linear(first, hidden), nn.ReLU(), nn.Linear(hidden, last))


class Abstraction(nn.Module):
    """Some points, each with what the points near it have."""

    def __init__(self, library: Any, ratio: float, inputs: int, outputs: int) -> None:
        super().__init__()
        self.ratio, self.takes_graph = ratio, library is gdsl.nn
        self.conv = library.PointNetConv(_perceptron(inputs + 3, outputs, outputs), add_self_loops=False)
        self.norm = nn.BatchNorm1d(outputs)

    def forward(self, x: Tensor | None, pos: Tensor, batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        kept = fps(pos, batch, ratio=self.ratio)
        target, source = knn(pos, pos[kept], NEIGHBOURS, batch, batch[kept])
        edges = torch.stack([source, target])
        graph = gdsl.Graph(edges, (len(pos), len(kept))) if self.takes_graph else edges
        h = self.conv((x, None), (pos, pos[kept]), graph)
        return F.relu(self.norm(h)), pos[kept], batch[kept]


class Network(nn.Module):
    """Two abstractions, the largest of each feature in a cloud, and a perceptron."""

    def __init__(self, library: Any, hidden: int = 32) -> None:
        super().__init__()
        self.first = Abstraction(library, 0.5, 0, hidden)
        self.second = Abstraction(library, 0.25, hidden, 2 * hidden)
        self.read = _perceptron(2 * hidden, hidden, len(SHAPES))

    def forward(self, batch: Batch) -> Tensor:
        x, _, owner = self.second(*self.first(None, batch.pos, batch.batch))
        return self.read(global_max_pool(x, owner, batch.num_graphs))


def compare(each: int, points: int, epochs: int, batch_size: int) -> list[str]:
    """The lines of a table."""
    packed, test = clouds(each, points, 1), clouds(max(each // 2, 2), points, 0)

    def accuracy(model: nn.Module) -> float:
        return percent(torch.cat([model(batch).argmax(dim=1) == batch.y for batch in Loader(test, 32)]))

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return F.cross_entropy(model(batch), batch.y)

    def given(library: str) -> dict[str, Any]:
        loader = Loader(packed, batch_size, shuffle=True, seed=0, transform=turned)
        return {"batches": loader, "loss": loss, "accuracy": accuracy}

    return train(entries("PointNet++", Network, given), epochs, lr=0.005)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--each", type=int, default=60, help="shapes of each kind")
    parser.add_argument("--points", type=int, default=128, help="of each shape")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--short", action="store_true", help="12 shapes of each kind, 64 points, six epochs")
    args = parser.parse_args(argv)
    each, points, epochs = (12, 64, 6) if args.short else (args.each, args.points, args.epochs)
    print(f"{each * len(SHAPES)} clouds of {points} points, {len(SHAPES)} shapes")
    print(HEADER)
    print("\n".join(compare(each, points, epochs, 8 if args.short else 32)))


if __name__ == "__main__":
    main()
