"""Each derivative rule by finite differences, to second order, on both backends."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from gdsl.ir import build as b
from gdsl.ir import library
from gdsl.ir.node import Node
from gdsl.ir.ops import ELEMENTWISE, OPS, adjoint, roll
from gdsl.ir.ops.op import NotDifferentiable, no_gradient
from gdsl.ir.ops.tables import table, table_product
from gdsl.ir.types import Dim, Domain
from gdsl.passes.options import Options
from gdsl.runtime import cache
from gdsl.runtime.autograd import Runner
from tests.ir.drive import (
    GRAPHS,
    LAYERS,
    PLAIN,
    A,
    B,
    C,
    E,
    G,
    H,
    N,
    R,
    S,
    T,
    assert_same,
    expected,
    frame,
    gradients,
    integer,
    load,
    program,
    runner,
    tensors,
)  # fmt: skip

x, y, e, m = load("x", N, A), load("y", N, A, B), load("e", E, A), load("m", E, A, B)
w, p, q = load("w", G, A, B), load("p", G, A), load("q", G, B)
rel, own, one = integer("rel", E, 3), integer("own", N, 3), load("one", E)
cube = table([1.5 * (k % 3 == 1) - (k % 5 == 2) for k in range(2 * A.size * B.size)], [A, B, Dim("p", 2)])
acc, first, second = load("acc", G), load("0", G), load("1", G)


def at(node: Node) -> Node:
    """Something that is not linear, so that the second derivative is not zero."""
    return node * node


def segment(value: Node, reducer: str, end: str = "i", **by) -> Node:
    return b.segment(at(value), end, reducer, N, **by)


def kj(value: Node) -> Node:
    return b.gather(value, "j")


def ji(value: Node) -> Node:
    return b.gather(value, "i")


def pairs(value: Node, end: str = "i", reducer: str = "sum") -> Node:
    return b.segment(value, end, reducer, E)


CASES: dict[str, Node] = {
    "exchange": b.exchange(at(x)) * load("s", S, A),
    "collect": b.collect(at(load("s", S, A)), "sum", N) * x,
    "largest of processes": b.collect(at(load("s", S, A)), "max", N, b.const(2.0) + 0.0 * load("s", S, A)) * x,
    "reverse edges of processes": b.exchange_reverse(at(e)) * e,
    "first edges of pairs of processes": pairs(b.exchange_pairs(at(e))) * e,
    "sums for first edges of processes": b.collect_pairs(at(kj(e)) * ji(m)) * e,
    "all_reduce": b.all_reduce(at(p), "sum") * x,
    "smallest of processes": b.all_reduce(at(p), "min", b.const(2.0) + 0.0 * p) * x,
    "elementwise that broadcasts": at(x) * q,
    "elementwise of rows and a global": at(p) * x,
    "contract": b.matmul(at(x), w),
    "terms of a table": table_product([x, at(q)], cube, ["a"]),
    "terms of a table, each kept": table_product([y, at(p)], cube, []),
    "contract of three": b.contract([x, w, at(q)], ["b"]),
    "contract of one twice": b.contract([x, x], ["a"]),
    "contract to a total": b.total(at(y)),
    "contract to a total over dims": b.contract([x, y, p], ["a"], total=True),
    "contract of global values": b.matmul(at(w), load("v", G, B, C)),
    "contract of edge values to a total": b.contract([b.gather(x, "j"), m], ["b"], total=True),
    "gather at i": b.gather(at(x), "i") * e,
    "gather at j": b.gather(at(x), "j") * e,
    "both ends": b.gather(x, "i") * b.gather(x, "j"),
    "sum at i": segment(e, "sum"),
    "sum at j": segment(e, "sum", "j"),
    "max at i": segment(e, "max"),
    "max at j": segment(e, "max", "j"),
    "min at i": segment(e, "min"),
    "mul at i": segment(e, "mul"),
    "mul at j": segment(e, "mul", "j"),
    "sum by": segment(e, "sum", by=rel, dim=R),
    "max by": segment(e, "max", by=rel, dim=R),
    "min by": segment(e, "min", by=rel, dim=R),
    "mul by": segment(e, "mul", by=rel, dim=R),
    "sum of a global value": b.segment(at(p), "i", "sum", N),
    "sum over graphs": b.segment(at(x), "g", "sum", Domain.GRAPH),
    "max over graphs": b.segment(at(x), "g", "max", Domain.GRAPH),
    "mul over graphs": b.segment(at(x), "g", "mul", Domain.GRAPH),
    "gather of a graph value": b.gather(at(load("u", Domain.GRAPH, A)), "g") * x,
    "scan": b.scan([e], "i", acc * first + 1.0, 0.5),
    "scan of two": b.scan([e, b.gather(x, "j")], "i", acc * first + second, 0.0),
    "scan backwards": b.scan([e], "i", acc * first + 1.0, 0.5, reverse=True),
    "scan at j": b.scan([e], "j", acc * first + 1.0, 0.5),
    "scan to the last": b.scan([e], "i", acc * first + first, 0.5, row_domain=N),
    "scan to the last of two": b.scan([e, at(e)], "i", acc * first + second, 0.5, row_domain=N),
    "index of a table by edges": b.index(at(load("t", G, R, A)), rel, "r") * e,
    "index of a table by nodes": b.index(at(load("t", G, A, R)), own, "r"),
    "index of a table by several": b.index(at(load("t", G, R, A)), integer("k", N, 3, H), "r"),
    "index of a table by a global": b.index(at(load("t", G, R, A)), integer("k", G, 3, H), "r"),
    "index of a row's own dim": b.index(at(load("t", E, A, R)), rel, "r"),
    "two indices in one table": b.gather(b.index(load("t", G, R), own, "r"), "j") * b.index(load("t", G, R), rel, "r"),
    "scatter": b.scatter(at(e), rel, R, ["a", "r"]),
    "slice": b.slice_dim(at(y), "a", 1, Dim("part", 2)),
    "slice of a start": b.slice_dim(at(y), "b", 0, Dim("part", 2)),
    "select": b.select(at(y), "a", 3),
    "cat": b.cat([at(x), load("z", N, C)], ["a", "c"], Dim("both", 9)) * load("v", G, Dim("both", 9)),
    "cat with a broadcast part": b.cat([at(y), load("v", G, C)], ["a", "c"], Dim("both", 9)),
    "cat of a value with itself": b.cat([at(x), at(x)], ["a", "a"], Dim("both", 8)),
    "max over a dim": b.reduce(at(y), "max", "a"),
    "min over a dim": b.reduce(at(m), "min", "b"),
    "reshape": b.merge(at(y), ["a", "b"], "ab") * load("v", G, Dim("ab", 12)),
    "merge the other way round": b.merge(at(y), ["b", "a"], "ba"),
    "split": b.split(at(load("s", N, Dim("ab", 12))), "ab", [A, B]),
    "transpose": b.transpose(at(y), ["b", "a"]),
    "roll": roll.roll(at(y), 1, "a"),
    "spread": b.spread(at(p), E) * e,
    "spread alone": b.spread(at(p), E),
    "softmax": library.segment_softmax(at(e), "i", N),
    "logsumexp over a dim": library.dim_logsumexp(at(y), ["a"]),
    "standard deviation": library.segment_std(at(e), "i", N),
    "B-spline": b.bspline(at(x) * 0.3, 4, 2, "k"),
    "two rounds": b.segment(b.gather(segment(b.gather(x, "j"), "sum"), "j") * e, "i", "max", N),
    "reverse": b.reverse(at(e)) * e + b.reverse(one, 0.5),
    "gather at the first edge of a pair": pairs(kj(at(e)) * ji(m)),
    "gather at the second edge of a pair": pairs(ji(at(e)) * kj(b.gather(x, "j")), "j"),
    "sum of pairs": b.gather(x, "i") * pairs(at(kj(e)) * ji(e)),
    "max of pairs": pairs(at(kj(e)) * ji(e), reducer="max"),
    "min of pairs at the first": pairs(at(kj(e) + 0.5 * ji(b.gather(x, "j"))), "j", "min"),
    "mul of pairs": pairs(at(kj(e)) * ji(e), reducer="mul"),
    "sum of pairs by": b.segment(at(kj(e)) * ji(e), "i", "sum", E, kj(rel), R),
    "softmax of pairs": pairs(library.segment_softmax(at(kj(e)) * ji(e), "i", E) * kj(e)),
    "mean of pairs and their number": library.segment_mean(at(kj(e)), "i", E) * b.graph_value("out_degree", E),
    "products at pairs": pairs(b.matmul(at(kj(e) * ji(e)), w)),
    "pairs and then edges": segment(b.matmul(pairs(kj(e) * ji(at(e))), w) * one, "sum"),
    "pairs of what pairs made": pairs(kj(pairs(at(kj(e)) * ji(e))) * ji(e)),
    "a weight of pairs": b.contract([kj(b.gather(x, "j")), ji(m)], ["b"], total=True) * w,
    "a source value": b.segment(at(b.gather(load("s", S, A), "j")) * b.gather(load("t", T, A), "i"), "i", "sum", T),
}  # fmt: skip

BACKENDS = {"torch": PLAIN, "cpp": Options()}


@pytest.fixture(autouse=True)
def _quick_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of kernels that run once each: compile them fast. tests/codegen has the flags that users get."""
    monkeypatch.setattr(cache, "FLAGS", tuple("-O1" if f == "-O3" else f for f in cache.FLAGS))


