"""Plans: what fusion makes of a program, and what the code generators and the runtime read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from gdsl.ir.node import Node, walk_below
from gdsl.ir.program import Program
from gdsl.ir.types import Domain


@dataclass(frozen=True)
class Relative:
    """A sum of what has exp(score - maximum) as a factor, in the walk that finds the maximum: relative to the largest
    score so far, and made smaller where that grows.

    guarded: whether 0 is subtracted in place of -inf, where all scores are that; otherwise the sum is NaN there
    """

    total: Node
    top: Node
    guarded: bool


@dataclass(frozen=True)
class Phase:
    """One walk over the edges of a row.

    accumulators: segment nodes, and scans of which the end is wanted
    totals:       global sums over all edges (contract with total, scatter)
    stores:       edge values written out, scans among them
    kept:         edge values that later phases of the same row read again
    reverse:      whether the walk goes from the last edge to the first, as its scans ask for
    running:      of the accumulators, those that are relative to another of them: see :mod:`gdsl.passes.one_walk`
    """

    accumulators: tuple[Node, ...] = ()
    totals: tuple[Node, ...] = ()
    stores: tuple[Node, ...] = ()
    kept: tuple[Node, ...] = ()
    reverse: bool = False
    running: tuple[Relative, ...] = ()

    @property
    def scans(self) -> tuple[Node, ...]:
        """Folds in the order of the edges: of those among ``stores`` what each edge sees is written out."""
        return tuple(n for n in (*self.accumulators, *self.stores) if n.op == "scan")

    @property
    def roots(self) -> tuple[Node, ...]:
        """What the walk adds to or writes."""
        return (*self.accumulators, *self.totals, *self.stores)


@dataclass(frozen=True)
class Kernel:
    """A fused kernel, as the code generators read it.

    name:    a C identifier
    end:     the end whose nodes are the rows, or None for a kernel without edges
    rows:    the domain of the rows: of edges, it walks the pairs of which these are the second (end i) or the first
    complete: whether the edges that it walks are all pairs of nodes, which are in no list
    phases:  walks over the edges, in order
    stores:  node values written out, one row at a time
    totals:  global sums over all rows
    buffers: what it reads: loads, and nodes that earlier steps stored
    """

    name: str
    end: str | None
    rows: Domain
    phases: tuple[Phase, ...]
    stores: tuple[Node, ...]
    totals: tuple[Node, ...]
    buffers: tuple[Node, ...]
    complete: bool = False

    def __repr__(self) -> str:
        return f"<Kernel {self.name}: {len(self.phases)} walks, {len(self.outputs)} results>"

    @property
    def all_totals(self) -> tuple[Node, ...]:
        """The sums over edges and those over rows."""
        return (*self.totals, *(t for p in self.phases for t in p.totals))

    @property
    def ordered(self) -> bool:
        """Whether edges must be taken one after the other: no row can then be cut into chunks."""
        return any(p.scans for p in self.phases)

    @property
    def of_pairs(self) -> bool:
        """Whether it walks the pairs of each edge."""
        return self.end is not None and self.rows is Domain.EDGE

    @property
    def elements(self) -> Domain:
        """What its walks go through."""
        return Domain.PAIR if self.rows is Domain.EDGE else Domain.EDGE

    @property
    def leaves_hubs(self) -> bool:
        """Whether rows with very many edges are left to functions that walk them in chunks."""
        return bool(self.phases) and not self.ordered and not self.of_pairs and not self.complete

    @property
    def kept(self) -> tuple[Node, ...]:
        """The edge values that one walk over a row leaves for the next."""
        return tuple(k for p in self.phases for k in p.kept)

    @property
    def outputs(self) -> tuple[Node, ...]:
        """Everything it writes, in the order of its arguments."""
        found = [*self.stores, *self.totals]
        for phase in self.phases:
            found += [*phase.stores, *phase.totals]
        return tuple(found)


@dataclass(frozen=True)
class TorchStep:
    """One node evaluated by torch: dense products, views, and ops that only the reference has.

    absorbed: what it is the sum of and does not store: see :func:`gdsl.passes.dense.absorbed`
    """

    node: Node
    absorbed: frozenset[Node] = frozenset()

    @cached_property
    def buffers(self) -> tuple[Node, ...]:
        """What it reads, each once."""
        inner = self.absorbed | {self.node}
        return tuple(dict.fromkeys(i for n in self.computed for i in n.inputs if i not in inner))

    @property
    def computed(self) -> tuple[Node, ...]:
        """The node and what it absorbs, operands first."""
        return tuple(walk_below([self.node], lambda n: tuple(i for i in n.inputs if i in self.absorbed)))

    @property
    def outputs(self) -> tuple[Node, ...]:
        return (self.node,)


Step = Kernel | TorchStep


@dataclass(frozen=True)
class Plan:
    """A program ready to run: steps in order."""

    program: Program
    steps: tuple[Step, ...]

    def __repr__(self) -> str:
        return f"<Plan {self.program.name}: {len(self.steps)} steps, {len(self.kernels)} of them kernels>"

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        return tuple(s for s in self.steps if isinstance(s, Kernel))
