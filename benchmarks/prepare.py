"""What making a graph ready takes: both orders of its edges, from an `edge_index` never seen before.

    python benchmarks/prepare.py --json prepare.json --threads 1

By native code, by torch's operators, which do it without a compiler, and DGL making its formats, if it is installed. In
turns in one process; processor time, the best of all rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Callable
from typing import Any

import graphs
import machine
import report
import torch

import gdsl
from gdsl.runtime import prepare

dgl: Any = None
with contextlib.suppress(ImportError, OSError):
    import dgl

ROUNDS, ROUND_S = 9, 0.05
# Name, nodes, edges, whether each node is given a loop.
CASES = (("random", 700, 1_500, True), ("random", 700, 1_500, False), ("molecules", 25_000, 54_000, False))
LARGE = (("random", 50_000, 1_000_000, False), ("power-law", 50_000, 1_000_000, True))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    report.add_options(parser)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    found: dict[str, Any] = {"kind": "prepare", "machine": machine.describe(args.threads, tiny=args.tiny)}
    found["rounds"], found["results"] = ROUNDS, []
    for case in CASES if args.tiny else CASES + LARGE:
        found["results"].append(_row(*case))
        print(found["results"][-1], flush=True)
    report.finish(found, args)


def _row(name: str, nodes: int, edges: int, loops: bool) -> dict[str, Any]:
    """Microseconds by each way."""
    random = torch.Generator().manual_seed(graphs.SEED)
    listed = torch.randint(nodes, (2, edges), generator=random)
    if name != "random":
        listed, nodes = {"molecules": graphs.molecules, "power-law": graphs.power_law}[name](nodes, edges)
    code = prepare.native(wait=True)
    if code is None:
        raise SystemExit("native code needs a C++ compiler")

    def ours() -> None:
        graph = gdsl.Graph(listed.clone(), nodes)
        graph = graph.add_self_loops().graph if loops else graph
        assert graph.in_edges.num_blocks and graph.out_edges.num_blocks

    def by_torch() -> None:
        prepare._native, kept = None, prepare._state
        prepare._state = "missing"
        try:
            ours()
        finally:
            prepare._native, prepare._state = code, kept

    def formats() -> None:
        source, target = listed.clone()
        graph = dgl.graph((source, target), num_nodes=nodes)
        (graph.add_self_loop() if loops else graph).create_formats_()

    ways: dict[str, Callable[[], None]] = {"gdsl": ours, "torch": by_torch} | ({"dgl": formats} if dgl else {})
    calls = {way: _calls(run) for way, run in ways.items()}
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(ROUNDS):
        for way, run in ways.items():
            best[way] = min(best[way], _seconds(run, calls[way]))
    of_graph = {"graph": name, "nodes": nodes, "edges": listed.shape[1], "loops": loops}
    return {**of_graph, "us": {way: 1e6 * seconds for way, seconds in best.items()}}


def _calls(run: Callable[[], None]) -> int:
    run()
    return max(1, min(500, int(ROUND_S / _seconds(run, 2))))


def _seconds(run: Callable[[], None], calls: int) -> float:
    start = time.process_time()
    for _ in range(calls):
        run()
    return (time.process_time() - start) / calls


if __name__ == "__main__":
    main()