def graph_frame(name: str = "mixed"):
    batch = torch.tensor([0, 0, 1, 1, 1, 3])
    return frame(GRAPHS[name], batch=batch, num_graphs=4)


@pytest.mark.parametrize(("case", "backend"), list(itertools.product(CASES, BACKENDS)))
def test_rule(case: str, backend: str) -> None:
    """gradcheck and gradgradcheck along random directions."""
    p, f = program(CASES[case]), graph_frame()
    run, values = runner(p, backend, BACKENDS[backend]), tensors(p, f)
    assert_same(run(values, f), expected(p, values, f))
    assert torch.autograd.gradcheck(lambda *v: run(v, f), values, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda *v: run(v, f), values, fast_mode=True)


@pytest.mark.parametrize("graph", ["no_edges", "self_loops", "parallel", "hub"])
@pytest.mark.parametrize("case", [name for name, node in CASES.items() if name != "B-spline"])
def test_rule_on_hard_graphs(case: str, graph: str) -> None:
    """The IR's derivative, unfused, is torch's own derivative of the reference."""
    p, f = program(CASES[case]), graph_frame(graph)
    run, values = runner(p, "torch", PLAIN), tensors(p, f)
    assert_same(gradients(run(values, f), values), gradients(expected(p, values, f), values))


