"""A plan run one number at a time, as its kernels run: row by row, walk by walk, edge by edge.

What it computes and reads is counted on the way, by the tensors at hand. All that it writes is compared with the
reference, so that what is counted is enough to compute it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from gdsl.ir.node import Node, walk
from gdsl.ir.ops import ELEMENTWISE, of
from gdsl.ir.ops.op import full
from gdsl.ir.types import Domain, Kind
from gdsl.passes.cost import BLOCK_EDGES
from gdsl.passes.layout import is_sparse
from gdsl.passes.plan import Kernel, Phase, Plan, TorchStep
from gdsl.runtime import reference
from gdsl.runtime.frame import Frame

WIDTH = {Kind.FLOAT: 4, Kind.INT: 4, Kind.BOOL: 1}
INDEX = 4


@dataclass(frozen=True)
class Place:
    """Where a value is computed: at the row of a walk, at an edge, or at the row at the edge's other end."""

    what: str
    index: int


class OneRow:
    """A run of one row, whose edges are all of its edges."""

    dtype, device = torch.float64, torch.device("cpu")

    def __init__(self, edges: int = 1):
        self.edges = edges

    def rows(self, domain: Domain) -> int:
        return self.edges if domain is Domain.EDGE else 1

    def ends(self, end: str, elements: Domain = Domain.EDGE) -> Tensor:
        return torch.zeros(self.edges, dtype=torch.long)


