"""Where a plan computes each value: how, and in which kernel.

Every node gets a *lowering*, the kind of step that computes it, and a *slot* ``(rank, end)``: what has one slot is
computed by one kernel. The rank rises where a value must be complete for all rows before it is used: when it is read at
the other end of an edge, or by a torch step.

In a program with pairs of edges, edges are to pairs what nodes are to edges, and the pairs of an edge are walked at the
ends "ji" and "kj". What belongs to edges there is computed once an edge, as node values are once a node; but for what
reads nodes, which a walk over edges makes. Pairs are never stored, and so what they read of edges is.
"""

from __future__ import annotations

from collections.abc import Mapping

from gdsl.errors import GraphError
from gdsl.ir.node import Node, users, walk, walk_below
from gdsl.ir.ops import ELEMENTWISE, end_of, of
from gdsl.ir.printer import describe
from gdsl.ir.program import Program
from gdsl.ir.types import PAIR_ENDS, Domain, Kind, shown_end
from gdsl.passes.dense import DENSE_INTENSITY, ROWS, absorbed, is_dense, iteration_space

TOTALS = ("total", "row_total")
BY_TORCH = ("torch", "absorbed")

# An accumulator lives in a core's cache while a row is walked.
MAX_ACCUMULATOR = 1 << 16
# An edge value of many operations that many walks would compute again is written: how many operations are made again
# at most, and how many it has at least.
MOST_AGAIN = 512
LEAST_WRITTEN = 16
# So is one of at most so many numbers that takes at least so many multiplications for each of them.
MOST_NARROW = 8
LEAST_DEAR = 128
# A node value is computed once an edge while that reads at most this many times its own numbers; else once a node.
MOST_READ = 2

Slot = tuple[int, str | None]

# The ends at which the rows that have such elements are walked.
WALKS = {Domain.EDGE: tuple(PAIR_ENDS), Domain.PAIR: tuple(PAIR_ENDS.values())}


def _is_plain_total(node: Node) -> bool:
    """Whether a sum over rows only reads its operands once: a matrix product of them is best left to the BLAS."""
    per_row = [i for i in node.inputs if i.domain is not Domain.GLOBAL]
    domains = {i.domain for i in per_row}
    if len(domains) != 1 or not domains <= ROWS | {Domain.EDGE}:
        return False
    few = iteration_space(node) <= DENSE_INTENSITY * sum(i.type.numel for i in per_row)
    return node.op == "scatter" or (node.op == "contract" and node.attrs.total and few)


def _fits_a_kernel(node: Node) -> bool:
    """Whether a walk can reduce it. Which places of ``max by`` stay empty is not known from a row's edges alone."""
    by_extreme = len(node.inputs) == 2 and node.attrs.reducer in ("max", "min")
    return node.type.numel <= MAX_ACCUMULATOR and not by_extreme


def _is_wide(node: Node) -> bool:
    return node.type.numel > MAX_ACCUMULATOR


def is_costly(node: Node) -> bool:
    """Whether each number of a value takes many operations."""
    return of(node).reduces or of(node).heavy


def is_dear(node: Node) -> bool:
    """Whether an edge value has few numbers that take many multiplications, of edges alone, as a weight that a network
    makes of an edge's features: reading it costs less than computing it again."""
    if node.domain is not Domain.EDGE or node.kind is not Kind.FLOAT or node.type.numel > MOST_NARROW:
        return False
    below = walk_below([node], lambda n: n.inputs if n.domain is Domain.EDGE else ())
    made = [n for n in below if n.domain is Domain.EDGE and not of(n).leaf]
    products = sum(iteration_space(n) for n in made if n.op == "contract")
    return products >= LEAST_DEAR * node.type.numel and all(of(n).rowwise for n in made)


