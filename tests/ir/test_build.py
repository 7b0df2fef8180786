"""Typing rules with the text of each error, hash-consing, the order of a walk, substitution."""

from __future__ import annotations

import gc
import math
import pickle
from collections.abc import Callable

import pytest

from gdsl.ir import build as b
from gdsl.ir.build import IRError
from gdsl.ir.node import Node, make, substitute, users, walk
from gdsl.ir.types import Dim, Domain, Kind, Type
from tests.ir.drive import LAYERS, A, B, C, E, G, N, R, S, T, integer, load

x, y, e, w = load("x", N, A), load("y", N, A, B), load("e", E, A), load("w", G, A, B, role="param")
rel = integer("rel", E, 3)

# ---------------------------------------------------------------------------------- typing rules

TYPES: dict[str, tuple[Callable[[], Node], str]] = {
    "a scalar broadcasts": (lambda: x + 1.0, "node[a]"),
    "dims meet by name": (lambda: load("p", G, B) * x, "node[b, a]"),
    "the operand with all dims gives the order": (lambda: load("p", G, B) * y, "node[a, b]"),
    "a global value goes with edges": (lambda: e + w, "edge[a, b]"),
    "a comparison is a bool": (lambda: x > 0.0, "node[a]: bool"),
    "integers stay integers": (lambda: rel + rel, "edge: int"),
    "an integer meets a float": (lambda: rel + 0.5, "edge"),
    "a function makes floats": (lambda: b.elementwise("exp", rel), "edge"),
    "where keeps integers": (lambda: b.elementwise("where", rel > 1, rel, rel), "edge: int"),
    "to_int": (lambda: b.to_int(x, 5), "node[a]: int(5)"),
    "to_float of a constant is a constant": (lambda: b.to_float(b.const(2)), "global"),
    "matmul": (lambda: b.matmul(x, w), "node[b]"),
    "matmul with a batch dim": (lambda: b.matmul(load("z", N, B, A), w), "node[b]"),
    "matmul keeps what it does not sum": (lambda: b.matmul(y, load("v", G, B, C)), "node[a, c]"),
    "contract in an order": (lambda: b.contract([y, load("v", G, C)], order=["c", "b", "a"]), "node[c, b, a]"),
    "total": (lambda: b.total(y), "global[a, b]"),
    "reduce": (lambda: b.reduce(y, "max", "a"), "node[b]"),
    "argmax": (lambda: b.reduce(y, "argmax", "a"), "node[b]: int(4)"),
    "gather": (lambda: b.gather(x, "j"), "edge[a]"),
    "gather of a source": (lambda: b.gather(load("s", S, A), "j"), "edge[a]"),
    "gather of a graph value": (lambda: b.gather(load("u", Domain.GRAPH, A), "g"), "node[a]"),
    "gather of a global value": (lambda: b.gather(w, "i"), "global[a, b]"),
    "segment": (lambda: b.segment(e, "i", "sum", N), "node[a]"),
    "segment of a constant": (lambda: b.segment(b.const(1.0), "i", "sum", N), "node"),
    "segment over graphs": (lambda: b.segment(x, "g", "sum", Domain.GRAPH), "graph[a]"),
    "segment by": (lambda: b.segment(e, "i", "sum", N, rel, R), "node[r, a]"),
    "argmax of a segment": (lambda: b.segment(e, "i", "argmax", T), "target[a]: int"),
    "index a table": (lambda: b.index(load("t", G, R, A), rel, "r"), "edge[a]"),
    "index a row's own dim": (lambda: b.index(load("t", E, A, R), rel, "r"), "edge[a]"),
    "index by several": (lambda: b.index(load("t", G, R, A), integer("k", N, 3, B), "r"), "node[b, a]"),
    "select": (lambda: b.select(y, "a", 3), "node[b]"),
    "slice": (lambda: b.slice_dim(y, "a", 1, Dim("part", 2)), "node[part, b]"),
    "cat": (lambda: b.cat([x, load("z", N, C)], ["a", "c"], Dim("both", 9)), "node[both]"),
    "cat with a broadcast part": (lambda: b.cat([y, load("v", G, C)], ["a", "c"], Dim("both", 9)), "node[both, b]"),
    "merge": (lambda: b.merge(y, ["a", "b"], "a*b"), "node[a*b]"),
    "merge the other way round": (lambda: b.merge(y, ["b", "a"], "b*a"), "node[b*a]"),
    "split": (lambda: b.split(load("m", N, Dim("ab", 12)), "ab", [A, B]), "node[a, b]"),
    "rename": (lambda: b.rename(y, {"a": "q"}), "node[q, b]"),
    "transpose": (lambda: b.transpose(y, ["b", "a"]), "node[b, a]"),
    "spread": (lambda: b.spread(w, E), "edge[a, b]"),
    "iota": (lambda: b.iota(A), "global[a]: int(4)"),
    "degrees": (lambda: b.graph_value("in_degree", N), "node"),
    "scan": (lambda: b.scan([e], "i", load("acc", G) + load("0", G), 0.0), "edge[a]"),
    "scan to the last": (lambda: b.scan([e], "i", load("acc", G) + load("0", G), 0.0, row_domain=N), "node[a]"),
    "rank": (lambda: b.order_rank(e, "i", 0.5, "lower", N), "node[a]: int"),
    "random": (lambda: b.random(integer("seed", G, None), 0, E, [A]), "edge[a]"),
    "call": (lambda: b.call("mlp", [x], Type(N, (B,))), "node[b]"),
}


