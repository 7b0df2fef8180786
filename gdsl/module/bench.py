"""``gdsl bench``: a layer's program on its own backend against the torch backend, on a made-up graph."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gdsl.errors import CommandError
from gdsl.language import ast
from gdsl.language.program import MAKERS, TypedProgram
from gdsl.language.signature import Signature, signature_of
from gdsl.look import measure
from gdsl.look.check import error_of
from gdsl.look.show import optional_inputs
from gdsl.module.layer import Layer
from gdsl.module.node import drawn
from gdsl.module.rerun import random_edges
from gdsl.runtime.backend import backend_for
from gdsl.runtime.graph import Graph

DTYPES = ("float32", "float64", "float16", "bfloat16")
PROFILES = ("random", "regular", "power-law")
MODES = ("forward", "both")
_TITLES = {"forward": "forward", "both": "forward + backward"}
_SEED = 0
# Turns are at least and at most so many.
FEWEST, MOST = 3, 200


@dataclass(frozen=True)
class Setting:
    """What a layer is measured on.

    edges:   None for ``degree`` edges at each target
    profile: "random": both ends drawn evenly; "regular": as many edges at each target; "power-law": few sources have
             most edges
    modes:   of :data:`MODES`
    seconds: about how long the turns of a mode take in all
    present: the optional inputs that are passed
    """

    nodes: int = 10_000
    sources: int | None = None
    edges: int | None = None
    degree: int = 16
    profile: str = "random"
    dtype: str = "float32"
    backend: str = "auto"
    device: str = "cpu"
    modes: Sequence[str] = MODES
    seconds: float = 2.0
    present: Sequence[str] = ()


@dataclass(frozen=True)
class Timed:
    """Medians of a mode: milliseconds, and megabytes at the peak besides the results, or None where nobody tells.

    ratio: how many times as long torch takes: the median of the ratios in each turn
    """

    ms: float
    torch_ms: float
    ratio: float
    mb: float | None
    torch_mb: float | None


@dataclass(frozen=True)
class Measured:
    """What came out, and what it was measured on.

    error: the largest difference of results and gradients between the two
    """

    title: str
    backend: str
    modes: Mapping[str, Timed]
    first_s: float
    error: float
    notes: Sequence[str] = ()

    def table(self) -> str:
        """As text: a row for each mode."""
        head: tuple[str, ...] = (
            "",
            f"{self.backend} ms",
            "torch ms",
            "times",
            f"{self.backend} MB",
            "torch MB",
            "times",
        )
        rows: list[tuple[str, ...]] = [head]
        for mode, t in self.modes.items():
            more = t.torch_mb / t.mb if t.mb and t.torch_mb is not None else None
            rows.append((_TITLES[mode], *map(_number, (t.ms, t.torch_ms, t.ratio, t.mb, t.torch_mb, more))))
        widths = [max(len(row[k]) for row in rows) for k in range(len(head))]
        lines = ["  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
                 for row in rows]  # fmt: skip
        last = f"first call {self.first_s:.2g} s, compiling included; largest difference {self.error:.1e}"
        return "\n".join([self.title, *self.notes, "", *lines, "", last])


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def bench(layer: ast.Layer, given: Mapping[str, Any], on: Setting) -> Measured:
    """Measure a layer with these arguments and sizes.

    Raises :class:`gdsl.CommandError` where something is missing or does not fit, and what the layer itself raises.
    """
    signature = signature_of(layer)
    _check_given(signature, given, on)
    dtype, device = getattr(torch, on.dtype), torch.device(on.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise CommandError("--device cuda: torch finds no GPU here")
    torch.manual_seed(_SEED)
    made = Layer(layer, **given).to(device, dtype)
    sizes = {name: int(given[name]) for name in signature.free_dims}
    typed = made._text.typed_for(made, made._text.way(made, tuple(on.present), sizes))
    graph, notes = _graph(typed, on)
    graph = graph.to(device)
    names = signature.graphs or ("graph",)
    graphs = {name: _turned(graph, k) if k else graph for k, name in enumerate(names)}
    random = torch.Generator().manual_seed(_SEED)
    inputs = {d.name: drawn(d, graphs.get(d.within, graph), dtype, random) for d in typed.of_role("input") if d.present}
    arguments = {**inputs, **({} if signature.builds_graph else graphs)}
    made.backend = on.backend
    own = backend_for(on.backend, dtype, device)
    ways = {own: made, "torch": _on_torch(made)}
    runs = {name: _Runs(way, arguments, inputs) for name, way in ways.items()}
    first = measure.seconds(runs[own].both if "both" in on.modes else runs[own].forward)
    error = _difference(runs, on.modes)
    if own == "torch":
        notes.append("the layer runs on torch here, so that both are the same")
    times = {mode: _turns({n: getattr(r, mode) for n, r in runs.items()}, on.seconds, device) for mode in on.modes}
    memory = {mode: {n: _peak(getattr(r, mode), r.leaves, device) for n, r in runs.items()} for mode in on.modes}
    found = {mode: Timed(*times[mode], memory[mode][own], memory[mode]["torch"]) for mode in on.modes}
    size = f"{graph.num_targets:,} nodes"
    sets = list(dict.fromkeys(end for one in typed.graphs for end in (one.source, one.target) if end))
    if sets:
        size += f" in each of {', '.join(sets)}"
    if graph.is_bipartite:
        size = f"{graph.num_sources:,} sources, {graph.num_targets:,} targets"
    if not signature.builds_graph:
        size += f", {graph.num_edges:,} edges"
        size += f" in each of {', '.join(signature.graphs)}" if signature.graphs else ""
    where = f"{torch.get_num_threads()} threads" if device.type == "cpu" else torch.cuda.get_device_name(device)
    words = " ".join(f"{name}={value}" for name, value in given.items())
    title = f"{made._get_name()}({words}) on {size}, {on.dtype}, {where}"
    return Measured(title, own, found, first, error, notes)


def _check_given(signature: Signature, given: Mapping[str, Any], on: Setting) -> None:
    needed = [f"the torch module `{name}`" for name, optional in signature.modules if not optional]
    if needed:
        raise CommandError(f"{signature.name} needs {' and '.join(needed)}, which a command cannot give")
    tables = [name for name in signature.tables if name not in given]
    if tables:
        ways = f"--set {' '.join(f'{name}={name}.npy' for name in tables)}, or .json"
        raise CommandError(f"{signature.name} needs the numbers of {', '.join(f'`{t}`' for t in tables)}: {ways}")
    missing = [p.name for p in signature.arguments if p.required and p.name not in given]
    missing += [name for name in signature.free_dims if name not in given]
    if missing:
        wanted = " ".join(f"{name}=16" for name in missing)
        raise CommandError(f"{signature.name} can only be timed with a value of {', '.join(missing)}: --set {wanted}")
    optional_inputs(on.present, signature)
    if on.nodes < 1 or (on.sources is not None and on.sources < 1) or min(on.edges or 0, on.degree) < 0:
        raise CommandError("a graph to measure on has at least one node, and no negative number of edges")
    if not 0 <= on.seconds < math.inf:
        raise CommandError(f"--seconds {on.seconds:g}: it is a number from 0")


def _on_torch(layer: Layer) -> Layer:
    """The same layer, on the same parameters, on the torch backend."""
    twin = Layer._of(layer._text.again(layer.options), {})
    twin.__dict__.update({key: value for key, value in layer.__dict__.items() if key not in ("_text", "backend")})
    twin.backend = "torch"
    return twin


# ------------------------------------------------------------------------------------------- graph


def _graph(typed: TypedProgram, on: Setting) -> tuple[Graph, list[str]]:
    """The graph, and what to say of it."""
    if any(t.name in MAKERS for t in typed.transforms):
        if on.edges is not None or on.sources is not None:
            raise CommandError(f"{typed.name} makes its own edges: --edges and --sources say nothing to it")
        return random_edges(on.nodes, on.nodes, 0), ["edges: those that the program makes"]
    sources = on.nodes if on.sources is None else on.sources
    if sources != on.nodes and not typed.bipartite:
        raise CommandError(f"{typed.name} has one set of nodes: --sources is of layers with source and target nodes")
    edges = on.degree * on.nodes if on.edges is None else on.edges
    degrees = {need.end: need.value for need in typed.requires if need.kind != "reverse"}
    if degrees:
        end, each = next(iter(degrees.items()))
        if len(degrees) > 1 or sources != on.nodes:
            raise CommandError(f"{typed.name} asks for degrees at both ends, which no made-up graph has")
        found = random_edges(on.nodes, on.nodes, 0, each=each)
        return (found if end == "i" else found.reverse()), [f"degrees: {each} each, as the program asks"]
    if any(need.kind == "reverse" for need in typed.requires):
        return random_edges(sources, on.nodes, edges, both_ways=True), ["edges: both ways, as the program asks"]
    if on.profile == "regular":
        each = max(1, edges // on.nodes)
        return random_edges(sources, on.nodes, 0, each=each), [f"degrees: {each} at each target"]
    if on.profile == "power-law" and edges:
        listed = measure.power_law(max(sources, on.nodes), edges, _SEED)
        listed = torch.stack([listed[0] % sources, listed[1] % on.nodes])
        found = Graph(listed, (sources, on.nodes))
    else:
        found = random_edges(sources, on.nodes, edges)
    most = f"{int(found.in_degree.max())} at the busiest target, {int(found.out_degree.max())} at the busiest source"
    return found, [f"degrees: {on.profile}, {most}"]


def _turned(graph: Graph, k: int) -> Graph:
    """As many other edges: each goes to the target k places on."""
    source, target = graph.edge_index
    return Graph(torch.stack([source, (target + k) % graph.num_targets]), (graph.num_sources, graph.num_targets))


# ------------------------------------------------------------------------------------ measurements


class _Runs:
    """A layer on its inputs."""

    def __init__(self, layer: Layer, arguments: Mapping[str, Any], inputs: Mapping[str, Tensor]):
        self.layer = layer
        own = {n: v.detach().requires_grad_(v.is_floating_point()) for n, v in inputs.items()}
        self.arguments = {**arguments, **own}
        self.leaves = [v for v in (*own.values(), *layer.parameters()) if v.requires_grad]

    def forward(self) -> Any:
        with torch.no_grad():
            return self.layer(**self.arguments)

    def both(self) -> Any:
        """Gradients of all inputs and parameters, of ones."""
        measure.clear(self.leaves)
        results = self.layer(**self.arguments)
        many = results if isinstance(results, tuple) else (results,)
        real = [r for r in many if r.requires_grad]
        torch.autograd.backward(real, [torch.ones_like(r) for r in real])
        return results


def _difference(runs: Mapping[str, _Runs], modes: Sequence[str]) -> float:
    """The largest difference between the results, and between the gradients, of the ways."""
    found = []
    for run in runs.values():
        torch.manual_seed(_SEED)  # for what draws
        results = run.both() if "both" in modes else run.forward()
        many = results if isinstance(results, tuple) else (results,)
        values = [*many, *(leaf.grad for leaf in run.leaves if "both" in modes and leaf.grad is not None)]
        found.append([value.detach().double() for value in values])
        measure.clear(run.leaves)
    first, last = found[0], found[-1]
    return max((error_of(a, b) for a, b in zip(first, last, strict=True)), default=0.0)


def _turns(calls: Mapping[str, Callable[[], Any]], budget: float, device: torch.device) -> tuple[float, float, float]:
    """Median milliseconds of each, in turns, and the median of their ratios."""

    def timed(call: Callable[[], Any]) -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()

        def done() -> None:
            call()
            if device.type == "cuda":
                torch.cuda.synchronize()

        return measure.seconds(done)

    warm = sum(timed(call) for call in calls.values())
    rounds = [[timed(call) for call in calls.values()] for _ in range(max(FEWEST, min(MOST, int(budget / warm))))]
    own, reference = ([turn[k] * 1e3 for turn in rounds] for k in (0, -1))
    ratios = [b / a for a, b in zip(own, reference, strict=True)]
    return statistics.median(own), statistics.median(reference), statistics.median(ratios)


def _peak(call: Callable[[], Any], leaves: Sequence[Tensor], device: torch.device) -> float | None:
    if device.type == "cuda":
        return measure.peak_on_gpu(call)
    measure.give_back()
    return measure.peak(call, leaves)["mb"]


# -------------------------------------------------------------------------------------------- plot


def plot(found: Measured, path: Path) -> None:
    """Bars of times and memory as a picture, of the kind that the name of the file says.

    Raises :class:`gdsl.CommandError` without matplotlib, and for a kind that it does not write.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise CommandError("--plot needs matplotlib: pip install 'gdsl[plot]'") from error
    figure = Figure(figsize=(8, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    names = [_TITLES[mode] for mode in found.modes]
    for axes, unit, pairs in (
        (left, "ms", [(t.ms, t.torch_ms) for t in found.modes.values()]),
        (right, "MB at the peak", [(t.mb or 0.0, t.torch_mb or 0.0) for t in found.modes.values()]),
    ):
        for k, name in enumerate((found.backend, "torch")):
            bars = axes.barh([i + (k - 0.5) * 0.4 for i in range(len(pairs))], [p[k] for p in pairs], 0.38, label=name)
            axes.bar_label(bars, [_number(p[k]) for p in pairs], padding=3)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set_xlabel(unit)
        axes.margins(x=0.2)
        axes.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False)
    figure.suptitle(found.title, fontsize="small")
    try:
        figure.savefig(path)
    except ValueError as error:  # a format that it does not know
        raise CommandError(f"--plot {path.name}: {str(error).splitlines()[0]}") from error
