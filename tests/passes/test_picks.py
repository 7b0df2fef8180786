"""Chains of `where` as values of a picked table: when, the same numbers and derivatives, and how a graph decides."""

from __future__ import annotations

import pytest
import torch

import gdsl
from gdsl.ir import build as b
from gdsl.ir.node import walk
from gdsl.ir.types import Dim
from gdsl.passes.options import GraphShape, Options
from gdsl.passes.pipeline import optimise
from tests.ir.drive import B, G, N, load, program
from tests.programs import harness

# The values of a relation: the last for all others, and a chain that names each.
RELATIONS = """
layer Relations(f, h) {
    param w0[f, h] ~ glorot
    param w1[f, h] ~ glorot
    param w2[f, h] ~ glorot
    param b0[h] ~ normal
    param b1[h] ~ normal
    param b2[h] ~ normal
    node x[f]
    edge rel: int(3)
    p0 = relu(x @ w0 + b0)
    p1 = relu(x @ w1 + b1)
    p2 = relu(x @ w2 + b2)
    last = where(rel == 2, p2[j], where(rel == 1, p1[j], p0[j]))
    each = where(rel == 0, p0[i], where(rel == 2, p2[i], where(rel == 1, p1[i], 7 * p0[i])))
    aggregate a = sum(last * each)
    update y = a
}
"""

# A matrix for each degree; some nodes have more edges than there are kinds of, and the others' numbers differ.
DEGREES = """
layer Degrees(f, h) {
    param w0[f, h] ~ glorot
    param w1[f, h] ~ glorot
    param w2[f, h] ~ glorot
    param w3[f, h] ~ glorot
    node x[f]
    aggregate a = sum(x[j])
    d = CHOOSER
    y = where(d == 0, a @ w0, 0.5)
    y = where(d == 1, a @ w1, y)
    y = where(d == 2, a @ w2, y)
    y = where(d == 3, a @ w3, y)
    return y
}
"""

# Constants are tables, too, of floats; not those that an integer is compared with.
CONSTANTS = """
layer Constants(f) {
    node x[f]
    edge rel: int(3)
    edge other: int(3)
    p = where(x[j] > 0.1, 2 * x[i], x[i])
    q = where(x[j] > 0.2, 3 * x[i], x[i])
    r = where(x[j] > 0.3, 4 * x[i], x[i])
    floats = where(rel == 0, p, where(rel == 1, q, r))
    p = where(other == 0, x[j], x[i])
    q = where(other == 1, x[j], x[i])
    r = where(other == 2, x[j], x[i])
    ints = where(rel == 0, p, where(rel == 1, q, r))
    aggregate a = sum(floats * ints)
    update y = a
}
"""

TEXTS = {
    "constants": CONSTANTS,
    "relations": RELATIONS,
    "degrees": DEGREES.replace("CHOOSER", "min(degree(i), 3)"),
    "guarded": DEGREES.replace("CHOOSER", "degree(i)"),
    "halves": DEGREES.replace("CHOOSER", "degree(i) / 2"),
}
# Values that are made in different ways, of different inputs; kinds that are missing, and one that is asked twice.
NOT_ALIKE = {
    "other function": ("a @ w1", "tanh(a @ w1)"),
    "other input": ("a @ w1", "x @ w1"),
    "missing kind": ("d == 1", "d == 4"),
    "no whole kind": ("d == 1", "d == 1.5"),
    "no kind": ("d == 1", "d < 1"),
}


def _layer(text: str, backend: str, kinds: str = "picked") -> gdsl.Layer:
    sizes = {"f": 4, "h": 3} if "h)" in text else {"f": 4}
    made = gdsl.compile(text, **sizes, backend=backend).double()
    return made.choose(kinds=kinds)


def _picks(made: gdsl.Layer) -> int:
    """How many values are read from a picked table or a picked kind at a node."""
    return sum(n.op == "index" for n in walk(made._ran()[0].inspection.programs[0].nodes))


@pytest.mark.parametrize("graph", ["random", *harness.HARD_GRAPHS])
@pytest.mark.parametrize("backend", ["torch", "cpp", "triton"])
@pytest.mark.parametrize("name", TEXTS)
def test_same_numbers_and_derivatives(name: str, backend: str, graph: str) -> None:
    made = _layer(TEXTS[name], backend)
    edges = harness.random_edges(7, 20, seed=3) if graph == "random" else torch.tensor(harness.HARD_GRAPHS[graph])
    values = harness.inputs(made, edges.long(), 7)
    plain = harness.twin(made, "torch")
    for found, expected in zip(harness.run(made, values), harness.oracle(plain, values), strict=True):
        assert harness.difference(found, expected) < 1e-9
    assert _picks(made) > 0


@pytest.mark.parametrize("change", NOT_ALIKE)
def test_values_that_are_not_alike_stay(change: str) -> None:
    made = _layer(TEXTS["degrees"].replace(*NOT_ALIKE[change]), "torch")
    values = harness.inputs(made, harness.random_edges(7, 20, seed=3), 7)
    plain = harness.twin(made, "torch")
    for found, expected in zip(harness.run(made, values), harness.oracle(plain, values), strict=True):
        assert harness.difference(found, expected) < 1e-9
    assert _picks(made) == 0


DEVICES = [("cpu", True), ("cuda", False)]


@pytest.mark.parametrize(("device", "picked"), DEVICES)
def test_many_kinds_are_picked_on_a_cpu(device: str, picked: bool) -> None:
    """On a GPU no kernel reads another matrix for each row, unless it is asked to."""
    d = b.elementwise("minimum", b.graph_value("in_degree", N), 15.0)
    y = b.const(0.0, (B,))
    for k in range(16):
        table = load(f"w{k}", G, Dim("a", 32), B)
        y = b.elementwise("where", b.elementwise("eq", d, float(k)), b.matmul(load("x", N, Dim("a", 32)), table), y)
    shape = GraphShape(1 << 12, 1 << 12, 1 << 14, device)
    for choices, expected in (((), picked), ((("kinds", "picked"),), True), ((("kinds", "all"),), False)):
        done = optimise(program(y), Options(shape=shape, choices=choices))
        assert any(n.op == "index" for n in walk(done.nodes)) is expected


@pytest.mark.parametrize("number", ["inf", "-inf", "0.5", "1"])
def test_a_value_compared_with_any_number(number: str) -> None:
    made = gdsl.compile(f"layer L(d = 2) {{ node x[d] return sum(where(x[j] == {number}, 0, x[j])) }}", backend="cpp")
    x = torch.tensor([[1.0, torch.inf], [-torch.inf, 0.5], [2.0, 3.0]])
    wanted = x.where(x != float(number), 0.0)
    assert torch.equal(made(x, torch.tensor([[0, 1, 2], [0, 1, 2]])), wanted)
