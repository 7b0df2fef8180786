"""The rule of each op: what the compiler makes passes, after every pass; a node with one thing changed does not."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings

import gdsl
from gdsl.errors import ProgramError
from gdsl.ir import build as b
from gdsl.ir.attributes import NONE
from gdsl.ir.node import Node, make, walk
from gdsl.ir.ops import OPS
from gdsl.ir.ops.functions import ToInt
from gdsl.ir.program import Program
from gdsl.ir.types import Dim, Domain, Kind, Type
from gdsl.ir.verify import verify, verify_node
from gdsl.passes import rewrite as engine
from gdsl.passes.options import Options
from gdsl.passes.pipeline import differentiate, lower, optimise
from gdsl.passes.stages import cut
from tests.ir import every_op
from tests.ir.drive import LAYERS, A, B, E, G, N, R, integer, load, program
from tests.programs import harness
from tests.programs.random_texts import SIZES, Case, cases
from tests.programs.sources import FREE_DIMS, PROGRAMS
from tests.typed import typed_of

EVERY = every_op.programs()
# Only the last pass makes these, and nothing differentiates them.
LAST = ("grouped_product", "sparse_product")


def test_every_op_has_a_rule_and_a_program() -> None:
    seen = {node.op for p in EVERY.values() for node in walk(p.nodes)}
    assert seen | {"call", "over"} == set(OPS)


@pytest.mark.parametrize("name", EVERY)
def test_what_the_builders_make(name: str) -> None:
    assert verify(EVERY[name]) is EVERY[name]


# ------------------------------------------------------------------------------------- after passes


def check_passes(given: Program, options: Options = Options()) -> None:  # noqa: B008
    """Optimised, lowered, differentiated: every program on the way, and every rewrite, is well formed."""
    log: list[engine.Fired] = []
    forward = verify(optimise(verify(given), options, log))
    real = [k for k, node in enumerate(forward.nodes) if node.kind is Kind.FLOAT]
    wrt = [n for n in forward.inputs if n.kind is Kind.FLOAT]
    backward = verify(differentiate(forward, wrt, real, None, options, log).program)
    for made, choice in itertools.product((forward, backward), ("auto", "vendor")):
        verify(lower(made, options.with_choice("sums", choice), log).program)
    for fired in log:
        for node in walk([fired.before, fired.after]):
            verify_node(node)


@pytest.mark.parametrize("name", [*LAYERS, *(n for n in EVERY if n.split()[0] not in LAST)])
def test_passes_keep_programs_well_formed(name: str) -> None:
    check_passes(LAYERS[name]() if name in LAYERS else EVERY[name])


def stages(made: gdsl.Layer, present: frozenset[str], free: dict[str, int]) -> Iterator[Program]:
    """The programs of a layer between its modules, before any pass."""
    typed = typed_of(made, training=made.training, present=present, free=free)
    whole = verify(typed.program)
    yield from (stage.program for stage in cut(whole))


@pytest.mark.parametrize("name", [n for n in PROGRAMS if n != "SAGE_module"])  # its aggregator is torch's own
def test_passes_over_the_collection(name: str) -> None:
    made = harness.layer(name, "torch")
    free = {n: FREE_DIMS.get(n, 3) for n in made.signature.free_dims}
    for stage in stages(made, frozenset(i.name for i in made.signature.inputs if i.optional), free):
        check_passes(stage)


@settings(max_examples=int(os.environ.get("GDSL_PROGRAMS", "20")))
@given(cases())
def test_passes_over_random_programs(case: Case) -> None:
    made = case.layer("torch")
    for stage in stages(made, case.passed, {n: SIZES[n] for n in made.signature.free_dims}):
        check_passes(stage)


# -------------------------------------------------------------------------------- one thing changed

x, y, e, p = load("x", N, A), load("y", N, A, B), load("e", E, A), load("p", G, A)
rel, wide, free, seed = integer("rel", E, 3), integer("wide", E, 9), integer("n", E, None), integer("s", G, None)
F = Type(N, (A,))


def changed(node: Node, **attrs: Any) -> Node:
    """The node with other attributes."""
    return make(node.op, node.inputs, node.type, type(node.attrs)(**{**dict(node.attrs.items()), **attrs}))


def typed(node: Node, type: Type) -> Node:
    return make(node.op, node.inputs, type, node.attrs)


def on(node: Node, *inputs: Node) -> Node:
    return make(node.op, inputs, node.type, node.attrs)


segment, argmax, gather = b.segment(e, "i", "sum", N), b.segment(e, "i", "argmax", N), b.gather(x, "j")
by, fold = b.segment(e, "i", "sum", N, rel, R), b.scan([e], "i", load("acc", G) + load("0", G), 0.0)
last = b.scan([e], "i", load("acc", G) + load("0", G), 0.0, row_domain=N)
grouped = b.grouped_product(e, load("f", E, B), rel, R, (None, None))


def raw(op: str, inputs: Sequence[Node], type: Type, **attrs: Any) -> Node:
    return make(op, inputs, type, OPS[op].attrs(**attrs) if op in OPS else NONE)


def loaded(type: Type) -> Node:
    return raw("load", [], type, name="z", role="input")


# What is wrong -> a node that is so, and what the message says.
BROKEN: dict[str, tuple[Node, str]] = {
    "no op": (raw("system", [], F), "there is no op 'system'"),
    "operands": (raw("add", [x], F), "`add`: it has 2 operands, not 1"),
    "operands of a function": (raw("exp", [x > 0.0], F), "`exp`: its operands do not fit"),
    "an attribute of a function": (make("exp", [x], F, ToInt(3)), "`exp`: its attributes are Attrs, not ToInt"),
    "type of a function": (typed(x + 1.0, Type(E, (A,))), r"`add`: its type is Type\(domain=node"),
    "dims of a function": (typed(x + 1.0, Type(N, (A, B))), "`add`: its type is"),
    "kind of a comparison": (typed(x > 1.0, F), "`gt`: its type is"),
    "domains that do not mix": (raw("add", [x, e], F), "`add`: .* do not mix"),
    "dims that do not mix": (raw("add", [x, load("z", N, Dim("a", 9))], F), "`add`: dim `a` has size 9 here and 4"),
    "a negative size": (loaded(Type(N, (Dim("a", -1),))), "the size of a dim is from 0"),
    "a large size": (loaded(Type(N, (Dim("a", 2**31),))), "the size of a dim is from 0"),
    "large sizes": (loaded(Type(N, tuple(Dim(d, 2**20) for d in "abc"))), "a row has at most"),
    "many dims": (loaded(Type(N, tuple(Dim(f"d{k}", 1) for k in range(26)))), "at most 25 dims"),
    "a dim twice": (loaded(Type(N, (A, A))), "a dim occurs twice"),
    "a size of another type": (loaded(Type(N, (Dim("q", 2.5),))), "the size of a dim is"),  # type: ignore[arg-type]
    "a bound of a float": (loaded(Type(N, (), Kind.FLOAT, 3)), "only an int has a bound"),
    "role": (changed(x, role="output"), "its attribute `role` is one of input, param"),
    "no name": (changed(x, name=None), "its attribute `name` is a name, not None"),
    "a constant's kind": (typed(b.const(1.0), Type(G, (), Kind.INT)), "`const`: its type is"),
    "a large constant": (b.const(2**63), "an int of 64 bits"),
    "a text as a constant": (raw("const", [], Type(G), value="1.0"), "true or false, a float or an int"),
    "no value of a graph": (raw("graph_value", [], Type(N), what="__class__"), "one of in_degree"),
    "rows of a degree": (b.graph_value("in_degree", Domain.SOURCE), "there is no in_degree for each source"),
    "iota": (typed(b.iota(A), Type(G, (A,), Kind.INT, 2)), "`iota`: its type is"),
    "a seed with dims": (b.random(integer("s", G, None, A), 0, E, [A]), "its seed is one int"),
    "salt": (b.random(seed, -1, E, [A]), "`salt` is an int from 0 to 4294967295, not -1"),
    "salt of another type": (b.random(seed, True, E, [A]), "`salt` is an int from 0 to 4294967295, not True"),
    "a product that loses a dim": (typed(b.contract([y]), F), "are left, and its type is"),
    "a product over no dim": (changed(b.contract([y], ["a"]), reduce=("q",)), "are left, and its type is"),
    "a total": (changed(b.total(y), total=1), "`total` is true or false, not 1"),
    "a total of a global value": (changed(b.contract([p]), total=True), "no rows to sum over"),
    "reducer": (changed(b.reduce(y, "max", "a"), reducer="sum"), "`reducer` is one of max, min, argmax, argmin"),
    "the largest of none": (b.reduce(load("z", N, Dim("none", 0)), "max", "none"), "there is no max of no numbers"),
    "dim": (changed(b.reduce(y, "max", "a"), dim="q"), "there is no dim 'q'"),
    "end": (changed(gather, end="k"), "`end` is one of i, j, g, not 'k'"),
    "an end without such rows": (changed(gather, end="g"), "cannot be read at"),
    "a gather of a global value": (on(gather, p), "`gather`: its operands do not fit"),
    "a segment's reducer": (changed(segment, reducer="mean"), "`reducer` is one of sum"),
    "a segment's rows": (typed(segment, Type(E, (A,))), "only pair values can be aggregated"),
    "a load of pairs": (loaded(Type(Domain.PAIR, (A,))), "no value of pairs is stored"),
    "an output of pairs": (b.gather(e, "j"), "no value of pairs is stored"),
    "a number drawn for each pair": (b.random(seed, 0, Domain.PAIR, [A]), "no number is drawn for each pair"),
    "a fold of pairs": (typed(last, Type(E, (A,))), "the pairs of an edge have no order"),
    "a segment's kind": (typed(argmax, F), "`segment`: its type is"),
    "a winner with a bound": (typed(argmax, Type(N, (A,), Kind.INT, 3)), "`segment`: its type is"),
    "a segment of node values": (on(segment, x), "only edge values can be aggregated"),
    "a `by` above its dim": (on(by, e, wide), "`r` is an int below 3"),
    "a `by` without a bound": (on(by, e, free), "`r` is an int below 3"),
    "a product's index above its dim": (on(grouped, e, load("f", E, B), wide), "`r` is an int below 3"),
    "a product's end": (changed(grouped, ends=("i", "g")), "`ends` is two of i, j and none"),
    "a product's rows": (changed(grouped, ends=("i", None)), "cannot be read at the end i"),
    "a sparse product's end": (changed(b.sparse_product(x, "i", N), end="g"), "one of i, j, not 'g'"),
    "a sparse product's weight": (b.sparse_product(x, "i", N, e), "its weight is one number an edge"),
    "a sparse product of edges": (b.sparse_product(e, "i", N), "cannot be read at the end j"),
    "a value spread twice": (raw("spread", [x], Type(E, (A,))), "is not global"),
    "a quantile": (b.order_rank(e, "i", 1.5, "lower", N), "`q` is a float from 0 to 1, not 1.5"),
    "a side": (b.order_rank(e, "i", 0.5, "left", N), "`side` is one of lower, upper"),
    "a step that reads more": (changed(fold, step=load("acc", G) + load("1", G)), "its step reads load"),
    "a step on rows": (changed(fold, step=load("acc", N)), "its step reads load"),
    "a step that walks": (changed(fold, step=b.total(x)), "its step reads"),
    "a step that is none": (changed(fold, step=3), "`step` is an expression, not 3"),
    "a fold of node values": (b.scan([x], "i", load("acc", G), 0.0), "it folds values of edges"),
    "a start": (changed(fold, init=1), "`init` is a float, not 1"),
    "an index above its dim": (raw("index", [load("t", G, R), wide], Type(E), dim="r"), "`r` is an int below 3"),
    "an index without a bound": (raw("index", [load("t", G, R), free], Type(E), dim="r"), "an int below 3"),
    "an index's bound": (typed(b.index(load("t", G, R), rel, "r"), Type(E, (), Kind.INT, 2)), "`index`: its type is"),
    "a scatter above its dim": (raw("scatter", [e, wide], Type(G, (R, A)), dim="r"), "`r` is an int below 3"),
    "a scatter's dims": (raw("scatter", [e, rel], Type(G, (R, B)), dim="r"), "are left, and not"),
    "a slice outside": (changed(b.slice_dim(y, "a", 1, Dim("q", 2)), start=3), "are outside dim `a`"),
    "a slice's start": (changed(b.slice_dim(y, "a", 1, Dim("q", 2)), start="1"), "`start` is an int from 0"),
    "a slice's start, a bool": (changed(b.slice_dim(y, "a", 1, Dim("q", 2)), start=True), "`start` is an int from 0"),
    "a cat's dims": (changed(b.cat([x, p], ["a", "a"], Dim("q", 8)), dims=("a",)), "a dim for each of 2 parts"),
    "a cat's size": (typed(b.cat([x, p], ["a", "a"], Dim("q", 8)), Type(N, (Dim("q", 9),))), "8 places together"),
    "a reshape": (raw("reshape", [x], Type(N, (B,))), "has 4 numbers a row and"),
    "a transpose": (raw("transpose", [y], Type(N, (B, Dim("q", 4)))), "it has the dims of"),
    "a rounding's bound": (changed(b.to_int(x, 3), bound="3"), "`bound` is an int from 1"),
    "a rounding's type": (typed(b.to_int(x, 3), Type(N, (A,), Kind.INT, 2)), "`to_int`: its type is"),
    "a spline's degree": (changed(b.bspline(x, 4, 2, "k"), degree=4), "`degree` is an int from 1 to 3"),
    "a spline's kernel": (changed(b.bspline(x, 4, 2, "k"), kernel_size=2), "has a kernel above it"),
    "a spline's shape": (changed(b.bspline(x, 4, 2, "k"), degree=1), "its shape is"),
    "a spline's places": (changed(b.bspline_index(x, 4, 2, "k"), kernel_size=5), "`bspline_index`: its type is"),
    "a module's part": (every_op.call(F, module="mlp", kind="run"), "`kind` is one of map, aggregate"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_node_is_refused(case: str) -> None:
    node, message = BROKEN[case]
    for wrong in (node, b.stop_gradient(node)):
        with pytest.raises(ProgramError, match=message):
            verify(program(wrong))


def test_numbers_that_are_not_finite_are_constants() -> None:
    for value in (math.nan, math.inf, -math.inf, 1e-320):
        verify(program(x * b.const(value)))
