"""What a program asks of its graph, ``graph add_self_loops`` and the like, done before any kernel runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from gdsl.errors import GraphError, InputError
from gdsl.ir.ops.rows import add_at
from gdsl.ir.types import Domain
from gdsl.language.program import MAKERS, TypedProgram
from gdsl.runtime.graph import Graph, Rewired


def rewire(
    typed: TypedProgram, graph: Graph, tensors: dict[str, Tensor], name: str = ""
) -> tuple[Graph, dict[str, Tensor]]:
    """The graph that the rules see, and the edge inputs on it. Differentiable by the edge inputs.

    name: of the graph, where the program has several
    """
    for rewired, fills in rewirings(typed, graph, name):
        for d in typed.of_role("input"):
            if d.type is not None and d.type.domain is Domain.EDGE and d.within == name and d.name in tensors:
                tensors = {**tensors, d.name: edge_values(d.name, d.default, rewired, tensors[d.name], fills)}
        graph = rewired.graph
    return graph, tensors


def rewirings(typed: TypedProgram, graph: Graph, name: str = "") -> Iterator[tuple[Rewired, Mapping[str, object]]]:
    """Each change that a program asks of its graph, on the graph that the one before has made, and what the inputs of
    new loops are by name. A graph that the program makes itself is made before a call."""
    for transform in typed.transforms:
        if transform.name not in MAKERS and transform.graph == name:
            made: Rewired = getattr(graph, transform.name)()
            yield made, dict(transform.keywords)
            graph = made.graph


def edge_values(
    name: str, default: float | None, rewired: Rewired, value: Tensor, fills: Mapping[str, object]
) -> Tensor:
    """The values of an edge input on the new edges; ``fills`` says by name what a new loop gets.

    Raises ``InputError`` where nothing says it.
    """
    if rewired.kept is None and rewired.added is None:
        return value
    fill = fills.get(name, default)
    if fill is None and rewired.added is not None:
        raise InputError(
            f"edge input `{name}` has no value on the self-loops that the layer adds: say which, as in "
            f'`graph add_self_loops({name} = 1)` or `({name} = "mean")`'
        )
    return rewire_edge_value(rewired, value, fill if fill is not None else 0.0)  # type: ignore[arg-type]


def rewire_edge_value(rewired: Rewired, value: Tensor, fill: float | Tensor | str) -> Tensor:
    """The values of the new graph's edges from the values [E, ...] of the old one's. Differentiable.

    A new loop gets ``fill``: a number, a tensor that broadcasts to one value [...], or the ``"sum"`` (also
    ``"add"``), ``"mean"``, ``"max"``, ``"min"`` or ``"mul"`` of the values that come into its node, as in
    torch_geometric (0 for a node without any, 1 for ``"mul"``). After ``add_remaining_self_loops`` a loop
    that was there keeps its value.

    Raises ``GraphError`` for a value of another number of edges, or an unknown name.
    """
    num_edges = rewired.num_edges
    if value.dim() == 0 or value.shape[0] != num_edges:
        raise GraphError(
            f"an edge value must have one row for each of the graph's {num_edges} edges, "
            f"but its shape is {list(value.shape)}"
        )
    kept = value if rewired.kept is None else value.index_select(0, rewired.kept)
    if rewired.added is None:
        return kept
    if isinstance(fill, str):
        # torch_geometric counts the loops that were there only where it keeps their values.
        edges = rewired.kept if rewired.loop_edge is None else None
        target = rewired.target if edges is None else rewired.target.index_select(0, edges)
        incoming = value if edges is None else kept
        loops = _reduce(incoming, target, rewired.graph.num_targets, fill)[: rewired.added.numel()]
    else:
        # A number is filled in on the device: a copy from the host would end the capture of a CUDA graph.
        one = fill.to(value) if isinstance(fill, Tensor) else value.new_full((), fill)
        loops = one.expand(rewired.added.numel(), *value.shape[1:])
    if rewired.loop_edge is not None and num_edges:
        existing = value.index_select(0, rewired.loop_edge.clamp(min=0))
        missing = (rewired.loop_edge < 0).view(-1, *[1] * (value.dim() - 1))
        loops = torch.where(missing, loops, existing)
    return torch.cat([kept, loops])


def _reduce(value: Tensor, target: Tensor, rows: int, how: str) -> Tensor:
    """[rows, ...] from [E, ...]"""
    shape = (rows, *value.shape[1:])
    if how in ("sum", "add"):
        return add_at(value, target, rows)
    if how == "mean":
        # Not bincount: a GPU's waits for the largest number.
        count = target.new_zeros(rows).index_add(0, target, torch.ones_like(target)).clamp(min=1).to(value.dtype)
        return add_at(value, target, rows) / count.view(-1, *[1] * (value.dim() - 1))
    index = target.view(-1, *[1] * (value.dim() - 1)).expand_as(value)
    if how in ("max", "min"):
        return value.new_zeros(shape).scatter_reduce(0, index, value, "a" + how, include_self=False)
    if how == "mul":
        return value.new_ones(shape).scatter_reduce(0, index, value, "prod")
    raise GraphError(f"a loop's value is a number or one of 'sum', 'mean', 'max', 'min', 'mul', not {how!r}")
