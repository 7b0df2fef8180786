"""A mistake on one process is an error on all, which says whose it is: nobody waits for rows that never come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

import gdsl
import gdsl.nn as gnn
from gdsl.distributed import LocalGraph, average_gradients, total
from tests.distributed.parts import local
from tests.distributed.pool import Pool

TEXT = """
layer Sum {
    node x[channels]
    message m = x[j]
    update y = sum(m)
}
"""


def setting(rank: int, world: int, group: Any) -> tuple[LocalGraph, torch.Tensor]:
    edges = torch.tensor([[0, 1, 2, 3, 4, 5, 0, 2], [1, 2, 3, 4, 5, 0, 3, 5]])
    graph, _ = local(edges, torch.arange(6) % world, rank, world, group)
    return graph, torch.ones(graph.num_nodes, 4)


def wide(rank: int, world: int, group: Any) -> Any:
    graph, x = setting(rank, world, group)
    return gdsl.compile(TEXT, backend="torch")(torch.ones(len(x), 5) if rank == 1 else x, graph)


def too_many_rows(rank: int, world: int, group: Any) -> Any:
    graph, x = setting(rank, world, group)
    return gdsl.compile(TEXT, backend="torch")(torch.ones(7, 4) if rank == 1 else x, graph)


def another_dtype(rank: int, world: int, group: Any) -> Any:
    graph, x = setting(rank, world, group)
    return gdsl.compile(TEXT, backend="torch")(x.double() if rank == 1 else x, graph)


def another_layer(rank: int, world: int, group: Any) -> Any:
    graph, x = setting(rank, world, group)
    text = TEXT.replace("sum(m)", "max(m)") if rank == 1 else TEXT
    return gdsl.compile(text, backend="torch")(x, graph)


def other_rows(rank: int, world: int, group: Any) -> Any:
    """A part that sends a row less than the others wait for."""
    graph, x = setting(rank, world, group)
    if rank == 1:
        counts = list(graph.halo.send_counts)
        counts[0] -= 1
        halo = replace(graph.halo, send=graph.halo.send[1:], send_counts=tuple(counts))
        graph = LocalGraph(graph.local_edge_index, halo)
    return gdsl.compile(TEXT, backend="torch")(x, graph)


CASES: dict[Callable[..., Any], str] = {
    wide: r"process 0 is in a call of Sum, float32, with x \[4\]; process 1 in a call of Sum, float32, with x \[5\]",
    too_many_rows: "`x` has 7 rows",
    another_dtype: "process 1 in a call of Sum, float64",
    another_layer: "rules, settings or sizes differ",
    other_rows: "the parts of processes . and . are not of one graph",
}


@pytest.mark.parametrize("mistake", CASES, ids=lambda case: case.__name__)
def test_a_mistake_on_one_process_is_an_error_on_all(pool: Pool, mistake: Callable[..., Any]) -> None:
    with pytest.raises(AssertionError, match=CASES[mistake]) as error:
        pool.run(2, mistake)
    assert all(f"process {rank} of 2:" in str(error.value) for rank in range(2))


def later(rank: int, world: int, group: Any, name: str) -> Any:
    """What has run on all processes, and is then called otherwise by the second one."""
    graph, x = setting(rank, world, group)
    layers = {text: gdsl.compile(text, backend="torch") for text in (TEXT, TEXT.replace("sum(m)", "max(m)"))}
    for layer in layers.values():
        for width in (4, 5):
            layer(torch.ones(len(x), width), graph)
    first, second = layers.values()
    odd = rank == 1
    if name == "rows":
        first(torch.ones(7, 4) if odd else x, graph)
    elif name == "width":
        first(torch.ones(len(x), 5) if odd else x, graph)
    elif name == "layer":
        (second if odd else first)(x, graph)
    elif name == "graph":
        first(x, setting(rank, world, group)[0] if odd else graph)
    elif name == "gradients":
        # One asks for gradients of features, too, which have to come back from others.
        conv = gnn.GraphConv(4, 8, bias=False)
        conv.backend = "torch"
        conv(x.requires_grad_(odd), graph).sum().backward()
    elif name == "model":
        linear = torch.nn.Linear(4, 3 if odd else 2)
        average_gradients(linear, group=group)
    elif name == "sum":
        total(torch.ones(3 if odd else 2), group)
    return name


LATER = {
    "rows": "`x` has 7 rows",
    "width": r"process 0 is in a call of Sum, float32, with x \[4\]; process 1 in a call of Sum, float32, with x \[5\]",
    "layer": "rules, settings or sizes differ",
    "graph": "process 1 in a call of Sum, .*; on parts of two graphs",
    "gradients": "process 0 is in GraphConv_backward, which sends nothing; process 1 in GraphConv_backward",
    "model": "process 0 is in average_gradients of 2 parameters, 10 numbers of torch.float32; process 1 in",
    "sum": r"process 0 is in a sum of float32 \[2\]; process 1 in a sum of float32 \[3\]",
}


@pytest.mark.parametrize("name", LATER)
def test_a_mistake_in_a_later_call_is_an_error_on_all(pool: Pool, name: str) -> None:
    with pytest.raises(AssertionError, match=LATER[name]) as error:
        pool.run(2, later, name)
    assert all(f"process {rank} of 2:" in str(error.value) for rank in range(2))


def what_a_part_cannot_tell(rank: int, world: int, group: Any) -> list[str]:
    graph, _ = setting(rank, world, group)
    asked: list[Callable[[], Any]] = [
        lambda: graph.edge_index,
        lambda: graph.pairs,
        lambda: graph.reversed_edges,
        lambda: graph.out_degree,
        lambda: graph.repeat(2),
        lambda: LocalGraph.from_csc(torch.tensor([0, 1]), torch.tensor([0])),
        lambda: graph.non_backtracking(),
        lambda: graph.with_edges(torch.zeros(2, 0, dtype=torch.long)),
    ]
    found = []
    for ask in asked:
        try:
            ask()
        except gdsl.GraphError as error:
            found.append(str(error))
    return found


def test_what_a_part_of_a_graph_cannot_tell_is_refused(pool: Pool) -> None:
    for found in pool.run(2, what_a_part_cannot_tell):
        assert len(found) == 8
        assert all("the part of one process" in text or "LocalGraph(edge_index, halo)" in text for text in found)


def compiled(rank: int, world: int, group: Any) -> Any:
    graph, x = setting(rank, world, group)
    layer = gdsl.compile(TEXT, backend="torch")
    torch._dynamo.reset()
    same = torch.equal(torch.compile(layer, backend="eager")(x, graph), layer(x, graph))
    torch._dynamo.reset()
    try:
        torch.compile(layer, backend="eager", fullgraph=True)(x, graph)
    except Exception as error:
        return same, str(error)
    return same, ""


def test_torch_compile_runs_it_as_it_is_or_says_why_it_cannot(pool: Pool) -> None:
    for same, text in pool.run(2, compiled):
        assert same
        assert "a part of a distributed graph runs without torch.compile" in text
        assert "leave fullgraph=True out" in text
