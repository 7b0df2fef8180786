"""Edges of other processes: those that go the other way, and those before own ones, of which angles are made."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import gdsl
from tests.distributed.parts import local
from tests.distributed.pool import Pool
from tests.distributed.test_programs import compare
from tests.programs import harness

TEXTS = {
    "reverse": """layer L(d) {
        node x[d]
        edge e[d]
        m = tanh(e * x[j])
        heard = sum(m)[j] - reverse(m, 0.25)
        update y = x + sum(sin(heard) * e)
        return y, heard
    }""",
    "reverse of loops": "layer L { graph add_self_loops(w = 2) node x edge w update y = x * sum(w[reverse]) }",
    "reversed kinds": "layer L(R) { node x edge rel: int(R) param p[R] ~ arange update y = x * sum(p[rel[reverse]]) }",
    "angles": """layer L(d) {
        node x[d] edge e[d] param w[d, d'] ~ normal def lin(z) = rename(z @ w, d' -> d)
        v = x[j] - 0.5 * x[i]
        message t = lin(tanh(e[kj] * v[ji]))
        aggregate a = sum(t)
        update y = sum(a * e)
        return y, a
    }""",
    "rounds without returns": """layer L(d) {
        graph non_backtracking
        node x[d] edge e[d] param w[d, d'] ~ normal def lin(z) = rename(z @ w, d' -> d)
        m = e
        for k in 1..2 {
            s = sum(m[kj] * x[i][kj]) / (1 + degree(kj)) + degree(ji)
            m = tanh(e + lin(s))
        }
        update y = sum(m)
        return y, m
    }""",
    "softmax and extremes": """layer L(d) {
        node x[d] edge e[d]
        alpha = softmax(dot(e[kj], e[ji]))
        b = sum(alpha * x[j][kj]) + max(e[kj] * x[i][ji]) + sum(e[ji]) at kj
        update y = sum(tanh(b)) + x
    }""",
    # Values that are 0, once or twice for a source, on one process or on two.
    "products at sources": """layer L(d) {
        node x[d] edge e[d] param b[d] ~ zeros
        p = mul(1 + e * x[j]) at j
        q = mul(min(floor(4 * e), 1) * x[i] + b) at j
        update y = p + q
    }""",
    "largest": """layer L(d) {
        node x[d] edge e[d]
        m = e * x[j]
        far = argmax(m[kj], e[kj] - e[ji]) + argmax(x[i][ji] * m[kj], e[ji])
        update y = sum(far) + argmax(m, reverse(m, 0.5))
    }""",
    "own pairs": "layer L(d) { node x[d] edge e[d] update y = x + sum(sum(e[ji] * e[ji])) }",
}


@pytest.mark.parametrize(
    ("name", "world", "backend"),
    [
        *((name, 3, "torch") for name in TEXTS),
        ("reverse", 1, "torch"),
        ("angles", 1, "torch"),
        ("rounds without returns", 4, "torch"),
        ("reverse", 2, "torch"),
        pytest.param("reverse", 2, "cpp", marks=pytest.mark.slow),
        pytest.param("rounds without returns", 2, "cpp", marks=pytest.mark.slow),
    ],
)
def test_values_of_edges_elsewhere(pool: Pool, name: str, world: int, backend: str) -> None:
    torch.manual_seed(0)
    sizes = {size: 3 for size in "Rd" if f"L({size})" in TEXTS[name]}
    layer = gdsl.compile(TEXTS[name], **sizes, backend=backend).double()
    # Few nodes: with edges that are there several times, both ways, and loops.
    compare(pool, layer, harness.random_edges(9, 40, 4), world)


# Between 0 and 1, and 1 and 2, both ways, from process to process; the last of three owns nothing.
PATH = [[0, 1, 1, 2, 0], [1, 0, 2, 1, 2]]


def explained(rank: int, world: int, group: Any) -> dict[str, str]:
    graph, mine = local(torch.tensor(PATH), torch.tensor([0, 1, 0]), rank, world, group, chunk=1)
    texts = {
        "reverse": "layer L { node x edge w m = w * x[j] update y = sum(reverse(m, 0)) }",
        "pairs": "layer L { node x edge w m = w * x[j] update y = sum(sum(m[kj])) }",
    }
    found = {}
    for name, text in texts.items():
        layer = gdsl.compile(text, backend="torch")
        x = torch.arange(1.0, 1.0 + graph.num_nodes)
        layer(x, graph, mine + 1.0)
        found[name] = layer.explain(graph)
    return found


def turned(rank: int, world: int, group: Any) -> Any:
    """On a part that is turned round, whose edges have a reverse each, and one where an edge of process 0 has none."""
    layer = gdsl.compile("layer L { node x edge w update y = x + sum(w[reverse] * x[j]) }", backend="torch")
    found: list[Any] = []
    for ends in (PATH[0][:4], PATH[1][:4]), (PATH[0], PATH[1]):
        edges = torch.tensor(ends)
        graph: Any = gdsl.Graph(edges, 3)
        mine = torch.arange(edges.shape[1])
        if group is not None:
            graph, mine = local(edges, torch.tensor([0, 1, 0]), rank, world, group)
        x = torch.arange(1.0, 4.0)[[0, 1, 2] if group is None else [[0, 2], [1]][rank]]
        try:
            found.append(layer(x, graph.reverse(), mine + 1.0).tolist())
        except gdsl.GraphError as error:
            found.append(str(error))
    return found


def test_a_part_that_is_turned_round_has_the_same_reverses(pool: Pool) -> None:
    (first, second), (y, alone) = pool.run(2, turned), turned(0, 1, None)
    assert [first[0][0], second[0][0], first[0][1]] == y
    assert alone == first[1] and "edge 4 from node 2 to node 0 has none" not in second[0]
    assert second[1] == f"process 0 has refused its call: {alone}"


def test_what_edges_send_is_said(pool: Pool) -> None:
    """Rows of 4 bytes: one for each edge across the cut with a reverse, and for each edge into what others read."""
    got = pool.run(3, explained)
    for name, sent in {"reverse": ["8 B", "8 B", "0 B"], "pairs": ["12 B", "8 B", "0 B"]}.items():
        for found, wanted in zip(got, sent, strict=True):
            (line,) = [t for t in found[name].splitlines() if f"forward: exchange_{name}(" in t]
            assert line.split("  forward")[0].strip() == wanted
            assert "all rows of others at once, and not in turns" in found[name]
