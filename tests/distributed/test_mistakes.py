"""A mistake on one process is an error on all, which says whose it is: nobody waits for rows that never come."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

import gdsl
import gdsl.nn as gnn
from gdsl.distributed import Halo, LocalGraph, average_gradients, total
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


POOL = TEXT.replace("sum(m)", "sum(m)\n    pool g = mean(y)")


def of_layers(rank: int, world: int, group: Any, name: str) -> tuple[str, bool]:
    """What a process is told where the second one calls a layer or a model otherwise, and whether the next call goes
    on."""
    graph, x = setting(rank, world, group)
    batch, odd = torch.zeros(len(x), dtype=torch.long), rank == 1
    conv = gnn.GraphConv(4, 4)
    gps, own = gnn.GPSConv(4, conv, norm=None), Own()
    models = {"linkx": lambda: gnn.models.LINKX(6, 4, 4, 2, 1), "sgformer": lambda: gnn.models.SGFormer(4, 4, 2)}
    model: Any = models[name]() if name in models else gnn.models.GCN(4, 4, 2, norm="graph_norm")
    smooth = gnn.models.CorrectAndSmooth(1, 0.5, 1, 0.5)
    pools: Any = torch.nn.ModuleList([gnn.TopKPooling(4), gnn.SAGPooling(4), gnn.GraphUNet(4, 4, 4, 1)])
    light: Any = gnn.LightGCN(6, 4, 1)
    for part in (conv, own, *(p for m in (model, smooth, pools, light) for p in m.modules())):
        part.backend = "torch"
    short, less = (x[:-1], batch[:-1]) if odd else (x, batch)
    calls: dict[str, Callable[[], Any]] = {
        "rows": lambda: conv(short, graph),
        "nothing": lambda: conv(None if odd else x, graph),
        "weights": lambda: conv(x, graph, torch.ones(graph.num_edges - odd)),
        "own": lambda: own(x, graph, 1 if odd else 0),
        "own later": lambda: own(x, graph, 2 if odd else 0),
        "linkx": lambda: model(short, graph),
        "sgformer": lambda: model(x, graph, less),
        "model": lambda: model(x, graph, batch=None if odd else batch),
        "smooth": lambda: smooth.correct(x, x[:1], batch[: 1 + odd], graph),
        "batch": lambda: gps(x, graph, None if odd else batch),
        "batch within": lambda: within(graph, lambda: gps(x, graph, None if odd else batch)),
        "short batch": lambda: gps(x, graph, less),
        "negative batch": lambda: gps(x, graph, batch - int(odd)),
        "weights of a pooling": lambda: pools[0](x, graph, torch.ones(graph.num_edges - odd)),
        "what is scored": lambda: pools[1](x, graph, attn=x[:, : 4 - odd]),
        "other nodes": lambda: gnn.TopKPooling(4, 2 + rank)(x, graph),
        "u-net": lambda: pools[2](x, graph, less),
        "pairs": lambda: light(graph, torch.tensor([[0], [5 + rank]])),
        "pairs or none": lambda: light(graph, None if odd else torch.tensor([[0], [5]])),
        "node of a loss": lambda: within(
            graph, lambda: light.recommendation_loss(x[:, 0], x[:, 1], torch.tensor([5 + rank]))
        ),
        "losses": lambda: within(graph, lambda: light.link_pred_loss(x[0], x[0, odd:])),
        "table": lambda: gnn.LightGCN(6 + odd, 4, 1)(graph, torch.tensor([[0], [5]])),
        "text": lambda: gdsl.compile(POOL, backend="torch")(x, graph, **({} if odd else {"batch": batch})),
    }
    try:
        calls[name]()
    except Exception as error:
        return f"{type(error).__name__}: {error}", conv(x, graph).shape == x.shape
    return "nothing", False


class Own(gnn.MessagePassing):
    def forward(self, x: torch.Tensor, graph: LocalGraph, wrong: int = 0) -> torch.Tensor:
        """wrong: which of its steps cannot begin."""
        out = self.propagate(graph, x=x[:, :, 0] if wrong == 1 else x)
        return self.propagate(graph, x=out[:, :, 0] if wrong == 2 else out)


def within(graph: LocalGraph, call: Callable[[], Any]) -> Any:
    with gdsl.distributed.together(graph):
        return call()


OF_LAYERS = {
    "rows": "process 1 has refused its call: the graph has 3 source nodes",
    "nothing": "process 1 has refused its call: ",
    "weights": "process 1 has refused its call: ",
    "own": "process 1 has refused its call: IndexError: too many indices",
    "own later": "process 1 has refused its call: IndexError: too many indices",
    "linkx": r"process 1 has refused its call: this process owns 3 nodes, and `x` has shape \[2, 4\]",
    "sgformer": r"process 1 has refused its call: this process owns 3 nodes, and `batch` has shape \[2\]",
    "model": r"process 0 is in a call of GCN in training, with x float32 \[4\], batch; process 1 in a call of GCN",
    "smooth": "process 1 has refused its call: AssertionError",
    "batch": r"process 0 is in a call of GPSConv in training, with x float32 \[4\], batch; process 1 in a call of GPS",
    "batch within": r"with x float32 \[4\], batch; process 1 in a call of GPSConv in training, with x float32 \[4\]$",
    "short batch": r"process 1 has refused its call: this process owns 3 nodes, and `batch` has shape \[2\]",
    "negative batch": "process 1 has refused its call: `batch` has negative numbers of graphs",
    "weights of a pooling": r"process 1 has refused its call: this process has 5 edges, and `edge_attr` has",
    "what is scored": "process 1 has refused its call: ",
    "other nodes": "process 0 is in a graph of 2 nodes that are kept; process 1 in a graph of 3 nodes that are kept",
    "u-net": r"process 1 has refused its call: this process owns 3 nodes, and `batch` has shape \[2\]",
    "pairs": "process 1 has refused its call: the graph has nodes 0 to 5 on all processes, and nodes 0 to 6 are asked",
    "pairs or none": "with x NoneType, edge_label_index; process 1 in a call of LightGCN in training, with x NoneType$",
    "node of a loss": "process 1 has refused its call: the graph has nodes 0 to 5",
    "losses": "process 1 has refused its call: ValueError: Target size",
    "table": "process 1 has refused its call: the graph has 6 nodes on all processes, and 7 are needed",
    "text": r"process 0 is in a call of Sum, float32, with x \[4\], batch; process 1 in a call of Sum, float32, with x",
}


@pytest.mark.parametrize("name", OF_LAYERS)
def test_what_a_layer_refuses_on_one_process_is_an_error_on_all(pool: Pool, name: str) -> None:
    (first, goes_on), (second, also) = pool.run(2, of_layers, name)
    assert re.search(OF_LAYERS[name], first)
    assert second != "nothing" and goes_on and also


def what_a_part_cannot_tell(rank: int, world: int, group: Any) -> list[str]:
    graph, _ = setting(rank, world, group)
    asked: list[Callable[[], Any]] = [
        lambda: graph.edge_index,
        lambda: graph.reversed_edges,
        lambda: graph.out_degree,
        lambda: graph.repeat(2),
        lambda: LocalGraph.from_csc(torch.tensor([0, 1]), torch.tensor([0])),
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
        assert len(found) == 6
        assert all("the part of one process" in text or "LocalGraph(edge_index, halo)" in text for text in found)


def one_edge_has_no_reverse(rank: int, world: int, group: Any) -> list[str]:
    """The edge is process 0's; the call after it goes on."""
    layer = gdsl.compile("layer Heard { node x edge w update y = x + sum(w[reverse]) }", backend="torch")
    found = []
    for ends in ([[0, 1, 3], [1, 0, 2]], [[0, 1], [1, 0]]):
        graph, mine = local(torch.tensor(ends), torch.arange(4) % 2, rank, world, group)
        try:
            found.append(str(layer(torch.ones(2), graph, mine.float()).tolist()))
        except gdsl.GraphError as error:
            found.append(str(error))
    return found