@pytest.mark.parametrize("case", TYPES)
def test_type(case: str) -> None:
    make_node, wanted = TYPES[case]
    assert str(make_node().type) == wanted


ERRORS: dict[str, Callable[[], Node]] = {
    "add takes 2 arguments, not 1": lambda: b.elementwise("add", x),
    "`and` needs true-or-false values, not node[a] (compare it with a number first)":
        lambda: b.elementwise("and", x > 0.0, x),
    "where needs a condition, not node[a] (compare it with a number: where(x > 0, a, b))":
        lambda: b.elementwise("where", x, x, x),
    "dim `a` has size 5 here and 4 there": lambda: x + load("z", N, Dim("a", 5)),
    "node[a] and edge[a] do not mix "
    "(read the node value at one end of the edge: [j] for the source, [i] for the target)":
        lambda: x + e,
    "graph[a] and node[a] do not mix (read the graph value at each node with [g])":
        lambda: load("u", Domain.GRAPH, A) + x,
    "source[a] and target[a] do not mix "
    "(a source value meets a target value only on an edge: read them with [j] and [i])":
        lambda: load("s", S, A) + load("t", T, A),
    "no dim `q` to sum over in node[a, b]": lambda: b.sum_dims(y, ["q"]),
    "a global value has no rows to sum over": lambda: b.total(w),
    "`@` needs a dim to sum over, and the left side is node (use * for a product of numbers)":
        lambda: b.matmul(load("n", N), w),
    "`@` sums over `a`, the last dim of the left side, and the right side global[b, c] has no such dim "
    "(rename a dim of the right side, or sum over another: the left side is node[a])":
        lambda: b.matmul(x, load("v", G, B, C)),
    "no dim `q` in node[a]": lambda: b.reduce(x, "max", "q"),
    "pair[a] cannot be read at [i] (only values of nodes and edges have ends)":
        lambda: b.gather(b.gather(e, "j"), "i"),
    "only pair values can be aggregated, not edge[a] "
    "(read it at pairs first: [kj] for the first edge, [ji] for the second)": lambda: b.segment(e, "i", "sum", E),
    "pair[a] and edge[a] do not mix "
    "(read the edge value at an edge of the pair: [kj] for the first, [ji] for the second)":
        lambda: b.gather(e, "j") * e,
    "source[a] cannot be read at [i] (a source value lives at [j])": lambda: b.gather(load("s", S, A), "i"),
    "target[a] cannot be read at [j] (a target value lives at [i])": lambda: b.gather(load("t", T, A), "j"),
    "graph[a] cannot be read at [i] (a graph value is read at nodes with [g])":
        lambda: b.gather(load("u", Domain.GRAPH, A), "i"),
    "node[a] cannot be read at [g] (only values of nodes and edges have ends)": lambda: b.gather(x, "g"),
    "only edge values can be aggregated, not node[a] "
    "(read it along the edges first: [j] for the source, [i] for the target)": lambda: b.segment(x, "i", "sum", N),
    "only node values can be aggregated, not edge[a] (aggregate edge values to nodes first)":
        lambda: b.segment(e, "g", "sum", Domain.GRAPH),
    "`by` needs one integer an edge, not edge[a]": lambda: b.segment(e, "i", "sum", N, e, R),
    "dim `a` is already in edge[a]": lambda: b.segment(e, "i", "sum", N, rel, A),
    "node[a] is not global": lambda: b.spread(x, E),
    "an index needs an integer with a bound, not edge: int (declare it: `edge rel: int(num_relations)`)":
        lambda: b.index(load("t", G, R), integer("free", E, None), "r"),
    "an integer below 9 cannot index dim `r` of size 3":
        lambda: b.index(load("t", G, R), integer("wide", E, 9), "r"),
    "dim `a` is in both the index and the value": lambda: b.index(load("t", G, R, A), integer("k", E, 3, A), "r"),
    "index 4 is outside dim `a` of size 4 (0 to 3)": lambda: b.select(x, "a", 4),
    "index -1 is outside dim `a` of size 4 (0 to 3)": lambda: b.select(x, "a", -1),
    "places 3 to 4 are outside dim `a` of size 4": lambda: b.slice_dim(x, "a", 3, Dim("p", 2)),
    "the parts have 8 places together, and dim `both` has 9":
        lambda: b.cat([x, x], ["a", "a"], Dim("both", 9)),
    "no dim `q` in node[a, b]": lambda: b.rename(y, {"q": "z"}),
    "merge names a dim twice": lambda: b.merge(y, ["a", "a"], "aa"),
    "dim `a` occurs twice (call the second one `a'`)": lambda: load("z", N, A, A),
    "dim `a` has size -1": lambda: load("z", N, Dim("a", -1)),
    "node[a] has 4 numbers a row and node[b, c] has 15": lambda: b.split(x, "a", [B, C]),
}  # fmt: skip


