"""Every layer of gdsl.nn against torch_geometric's on small graphs that nobody has seen before.

    python benchmarks/fresh.py --json fresh.json
    python benchmarks/fresh.py --sizes 30x60 --layers "GCNConv;HANConv"

Forward + backward, preparing the graph included: the same edges in new memory in each call, for both. Both run in one
process, in turns, and processor time is taken, which others on the machine change least; of all rounds the best counts.
Native code for repeated calls is there before the first one, as it is from the second process on. Outputs and
gradients are compared first.
"""

from __future__ import annotations

import argparse
import gc
import time
import warnings
from typing import Any

import library
import machine
import report
import torch
from calls import CALLS
from graphs import SEED, sizes
from layers import TOLERANCE, difference

from gdsl.runtime import native

ROUNDS, WARM = 5, 15
# Calls of a round: so many on a graph of 60 edges, fewer on larger ones.
CALLS_OF_A_ROUND, FEWEST = 60, 4


def main() -> None:
    args = _arguments()
    warnings.simplefilter("ignore")
    torch.set_num_threads(args.threads)
    native.native(wait=True)
    about = machine.describe(args.threads, tiny=args.tiny)
    print("\n".join(machine.lines(about)))
    found: dict[str, Any] = {"kind": "fresh", "machine": about, "rounds": args.rounds, "results": []}
    for nodes, edges in args.sizes:
        random = torch.Generator().manual_seed(SEED)
        edge_index = torch.randint(nodes, (2, edges), generator=random)
        for name in args.layers:
            row = {"layer": name, "nodes": nodes, "edges": edges, **_measured(name, edge_index, nodes, args.rounds)}
            print(report.fresh_progress(row), flush=True)
            found["results"].append(row)
            report.write(found, args.json)
    if args.markdown:
        print(report.render(found))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", type=sizes, default="30x60,700x1500", help="nodes x edges, separated by commas")
    parser.add_argument("--layers", type=library.names, default=list(CALLS), help="separated by semicolons")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    report.add_options(parser)
    parser.set_defaults(threads=1)
    return parser.parse_args()


def _measured(name: str, edge_index: torch.Tensor, nodes: int, rounds: int) -> dict[str, Any]:
    """Microseconds of processor time a call, of both."""
    runs = {key: library.Run(namespace, name, edge_index, nodes) for key, namespace in library.LIBRARIES.items()}
    runs["gdsl"].layer.load_state_dict(runs["pyg"].layer.state_dict())
    differs = max(difference(a, b) for a, b in zip(*(run.results() for run in runs.values()), strict=True))
    if not differs <= TOLERANCE:
        raise SystemExit(f"gdsl's {name} differs by {differs:.1e}: nothing is timed")
    calls = max(FEWEST, CALLS_OF_A_ROUND * 60 // max(60, edge_index.shape[1]))
    best = dict.fromkeys(runs, float("inf"))
    for run in runs.values():
        for _ in range(min(WARM, 4 * calls)):
            run.fresh()
    for _ in range(rounds):
        for key, run in runs.items():
            gc.disable()
            start = time.process_time()
            for _ in range(calls):
                run.fresh()
            best[key] = min(best[key], (time.process_time() - start) / calls * 1e6)
            gc.enable()
    return {"us": best, "ratio": best["pyg"] / best["gdsl"], "difference": differs}


if __name__ == "__main__":
    main()
