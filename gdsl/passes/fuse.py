"""Fusion: an optimised program becomes a plan, a sequence of fused kernels and torch steps.

A *kernel* walks the rows (nodes) of one end; for each row it walks that row's edges once a *phase* and reduces them
into accumulators. What is computed for a row may feed the next phase of the same row: that is how an edge softmax,
the message that it weighs and their sum are one kernel. Edge values are not stored; they are computed where they are
used, from node values. There are two exceptions. What a scan has come to at an edge needs all edges before. And where
one round's edge values are made of the last round's, each round would compute all those before again: some are
written, so that the work grows by the rounds.

Every node gets a *slot* ``(rank, end)``: kernels of one slot are one kernel. The rank rises where a value must be
complete for all rows before it is used: when it is read at the other end of an edge, or by a torch step.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations

from gdsl.ir.node import Node, users, walk, walk_below
from gdsl.ir.ops import ELEMENTWISE, end_of, of
from gdsl.ir.program import Program
from gdsl.ir.types import Domain, Kind
from gdsl.passes.dense import DENSE_INTENSITY, ROWS, absorbed, is_dense, is_sum_of_products, iteration_space
from gdsl.passes.plan import Kernel, Phase, Plan, Step, TorchStep

TOTALS = ("total", "row_total")
BY_TORCH = ("torch", "absorbed")

# An accumulator lives in a core's cache while a row is walked.
MAX_ACCUMULATOR = 1 << 16
# Edge values this wide or narrower are kept for the row's next phase; wider ones are computed again.
MAX_KEPT = 64
# An edge value of many operations that many walks would compute again is written: how many operations are made again
# at most, and how many it has at least.
MOST_AGAIN = 512
LEAST_WRITTEN = 16
# A node value is computed once an edge while that reads at most this many times its own numbers; else once a node.
MOST_READ = 2


def why_torch(node: Node) -> str:
    """Why a step of a plan is torch's and not part of a kernel."""
    reasons = [
        (of(node).view, "a view of what lies in memory costs nothing"),
        (node.op == "sparse_product", "by the choice `sums`, plain weighted sums are the vendor's sparse products"),
        (node.op == "grouped_product", "sums of outer products by kind are a product of matrices a kind for the BLAS"),
        (of(node).whole, f"only the torch backend has `{node.op}`"),
        (node.domain is Domain.GRAPH or end_of(node) == "g", "pooling over a batch of graphs runs in torch"),
        (node.op == "contract" and is_dense(node), "a product of matrices is left to the BLAS"),
        (is_sum_of_products(node), "the BLAS adds up products, and a bias to them, as it makes them"),
        (node.op == "segment" and len(node.inputs) == 2, "which places of an extreme by kind stay empty is known last"),
        (
            node.type.numel > MAX_ACCUMULATOR,
            f"{node.type.numel:,} numbers do not fit a core's cache in a walk",
        ),
        (node.domain is Domain.GLOBAL, "a global value is computed once, not for each row"),
    ]
    return next((text for holds, text in reasons if holds), "every reader of it is a step of torch")


def boundaries(plan: Plan) -> list[tuple[Node, str, str, str]]:
    """The values that kernels hand to later kernels: (value, its kernel, a reader, why they are two kernels)."""
    found = []
    for k, reader in enumerate(plan.kernels):
        for maker in plan.kernels[:k]:
            for node in (n for n in maker.outputs if n in reader.buffers):
                found.append((node, maker.name, reader.name, _why_apart(node, maker, reader)))
    return found


def _why_apart(node: Node, maker: Kernel, reader: Kernel) -> str:
    if node in maker.all_totals:
        return "a sum over all rows is complete only after the last of them"
    if node.domain is Domain.EDGE:
        return "each edge's value is written: it takes many operations, or the edges before it, and many walks read it"
    if maker.end and reader.end and maker.end != reader.end:
        return "one walks in-edges, the other out-edges: a row's value is read at the other end of its edges"
    if reader.end:
        return "it is read at the other end of edges, so that all rows must be complete"
    return "what the reader adds to it comes from a walk over the other end's edges"


