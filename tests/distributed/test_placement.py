"""Where the exchange stands, and what it sends: counted, and as the ledger says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import distributed, nn

import gdsl
import gdsl.nn as gnn
from gdsl.distributed import Traffic
from gdsl.ir import build as b
from gdsl.ir import library
from gdsl.ir.node import Node, walk
from gdsl.ir.printer import expression
from gdsl.ir.types import Dim
from gdsl.passes.exchanges import exchanged
from gdsl.passes.options import Options
from gdsl.passes.pipeline import differentiate, lower, optimise
from gdsl.passes.plan import Step, TorchStep
from gdsl.runtime.halo import _bytes
from tests.distributed.parts import local, number
from tests.distributed.pool import Pool
from tests.ir.drive import A, E, G, N, S, T, integer, load, program

WIDE, NARROW = Dim("wide", 500), Dim("narrow", 16)
x, thin = load("x", N, WIDE), load("thin", N, NARROW)
weight, spread = load("weight", G, WIDE, NARROW), load("spread", G, NARROW, WIDE)


def sent(*outputs: Node) -> list[str]:
    """What a program exchanges."""
    placed = exchanged(optimise(program(*outputs)))
    return [expression(n.inputs[0], {}) for n in walk(placed.nodes) if n.op == "exchange"]


def summed(value: Node) -> Node:
    return b.segment(value, "i", "sum", N)


def both(value: Node) -> Node:
    """Something on edges that is made of both ends, so that no rule brings it to one of them."""
    return b.elementwise("tanh", b.gather(value, "j") + b.gather(value, "i"))


CASES: dict[str, tuple[Node, list[str]]] = {
    "after a product that makes it narrow": (
        b.segment(b.elementwise("tanh", b.gather(b.matmul(x, weight), "j")), "i", "sum", N),
        ["tanh(sum[wide](x * weight))"],
    ),
    "before one that makes it wide": (
        b.segment(b.elementwise("tanh", b.gather(b.matmul(thin, spread), "j")), "i", "max", N),
        ["thin"],
    ),
    "one value for several that are made of it": (
        summed(both(thin) * b.gather(b.sum_dims(thin * thin, ["narrow"]), "j")),
        ["thin"],
    ),
    "two where their readers share nothing": (summed(both(thin) * b.gather(load("d", N), "j")), ["thin", "d"]),
    "nothing that is read at the targets alone": (summed(b.gather(thin, "i") * load("e", E)), []),
    "nothing that is the same for all": (summed(b.gather(b.spread(weight, N), "j") * load("e", E)), []),
    "what is random is drawn again": (
        summed(both(thin) * b.gather(thin * b.random(b.load("seed", b.const(1).type, "seed"), 1, N, [NARROW]), "j")),
        ["thin"],
    ),
    "of each round what it reads": (
        summed(b.gather(b.elementwise("tanh", summed(b.gather(thin, "j"))), "j")),
        ["thin", "tanh(sum@i(exchange(thin)[j]))"],
    ),
    "own sources of a bipartite graph": (
        b.segment(b.gather(load("s", S, A), "j") * b.gather(load("t", T, A), "i"), "i", "sum", T),
        ["s"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_exchanged(name: str) -> None:
    value, wanted = CASES[name]
    assert sent(value) == wanted


def test_sums_at_sources_go_back_to_the_owners() -> None:
    placed = exchanged(program(b.segment(load("e", E, A), "j", "sum", N)))
    assert [n.op for n in walk(placed.nodes) if n.inputs] == ["segment", "collect"]


def test_sums_over_all_rows_are_sums_over_all_processes() -> None:
    placed = exchanged(program(b.total(thin) * thin))
    assert [n.op for n in walk(placed.nodes) if n.inputs] == ["contract", "all_reduce", "mul"]


def test_what_needs_no_other_process_is_computed_while_rows_are_on_their_way() -> None:
    """SAGE: the product of the own rows lies between the exchange and the walk that reads it; so on the way back."""
    mean = library.segment_mean(b.gather(x, "j"), "i", N)
    y = b.matmul(x, load("root", G, WIDE, NARROW)) + b.matmul(mean, weight)
    placed = exchanged(optimise(program(y)))
    kinds = [_kind(step) for step in lower(placed, Options()).steps]
    assert "contract" in kinds[kinds.index("exchange") + 1 : kinds.index("kernel")]
    back = differentiate(placed, placed.inputs, [0], None, Options()).program
    kinds = [_kind(step) for step in lower(back, Options()).steps]
    assert "contract" in kinds[kinds.index("collect") + 1 : -1]


def _kind(step: Step) -> str:
    return step.node.op if isinstance(step, TorchStep) else "kernel"


REFUSED: dict[str, tuple[Callable[[], Node], str]] = {
    "a product at sources by kind": (
        lambda: b.segment(load("e", E), "j", "mul", N, integer("k", E, 2), Dim("k", 2)),
        "aggregates at the sources of edges",
    ),
    "a median at sources": (
        lambda: b.to_float(b.order_rank(load("e", E), "j", 0.5, "lower", N)),
        "aggregates at the sources of edges",
    ),
    "extremes at first edges": (
        lambda: b.segment(b.gather(load("e", E), "j"), "j", "max", E),
        "aggregates, and does not only add up, at the first edges of pairs",
    ),
    "the numbers of nodes": (lambda: b.to_float(b.element_id("g")), "numbers of nodes"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_distributed_is_refused(name: str) -> None:
    make, message = REFUSED[name]
    with pytest.raises(gdsl.GraphError, match=message):
        exchanged(program(make()))


# ------------------------------------------------------------------------------------------ bytes

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "GATConv": lambda: gnn.GATConv(50, 4, heads=4),
    "GCNConv": lambda: gnn.GCNConv(50, 16),
    "SAGEConv": lambda: gnn.SAGEConv(8, 40),
}


def count(
    rank: int, world: int, group: Any, layer: Any, edges: torch.Tensor, owner: torch.Tensor, choices: dict[str, str]
) -> Any:
    layer.choose(**choices)
    graph, _ = local(edges, owner, rank, world, group)
    torch.manual_seed(rank)
    x = torch.randn(graph.num_nodes, layer.in_channels, requires_grad=True)
    layer(x, graph).sum().backward()
    found, before = [], distributed.all_to_all_single

    def counted(output: Any, given: torch.Tensor, *args: Any, **options: Any) -> Any:
        found.append(given.nbytes)
        return before(output, given, *args, **options)

    distributed.all_to_all_single = counted
    try:
        layer(x, graph).sum().backward()
    finally:
        distributed.all_to_all_single = before
    text = layer.explain(graph).partition("== between processes ==")[2].partition("==")[0]
    y = layer(x, graph)
    (near,) = torch.autograd.grad(y.sum(), x)
    return sum(found), len(graph.halo.send), graph.halo.rows, text, [y.detach(), near]


@pytest.mark.parametrize("name", LAYERS)
def test_the_ledger_tells_the_bytes_that_are_sent(pool: Pool, name: str) -> None:
    draw = torch.Generator().manual_seed(0)
    edges, owner = torch.randint(60, (2, 400), generator=draw), torch.randint(2, (60,), generator=draw)
    layer = LAYERS[name]()
    layer.backend = "torch"
    for bytes_sent, rows, halo, text, _ in pool.run(2, count, layer, edges, owner, {}):
        lines = [line.split("  ") for line in text.splitlines() if "exchange(" in line or "collect(" in line]
        width = {"GATConv": 16, "GCNConv": 16, "SAGEConv": 8}[name]
        told = sum(number(parts) for parts in lines)
        assert abs(told - bytes_sent) <= 0.06e3 * len(lines), text
        # The narrowest rows there, and their gradients back. Degrees, which GCN needs, were sent in the first step.
        assert bytes_sent == 4 * (rows + halo) * width


def test_half_the_bytes_by_choice(pool: Pool) -> None:
    draw = torch.Generator().manual_seed(0)
    edges, owner = torch.randint(60, (2, 400), generator=draw), torch.randint(2, (60,), generator=draw)
    layer = gnn.SAGEConv(8, 40)
    whole, half = (pool.run(2, count, layer, edges, owner, c) for c in ({}, {"wire": "bfloat16"}))
    for (bytes_sent, *_, exact), (fewer, _, _, text, rounded) in zip(whole, half, strict=True):
        assert 2 * fewer == bytes_sent
        assert "bfloat16" in text
        for a, e in zip(rounded, exact, strict=True):
            assert not torch.equal(a, e)
            torch.testing.assert_close(a, e, rtol=2e-2, atol=2e-2)


def test_rows_are_sent_again_where_nothing_is_kept(pool: Pool) -> None:
    draw = torch.Generator().manual_seed(0)
    edges, owner = torch.randint(60, (2, 400), generator=draw), torch.randint(2, (60,), generator=draw)
    layer = gnn.GATConv(8, 4)
    layer.backend = "torch"
    kept, again = (pool.run(2, count, layer, edges, owner, c) for c in ({}, {"save": "nothing"}))
    for (bytes_sent, rows, *_, exact), (more, *_, computed) in zip(kept, again, strict=True):
        assert more == bytes_sent + 4 * 4 * rows
        for a, e in zip(computed, exact, strict=True):
            torch.testing.assert_close(a, e)


TWO = """
layer Two(channels) {
    node x[channels]
    node d
    aggregate y = sum(tanh(x[j] + x[i]) * d[j])
    return y
}
"""


def messages(rank: int, world: int, group: Any, edges: torch.Tensor, owner: torch.Tensor) -> Any:
    graph, _ = local(edges, owner, rank, world, group)
    layer = gdsl.compile(TWO, channels=8, backend="cpp")
    x, d = torch.ones(graph.num_nodes, 8, requires_grad=True), torch.ones(graph.num_nodes, requires_grad=True)
    layer(x, d, graph)
    with Traffic() as sent:
        layer(x, d, graph).sum().backward()
    return sent.calls, len(graph.halo.send), graph.halo.rows


def test_several_values_go_in_one_message() -> None:
    """Of one type or several, with and without rounding, whatever their shapes."""
    values = [torch.randn(5, 3), torch.rand(5, 2, 2) > 0.5, torch.randn(5, dtype=torch.float64), torch.arange(5)]
    for given in (values, values[1:2], [v[:0] for v in values]):
        wires = [torch.bfloat16 if v.dtype is torch.float32 else None for v in given]
        sent = [v if w is None else v.to(w) for v, w in zip(given, wires, strict=True)]
        packed = torch.cat([_bytes(v) for v in sent], 1)
        assert packed.shape == (len(given[0]), sum(v.shape[1:].numel() * v.itemsize for v in sent))
        found = [torch.empty_like(v) for v in sent]
        for value, part in zip(found, packed.split([_bytes(v).shape[1] for v in found], 1), strict=True):
            _bytes(value).copy_(part)
        assert all(map(torch.equal, found, sent))


def test_what_goes_at_one_time_is_one_message(pool: Pool) -> None:
    """The two values that edges read, and on the way back their gradients."""
    draw = torch.Generator().manual_seed(0)
    edges, owner = torch.randint(60, (2, 400), generator=draw), torch.randint(2, (60,), generator=draw)
    for calls, sends, receives in pool.run(2, messages, edges, owner):
        assert calls == [(sends, 4 * 9), (receives, 4 * 9)]
