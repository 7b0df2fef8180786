"""Whole networks as one text each, beside the same layers one by one: the texts of networks.gdsl.

    python examples/networks.py            how long a step takes, as one program and as layers
    python examples/networks.py --short    a small graph, few steps
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

import gdsl
from gdsl import nn as layers

FILE = Path(__file__).parent / "networks.gdsl"


class Layers(nn.Module):
    """A network of layers that are called one after the other, on the parameters of one that is a text."""

    def __init__(self, network: gdsl.Layer, convs: Sequence[nn.Module], run: Callable[..., Tensor]):
        super().__init__()
        self.network, self.convs, self.run = network, nn.ModuleList(convs), run

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        """[N, features] to [N, classes]."""
        return self.run(self, x, edge_index)


def gat(net: Layers, x: Tensor, edges: Tensor) -> Tensor:
    """Dropout, attention and elu, twice."""
    p, on = net.network.arguments["p"], net.training
    h = F.elu(net.convs[0](F.dropout(x, p, on), edges))
    return net.convs[1](F.dropout(h, p, on), edges)


def jumping(net: Layers, x: Tensor, edges: Tensor) -> Tensor:
    """All layers side by side, and a linear map."""
    found = [x]
    for conv in net.convs:
        found.append(conv(found[-1], edges).relu())
    return net.network.out(torch.cat(found[1:], -1))


def sage(net: Layers, x: Tensor, edges: Tensor) -> Tensor:
    """Two steps."""
    return net.convs[1](net.convs[0](x, edges).relu(), edges)


NETWORKS = {"GAT": gat, "JumpingGCN": jumping, "GraphSAGE": sage}


def made(name: str, features: int, hidden: int, classes: int, library: object = layers, **options: object) -> Layers:
    """A network as one text, and layers of a library with its parameters."""
    torch.manual_seed(0)
    net = gdsl.compile(FILE, hidden, classes, layer=name, features=features, **options)
    if name == "GAT":
        heads, p = net.arguments["heads"], net.arguments["p"]
        convs = [
            library.GATConv(features, hidden, heads, dropout=p),
            library.GATConv(heads * hidden, classes, dropout=p),
        ]
    elif name == "JumpingGCN":
        convs = [library.GCNConv(features if k == 0 else hidden, hidden) for k in range(net.arguments["K"])]
    else:
        convs = [library.SAGEConv(features, hidden), library.SAGEConv(hidden, classes)]
    own = net.convs if name == "JumpingGCN" else [net.conv1, net.conv2]
    for conv, part in zip(convs, own, strict=True):
        conv.load_state_dict(part.state_dict())
    return Layers(net, convs, NETWORKS[name])


def step(net: nn.Module, x: Tensor, edges: Tensor) -> float:
    """Seconds of a forward and a backward pass."""
    begun = time.perf_counter()
    net(x, edges).square().mean().backward()
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a small graph, few steps")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    options = parser.parse_args()
    nodes, degree, steps = (500, 8, 2) if options.short else (20_000, 16, 15)
    torch.manual_seed(0)
    x, edges = torch.randn(nodes, 64), torch.randint(nodes, (2, nodes * degree))
    rows = []
    for name in tqdm(options.networks):
        both = made(name, 64, 8 if name == "GAT" else 64, 16)
        times: dict[str, list[float]] = {"one program": [], "layers": []}
        for _ in range(steps + 1):  # in turns, the first of which compiles
            times["one program"].append(step(both.network, x, edges))
            times["layers"].append(step(both, x, edges))
        one, several = (statistics.median(found[1:]) * 1e3 for found in times.values())
        rows.append((name, f"{one:.1f} ms", f"{several:.1f} ms", f"{several / one:.2f}"))
    print(f"{'network':12} {'one program':>12} {'layers':>12} {'ratio':>6}")
    for name, one, several, ratio in rows:
        print(f"{name:12} {one:>12} {several:>12} {ratio:>6}")
    print(f"most memory at any time: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB")


if __name__ == "__main__":
    main()
