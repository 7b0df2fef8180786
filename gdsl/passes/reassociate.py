"""Sums over edges and products with matrices in the cheaper order, chosen by cost on the graph at hand.

A rule here proposes; the cost of the whole program, after the rules that always help have run on it, disposes. So a
value that something else needs too is not counted twice, and no rule needs to know who else reads a value.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator, Sequence

from gdsl.ir import build
from gdsl.ir.node import Node, substitute, walk
from gdsl.ir.ops.edges import is_sum
from gdsl.ir.program import Program
from gdsl.ir.types import ELEMENTS, Domain
from gdsl.passes.estimate import estimate
from gdsl.passes.hoist import finite_without_edges
from gdsl.passes.layout import is_picked
from gdsl.passes.options import Options
from gdsl.passes.picks import pick_before
from gdsl.passes.pieces import by_pieces
from gdsl.passes.rewrite import Fired, Rule, rewrite
from gdsl.passes.simplify import constant_value
from gdsl.passes.slots import MAX_ACCUMULATOR
from gdsl.passes.terms import Term, closed_term, terms_of

# A proposal must be this much cheaper: below that, the order that the user wrote stays.
GAIN = 0.97

Proposal = Callable[[Node], Iterator[Node]]


def aggregate_first(node: Node) -> Iterator[Node]:
    """sum(a * (b @ W)) --> sum(a * b) @ W: no matrix an edge, and the product is one of node values"""
    if not is_sum(node):
        return
    opened = [terms_of(node.inputs[0], bases) for bases in (True, False)]
    closed = closed_term(node.inputs[0])
    # A factor that is a sum makes many terms; as it is, it makes one.
    for terms in (*opened, *([[closed]] if closed is not None and len(opened[0]) > 1 else [])):
        if any(t.reduce or t.by for t in terms):
            parts = [_aggregated(t, node) for t in terms]
            if all(p is not None for p in parts):
                total = functools.reduce(operator.add, [p for p in parts if p is not None])
                yield build.transpose(total, node.type.names)


def _aggregated(term: Term, node: Node) -> Node | None:
    """The sum over edges of a term: its edge values multiplied and summed, then its tables."""
    by, dim = term.by or (None, None)
    in_tables = {n for t in term.tables for n in t.type.names}
    placed = set() if by is None else set(by.type.names)
    inner = [n for n in term.reduce if n not in in_tables | placed]
    outer = [n for n in term.reduce if n in in_tables]
    product: Node = build.const(1.0)
    if term.edges:
        product = build.contract(term.edges, inner) if inner else functools.reduce(operator.mul, term.edges)
    if not placed <= set(term.reduce) - in_tables or not placed <= set(product.type.names):
        return None
    summed = build.segment(product, node.attrs.end, "sum", node.domain, by, dim)
    if summed.type.numel > MAX_ACCUMULATOR:
        return None
    if dim is not None:
        outer.append(dim.name)
    result = summed
    if term.tables:
        result = build.contract([summed, *term.tables], outer, order=node.type.names)
    return result if term.sign > 0 else -result


def transform_first(node: Node) -> Iterator[Node]:
    """sum(a * x[j]) @ W --> sum(a * (x @ W)[j]), where the product is narrower; also behind a division, as in a mean"""
    if node.op != "contract" or node.attrs.total or node.domain is Domain.EDGE:
        return
    per_row = [i for i in node.inputs if i.domain is not Domain.GLOBAL]
    tables = [i for i in node.inputs if i.domain is Domain.GLOBAL]
    if len(per_row) != 1 or not tables:
        return
    operand, divisor = per_row[0], None
    if operand.op == "div" and not set(operand.inputs[1].type.names) & set(node.attrs.reduce):
        operand, divisor = operand.inputs
    if not is_sum(operand):
        return
    e = operand.inputs[0]
    factors = e.inputs if e.op == "mul" else (e,)
    for wide in (f for f in factors if f.op == "gather" and set(node.attrs.reduce) <= set(f.type.names)):
        others = [f for f in factors if f is not wide]
        if any(set(f.type.names) & set(node.attrs.reduce) for f in others):
            continue
        row = finite_without_edges(wide.inputs[0], wide.attrs.end)
        narrow = build.gather(build.contract([row, *tables], node.attrs.reduce), wide.attrs.end)
        product = functools.reduce(operator.mul, [narrow, *others])
        summed = build.segment(product, operand.attrs.end, "sum", operand.domain)
        result = summed if divisor is None else summed / divisor
        if set(result.type.names) == set(node.type.names):
            yield build.transpose(result, node.type.names)


def product_before_index(node: Node) -> Iterator[Node]:
    """x[j] @ W[rel] --> (x @ W)[j][rel]: the products of all relations on nodes, one of them read an edge"""
    if node.op != "contract" or node.attrs.total or node.domain is not Domain.EDGE or len(node.inputs) != 2:
        return
    for x, picked in (node.inputs, node.inputs[::-1]):
        if x.op != "gather" or not is_picked(picked):
            continue
        table, idx = picked.inputs
        clash = set(x.type.names) & {picked.attrs.dim, *idx.type.names}
        if not clash and not set(idx.type.names) & set(node.attrs.reduce):
            product = build.contract([x, table], node.attrs.reduce)
            yield build.transpose(build.index(product, idx, picked.attrs.dim), node.type.names)


def matrix_an_edge(node: Node) -> Iterator[Node]:
    """sum[rel](sum@i(e, by rel) @ W) --> sum@i(e @ W[rel]): no sums of all relations at a node with few edges"""
    if node.op != "contract" or node.attrs.total or node.domain is Domain.EDGE:
        return
    summed, tables, divisors, reduce = _taken_apart(node)
    if not is_sum(summed, by=True) or summed.dims[0].name not in reduce:
        return
    (e, by), dim, end = summed.inputs, summed.dims[0].name, summed.attrs.end
    if {n for v in (*tables, *divisors) for n in v.type.names} & set(by.type.names):
        return
    for divisor in divisors:
        e = e / _picked(build.gather(divisor, end), by, dim)
    picked = [_picked(t, by, dim) for t in tables]
    left = [*(n for n in reduce if n != dim), *by.type.names]
    yield build.segment(build.contract([e, *picked], left, order=node.type.names), end, "sum", node.domain)


def _taken_apart(node: Node) -> tuple[Node, list[Node], list[Node], list[str]]:
    """A product of node values and tables as (node value, tables, divisors, summed dims)."""
    tables: list[Node] = []
    divisors: list[Node] = []
    reduce: list[str] = []
    while True:
        names = {n for v in (*tables, *divisors) for n in v.type.names}
        per_row = [i for i in node.inputs if i.domain is not Domain.GLOBAL]
        if node.op == "contract" and len(per_row) == 1 and not names & set(node.attrs.reduce):
            tables += [i for i in node.inputs if i.domain is Domain.GLOBAL]
            reduce += node.attrs.reduce
            node = per_row[0]
        elif node.op == "div" and _is_positive(node.inputs[1]):
            # Without an edge the sum is 0, and must not have been divided by 0.
            node, divisor = node.inputs
            divisors.append(divisor)
        elif node.op == "transpose":
            node = node.inputs[0]
        else:
            return node, tables, divisors, reduce


def _is_positive(node: Node) -> bool:
    """Whether no number of a value is 0 or less, as a count is not that is at least 1."""
    limits = [constant_value(i) for i in node.inputs] if node.op == "maximum" else []
    return any(limit is not None and limit > 0 for limit in limits)


def weight_gradient_by_nodes(node: Node) -> Iterator[Node]:
    """total(x[j] * d) --> total(x * sum@j(d)): what edges add to a weight's gradient is summed at nodes first"""
    if node.op != "contract" or not node.attrs.total or len(node.inputs) < 2:
        return
    for x in node.inputs:
        rest = [i for i in node.inputs if i is not x]
        on_edges = [i for i in rest if i.domain is x.domain]
        if x.op != "gather" or x.attrs.end == "g" or len(rest) < len(node.inputs) - 1 or not on_edges:
            continue
        tables = [i for i in rest if i.domain is Domain.GLOBAL]
        inner = [n for n in node.attrs.reduce if not any(n in v.type.names for v in (x, *tables))]
        product = build.contract(on_edges, inner) if inner else functools.reduce(operator.mul, on_edges)
        if product.type.numel > MAX_ACCUMULATOR:
            continue
        summed = build.segment(product, x.attrs.end, "sum", x.inputs[0].domain)
        reduce = [n for n in node.attrs.reduce if n not in inner]
        row = finite_without_edges(x.inputs[0], x.attrs.end)
        yield build.contract([row, summed, *tables], reduce, total=True, order=node.type.names)


