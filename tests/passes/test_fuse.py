"""What becomes one kernel, how often it walks the edges, and that nothing of edge size is stored."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given

from gdsl.ir import build as b
from gdsl.ir import library
from gdsl.ir.node import Node, walk
from gdsl.ir.program import Program
from gdsl.ir.types import Dim, Domain, Kind
from gdsl.passes.dense import MAX_TERMS
from gdsl.passes.options import Options
from gdsl.passes.pipeline import Adjoint, differentiate, lower, optimise
from gdsl.passes.plan import Plan, TorchStep
from tests.ir.drive import (
    GRAPHS,
    LAYERS,
    A,
    B,
    C,
    E,
    G,
    N,
    R,
    S,
    T,
    assert_same,
    expected,
    frame,
    gat,
    gatv2,
    gradients,
    integer,
    load,
    program,
    runner,
    tensors,
)  # fmt: skip
from tests.passes.test_rules import node_expressions

x, z, e, w = load("x", N, A), load("z", N, A), load("e", E, A), load("w", G, A, B)
xi, xj = b.gather(x, "i"), b.gather(x, "j")


def total(value, end="i", rows=N):
    return b.segment(value, end, "sum", rows)


def forward(p: Program) -> Plan:
    return lower(optimise(p), Options())


def adjoint(p: Program) -> Adjoint:
    p = optimise(p)
    wrt = [n for n in p.inputs if n.kind is Kind.FLOAT]
    return differentiate(p, wrt, range(len(p.outputs)), None, Options())


def backward(p: Program) -> Plan:
    return lower(adjoint(p).program, Options())


def walks(plan: Plan) -> list[tuple[str, int]]:
    """Each kernel over edges: its end and the number of its walks."""
    return [(k.end, len(k.phases)) for k in plan.kernels if k.end]


def edge_outputs(plan: Plan) -> list:
    found = [n for k in plan.kernels for n in k.outputs if n.domain is Domain.EDGE]
    return found + [s.node for s in plan.steps if isinstance(s, TorchStep) and s.node.domain is Domain.EDGE]


# ------------------------------------------------------------------------------------ attention


@pytest.mark.parametrize("layer", [gat, gatv2])
def test_attention_forward_is_one_kernel_over_edges(layer: Callable[[], Program]) -> None:
    """The softmax's maximum, its sum and the weighted message: two walks over the in-edges of a row."""
    assert walks(forward(layer())) == [("i", 2)]


@pytest.mark.parametrize("layer", [gat, gatv2])
def test_attention_backward_walks_each_side_once(layer: Callable[[], Program]) -> None:
    plan = backward(layer())
    assert sorted(end for end, _ in walks(plan)) == ["i", "j"]
    assert dict(walks(plan))["j"] == 1


@pytest.mark.parametrize("layer", LAYERS)
def test_nothing_of_edge_size_is_stored(layer: str) -> None:
    """But the gradient of an edge input, which is an edge value itself."""
    p = LAYERS[layer]()
    assert edge_outputs(forward(p)) == []
    edge_inputs = [n for n in p.inputs if n.domain is Domain.EDGE]
    assert len(edge_outputs(backward(p))) == len(edge_inputs)


@pytest.mark.parametrize("layer", LAYERS)
def test_nothing_is_saved_on_edges(layer: str) -> None:
    saved = adjoint(LAYERS[layer]()).saved
    assert all(node.domain is not Domain.EDGE for node, _ in saved)


def test_attention_saves_node_statistics() -> None:
    kinds = sorted(node.op for node, _ in adjoint(gatv2()).saved)
    assert "segment" in kinds
    assert set(kinds) <= {"segment", "contract"}


@pytest.mark.parametrize("layer", LAYERS)
def test_the_second_backward_stores_nothing_on_edges_either(layer: str) -> None:
    first = adjoint(LAYERS[layer]()).program
    second = differentiate(
        first, [n for n in first.inputs if n.kind is Kind.FLOAT], range(len(first.outputs)), None, Options()
    )
    grads_of_edges = [n for n in first.inputs if n.domain is Domain.EDGE]
    assert len(edge_outputs(lower(second.program, Options()))) == len(grads_of_edges)


# ------------------------------------------------------------------------------------ structure


def pna() -> Program:
    m = library.op("relu", xj - xi) * e
    outs = [library.segment_mean(m, "i", N), library.segment_std(m, "i", N)]
    outs += [b.segment(m, "i", how, N) for how in ("max", "min", "sum")]
    return program(*outs, name="PNA")


