"""Every rewrite rule: what it does as text, before --> after, and that values and gradients stay."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gdsl.ir import build as b
from gdsl.ir.node import Node, walk
from gdsl.ir.ops.tables import table
from gdsl.ir.printer import expression
from gdsl.ir.types import Dim, Domain, Type
from gdsl.passes import hoist, pipeline, simplify
from gdsl.passes.algebra import one_order
from gdsl.passes.options import Options
from gdsl.passes.pipeline import LAST_RULES
from gdsl.passes.rewrite import Rule, on, rewrite
from gdsl.runtime import reference
from tests.ir.drive import (
    GRAPHS,
    A,
    B,
    E,
    G,
    H,
    N,
    assert_same,
    expected,
    frame,
    gradients,
    integer,
    load,
    program,
    runner,
    tensors,
)

op = b.elementwise
x, z, y, e, f = load("x", N, A), load("z", N, A), load("y", N, A, B), load("e", E, A), load("f", E, A)
p, w, c = load("p", G, A), load("w", G, A, B), load("c", G)
s, t = load("s", N), load("t", E)
chance = b.random(integer("seed", G, None), 0, E, [])
xi, xj, si = b.gather(x, "i"), b.gather(x, "j"), b.gather(s, "i")

RULES: list[Rule] = LAST_RULES


AA = Dim("aa", 8)
cg = table([0.0, 1.0, 2.0, -1.0, 0.0, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 3.0], [A, Dim("n", 3)])
full_table = table([0.5] * 80, [A, Dim("h", 20)])
narrow, few = load("u", G, AA, Dim("n", 3)), load("v", G, A, Dim("n", 3))
many, even = load("u", G, AA, Dim("m", 4)), load("v", G, A, Dim("m", 4))
wide, kind, kinds = load("u", G, AA, B), integer("kind", E, 3), integer("kinds", E, 3, A)


def joined(first: Node, second: Node) -> Node:
    return b.cat([first, second], ["a", "a"], AA)


def beside(*parts: Node | int) -> Node:
    """Values with a dim `a`, and so many zeros, side by side."""
    nodes = [b.const(0.0, [Dim("zeros", part)]) if isinstance(part, int) else part for part in parts]
    dims = ["zeros" if isinstance(part, int) else "a" for part in parts]
    size = sum(n.type.dim(d).size for n, d in zip(nodes, dims, strict=True))
    return b.cat(nodes, dims, Dim("q", size))


def _sum(value: Node, end: str = "i") -> Node:
    return b.segment(value, end, "sum", N)


CASES: dict[str, list[tuple[Node, str, str]]] = {
    "fold_constants": [
        (b.const(2.0) * 3.0, "2 * 3", "6"),
        (op("exp", b.const(0.0)), "exp(0)", "1"),
        (op("where", b.const(2.0) > 1.0, 3.0, 4.0), "where(2 > 1, 3, 4)", "where(2 > 1, 3, 4)"),
    ],
    "neutral_element": [
        (x + 0.0, "x + 0", "x"),
        (0.0 + x, "0 + x", "x"),
        (x - 0.0, "x - 0", "x"),
        (x * 1.0, "x * 1", "x"),
        (1.0 * x, "1 * x", "x"),
        (x / 1.0, "x / 1", "x"),
        (op("pow", x, 1.0), "pow(x, 1)", "x"),
        (1.0 / x, "1 / x", "1 / x"),
        (s + b.const(0.0, [A]), "s + 0", "s + 0"),  # the zero widens: it has to stay
    ],
    "zero_minus": [
        (0.0 - x, "0 - x", "-x"),
        (x * -1.0, "x * -1", "-x"),
        (-1.0 * x, "-1 * x", "-x"),
        (x - 0.5, "x - 0.5", "x - 0.5"),
    ],
    "double_negation": [
        (op("neg", -x), "--x", "x"),
        (x + -z, "x + -z", "x - z"),
        (-x + z, "-x + z", "z - x"),
        (x - -z, "x - -z", "x + z"),
    ],
    "known_condition": [
        (op("where", s > 0.0, x, x), "where(s > 0, x, x)", "x"),
        (op("where", s > 0.0, op("where", s > 0.0, x, z), p),
         "where(s > 0, where(s > 0, x, z), p)", "where(s > 0, x, p)"),
        (op("where", s > 0.0, p, op("where", s > 0.0, x, z)),
         "where(s > 0, p, where(s > 0, x, z))", "where(s > 0, p, z)"),
    ],
    "square": [
        (op("pow", x, 2.0), "pow(x, 2)", "x * x"),
        (op("pow", x, 0.5), "pow(x, 0.5)", "sqrt(x)"),
        (op("pow", x, -1.0), "pow(x, -1)", "1 / x"),
        (op("pow", x, -0.5), "pow(x, -0.5)", "rsqrt(x)"),
        (op("pow", x, 3.0), "pow(x, 3)", "pow(x, 3)"),
    ],
    "trivial_contraction": [
        (b.contract([y]), "sum(y)", "y"),
        (b.contract([y], order=["b", "a"]), "sum(y)", "transpose(y; b, a)"),
        (b.contract([x, w]), "sum(x * w)", "x * w"),
        (b.contract([y], ["a"]), "sum[a](y)", "sum[a](y)"),
    ],
    "flatten_contraction": [
        (b.contract([x * z], ["a"]), "sum[a](x * z)", "sum[a](x * z)"),
        (b.total(x * z), "total(x * z)", "total(x * z)"),
    ],
    "nested_contraction": [
        (b.contract([b.contract([y, w], ["a"])], ["b"]), "sum[b](sum[a](y * w))", "sum[a, b](y * w)"),
        (b.total(b.contract([y, w], ["a"])), "total(sum[a](y * w))", "total(sum[a](y * w))"),
    ],
    "repeated_factor": [
        (b.contract([x * b.const(1.0, [B]), w], ["a"]), "sum[a]((x * 1) * w)", "sum[a](x * w)"),
        (b.contract([x * b.const(1.0, [B]), p], ["a"]), "sum[a]((x * 1) * p)", "sum[a]((x * 1) * p)"),
    ],
    "like_terms": [
        ((e + f) + e, "e + f + e", "e + f + e"),
        (e + (e + e), "e + (e + e)", "e * 3"),
        (e + e, "e + e", "e + e"),
        ((e * 2.0) * 3.0, "e * 2 * 3", "e * 6"),
        (e * 3.0 - (f + e), "e * 3 - (f + e)", "e * 2 - f"),
        (e - e, "e - e", "e - e"),
        (e * 2.0 + f, "e * 2 + f", "e * 2 + f"),
        (x + z * 0.0, "x + z * 0", "x + z * 0"),
        ((e - f) * 2.0 * 3.0 * 5.0, "(e - f) * 2 * 3 * 5", "(e - f) * 30"),  # e * 30 - f * 30 rounds worse
        ((e - f) + (e - f) + (e - f), "e - f + (e - f) + (e - f)", "(e - f) * 3"),
        (e * 1e-30 * 1e-30, "e * 1e-30 * 1e-30", "e * 1e-30 * 1e-30"),  # 1e-60 is 0 in float32
        (e * 1e30 * 1e30, "e * 1e+30 * 1e+30", "e * 1e+30 * 1e+30"),
    ],
    "divided_twice": [
        (e / 2.0 / 3.0, "e / 2 / 3", "e / 6"),
        (e / 1e30 / 1e30, "e / 1e+30 / 1e+30", "e / 1e+30 / 1e+30"),
        (e / 2.0 / c, "e / 2 / c", "e / 2 / c"),
    ],
    "split_cat": [
        (b.matmul(joined(xi, e), wide), "sum[aa](cat(x[i], e; aa) * u)",
         "sum[a](x[i] * slice(u; aa from 0 as a)) + sum[a](e * slice(u; aa from 4 as a))"),
        (b.matmul(joined(e, f), wide), "sum[aa](cat(e, f; aa) * u)", "sum[aa](cat(e, f; aa) * u)"),
        (b.matmul(joined(xj - xi, p), load("u", G, AA, A)), "sum[aa](cat(x[j] - x[i], p; aa) * u)",
         "sum[aa[0:4]]((reshape(x; aa[0:4])[j] - reshape(x; aa[0:4])[i]) * slice(u; aa from 0 as aa[0:4])) + "
         "sum[aa[4:8]](reshape(p; aa[4:8]) * slice(u; aa from 4 as aa[4:8]))"),
    ],
    "split_wide_cat": [
        (b.matmul(joined(x, z), narrow), "sum[aa](cat(x, z; aa) * u)",
         "sum[a](x * slice(u; aa from 0 as a)) + sum[a](z * slice(u; aa from 4 as a))"),
        (b.matmul(joined(x, z), many), "sum[aa](cat(x, z; aa) * u)", "sum[aa](cat(x, z; aa) * u)"),
    ],
    "split_sum": [
        (b.matmul(xj - xi, w), "sum[a]((x[j] - x[i]) * w)", "sum[a](x[j] * w) - sum[a](x[i] * w)"),
        (b.matmul(xj - e, w), "sum[a]((x[j] - e) * w)", "sum[a]((x[j] - e) * w)"),
    ],
    "negation_last": [(b.matmul(-xj, w), "sum[a](-x[j] * w)", "-sum[a](x[j] * w)")],
    "factor_out_of_product": [
        (b.matmul((xj - xi) * t, w), "sum[a](((x[j] - x[i]) * t) * w)", "sum[a]((x[j] - x[i]) * w) * t"),
        (b.matmul((xj - xi) / t, w), "sum[a](((x[j] - x[i]) / t) * w)", "sum[a]((x[j] - x[i]) * w) / t"),
        (b.matmul((xj - xi) * e, w), "sum[a](((x[j] - x[i]) * e) * w)", "sum[a](((x[j] - x[i]) * e) * w)"),
        (b.matmul(x * s, few), "sum[a]((x * s) * v)", "sum[a](x * v) * s"),
        (b.matmul(x * s, even), "sum[a]((x * s) * v)", "sum[a]((x * s) * v)"),
    ],
    "terms_by_end": [
        (xi + (xj - b.gather(z, "i")), "x[i] + (x[j] - z[i])", "(x - z)[i] + x[j]"),
        (-xi - (e - b.gather(z, "i")), "-x[i] - (e - z[i])", "(z - x)[i] - e"),
        (xi + xj, "x[i] + x[j]", "x[i] + x[j]"),
    ],
    "one_hot_by": [
        (_sum(op("where", op("eq", kind, b.iota(B)), t, 0.0)),
         "sum@i(where(kind == iota(b), t, 0))", "sum@i(t, by kind)"),
        (_sum(b.contract([op("where", op("eq", kinds, b.iota(B)), e, 0.0)], ["a"])),
         "sum@i(sum[a](where(kinds == iota(b), e, 0)))", "sum@i(e, by kinds)"),
        (_sum(op("where", op("eq", kind, b.iota(B)), t, 1.0)),
         "sum@i(where(kind == iota(b), t, 1))", "sum@i(where(kind == iota(b), t, 1))"),
    ],
    "compose_views": [
        (b.split(b.merge(y, ["a", "b"], "ab"), "ab", [B, A]), "reshape(reshape(y; ab); b, a)", "reshape(y; b, a)"),
        (b.transpose(b.transpose(y, ["b", "a"]), ["a", "b"]), "transpose(transpose(y; b, a); a, b)", "y"),
    ],
    "view_of_total": [
        (b.total(b.merge(y, ["a", "b"], "ab")), "total(reshape(y; ab))", "reshape(total(y); ab)"),
        (b.contract([b.rename(y, {"a": "k"})], total=True, order=["b", "k"]), "total(reshape(y; k, b))",
         "transpose(reshape(total(y); k, b); b, k)"),
        (b.contract([b.rename(y, {"a": "k"})], ["b"], total=True), "total[b](reshape(y; k, b))",
         "total[b](reshape(y; k, b))"),
    ],
    "whole_slice": [
        (b.slice_dim(y, "a", 0, Dim("q", A.size)), "slice(y; a from 0 as q)", "reshape(y; q, b)"),
        (b.slice_dim(y, "a", 1, Dim("q", A.size - 1)), "slice(y; a from 1 as q)", "slice(y; a from 1 as q)"),
    ],
    "table_of_numbers": [
        (b.transpose(cg, ["n", "a"]) * x, "transpose(table[a, n: 5 non-zeros]; n, a) * x",
         "table[n, a: 5 non-zeros] * x"),
        (b.rename(cg, {"n": "k"}) * x, "reshape(table[a, n: 5 non-zeros]; a, k) * x", "table[a, k: 5 non-zeros] * x"),
        (b.slice_dim(cg, "a", 2, Dim("q", 2)) * s, "slice(table[a, n: 5 non-zeros]; a from 2 as q) * s",
         "table[q, n: 1 non-zeros] * s"),
    ],
    "sparse_contraction": [
        (b.contract([cg, x], ["a"]), "sum[a](table[a, n: 5 non-zeros] * x)", "sum[a](table[a, n: 5 non-zeros] * x)"),
        (b.contract([x, y, cg], ["a", "b", "n"]), "sum[a, b, n](x * y * table[a, n: 5 non-zeros])",
         "sum[b](sum[a](table[a: 3 non-zeros] * x * y))"),
        (b.contract([x, full_table], ["a"]), "sum[a](x * table[a, h: 80 non-zeros])",
         "sum[a](x * table[a, h: 80 non-zeros])"),
    ],
    "nested_cat": [
        (b.cat([b.cat([y, y], ["a", "a"], AA), y], ["aa", "a"], Dim("aaa", 3 * A.size)),
         "cat(cat(y, y; aa), y; aaa)", "cat(y, y, y; aaa)"),
        (b.cat([b.cat([y, y], ["a", "a"], AA), b.cat([y, y], ["a", "a"], AA)], ["b", "b"], Dim("bb", 2 * B.size)),
         "cat(cat(y, y; aa), cat(y, y; aa); bb)", "cat(cat(y, y; aa), cat(y, y; aa); bb)"),
    ],
    "sum_of_parts": [
        (beside(y, 4) + beside(4, y), "cat(y, 0; q) + cat(0, y; q)", "cat(y, y; q)"),
        (beside(x, 8) + (beside(4, z, 4) + beside(8, x)), "cat(x, 0; q) + (cat(0, z, 0; q) + cat(0, x; q))",
         "cat(x, z, x; q)"),
        (beside(w, 5) + beside(2, 3, w), "cat(w, 0; q) + cat(0, 0, w; q)", "cat(w, 0, w; q)"),
        (beside(x, 6) + beside(5, z, 1), "cat(x, 0; q) + cat(0, z, 0; q)", "cat(x, 0, z, 0; q)"),
        # What lies upon each other stays a sum.
        (beside(x, 4) + beside(2, z, 2), "cat(x, 0; q) + cat(0, z, 0; q)", "cat(x, 0; q) + cat(0, z, 0; q)"),
        (beside(x, z) + beside(z, x), "cat(x, z; q) + cat(z, x; q)", "cat(x, z; q) + cat(z, x; q)"),
        (beside(4, z) + beside(3, z, 1), "cat(0, z; q) + cat(0, z, 0; q)", "cat(0, z; q) + cat(0, z, 0; q)"),
    ],
    "reshape_last": [
        (b.merge(y, ["a", "b"], "ab") + c, "reshape(y; ab) + c", "reshape(y + c; ab)"),
        (b.merge(y, ["a", "b"], "ab") + load("q", G, Dim("ab", 12)),
         "reshape(y; ab) + q", "reshape(y + reshape(q; a, b); ab)"),
        (op("exp", b.merge(y, ["a", "b"], "ab")), "exp(reshape(y; ab))", "reshape(exp(y); ab)"),
        (op("gt", b.merge(y, ["a", "b"], "ab"), c), "reshape(y; ab) > c", "reshape(y > c; ab)"),
    ],
    "count_edges": [
        (_sum(b.spread(b.const(2.0), E)), "sum@i(2)", "in_degree * 2"),
        (_sum(b.spread(b.const(2.0), E), "j"), "sum@j(2)", "out_degree * 2"),
        (b.segment(b.spread(b.const(2.0), E), "i", "max", N), "max@i(2)", "max@i(2)"),
        (_sum(b.spread(b.const(float("inf")), E)), "sum@i(inf)", "sum@i(inf)"),
    ],
    "spread_is_broadcast": [
        (b.spread(p, E) * e, "p * e", "p * e"),
        (op("exp", b.spread(p, E)), "exp(p)", "exp(p)"),
    ],
    "drop_stop_gradient": [(b.stop_gradient(x) * x, "stop_gradient(x) * x", "x * x")],
    "one_ended": [
        (op("exp", xj), "exp(x[j])", "exp(where(out_degree > 0, x, 0.5))[j]"),
        (xj * p, "x[j] * p", "(x * p)[j]"),
        (b.matmul(xj, w), "sum[a](x[j] * w)", "sum[a](x * w)[j]"),
        (b.gather(1.0 / s, "j") * c, "(1 / s)[j] * c", "(where(out_degree > 0, 1 / s, 0.5) * c)[j]"),
        (b.gather(1.0 / op("maximum", s, 1.0), "j") * c, "(1 / maximum(s, 1))[j] * c", "(1 / maximum(s, 1) * c)[j]"),
        (xj * (1.0 / c), "x[j] * (1 / c)", "(x * (1 / c))[j]"),
        (op("where", b.gather(1.0 / s > 0.9, "j"), 1.0, c), "where((1 / s > 0.9)[j], 1, c)",
         "where(1 / s > 0.9, 1, c)[j]"),
        (b.reduce(xi, "max", "a"), "max[a](x[i])", "max[a](x)[i]"),
        (xi - b.gather(z, "i"), "x[i] - z[i]", "(x - z)[i]"),
        (xi + xj, "x[i] + x[j]", "x[i] + x[j]"),
        (xj * e, "x[j] * e", "x[j] * e"),
    ],
    "quotient_last": [
        ((e / xi) * xj, "e / x[i] * x[j]", "e * x[j] / x[i]"),
        (xj * (e / xi), "x[j] * (e / x[i])", "e * x[j] / x[i]"),
        ((e / f) * xj, "e / f * x[j]", "e / f * x[j]"),
    ],
    "masked_quotient": [
        (op("where", chance < 0.5, 0.0, t / si), "where(uniform(seed, 0) < 0.5, 0, t / s[i])",
         "where(uniform(seed, 0) < 0.5, 0, t) / s[i]"),
        (op("where", t > 0.5, 0.0, t / si), "where(t > 0.5, 0, t / s[i])", "where(t > 0.5, 0, t / s[i])"),
    ],
    "scaled_quotient": [
        ((e / xi) / 0.5, "e / x[i] / 0.5", "e / 0.5 / x[i]"),
        ((e / xi) * c, "e / x[i] * c", "e * c / x[i]"),
    ],
    "sum_of_own": [
        (_sum(si), "sum@i(s[i])", "where(in_degree > 0, s, 0) * in_degree"),
        (_sum(b.gather(s, "j")), "sum@i(s[j])", "sum@i(s[j])"),
    ],
    "factor_out_of_sum": [
        (_sum(e * c), "sum@i(e * c)", "sum@i(e) * c"),
        (_sum(p * e), "sum@i(p * e)", "sum@i(e) * p"),
        (_sum(si * e), "sum@i(s[i] * e)", "sum@i(e) * where(in_degree > 0, s, 0)"),
        (_sum(e / si), "sum@i(e / s[i])", "sum@i(e) / where(in_degree > 0, s, 1)"),
        (_sum(e / c), "sum@i(e / c)", "sum@i(e) / c"),
        (_sum(b.gather(s, "j") * e, "j"), "sum@j(s[j] * e)", "sum@j(e) * where(out_degree > 0, s, 0)"),
        (_sum(b.gather(s, "j") * e), "sum@i(s[j] * e)", "sum@i(s[j] * e)"),
        (b.segment(e * c, "i", "max", N), "max@i(e * c)", "max@i(e * c)"),
    ],
}  # fmt: skip


def _cases() -> Iterator[tuple[Rule, Node, str, str]]:
    for rule in RULES:
        for node, before, after in CASES.get(rule.__name__, []):
            yield rule, node, before, after


ALL = list(_cases())
IDS = [f"{rule.__name__}: {before}" for rule, _, before, _ in ALL]


def apply(rule: Rule, node: Node) -> Node:
    """The rule alone, everywhere in the expression, once."""
    return rewrite(program(node), [rule]).nodes[0]


def test_every_rule_has_a_case_that_fires() -> None:
    firing = {rule.__name__ for rule, node, _, _ in ALL if apply(rule, node) is not node}
    assert firing == {rule.__name__ for rule in RULES}
    assert set(CASES) == firing


def test_a_rule_on_ops_is_asked_for_no_other() -> None:
    seen: list[str] = []

    @on("mul", "exp")
    def rule(node: Node) -> Node | None:
        seen.append(node.op)
        return None

    node = b.elementwise("exp", b.load("x", Type(Domain.NODE), "input")) * 2.0 + 1.0
    assert rule(node) is None and rewrite(program(node), [rule]).nodes == (node,)
    assert seen == ["exp", "mul"]


def test_every_rule_says_what_it_does() -> None:
    assert [r.__name__ for r in RULES if "-->" not in (r.__doc__ or "").splitlines()[0]] == []


@pytest.mark.parametrize(("rule", "node", "before", "after"), ALL, ids=IDS)
def test_text(rule: Rule, node: Node, before: str, after: str) -> None:
    assert expression(node, {}) == before
    assert expression(apply(rule, node), {}) == after


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize(("rule", "node", "before", "after"), ALL, ids=IDS)
def test_value_and_gradients_stay(rule: Rule, node: Node, before: str, after: str, graph: str) -> None:
    assert_unchanged(node, [rule], graph, seed=0)


def test_a_guard_against_division_by_zero_holds() -> None:
    """where(d > 0, e / d, 0) is 0 where d is 0, before and after."""
    di = b.gather(s, "i")
    for guarded in (op("where", di > 0.0, t / di, 0.0), op("where", t > 0.0, t / di, 0.0)):
        before, f = program(_sum(guarded)), frame(GRAPHS["mixed"])
        after = rewrite(before, pipeline.RULES)
        given = {s: torch.tensor([0.0, 0, 1, 1, 1, 1]).double(), t: torch.zeros(9, dtype=torch.float64)}
        assert_same(reference.run(after.nodes, given, f), reference.run(before.nodes, given, f))


def inverse_degrees() -> Iterator[tuple[str, Node]]:
    """Edge values of a row value that is infinite at nodes that no edge reads it from."""
    inverse = 1.0 / b.graph_value("out_degree", N)
    yield "product", b.matmul(b.gather(x * inverse, "j"), w)
    yield "factor", b.gather(x * inverse, "j") * c
    yield "sum, then product", b.matmul(_sum(b.gather(x * inverse, "j")), load("w", G, A, Dim("one", 1)))
    yield "weight of an edge value", b.matmul(b.gather(inverse, "j") * e, w)


@pytest.mark.parametrize("choice", ["first", "last"])
@pytest.mark.parametrize(("name", "message"), list(inverse_degrees()))
def test_gradients_of_weights_stay_finite_where_a_value_is_read_by_no_edge(
    name: str, message: Node, choice: str
) -> None:
    node = _sum(message) if message.domain is E else message
    options, f = Options(choices=(("aggregate", choice), ("weight_gradient", "nodes"))), frame(GRAPHS["mixed"])
    before = program(node)
    values = tensors(before, f)
    weighted = [v for n, v in zip(before.inputs, values, strict=True) if n.domain is G]
    wanted = gradients(expected(before, values, f), weighted)
    run = runner(pipeline.optimise(before, options), "torch", options)
    by_name = {n.attrs.name: v for n, v in zip(before.inputs, values, strict=True)}
    found = gradients(list(run([by_name[n.attrs.name] for n in run.inputs], f)), weighted)
    assert all(torch.isfinite(g).all() for g in wanted)
    assert_same(found, wanted)


@pytest.mark.parametrize("case", [*CASES["like_terms"], *CASES["divided_twice"]], ids=lambda case: case[1])
def test_sympy_proves_the_algebra(case: tuple[Node, str, str]) -> None:
    import sympy

    before, after = (sympy.sympify(text, locals={n: sympy.Symbol(n) for n in "cefxz"}) for text in case[1:])
    assert sympy.simplify(before - after) == 0


def test_equal_expressions_are_one_node() -> None:
    assert op("tanh", xi * xj) is op("tanh", b.gather(x, "i") * b.gather(x, "j"))


def test_a_product_in_the_other_order_is_the_same_product() -> None:
    log: list = []
    before = program(xj * e + f, e * xj)
    after = one_order(before, log)
    assert after.nodes[1] is after.nodes[0].inputs[0]
    assert [(r.rule, expression(r.before, {}), expression(r.after, {})) for r in log] == [
        ("one_order", "e * x[j]", "x[j] * e")
    ]
    assert one_order(after).nodes == after.nodes
    apart = program(x - z, z - x, x / z, z / x, s * x, x * p)
    assert one_order(apart) is apart


def test_sums_of_products_in_another_order_are_one() -> None:
    pair = program(b.contract([x, w, p], ["a"]), b.contract([p, x, w], ["a"]))
    done = one_order(pair)
    assert done.nodes[0] is done.nodes[1]
    values = tensors(pair, frame(GRAPHS["mixed"]))
    assert_same(expected(done, values, frame(GRAPHS["mixed"])), expected(pair, values, frame(GRAPHS["mixed"])))


def test_what_no_output_needs_is_gone() -> None:
    unread = op("exp", x)
    after = rewrite(program(x + 0.0 * 1.0, unread=unread), pipeline.RULES)
    assert unread not in set(walk(after.nodes))


def test_flattening_stores_no_product() -> None:
    assert [i.op for i in apply(simplify.flatten_contraction, b.contract([x * z], ["a"])).inputs] == ["load", "load"]


def assert_unchanged(node: Node, rules: list[Rule], graph: str, seed: int) -> None:
    """Value, first and second derivative, before and after, by torch's own autograd.

    Dropping a stop_gradient keeps the value only: it runs when all derivatives are taken.
    """
    before, f = program(node), frame(GRAPHS[graph])
    after = rewrite(before, rules)
    values = tensors(before, f, seed, 0.3, 1.4)
    by_load = dict(zip(before.inputs, values, strict=True))
    results = []
    for q in (before, after):
        outputs = expected(q, [by_load[n] for n in q.inputs], f)
        first = [] if simplify.drop_stop_gradient in rules else gradients(outputs, values)
        results.append([*outputs, *first, *(gradients(first, values) if first else [])])
    assert_same(results[1], results[0])


# -------------------------------------------------------------------------- random expressions

_UNARY: list[Callable[[Node], Node]] = [
    lambda v: -v, lambda v: op("sigmoid", v), lambda v: op("pow", op("sigmoid", v), 2.0), lambda v: v * 1.0,
    lambda v: 0.0 - v, lambda v: v + 0.0, lambda v: v * -1.0, lambda v: v * 0.5, b.stop_gradient,
    lambda v: op("where", v > 0.4, v, 0.0),
]  # fmt: skip
_BINARY: list[Callable[[Node, Node], Node]] = [
    lambda u, v: u + v, lambda u, v: u - v, lambda u, v: u * v, lambda u, v: u / (1.0 + op("sigmoid", v)),
    lambda u, v: op("where", v > 0.6, u, v), lambda u, v: op("maximum", u, v),
]  # fmt: skip


@st.composite
def edge_expressions(draw: st.DrawFn, depth: int = 3) -> Node:
    """An expression over edges with the shapes that the rules look for."""
    if depth == 0:
        return draw(st.sampled_from([e, f, xi, xj, b.gather(z, "i"), b.gather(z, "j"), t, si, p, c, b.const(2.0)]))
    inner = edge_expressions(depth - 1)
    if draw(st.booleans()):
        return draw(st.sampled_from(_UNARY))(draw(inner))
    left, right = draw(inner), draw(inner)
    if draw(st.integers(0, 3)) == 0:
        return left / b.gather(1.0 + op("sigmoid", s), draw(st.sampled_from("ij")))
    return draw(st.sampled_from(_BINARY))(left, right)


@st.composite
def node_expressions(draw: st.DrawFn) -> Node:
    """One or two aggregations with something done to them."""
    message = draw(edge_expressions())
    reducer, end = draw(st.sampled_from(["sum", "sum", "sum", "max"])), draw(st.sampled_from("iij"))
    a = b.segment(message, end, reducer, N)
    if draw(st.booleans()):
        a = b.segment(b.gather(op("tanh", a), "j") * draw(edge_expressions(2)), "i", "sum", N)
    return draw(st.sampled_from(_BINARY))(a, draw(st.sampled_from([x, z, s, p, b.const(1.0), a])))


@given(node=node_expressions(), graph=st.sampled_from(list(GRAPHS)), seed=st.integers(0, 1000))
def test_all_rules_together_on_random_programs(node: Node, graph: str, seed: int) -> None:
    assert_unchanged(node, pipeline.RULES, graph, seed)


@given(node=node_expressions())
def test_rules_reach_a_fixed_point(node: Node) -> None:
    done = rewrite(program(node), pipeline.RULES)
    log: list = []
    assert rewrite(done, pipeline.RULES, log).nodes == done.nodes
    assert log == []


def test_the_log_names_each_rule_that_fired() -> None:
    log: list = []
    rewrite(program(_sum((xj * 1.0) * c)), pipeline.RULES, log)
    fired = [(r.rule, expression(r.before, {}), expression(r.after, {})) for r in log]
    assert fired[0] == ("neutral_element", "x[j] * 1", "x[j]")
    assert ("one_ended", "x[j] * c", "(x * c)[j]") in fired


def test_a_rule_that_changes_the_type_is_stopped() -> None:
    def widen(node: Node) -> Node | None:
        return load("wide", N, A, H) if node is x else None

    with pytest.raises(AssertionError, match=r"widen: node\[a\] --> node\[a, heads\]"):
        rewrite(program(x), [widen])


def test_rules_that_chase_each_other_are_stopped() -> None:
    def swap(node: Node) -> Node | None:
        return op(node.op, *node.inputs[::-1]) if node.op == "add" else None

    with pytest.raises(AssertionError, match=r"rules do not reach a fixed point: \['swap'\]"):
        rewrite(program(x + z), [swap])


def test_names_follow_their_values() -> None:
    before = program(_sum(op("exp", xj)), name="P", m=op("exp", xj))
    after = rewrite(before, hoist.RULES)
    assert after.names[after.nodes[0].inputs[0]] == "m"
