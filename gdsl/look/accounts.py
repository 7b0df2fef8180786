"""``explain(graph)``: the accounts of a compilation. What each rule saved, what was not fused and why, how the graph's
edges are shared out, what the plan will hold in memory, and what bounds each kernel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from gdsl.codegen.schedule import CHUNK_EDGES, HUB_EDGES
from gdsl.ir.node import Node, walk
from gdsl.ir.ops import of
from gdsl.ir.printer import expression, name_nodes
from gdsl.ir.types import Domain
from gdsl.look.exchanged import exchanges, exchanges_in_turns
from gdsl.look.kernels import Inspection
from gdsl.passes import cost, fuse
from gdsl.passes.estimate import Work, work
from gdsl.passes.forecast import Forecast, forecast, size
from gdsl.passes.options import GraphShape
from gdsl.passes.pipeline import optimise
from gdsl.passes.plan import Kernel, Plan, TorchStep
from gdsl.passes.rewrite import Fired
from gdsl.passes.vendor import sparse_product
from gdsl.runtime.cpp import partial_sums
from gdsl.runtime.execute import TILE_BYTES
from gdsl.runtime.graph import Graph
from gdsl.runtime.halo import Halo
from gdsl.runtime.local import LocalGraph
from gdsl.runtime.order import Order

WIDTH = 150


def ledger(found: Inspection, graph: Graph, dtype: torch.dtype) -> str:
    """The accounts of a layer's plans on a graph."""
    return "\n".join(_Ledger(found, graph, dtype).lines())