def two_rounds() -> Program:
    h = library.op("tanh", total(xj * e))
    return program(total(b.gather(h, "j") * e), name="TwoRounds")


def bipartite() -> Program:
    s, t = load("s", S, A), load("t", T, A)
    return program(total(library.op("tanh", b.gather(s, "j") * b.gather(t, "i")), "i", T), name="Bipartite")


STRUCTURES: dict[str, tuple[Program, list[tuple[str, int]]]] = {
    "several aggregators share two walks, of which a deviation needs the second": (pna(), [("i", 2)]),
    "two rounds are two kernels": (two_rounds(), [("i", 1), ("i", 1)]),
    "an aggregate at j walks out-edges": (program(total(xi * e, "j")), [("j", 1)]),
    "one of each end": (program(total(xj * e), total(xi * e, "j")), [("i", 1), ("j", 1)]),
    "bipartite": (bipartite(), [("i", 1)]),
    "an edge output alone": (program(library.op("exp", xi * xj)), [("i", 1)]),
    "an edge output beside an aggregate": (program(e * xj, total(e * xj)), [("i", 1)]),
    "a softmax as the output": (program(library.segment_softmax(e, "i", N)), [("i", 3)]),
    "two rounds at the same row are one kernel": (program(total(e / b.gather(total(e), "i"))), [("i", 1)]),
    "no edges at all": (program(library.op("exp", x) + z), []),
    "by a relation": (program(b.segment(xj * e, "i", "sum", N, integer("rel", E, 3), R)), [("i", 1)]),
    "a total over edges": (program(b.total(library.op("exp", xi * xj))), [("i", 1)]),
    "a total that is one of node sums": (program(b.total(e * xj)), [("j", 1)]),
}  # fmt: skip


def test_an_edge_output_beside_an_aggregate_is_one_walk() -> None:
    assert walks(forward(STRUCTURES["an edge output beside an aggregate"][0])) == [("i", 1)]


@pytest.mark.parametrize("case", [case for case in STRUCTURES if case != "an edge output beside an aggregate"])
def test_walks(case: str) -> None:
    p, wanted = STRUCTURES[case]
    assert walks(forward(p)) == wanted


@pytest.mark.parametrize("case", STRUCTURES)
def test_values(case: str) -> None:
    p, _ = STRUCTURES[case]
    f = frame(GRAPHS["mixed"])
    values = tensors(p, f)
    assert_same(runner(p, "cpp")(values, f), expected(p, values, f))


K = type(A)("k", 16)
y = load("y", N, K)
heavy = library.op("tanh", b.gather(y, "i") + b.gather(y, "j"))
earlier = total(heavy)
row = library.op("exp", -earlier) / (earlier * earlier + 1.0)
through = b.rename(b.matmul(row, load("square", G, K, type(A)("l", 16))), {"l": "k"})


def later(*values: Node) -> Node:
    """A walk over the in-edges after one over the out-edges, whose edges read these values."""
    other_end = b.gather(total(b.gather(y, "i") * heavy, "j"), "i")
    return total(library.op("tanh", heavy + other_end) + sum(library.op("exp", heavy * v) for v in values))


# What a later walk over the in-edges reads, beside it what is a result, and the ends and walks of the kernels. What
# each row needs of its own walk before is found by the kernel that needs it.
IN_ONE, APART = [("i", 2), ("j", 1)], [("i", 1), ("i", 1), ("j", 1)]
WALKS_BEFORE = {
    "what a walk found": ([b.gather(earlier, "i")], [], IN_ONE),
    "what is made of it": ([b.gather(row, "i")], [], IN_ONE),
    "what is also a result": ([b.gather(row, "i")], [row, earlier], IN_ONE),
    "at the other end": ([b.gather(earlier, "j")], [], APART),
    "made of it, at both ends": ([b.gather(row, "i"), b.gather(row, "j")], [], APART),
    "through a product": ([b.gather(through, "i")], [], APART),
}


@pytest.mark.parametrize("case", WALKS_BEFORE)
def test_what_a_row_needs_of_a_walk_before_is_found_in_the_same_kernel(case: str) -> None:
    read, results, wanted = WALKS_BEFORE[case]
    plan = lower(program(later(*read), *results), Options())
    assert sorted(walks(plan)) == wanted
    if wanted is IN_ONE:
        stored = {n for k in plan.kernels for n in k.stores}
        assert {n for n in (earlier, row) if n in stored} == set(results)