def total_at_the_other_end(node: Node) -> Iterator[Node]:
    """total(d * sum@i(x[j], by rel)) --> total(x * sum@j(d[i], by rel)), where these sums are there anyway"""
    if node.op != "contract" or not node.attrs.total or node.attrs.reduce or len(node.inputs) != 2:
        return
    for sums, d in (node.inputs, node.inputs[::-1]):
        summed, tables, divisors, _ = _taken_apart(sums)
        if not is_sum(summed, by=True) or tables or d.domain is not summed.domain:
            continue
        (e, by), dim, end = summed.inputs, summed.dims[0], summed.attrs.end
        factors = e.inputs if e.op == "mul" else (e,)
        for x in (f for f in factors if f.op == "gather" and f.dims and f.attrs.end != end):
            value = functools.reduce(operator.mul, [build.gather(d, end), *(f for f in factors if f is not x)])
            for divisor in divisors:
                value = value * _picked(build.gather(1.0 / divisor, end), by, dim.name)
            row = finite_without_edges(x.inputs[0], x.attrs.end)
            clash = set(value.type.names) & {dim.name, *row.type.names}
            if clash or not set(by.dims) <= set(value.dims):
                continue
            back = build.segment(value, x.attrs.end, "sum", row.domain, by, dim)
            if back.type.numel <= MAX_ACCUMULATOR:
                yield build.contract([row, back], (), total=True, order=node.type.names)