class _Ledger:
    def __init__(self, found: Inspection, graph: Graph, dtype: torch.dtype):
        self.found, self.graph = found, graph
        self.width, self.index_width = dtype.itemsize, graph.index_dtype.itemsize
        self.shape = GraphShape(graph.num_readable, graph.num_targets, graph.num_edges, graph.device.type)
        self.rows = {
            Domain.NODE: graph.num_targets,
            Domain.SOURCE: graph.num_readable,
            Domain.OWN: graph.num_sources,
            Domain.TARGET: graph.num_targets,
            Domain.EDGE: graph.num_edges,
        }
        if any(n.domain is Domain.PAIR for n in walk([n for _, n in found.typed.outputs])):
            self.rows[Domain.PAIR] = int(graph.pairs.degree("in_degree", torch.float64).sum())
        self.sizes = cost.Numbers(self.rows)

    def lines(self) -> Iterator[str]:
        yield "\n== the graph and its schedule =="
        yield from self.schedule()
        yield "\n== rules that fired =="
        yield from self.rules()
        yield "\n== not fused, and why =="
        yield from self.refusals()
        if self.graph.halo is not None:
            yield "\n== between processes =="
            yield from self.between(self.graph.halo)
        yield "\n== memory, before anything runs =="
        yield from self.memory()
        yield "\n== kernels on this graph =="
        yield "    a flop is one function of a number, be it an addition, a comparison or an exp; a * b + c is two"
        yield from self.kernels()

    # -- the graph -----------------------------------------------------------------------------

    def schedule(self) -> Iterator[str]:
        graph = self.graph
        yield f"    {graph.num_sources:,} sources, {graph.num_targets:,} targets, {graph.num_edges:,} edges"
        for name, order in (("in", graph.in_edges), ("out", graph.out_edges)):
            yield f"    {name}-degree: {_histogram(order)}"
            blocks = order.blocks.numel() - 1
            threads = torch.get_num_threads()
            yield f"        {blocks:,} blocks of about equal work, taken by {threads} threads as they get free"
            if len(order.hubs):
                edges = int((order.rowptr.diff()[order.hubs]).sum())
                held = _share(edges, graph.num_edges)
                yield f"        {len(order.hubs)} hubs with more than {HUB_EDGES:,} edges hold {held} of the edges:"
                yield f"        all threads walk each of them, {CHUNK_EDGES:,} edges at a time"

    # -- rules ---------------------------------------------------------------------------------

    def rules(self) -> Iterator[str]:
        typed = self.found.typed
        log: list[Fired] = []
        optimise(typed.program, self.found.options, log)
        yield from self.fired("forward", log)
        assert self.found.adjoints is not None  # made here, so that the log is whole
        yield from self.fired("backward", self.found.backward_log)
        assert self.found.plans is not None
        yield from self.fired("before kernels", self.found.last_log)

    def fired(self, direction: str, log: Sequence[Fired]) -> Iterator[str]:
        yield f"{direction}:" if log else f"{direction}: none"
        counts: dict[tuple[str, str, str], tuple[int, Work]] = {}
        for f in log:
            names = {**self.found.typed.names, **_constants(f)}
            key = (f.rule, _short(expression(f.before, names)), _short(expression(f.after, names)))
            saved = saved_by(f, self.shape)
            count, total = counts.get(key, (0, Work()))
            counts[key] = (count + 1, total + saved)
        for (rule, before, after), (count, saved) in counts.items():
            yield f"    {rule}{f' ({count} times)' if count > 1 else ''}{_saved(saved)}"
            yield f"            {before}"
            yield f"        --> {after}"

    # -- fusion --------------------------------------------------------------------------------

    def refusals(self) -> Iterator[str]:
        for direction, plan in self.found.plans:
            names = name_nodes(plan.program)
            for step in plan.steps:
                if isinstance(step, TorchStep):
                    yield f"    {direction}: torch computes {_short(expression(step.node, names))}"
                    yield f"        {fuse.why_torch(step.node)}"
            for node, maker, reader, why in fuse.boundaries(plan):
                yield f"    {direction}: {maker} and {reader} are two kernels: {_short(expression(node, names))}"
                yield f"        {why}"

    def between(self, halo: Halo) -> Iterator[str]:
        read, sent = f"{halo.rows:,}", f"{len(halo.send):,}"
        yield f"    {halo.world} processes: this one reads {read} rows of others, and sends {sent} rows"
        total = 0
        for p in self.found.planned:
            assert isinstance(self.graph, LocalGraph)
            found = [*exchanges(p.direction, p.plan, self.graph, self.width)]
            if p.piece is not None and p.whole is not None:
                found += exchanges_in_turns(p.direction, p.piece, p.whole, self.graph, self.width)
            for line, count, why in found:
                yield f"    {_bytes(count):>10}  {_short(line)}"
                yield f"                {why}"
                total += count
        for direction, why in self.found.at_once:
            yield f"    {direction}: all rows of others at once, and not in turns: {_short(why)}"
        yield f"sent by this process in a step: {_bytes(total)}"

    # -- memory --------------------------------------------------------------------------------

    def memory(self) -> Iterator[str]:
        saved = [n for a in self.found.adjoints for n, _ in a.saved]
        for p in self.found.planned:
            direction, plan = p.direction, p.plan
            names = name_nodes(plan.program)
            in_turns = p.piece is not None and p.piece.turns
            f = self.forecast(plan, self.rows | self.part_rows() if in_turns else self.rows)
            yield f"{direction}: {_bytes(f.peak)} at the peak, inputs and parameters not counted"
            for t in f.tensors:
                if not t.bytes:
                    continue
                what = "output" if t.node in plan.program.nodes else f"steps {t.first + 1} to {t.last + 1}"
                if direction == "forward" and t.node in saved:
                    what = "saved for the backward"
                yield f"    {_bytes(t.bytes):>10}  {_short(expression(t.node, names), 80)}   # {t.node.type}, {what}"
            for step, what, held in f.scratch:
                yield f"    {_bytes(held):>10}  {what}, in step {step + 1}"
        total = sum(size(n, self.rows, self.width, self.index_width) for n in saved)
        yield f"saved between forward and backward: {_bytes(total)} in {len(saved)} tensors"

    def part_rows(self) -> dict[Domain, int]:
        """The most edges, and rows that they read, of one turn."""
        parts = self.graph.parts if isinstance(self.graph, LocalGraph) else ()
        rows, edges = max(p.stop - p.start for p in parts), max(p.graph.num_edges for p in parts)
        return {Domain.SOURCE: rows, Domain.EDGE: edges}

    def forecast(self, plan: Plan, rows: dict[Domain, int]) -> Forecast:
        order = self.graph.in_edges
        widest = max((t.type.numel for k in plan.kernels for t in k.all_totals), default=0)
        return forecast(
            plan,
            rows,
            torch.get_num_threads(),
            min(order.max_degree, HUB_EDGES) + 1,
            partial_sums(order.blocks.numel() - 1, widest),
            TILE_BYTES if self.graph.device.type == "cpu" and self.width > 2 else 0,
            self.width,
            self.index_width,
        )

    # -- kernels -------------------------------------------------------------------------------

    def kernels(self) -> Iterator[str]:
        for direction, plan in self.found.plans:
            for kernel in plan.kernels:
                moved = cost.bytes_moved(kernel, self.sizes, self.width)
                flops, time = cost.operations(kernel, self.sizes), cost.time(kernel, self.sizes)
                yield (
                    f"    {direction} {kernel.name}: {_bytes(moved)}, {flops / 1e6:,.1f} Mflop, "
                    f"{flops / max(moved, 1):.2f} flops a byte: bound by {_bound(time / max(moved, 1))}"
                )
                if _is_sparse_product(kernel):
                    yield "        a plain weighted sum; the vendor's sparse product was slower in every run on a CPU,"
                    yield '        and is the choice sums="vendor"'


