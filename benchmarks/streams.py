"""Layers on graphs that were never seen before: what a layer costs in training, preparing the graph included.

    python benchmarks/streams.py --json streams.json --markdown
    python benchmarks/streams.py --threads 1 --layers GCN,GAT --sizes 30x60,700x1500

Every call gets a graph of its own, whose numbers of nodes and edges differ by up to a tenth from those asked for;
graphs are drawn before any is timed. All run in this process, in turns of a few
calls; ratios are taken within a round. gdsl runs in two ways: its library, as a drop-in, and the text of the layer.
Before a size is timed, outputs and gradients are compared with torch_geometric's for the same weights.

"products" is what nobody is spared: each matrix of the layer times a row a node, and the two products of its backward
pass, by torch. Its ratio bounds what any way can reach whose products are torch's.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import machine
import report
import torch
import torch_geometric.typing as pyg_settings
from cases import make_case
from graphs import SEED, sizes
from peers import Case, streamed
from programs import ALL, Layer
from torch import Tensor

NAMES = ("GCN", "SAGE", "GIN", "GAT", "GATv2", "Transformer", "EdgeConv", "PNA")
SIZES = ("30x60", "700x1500", "6000x13000", "25000x54000", "20000x200000", "100000x1000000")
MODES = ("forward", "both")
TOLERANCE = 3e-3

# A turn takes about this long, as long as it has no more than so many calls.
TURN_S = 0.05
MOST_CALLS = 20
# Sizes differ from those asked for by one part in so many.
SPREAD = 10

Row = dict[str, Any]


def main() -> None:
    args = _arguments()
    torch.set_num_threads(args.threads)
    gc.freeze()  # modules: nothing to look at before each turn
    found: dict[str, Any] = {
        "kind": "streams",
        "machine": machine.describe(args.threads, tiny=args.tiny),
        "features": args.features,
        "rounds": args.rounds,
        "results": [],
    }
    for nodes, edges in args.sizes:
        for name in args.layers:
            found["results"] += _rows(name, nodes, edges, args)
            report.write(found, args.json)  # each time, so that a run that is cut short leaves what it has
    if args.markdown:
        print(report.render(found))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--layers", type=_layers, default=",".join(NAMES), help=",".join(ALL))
    parser.add_argument("--sizes", type=sizes, default=",".join(SIZES), help="nodes x edges, separated by commas")
    parser.add_argument("--features", type=int, default=64, help="a multiple of 4, the number of heads")
    parser.add_argument("--rounds", type=int, default=15)
    report.add_options(parser)
    return parser.parse_args()


def _layers(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in ALL or ALL[name](4).extras:
            raise argparse.ArgumentTypeError(f"there is no {name!r} without edge inputs; there are {', '.join(NAMES)}")
    return names


# -- one layer on graphs of one size ---------------------------------------------------------------


class Step(NamedTuple):
    """What a call gets: features [N, F], ``edge_index`` [2, E], and the gradient [N, ...] that arrives."""

    x: Tensor
    edge_index: Tensor
    grad: Tensor


@dataclass(frozen=True)
class Way:
    """A way to run a layer on graphs that are new in each call."""

    call: Callable[[Tensor, Tensor], Tensor]
    parameters: Sequence[Tensor]
    scatter: bool

    def run(self, mode: str, step: Step) -> Tensor:
        if mode == "forward":
            with torch.no_grad():
                return self.call(step.x, step.edge_index)
        for parameter in self.parameters:
            parameter.grad = None
        y = self.call(step.x, step.edge_index)
        y.backward(step.grad)
        return y


@dataclass(frozen=True)
class Products:
    """The products of a layer's matrices with rows of nodes, and nothing else: [N, a] by [a, b]."""

    matrices: Sequence[Tensor]
    rows: Sequence[tuple[Tensor, Tensor]]
    scatter: bool = False

    @classmethod
    def of(cls, layer: Layer, nodes: int) -> Products:
        matrices = [torch.randn(w.shape).flatten(1) for w in layer.weights.values() if w.linear]
        rows = [(torch.randn(nodes, m.shape[0]), torch.randn(nodes, m.shape[1])) for m in matrices]
        return cls(matrices, rows)

    def run(self, mode: str, step: Step) -> None:
        count = len(step.x)
        for matrix, (x, grad) in zip(self.matrices, self.rows, strict=True):
            x, grad = x[:count], grad[:count]
            torch.mm(x, matrix)
            if mode == "both":
                torch.mm(x.t(), grad)
                torch.mm(grad, matrix.t())