@pytest.mark.parametrize("text", ERRORS)
def test_error(text: str) -> None:
    with pytest.raises(IRError) as caught:
        ERRORS[text]()
    assert str(caught.value) == text


def test_an_error_gives_its_hint_apart() -> None:
    with pytest.raises(IRError) as caught:
        b.gather(load("s", S, A), "i")
    assert caught.value.message == "source[a] cannot be read at [i]"
    assert caught.value.hint == "a source value lives at [j]"


# ------------------------------------------------------------------------------------ hash-consing


def test_equal_structure_is_one_node() -> None:
    assert load("x", N, A) is x
    assert b.gather(x, "j") * w is b.gather(load("x", N, A), "j") * w


@pytest.mark.parametrize("layer", LAYERS)
def test_a_program_built_twice_is_one(layer: str) -> None:
    assert LAYERS[layer]().nodes == LAYERS[layer]().nodes


DISTINCT = [0.0, -0.0, 0, False, 1, 1.0, True, math.inf, -math.inf, math.nan]


def test_constants_differ_by_kind_and_sign() -> None:
    assert len({b.const(v) for v in DISTINCT}) == len(DISTINCT)
    assert all(b.const(v) is b.const(v) for v in DISTINCT)


def test_attributes_differ_by_kind_and_sign() -> None:
    plain = Type(G)
    assert len({make("op", (), plain, {"value": v}) for v in DISTINCT}) == len(DISTINCT)
    assert len({make("op", (), plain, {"value": (v,)}) for v in DISTINCT}) == len(DISTINCT)


