"""A call of a layer on several graphs: its pieces run one after the other, each as a program on one graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gdsl.errors import GraphError, InputError
from gdsl.ir.types import Domain
from gdsl.language.program import TypedProgram
from gdsl.look.pieces import Pieces, pieces
from gdsl.module.arguments import Bound
from gdsl.module.by_type import is_by_type, named
from gdsl.module.checks import check_batch, check_requirements, inputs_of, need_rows
from gdsl.module.given import given_to, graph_on
from gdsl.module.run import run, seed_for, without_edges
from gdsl.module.ways import CallKind, Ran, Text, Way
from gdsl.runtime.graph import Graph
from gdsl.runtime.rewire import rewire


def kinds(
    text: Text, owner: nn.Module, way: Way, dtype: torch.dtype, device: torch.device
) -> tuple[Pieces, tuple[CallKind, ...]]:
    """The pieces of a way of calling a text, and what each of them is on tensors of a type."""
    cut = text.pieces.once(way, lambda: pieces(text.typed_for(owner, way)))
    return cut, tuple(
        text.store.kind((way, k), typed, text.options, dtype, device) for k, (_, typed) in enumerate(cut.parts)
    )


def call(
    text: Text, owner: nn.Module, inside: Mapping[str, Tensor], args: Any, kwargs: Mapping[str, Any], backend: str
) -> Any:
    """As :func:`gdsl.module.call.call`, of a text on several graphs.

    Raises :class:`gdsl.InputError` or :class:`gdsl.GraphError` before any kernel runs.
    """
    given_types = None
    if is_by_type(args, kwargs):
        told = named(text.definition, text.signature, args, kwargs)
        args, kwargs, given_types = (), told.arguments, told.types
    given = given_to(text, owner, inside, args, kwargs)
    bound, typed, tensors, device, num_graphs = given.bound, given.typed, given.tensors, given.device, given.num_graphs
    counts = _rows_of_sets(typed, tensors)
    graphs = _graphs(typed, bound, counts, device)
    _check_rows(typed, tensors, graphs, num_graphs)
    if bound.batch is not None:
        (rows,) = counts.values()  # whole graphs are of one set
        check_batch(bound.batch, rows)
    for name in dict.fromkeys(t.graph for t in typed.transforms):
        graphs[name], tensors = rewire(typed, graphs[name], tensors, name)
    for need in typed.requires:
        check_requirements(f"{typed.name} over `{need.graph}`", [(need.end, need.value)], graphs[need.graph])
    if typed.uses_seed:
        tensors["seed"] = seed_for(device)
    cut, found = kinds(text, owner, given.way, given.dtype, device)
    ran: list[Ran] = []
    for (piece, _), kind in zip(cut.parts, found, strict=True):
        nodes = piece.nodes or next(iter(counts))  # what is of whole graphs says no set: there is one
        graph = graphs[piece.graph] if piece.graph else without_edges(counts[nodes], device)
        loads = {name: tensors[name] for name in piece.program.input_names}
        results = run(kind, graph, loads, backend, owner, bound.batch, num_graphs)
        tensors |= {name: value for (name, _), value in zip(piece.program.outputs, results, strict=True)}
        ran += text.store.last
    text.store.last = tuple(ran)
    # Each result has memory of its own, also one that is there twice.
    again = [name in cut.results[:k] for k, name in enumerate(cut.results)]
    results = [tensors[n].clone() if twice else tensors[n] for n, twice in zip(cut.results, again, strict=True)]
    if given_types is not None and cut.are_by_type:
        return {given_types[str(place)]: y for place, y in zip(cut.places, results, strict=True)}
    return results[0] if len(results) == 1 else tuple(results)


def leave_tracer(name: str) -> None:
    """Tell torch.compile that a call runs uncompiled.

    Raises :class:`gdsl.InputError` under ``torch.export``, which has no place for that.
    """
    what = f"{name} runs on several graphs, in pieces of one each, which are not traced"
    if torch.compiler.is_exporting():
        raise InputError(f"{what}: torch.export has no place for it, and torch.compile(model) runs it as it is")
    torch._dynamo.graph_break(msg=what)


def _rows_of_sets(typed: TypedProgram, tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """How many nodes each set has, as the inputs say."""
    found: dict[str, int] = {}
    first: dict[str, str] = {}
    for d, type, value in inputs_of(typed, tensors):
        if type.domain is not Domain.NODE:
            continue
        rows = value.shape[0]
        if found.setdefault(d.within, rows) != rows:
            known, what = first[d.within], f"{d.within} nodes" if d.within else "nodes"
            raise InputError(f"`{d.name}` has {rows} rows, and `{known}` has {found[d.within]}: both are of all {what}")
        first.setdefault(d.within, d.name)
    return found


def _graphs(typed: TypedProgram, bound: Bound, counts: Mapping[str, int], device: torch.device) -> dict[str, Graph]:
    """The graphs of a call by name, each between as many nodes as its sets have."""
    found: dict[str, Graph] = {}
    for one in typed.graphs:
        given, sizes = bound.graph[one.name], (counts[one.source], counts[one.target])
        try:
            graph = graph_on(Graph.from_any(given, sizes) if isinstance(given, Graph) else given, sizes, device)
        except GraphError as error:
            raise GraphError(f"graph `{one.name}`: {error}") from None
        if graph.halo is not None:
            raise GraphError(f"{typed.name} runs on several graphs, and `{one.name}` is a part of a distributed one")
        if graph.shape.complete:
            raise GraphError(f"{typed.name} runs on several graphs, and `{one.name}` is complete: pass its edges")
        found[one.name] = graph
    return found


def _check_rows(
    typed: TypedProgram, tensors: Mapping[str, Tensor], graphs: Mapping[str, Graph], num_graphs: int
) -> None:
    """Of values of edges and of whole graphs; those of nodes have said how many there are."""
    for d, type, value in inputs_of(typed, tensors):
        if type.domain is Domain.EDGE:
            need_rows(d.name, value, f"graph `{d.within}`", graphs[d.within].num_edges, "edges")
        elif type.domain is Domain.GRAPH:
            need_rows(d.name, value, "the batch", num_graphs, "graphs")