def _rows(name: str, nodes: int, edges: int, args: argparse.Namespace) -> list[Row]:
    layer = ALL[name](args.features)
    most = nodes + nodes // SPREAD
    case = Case(**make_case(layer, torch.zeros(2, 0, dtype=torch.int64), most, args.features))
    steps = _drawn(nodes, edges, case)
    ways = _ways(layer, case)
    _compare(name, ways, next(steps))
    turns: dict[str, Way | Products] = {**ways, "products": Products.of(layer, most)}
    rows = {way: {"layer": name, "nodes": nodes, "edges": edges, "implementation": way} for way in turns}
    for mode in MODES:
        rounds: dict[str, list[float]] = {way: [] for way in turns}
        calls = {way: _calls(turns[way], mode, [*_extremes(nodes, edges, case), next(steps)]) for way in turns}
        for _ in range(args.rounds):
            for way in turns:
                rounds[way].append(_turn(turns[way], mode, [next(steps) for _ in range(calls[way])]))
        for way, ms in rounds.items():
            median, q1, q3 = machine.summary(ms)
            rows[way][mode] = {"ms": median, "q1": q1, "q3": q3}
        # Against the faster of torch_geometric's ways, in each round.
        best = [min(took) for took in zip(*(rounds[way] for way in ways if way.startswith("pyg")), strict=True)]
        for way in (w for w in turns if not w.startswith("pyg")):
            rows[way][mode]["ratio"] = statistics.median(b / g for b, g in zip(best, rounds[way], strict=True))
    print(report.stream_progress(list(rows.values())), flush=True)
    return list(rows.values())


def _drawn(nodes: int, edges: int, case: Case) -> Iterator[Step]:
    """Steps without end. ``case`` has features and gradients for the largest."""
    random = torch.Generator().manual_seed(SEED)
    while True:
        some, more = (
            int(torch.randint(n - n // SPREAD, n + n // SPREAD + 1, (), generator=random)) for n in (nodes, edges)
        )
        yield _step(some, more, case, random)


def _step(nodes: int, edges: int, case: Case, random: torch.Generator) -> Step:
    x = case.x[:nodes].clone().requires_grad_()
    return Step(x, torch.randint(nodes, (2, edges), generator=random), case.grad[:nodes])


def _extremes(nodes: int, edges: int, case: Case) -> list[Step]:
    """The sparsest and the densest: graphs of other densities may run other kernels, which a stream compiles once."""
    random = torch.Generator().manual_seed(SEED)
    less, more = ((n - n // SPREAD, n + n // SPREAD) for n in (nodes, edges))
    return [_step(less[1], more[0], case, random), _step(less[0], more[1], case, random)]


def _ways(layer: Layer, case: Case) -> dict[str, Way]:
    built = {name: streamed(layer, case, name) for name in ("gdsl", "gdsl.nn", "pyg")}
    ways = {name: Way(call, [*parameters.values()], False) for name, (call, parameters) in built.items()}
    if importlib.util.find_spec("torch_scatter") is not None:
        ways["pyg-scatter"] = Way(ways["pyg"].call, ways["pyg"].parameters, True)
    return ways


def _compare(name: str, ways: dict[str, Way], step: Step) -> None:
    found = {}
    for way in ways:
        step.x.grad = None
        y = ways[way].run("both", step)
        assert step.x.grad is not None
        found[way] = (y.detach(), step.x.grad)
    for way, results in found.items():
        for result, expected in zip(results, found["pyg"], strict=True):
            scale = max(1.0, float(expected.double().square().mean().sqrt()))
            if not float((result - expected).double().square().mean().sqrt()) / scale <= TOLERANCE:
                raise SystemExit(f"{name} by {way} is wrong: nothing is timed")


def _calls(way: Way | Products, mode: str, steps: Sequence[Step]) -> int:
    """How many calls a turn has, after some that warm up."""
    _turn(way, mode, steps)
    took = _turn(way, mode, steps)
    return max(1, min(MOST_CALLS, int(TURN_S * 1e3 / took)))


def _turn(way: Way | Products, mode: str, steps: Sequence[Step]) -> float:
    """Milliseconds of a call."""
    pyg_settings.WITH_TORCH_SCATTER = way.scatter
    gc.collect()
    gc.disable()
    start = time.perf_counter()
    for step in steps:
        way.run(mode, step)
    took = time.perf_counter() - start
    gc.enable()
    return took * 1e3 / len(steps)


if __name__ == "__main__":
    main()
