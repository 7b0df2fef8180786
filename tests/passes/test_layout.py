"""The last rewrites before kernels: text before and after, and that values and gradients stay."""

from __future__ import annotations

import pytest

from gdsl.ir import build as b
from gdsl.ir.node import Node
from gdsl.ir.printer import expression
from gdsl.ir.types import Dim, Domain
from gdsl.passes import layout
from gdsl.passes.rewrite import Rule
from tests.ir.drive import GRAPHS, A, B, C, E, G, N, integer, load
from tests.passes.test_rules import apply, assert_unchanged

e, f, k, t = load("e", E, A), load("f", E, B), load("k", E, C), load("t", E)
w, turned, cube = load("w", G, A, B), load("w", G, B, A), load("w", G, A, C, B)
x = load("x", N, B)
wide, narrow = load("wide", E, Dim("o", 9)), load("narrow", E, C)
outer = b.segment(wide * narrow, "i", "sum", N)
winner = b.gather(b.segment(f, "i", "argmax", N), "i")
number = b.graph_value("edge_id", Domain.EDGE)
won = b.elementwise("where", b.elementwise("eq", winner, number), b.gather(x, "i"), 0.0)

v, comp = load("v", G, B, C), load("comp", G, A, C)
y, z = load("y", N, A), load("z", N, B)

# Wide enough for products that are left to the BLAS.
P, Q = Dim("p", 6), Dim("q", 6)
h, g = load("h", N, P), load("g", N, P)
hw, gw = b.matmul(h, load("hw", G, P, Q)), b.matmul(g, load("gw", G, P, Q))
sums, bias = b.segment(load("o", E, Q), "i", "sum", N), load("bias", G, Q)

# A matrix that an edge picks, or several; and so many kinds that a kernel cannot hold a sum of matrices for each.
rel, places = integer("rel", E, 5), integer("places", E, 5, C)
picked = b.index(load("ws", G, Dim("r", 5), B, A), rel, "r")
each = b.index(load("ws", G, Dim("r", 5), B, A), places, "r")
MANY = Dim("many", 6000)
kind, kinds = integer("kind", E, MANY.size), integer("kinds", E, MANY.size, C)
yj = b.gather(y, "j")

