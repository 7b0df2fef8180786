"""Every layer of gdsl.nn against torch_geometric's: the same class, arguments, weights and call on one graph.

    python benchmarks/library.py --graph molecules --json library.json --markdown
    python benchmarks/library.py --graph github --data FOLDER --layers "GCNConv;FiLMConv"

"fresh" is forward + backward on a graph never seen: the same edges in new memory, to be prepared by both. The two take
turns in one process, and ratios are taken within a turn; peak memory is measured in another one, as
gdsl.look.measure does. Outputs and gradients are compared first. Layers that torch_geometric runs only with another
package (SplineConv, XConv, GravNetConv, DynamicEdgeConv, PANConv) are left out.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any

import children
import graphs
import machine
import report
import torch
from calls import CALLS, draw, graphs_for
from graphs import GRAPHS, SEED
from layers import TOLERANCE, difference
from torch import Tensor, nn

from gdsl.look import measure

LIBRARIES = {"gdsl": "gdsl.nn", "pyg": "torch_geometric.nn"}
MODES = ("forward", "both")
TIMED = (*MODES, "fresh")
# Turns take this long in all, and are at least and at most this many.
BUDGET_S, FEWEST, MOST = 4.0, 3, 9


def main() -> None:
    args = _arguments()
    if args.measure:
        print(json.dumps(_measure(args)))
        return
    about = machine.describe(args.threads, tiny=args.tiny)
    print("\n".join(machine.lines(about)))
    edge_index, nodes = GRAPHS[args.graph](args.nodes, args.edges, args.data)
    graph = {"name": args.graph, "nodes": nodes, "edges": edge_index.shape[1]}
    found: dict[str, Any] = {"kind": "library", "machine": about, "graph": graph, "results": []}
    with tempfile.TemporaryDirectory() as folder:
        cache = None if args.tiny else folder
        for name in args.layers:
            row = {"layer": name, **_child(args, name, "time", cache)}
            if "failed" not in row:
                row["memory"] = _child(args, name, "memory", cache)
            print(_progress(row), flush=True)
            found["results"].append(row)
            report.write(found, args.json)
    if args.markdown:
        print(report.render(found))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    graphs.add_options(parser, "molecules")
    parser.add_argument("--layers", type=names, default=list(CALLS), help="separated by semicolons")
    parser.add_argument("--measure", choices=("time", "memory"), help=argparse.SUPPRESS)
    report.add_options(parser)
    return parser.parse_args()


def names(text: str) -> list[str]:
    """Those of the calls that a text names, separated by semicolons."""
    found = [n.strip() for n in text.split(";")]
    for name in found:
        if name not in CALLS:
            raise argparse.ArgumentTypeError(f"there is no {name!r}; there are {'; '.join(CALLS)}")
    return found


def _child(args: argparse.Namespace, name: str, what: str, cache: str | None) -> dict[str, Any]:
    """What a process of its own finds about a layer."""
    data = ["--data", args.data] if args.data else []
    command = [
        *(sys.executable, __file__, "--measure", what, "--layers", name, "--graph", args.graph, *data),
        *("--nodes", str(args.nodes), "--edges", str(args.edges), "--threads", str(args.threads)),
    ]
    environment = children.environment(args.threads, cache, exact_memory=what == "memory")
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        return {"failed": done.stderr[-2000:] or f"the process ended with {done.returncode}"}
    return json.loads(done.stdout.splitlines()[-1])


class Run:
    """The call of a layer, by one of the two."""

    def __init__(self, namespace: str, name: str, edge_index: Tensor, nodes: int):
        call = CALLS[name]
        random = torch.Generator().manual_seed(SEED)
        self.graph = graphs_for(call.graph, edge_index, nodes, random)
        edges = edge_index.shape[1]
        self.first = [draw(kind, nodes, edges, random) for kind in call.first]
        self.then = {key: draw(kind, nodes, edges, random) for key, kind in call.then.items()}
        torch.manual_seed(SEED)
        args = [a() if callable(a) else a for a in call.args]
        self.layer: nn.Module = getattr(importlib.import_module(namespace), call.layer)(*args, **call.kwargs)
        inputs = [x.requires_grad_() for x in _tensors(self.first[0])]
        self.leaves = [*inputs, *self.layer.parameters()]
        self.grads: list[Tensor] = []

    def __call__(self) -> list[Tensor]:
        return _tensors(self.layer(*self.first, *self.graph, **self.then))

    def forward(self) -> list[Tensor]:
        with torch.no_grad():
            return self()

    def both(self) -> list[Tensor]:
        """Gradients of the features and of every parameter."""
        measure.clear(self.leaves)
        outputs = self()
        if not self.grads:
            random = torch.Generator().manual_seed(SEED)
            self.grads = [torch.randn(o.shape, generator=random) for o in outputs]
        torch.autograd.backward(outputs, self.grads)
        return outputs

    def fresh(self) -> list[Tensor]:
        """The same on a graph that nobody has prepared. The copy of the edges counts for both."""
        self.graph = tuple(_copied(part) for part in self.graph)
        return self.both()

    def results(self) -> list[Tensor]:
        """Outputs, and gradients in the order of inputs and parameters; zeros where there is none."""
        found = [o.detach() for o in self.both()]
        return found + [torch.zeros(()) if t.grad is None else t.grad for t in self.leaves]


def _copied(graph: Any) -> Any:
    if isinstance(graph, dict):
        return {key: _copied(part) for key, part in graph.items()}
    return graph.clone() if isinstance(graph, Tensor) else graph


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [t for part in parts for t in _tensors(part)]


def _measure(args: argparse.Namespace) -> dict[str, Any]:
    warnings.simplefilter("ignore")
    torch.set_num_threads(args.threads)
    edge_index, nodes = GRAPHS[args.graph](args.nodes, args.edges, args.data)
    (name,) = args.layers
    runs = {key: Run(namespace, name, edge_index, nodes) for key, namespace in LIBRARIES.items()}
    runs["gdsl"].layer.load_state_dict(runs["pyg"].layer.state_dict())
    if args.measure == "memory":
        return {key: {m: measure.peak(getattr(run, m), run.leaves)["mb"] for m in MODES} for key, run in runs.items()}
    start = time.perf_counter()
    ours = runs["gdsl"].results()
    found: dict[str, Any] = {"first_call_s": time.perf_counter() - start}
    pairs = list(zip(ours, runs["pyg"].results(), strict=True))
    found["difference"] = max(difference(a, b) for a, b in pairs)
    if not found["difference"] <= TOLERANCE:
        raise SystemExit(f"gdsl's {name} differs by {found['difference']:.1e}: nothing is timed")
    for mode in TIMED:
        found[mode] = _turns({key: getattr(run, mode) for key, run in runs.items()})
    return found


def _turns(calls: dict[str, Callable[[], object]]) -> dict[str, Any]:
    """Medians of the milliseconds of each, and of the ratio in a turn. One call of each is not counted."""
    warm = sum(measure.seconds(call) for call in calls.values())
    count = max(FEWEST, min(MOST, int(BUDGET_S / warm / 2)))
    rounds: dict[str, list[float]] = {key: [] for key in calls}
    gc.collect()
    for _ in range(count):
        for key, call in calls.items():
            call()  # the other one may have emptied the caches
            rounds[key].append(measure.seconds(call) * 1e3)
    ratios = [b / a for a, b in zip(rounds["gdsl"], rounds["pyg"], strict=True)]
    return {**{key: statistics.median(ms) for key, ms in rounds.items()}, "ratio": statistics.median(ratios)}


def _progress(row: dict[str, Any]) -> str:
    if "failed" in row:
        return f"{row['layer']:26} failed: {row['failed'].strip().splitlines()[-1]}"
    parts = [f"{row['layer']:26}"]
    for mode in TIMED:
        parts.append(f"{mode} {row[mode]['gdsl']:8.2f} ms x{row[mode]['ratio']:<6.2f}")
    return "  ".join(parts)


if __name__ == "__main__":
    main()
