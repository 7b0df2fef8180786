"""gdsl against its peers on one graph: time forward and forward + backward, first call, and peak memory.

    python benchmarks/layers.py                               four layers, the graph of docs/performance.md
    python benchmarks/layers.py --layers GCN,EdgeConv --peers pyg,pyg-sorted,torch.sparse,pyg-compile,dgl
    python benchmarks/layers.py --graph github --data FOLDER --json github.json --markdown

Each (layer, implementation) runs in a process of its own; only one computes at a time. Time is taken in
rounds: in each round every implementation makes a few calls in its turn, so that a machine that gets slower
slows all of them, and ratios are taken within a round. Before that, each one's outputs and gradients are
compared with torch_geometric's for the same weights, and the run ends if gdsl's differ by more than 3e-3 in root
mean square.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import graphs
import machine
import report
import torch
from cases import make_case
from children import Child, ChildFailed, children
from graphs import GRAPHS
from peers import BUILDERS
from programs import ALL
from torch import Tensor

Row = dict[str, Any]
Request = dict[str, Any]

MODES = ("forward", "both")
REFERENCE = "pyg"
# Where two edges of a hub are nearly the largest, rounding decides which of them gets the gradient: on the GitHub graph
# torch_geometric's PointNet differs from float64 by 1.6e-3, and gdsl's by 1.0e-3.
TOLERANCE = 3e-3

# An implementation slower than this makes one timed call a round.
SLOW_MS = 500


@dataclass(frozen=True)
class Settings:
    layers: tuple[str, ...]
    implementations: tuple[str, ...]
    features: int
    repeats: int
    calls: int
    threads: int
    cold: bool


def main() -> None:
    args = _arguments()
    settings = Settings(
        tuple(args.layers), ("gdsl", *args.peers), args.features, args.repeats, args.calls, args.threads, not args.tiny
    )
    torch.set_num_threads(args.threads)
    edge_index, nodes = GRAPHS[args.graph](args.nodes, args.edges, args.data)
    graph = {"name": args.graph, "nodes": nodes, "edges": edge_index.shape[1]}
    about = machine.describe(args.threads, tiny=args.tiny)
    print("\n".join(machine.lines(about)))
    size = f"{nodes:,} nodes, {edge_index.shape[1]:,} edges, {args.features} features, float32"
    print(f"{args.graph}: {size}\n")
    found: dict[str, Any] = {
        "kind": "layers",
        "machine": about,
        "graph": graph,
        "features": args.features,
        "repeats": args.repeats,
        "calls": args.calls,
        "results": [],
    }
    with tempfile.TemporaryDirectory() as folder:
        for name in settings.layers:
            found["results"] += _layer(name, edge_index, nodes, settings, Path(folder))
            report.write(found, args.json)  # each time, so that a run that is cut short leaves what it has
    if args.markdown:
        print(report.render(found))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    graphs.add_options(parser, "power-law")
    parser.add_argument("--features", type=int, default=64, help="a multiple of 4, the number of heads")
    parser.add_argument("--layers", type=_names(ALL), default="GCN,SAGE,GAT,GATv2", help=",".join(ALL))
    parser.add_argument("--peers", type=_names(BUILDERS), default="pyg,torch.sparse", help=",".join(BUILDERS))
    parser.add_argument("--repeats", type=int, default=7, help="rounds")
    parser.add_argument("--calls", type=int, default=3, help="timed calls of each implementation in a round")
    report.add_options(parser)
    return parser.parse_args()


class _names:
    """An argument type: names from a table, separated by commas."""

    def __init__(self, table: Mapping[str, Any]):
        self.table = table

    def __call__(self, text: str) -> list[str]:
        names = [n for n in text.split(",") if n]
        for name in names:
            if name not in self.table:
                raise argparse.ArgumentTypeError(f"there is no {name!r}; there are {', '.join(self.table)}")
        return [n for n in names if n != "gdsl"]


# -- one layer -------------------------------------------------------------------------------------


def _layer(name: str, edge_index: Tensor, nodes: int, settings: Settings, folder: Path) -> list[Row]:
    """A row for each implementation that has the layer."""
    case = folder / f"{name}.case"
    torch.save(make_case(ALL[name](settings.features), edge_index, nodes, settings.features), case)
    wanted = settings.implementations
    asked = wanted if REFERENCE in wanted else (*wanted, REFERENCE)
    build = {"do": "build", "layer": name, "features": settings.features, "case": str(case)}
    requests = {
        i: {**build, "implementation": i, "threads": settings.threads, "result": str(folder / f"{name}.{i}")}
        for i in asked
    }
    rows: dict[str, Row] = {}
    cache = str(folder) if settings.cold else None
    with children() as started:
        running: dict[str, Child] = {}
        for i, request in requests.items():
            started.append(Child(settings.threads, cache))
            rows[i] = {"layer": name, "implementation": i, **_asked(started[-1], request)}
            if _works(rows[i]):
                running[i] = started[-1]
        _compare(name, rows, requests)
        timed = {i: child for i, child in running.items() if i in wanted}
        _time(timed, rows, settings)
    for i in timed:
        rows[i]["memory"] = _memory(requests[i], settings.threads, cache)
        print(report.progress(rows[i]), flush=True)
    for i in wanted:
        for why in ("unsupported", "failed"):
            if why in rows[i]:
                print(f"{name:12} {i:13} {why}: {rows[i][why].strip().splitlines()[-1]}")
    print()
    return [rows[i] for i in wanted]


def _asked(child: Child, request: Request) -> dict[str, Any]:
    try:
        return child.ask(**request)
    except ChildFailed as error:
        if request["implementation"] == "gdsl":
            raise SystemExit(f"gdsl failed:\n{error}") from error
        return {"failed": str(error) or "the process ended without a word"}


def _works(row: Row) -> bool:
    return "first_call" in row


def _compare(name: str, rows: Mapping[str, Row], requests: Mapping[str, Request]) -> None:
    """The difference from torch_geometric of the output and of each gradient, into the rows."""
    if not _works(rows[REFERENCE]):
        print(f"{name}: torch_geometric does not run it, so nothing is compared")
        return
    expected = torch.load(requests[REFERENCE]["result"], weights_only=True)
    for i, row in rows.items():
        if i == REFERENCE or not _works(row):
            continue
        found = torch.load(requests[i]["result"], weights_only=True)
        row["difference"] = {k: difference(t, expected[k]) for k, t in found.items()}
        worst = max(row["difference"], key=row["difference"].__getitem__)
        largest = row["difference"][worst]
        print(f"{name}: {i} differs from torch_geometric by {largest:.1e} at most (in {worst})")
        if i == "gdsl" and not largest <= TOLERANCE:
            raise SystemExit(f"gdsl's {name} is wrong: nothing is timed")


def difference(found: Tensor, expected: Tensor) -> float:
    """The root mean square of the difference, in units of that of what was expected where that is above 1.

    Not the largest difference: where the two best edges of a maximum differ by a rounding error, the other one may
    win, and then a few gradients go to other nodes. And not relative below 1: some gradients are zero but for rounding.
    """
    scale = max(1.0, float(expected.double().square().mean().sqrt()))
    return float((found - expected).double().square().mean().sqrt()) / scale


def _time(timed: Mapping[str, Child], rows: Mapping[str, Row], settings: Settings) -> None:
    """Rounds of turns; a round's time is the median of the calls in it."""
    for mode in MODES:
        found = {fresh: _rounds(timed, mode, fresh, settings) for fresh in (False, True)}
        for i in timed:
            rows[i][mode] = {**found[False][i], "fresh": found[True][i]}