CASES: list[tuple[Rule, Node, str, str]] = [
    (layout.pairwise, b.contract([y, w, v], ["a", "b"]), "sum[a, b](y * w * v)", "sum[a](sum[b](w * v) * y)"),
    (layout.pairwise, b.contract([z, y, w], ["a", "b"]), "sum[a, b](z * y * w)", "sum[a](sum[b](z * w) * y)"),
    (layout.pairwise, b.contract([y, w], ["a"]), "sum[a](y * w)", "sum[a](y * w)"),
    (layout.joint_operand, b.contract([e, t, w], ["a"]), "sum[a](e * t * w)", "sum[a]((e * t) * w)"),
    (layout.joint_operand, b.contract([e, k, cube], ["a", "c"]), "sum[a, c](e * k * w)", "sum[a, c]((k * e) * w)"),
    (layout.joint_operand, b.contract([e, t, f], total=True), "total(e * t * f)", "total((f * t) * e)"),
    (layout.joint_operand, b.contract([e, w], ["a"]), "sum[a](e * w)", "sum[a](e * w)"),
    (layout.summed_dims_first, b.contract([e, turned], ["a"]), "sum[a](e * w)", "sum[a](e * transpose(w; a, b))"),
    (layout.summed_dims_first, b.contract([e, w], ["a"]), "sum[a](e * w)", "sum[a](e * w)"),
    (
        layout.summed_dims_first,
        b.contract([e, picked], ["a"]),
        "sum[a](e * ws[rel])",
        "sum[a](e * transpose(ws; r, a, b)[rel])",
    ),
    (layout.summed_dims_first, b.contract([f, picked], ["b"]), "sum[b](f * ws[rel])", "sum[b](f * ws[rel])"),
    (
        layout.summed_dims_first,
        b.contract([k * e, each], ["c", "a"]),
        "sum[c, a]((k * e) * ws[places])",
        "sum[c, a]((k * e) * transpose(ws; r, a, b)[places])",
    ),
    (
        layout.outer_by_kind,
        b.scatter((yj / t) * f, kind, MANY, ["a", "many", "b"]),
        "scatter(y[j] / t * f, kind; many)",
        "transpose(grouped_product(f, y, kind, 1 / t); a, many, b)",
    ),
    (
        layout.outer_by_kind,
        b.scatter(b.transpose(yj * f * k, ["c", "b", "a"]), kinds, MANY, ["many", "b", "a"]),
        "scatter(transpose(y[j] * f * k; c, b, a), kinds; many)",
        "grouped_product(f, y, kinds, k)",
    ),
    (
        layout.outer_by_kind,
        b.scatter(b.gather(z, "i") * yj, kind, MANY, ["many", "b", "a"]),
        "scatter(z[i] * y[j], kind; many)",
        "transpose(grouped_product(y, z, kind); many, b, a)",
    ),
    (
        layout.outer_by_kind,
        b.scatter(b.elementwise("exp", yj * f), kind, MANY, ["many", "a", "b"]),
        "scatter(exp(y[j] * f), kind; many)",
        "scatter(exp(y[j] * f), kind; many)",
    ),
    (
        layout.outer_by_kind,
        b.scatter(yj * f, rel, Dim("r", 5), ["r", "a", "b"]),
        "scatter(y[j] * f, rel; r)",
        "scatter(y[j] * f, rel; r)",
    ),
    (
        layout.sparse_rows_first,
        b.contract([e, won], total=True),
        "total(e * where(argmax@i(f)[i] == edge_id, x[i], 0))",
        "transpose(total(where(argmax@i(f)[i] == edge_id, x[i], 0) * e); a, b)",
    ),
    (layout.sparse_rows_first, b.contract([e, f], total=True), "total(e * f)", "total(e * f)"),
    (layout.wide_dims_last, outer, "sum@i(wide * narrow)", "transpose(sum@i(narrow * wide); o, c)"),
    (layout.wide_dims_last, b.segment(e * f, "i", "sum", N), "sum@i(e * f)", "sum@i(e * f)"),
    (
        layout.turned_operand,
        b.contract([b.transpose(outer, ["c", "o"]), load("u", G, C, A)], ["c"]),
        "sum[c](transpose(sum@i(wide * narrow); c, o) * u)",
        "sum[c](sum@i(wide * narrow) * u)",
    ),
    (
        layout.turned_operand,
        b.contract([e, b.transpose(turned, ["a", "b"])], ["a"]),
        "sum[a](e * transpose(w; a, b))",
        "sum[a](e * transpose(w; a, b))",
    ),
    (
        layout.kinds_by_product,
        b.segment(k * b.gather(load("x", N, Dim("o", 16)), "j"), "i", "sum", N, integer("at", E, 20, C), Dim("r", 20)),
        "sum@i(k * x[j], by at)",
        "sum@i(sum[c](where(at == iota(r), k, 0)) * x[j])",
    ),
    (
        layout.kinds_by_product,
        b.segment(load("o", E, Dim("o", 16)), "j", "sum", N, integer("at", E, 20), Dim("r", 20)),
        "sum@j(o, by at)",
        "sum@j(where(at == iota(r), 1, 0) * o)",
    ),
    (layout.kinds_by_product, b.segment(e, "i", "sum", N, rel, Dim("r", 5)), "sum@i(e, by rel)", "sum@i(e, by rel)"),
    (
        layout.products_together,
        hw + sums + gw,
        "sum[p](h * hw) + sum@i(o) + sum[p](g * gw)",
        "sum[p](h * hw) + sum[p](g * gw) + sum@i(o)",
    ),
    (
        layout.products_together,
        gw + (sums + (hw + bias)),
        "sum[p](g * gw) + (sum@i(o) + (sum[p](h * hw) + bias))",
        "sum[p](h * hw) + bias + sum[p](g * gw) + sum@i(o)",
    ),
    (
        layout.products_together,
        hw + bias + gw,
        "sum[p](h * hw) + bias + sum[p](g * gw)",
        "sum[p](h * hw) + bias + sum[p](g * gw)",
    ),
]
RULES = [*layout.RULES, *layout.GPU_RULES]
IDS = [f"{rule.__name__}: {before}" for rule, _, before, _ in CASES]


def test_every_rule_has_a_case_that_fires_and_one_that_does_not() -> None:
    outcomes = {(rule, apply(rule, node) is node) for rule, node, _, _ in CASES}
    assert outcomes == {(rule, same) for rule in RULES for same in (True, False)}


@pytest.mark.parametrize(("rule", "node", "before", "after"), CASES, ids=IDS)
def test_text(rule: Rule, node: Node, before: str, after: str) -> None:
    assert expression(node, {}) == before
    assert expression(apply(rule, node), {}) == after


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize(("rule", "node", "before", "after"), CASES, ids=IDS)
def test_value_and_gradients_stay(rule: Rule, node: Node, before: str, after: str, graph: str) -> None:
    assert_unchanged(node, [rule], graph, seed=0)


def test_one_operand_on_edges_is_left() -> None:
    joint = apply(layout.joint_operand, b.contract([e, k, cube], ["a", "c"]))
    assert [(i.op, i.domain) for i in joint.inputs] == [("mul", E), ("load", G)]


def test_a_factor_that_occurs_three_times_stays() -> None:
    cubed = b.contract([e, e, e], total=True)
    assert_unchanged(cubed, [layout.joint_operand], "mixed", seed=0)


def test_the_gradient_of_a_maximum_is_sparse() -> None:
    assert layout.is_sparse(won)
    assert layout.is_sparse(-(won * f))
    assert not layout.is_sparse(won + f)
    assert not layout.is_sparse(b.elementwise("where", f > 0.0, f, 0.0))
