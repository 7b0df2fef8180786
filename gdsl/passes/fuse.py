"""Fusion: an optimised program becomes a plan, a sequence of fused kernels and torch steps.

A *kernel* walks the rows (nodes) of one end; for each row it walks that row's edges once a *phase* and reduces them
into accumulators. What is computed for a row may feed the next phase of the same row: that is how an edge softmax,
the message that it weighs and their sum are one kernel. Edge values are not stored; they are computed where they are
used, from node values. There are three exceptions. What a scan has come to at an edge needs all edges before. Where
one round's edge values are made of the last round's, each round would compute all those before again: some are
written, so that the work grows by the rounds. And what a walk over one end of the edges would gather rows for alone may
be handed to it by a walk over the other (:mod:`gdsl.passes.handed`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count, permutations
from types import MappingProxyType

from gdsl.ir.node import Node, walk_below
from gdsl.ir.ops import end_of, of
from gdsl.ir.program import Program
from gdsl.ir.types import EDGES_OF_PAIRS, Domain, Kind, shown_end
from gdsl.passes.dense import is_dense, is_sum_of_products
from gdsl.passes.plan import Kernel, Phase, Plan, TorchStep
from gdsl.passes.slots import MAX_ACCUMULATOR, WALKS, Slots, is_costly

# Edge values this wide or narrower are kept for the row's next phase; wider ones are computed again.
MAX_KEPT = 64


def why_torch(node: Node) -> str:
    """Why a step of a plan is torch's and not part of a kernel."""
    reasons = [
        (of(node).view, "a view of what lies in memory costs nothing"),
        (node.op == "sparse_product", "by the choice `sums`, plain weighted sums are the vendor's sparse products"),
        (node.op == "grouped_product", "sums of outer products by kind are a product of matrices a kind for the BLAS"),
        (of(node).travels, "it goes from process to process, between kernels"),
        (of(node).whole, f"only the torch backend has `{node.op}`"),
        (node.domain is Domain.OWN, "own sources are no rows of a walk over edges"),
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
    if Domain.EDGE in (maker.rows, reader.rows):
        return "pairs read of an edge, and what is computed once an edge, what lies in memory for it"
    if node.domain is Domain.EDGE:
        return "each edge's value is written: many operations, the edges before it, or rows gathered for it alone"
    if maker.end and reader.end and maker.end != reader.end:
        return "one walks in-edges, the other out-edges: a row's value is read at the other end of its edges"
    if reader.end:
        return "it is read at the other end of edges, so that all rows must be complete"
    return "what the reader adds to it comes from a walk over the other end's edges"


@dataclass(eq=False)
class _Draft:
    """A kernel being collected."""

    end: str
    rows: Domain
    nodes: list[Node] = field(default_factory=list)


_Unit = _Draft | TorchStep


def _made(unit: _Unit) -> Sequence[Node]:
    return unit.outputs if isinstance(unit, TorchStep) else unit.nodes


def fuse(
    program: Program, handed: Mapping[Node, str] = MappingProxyType({}), complete: bool = False, listed: bool = False
) -> Plan:
    """Group the program's nodes into kernels and torch steps, in an order that can run.

    handed:   values of edges that walks over one end write, each by its end, and walks over the other read
    complete: whether the edges are all pairs of nodes, of which nothing is stored
    listed:   whether pairs of edges are there as a list, which torch reads
    """
    slots = Slots(program, handed, complete, listed)
    torch_steps = [
        TorchStep(n, slots.absorbed.get(n, frozenset())) for n in slots.order if slots.lowering[n] == "torch"
    ]
    drafts = _merge(slots, _drafts(slots), torch_steps)
    read_outside = {node for draft in drafts for node in _needs(slots, draft)}
    # The name of a class, say, which Python may have made of any text.
    name = re.sub(r"^(?=[0-9])|[^A-Za-z0-9_]", "_", program.name)
    numbers = count()
    return Plan(
        program,
        tuple(
            u if isinstance(u, TorchStep) else _finish(slots, u, read_outside, f"{name}_{next(numbers)}", complete)
            for u in _schedule(slots, drafts, torch_steps)
        ),
    )


def _drafts(slots: Slots) -> list[_Draft]:
    """Kernels of what has one slot, and the same rows."""
    found: dict[tuple[int, str, Domain], _Draft] = {}
    for node in slots.order:
        (rank, end), how = slots.slots[node], slots.lowering[node]
        if end is None or how in ("leaf", "torch", "absorbed") or (how == "edge" and node not in slots.stored):
            continue
        rows = _rows(slots, node, end)
        found.setdefault((rank, end, rows), _Draft(end, rows)).nodes.append(node)
    return list(found.values())


def _rows(slots: Slots, node: Node, end: str) -> Domain:
    if slots.lowering[node] in ("row", "segment"):
        return node.domain
    if end in WALKS[Domain.PAIR]:
        return Domain.EDGE
    if slots.lowering[node] == "row_total":
        return next(i.domain for i in node.inputs if i.domain is not Domain.GLOBAL)
    domains = {n.domain for n in slots.order}
    if end == "j" and Domain.SOURCE in domains:
        return Domain.SOURCE
    # Of a distributed graph, the targets are the own nodes.
    two_sets = Domain.NODE not in domains and not domains.isdisjoint((Domain.SOURCE, Domain.TARGET))
    return (Domain.TARGET if end == "i" else Domain.SOURCE) if two_sets else Domain.NODE


# ------------------------------------------------------------------------ dependencies and order


def _inside(slots: Slots, draft: _Draft) -> Callable[[Node], tuple[Node, ...]]:
    """What a draft makes a value of: the operands of what it computes, and nothing of what it reads."""
    own = set(draft.nodes)
    return lambda node: node.inputs if node in own or not slots.is_read(node) else ()


def _needs(slots: Slots, draft: _Draft) -> set[Node]:
    """The stored values that a draft reads from outside itself."""
    below = walk_below(draft.nodes, _inside(slots, draft))
    return {n for n in below if slots.is_read(n)}.difference(draft.nodes)


def _dependencies(slots: Slots, units: Sequence[_Unit]) -> dict[int, set[int]]:
    made_by = {n: id(u) for u in units for n in _made(u)}
    found: dict[int, set[int]] = {}
    for unit in units:
        needs = unit.buffers if isinstance(unit, TorchStep) else _needs(slots, unit)
        found[id(unit)] = {made_by[node] for node in needs if node in made_by}
    return found


def _schedule(slots: Slots, drafts: Sequence[_Draft], torch_steps: Sequence[TorchStep]) -> Iterator[_Unit]:
    units: list[_Unit] = [*torch_steps, *drafts]
    position = {n: k for k, n in enumerate(slots.order)}
    units.sort(key=lambda u: max(position[n] for n in _made(u)))
    waiting = _dependencies(slots, units)
    done: set[int] = set()
    haste = _haste(slots, units, waiting) if any(of(n).travels for n in slots.order) else {}
    while units:
        able = [u for u in units if waiting[id(u)] <= done]
        ready = min(able, key=lambda u: haste[id(u)] if haste else not _is_sum_over_rows(u), default=None)
        if ready is None:
            raise AssertionError("the plan has a cycle")
        units.remove(ready)
        done.add(id(ready))
        yield ready


def _is_sum_over_rows(unit: _Unit) -> bool:
    """Whether a step makes a value that is the same everywhere of values of rows, such as the gradient of a weight: it
    goes as soon as it can, since these may be read no more then."""
    return isinstance(unit, TorchStep) and unit.node.op == "contract" and unit.node.attrs.total


def _haste(slots: Slots, units: Sequence[_Unit], waiting: Mapping[int, set[int]]) -> dict[int, int]:
    """What goes to other processes begins as soon as it can, and is read as late as it can: the rest lies between.

    The least first: what is sent, what that is made of, what has nothing to do with it, what reads it.
    """
    sent = [u for u in units if isinstance(u, TorchStep) and of(u.node).travels]
    below = _closure(waiting)
    needed = set().union(*(below[id(u)] for u in sent))
    found = {}
    for unit in units:
        read = unit.buffers if isinstance(unit, TorchStep) else _needs(slots, unit)
        reads = any(of(n).travels for n in read)
        found[id(unit)] = 0 if unit in sent else 3 if reads else 1 if id(unit) in needed else 2
    return found


def _merge(slots: Slots, drafts: list[_Draft], torch_steps: Sequence[TorchStep]) -> list[_Draft]:
    """Join kernels over the same rows when neither needs the other, even at a distance; then also those of which one
    walks each row's edges to find what the other needs of that very row."""
    for may_join in (_are_apart, partial(_is_walk_before, slots)):
        changed = True
        while changed:
            changed = False
            below = _closure(_dependencies(slots, [*torch_steps, *drafts]))
            for a, b in permutations(drafts, 2):
                if (a.end, a.rows) == (b.end, b.rows) and may_join(a, b, below):
                    a.nodes.extend(b.nodes)
                    drafts = [d for d in drafts if d is not b]
                    changed = True
                    break
    return drafts


def _are_apart(a: _Draft, b: _Draft, below: Mapping[int, set[int]]) -> bool:
    return id(a) not in below[id(b)] and id(b) not in below[id(a)]


def _is_walk_before(slots: Slots, a: _Draft, b: _Draft, below: Mapping[int, set[int]]) -> bool:
    """Whether what one kernel does may be earlier walks of another, over the same edges: nothing lies between them, and
    each row needs of the first what it finds for that row. What both compute of an edge is then computed once."""
    walks = a.end != "map" and a.rows is not Domain.EDGE and id(a) in below[id(b)]
    if not walks or any(id(a) in needed and unit in below[id(b)] for unit, needed in below.items()):
        return False
    # A fold makes all walks of its kernel go in order, and what other processes wait for goes first.
    apart = any(n.op == "scan" for n in (*a.nodes, *b.nodes)) or any(
        of(u).travels for n in a.nodes for u in slots.users[n]
    )
    return not apart and _needs_own_rows(slots, a, b)


def _needs_own_rows(slots: Slots, maker: _Draft, reader: _Draft) -> bool:
    """Whether what a kernel reads of another, directly and through what it makes of it, are values of its own rows."""
    found = {n for n in maker.nodes if slots.lowering[n] in ("row", "segment")}
    if not found.issuperset(_needs(slots, reader).intersection(maker.nodes)):
        return False
    own = set(reader.nodes)
    for node in walk_below(reader.nodes, _inside(slots, reader)):
        if found.isdisjoint(node.inputs) or (node not in own and slots.is_read(node)):
            continue
        if node.op == "gather":
            if shown_end(node.attrs.end, node.domain) != reader.end:
                return False
        elif slots.lowering[node] == "row":
            found.add(node)
        elif slots.lowering[node] != "row_total":
            return False
    return True


def _closure(direct: Mapping[int, set[int]]) -> dict[int, set[int]]:
    below: dict[int, set[int]] = {}
    for unit in walk_below(direct, lambda unit: tuple(direct[unit])):
        below[unit] = direct[unit].union(*(below[needed] for needed in direct[unit]))
    return below


# ------------------------------------------------------------------------------- phases


# What a phase adds up for a row, what it adds up for all rows, and what it writes.
_PARTS = (("segment",), ("total",), ("edge", "scan"))


def _finish(slots: Slots, draft: _Draft, read_outside: set[Node], name: str, complete: bool) -> Kernel:
    """Split a draft into phases and decide what it stores and keeps. ``read_outside`` is what drafts read of others."""
    own, inside = set(draft.nodes), _inside(slots, draft)
    # The first phase in which a value is known; what does not depend on this kernel's edges has -1.
    levels: dict[Node, int] = {}
    for node in walk_below(draft.nodes, inside):
        reduced = node in own and slots.lowering[node] in ("segment", "scan", "total")
        levels[node] = max((levels[i] for i in inside(node)), default=-1) + reduced

    walked = [n for n in draft.nodes if slots.lowering[n] in ("segment", "scan", "total", "edge")]
    # A value that needs the result of phase p is walked in phase p + 1.
    place = {n: max((levels[i] for i in n.inputs), default=-1) + 1 for n in walked}
    phases = []
    for p in range(max(place.values(), default=-1) + 1):
        here = [n for n in walked if place[n] == p]
        backwards = [n for n in here if n.op == "scan" and n.attrs.reverse]
        for nodes, reverse in (([n for n in here if n not in backwards], False), (backwards, True)):
            if nodes or not (backwards or reverse):
                sums, totals, stores = (tuple(n for n in nodes if slots.lowering[n] in how) for how in _PARTS)
                phases.append(Phase(sums, totals, stores, reverse=reverse))
    # The rows of a kernel with scans may have any number of edges, for which there is no room.
    elements = Domain.PAIR if draft.end in WALKS[Domain.PAIR] else Domain.EDGE
    phases = phases if any(p.scans for p in phases) else _keep(phases, elements)
    of_rows = [n for n in draft.nodes if slots.lowering[n] in ("row", "segment")]
    stores = tuple(n for n in of_rows if n in read_outside or slots.is_handed_out(n))
    totals = tuple(n for n in draft.nodes if slots.lowering[n] == "row_total")
    read = {n for n in _needs(slots, draft) if not _is_known(n)}
    buffers = tuple(n for n in slots.order if n in read)
    end = None if draft.end == "map" else EDGES_OF_PAIRS.get(draft.end, draft.end)
    all_pairs = complete and end is not None
    return Kernel(name, end, draft.rows, tuple(phases), stores, totals, buffers, all_pairs)


def _is_known(node: Node) -> bool:
    """Whether a kernel knows a leaf without reading memory: a constant, or the number of the edge or row it is at."""
    return node.op in ("const", "iota") or (node.op == "graph_value" and node.attrs.what in ("edge_id", "node_id"))


def _keep(phases: list[Phase], elements: Domain) -> list[Phase]:
    """Choose the edge values that a later phase would otherwise compute again at a cost."""
    kept: list[list[Node]] = [[] for _ in phases]
    first: dict[Node, int] = {}
    for p, phase in enumerate(phases):
        roots = [i for n in (*phase.accumulators, *phase.totals) for i in n.inputs] + list(phase.stores)
        for node in _edge_nodes(roots, elements, stop=set(first)):
            if node in first:
                if first[node] < p and node not in kept[first[node]]:
                    kept[first[node]].append(node)
            elif _worth_keeping(node):
                first[node] = p
    return [Phase(ph.accumulators, ph.totals, ph.stores, tuple(k)) for ph, k in zip(phases, kept, strict=True)]


def _worth_keeping(node: Node) -> bool:
    return is_costly(node) and node.kind is Kind.FLOAT and node.type.numel <= MAX_KEPT


def _edge_nodes(roots: Iterable[Node], elements: Domain, stop: set[Node]) -> Iterable[Node]:
    """The values of edges, or of pairs, below the roots, users first; below a node of ``stop`` nothing is listed."""
    seen: set[Node] = set()
    stack = list(roots)
    while stack:
        node = stack.pop()
        if node in seen or node.domain is not elements:
            continue
        seen.add(node)
        yield node
        if node not in stop and node.op != "gather":
            stack.extend(node.inputs)
