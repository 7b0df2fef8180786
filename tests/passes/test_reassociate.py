"""Reordering by cost: what is proposed, that values and gradients stay, and which order a graph gets."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from gdsl.ir import build as b
from gdsl.ir.node import Node, walk
from gdsl.ir.printer import expression
from gdsl.ir.program import Program
from gdsl.ir.types import Dim, Kind
from gdsl.passes import pipeline, reassociate
from gdsl.passes.estimate import estimate, work
from gdsl.passes.options import GraphShape, Options
from gdsl.passes.pipeline import differentiate, lower, optimise
from gdsl.runtime import reference
from tests.ir.drive import (
    GRAPHS,
    A,
    B,
    C,
    E,
    G,
    N,
    assert_same,
    expected,
    frame,
    gradients,
    integer,
    load,
    program,
    tensors,
)

Proposal = Callable[[Node], Iterator[Node]]

R = Dim("r", 3)
x, e, k, t = load("x", N, A), load("e", E, A), load("k", E, C), load("t", E)
w, cube, table, rel = load("w", G, A, B), load("w", G, C, A, B), load("w", G, R, A, B), integer("rel", E, 3)
square, back = load("p", G, A, C), load("q", G, C, Dim("u", 4))
comp, bases = load("comp", G, R, C), load("bases", G, C, A, B)
xi, xj = b.gather(x, "i"), b.gather(x, "j")
counts, at = load("counts", N, R), integer("at", E, 3, C)
at_least_one = b.elementwise("maximum", counts, 1.0)


def _sum(value: Node, end: str = "i") -> Node:
    return b.segment(value, end, "sum", N)


theta = b.split(b.contract([k, b.merge(cube, ["a", "b"], "ab")], ["c"]) + load("bias", G, Dim("ab", 12)), "ab", [A, B])
CASES: list[tuple[Proposal, Node, str, list[str]]] = [
    (reassociate.aggregate_first, _sum(b.matmul(e, w)), "sum@i(sum[a](e * w))", ["sum[a](sum@i(e) * w)"] * 2),
    (
        reassociate.aggregate_first,
        _sum(b.contract([xj, b.matmul(k, cube)], ["a"])),
        "sum@i(sum[a](x[j] * sum[c](k * w)))",
        ["sum[c, a](sum@i(x[j] * k) * w)"] * 2,
    ),
    (
        reassociate.aggregate_first,
        _sum(b.contract([xj, theta], ["a"])),
        "sum@i(sum[a](x[j] * reshape(sum[c](k * reshape(w; c, ab)) + bias; a, b)))",
        ["sum[c, a](sum@i(x[j] * k) * reshape(reshape(w; c, ab); c, a, b)) + sum[a](sum@i(x[j]) * reshape(bias; a, b))"]
        * 2,
    ),
    (
        reassociate.aggregate_first,
        _sum(t * b.gather(b.matmul(x, w), "j")),
        "sum@i(t * sum[a](x * w)[j])",
        ["sum[a](sum@i(t * x[j]) * w)"] * 2,
    ),
    (
        reassociate.aggregate_first,
        _sum(b.contract([xj, b.index(table, rel, "r")], ["a"])),
        "sum@i(sum[a](x[j] * w[rel]))",
        ["sum[r, a](sum@i(x[j], by rel) * w)"] * 2,
    ),
    (
        reassociate.aggregate_first,
        _sum(b.contract([xj, b.index(b.contract([comp, bases], ["c"]), rel, "r")], ["a"])),
        "sum@i(sum[a](x[j] * sum[c](comp * bases)[rel]))",
        ["sum[c, a](sum@i(x[j] * comp[rel]) * bases)", "sum[r, a](sum@i(x[j], by rel) * sum[c](comp * bases))"],
    ),
    (
        reassociate.aggregate_first,
        _sum(b.contract([k, b.contract([xj, b.index(table, at, "r")], ["a"])], ["c"])),
        "sum@i(sum[c](k * sum[a](x[j] * w[at])))",
        ["sum[r, a](sum@i(k * x[j], by at) * w)"] * 2,
    ),
    (
        reassociate.aggregate_first,
        _sum(b.index(b.gather(b.matmul(x, table) * counts, "j"), rel, "r")),
        "sum@i((sum[a](x * w) * counts)[j][rel])",
        ["sum[r, a](sum@i(x[j] * counts[j][rel], by rel) * w)"] * 2,
    ),
    # The places are not all summed over, or not all have a number.
    (
        reassociate.aggregate_first,
        _sum(b.contract([xj, b.index(table, at, "r")], ["a"])),
        "sum@i(sum[a](x[j] * w[at]))",
        [],
    ),
    # A dim of the result has the name of one that is summed inside, or picked from.
    (
        reassociate.aggregate_first,
        _sum(b.reshape_like(b.matmul(b.matmul(e * xj, square), back), e.type)),
        "sum@i(reshape(sum[c](sum[a]((e * x[j]) * p) * q); a))",
        [],
    ),
    (
        reassociate.aggregate_first,
        _sum(load("kinds", E, R) * b.contract([xj, b.index(table, rel, "r")], ["a"])),
        "sum@i(kinds * sum[a](x[j] * w[rel]))",
        [],
    ),
    (
        reassociate.aggregate_first,
        _sum(b.contract([xj, b.index(table, rel, "r")], ["a"]) * load("shares", G, R)),
        "sum@i(sum[a](x[j] * w[rel]) * shares)",
        [],
    ),
    (reassociate.aggregate_first, _sum(e * t), "sum@i(e * t)", []),
    (reassociate.aggregate_first, b.segment(b.matmul(e, w), "i", "max", N), "max@i(sum[a](e * w))", []),
    (
        reassociate.transform_first,
        b.matmul(_sum(t * xj), w),
        "sum[a](sum@i(t * x[j]) * w)",
        ["sum@i(sum[a](x * w)[j] * t)"],
    ),
    (
        reassociate.transform_first,
        b.matmul(_sum(xj) / (1.0 + load("s", N)), w),
        "sum[a](sum@i(x[j]) / (1 + s) * w)".replace("sum@i(x[j]) / (1 + s)", "(sum@i(x[j]) / (1 + s))"),
        ["sum@i(sum[a](x * w)[j]) / (1 + s)"],
    ),
    (reassociate.transform_first, b.matmul(_sum(e * xj), w), "sum[a](sum@i(e * x[j]) * w)", []),
    (
        reassociate.product_before_index,
        b.contract([xj, b.index(table, rel, "r")], ["a"]),
        "sum[a](x[j] * w[rel])",
        ["sum[a](x[j] * w)[rel]"],
    ),
    (
        reassociate.matrix_an_edge,
        b.contract([b.segment(xj, "i", "sum", N, rel, R), table], ["r", "a"]),
        "sum[r, a](sum@i(x[j], by rel) * w)",
        ["sum@i(sum[a](x[j] * w[rel]))"],
    ),
    (
        reassociate.matrix_an_edge,
        b.contract([b.segment(xj, "i", "sum", N, rel, R) / at_least_one, table], ["r", "a"]),
        "sum[r, a]((sum@i(x[j], by rel) / maximum(counts, 1)) * w)",
        ["sum@i(sum[a]((x[j] / maximum(counts, 1)[i][rel]) * w[rel]))"],
    ),
    (
        reassociate.matrix_an_edge,
        b.contract([b.segment(e * k, "i", "sum", N, at, R), table], ["r", "a"]),
        "sum[r, a](sum@i(e * k, by at) * w)",
        ["sum@i(sum[c, a]((e * k) * w[at]))"],
    ),
    (
        reassociate.matrix_an_edge,
        b.contract(
            [b.contract([b.segment(xj, "i", "sum", N, rel, R), table], ["a"]) / at_least_one],
            ["r"],
        ),
        "sum[r](sum[a](sum@i(x[j], by rel) * w) / maximum(counts, 1))",
        ["sum@i(sum[a]((x[j] / maximum(counts, 1)[i][rel]) * w[rel]))"],
    ),
    # Where there is no edge the sum is 0, and 0 / 0 is not; a maximum is no sum; each relation's result is kept.
    (
        reassociate.matrix_an_edge,
        b.contract([b.segment(xj, "i", "sum", N, rel, R) / counts, table], ["r", "a"]),
        "sum[r, a]((sum@i(x[j], by rel) / counts) * w)",
        [],
    ),
    (
        reassociate.matrix_an_edge,
        b.contract([b.segment(xj, "i", "max", N, rel, R), table], ["r", "a"]),
        "sum[r, a](max@i(x[j], by rel) * w)",
        [],
    ),
    (
        reassociate.matrix_an_edge,
        b.contract([b.segment(xj, "i", "sum", N, rel, R), w], ["a"]),
        "sum[a](sum@i(x[j], by rel) * w)",
        [],
    ),
    (
        reassociate.weight_gradient_by_nodes,
        b.contract([xj, load("d", E, B)], total=True),
        "total(x[j] * d)",
        ["total(x * sum@j(d))"],
    ),
    (
        reassociate.weight_gradient_by_nodes,
        b.contract([xi, t, load("d", E, B)], total=True),
        "total(x[i] * t * d)",
        ["total(x * sum@i(t * d))"],
    ),
    (
        reassociate.total_at_the_other_end,
        b.contract(
            [load("d", N, B), b.segment(xj * t, "i", "sum", N, rel, R) / at_least_one],
            total=True,
        ),
        "total(d * (sum@i(x[j] * t, by rel) / maximum(counts, 1)))",
        ["total(x * sum@j(d[i] * t * (1 / maximum(counts, 1))[i][rel], by rel))"],
    ),
    (
        reassociate.total_at_the_other_end,
        b.contract([b.segment(xj * k, "i", "sum", N, at, R), load("d", N, B)], total=True),
        "total(sum@i(x[j] * k, by at) * d)",
        ["total(x * sum@j(d[i] * k, by at))"],
    ),
    (
        reassociate.total_at_the_other_end,
        b.contract([b.segment(xi * t, "i", "sum", N, rel, R), load("d", N, B)], total=True),
        "total(sum@i(x[i] * t, by rel) * d)",
        [],
    ),
    (reassociate.total_by_nodes, b.total(e * xi), "total(e * x[i])", ["total(sum@i(e * x[i]))"]),
]
IDS = [f"{propose.__name__}: {before}" for propose, _, before, _ in CASES]


def test_every_proposal_has_a_case() -> None:
    assert {propose for propose, _, _, after in CASES if after} == set(reassociate.PROPOSALS)
    assert all("-->" in (p.__doc__ or "").splitlines()[0] for p in reassociate.PROPOSALS)


@pytest.mark.parametrize(("propose", "node", "before", "after"), CASES, ids=IDS)
def test_text(propose: Proposal, node: Node, before: str, after: list[str]) -> None:
    assert expression(node, {}) == before
    assert [expression(found, {}) for found in propose(node)] == after


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize(("propose", "node", "before", "after"), CASES, ids=IDS)
def test_value_and_gradients_stay(propose: Proposal, node: Node, before: str, after: list[str], graph: str) -> None:
    f, old = frame(GRAPHS[graph]), program(node)
    values = tensors(old, f)
    wanted = expected(old, values, f)
    for proposal in propose(node):
        assert proposal.type == node.type
        by_load = dict(zip(old.inputs, values, strict=True))
        found = reference.run([proposal], {n: by_load[n] for n in program(proposal).inputs}, f)
        assert_same(found, wanted)
        assert_same(gradients(found, values), gradients(wanted, values))


# ------------------------------------------------------------------------------------------- decisions

DENSE, SPARSE = GraphShape(1 << 12, 1 << 12, 1 << 18), GraphShape(1 << 12, 1 << 12, 1 << 10)


def wide(reduced: int, result: int) -> tuple[Node, Node]:
    a, o = Dim("a", reduced), Dim("o", result)
    return load("x", N, a), load("w", G, a, o)


def ops(p: Program) -> set[str]:
    return {expression(n, {}) for n in walk(p.nodes)}


@pytest.mark.parametrize(("reduced", "result", "order"), [(64, 8, "transform"), (8, 64, "aggregate")])
@pytest.mark.parametrize("written", ["transform", "aggregate"])
def test_edges_carry_the_narrower_value(written: str, reduced: int, result: int, order: str) -> None:
    h, v = wide(reduced, result)
    orders = {
        "transform": program(_sum(b.gather(b.matmul(h, v), "j"))),
        "aggregate": program(b.matmul(_sum(b.gather(h, "j")), v)),
    }
    assert optimise(orders[written], Options(shape=DENSE)).nodes == orders[order].nodes


def test_equal_sizes_stay_as_written() -> None:
    h, v = wide(32, 32)
    for p in (program(_sum(b.gather(b.matmul(h, v), "j"))), program(b.matmul(_sum(b.gather(h, "j")), v))):
        assert optimise(p, Options(shape=DENSE)).nodes == p.nodes


def test_a_product_that_is_read_elsewhere_is_not_moved() -> None:
    h, v = wide(32, 48)
    product = b.matmul(h, v)
    p = program(_sum(b.gather(product, "j")), product)
    assert optimise(p, Options(shape=SPARSE)).nodes == p.nodes
    alone = program(p.nodes[0])
    assert optimise(alone, Options(shape=SPARSE)).nodes != alone.nodes


@pytest.mark.parametrize(("choice", "order"), [("first", "aggregate"), ("last", "transform")])
def test_the_user_may_choose(choice: str, order: str) -> None:
    h, v = wide(32, 32)
    orders = {"transform": _sum(b.gather(b.matmul(h, v), "j")), "aggregate": b.matmul(_sum(b.gather(h, "j")), v)}
    for node in orders.values():
        done = optimise(program(node), Options(shape=DENSE, choices=(("aggregate", choice),)))
        assert done.nodes == (orders[order],)


def test_a_weight_gradient_is_summed_at_nodes_where_there_are_many_edges_a_node() -> None:
    h, d = load("x", N, Dim("a", 32)), load("d", E, Dim("o", 32))
    node = b.contract([b.gather(h, "j"), d], total=True)
    assert "total(x * sum@j(d))" in ops(optimise(program(node), Options(shape=DENSE)))
    assert "total(x[j] * d)" in ops(optimise(program(node), Options(shape=SPARSE)))
    for choice, text in (("nodes", "total(x * sum@j(d))"), ("edges", "total(x[j] * d)")):
        done = optimise(program(node), Options(shape=DENSE, choices=(("weight_gradient", choice),)))
        assert text in ops(done)


@pytest.mark.parametrize(("edges", "device", "on_edges"), [(1, "cpu", True), (256, "cpu", False), (1, "cuda", False)])
def test_few_edges_pick_their_matrix(edges: int, device: str, on_edges: bool) -> None:
    h, v = load("x", N, Dim("a", 32)), load("w", G, R, Dim("a", 32), Dim("o", 32))
    p = program(b.contract([b.segment(b.gather(h, "j"), "i", "sum", N, rel, R), v], ["r", "a"]))
    done = optimise(p, Options(shape=GraphShape(1 << 12, 1 << 12, edges << 12, device)))
    assert ("sum@i(sum[a](x[j] * w[rel]))" in ops(done)) is on_edges
    chosen = Options(shape=GraphShape(1 << 12, 1 << 12, edges << 12, device), choices=(("aggregate", "last"),))
    assert "sum@i(x[j], by rel)" not in ops(optimise(p, chosen))


def test_a_cost_falls_with_every_step() -> None:
    h, v = wide(16, 32)
    p = program(_sum(b.contract([b.gather(h, "j"), b.contract([k, load("v", G, C, *v.dims)], ["c"])], ["a"])))
    log: list = []
    done = optimise(p, Options(shape=DENSE), log)
    assert "aggregate_first" in {f.rule for f in log}
    assert estimate(done, DENSE) < estimate(pipeline.rewrite(p, pipeline.RULES), DENSE)
    assert optimise(done, Options(shape=DENSE)).nodes == done.nodes


# ----------------------------------------------------------------------------------- whole layers


def layer(name: str) -> Program:
    """A program of the catalogue with its typed arguments."""
    import gdsl
    from tests.programs.sources import PROGRAMS

    source, arguments = PROGRAMS[name]
    arguments = {k: 16 if k.endswith("_channels") else v for k, v in arguments.items()}
    made = gdsl.compile(source, **arguments)
    made.free_sizes.update(dict.fromkeys(made.signature.free_dims, 3))
    typed = made._ran()[0].inspection.typed
    return typed.program


@pytest.mark.parametrize("name", ["NNConv", "GMMConv", "RGCN", "RGCN_bases", "SplineConv"])
def test_no_matrix_an_edge(name: str) -> None:
    """Neither forward nor backward has an edge value with both the input's and the output's dim."""
    p = optimise(layer(name), Options(shape=DENSE))
    wrt = [n for n in p.inputs if n.kind is Kind.FLOAT]
    back = differentiate(p, wrt, range(len(p.outputs)), None, Options(shape=DENSE)).program
    for q in (p, back):
        plan = lower(q, Options(shape=DENSE))
        on_edges = [n for n in walk(plan.program.nodes) if n.domain is E]
        assert not any({"in_channels", "out_channels"} <= set(n.type.names) for n in on_edges), name


@pytest.mark.parametrize("name", ["EdgeConv_text", "CGConv", "PointNetConv", "PNA"])
def test_the_first_product_of_a_message_is_on_nodes(name: str) -> None:
    p = optimise(layer(name))
    on_edges = [n for n in walk(p.nodes) if n.op == "contract" and n.domain is E]
    assert not any(i.op in ("cat", "gather") for n in on_edges for i in n.inputs)
    assert not any(n.op == "cat" and n.domain is E for n in walk(p.nodes))


def test_a_row_read_at_its_own_end_costs_no_gather() -> None:
    """In a walk over in-edges x[j] comes from anywhere, and x[i] is the row that the walk is at."""
    near = work([b.segment(b.gather(x, "i") * e, "i", "sum", N)], DENSE)
    far = work([b.segment(b.gather(x, "j") * e, "i", "sum", N)], DENSE)
    assert far.bytes - near.bytes == 4 * DENSE.edges * A.size
    assert far.operations == near.operations


def test_an_edge_value_is_charged_once_a_walk() -> None:
    value = b.elementwise("exp", e)
    one = work([b.segment(value, "i", "sum", N)], DENSE)
    both = work([b.segment(value, "i", "sum", N), b.segment(value, "j", "sum", N)], DENSE)
    assert both.operations == 2 * one.operations
