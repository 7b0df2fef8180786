"""The torch backend: each structural op against a formula that is written out, edge by edge."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gdsl.errors import InputError
from gdsl.ir import build as b
from gdsl.ir import library, philox
from gdsl.ir.node import Node
from gdsl.ir.ops import OPS
from gdsl.ir.types import Dim, Domain, Kind
from gdsl.runtime import reference
from tests.ir.drive import GRAPHS, A, B, C, E, G, H, N, R, S, T, frame, integer, load

x, y, e, m = load("x", N, A), load("y", N, A, B), load("e", E, A), load("m", E, A, B)
w, rel = load("w", G, A, B), integer("rel", E, 3)
EDGES = GRAPHS["mixed"]
FRAME = frame(EDGES, batch=torch.tensor([0, 0, 2, 2, 2, 3]), num_graphs=4)
SOURCE, TARGET = torch.tensor(EDGES)


def values(*nodes: Node) -> dict[Node, Tensor]:
    generator = torch.Generator().manual_seed(1)
    found = {}
    for node in nodes:
        shape = (*(() if node.domain is G else (FRAME.rows(node.domain),)), *node.type.shape)
        random = torch.randn(shape, generator=generator, dtype=torch.float64)
        found[node] = (
            random if node.kind is Kind.FLOAT else torch.randint(0, node.type.bound or 9, shape, generator=generator)
        )
    return found


def run(node: Node, given: dict[Node, Tensor], f=FRAME) -> Tensor:
    return reference.run([node], given, f)[0]


def rows(ends: Tensor, count: int, value: Tensor, how) -> Tensor:
    """``how`` of the values at each end, one row at a time; 0 for none."""
    empty = torch.zeros_like(value[0]) if len(value) else torch.zeros(value.shape[1:], dtype=value.dtype)
    return torch.stack([how(value[ends == r]) if (ends == r).any() else empty for r in range(count)])


REDUCERS = {
    "sum": lambda v: v.sum(0), "max": lambda v: v.amax(0), "min": lambda v: v.amin(0), "mul": lambda v: v.prod(0),
}  # fmt: skip


@pytest.mark.parametrize("end", ["i", "j"])
@pytest.mark.parametrize("reducer", REDUCERS)
def test_segment(reducer: str, end: str) -> None:
    given = values(e)
    ends = TARGET if end == "i" else SOURCE
    wanted = rows(ends, 6, given[e], REDUCERS[reducer])
    if reducer == "mul":
        wanted[torch.bincount(ends, minlength=6) == 0] = 1
    torch.testing.assert_close(run(b.segment(e, end, reducer, N), given), wanted)


@pytest.mark.parametrize("reducer", REDUCERS)
def test_segment_by(reducer: str) -> None:
    """A bucket with no edge holds 0, or 1 for a product, whatever the other buckets of its row hold."""
    given = values(e, rel)
    found = run(b.segment(e, "i", reducer, N, rel, R), given)
    for node in range(6):
        for r in range(3):
            here = given[e][(node == TARGET) & (given[rel] == r)]
            empty = torch.full((4,), float(reducer == "mul"), dtype=torch.float64)
            torch.testing.assert_close(found[node, r], REDUCERS[reducer](here) if len(here) else empty)


@pytest.mark.parametrize("reducer", REDUCERS)
def test_segment_over_graphs(reducer: str) -> None:
    given = values(x)
    wanted = rows(FRAME.batch, 4, given[x], REDUCERS[reducer])
    if reducer == "mul":
        wanted[1] = 1
    torch.testing.assert_close(run(b.segment(x, "g", reducer, Domain.GRAPH), given), wanted)


@pytest.mark.parametrize("reducer", ["argmax", "argmin"])
def test_segment_arg(reducer: str) -> None:
    """The edge number of the first winner; -1 for none."""
    given = values(e)
    given[e] = (2 * given[e]).round()  # ties
    found = run(b.segment(e, "i", reducer, N), given)
    for node in range(6):
        ids = (node == TARGET).nonzero()[:, 0].tolist()
        for k in range(4):
            sign = 1 if reducer == "argmax" else -1
            best = max(ids, key=lambda n: (sign * given[e][n, k].item(), -n), default=-1)
            assert found[node, k] == best


@pytest.mark.parametrize("reducer", ["max", "min", "argmax", "argmin"])
def test_nan_wins(reducer: str) -> None:
    f = frame([[0, 1, 2], [3, 3, 3]])
    given = {load("v", E): torch.tensor([1.0, math.nan, 2.0], dtype=torch.float64)}
    found = run(b.segment(load("v", E), "i", reducer, N), given, f)[3]
    assert found == 1 if reducer.startswith("arg") else found.isnan()


def test_gather() -> None:
    given = values(x)
    assert torch.equal(run(b.gather(x, "i"), given), given[x][TARGET])
    assert torch.equal(run(b.gather(x, "j"), given), given[x][SOURCE])
    u = load("u", Domain.GRAPH, A)
    given = values(u)
    assert torch.equal(run(b.gather(u, "g"), given), given[u][FRAME.batch])


def test_without_a_batch_all_nodes_are_one_graph() -> None:
    given = values(x)
    assert torch.allclose(run(b.segment(x, "g", "sum", Domain.GRAPH), given, frame(EDGES)), given[x].sum(0)[None])


def test_contract() -> None:
    v = load("v", G, B, C)
    given = values(x, y, w, v)
    cases = {
        b.matmul(x, w): given[x] @ given[w],
        b.contract([x, y], ["a"]): torch.einsum("na,nab->nb", given[x], given[y]),
        b.contract([y], ["a", "b"]): given[y].sum((1, 2)),
        b.contract([y], order=["b", "a"]): given[y].transpose(1, 2),
        b.contract([y, v], order=["c", "a", "b"]): torch.einsum("nab,bc->ncab", given[y], given[v]),
        b.total(y): given[y].sum(0),
        b.contract([x, y], ["a"], total=True): torch.einsum("na,nab->b", given[x], given[y]),
        b.contract([w, v], ["b"]): given[w] @ given[v],
        b.contract([x, x], ["a"]): (given[x] ** 2).sum(1),
    }
    for node, wanted in cases.items():
        torch.testing.assert_close(run(node, given), wanted)


def test_reduce() -> None:
    given = values(y)
    torch.testing.assert_close(run(b.reduce(y, "max", "a"), given), given[y].amax(1))
    torch.testing.assert_close(run(b.reduce(y, "min", "b"), given), given[y].amin(2))
    given[y] = given[y].round()  # ties: the first place wins
    first = [[[row.index(max(row)) for row in node.T.tolist()]] for node in given[y]]
    assert run(b.reduce(y, "argmax", "a"), given).tolist() == [r[0] for r in first]


def test_index() -> None:
    t, k, own = load("t", G, A, R), integer("k", N, 3, H), load("o", E, A, R)
    given = values(t, k, own, rel)
    assert torch.equal(run(b.index(t, rel, "r"), given), given[t].T[given[rel]])
    assert torch.equal(run(b.index(t, k, "r"), given), given[t].T[given[k]])
    picked = torch.stack([given[own][n, :, r] for n, r in enumerate(given[rel])])
    assert torch.equal(run(b.index(own, rel, "r"), given), picked)


def test_scatter() -> None:
    given = values(e, rel)
    wanted = torch.stack([given[e][given[rel] == r].sum(0) for r in range(3)], 1)
    torch.testing.assert_close(run(b.scatter(e, rel, R, ["a", "r"]), given), wanted)


def test_views() -> None:
    v = load("v", N, C)
    given = values(y, v)
    flat = given[y].reshape(6, 12)
    cases = {
        b.merge(y, ["a", "b"], "ab"): flat,
        b.merge(y, ["b", "a"], "ba"): given[y].transpose(1, 2).reshape(6, 12),
        b.split(b.merge(y, ["a", "b"], "ab"), "ab", [B, A]): flat.reshape(6, 3, 4),
        b.transpose(y, ["b", "a"]): given[y].transpose(1, 2),
        b.slice_dim(y, "a", 1, Dim("p", 2)): given[y][:, 1:3],
        b.select(y, "b", 2): given[y][:, :, 2],
        b.rename(y, {"a": "q"}): given[y],
        b.cat([y, v], ["a", "c"], Dim("both", 9)): torch.cat([given[y], given[v][:, :, None].expand(6, 5, 3)], 1),
    }
    for node, wanted in cases.items():
        assert torch.equal(run(node, given), wanted)


def test_broadcast_by_name() -> None:
    p = load("p", G, B)
    given = values(x, p)
    assert torch.equal(run(x + p, given), given[x][:, :, None] + given[p])
    assert torch.equal(run(p + x, given), given[p][None, :, None] + given[x][:, None, :])


def test_spread_and_leaves() -> None:
    given = values(w)
    assert torch.equal(run(b.spread(w, E), given), given[w].expand(9, 4, 3))
    assert run(b.iota(A), {}).tolist() == [0, 1, 2, 3]
    assert run(b.const(2.0, [B]), {}).tolist() == [2, 2, 2]
    assert run(b.graph_value("in_degree", N), {}).tolist() == torch.bincount(TARGET, minlength=6).tolist()
    assert run(b.graph_value("out_degree", N), {}).tolist() == torch.bincount(SOURCE, minlength=6).tolist()
    assert run(b.graph_value("edge_id", E), {}).tolist() == list(range(9))
    assert run(b.graph_value("position", E), {}).tolist() == [0, 1, 0, 1, 0, 2, 3, 0, 0]


def test_random() -> None:
    seed = integer("seed", G, None)
    found = run(b.random(seed, 7, E, [A]), {seed: torch.tensor(5)})
    assert torch.equal(found, philox.uniform(5, 7, (9, 4), "cpu", torch.float64))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("end", ["i", "j"])
def test_scan(end: str, reverse: bool) -> None:
    acc, first, second = load("acc", G), load("0", G), load("1", G)
    step = acc * first + second
    given = values(e, x)
    inputs = [e, b.gather(x, "j")]
    before = run(b.scan(inputs, end, step, 0.5, reverse=reverse), given)
    after = run(b.scan(inputs, end, step, 0.5, reverse=reverse, row_domain=N), given)
    ends = TARGET if end == "i" else SOURCE
    for node in range(6):
        a = torch.full((4,), 0.5, dtype=torch.float64)
        ids = (ends == node).nonzero()[:, 0].tolist()
        for n in ids[::-1] if reverse else ids:
            torch.testing.assert_close(before[n], a)
            a = a * given[e][n] + given[x][SOURCE[n]]
        torch.testing.assert_close(after[node], a)


@pytest.mark.parametrize("q", [0.0, 0.25, 0.5, 1.0])
def test_quantile_and_rank(q: float) -> None:
    given = values(e)
    wanted = rows(TARGET, 6, given[e], lambda v: v.quantile(q, 0))
    torch.testing.assert_close(run(library.segment_quantile(e, "i", N, q), given), wanted)
    lower = run(b.order_rank(e, "i", q, "lower", N), given)
    assert (lower[5] == -1).all()
    assert (TARGET[lower[0]] == 0).all()


def test_median_of_no_edges() -> None:
    found = run(library.segment_median(e, "i", N), {e: torch.zeros(0, 4, dtype=torch.float64)}, frame([[], []]))
    assert torch.equal(found, torch.zeros(6, 4, dtype=torch.float64))


def test_scan_of_a_global_value() -> None:
    p, given = load("p", G, A), values(e)
    given[p] = torch.rand(4, dtype=torch.float64)
    step = load("acc", G) * load("0", G) + load("1", G)
    found = run(b.scan([p, e], "i", step, 0.0, row_domain=N), given)
    torch.testing.assert_close(found[1, 0], run(b.scan([b.spread(p, E), e], "i", step, 0.0, row_domain=N), given)[1, 0])


def test_bipartite() -> None:
    f = frame([[0, 3, 1], [1, 1, 0]], (4, 2))
    s, t = load("s", S, A), load("t", T, A)
    given = {s: torch.randn(4, 4).double(), t: torch.randn(2, 4).double()}
    found = run(b.segment(b.gather(s, "j") * b.gather(t, "i"), "i", "sum", T), given, f)
    torch.testing.assert_close(found, torch.stack([given[s][1], given[s][0] + given[s][3]]) * given[t])
    assert run(b.segment(b.gather(t, "i"), "j", "sum", S), given, f).shape == (4, 4)


def test_stop_gradient() -> None:
    value = torch.ones(6, 4, dtype=torch.float64, requires_grad=True)
    assert not run(b.stop_gradient(x), {x: value}).requires_grad


def test_a_missing_value_is_named() -> None:
    with pytest.raises(InputError, match="no value was given for `x`"):
        run(x + 1.0, {})


def test_every_op_has_a_reference_form() -> None:
    """A load is given, and a call is replaced before a program runs."""
    assert {op.name for op in OPS.values() if op.value is None} == {"load", "call", "over"}