@pytest.mark.parametrize("case", WALKS_BEFORE)
def test_values_of_walks_before(case: str) -> None:
    read, results, _ = WALKS_BEFORE[case]
    p, f = program(later(*read), *results), frame(GRAPHS["mixed"])
    values = tensors(p, f)
    assert_same(runner(p, "cpp")(values, f), expected(p, values, f))


def test_a_dense_product_is_left_to_torch() -> None:
    wide = b.matmul(load("big", N, type(A)("k", 64)), load("weight", G, type(A)("k", 64), C))
    steps = forward(program(wide)).steps
    assert [type(s) for s in steps] == [TorchStep]


P, Q = type(A)("p", 6), type(A)("q", 6)
h, weight, bias = load("h", N, P), load("weight", G, P, Q), load("bias", G, Q)
product, other = b.matmul(h, weight), b.matmul(h, load("other", G, P, Q))
narrow = b.matmul(load("narrow", N, B), load("thin", G, B, Q))

# What two linear maps of a network give, each in a dim of its own.
mapped = b.rename(product + bias, {"q": "out"})
also = b.rename(b.matmul(h, load("map", G, P, type(A)("s", 6))), {"s": "out"})

# sums of products, and how many values each of their steps absorbs; None for a kernel
SUMS = {
    "a product and a bias": (product + bias, 1),
    "a bias and a product": (bias + product, 1),
    "two products": (product + other, 2),
    "three products and two biases": (product + bias + (other + load("more", G, Q)) + b.matmul(h, bias * weight), 6),
    "products apart": (product + load("r", N, Q) + other, 2),
    "products in two orders of dims": (product + b.matmul(h, load("turned", G, Q, P)), 2),
    "products under other names": (mapped + also, 5),
    "products under other names, and what is none": (mapped + load("r", N, type(A)("out", 6)) + also, 5),
    "a number for all": (product + load("one", G), None),
    "a node's value": (product + load("r", N, Q), None),
    "a product that the BLAS does not make": (product + narrow, None),
}


@pytest.mark.parametrize("case", SUMS)
def test_sums_of_products(case: str) -> None:
    node, count = SUMS[case]
    plan = lower(program(node), Options())
    absorbing = [len(s.absorbed) for s in plan.steps if isinstance(s, TorchStep) and s.absorbed]
    assert absorbing == ([] if count is None else [count])
    check(plan)
    p, f = program(node), frame(GRAPHS["mixed"])
    values = tensors(p, f)
    assert_same(runner(p, "cpp")(values, f), expected(p, values, f))


def test_a_long_sum_is_several_steps() -> None:
    """Asking each node of a chain about all below it would take the square of its length."""
    node = product
    for k in range(2 * MAX_TERMS):
        node = node + load(f"bias{k}", G, Q)
    steps = lower(program(node), Options()).steps
    check(Plan(program(node), steps))
    assert max(len(s.absorbed) for s in steps if isinstance(s, TorchStep)) < MAX_TERMS


def test_a_product_that_is_read_elsewhere_is_stored() -> None:
    for outputs in ((product + bias, product), (product + bias, library.op("tanh", product)), (mapped + also, product)):
        plan = lower(program(*outputs), Options())
        assert not any(s.absorbed for s in plan.steps if isinstance(s, TorchStep))
    plan = lower(program(mapped + also, also), Options())
    assert [s.absorbed for s in plan.steps if isinstance(s, TorchStep) and s.absorbed] == [{product}]


def test_the_backward_reads_a_sum_of_products_with_its_bias() -> None:
    """Not the product, which would then lie in memory besides the sum."""
    node = total(b.gather(product + bias, "j") * load("f", E, Q))
    saved = [n for n, _ in adjoint(program(library.op("tanh", node) * (product + bias))).saved]
    assert product + bias in saved and product not in saved


def test_a_sum_of_many_tables_is_stored_before_it_is_read_at_other_ends() -> None:
    """Reading one table an edge rather than three; two are added on the edge."""
    tables = [load(f"t{k}", N, B) for k in range(3)]
    for terms, kernels in ((tables[:2], 1), (tables, 2)):
        joint = sum(terms[1:], terms[0])
        plan = lower(program(total(b.gather(joint, "j") * load("f", E, B))), Options())
        assert len(plan.kernels) == kernels, terms