def _picked(value: Node, idx: Node, dim: str) -> Node:
    """The place of a dim that an edge names, where the value has that dim."""
    return build.index(value, idx, dim) if dim in value.type.names else value


def total_by_nodes(node: Node) -> Iterator[Node]:
    """total(d) --> total(sum@i(d)), where the sum at nodes is there anyway"""
    if node.op != "contract" or not node.attrs.total or node.attrs.reduce:
        return
    if any(i.domain not in ELEMENTS for i in node.inputs):
        return
    e = functools.reduce(operator.mul, node.inputs)
    gathers = [g for g in walk([e]) if g.op == "gather" and g.domain is e.domain]
    for end, domain in {(g.attrs.end, g.inputs[0].domain): None for g in gathers}:
        if end != "g":
            yield build.contract([build.segment(e, end, "sum", domain)], total=True, order=node.type.names)


PROPOSALS: list[Proposal] = [
    aggregate_first,
    transform_first,
    product_before_index,
    matrix_an_edge,
    weight_gradient_by_nodes,
    total_by_nodes,
    total_at_the_other_end,
]

# Tried before those, and on the whole of a chain before its parts.
OUTERMOST_FIRST: list[Proposal] = [pick_before]

_PRODUCT_FIRST: set[Proposal] = {transform_first, product_before_index, matrix_an_edge}

# What no cost is known for elsewhere. On a GPU the sums of all kinds would be in the registers of each program.
CPU_ONLY: set[Proposal] = {matrix_an_edge, pick_before}

# What a user's choice allows and forces: (choice, value) --> proposals taken whatever they cost, and never taken.
_FORCED: dict[tuple[str, str], tuple[set[Proposal], set[Proposal]]] = {
    ("aggregate", "first"): ({aggregate_first}, _PRODUCT_FIRST),
    ("aggregate", "last"): (_PRODUCT_FIRST, {aggregate_first}),
    ("kinds", "picked"): ({pick_before}, set()),
    ("kinds", "all"): (set(), {pick_before}),
    ("weight_gradient", "nodes"): ({weight_gradient_by_nodes}, set()),
    ("weight_gradient", "edges"): (set(), {weight_gradient_by_nodes, total_by_nodes, total_at_the_other_end}),
}


def reassociate(program: Program, rules: Sequence[Rule], options: Options, log: list[Fired] | None = None) -> Program:
    """Take every proposal that makes the program cheaper. ``rules`` are those that always help.

    Of a program with very many operations the pieces are made cheaper one by one, each by its own cost: a proposal of
    one round of a hundred changes the cost of all by little, and a trial takes time by the size of what is tried.
    """
    settled: set[Node] = set()
    changed = by_pieces(program, lambda piece: _reassociate(piece, rules, options, log, settled))
    return changed if changed.nodes == program.nodes else rewrite(changed, rules, log, settled)


def _reassociate(
    program: Program, rules: Sequence[Rule], options: Options, log: list[Fired] | None, settled: set[Node]
) -> Program:
    forced: set[Proposal] = set()
    barred: set[Proposal] = set()
    for choice in options.choices:
        force, bar = _FORCED.get(choice, (set(), set()))
        forced, barred = forced | force, barred | bar
    if options.shape.device != "cpu":
        barred = barred | (CPU_ONLY - forced)
    cost, seen = estimate(program, options.shape), set[tuple[Proposal, Node]]()
    while True:
        step = _next(program, rules, options, cost, seen, forced, barred, settled)
        if step is None:
            return program
        program, cost, fired = step
        if log is not None:
            log.extend(fired)


def _next(
    program: Program,
    rules: Sequence[Rule],
    options: Options,
    cost: float,
    seen: set[tuple[Proposal, Node]],
    forced: set[Proposal],
    barred: set[Proposal],
    settled: set[Node],
) -> tuple[Program, float, list[Fired]] | None:
    """The first proposal not seen before that pays, and the program that it gives."""
    order = list(walk(program.nodes))
    outer = [(n, p) for n in reversed(order) for p in OUTERMOST_FIRST]
    for node, propose in [*outer, *((n, p) for n in order for p in PROPOSALS)]:
        if propose in barred or (propose, node) in seen:
            continue
        seen.add((propose, node))
        tried = []
        for after in propose(node):
            mapping = substitute(program.nodes, {node: after})
            fired = [Fired(propose.__name__, node, after)]
            changed = rewrite(program.mapped(mapping), rules, fired, settled)
            tried.append((estimate(changed, options.shape), changed, fired))
        if tried:
            found, changed, fired = min(tried, key=lambda t: t[0])
            if propose in forced or found < GAIN * cost:
                return changed, found, fired
    return None