def saved_by(fired: Fired, shape: GraphShape) -> Work:
    """What one application of a rule saves on a graph."""
    return work([fired.before], shape) - work([fired.after], shape)


def traffic(found: Inspection, graph: Graph, dtype: torch.dtype) -> dict[str, tuple[float, float]]:
    """Bytes moved and operations of the forward and of the backward plans on a graph, kernels and products of torch.

    Bytes are counted as if no cache held a gathered row, and each step of torch reads and writes its tensors once. An
    operation is a function of one number, whatever it takes; a multiplication with its addition counts as two.
    """
    book = _Ledger(found, graph, dtype)
    sums = {"forward": (0.0, 0.0), "backward": (0.0, 0.0)}
    for direction, plan in found.plans:
        moved, flops = sums[direction]
        for kernel in plan.kernels:
            moved += cost.bytes_moved(kernel, book.sizes, book.width)
            flops += cost.operations(kernel, book.sizes)
        for step in plan.steps:
            done = sum(of(n).work(n, book.sizes) for n in step.computed) if isinstance(step, TorchStep) else 0
            if isinstance(step, TorchStep) and done:
                held = [*step.buffers, *step.outputs]
                moved += sum(size(n, book.rows, book.width, book.index_width) for n in held)
                flops += done
        sums[direction] = (moved, flops)
    return sums


# Additions a byte at which memory and arithmetic take equally long, on the processors that this was measured on: see
# the ceilings in docs/performance.md.
_BALANCE = 6.0


def _bound(additions: float) -> str:
    """By how many additions a byte a kernel's operations take the time of."""
    return "memory" if additions < _BALANCE else "arithmetic"


def _is_sparse_product(kernel: Kernel) -> bool:
    """Whether a kernel is one walk that sums rows at the other end, each with at most one number an edge as weight."""
    roots = [r for p in kernel.phases for r in p.roots]
    return len(roots) == 1 and sparse_product(roots[0]) is not None


def _constants(f: Fired) -> dict[Node, str]:
    """Loads have their own names whatever the user called them."""
    return {n: n.attrs.name for n in walk([f.before, f.after]) if n.op == "load"}


def _histogram(order: Order) -> str:
    degree = order.rowptr.diff().double()
    if not len(degree):
        return "no nodes"
    cuts = [int(q) for q in torch.quantile(_sample(degree), torch.tensor([0.0, 0.5, 0.9, 0.99]).double())]
    return (
        f"mean {float(degree.mean()):.1f}, least {cuts[0]}, median {cuts[1]}, 90% up to {cuts[2]}, "
        f"99% up to {cuts[3]}, most {order.max_degree:,}"
    )


def _sample(values: torch.Tensor, most: int = 1 << 20) -> torch.Tensor:
    """Evenly spread: quantiles of torch take no more than 16 million values."""
    return values[:: len(values) // most + 1]


def _share(part: int, whole: int) -> str:
    return f"{100 * part / max(whole, 1):.0f}%"


def _short(text: str, width: int = WIDTH) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def _bytes(count: float) -> str:
    for unit, size_ in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size_:
            return f"{count / size_:,.1f} {unit}"
    return f"{count:.0f} B"


def _saved(saved: Work) -> str:
    parts = []
    if saved.operations:
        parts.append(f"{saved.operations / 1e6:+,.1f} Mflop")
    if saved.bytes:
        parts.append(f"{'-' if saved.bytes < 0 else '+'}{_bytes(abs(saved.bytes))}")
    return f": saves {' and '.join(parts)}" if parts else ""