def test_what_makes_a_node_different() -> None:
    nodes = [x, load("x", E, A), load("x", N, B), load("x", N, Dim("a", 5)), load("x", N, A, role="param"),
             integer("x", N, None, A), integer("x", N, 3, A), load("x2", N, A)]  # fmt: skip
    assert len(set(nodes)) == len(nodes)


@pytest.mark.parametrize("layer", LAYERS)
def test_pickle_gives_the_same_node(layer: str) -> None:
    for node in LAYERS[layer]().nodes:
        assert pickle.loads(pickle.dumps(node)) is node


@pytest.mark.parametrize("value", DISTINCT)
def test_pickle_of_a_constant(value: float) -> None:
    assert pickle.loads(pickle.dumps(b.const(value))) is b.const(value)


def test_pickle_of_a_scan_with_its_step() -> None:
    node = b.scan([e], "i", load("acc", G) * load("0", G), 1.0, reverse=True)
    assert pickle.loads(pickle.dumps(node)) is node


def test_a_node_is_immutable() -> None:
    with pytest.raises(AttributeError):
        x.op = "exp"


def test_nodes_that_nobody_holds_go() -> None:
    from gdsl.ir import node as module

    gc.collect()
    before = len(module._interned)
    grown = x
    for k in range(100):
        grown = grown + (1000.5 + k)
    assert len(module._interned) >= before + 200
    del grown
    gc.collect()
    assert len(module._interned) == before


def test_deep_programs() -> None:
    """Nothing recurses over a program, so no depth is too deep."""
    deep = x
    for k in range(5_000):
        deep = deep + (0.5 + k)
    assert sum(1 for _ in walk([deep])) == 10_001
    assert substitute([deep], {x: load("z", N, A)})[deep] is not deep


# ---------------------------------------------------------------------------- walks, substitution


@pytest.mark.parametrize("layer", LAYERS)
def test_walk_has_inputs_first_and_each_once(layer: str) -> None:
    order = list(walk(LAYERS[layer]().nodes))
    place = {n: k for k, n in enumerate(order)}
    assert len(place) == len(order)
    assert all(place[i] < place[n] for n in order for i in n.inputs)


def test_walk_goes_left_to_right() -> None:
    a, c = load("p", G), load("q", G)
    assert list(walk([(a * c) + a])) == [a, c, a * c, (a * c) + a]
    assert list(walk([c, a])) == [c, a]


def test_users_count_each_reading() -> None:
    square = x * x
    found = users([square, b.elementwise("exp", x)])
    assert found[x] == [square, square, b.elementwise("exp", x)]
    assert found[square] == []


def test_substitute_by_mapping_does_not_look_below() -> None:
    a, c = load("p", G), load("q", G)
    sum_ = b.elementwise("exp", a) + a
    found = substitute([sum_], {b.elementwise("exp", a): c, a: b.const(2.0)})
    assert found[sum_] is c + b.const(2.0)


def test_substitute_by_function_works_bottom_up() -> None:
    a = load("p", G)

    def halve(node: Node) -> Node | None:
        return a if node.op == "neg" else None

    thrice = b.elementwise("neg", -a)
    assert substitute([-thrice], halve)[-thrice] is a


def test_substitute_without_a_change_gives_the_same_nodes() -> None:
    p = LAYERS["GATv2"]()
    assert all(old is new for old, new in substitute(p.nodes, lambda node: None).items())


def test_kinds_read_well() -> None:
    assert [repr(v) for v in (Kind.FLOAT, Domain.EDGE, A)] == ["float", "edge", "a=4"]
    assert repr(b.gather(x, "j")) == "<gather end='j' edge[a]>"
