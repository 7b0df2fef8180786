"""Edges walked in turns: how programs are cut, what is in memory at a time, the order, and what the ledger says."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import gdsl
import gdsl.nn as gnn
from gdsl.distributed import Halo, LocalGraph, Traffic
from gdsl.ir import build as b
from gdsl.ir import library
from gdsl.ir.node import Node
from gdsl.ir.printer import expression
from gdsl.ir.types import Dim
from gdsl.look.measure import most_of_tensors
from gdsl.passes.exchanges import exchanged
from gdsl.passes.options import TYPICAL, Options
from gdsl.passes.pipeline import differentiate, finish, optimise
from gdsl.passes.turns import pieces_of, why_not
from gdsl.runtime import turns
from gdsl.runtime.execute import ReferencePlan
from tests.distributed.parts import local, near, number, whole
from tests.distributed.pool import Pool
from tests.ir.drive import A, E, G, N, S, T, integer, load, program

CHUNKS = Options(shape=replace(TYPICAL, processes=2, chunks=True))
WIDE, HEADS = Dim("wide", 64), Dim("heads", 4)
h, att = load("h", N, WIDE), load("att", G, WIDE, HEADS)


# ------------------------------------------------------------------------------------------ pieces


def kinds(*outputs: Node) -> list[list[str] | str]:
    """Of each piece that goes through the edges in turns what is sent for it; "own" for others."""
    last = finish(exchanged(optimise(program(*outputs))))
    assert not why_not(last)
    return [[expression(n, {}) for _, n, _ in p.sends] if p.turns else "own" for p in pieces_of(last)]


def test_a_program_is_cut_where_sums_must_be_complete() -> None:
    once = b.segment(b.gather(h, "j"), "i", "sum", N)
    assert kinds(once) == [["h"]]
    assert kinds(b.elementwise("tanh", once)) == [["h"], "own"]
    both = b.elementwise("tanh", b.gather(once, "j") + b.gather(once, "i"))
    assert kinds(b.segment(both, "i", "max", N)) == [["h"], ["sum@i(exchange(h)[j])"]]
    bipartite = b.segment(b.gather(load("s", S, A), "j") * b.gather(load("t", T, A), "i"), "i", "sum", T)
    assert kinds(bipartite) == ["own", ["s"], "own"]  # of a product with an own value of each target
    assert kinds(b.segment(load("e", E, A), "i", "sum", N)) == []


def test_a_turn_has_sent_what_it_reads_alone() -> None:
    """Attention: the turns of the maximum and of its sum read a logit a head, not the rows that these are made of."""
    logits = b.matmul(h, att)
    score = b.elementwise("tanh", b.gather(logits, "j") + b.gather(logits, "i"))
    weights = library.segment_softmax(score, "i", N)
    y = b.segment(b.sum_dims(weights, ["heads"]) * b.gather(h, "j"), "i", "sum", N)
    logit = ["sum[wide](h * att)"]
    assert [k for k in kinds(y) if k != "own"] == [logit, logit, ["h"]]


def test_nothing_of_chunks_is_kept_for_the_backward_pass() -> None:
    both = b.elementwise("tanh", b.gather(h, "j") + b.gather(h, "i"))
    z = exchanged(optimise(program(b.segment(both, "i", "sum", N))))
    kept = {o: [n.op for n, _ in differentiate(z, z.inputs, [0], None, o).saved] for o in (CHUNKS, Options())}
    assert "exchange" in kept[Options()]
    assert "exchange" not in kept[CHUNKS]


def test_what_cannot_go_in_turns_says_so() -> None:
    kind = integer("kind", E, 3)
    most = exchanged(program(b.segment(b.gather(h, "j"), "i", "max", N, kind, Dim("kinds", 3))))
    assert why_not(most).endswith("needs all edges, or all rows of others, at once")
    own = b.segment(load("e", E), "i", "max", N, kind, Dim("kinds", 3))
    # This one reads nothing of others.
    assert not why_not(exchanged(program(own, b.segment(b.gather(h, "j"), "i", "sum", N))))


# ------------------------------------------------------------------------------------------ on processes


def a_step(
    rank: int, world: int, group: Any, layer: Any, edges: Tensor, owner: Tensor, chunk: int | None, choices: Any
) -> Any:
    graph, _ = local(edges, owner, rank, world, group, chunk=chunk)
    layer.choose(**choices)
    ids = graph.halo.own_ids
    x = torch.sin(torch.outer(ids.double() + 1, torch.arange(layer.in_channels) + 1.0)).requires_grad_()
    layer.double()(x, graph).sum().backward()
    x.grad = None
    found: list[Tensor] = []

    def step() -> None:
        y = layer(x, graph)
        y.square().sum().backward()
        found.append(y.detach())

    with Traffic() as sent:
        step()
    first = x.grad.clone()
    most = most_of_tensors(step)
    text = layer.explain(graph).partition("== between processes ==")[2].partition("== memory")[0]
    return found[0], first, ids, most, sent.rows, text, graph.halo.rows, len(graph.halo.send)


LAYERS = {
    "maxima": lambda: gnn.SAGEConv(64, 64, aggr="max"),
    "sums": lambda: gnn.GraphConv(64, 64, bias=False),
    "softmax": lambda: gnn.GATConv(64, 16, heads=4, add_self_loops=False),
}


@pytest.mark.parametrize("name", [n if n == "softmax" else pytest.param(n, marks=pytest.mark.slow) for n in LAYERS])
def test_the_peak_falls_with_chunks(pool: Pool, name: str) -> None:
    """Each of four processes reads nearly all nodes of the others."""
    draw = torch.Generator().manual_seed(0)
    owner = torch.arange(1600) % 4
    edges = torch.randint(1600, (2, 9600), generator=draw)
    layer = LAYERS[name]()
    layer.backend = "cpp"
    whole_, some, few = ([*zip(*pool.run(4, a_step, layer, edges, owner, c, {}), strict=True)] for c in (None, 320, 40))
    for parts in (some, few):
        for k in (0, 1):
            near(whole(parts[k], parts[2]), whole(whole_[k], whole_[2]), "what a layer gives, and a gradient")
    # What own rows take is the least there is; when messages end, which threads decide, moves the rest a little.
    assert max(sum(few[3]), sum(some[3])) < {"sums": 1.0, "softmax": 0.85, "maxima": 0.85}[name] * sum(whole_[3])
    if name == "softmax":
        assert sum(few[3]) < 1.1 * sum(some[3])


def order(rank: int, world: int, group: Any, edges: Tensor, owner: Tensor, chunk: int | None, choices: Any) -> Any:
    # What one process asks for is what all do.
    graph, _ = local(edges, owner, rank, world, group, chunk=chunk if rank == 0 else None)
    layer = gdsl.compile(SUM, channels=3, backend="torch")
    layer.choose(**choices)
    x = torch.arange(3.0).double() + graph.halo.own_ids[:, None]
    layer(x, graph)
    events: list[str] = []
    fetch, walk = turns.halo.fetch, ReferencePlan.run

    def fetched(*args: Any) -> Any:
        wait = fetch(*args)
        events.append("begins")
        return lambda: (events.append("arrives"), wait())[1]

    def walked(plan: ReferencePlan, values: Any, frame: Any) -> Any:
        if not isinstance(frame.graph, LocalGraph):
            events.append(f"{frame.graph.num_edges} edges")
        return walk(plan, values, frame)

    turns.halo.fetch, ReferencePlan.run = fetched, walked  # type: ignore[assignment,method-assign]
    try:
        y = layer(x, graph)
    finally:
        turns.halo.fetch, ReferencePlan.run = fetch, walk  # type: ignore[method-assign]
    return events, [part.graph.num_edges for part in graph.parts], y, graph.halo.own_ids


SUM = """
layer Sum(channels) {
    node x[channels]
    aggregate y = sum(tanh(x[j]))
    return y
}
"""


def test_edges_between_own_nodes_are_walked_while_rows_travel(pool: Pool) -> None:
    draw = torch.Generator().manual_seed(1)
    edges, owner = torch.randint(30, (2, 200), generator=draw), torch.randint(2, (30,), generator=draw)
    x = torch.arange(3.0).double() + torch.arange(30)[:, None]
    wanted = torch.zeros_like(x).index_add(0, edges[1], x.tanh()[edges[0]])
    for chunk, choices in ((None, {"halo": "turns"}), (8, {}), (8, {"halo": "whole"})):
        found = pool.run(2, order, edges, owner, chunk, choices)
        for events, (own, *others), *_ in found:
            walks = ["begins", f"{own} edges"]
            for count in others[:-1]:
                walks += ["arrives", "begins", f"{count} edges"]
            walks += ["arrives", f"{others[-1]} edges"]
            assert events == ([] if choices.get("halo") == "whole" else walks)
        assert len({len(parts) for _, parts, *_ in found}) == 1
        near(whole([y for *_, y, _ in found], [ids for *_, ids in found]), wanted, "sums")


@pytest.mark.parametrize("name", ["sums", "softmax"])
def test_turns_without_chunks_keep_the_rows_of_others(pool: Pool, name: str) -> None:
    """Later turns, and the backward pass, have them sent no more."""
    draw = torch.Generator().manual_seed(2)
    edges, owner = torch.randint(60, (2, 400), generator=draw), torch.randint(3, (60,), generator=draw)
    layer = LAYERS[name]()
    layer.backend = "torch"
    run = (3, a_step, layer, edges, owner, None)
    wanted, found = ([*zip(*pool.run(*run, {"halo": how}), strict=True)] for how in ("whole", "turns"))
    for k in (0, 1):
        near(whole(found[k], found[2]), whole(wanted[k], wanted[2]), "what a layer gives, and a gradient")
    assert found[4] == wanted[4]


def test_the_ledger_tells_of_turns(pool: Pool) -> None:
    draw = torch.Generator().manual_seed(0)
    edges, owner = torch.randint(60, (2, 400), generator=draw), torch.randint(2, (60,), generator=draw)
    layer = gnn.GATConv(50, 4, heads=4, add_self_loops=False)
    layer.backend = "torch"
    for *_, sent, _, halo, rows in pool.run(2, a_step, layer, edges, owner, 10, {}):
        # Logits, then rows; on the way back rows again and their gradients.
        assert sent == 8 * (rows * (4 + 16 + 16) + halo * 16)
    layer = gnn.GraphConv(8, 8)
    layer.backend = "torch"
    for *_, sent, text, halo, rows in pool.run(2, a_step, layer, edges, owner, 10, {}):
        lines = [line.split("  ") for line in text.splitlines() if "exchange(" in line or "collect(" in line]
        assert sent == 8 * 8 * (rows + halo)
        assert abs(sum(map(number, lines)) - sent) <= 0.06e3 * len(lines), text
        assert "in 4 turns, first of own rows, then at most 9 rows of others in each" in text
        assert "at once" not in text
    layer = gnn.SAGEConv(8, 8, aggr="median")
    layer.backend = "torch"
    for *_, text, _, _ in pool.run(2, a_step, layer, edges, owner, 10, {}):
        assert "forward: all rows of others at once, and not in turns: `" in text


# Maxima of rows and of what is computed on edges, their winners, products, and all of them at once.
EXTREMES = """
layer Extremes(channels) {
    node x[channels]
    aggregate a = max(x[j])
    aggregate b = min(relu(x[j]) - x[i])
    aggregate c = mul(0.5 + 0.25 * x[j])
    update y = a * b + c
    return y, a
}
"""


def step_of(graph: Any, layer: Any, ids: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """What a layer gives on features of which many are equal, and one is NaN, and their gradient."""
    x = (ids[:, None] * torch.tensor([1, 3, 7]) % 4 - 1).to(dtype)
    x[ids == 7, 1] = torch.nan
    x.requires_grad_()
    y, a = layer(x, graph)
    (gradient,) = torch.autograd.grad((y * (ids % 3 + 1)[:, None]).nansum() + a.nansum(), x)
    return torch.cat([y, a], 1).detach(), gradient


def step_on_part(
    rank: int, world: int, group: Any, layer: Any, edges: Tensor, owner: Tensor, chunk: int | None, dtype: torch.dtype
) -> Any:
    graph, _ = local(edges, owner, rank, world, group, chunk=chunk)
    ids = graph.halo.own_ids
    found = step_of(graph, layer, ids, dtype)
    with Traffic() as sent:
        step_of(graph, layer, ids, dtype)
    text = layer.explain(graph).partition("== between processes ==")[2].partition("== memory")[0]
    return *found, ids, text, len(sent.calls)


@pytest.mark.parametrize("backend", ["torch", pytest.param("cpp", marks=pytest.mark.slow)])
def test_equal_extremes_share_gradients_over_all_turns(pool: Pool, backend: str) -> None:
    draw = torch.Generator().manual_seed(3)
    edges, owner = torch.randint(24, (2, 140), generator=draw), torch.randint(3, (25,), generator=draw)
    edges[1, 100:] = 0  # a hub; and nobody reads or is read by the last node
    layer = gdsl.compile(EXTREMES, channels=3, backend=backend)
    wanted = step_of(gdsl.Graph(edges, 25), layer, torch.arange(25), torch.float64)
    for chunk in (None, 2):
        found = pool.run(3, step_on_part, layer, edges, owner, chunk, torch.float64)
        for k in (0, 1):
            parts = whole([f[k] for f in found], [f[2] for f in found])
            torch.testing.assert_close(parts, wanted[k], rtol=1e-10, atol=1e-10, equal_nan=True)
        assert all(("at once" in text) is False for *_, text, _ in found)


def half_step(graph: Any, layer: Any, ids: Tensor) -> tuple[Tensor, Tensor]:
    parameter = next(layer.parameters())
    x = torch.sin(torch.outer(ids + 1.0, torch.arange(6) + 1.0)).bfloat16().to(parameter.dtype).requires_grad_()
    y = layer(x, graph)
    (gradient,) = torch.autograd.grad((y * (ids % 3 + 1)[:, None]).sum(), x)
    return y.detach(), gradient


def half_step_on_part(
    rank: int, world: int, group: Any, layer: Any, edges: Tensor, owner: Tensor, chunk: int | None
) -> Any:
    graph, _ = local(edges, owner, rank, world, group, chunk=chunk)
    ids = graph.halo.own_ids
    half_step(graph, layer, ids)
    with Traffic() as sent:
        found = half_step(graph, layer, ids)
    return *found, ids, len(sent.calls), sent.rows


@pytest.mark.parametrize("backend", ["torch", pytest.param("cpp", marks=pytest.mark.slow)])
def test_half_precision_in_turns(pool: Pool, backend: str) -> None:
    """What pieces give one another is rounded no more than without them; results have the user's dtype."""
    draw = torch.Generator().manual_seed(4)
    edges, owner = torch.randint(24, (2, 300), generator=draw), torch.randint(2, (24,), generator=draw)
    torch.manual_seed(0)
    layer = gnn.GATConv(6, 4).bfloat16()
    layer.backend = backend
    exact = copy.deepcopy(layer).double()
    wanted = half_step(gdsl.Graph(edges, 24), exact, torch.arange(24))
    calls = []
    for chunk in (None, 4):
        found = pool.run(2, half_step_on_part, layer, edges, owner, chunk)
        calls.append(found[0][3])
        for k in (0, 1):
            parts = whole([f[k] for f in found], [f[2] for f in found])
            assert parts.dtype is torch.bfloat16
            torch.testing.assert_close(parts.double(), wanted[k], rtol=0.02, atol=0.02)
    assert calls[1] > 2 * calls[0]


def test_a_chunk_has_rows() -> None:
    edges, ids = torch.tensor([[0], [0]]), torch.arange(1)
    halo = Halo(1, ids[:0], (0,), (0,), ids, ids[:0])
    for chunk, what in ((0, "a chunk has at least one row, and not 0"), (2.5, "chunk must be an int, not 2.5")):
        with pytest.raises(gdsl.GraphError, match=what):
            LocalGraph(edges, halo, chunk=chunk)  # type: ignore[arg-type]
