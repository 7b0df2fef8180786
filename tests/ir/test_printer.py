"""Programs of the IR as text."""

from __future__ import annotations

import pytest

from gdsl.ir import build as b
from gdsl.ir.node import Node
from gdsl.ir.printer import describe, expression, print_program
from tests.ir.drive import A, B, C, E, G, N, R, gatv2, integer, load, program

x, y, e = load("x", N, A), load("y", N, A, B), load("e", E, A)
p, q, r = load("p", G), load("q", G), load("r", G)
rel = integer("rel", E, 3)

# The loads print by their names, all else by its form.
TABLE: list[tuple[Node, str]] = [
    (p + q * r, "p + q * r"),
    ((p + q) * r, "(p + q) * r"),
    (p - (q - r), "p - (q - r)"),
    ((p - q) - r, "p - q - r"),
    (p / (q / r), "p / (q / r)"),
    (p / q / r, "p / q / r"),
    (-(p + q), "-(p + q)"),
    (-p + q, "-p + q"),
    (p * -q, "p * -q"),
    (p - -2.0, "p - -2"),
    (p * 0.1, "p * 0.1"),
    (p * (1.0 / 3.0), "p * 0.3333333333333333"),
    (p + 1e-20, "p + 1e-20"),
    (b.elementwise("and", p > q, b.elementwise("or", p < r, q <= r)), "p > q and (p < r or q <= r)"),
    (b.elementwise("not", p > q), "not(p > q)"),
    (b.elementwise("where", p > 0.0, q, r), "where(p > 0, q, r)"),
    (b.elementwise("leaky_relu", p, 0.2), "leaky_relu(p, 0.2)"),
    (b.gather(x, "j"), "x[j]"),
    (b.gather(x * 2.0, "i"), "(x * 2)[i]"),
    (b.segment(e, "i", "max", N), "max@i(e)"),
    (b.segment(e, "j", "sum", N, rel, R), "sum@j(e, by rel)"),
    (b.contract([x, load("w", G, A, B)], ["a"]), "sum[a](x * w)"),
    (b.total(y), "total(y)"),
    (b.contract([y], ["a"], total=True), "total[a](y)"),
    (b.reduce(y, "argmin", "a"), "argmin[a](y)"),
    (b.index(load("t", G, R, A), rel, "r"), "t[rel]"),
    (b.scatter(e, rel, R, ["r", "a"]), "scatter(e, rel; r)"),
    (b.merge(y, ["a", "b"], "ab"), "reshape(y; ab)"),
    (b.transpose(y, ["b", "a"]), "transpose(y; b, a)"),
    (b.slice_dim(y, "b", 1, type(B)("part", 2)), "slice(y; b from 1 as part)"),
    (b.cat([x, load("z", N, C)], ["a", "c"], type(A)("both", 9)), "cat(x, z; both)"),
    (b.iota(A), "iota(a)"),
    (b.graph_value("in_degree", N), "in_degree"),
    (b.spread(p, E), "p"),
    (b.random(integer("seed", G, None), 3, E, []), "uniform(seed, 3)"),
    (b.order_rank(e, "i", 0.5, "lower", N), "rank@i(e, 0.5)"),
    (b.call("mlp", [x], x.type), "mlp(x)"),
    (b.stop_gradient(x), "stop_gradient(x)"),
    (b.const(True), "True"),
    (b.const(-3), "-3"),
]


@pytest.mark.parametrize(("node", "text"), TABLE, ids=[text for _, text in TABLE])
def test_expression(node: Node, text: str) -> None:
    assert expression(node, {}) == text


GATV2 = """\
program GATv2 {
    x = input                                         # node[a]
    weight_l = param                                  # global[a, heads, b]
    left = sum[a](x * weight_l)                       # node[heads, b]
    t0 = left[j]                                      # edge[heads, b]
    weight_r = param                                  # global[a, heads, b]
    right = sum[a](x * weight_r)                      # node[heads, b]
    z = leaky_relu(t0 + right[i], 0.2)                # edge[heads, b]
    att = param                                       # global[heads, b]
    score = sum[b](z * att)                           # edge[heads]
    t1 = exp(score - stop_gradient(max@i(score))[i])  # edge[heads]
    alpha = t1 / sum@i(t1)[i]                         # edge[heads]
    m = alpha * t0                                    # edge[heads, b]
    t2 = sum@i(m)                                     # node[heads, b]
    return y = t2
}"""


def test_a_program() -> None:
    assert print_program(gatv2()) == GATV2


def test_a_program_with_results_of_its_own_names() -> None:
    text = print_program(program(x + 1.0, x, name="Two"))
    assert (
        text
        == """\
program Two {
    x = input   # node[a]
    t0 = x + 1  # node[a]
    return y = t0, y1 = x
}"""
    )


def test_names_are_unique() -> None:
    shared = b.elementwise("exp", x)
    other = b.elementwise("sin", x)
    text = print_program(program(shared * shared + other * other, name="P", h=shared))
    assert "t0 = sin(x)" in text
    assert "h = exp(x)" in text
    twice = program(shared * shared, name="P", x=shared)  # the user's name is taken by the input
    assert "x_2 = exp(x)" in print_program(twice)


def test_what_is_used_twice_has_a_line_of_its_own() -> None:
    h = b.elementwise("exp", x)
    assert print_program(program(h * h)).count("exp") == 1
    assert "exp(x) * 2" in print_program(program(h * 2.0))


def test_constants_never_have_a_line() -> None:
    one = b.graph_value("in_degree", N)
    assert "= in_degree" not in print_program(program((one + 1.0) * (one + 2.0))).replace("y = ", "")


@pytest.mark.parametrize(
    ("node", "name"),
    [(b.segment(e, "i", "max", N), "max_e"), (b.gather(x, "j"), "gather"), (x, "x"), (b.total(x), "dot"),
     (b.graph_value("edge_id", E), "edge_id")],
)  # fmt: skip
def test_a_value_without_a_name_is_described(node: Node, name: str) -> None:
    assert describe(node, {e: "e"}) == name