class Walked:
    """The count of a plan on the loads of its program: ``bytes``, ``operations``, and the ``values`` of all steps."""

    def __init__(self, plan: Plan, loads: Mapping[Node, Tensor], frame: Frame):
        self.frame, self.bytes, self.operations = frame, 0, 0
        nodes = list(walk([n for step in plan.steps for n in step.outputs]))
        values = dict(loads)
        for node in nodes:
            if node not in values:
                values[node] = reference.evaluate(node, [values[i] for i in node.inputs], frame)
        self.expected = {n: full(v, n.type, frame) for n, v in values.items()}
        self.values: dict[Node, Tensor] = {n: self.expected[n] for n in nodes if of(n).leaf}
        for step in plan.steps:
            if isinstance(step, TorchStep):
                self.torch_step(step)
            else:
                self.kernel(step)

    # -- steps of torch ------------------------------------------------------------------------

    def torch_step(self, step: TorchStep) -> None:
        before = self.operations
        for node in step.computed:
            args = [self.values[i] for i in node.inputs]
            with FlopCounterMode(display=False) as counter:
                self.values[node] = full(reference.evaluate(node, args, self.frame), node.type, self.frame)
            # torch's own count of products of matrices, where there is one.
            self.operations += counter.get_total_flops() or operations(node, args)
        if self.operations > before:
            held = [*step.buffers, *step.outputs]
            self.bytes += sum(self.values[n].numel() * WIDTH[n.kind] for n in held)

    # -- kernels -------------------------------------------------------------------------------

    def kernel(self, kernel: Kernel) -> None:
        self.buffers, self.end = set(kernel.buffers), kernel.end
        self.tables: set[Node] = set()
        self.made = {n: torch.zeros_like(self.expected[n]) for n in kernel.outputs}
        for row in range(self.frame.rows(kernel.rows)):
            self.row(kernel, row)
        for node, found in self.made.items():
            torch.testing.assert_close(found, self.expected[node], equal_nan=True)
            self.bytes += found.numel() * WIDTH[node.kind]
        self.values |= self.made

    def row(self, kernel: Kernel, row: int) -> None:
        # What was computed for this row, for this edge in this walk, and what one walk kept of each edge for the next.
        self.of_row: dict[object, Tensor] = {}
        self.of_edge: dict[object, Tensor] = {}
        self.sums: dict[Node, Tensor] = {}
        self.kept: dict[int, dict[Node, Tensor]] = {}
        self.at_row = Place("row", row)
        edges: list[int] = []
        if kernel.end is not None:
            self.bytes += INDEX
            edges = (self.frame.ends(kernel.end) == row).nonzero().flatten().tolist()
        for phase in kernel.phases:
            self.phase(phase, edges)
        for node in kernel.stores:
            self.made[node][row] = self.value(node, self.at_row)[0]
        for node in kernel.totals:
            self.made[node] += self.computed(node, self.at_row, {})

    def phase(self, phase: Phase, edges: Sequence[int]) -> None:
        """One walk. What it adds up is a value of the row after it."""
        folded = dict.fromkeys((*phase.accumulators, *phase.scans))
        operands: dict[Node, list[list[Tensor]]] = {n: [] for n in folded}
        # What sums are relative to is counted before them, and what it is made of an edge is there for them.
        tops = {r.top: operands.pop(r.top) for r in phase.running if r.top in operands}
        begun = {edge: self.begun(phase, tops, edge) for edge in edges} if tops else {}
        self.sums |= {n: full(self.folded(n, found, edges), n.type, OneRow(len(edges))) for n, found in tops.items()}
        # Maxima grow once a block of edges.
        sizes = [n.type.numel for n in (*tops, *(r.total for r in phase.running))]
        self.operations += len(edges) / BLOCK_EDGES * sum(sizes)
        for edge in edges:
            at = Place("edge", edge)
            self.of_edge, self.indices = begun.get(edge) or self.begun(phase, {}, edge)
            for node in operands:
                operands[node].append([self.value(i, at) for i in node.inputs])
                each = operands[node][-1][0].numel()
                steps = sum(n.op in ELEMENTWISE for n in walk([node.attrs.step])) if node.op == "scan" else 1
                self.operations += steps * (node.type.numel if node.op == "scan" else each)
            for node in phase.totals:
                self.made[node] += self.computed(node, at, {})
            for node in (n for n in phase.stores if n.op != "scan"):
                self.made[node][edge] = self.value(node, at)[0]
            self.kept.setdefault(edge, {}).update({n: self.value(n, at) for n in phase.kept})
            self.bytes += INDEX * len(self.indices)
        for node, found in operands.items():
            result = full(self.folded(node, found, edges), node.type, OneRow(len(edges)))
            if node in phase.accumulators:
                self.sums[node] = result
            else:
                self.made[node][edges] = result

    def begun(
        self, phase: Phase, tops: Mapping[Node, list[list[Tensor]]], edge: int
    ) -> tuple[dict[object, Tensor], set[str]]:
        """What is known of an edge, and which of its indices were read: that of its other end, and its number."""
        at = Place("edge", edge)
        self.of_edge = {(n, at, ()): v for n, v in self.kept.get(edge, {}).items()}
        self.indices = {"edge"} if phase.stores else set[str]()
        for node, found in tops.items():
            found.append([self.value(i, at) for i in node.inputs])
            self.operations += found[-1][0].numel()
        return self.of_edge, self.indices

    def folded(self, node: Node, found: Sequence[Sequence[Tensor]], edges: Sequence[int]) -> Tensor:
        """An accumulator, from its operands at each edge."""
        types = [(i.type.shape, self.expected[i].dtype) for i in node.inputs]
        columns = [
            torch.cat([torch.zeros(0, *shape, dtype=dtype), *(args[k].reshape(1, *shape) for args in found)])
            for k, (shape, dtype) in enumerate(types)
        ]
        result = reference.evaluate(node, columns, OneRow(len(edges)))
        if node.op == "segment" and node.attrs.reducer.startswith("arg") and edges:
            return torch.where(result < 0, result, torch.tensor(edges)[result.clamp(min=0)])
        return result

    def value(self, node: Node, at: Place, picked: Mapping[str, int] | None = None) -> Tensor:
        """A value at a place, [1, *dims], or a global one: computed once there. ``picked``: of how many places of a dim
        it is read."""
        if node in self.sums:
            return self.sums[node]
        picked = {d: n for d, n in (picked or {}).items() if d in node.type.names}
        memory = self.of_row if at.what == "row" else self.of_edge
        key = node, at, tuple(sorted(picked.items()))
        if key not in memory and node in self.buffers:
            memory[key] = self.read(node, at, picked)
        elif key not in memory:
            memory[key] = self.computed(node, at, picked)
        return memory[key]

    def read(self, node: Node, at: Place, picked: Mapping[str, int]) -> Tensor:
        whole = self.values[node]
        if node.domain is Domain.GLOBAL:
            self.bytes += 0 if node in self.tables else whole.numel() * WIDTH[node.kind]
            self.tables.add(node)
            return whole
        self.bytes += prod(picked.get(d.name, d.size) for d in node.dims) * WIDTH[node.kind]
        if at.what != "row":
            self.indices.add(at.what)
        return whole[at.index : at.index + 1]

    def computed(self, node: Node, at: Place, picked: Mapping[str, int]) -> Tensor:
        if node.op in ("graph_value", "random"):
            self.operations += node.type.numel * (node.op == "random")
            if at.what == "edge":
                self.indices.add("edge")
            return self.expected[node][at.index : at.index + 1]
        if node.op == "gather":
            end = node.attrs.end
            other = Place("other", int(self.frame.ends(end)[at.index]))
            return self.value(node.inputs[0], self.at_row if end == self.end else other, picked)
        if node.op == "index":
            table, places = node.inputs
            args = [self.value(table, at, {node.attrs.dim: places.type.numel}), self.value(places, at)]
        else:
            args = [self.value(i, at, picked if of(node).pointwise else None) for i in node.inputs]
        result = reference.evaluate(node, args, OneRow())
        self.operations += operations(node, args)
        return result


def operations(node: Node, args: Sequence[Tensor]) -> float:
    """Of a node, from the tensors of its operands: a function or an addition to a sum is one a number."""
    shapes = [a.shape[len(a.shape) - len(i.dims) :] for a, i in zip(args, node.inputs, strict=True)]
    sizes: dict[str, int] = {}
    for operand, shape in zip(node.inputs, shapes, strict=True):
        sizes |= zip(operand.type.names, shape, strict=True)
    rows = max([len(a) for a, i in zip(args, node.inputs, strict=True) if i.domain is not Domain.GLOBAL], default=1)
    numbers = rows * prod(sizes.values())
    if node.op in ELEMENTWISE or node.op in ("segment", "scatter", "reduce"):
        return numbers
    if node.op != "contract":
        return 0
    each = len(args) - 1 + bool(node.attrs.reduce or node.attrs.total)
    # A product leaves out the zeros of an operand that has few numbers.
    few = [a for a, i in zip(args, node.inputs, strict=True) if len(args) > 1 and is_sparse(i)]
    return numbers * each * min((int(a.count_nonzero()) / a.numel() for a in few), default=1.0)