def test_every_rule_has_a_case() -> None:
    from gdsl.ir.node import walk

    covered = {node.op for case in CASES.values() for node in walk([case])}
    rules = {op.name for op in OPS.values() if op.pull not in (None, no_gradient)}
    assert rules - covered <= set(ELEMENTWISE)  # tests/ir/test_ops.py has these


# ------------------------------------------------------------------------------- zeros and ties


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("zeros", [0, 1, 2, 3])
def test_product_with_zeros(zeros: int, backend: str) -> None:
    """x / x loses the product of the others; with two zeros nothing is left, but a second derivative is."""
    p, f = program(b.segment(load("e", E), "i", "mul", N)), frame([[0, 1, 2, 3], [5, 5, 5, 1]])
    value = torch.tensor([2.0, 3.0, 5.0, 7.0], dtype=torch.float64)
    value[:zeros] = 0
    value.requires_grad_()
    run = runner(p, backend, BACKENDS[backend])
    assert torch.autograd.gradcheck(lambda v: run([v], f), [value])
    (found,) = torch.autograd.grad(run([value], f)[0].sum(), [value])
    wanted = [v.prod() for v in (value[[1, 2]], value[[0, 2]], value[[0, 1]])]
    assert_same([found], [torch.stack([*wanted, torch.ones((), dtype=torch.float64)])])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("zeros", [1, 2])
