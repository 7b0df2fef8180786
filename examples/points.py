"""Shapes told apart by the points of their surfaces: PointNet++, EdgeConv, PointCNN, SplineCNN and MoNet.

    python examples/points.py                              five networks, 3 seeds each
    python examples/points.py --layers edge,spline --seeds 1
    python examples/points.py --short                      one seed, few shapes, few epochs

The shapes are made here: points drawn from the surfaces of eight solids, stretched by up to a quarter along each axis,
turned by a random angle around the vertical, moved to their mean, scaled to fit the unit ball, and jittered by a
fiftieth of its radius. Guessing is right for one in eight.

All five share a skeleton, so that the table compares layers: a layer on all points, the half of them that farthest
point sampling keeps, two more layers on those, the largest of each feature in a shape, and a perceptron. Points are
joined to their nearest neighbours. Batches and graphs are made once. The networks are small and not tuned.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

import gdsl
from gdsl import nn as layers
from gdsl.nn.neighbors import fps, knn_graph
from gdsl.nn.pool import global_max_pool

NEIGHBOURS = 8


# Shapes ----------------------------------------------------------------------------------------------------


def _uniform(count: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    return low + (high - low) * torch.rand(count)


def _ring(radius: Tensor, height: Tensor) -> Tensor:
    """Points at a random angle around the third axis."""
    angle = _uniform(len(radius), 0, 2 * math.pi)
    return torch.stack([radius * angle.cos(), radius * angle.sin(), height], dim=1)


def _either(share: float, first: Tensor, second: Tensor) -> Tensor:
    """Each point from the first, with a probability of its share of the area, or else from the second."""
    return torch.where((torch.rand(len(first)) < share).unsqueeze(1), first, second)


def sphere(count: int) -> Tensor:
    return F.normalize(torch.randn(count, 3))


def hemisphere(count: int) -> Tensor:
    """Half a sphere, without its floor."""
    points = sphere(count)
    return torch.cat([points[:, :2], points[:, 2:].abs()], dim=1)


def cube(count: int) -> Tensor:
    points = 2 * torch.rand(count, 3) - 1
    axis = torch.randint(3, (count, 1))
    return points.scatter(1, axis, points.gather(1, axis).sign())


def cylinder(count: int) -> Tensor:
    """With both ends, of radius 1 and height 2: the side has two thirds of the area."""
    ends = _ring(_uniform(count).sqrt(), torch.randint(2, (count,)) * 2.0 - 1)
    return _either(2 / 3, _ring(torch.ones(count), _uniform(count, -1, 1)), ends)


def cone(count: int) -> Tensor:
    """With its floor, of radius 1 and height 2."""
    down = _uniform(count).sqrt()
    slope = math.sqrt(5)
    return _either(slope / (1 + slope), _ring(down, 2 - 2 * down), _ring(_uniform(count).sqrt(), torch.zeros(count)))


def torus(count: int) -> Tensor:
    """Of radii 1 and 0.4; uniform in both angles, so denser at the hole."""
    around = _uniform(count, 0, 2 * math.pi)
    return _ring(1 + 0.4 * around.cos(), 0.4 * around.sin())


def tetrahedron(count: int) -> Tensor:
    corners = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    weights = torch.distributions.Dirichlet(torch.ones(3)).sample((count,))
    of_face = torch.stack([torch.randperm(4)[:3] for _ in range(count)])
    return (weights.unsqueeze(2) * corners[of_face]).sum(dim=1)


def helix(count: int) -> Tensor:
    """Two turns of a tube."""
    along = _uniform(count, -1, 1)
    angle = 2 * math.pi * along
    return torch.stack([angle.cos(), angle.sin(), along], dim=1) + 0.15 * sphere(count)


SHAPES: tuple[Callable[[int], Tensor], ...] = (
    sphere, hemisphere, cube, cylinder, cone, torus, tetrahedron, helix,
)  # fmt: skip


def sample(shape: Callable[[int], Tensor], points: int) -> Tensor:
    """Points [points, 3] of a shape somewhere in space."""
    pos = shape(points) * _uniform(3, 0.75, 1.25)
    angle = _uniform(1, 0, 2 * math.pi)
    cos, sin = angle.cos(), angle.sin()
    pos = torch.stack([cos * pos[:, 0] - sin * pos[:, 1], sin * pos[:, 0] + cos * pos[:, 1], pos[:, 2]], dim=1)
    pos = pos - pos.mean(dim=0)
    pos = pos / pos.norm(dim=1).max()
    return pos + 0.02 * torch.randn(points, 3)


# Batches ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Level:
    """Points, their graph of nearest neighbours, and where on each edge its source lies: [E, 3], in [0, 1]."""

    pos: Tensor
    batch: Tensor
    graph: gdsl.Graph
    coordinates: Tensor

    @classmethod
    def of(cls, pos: Tensor, batch: Tensor) -> Level:
        edge_index = knn_graph(pos, NEIGHBOURS, batch)
        offset = pos[edge_index[0]] - pos[edge_index[1]]
        graph = gdsl.Graph(edge_index, len(pos))
        return cls(pos, batch, graph, 0.5 + offset / (2 * offset.abs().max()))


@dataclass(frozen=True)
class Batch:
    """Shapes on two levels: all points, and those that are kept."""

    fine: Level
    kept: Tensor
    coarse: Level
    y: Tensor

    @classmethod
    def of(cls, clouds: Tensor, y: Tensor) -> Batch:
        """From points [shapes, points, 3]."""
        pos = clouds.flatten(0, 1)
        batch = torch.arange(len(y)).repeat_interleave(clouds.shape[1])
        kept = fps(pos, batch, ratio=0.5)
        return cls(Level.of(pos, batch), kept, Level.of(pos[kept], batch[kept]), y)


def batches(each: int, points: int, seed: int, size: int = 8) -> list[Batch]:
    """So many of each shape, in random order."""
    torch.manual_seed(seed)
    y = torch.arange(len(SHAPES)).repeat(each)[torch.randperm(each * len(SHAPES))]
    clouds = torch.stack([sample(SHAPES[label], points) for label in y.tolist()])
    return [Batch.of(*part) for part in zip(clouds.split(size), y.split(size), strict=True)]


# Networks --------------------------------------------------------------------------------------------------


def _perceptron(*sizes: int) -> nn.Sequential:
    first, hidden, last = sizes
    return nn.Sequential(nn.Linear(first, hidden), nn.ReLU(), nn.Linear(hidden, last))


class PointNet(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = layers.PointNetConv(_perceptron(inputs + 3, outputs, outputs))

    def forward(self, x: Tensor, level: Level) -> Tensor:
        return self.conv(x, level.pos, level.graph)


class Edge(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = layers.EdgeConv(_perceptron(2 * inputs, outputs, outputs))

    def forward(self, x: Tensor, level: Level) -> Tensor:
        return self.conv(x, level.graph)


class PointCNN(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = layers.XConv(inputs, outputs, dim=3, kernel_size=NEIGHBOURS, hidden_channels=outputs // 2)

    def forward(self, x: Tensor, level: Level) -> Tensor:
        return self.conv(x, level.pos, level.batch)


class Spline(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = layers.SplineConv(inputs, outputs, dim=3, kernel_size=5)

    def forward(self, x: Tensor, level: Level) -> Tensor:
        return self.conv(x, level.graph, level.coordinates)


class MoNet(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = layers.GMMConv(inputs, outputs, dim=3, kernel_size=10)

    def forward(self, x: Tensor, level: Level) -> Tensor:
        return self.conv(x, level.graph, level.coordinates)


LAYERS: dict[str, Callable[[int, int], nn.Module]] = {
    "pointnet": PointNet,
    "edge": Edge,
    "pointcnn": PointCNN,
    "spline": Spline,
    "monet": MoNet,
}
NAMES = {"pointnet": "PointNet++", "edge": "EdgeConv", "pointcnn": "PointCNN", "spline": "SplineCNN", "monet": "MoNet"}


class Network(nn.Module):
    """Three layers on two levels, and a perceptron on the largest of each feature."""

    def __init__(self, kind: str, hidden: int = 32) -> None:
        super().__init__()
        sizes = [3, hidden, hidden, 2 * hidden]
        self.convs = nn.ModuleList([LAYERS[kind](a, b) for a, b in pairwise(sizes)])
        self.norms = nn.ModuleList([nn.BatchNorm1d(size) for size in sizes[1:]])
        self.read = _perceptron(2 * hidden, hidden, len(SHAPES))

    def forward(self, batch: Batch) -> Tensor:
        h = batch.fine.pos
        for number, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            h = F.relu(norm(conv(h, batch.coarse if number else batch.fine)))
            if number == 0:
                h = h[batch.kept]
        return self.read(global_max_pool(h, batch.coarse.batch, len(batch.y)))


def train(kind: str, train_set: list[Batch], test_set: list[Batch], seed: int, epochs: int) -> float:
    """The test accuracy in percent after the last epoch, with a progress bar."""
    torch.manual_seed(seed)
    network = Network(kind)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.005)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    bar = tqdm(range(epochs), desc=f"{NAMES[kind]}, seed {seed}", leave=False, disable=None)
    for _ in bar:
        network.train()
        for number in torch.randperm(len(train_set)).tolist():
            loss = F.cross_entropy(network(train_set[number]), train_set[number].y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    bar.close()
    network.eval()
    with torch.no_grad():
        right = torch.cat([network(batch).argmax(dim=1) == batch.y for batch in test_set])
    return 100.0 * right.float().mean().item()


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--layers", default=",".join(LAYERS), help=f"some of {','.join(LAYERS)}")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--points", type=int, default=64, help="of each shape")
    parser.add_argument("--short", action="store_true", help="one seed, 12 of each shape, 8 epochs")
    args = parser.parse_args(argv)
    kinds = args.layers.split(",")
    unknown = sorted(set(kinds) - set(LAYERS))
    if unknown:
        parser.error(f"there is no layer {unknown[0]}; there are {', '.join(LAYERS)}")
    seeds, epochs, each = (1, 8, 12) if args.short else (args.seeds, args.epochs, 60)

    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    for seed in range(seeds):
        # Test shapes are the same for all seeds; training shapes are new ones for each.
        train_set, test_set = batches(each, args.points, seed + 1), batches(each // 2, args.points, 0)
        for kind in kinds:
            found[kind].append(train(kind, train_set, test_set, seed, epochs))
    print("network     test         seeds")
    for kind, values in found.items():
        mean, std = statistics.fmean(values), statistics.stdev(values) if seeds > 1 else 0.0
        print(f"{NAMES[kind]:10}  {mean:5.1f} ± {std:4.1f}  {seeds:5}")


if __name__ == "__main__":
    main()