def test_an_edge_that_nothing_answers_is_an_error_on_all(pool: Pool) -> None:
    (first, then), (heard, also) = pool.run(2, one_edge_has_no_reverse)
    assert first.startswith("Heard reads e[reverse], and edge 2 from node 3 to node 2 has none")
    assert heard == f"process 0 has refused its call: {first}"
    assert (then, also) == ("[1.0, 1.0]", "[2.0, 1.0]")  # into node 1 goes the edge whose reverse has 1


def copies(rank: int, world: int, group: Any) -> bool:
    """A model that holds its graph is copied, as for a mean of its weights over time."""
    graph, x = setting(rank, world, group)
    model = torch.nn.Module()
    model.conv, model.graph = gnn.GraphConv(4, 4, backend="torch"), graph
    other = copy.deepcopy(model)
    return copy.copy(graph) is other.graph and torch.equal(other.conv(x, other.graph), model.conv(x, graph))


def test_a_part_is_copied_with_what_holds_it(pool: Pool) -> None:
    assert pool.run(2, copies) == [True, True]


def test_a_part_that_moves_keeps_what_was_asked_of_it() -> None:
    none = torch.zeros(0, dtype=torch.long)
    halo = Halo(3, none, (0,), (0,), torch.arange(3), none, edge_ids=torch.arange(4))
    graph = LocalGraph(torch.tensor([[0, 1, 1, 2], [1, 0, 1, 2]]), halo)
    moved = graph.add_self_loops().graph.non_backtracking().graph.to("meta")
    assert isinstance(moved, LocalGraph) and moved.num_edges == 5 and not moved._backtracking
    assert moved._before is not None and moved._before[0].num_edges == 4 and moved._before[0].device.type == "meta"


def compiled(rank: int, world: int, group: Any) -> Any:
    graph, x = setting(rank, world, group)
    found = []
    layers = [
        gdsl.compile(TEXT, backend="torch"),
        gnn.GraphConv(4, 4, backend="torch"),
        gnn.GPSConv(4, None),
        gnn.TopKPooling(4),
    ]
    for layer in layers:
        torch._dynamo.reset()
        once, again = torch.compile(layer, backend="eager")(x, graph), layer(x, graph)
        same = torch.equal(once[0], again[0])
        torch._dynamo.reset()
        try:
            torch.compile(layer, backend="eager", fullgraph=True)(x, graph)
            found.append((same, ""))
        except Exception as error:
            found.append((same, str(error)))
    return found


def test_torch_compile_runs_it_as_it_is_or_says_why_it_cannot(pool: Pool) -> None:
    for same, text in itertools.chain(*pool.run(2, compiled)):
        assert same
        assert "a part of a distributed graph runs without torch.compile" in text
        assert "leave fullgraph=True out" in text