Slot = tuple[int, str | None]


def _is_plain_total(node: Node) -> bool:
    """Whether a sum over rows only reads its operands once: a matrix product of them is best left to the BLAS."""
    per_row = [i for i in node.inputs if i.domain is not Domain.GLOBAL]
    domains = {i.domain for i in per_row}
    if len(domains) != 1 or not domains <= ROWS:
        return False
    few = iteration_space(node) <= DENSE_INTENSITY * sum(i.type.numel for i in per_row)
    return node.op == "scatter" or (node.op == "contract" and node.attrs.total and few)


def _fits_a_kernel(node: Node) -> bool:
    """Whether a walk can reduce it. Which places of ``max by`` stay empty is not known from a row's edges alone."""
    by_extreme = len(node.inputs) == 2 and node.attrs.reducer in ("max", "min")
    return node.type.numel <= MAX_ACCUMULATOR and not by_extreme


class _Fuser:
    """Assigns a lowering and a slot to every node, then collects the kernels."""

    def __init__(self, program: Program):
        self.program = program
        self.order = list(walk(program.nodes))
        self.users = users(program.nodes)
        self.outputs = set(program.nodes)
        self.lowering = {}
        for node in self.order:
            self.lowering[node] = self._lower(node)
        self.absorbed = self._absorb()
        self._settle_views()
        self.stored = {n for n in self.order if self._must_store(n)}
        self.slots: dict[Node, Slot] = {}
        self.edge_ranks: dict[tuple[Node, str], int] = {}
        self.written: set[Node] = set()

    # -- what kind of step computes a node -----------------------------------------------------

    def _lower(self, node: Node) -> str:
        """leaf | torch | absorbed (in a torch step) | edge (in a walk) | row (per node, in a kernel) | segment | total
        | row_total | scan (written an edge)."""
        if of(node).leaf:
            return "leaf"
        if of(node).whole or node.domain is Domain.GRAPH or end_of(node) == "g":
            return "torch"
        if node.op == "scan":
            fits = node.type.numel <= MAX_ACCUMULATOR
            return "torch" if not fits else "segment" if node.attrs.last else "scan"
        if node.domain is Domain.EDGE:
            return "edge"
        over_edges = any(i.domain is Domain.EDGE for i in node.inputs)
        if node.domain is Domain.GLOBAL:
            if node.type.numel > MAX_ACCUMULATOR:
                return "torch"
            return "total" if over_edges else "row_total" if _is_plain_total(node) else "torch"
        if node.op == "segment":
            return "segment" if _fits_a_kernel(node) else "torch"
        if node.op == "contract" and is_dense(node):
            return "torch"
        return "row"

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
        if how in ("leaf", "torch", "scan", *TOTALS):
            return True
        if node in self.outputs or any(self.lowering[u] in BY_TORCH for u in self.users[node]):
            return True
        if how == "row" and any(u.op == "gather" for u in self.users[node]):
            return self._is_costly(node)
        return False

    def _is_costly(self, node: Node) -> bool:
        """Whether reading the value once an edge should not mean computing it once an edge."""
        below = list(walk_below([node], lambda n: n.inputs if self.lowering[n] == "row" else ()))
        computed = [n for n in below if self.lowering[n] == "row"]
        read = [n for n in below if self.lowering[n] != "row" and n.domain is not Domain.GLOBAL]
        numbers = sum(min(n.type.numel, node.type.numel) for n in read)
        many = len(computed) > 3 or numbers > MOST_READ * node.type.numel
        return many or any(n.op in ("contract", "reduce") or of(n).heavy for n in computed)

    # -- slots ---------------------------------------------------------------------------------

    def assign(self) -> None:
        """A slot for each node, and which edge values are written."""
        self._assign()
        self.written = self._worth_writing()
        if self.written:
            self.stored |= self.written
            self.slots.clear()
            self.edge_ranks.clear()
            self._assign()

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
            many = last - first > 1 and node.kind is Kind.FLOAT and of(node).computes
            # What one value alone reads is a part of that.
            if many and len({walks[u][0] if u in walks else time[u] for u in self.users[node]}) > 1:
                count = sum(self.lowering[n] == "edge" and of(n).computes for n in walk_below([node], computed))
                if count >= LEAST_WRITTEN and count * (last - first) > MOST_AGAIN:
                    found.add(node)
        return found

    def _assign(self) -> None:
        for node in self.order:
            rule = getattr(self, f"_slot_{self.lowering[node]}")
            self.slots[node] = rule(node)

    def sink(self) -> None:
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
        ranks = {end: self._edge_rank(node, end) for end in ("i", "j")}
        if node in self.written:
            end = min(ranks, key=lambda e: (ranks[e], e))
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
            return rank + 1
        if operand.domain is Domain.EDGE and self.lowering[operand] == "edge":
            return self._edge_rank(operand, end)
        if node.op == "gather" and made_by is not None:
            local = made_by == end == node.attrs.end
            return rank if local else rank + 1
        return rank if made_by is None else rank + 1

    def _slot_segment(self, node: Node) -> Slot:
        end = node.attrs.end
        return (max(self._operand_rank(node, i, end) for i in node.inputs), end)

    _slot_scan = _slot_segment

    def _slot_total(self, node: Node) -> Slot:
        ranks = {}
        for end in ("i", "j"):
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

    # -- kernels -------------------------------------------------------------------------------

    def kernels(self) -> list[_Draft]:
        drafts: dict[tuple[int, str, Domain], _Draft] = {}
        for node in self.order:
            rank, end = self.slots[node]
            if end is None or self.lowering[node] not in ("row", "segment", "scan", "edge", *TOTALS):
                continue
            if self.lowering[node] == "edge" and node not in self.stored:
                continue
            rows = self._rows(node, end)
            draft = drafts.setdefault((rank, end, rows), _Draft(rank, end, rows))
            draft.nodes.append(node)
        return list(drafts.values())

    def _rows(self, node: Node, end: str) -> Domain:
        if self.lowering[node] in ("row", "segment"):
            return node.domain
        if self.lowering[node] == "row_total":
            return next(i.domain for i in node.inputs if i.domain is not Domain.GLOBAL)
        bipartite = any(n.domain in (Domain.SOURCE, Domain.TARGET) for n in self.order)
        return (Domain.TARGET if end == "i" else Domain.SOURCE) if bipartite else Domain.NODE