def test_an_edge_output_is_written_by_its_kernel() -> None:
    p = program(library.op("exp", xi * xj), total(library.op("exp", xi * xj)))
    plan = forward(p)
    assert len(plan.kernels) == 1
    assert edge_outputs(plan) == [optimise(p).nodes[0]]


def test_bipartite_rows() -> None:
    plans = [forward(bipartite()), backward(bipartite())]
    rows = {k.end: k.rows for plan in plans for k in plan.kernels if k.end}
    assert rows == {"i": T, "j": S}


# -------------------------------------------------------------------------------- any program


def check(plan: Plan) -> None:
    """Every step reads what an earlier step made, and every output is made."""
    made = {n for n in walk(plan.program.nodes) if n.op in ("load", "const", "iota", "graph_value")}
    names = [k.name for k in plan.kernels]
    assert len(set(names)) == len(names)
    for step in plan.steps:
        assert set(step.buffers) <= made
        made |= set(step.outputs)
    assert set(plan.program.nodes) <= made


@pytest.mark.parametrize("case", [*LAYERS, *STRUCTURES])
def test_steps_are_in_order(case: str) -> None:
    p = LAYERS[case]() if case in LAYERS else STRUCTURES[case][0]
    check(forward(p))
    check(backward(p))


@given(node=node_expressions())
def test_a_plan_never_has_a_cycle(node) -> None:
    p = program(node)
    check(lower(p, Options(optimise=False)))
    check(forward(p))
    check(backward(p))


@given(first=node_expressions(), second=node_expressions())
def test_a_plan_of_two_outputs_never_has_a_cycle(first, second) -> None:
    p = program(first, second, total(b.gather(library.op("tanh", first), "j") * e))
    check(forward(p))
    check(backward(p))


@given(node=node_expressions())
def test_a_plan_is_the_same_each_time(node) -> None:
    assert forward(program(node)) == forward(program(node))


# ----------------------------------------------------------------------- narrow values of much work


def network_on_edges(hidden: int, out: int = 1, ends: bool = False) -> Program:
    """A weight, or several, that a network makes of edge features (and of nodes), for two walks of which one needs the
    other: those that it is divided by, and the messages."""
    features = Dim("f", 16)
    first, second = load("w1", G, features, Dim("h", hidden)), load("w2", G, Dim("h", hidden), Dim("o", out))
    inner = b.contract([load("m", E, features), first], ["f"])
    if ends:
        inner = b.elementwise("sqrt", inner + b.gather(load("v", N, Dim("h", hidden)), "j"))
    weight = b.elementwise("exp", b.contract([b.elementwise("tanh", inner), second], ["h"]) * 0.1)
    return program(total(weight * xj / b.gather(total(weight, "i"), "j")))


def reading(plan: Plan, name: str) -> int:
    """How many kernels read an input."""
    return sum(any(n.op == "load" and n.attrs.name == name for n in k.buffers) for k in plan.kernels)


def saved_on_edges(p: Program, options: Options = Options()) -> list[str]:  # noqa: B008
    wrt = [n for n in p.inputs if n.kind is Kind.FLOAT]
    found = differentiate(optimise(p), wrt, range(len(p.outputs)), None, options)
    return [str(node.type) for node, _ in found.saved if node.domain is Domain.EDGE]


def test_a_narrow_value_of_much_work_is_computed_once_a_pass() -> None:
    p = network_on_edges(hidden=8)
    assert reading(forward(p), "m") == 1 and edge_outputs(forward(p)) != []
    assert saved_on_edges(p) == ["edge[o]"]
    assert reading(backward(p), "m") == 1  # the derivatives by the network's weights need what lies on the way
    assert saved_on_edges(p, Options().with_choice("save", "nothing")) == []


@pytest.mark.parametrize("p", [network_on_edges(7), network_on_edges(64, out=9), network_on_edges(64, ends=True)])
def test_another_edge_value_is_computed_again(p: Program) -> None:
    """One of less work, of more numbers, of what nodes have."""
    assert reading(forward(p), "m") == 2 and edge_outputs(forward(p)) == []
    assert saved_on_edges(p) == []


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("hidden", [7, 8])
def test_a_value_that_is_read_is_that_which_is_computed(hidden: int, graph: str) -> None:
    p, f = network_on_edges(hidden), frame(GRAPHS[graph])
    values = tensors(p, f)
    found, wanted = runner(p, "cpp")(values, f), expected(p, values, f)
    assert_same(found, wanted)
    assert_same(gradients(found, values), gradients(wanted, values))