def test_second_derivative_of_a_product_with_zeros(zeros: int, backend: str) -> None:
    p, f = program(b.segment(load("e", E), "i", "mul", N)), frame([[0, 1, 2], [5, 5, 5]])
    value = torch.tensor([0.0] * zeros + [3.0] * (3 - zeros), dtype=torch.float64, requires_grad=True)
    run = runner(p, backend, BACKENDS[backend])
    hessian = torch.autograd.functional.hessian(lambda v: run([v], f)[0].sum(), value)
    a, c, d = value.tolist()
    assert_same([hessian], [torch.tensor([[0, d, c], [d, 0, a], [c, a, 0]], dtype=torch.float64)])


TIES = {"max": [1.0, 3.0, 3.0, 2.0, 3.0], "min": [3.0, 1.0, 1.0, 2.0, 1.0]}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reducer", TIES)
@pytest.mark.parametrize(("ties", "wanted"), [("split", [0, 1 / 3, 1 / 3, 0, 1 / 3]), ("first", [0, 1, 0, 0, 0])])
def test_a_tie_of_edges(ties: str, wanted: list[float], reducer: str, backend: str) -> None:
    """Split evenly, or by choice all for the first in the order of the user's edge_index, whatever the sorted order."""
    p, f = program(b.segment(load("e", E), "i", reducer, N)), frame([[4, 3, 2, 1, 0], [5] * 5])
    value = torch.tensor(TIES[reducer], dtype=torch.float64, requires_grad=True)
    options = BACKENDS[backend].with_choice("ties", ties)
    (found,) = torch.autograd.grad(runner(p, backend, options)([value], f)[0].sum(), [value])
    assert found.tolist() == wanted


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reducer", TIES)
@pytest.mark.parametrize(("ties", "wanted"), [("split", [0, 1 / 3, 1 / 3, 0, 1 / 3]), ("first", [0, 1, 0, 0, 0])])
def test_a_tie_over_a_dim(ties: str, wanted: list[float], reducer: str, backend: str) -> None:
    line = Dim("line", 5)
    p, f = program(b.reduce(load("x", N, line), reducer, "line")), frame([[], []], 1)
    value = torch.tensor([TIES[reducer]], dtype=torch.float64, requires_grad=True)
    options = BACKENDS[backend].with_choice("ties", ties)
    (found,) = torch.autograd.grad(runner(p, backend, options)([value], f)[0].sum(), [value])
    assert found.tolist() == [wanted]


@pytest.mark.parametrize("backend", BACKENDS)
def test_infinite_winner(backend: str) -> None:
    """-inf everywhere: the edges win all the same, and no NaN arises."""
    p, f = program(b.segment(load("e", E), "i", "max", N)), frame([[0, 1], [5, 5]])
    value = torch.full((2,), -math.inf, dtype=torch.float64, requires_grad=True)
    (out,) = runner(p, backend, BACKENDS[backend])([value], f)
    assert out[5] == -math.inf
    assert torch.autograd.grad(out.sum(), [value])[0].tolist() == [0.5, 0.5]


# --------------------------------------------------------------------------------- whole layers


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("layer", LAYERS)
def test_layer_against_torch_autograd(layer: str, graph: str) -> None:
    p, f = LAYERS[layer](), frame(GRAPHS[graph])
    values = tensors(p, f)
    wanted = _derivatives(expected(p, values, f), values)
    for backend, options in BACKENDS.items():
        assert_same(_derivatives(runner(p, backend, options)(values, f), values), wanted)


