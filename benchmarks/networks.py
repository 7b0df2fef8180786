"""Whole networks: as one text, as gdsl's layers one by one, and as torch_geometric's.

    python benchmarks/networks.py --json networks.json --markdown

The texts are those of examples/networks.gdsl. All ways have the same parameters, run in turns in this process, and give
the same result without dropout; times are processor time, the best of the rounds. Memory is what a forward and a
backward pass add to the process at their peak.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import machine
import report
import torch
import torch.nn.functional as F
import torch_geometric.nn
from graphs import SEED
from torch import Tensor, nn

import gdsl
import gdsl.nn
from gdsl.look.measure import give_back, peak

TEXTS = Path(__file__).resolve().parent.parent / "examples" / "networks.gdsl"
CLASSES, TOLERANCE = 16, 1e-4
WIDTHS = {"GAT": 8, "JumpingGCN": 64, "GraphSAGE": 64}
LIBRARIES: dict[str, Any] = {"layers": gdsl.nn, "torch_geometric": torch_geometric.nn}


class Layers(nn.Module):
    """The network of a text, of a library's layers."""

    def __init__(self, name: str, library: Any, text: gdsl.Layer, features: int):
        super().__init__()
        self.name, self.p, hidden = name, float(text.arguments.get("p", 0.0)), WIDTHS[name]
        convs: list[nn.Module]
        if name == "GAT":
            heads = int(text.arguments["heads"])
            first = library.GATConv(features, hidden, heads, dropout=self.p)
            convs = [first, library.GATConv(heads * hidden, CLASSES, dropout=self.p)]
        elif name == "JumpingGCN":
            depth = int(text.arguments["K"])
            convs = [library.GCNConv(features if k == 0 else hidden, hidden) for k in range(depth)]
            self.out = nn.Linear(depth * hidden, CLASSES)
            self.out.load_state_dict(text.out.state_dict())
        else:
            convs = [library.SAGEConv(features, hidden), library.SAGEConv(hidden, CLASSES)]
        self.convs = nn.ModuleList(convs)
        for conv, own in zip(convs, text.convs if name == "JumpingGCN" else (text.conv1, text.conv2), strict=True):
            conv.load_state_dict(own.state_dict())

    def forward(self, x: Tensor, edges: Any) -> Tensor:
        """[N, features] to [N, classes]."""
        if self.name == "JumpingGCN":
            found = [x]
            for conv in self.convs:
                found.append(conv(found[-1], edges).relu())
            return self.out(torch.cat(found[1:], -1))
        first, second = self.convs
        if self.name == "GraphSAGE":
            return second(first(x, edges).relu(), edges)
        h = F.elu(first(F.dropout(x, self.p, self.training), edges))
        return second(F.dropout(h, self.p, self.training), edges)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--nodes", type=int, default=20_000)
    parser.add_argument("--edges", type=int, default=200_000)
    parser.add_argument("--features", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--networks", nargs="+", choices=WIDTHS, default=list(WIDTHS))
    report.add_options(parser)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    found: dict[str, Any] = {"kind": "networks", "machine": machine.describe(args.threads, tiny=args.tiny)}
    found |= {name: getattr(args, name) for name in ("nodes", "edges", "features", "rounds")}
    steps = {name: _ways(name, args) for name in args.networks}
    found["results"] = [row for name, ways in steps.items() for row in _times(name, ways, args.rounds)]
    give_back()  # calls are slower from now on
    for row in found["results"]:
        _forward, both, leaves = steps[row["network"]][row["implementation"]]
        row["mb"] = peak(both, leaves)["mb"]
        print(row, flush=True)
    report.write(found, args.json)
    if args.markdown:
        print(report.render(found))


Ways = dict[str, tuple[Callable[[], Any], Callable[[], Any], Sequence[Tensor]]]


def _ways(name: str, args: argparse.Namespace) -> Ways:
    """For each implementation its forward pass without gradients, both passes, and the leaves of these."""
    torch.manual_seed(SEED)
    text = gdsl.compile(TEXTS, WIDTHS[name], CLASSES, layer=name, features=args.features)
    x = torch.randn(args.nodes, args.features, requires_grad=True)
    edge_index = torch.randint(args.nodes, (2, args.edges))
    graph = gdsl.Graph(edge_index, args.nodes)
    networks = {"one text": text} | {k: Layers(name, lib, text, args.features) for k, lib in LIBRARIES.items()}
    found: Ways = {}
    for kind, network in networks.items():
        edges = edge_index if kind == "torch_geometric" else graph
        with torch.no_grad():
            expected, made = text.eval()(x, graph), network.eval()(x, edges)
        torch.testing.assert_close(made, expected, rtol=TOLERANCE, atol=TOLERANCE)

        def forward(network: nn.Module = network, edges: Any = edges) -> Tensor:
            with torch.no_grad():
                return network(x, edges)

        def both(network: nn.Module = network, edges: Any = edges) -> Tensor:
            y = network(x, edges)
            y.sum().backward()
            return y.detach()

        found[kind] = forward, both, [x, *network.parameters()]
    for network in networks.values():
        network.train()
    return found


def _times(name: str, ways: Ways, rounds: int) -> list[dict[str, Any]]:
    best: dict[tuple[str, str], float] = {}
    for _ in range(rounds + 1):
        for kind, (forward, both, _leaves) in ways.items():
            for mode, call in (("forward", forward), ("both", both)):
                start = time.process_time()
                call()
                taken = (time.process_time() - start) * 1e3
                best[kind, mode] = min(best.get((kind, mode), float("inf")), taken)
    modes = ("forward", "both")
    return [{"network": name, "implementation": kind, **{mode: best[kind, mode] for mode in modes}} for kind in ways]


if __name__ == "__main__":
    main()