@dataclass
class _Draft:
    """A kernel being collected."""

    rank: int
    end: str
    rows: Domain

    def __post_init__(self) -> None:
        self.nodes: list[Node] = []


_Unit = _Draft | TorchStep


def _made(unit: _Unit) -> Sequence[Node]:
    return unit.outputs if isinstance(unit, TorchStep) else unit.nodes


def fuse(program: Program) -> Plan:
    """Group the program's nodes into kernels and torch steps, in an order that can run."""
    fuser = _Fuser(program)
    fuser.assign()
    fuser.sink()
    torch_steps = [
        TorchStep(n, fuser.absorbed.get(n, frozenset())) for n in fuser.order if fuser.lowering[n] == "torch"
    ]
    drafts = _merge(fuser, fuser.kernels(), torch_steps)
    read_outside = {node for draft in drafts for node in _needs(fuser, draft)}
    kernels = {id(d): _finish(fuser, d, read_outside, k) for k, d in enumerate(drafts)}
    steps = [u if isinstance(u, TorchStep) else kernels[id(u)] for u in _schedule(fuser, drafts, torch_steps)]
    return Plan(program, _renamed(program, tuple(steps)))


def _renamed(program: Program, steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """Number kernels in the order in which they run."""
    out: list[Step] = []
    count = 0
    # The name of a class, say, which Python may have made of any text.
    first = re.sub(r"^(?=[0-9])|[^A-Za-z0-9_]", "_", program.name)
    for step in steps:
        if isinstance(step, Kernel):
            name = f"{first}_{count}"
            step = replace(step, name=name)
            count += 1
        out.append(step)
    return tuple(out)


# ------------------------------------------------------------------------ dependencies and order


def _needs(fuser: _Fuser, draft: _Draft) -> set[Node]:
    """The stored values that a draft reads from outside itself."""
    own, found, stack = set(draft.nodes), set(), [i for n in draft.nodes for i in n.inputs]
    seen: set[Node] = set()
    while stack:
        node = stack.pop()
        if node in own or node in seen:
            continue
        seen.add(node)
        if _is_read(fuser, draft, node):
            found.add(node)
        else:
            stack.extend(node.inputs)
    return found


def _is_read(fuser: _Fuser, draft: _Draft, node: Node) -> bool:
    """Whether a kernel reads the node from memory; otherwise it computes it in place."""
    how = fuser.lowering[node]
    if how in ("torch", "leaf", "segment", "scan", *TOTALS):
        return True
    if how == "edge":
        return node in fuser.written
    return fuser.slots[node][1] is not None


def _dependencies(fuser: _Fuser, units: Sequence[_Unit]) -> dict[int, set[int]]:
    made_by = {n: id(u) for u in units for n in _made(u)}
    found: dict[int, set[int]] = {}
    for unit in units:
        needs = unit.buffers if isinstance(unit, TorchStep) else _needs(fuser, unit)
        found[id(unit)] = {made_by[node] for node in needs if node in made_by}
    return found


def _schedule(fuser: _Fuser, drafts: Sequence[_Draft], torch_steps: Sequence[TorchStep]) -> Iterable[_Unit]:
    units: list[_Unit] = [*torch_steps, *drafts]
    position = {n: k for k, n in enumerate(fuser.order)}
    units.sort(key=lambda u: max(position[n] for n in _made(u)))
    waiting = _dependencies(fuser, units)
    done: set[int] = set()
    while units:
        ready = next((u for u in units if waiting[id(u)] <= done), None)
        if ready is None:
            raise AssertionError("the plan has a cycle")
        units.remove(ready)
        done.add(id(ready))
        yield ready


def _merge(fuser: _Fuser, drafts: list[_Draft], torch_steps: Sequence[TorchStep]) -> list[_Draft]:
    """Join kernels over the same rows when neither needs the other, even at a distance."""
    changed = True
    while changed:
        changed = False
        below = _closure(_dependencies(fuser, [*torch_steps, *drafts]))
        for a, b in permutations(drafts, 2):
            if (a.end, a.rows) == (b.end, b.rows) and id(a) not in below[id(b)] and id(b) not in below[id(a)]:
                a.nodes.extend(b.nodes)
                a.rank = max(a.rank, b.rank)
                drafts = [d for d in drafts if d is not b]
                changed = True
                break
    return drafts


def _closure(direct: Mapping[int, set[int]]) -> dict[int, set[int]]:
    below: dict[int, set[int]] = {}
    for unit in walk_below(direct, lambda unit: tuple(direct[unit])):
        below[unit] = direct[unit].union(*(below[needed] for needed in direct[unit]))
    return below


# ------------------------------------------------------------------------------- phases


def _finish(fuser: _Fuser, draft: _Draft, read_outside: set[Node], number: int) -> Kernel:
    """Split a draft into phases and decide what it stores and keeps. ``read_outside`` is what drafts read of others."""
    own = set(draft.nodes)

    def inside(node: Node) -> tuple[Node, ...]:
        return node.inputs if node in own or not _is_read(fuser, draft, node) else ()

    # The first phase in which a value is known; what does not depend on this kernel's edges has -1.
    levels: dict[Node, int] = {}
    for node in walk_below(draft.nodes, inside):
        reduced = node in own and fuser.lowering[node] in ("segment", "scan", "total")
        levels[node] = max((levels[i] for i in inside(node)), default=-1) + reduced

    walked = [n for n in draft.nodes if fuser.lowering[n] in ("segment", "scan", "total", "edge")]
    # A value that needs the result of phase p is walked in phase p + 1.
    place = {n: max((levels[i] for i in n.inputs), default=-1) + 1 for n in walked}
    phases = []
    for p in range(max(place.values(), default=-1) + 1):
        here = [n for n in walked if place[n] == p]
        backwards = [n for n in here if n.op == "scan" and n.attrs.reverse]
        for nodes, reverse in (([n for n in here if n not in backwards], False), (backwards, True)):
            if nodes or not (backwards or reverse):
                phases.append(
                    Phase(
                        accumulators=tuple(n for n in nodes if fuser.lowering[n] == "segment"),
                        totals=tuple(n for n in nodes if fuser.lowering[n] == "total"),
                        stores=tuple(n for n in nodes if fuser.lowering[n] in ("edge", "scan")),
                        kept=(),
                        reverse=reverse,
                    )
                )
    # The rows of a kernel with scans may have any number of edges, for which there is no room.
    phases = phases if any(p.scans for p in phases) else _keep(phases)
    stores = tuple(
        n for n in draft.nodes if fuser.lowering[n] in ("row", "segment") and (n in fuser.stored or n in read_outside)
    )
    totals = tuple(n for n in draft.nodes if fuser.lowering[n] == "row_total")
    reads = _reads(fuser, draft)
    buffers = tuple(n for n in fuser.order if n in reads)
    end = None if draft.end == "map" else draft.end
    return Kernel(f"kernel_{number}", end, draft.rows, tuple(phases), stores, totals, buffers)


def _reads(fuser: _Fuser, draft: _Draft) -> set[Node]:
    return {n for n in _needs(fuser, draft) if not _is_known(n)}


def _is_known(node: Node) -> bool:
    """Whether a kernel knows a leaf without reading memory: a constant, or the number of the edge or row it is at."""
    return node.op in ("const", "iota") or (node.op == "graph_value" and node.attrs.what in ("edge_id", "node_id"))


def _keep(phases: list[Phase]) -> list[Phase]:
    """Choose the edge values that a later phase would otherwise compute again at a cost."""
    kept: list[list[Node]] = [[] for _ in phases]
    first: dict[Node, int] = {}
    for p, phase in enumerate(phases):
        roots = [i for n in (*phase.accumulators, *phase.totals) for i in n.inputs] + list(phase.stores)
        for node in _edge_nodes(roots, stop=set(first)):
            if node in first:
                if first[node] < p and node not in kept[first[node]]:
                    kept[first[node]].append(node)
            elif _worth_keeping(node):
                first[node] = p
    return [Phase(ph.accumulators, ph.totals, ph.stores, tuple(k)) for ph, k in zip(phases, kept, strict=True)]


def _worth_keeping(node: Node) -> bool:
    costly = node.op in ("contract", "reduce") or of(node).heavy
    return costly and node.kind is Kind.FLOAT and node.type.numel <= MAX_KEPT


def _edge_nodes(roots: Iterable[Node], stop: set[Node]) -> Iterable[Node]:
    """The edge values below the roots, users first; below a node of ``stop`` nothing is listed."""
    seen: set[Node] = set()
    stack = list(roots)
    while stack:
        node = stack.pop()
        if node in seen or node.domain is not Domain.EDGE:
            continue
        seen.add(node)
        yield node
        if node not in stop and node.op != "gather":
            stack.extend(node.inputs)