def _rounds(timed: Mapping[str, Child], mode: str, fresh: bool, settings: Settings) -> dict[str, Row]:
    """On the graph prepared once, or on one that is ``fresh`` in each call."""
    rounds: dict[str, list[float]] = {i: [] for i in timed}
    for _ in range(settings.repeats):
        for i, child in timed.items():
            slow = bool(rounds[i]) and rounds[i][0] > SLOW_MS
            reply = child.ask(do="time", mode=mode, fresh=fresh, calls=1 if slow else settings.calls)
            rounds[i].append(statistics.median(reply["ms"]))
    found: dict[str, Row] = {}
    for i, ms in rounds.items():
        median, q1, q3 = machine.summary(ms)
        found[i] = {"ms": median, "q1": q1, "q3": q3, "rounds": ms}
        if i != "gdsl":
            found[i]["over_gdsl"] = statistics.median(a / b for a, b in zip(ms, rounds["gdsl"], strict=True))
    return found


def _memory(request: Request, threads: int, cache: str | None) -> dict[str, Any]:
    """Peak memory in a fresh process, whose malloc keeps no large block: see worker.py."""
    with children() as started:
        child = Child(threads, cache, exact_memory=True)
        started.append(child)
        _asked(child, request)
        return {mode: child.ask(do="memory", mode=mode) for mode in MODES}


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
