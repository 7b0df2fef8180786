"""A small program for each op of the IR, for tests that go through all of them."""

from __future__ import annotations

from gdsl.ir import build as b
from gdsl.ir.node import Node, make
from gdsl.ir.ops import ELEMENTWISE, roll, tables
from gdsl.ir.ops.libraries import Call
from gdsl.ir.program import Program
from gdsl.ir.types import Dim, Domain, Type
from tests.ir.drive import A, B, C, E, G, H, N, R, S, T, integer, load, program

x, y, e, w = load("x", N, A), load("y", N, A, B), load("e", E, A), load("w", G, A, B, role="param")
s, t, u = load("s", S, A), load("t", T, A), load("u", Domain.GRAPH, A)
rel, kinds, seed = integer("rel", E, 3), integer("kinds", E, 3, A), b.load("seed", integer("_", G, None).type, "seed")
acc, first = load("acc", G), load("0", G)
# Positions in space, in [0, 1]; a number an edge.
place, one = load("place", E, Dim("space", 2)), load("one", E)

P = Dim("p", 2)

# Op -> nodes of it, in all forms that differ in operands or attributes.
STRUCTURAL: dict[str, list[Node]] = {
    "const": [b.const(0.5, [A]) + x, b.elementwise("where", x > 0.0, b.const(3), b.const(4))],
    "load": [x * 1.0, b.to_float(rel), b.load("saved0_1", e.type, "saved") + e],
    "graph_value": [b.graph_value("in_degree", N) * x, b.to_float(b.graph_value("position", E))],
    "iota": [b.to_float(b.iota(A)) * x],
    "random": [b.random(seed, 3, E, [A]) * e, b.random(seed, 3, N, [A], b.row_ids(N)) * x],
    "contract": [b.matmul(x, w), b.contract([x, x, w], ["a"]), b.total(y), b.contract([x, y], ["b"], total=True)],
    "reduce": [b.reduce(y, "max", "a"), b.to_float(b.reduce(y, "argmin", "b"))],
    "gather": [
        b.gather(x, "i") * b.gather(s, "j"),
        b.gather(t, "i") - e,
        b.gather(u, "g") * x,
        b.total(b.gather(e, "j") * b.gather(one, "i")),
    ],
    "segment": [
        b.segment(e, "i", "sum", N),
        b.segment(e, "j", "max", S),
        b.segment(e, "i", "argmax", T),
        b.segment(x, "g", "mul", Domain.GRAPH),
        b.segment(e, "i", "min", N, rel, R),
        b.segment(e, "i", "sum", N, kinds, R),
        b.segment(b.gather(e, "j"), "i", "max", E),
        b.segment(b.gather(e, "i"), "j", "argmin", E),
    ],
    "grouped_product": [
        b.grouped_product(x, load("z", N, B), rel, R, ("j", "i")),
        b.grouped_product(e, load("f", E, B), rel, R, (None, None), one),
    ],
    "sparse_product": [b.sparse_product(x, "i", N), b.sparse_product(t, "j", S, one)],
    "spread": [b.spread(w, E) * 2.0],
    "order_rank": [b.order_rank(e, "i", 0.5, "lower", N)],
    "support": [b.support(e, "i"), b.support(x, "g")],
    "scan": [
        b.scan([e], "i", b.elementwise("where", acc > 0.0, acc * first, first), 0.5, row_domain=N),
        b.scan([e, one], "j", acc + first * load("1", G), 1.0, reverse=True),
    ],
    "index": [
        b.index(load("table", G, R, A), rel, "r"),
        b.index(load("rows", E, A, R), rel, "r"),
        b.index(load("table", G, R, A), b.load("held", integer("_", G, 3, B).type, "param"), "r") * x,
    ],
    "scatter": [b.scatter(e, rel, R, ["r", "a"])],
    "slice": [b.slice_dim(y, "a", 1, Dim("part", 2))],
    "cat": [b.cat([x, load("v", G, C)], ["a", "c"], Dim("both", 9))],
    "reshape": [
        b.merge(y, ["a", "b"], "a*b"),
        b.rename(y, {"a": "q"}),
        b.split(load("m", N, Dim("ab", 12)), "ab", [A, B]),
    ],
    "table": [tables.table([0.0, 1.5, 0.0, -1.0], [A]) * x, b.elementwise("relu", tables.table([0.5, -1.0], [P]))],
    "table_product": [
        tables.table_product([x], tables.table([0.0, 1.5, -2.0, 1.0, 0.0, 0.0, 0.0, 0.5], [A, P]), ["a"]),
        tables.table_product([e, one], tables.table([0.0, 1.5, -2.0, 1.0, 0.0, 0.0, 0.0, 0.5], [P, A]), []),
        tables.table_product([y, x], tables.table([0.0, 1.5, -2.0, 1.0, 0.0, 0.0, 0.0, 0.5], [A, P]), ["a"]),
    ],
    "exchange": [b.exchange(x), b.exchange(x, "bfloat16"), b.exchange(load("o", Domain.OWN, A))],
    "collect": [
        b.collect(s, "sum", N),
        b.collect(s, "sum", N, wire="bfloat16"),
        b.collect(s, "mul", N),
        b.collect(s, "max", Domain.OWN, b.elementwise("where", s > 1.0, 1.0, 2.0)),
    ],
    "all_reduce": [b.all_reduce(u, "sum"), b.all_reduce(w, "mul"), b.all_reduce(w, "min", w * 2.0)],
    "reverse": [b.reverse(e), b.reverse(one, 0.5)],
    "exchange_reverse": [b.exchange_reverse(e), b.exchange_reverse(one, 0.5)],
    "exchange_pairs": [b.segment(b.exchange_pairs(e), "i", "sum", E)],
    "collect_pairs": [b.collect_pairs(b.gather(e, "i"))],
    "roll": [roll.roll(x, 1, "a") + x, roll.roll(y, -1, "b")],
    "transpose": [b.transpose(y, ["b", "a"]) * 2.0],
    "stop_gradient": [b.stop_gradient(x) * x],
    "to_float": [b.to_float(x > 0.5) * x],
    "to_int": [b.index(load("table", G, R, H), b.to_int(one, 3), "r")],
    "bspline": [b.bspline(place, 4, 2, "points")],
    "bspline_index": [b.bspline_index(place, 4, 2, "points")],
}


def _elementwise(op: str) -> Node:
    if op in ("and", "or", "not"):
        operands = [x > 0.5, x < 1.0]
    else:
        operands = [x > 0.5, x, y] if op == "where" else [x, y]
    return b.elementwise(op, *operands[: ELEMENTWISE[op].arity])


def programs() -> dict[str, Program]:
    """By names that begin with the op."""
    nodes = {op: [_elementwise(op)] for op in ELEMENTWISE} | STRUCTURAL
    return {f"{op} {k}": program(n, name="Every", out=n) for op, found in nodes.items() for k, n in enumerate(found)}


def call(result: Type, **attrs: str) -> Node:
    """The op that no file has: a module that runs as it is."""
    return make("call", [x], result, Call(**attrs))
