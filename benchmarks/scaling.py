"""How time grows with the graph, and falls with threads: GCN and GAT, forward + backward.

    python benchmarks/scaling.py --json scaling.json --markdown

Graphs have 20 edges a node, sources drawn by a power law, from 10,000 to 10 million edges. The slope is that of the
logarithms: 1 is linear. Small graphs fit the caches, so that the slope over all of them is a little above 1.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from typing import Any

import machine
import report
import torch
from graphs import power_law
from programs import LAYERS

import gdsl

NAMES = ("GCN", "GAT")
DEGREE = 20
ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--most", type=int, default=10_000_000, help="edges of the largest graph")
    parser.add_argument("--least", type=int, default=10_000, help="edges of the smallest graph")
    parser.add_argument("--features", type=int, default=64)
    report.add_options(parser)
    args = parser.parse_args()
    rows = []
    edges = args.least
    while edges <= args.most:
        rows += [_row(name, edges, args) for name in NAMES]
        for row in rows[-len(NAMES) :]:
            print(row, flush=True)
        edges *= 10
    found: dict[str, Any] = {
        "kind": "scaling",
        "machine": machine.describe(args.threads, tiny=args.tiny),
        "features": args.features,
        "degree": DEGREE,
        "rounds": ROUNDS,
        "results": rows,
        "slopes": {name: _slope([r for r in rows if r["layer"] == name]) for name in NAMES},
    }
    report.finish(found, args)


def _row(name: str, edges: int, args: argparse.Namespace) -> dict[str, Any]:
    """Median ms of forward + backward, on all threads and on one."""
    layer = LAYERS[name](args.features)
    edge_index, nodes = power_law(max(1, edges // DEGREE), edges)
    graph = gdsl.Graph(edge_index, nodes)
    conv = gdsl.compile(layer.source, **layer.arguments, backend="cpp")
    x = torch.randn(nodes, args.features, requires_grad=True)
    found: dict[str, Any] = {"layer": name, "edges": edges}
    for threads in sorted({1, args.threads}):
        torch.set_num_threads(threads)
        times = []
        for _ in range(ROUNDS + 1):
            start = time.perf_counter()
            y = conv(x, graph)
            y.backward(torch.ones_like(y))
            times.append((time.perf_counter() - start) * 1e3)
        found[f"{threads}"] = statistics.median(times[1:])
    return found


def _slope(rows: list[dict[str, Any]]) -> float:
    """Least squares of the logarithms of time and edges, on all threads."""
    most = max(int(k) for k in rows[0] if k.isdigit())
    x = [math.log(r["edges"]) for r in rows]
    y = [math.log(r[f"{most}"]) for r in rows]
    return statistics.linear_regression(x, y).slope if len(rows) > 1 else float("nan")


if __name__ == "__main__":
    main()
