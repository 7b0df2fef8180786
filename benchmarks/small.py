"""The whole cost of a call on one small graph, where no kernel takes long: gdsl against torch_geometric.

    python benchmarks/small.py --json small.json --markdown

All run in this process, in turns of a hundred calls. gdsl gets a gdsl.Graph made beforehand, as in training
on a fixed set of graphs, and in another row the raw edge_index that torch_geometric gets, whose graph it
finds again by the tensor.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import machine
import report
import torch
from graphs import SEED
from peers import BUILDERS, Case, Unsupported
from programs import LAYERS, Layer
from torch import Tensor

import gdsl

NAMES = ("GCN", "GAT")
TURN = 100
MODES = ("forward", "both")

Call = Callable[[], Any]


def main() -> None:
    args = _arguments()
    torch.set_num_threads(args.threads)
    results = [row for name in NAMES for row in _layer(name, args)]
    found = {
        "kind": "small",
        "machine": machine.describe(args.threads, tiny=args.tiny),
        "nodes": args.nodes,
        "edges": args.edges,
        "features": args.features,
        "calls": args.calls,
        "results": results,
    }
    report.finish(found, args)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--nodes", type=int, default=30)
    parser.add_argument("--edges", type=int, default=64)
    parser.add_argument("--features", type=int, default=64, help="a multiple of 4, the number of heads")
    parser.add_argument("--calls", type=int, default=1000)
    report.add_options(parser)
    return parser.parse_args()


def _layer(name: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each way to run the layer."""
    layer = LAYERS[name](args.features)
    calls = _ways(layer, _case(layer, args))
    spent: dict[tuple[str, str], list[float]] = {(i, mode): [] for i in calls for mode in MODES}
    for way in calls.values():
        for mode in MODES:
            _turn(way[mode], 20)  # warm up
    for first in range(0, args.calls, TURN):
        for i, way in calls.items():
            for mode in MODES:
                spent[i, mode] += _turn(way[mode], min(TURN, args.calls - first))
    rows = []
    for i in calls:
        row: dict[str, Any] = {"layer": name, "implementation": i}
        for mode in MODES:
            median, q1, q3 = machine.summary(spent[i, mode])
            row[mode] = {"us": median, "q1": q1, "q3": q3}
        print(f"{name:5} {i:18} fwd {row['forward']['us']:7.1f} µs   fwd+bwd {row['both']['us']:7.1f} µs")
        rows.append(row)
    return rows


def _case(layer: Layer, args: argparse.Namespace) -> Case:
    random = torch.Generator().manual_seed(SEED)
    edge_index = torch.randint(args.nodes, (2, args.edges), generator=random)
    x, grad = (torch.randn(args.nodes, args.features, generator=random) for _ in range(2))
    weights = {name: torch.randn(w.shape, generator=random) * 0.1 for name, w in layer.weights.items()}
    return Case(edge_index, args.nodes, x, grad, weights, {})


def _ways(layer: Layer, case: Case) -> dict[str, dict[str, Call]]:
    """Name -> mode -> a call with nothing left to prepare."""
    found: dict[str, dict[str, Call]] = {}
    for name, builder in {"gdsl": "gdsl", "torch_geometric": "pyg"}.items():
        try:
            built = BUILDERS[builder](layer, case)
        except Unsupported as reason:
            print(f"{name}: {reason}")
            continue
        found[name] = _both_modes(built.call, case, list(built.parameters.values()))
    conv = gdsl.compile(layer.source, **layer.arguments, backend="cpp")
    found["gdsl, edge_index"] = _both_modes(lambda x: conv(x, case.edge_index), case, list(conv.parameters()))
    return found


def _both_modes(call: Callable[[Tensor], Tensor], case: Case, parameters: list[Any]) -> dict[str, Call]:
    x = case.x.clone().requires_grad_()

    def forward() -> None:
        with torch.no_grad():
            call(x)

    def both() -> None:
        x.grad = None
        for parameter in parameters:
            parameter.grad = None
        call(x).backward(case.grad)

    return {"forward": forward, "both": both}


def _turn(call: Call, count: int) -> list[float]:
    """Microseconds of each call."""
    found = []
    for _ in range(count):
        start = time.perf_counter()
        call()
        found.append((time.perf_counter() - start) * 1e6)
    return found


if __name__ == "__main__":
    main()