def _derivatives(outputs, values) -> list[Tensor]:
    once = gradients(outputs, values)
    return [*outputs, *once, *gradients(once, values)]


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_adjoint(layer: str, backend: str) -> None:
    """⟨J v, u⟩ = ⟨v, Jᵀ u⟩, with J v from finite differences of the values alone."""
    p, f = LAYERS[layer](), frame(GRAPHS["mixed"])
    run, values = runner(p, backend, BACKENDS[backend]), tensors(p, f)
    outputs = run(values, f)
    u = [torch.randn_like(o) for o in outputs]
    v = [torch.randn_like(t) for t in values]
    back = torch.autograd.grad(outputs, values, u)
    step = 1e-6
    with torch.no_grad():
        ahead = run([t + step * d for t, d in zip(values, v, strict=True)], f)
        behind = run([t - step * d for t, d in zip(values, v, strict=True)], f)
    left = sum(((a - c) / (2 * step) * k).sum() for a, c, k in zip(ahead, behind, u, strict=True))
    right = sum((d * g).sum() for d, g in zip(v, back, strict=True))
    assert float(left) == pytest.approx(float(right), rel=1e-6)


# -------------------------------------------------------------------------- what does not flow


@pytest.mark.parametrize("backend", BACKENDS)
def test_stop_gradient(backend: str) -> None:
    p, f = program(b.stop_gradient(x) * x), frame(GRAPHS["mixed"])
    (value,) = tensors(p, f)
    (found,) = torch.autograd.grad(runner(p, backend, BACKENDS[backend])([value], f)[0].sum(), [value])
    assert torch.equal(found, value)


def test_no_gradient_is_none() -> None:
    assert adjoint.gradients({b.stop_gradient(x): b.const(1.0, [A])}, [x]) == [None]
    assert adjoint.gradients({at(x): b.const(1.0, [A])}, [y]) == [None]


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_input_that_does_not_matter_gets_none(backend: str) -> None:
    p, f = program(at(x), b.stop_gradient(y)), frame(GRAPHS["mixed"])
    values = tensors(p, f)
    outputs = runner(p, backend, BACKENDS[backend])(values, f)
    found = torch.autograd.grad(outputs[0].sum(), values, allow_unused=True)
    assert found[1] is None
    assert_same([found[0]], [2 * values[0]])


def test_an_op_without_a_rule_is_named() -> None:
    call = b.call("mlp", [x], x.type)
    with pytest.raises(NotDifferentiable, match="`call` has no derivative rule"):
        adjoint.gradients({call: b.const(1.0, [A])}, [x])


def test_a_gradient_has_the_type_of_its_operand() -> None:
    for name, node in CASES.items():
        loads = [n for n in program(node).inputs if n.kind.value == "float"]
        seed = b.load("d_y", node.type, "grad")
        for operand, found in zip(loads, adjoint.gradients({node: seed}, loads), strict=True):
            assert found is not None and found.type == operand.type, name


def test_a_backward_is_a_program_that_is_differentiated_again() -> None:
    """To third order, through the same runner."""
    p, f = program(b.segment(at(b.gather(x, "j")) * b.gather(x, "i"), "i", "sum", N)), frame(GRAPHS["mixed"])
    values = tensors(p, f)
    for outputs in (expected(p, values, f), runner(p, "cpp")(values, f)):
        for _ in range(3):
            outputs = gradients(outputs, values)
        third = outputs if "third" not in locals() else [*third, *outputs]  # noqa: F821
    assert_same(third[:1], third[1:])


def test_runners_are_made_once() -> None:
    run = Runner(program(at(x)), "torch", torch.float64, torch.int32, Options())
    assert run.differentiable((True,)) is run.differentiable((True,))
    owner = run.differentiable((True,))
    assert owner.adjoint((True,), (True,)) is owner.adjoint((True,), (True,))


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_deviation_of_a_product_alone_is_0(backend: str) -> None:
    """Over a dim of one place and at a node with one edge: w * x - m in one instruction is what rounding loses, and the
    root of its square has a slope."""
    one = Dim("one", 1)
    x, w, e = load("x", N, one), load("w", G, one, role="param"), load("e", E)
    p = program(library.dim_std(x * w, ["one"]), library.segment_std(e * b.gather(x, "j"), "i", N))
    f = frame([[0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 0]])
    values = tensors(p, f)
    outputs = runner(p, backend, BACKENDS[backend])(values, f)
    first = gradients(outputs, values)
    second = [g for g in first if g.requires_grad]
    for found in (*outputs, *first, *gradients(second, values)):
        assert not found.any()
