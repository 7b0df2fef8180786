"""Whole networks: as one text, as gdsl's layers one by one, and as torch_geometric's.

    python benchmarks/networks.py --json networks.json --markdown

The texts are those of examples/networks.gdsl. All ways have the same parameters, run in turns in this process, and give
the same result without dropout; times are processor time, the best of the rounds. Memory is what a forward and a
backward pass add to the process at their peak.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import machine
import report
import torch
import torch_geometric.nn
from torch import Tensor, nn

import gdsl
import gdsl.nn
from gdsl.look.measure import give_back, peak

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))
from networks import made  # of the examples, and not this file

CLASSES, TOLERANCE = 16, 1e-4
WIDTHS = {"GAT": 8, "JumpingGCN": 64, "GraphSAGE": 64}
LIBRARIES: dict[str, Any] = {"layers": gdsl.nn, "torch_geometric": torch_geometric.nn}


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
    report.finish(found, args)


Ways = dict[str, tuple[Callable[[], Any], Callable[[], Any], Sequence[Tensor]]]


def _ways(name: str, args: argparse.Namespace) -> Ways:
    """For each implementation its forward pass without gradients, both passes, and the leaves of these."""
    twins = {kind: made(name, args.features, WIDTHS[name], CLASSES, library) for kind, library in LIBRARIES.items()}
    text = twins["layers"].network
    x = torch.randn(args.nodes, args.features, requires_grad=True)
    edge_index = torch.randint(args.nodes, (2, args.edges))
    graph = gdsl.Graph(edge_index, args.nodes)
    networks: dict[str, nn.Module] = {"one text": text, **twins}
    found: Ways = {}
    for kind, network in networks.items():
        edges = edge_index if kind == "torch_geometric" else graph
        with torch.no_grad():
            expected, given = text.eval()(x, graph), network.eval()(x, edges)
        torch.testing.assert_close(given, expected, rtol=TOLERANCE, atol=TOLERANCE)

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