class Slots:
    """A lowering and a slot for every node of a program.

    absorbed: what each step of torch computes besides its node
    stored:   what must exist as a tensor
    written:  the values of edges among it that walks read from memory
    handed:   those among them that a walk over a given end writes while it uses them, for walks over the other

    listed:   whether pairs of edges are there as a list, which no kernel walks: of a distributed graph

    Raises :class:`gdsl.GraphError` for the edges of a ``complete`` graph where one of their values had to be stored.
    """

    def __init__(self, program: Program, handed: Mapping[Node, str], complete: bool = False, listed: bool = False):
        self.program, self.handed, self.listed = program, handed, listed
        self.order = list(walk(program.nodes))
        self.users = users(program.nodes)
        self.outputs = set(program.nodes)
        self.has_pairs = any(n.domain is Domain.PAIR for n in self.order)
        self.lowering = {}
        self.written: set[Node] = set(handed)
        for node in self.order:
            self.lowering[node] = self._lower(node)
            if self.lowering[node] == "edge" and node.domain is Domain.EDGE and self._is_of_rows(node):
                self.written.add(node)
        self._leave_pairs()
        self.absorbed = self._absorb()
        self._settle_views()
        self.stored = {n for n in self.order if self._must_store(n)}
        self.slots: dict[Node, Slot] = {}
        self.edge_ranks: dict[tuple[Node, str], int] = {}
        self._assign()
        worth = set() if complete else self._worth_writing()
        if worth:
            self.written |= worth
            self.stored |= worth
            self.slots.clear()
            self.edge_ranks.clear()
            self._assign()
        self._sink()
        if complete:
            self._refuse_stored()

    def _refuse_stored(self) -> None:
        """No kernel writes or reads an edge value, and no step of torch is given one."""
        for node in self.order:
            outside = self.lowering[node] in BY_TORCH and any(i.domain is Domain.EDGE for i in node.inputs)
            known = of(node).leaf and node.op != "load"
            if outside or (node.domain is Domain.EDGE and node in self.stored and not known):
                what = describe(node, self.program.names)
                raise GraphError(
                    f"{self.program.name} cannot run on a complete graph: for `{what}`, {node.type}, values of all "
                    f"pairs would have to be stored"
                    + (f", since it has more than {MAX_ACCUMULATOR:,} numbers" if outside and _is_wide(node) else "")
                    + '; the torch backend stores them, where there is room'
                )

    # -- what kind of step computes a node -----------------------------------------------------

    def _lower(self, node: Node) -> str:
        """leaf | torch | absorbed (in a torch step) | edge (in a walk) | row (per node, in a kernel) | segment | total
        | row_total | scan (written an edge)."""
        if of(node).leaf:
            return "leaf"
        if of(node).whole or node.domain in (Domain.GRAPH, Domain.OWN) or end_of(node) == "g":
            return "torch"
        if node.op == "scan":
            fits = node.type.numel <= MAX_ACCUMULATOR
            return "torch" if not fits else "segment" if node.attrs.last else "scan"
        if node.domain in WALKS and not self._is_once_an_edge(node):
            return "edge"
        walked = (Domain.PAIR,) if self.has_pairs else (Domain.EDGE,)
        over_edges = any(i.domain in walked for i in node.inputs)
        if node.domain is Domain.GLOBAL:
            if node.type.numel > MAX_ACCUMULATOR:
                return "torch"
            return "total" if over_edges else "row_total" if _is_plain_total(node) else "torch"
        if node.op == "segment":
            return "segment" if _fits_a_kernel(node) else "torch"
        if node.op == "contract" and is_dense(node):
            return "torch"
        return "row"

    def _is_once_an_edge(self, node: Node) -> bool:
        """Whether an edge value is made of what lies in memory for each edge, as node values are."""
        if not self.has_pairs or node.domain is not Domain.EDGE or node.op == "gather":
            return False
        if node.op == "segment" or (node.op == "contract" and is_dense(node)):
            return True
        read = [i for i in node.inputs if i.domain is not Domain.GLOBAL]
        return all(self.lowering[i] != "edge" or i in self.written for i in read)

    def _is_of_rows(self, node: Node) -> bool:
        """Whether an edge value that a walk makes is read where the edge is a row: at pairs, or once an edge."""
        return self.has_pairs and any(
            u.domain in (Domain.PAIR, Domain.GLOBAL) or (u.op == "contract" and is_dense(u)) for u in self.users[node]
        )

    def _leave_pairs(self) -> None:
        """Where torch reduces pairs, it has them as a list: kernels, which have not, then compute nothing of pairs."""
        found = (n for n in self.order if any(i.domain is Domain.PAIR for i in (n, *n.inputs)))
        left = [n for n in found if self.lowering[n] != "leaf"]
        if self.listed or any(self.lowering[n] == "torch" for n in left):
            self.lowering |= dict.fromkeys(left, "torch")

    def _absorb(self) -> dict[Node, frozenset[Node]]:
        """Leave sums of dense products to torch; what each of them absorbs."""
        found = {}
        for node in reversed(self.order):
            inner = absorbed(node, self.users, self.outputs) if self.lowering[node] == "row" else None
            if inner:
                found[node] = inner
                self.lowering |= {node: "torch", **dict.fromkeys(inner, "absorbed")}
        return found

    def _settle_views(self) -> None:
        """A view of node values is free in torch; inside a kernel it is index arithmetic."""
        for node in self.order:
            if not of(node).arranges or self.lowering[node] != "row":
                continue
            free = node.op == "reshape" and self.lowering[node.inputs[0]] in ("leaf", "torch")
            outside = all(self.lowering[u] in BY_TORCH for u in self.users[node])
            if free or outside:
                self.lowering[node] = "torch"

    def _must_store(self, node: Node) -> bool:
        """Whether the value must exist as a tensor, whoever makes it."""
        how = self.lowering[node]
        if how in ("leaf", "torch", "scan", *TOTALS) or node in self.written or self.is_handed_out(node):
            return True
        if how == "row" and any(u.op == "gather" for u in self.users[node]):
            return self._is_costly(node)
        return False

    def is_handed_out(self, node: Node) -> bool:
        """Whether a value is a result, or read by a step of torch."""
        return node in self.outputs or any(self.lowering[u] in BY_TORCH for u in self.users[node])

    def _is_costly(self, node: Node) -> bool:
        """Whether reading the value once an edge should not mean computing it once an edge."""
        below = list(walk_below([node], lambda n: n.inputs if self.lowering[n] == "row" else ()))
        computed = [n for n in below if self.lowering[n] == "row"]
        read = [n for n in below if self.lowering[n] != "row" and n.domain is not Domain.GLOBAL]
        numbers = sum(min(n.type.numel, node.type.numel) for n in read)
        many = len(computed) > 3 or numbers > MOST_READ * node.type.numel
        return many or any(map(is_costly, computed))

    # -- slots ---------------------------------------------------------------------------------

    def _worth_writing(self) -> set[Node]:
        """The edge values that walks read from memory."""
        # How many walks, one needing the other, there are before a value, and before the first and last that read it.
        time: dict[Node, int] = {}
        for node in self.order:
            walked = any(self.lowering[i] == "edge" for i in node.inputs) and self.lowering[node] != "edge"
            time[node] = max((time[i] for i in node.inputs), default=0) + walked
        walks: dict[Node, tuple[int, int]] = {}
        for node in reversed(self.order):
            if self.lowering[node] == "edge":
                read = [walks.get(u) or (time[u], time[u]) for u in self.users[node]]
                read += [(time[node] + 1, time[node] + 1)] if node in self.stored else []
                walks[node] = min(first for first, _ in read), max(last for _, last in read)
        found: set[Node] = set()

        def computed(node: Node) -> tuple[Node, ...]:
            edge = node.op != "gather" and self.lowering[node] == "edge"
            return tuple(i for i in node.inputs if i not in found) if edge else ()

        for node, (first, last) in reversed(walks.items()):
            if last == first or node.kind is not Kind.FLOAT or not of(node).computes or node.domain is not Domain.EDGE:
                continue
            # What one value alone reads is a part of that.
            if len({walks[u][0] if u in walks else time[u] for u in self.users[node]}) > 1:
                count = sum(self.lowering[n] == "edge" and of(n).computes for n in walk_below([node], computed))
                long = last - first > 1 and count >= LEAST_WRITTEN and count * (last - first) > MOST_AGAIN
                if long or is_dear(node):
                    found.add(node)
        return found

    def _assign(self) -> None:
        for node in self.order:
            rule = getattr(self, f"_slot_{self.lowering[node]}")
            self.slots[node] = rule(node)

    def _sink(self) -> None:
        """Move what is only read elsewhere, and wider than what it is made of, to where it is read.

        The kernel that makes the narrow values then stores those, and the wide one need not lie in memory.
        """
        for node in reversed(self.order):
            rank, end = self.slots[node]
            narrow = sum(i.type.numel for i in node.inputs if i.domain is not Domain.GLOBAL) < node.type.numel
            inside = self.lowering[node] == "row" and node.op in ELEMENTWISE and node not in self.stored
            if inside and narrow and end is not None and all(self.slots[u][0] > rank for u in self.users[node]):
                self.slots[node] = (rank + 1, None)

    def _slot_leaf(self, node: Node) -> Slot:
        return (0, None)

    def _slot_torch(self, node: Node) -> Slot:
        rank = 0
        for operand in node.inputs:
            rank = max(rank, self._complete(operand))
        return (rank, None)

    _slot_absorbed = _slot_torch

    def _complete(self, node: Node) -> int:
        """The first rank at which all rows of the value can be read."""
        if node.domain is Domain.EDGE and self.lowering[node] == "edge" and node not in self.written:
            return self._edge_rank(node, "i") + 1
        rank, end = self.slots[node]
        return rank if end is None else rank + 1

    def _slot_edge(self, node: Node) -> Slot:
        ranks = {end: self._edge_rank(node, end) for end in WALKS[node.domain]}
        if node in self.written:
            end = self.handed.get(node) or min(ranks, key=lambda e: (ranks[e], e))
            return (ranks[end], end)
        if node in self.stored:
            return (ranks["i"], "i")
        return (min(ranks.values()), None)

    def _edge_rank(self, node: Node, end: str) -> int:
        """The first rank at which a walk over the edges of ``end`` can compute an edge value."""
        key = (node, end)
        if key not in self.edge_ranks:
            rank = 0
            for operand in node.inputs:
                rank = max(rank, self._operand_rank(node, operand, end))
            self.edge_ranks[key] = rank
        return self.edge_ranks[key]

    def _operand_rank(self, node: Node, operand: Node, end: str) -> int:
        rank, made_by = self.slots[operand]
        if operand in self.written:
            return rank if operand in self.handed and made_by == end else rank + 1
        if self.lowering[operand] == "edge":
            return self._edge_rank(operand, end)
        if node.op == "gather" and made_by is not None:
            local = made_by == end == shown_end(node.attrs.end, node.domain)
            return rank if local else rank + 1
        return rank if made_by is None else rank + 1

    def _slot_segment(self, node: Node) -> Slot:
        end = shown_end(node.attrs.end, node.inputs[0].domain)
        return (max(self._operand_rank(node, i, end) for i in node.inputs), end)

    _slot_scan = _slot_segment

    def _slot_total(self, node: Node) -> Slot:
        ranks = {}
        pairs = any(i.domain is Domain.PAIR for i in node.inputs)
        for end in WALKS[Domain.PAIR if pairs else Domain.EDGE]:
            ranks[end] = max(self._operand_rank(node, i, end) for i in node.inputs)
        end = min(ranks, key=lambda e: (ranks[e], e))
        return (ranks[end], end)

    def _slot_row_total(self, node: Node) -> Slot:
        rank, end = self._slot_row(node)
        return (rank, end or "map")

    def _slot_row(self, node: Node) -> Slot:
        slots = [self._row_slot(i) for i in node.inputs]
        rank = max((r for r, _ in slots), default=0)
        ends = {end for r, end in slots if r == rank and end is not None}
        ends.discard("map")
        if len(ends) == 1:
            return (rank, ends.pop())
        if len(ends) == 2:
            rank += 1
        return (rank, "map") if node in self.stored else (rank, None)

    def _row_slot(self, operand: Node) -> Slot:
        """The slot of a row operation's operand; a total is complete only after its kernel."""
        rank, end = self.slots[operand]
        return (rank + 1, None) if self.lowering[operand] in TOTALS else (rank, end)

    def is_read(self, node: Node) -> bool:
        """Whether a kernel reads the value of another step from memory; otherwise it computes it in place."""
        how = self.lowering[node]
        if how in ("torch", "leaf", "segment", "scan", *TOTALS):
            return True
        return node in self.written if how == "edge" else self.slots[node][1] is not None
