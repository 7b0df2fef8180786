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
from gdsl.module.arguments import Bound, bind, count_graphs, free_sizes
from gdsl.module.by_type import is_by_type, named
from gdsl.module.checks import check_batch, check_requirements, check_tensors
from gdsl.module.run import run, seed_for
from gdsl.module.state import state_of
from gdsl.module.ways import CallKind, Ran, Text, Way
from gdsl.runtime.dtypes import autocast
from gdsl.runtime.graph import Graph
from gdsl.runtime.recent import graph_of
from gdsl.runtime.rewire import rewire
from gdsl.runtime.tracers import check_tracers


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
    check_tracers((*args, *kwargs.values()))
    bound = bind(text.signature, args, kwargs)
    given = {name: value for name, value in bound.values.items() if value is not None}
    way = text.way(owner, given, free_sizes(text.signature, given, text.free_sizes))
    typed = text.typed_for(owner, way)
    inputs = {d.name: given[d.name] for d in typed.of_role("input") if d.name in given}
    tensors = autocast({**inputs, **state_of(typed, owner, inside)})
    dtype, device = check_tensors(tensors, typed)
    num_graphs = count_graphs(bound.batch, bound.num_graphs, device)
    counts = _rows_of_sets(typed, tensors)
    graphs = _graphs(typed, bound, counts, device)
    _check_edges(typed, tensors, graphs)
    _check_graphs(typed, tensors, bound, counts, num_graphs)
    for name in dict.fromkeys(t.graph for t in typed.transforms):
        graphs[name], tensors = rewire(typed, graphs[name], tensors, name)
    for need in typed.requires:
        check_requirements(f"{typed.name} over `{need.graph}`", [(need.end, need.value)], graphs[need.graph])
    if typed.uses_seed:
        tensors["seed"] = seed_for(device)
    cut, found = kinds(text, owner, way, dtype, device)
    ran: list[Ran] = []
    for (piece, _), kind in zip(cut.parts, found, strict=True):
        nodes = piece.nodes or next(iter(counts))  # what is of whole graphs says no set: there is one
        graph = graphs[piece.graph] if piece.graph else _without_edges(counts[nodes], device)
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


def _without_edges(count: int, device: torch.device) -> Graph:
    return Graph(torch.zeros(2, 0, dtype=torch.long, device=device), count)


def _rows_of_sets(typed: TypedProgram, tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """How many nodes each set has, as the inputs say."""
    found: dict[str, int] = {}
    first: dict[str, str] = {}
    for d in typed.of_role("input"):
        if d.type is None or d.type.domain is not Domain.NODE or d.name not in tensors:
            continue
        rows = tensors[d.name].shape[0]
        if found.setdefault(d.within, rows) != rows:
            known, what = first[d.within], f"{d.within} nodes" if d.within else "nodes"
            raise InputError(f"`{d.name}` has {rows} rows, and `{known}` has {found[d.within]}: both are of all {what}")
        first.setdefault(d.within, d.name)
    return found


def _graphs(
    typed: TypedProgram, bound: Bound, counts: Mapping[str, int], device: torch.device
) -> dict[str, Graph]:
    """The graphs of a call by name, each between as many nodes as its sets have."""
    found: dict[str, Graph] = {}
    for one in typed.graphs:
        given, sizes = bound.graph[one.name], (counts[one.source], counts[one.target])
        plain = isinstance(given, Tensor) and given.layout is torch.strided
        try:
            graph = given if plain else Graph.from_any(given, sizes)
            if graph.device != device:  # before anything is asked of its edges
                where = f"is on {graph.device}, and the inputs are on {device}"
                raise GraphError(f"it {where}: move one with .to()")
            if plain:
                graph = graph_of(given, *sizes)
        except GraphError as error:
            raise GraphError(f"graph `{one.name}`: {error}") from None
        if graph.halo is not None:
            raise GraphError(f"{typed.name} runs on several graphs, and `{one.name}` is a part of a distributed one")
        if graph.shape.complete:
            raise GraphError(f"{typed.name} runs on several graphs, and `{one.name}` is complete: pass its edges")
        found[one.name] = graph
    return found


def _check_edges(typed: TypedProgram, tensors: Mapping[str, Tensor], graphs: Mapping[str, Graph]) -> None:
    for d in typed.of_role("input"):
        if d.type is not None and d.type.domain is Domain.EDGE and d.name in tensors:
            rows, count = tensors[d.name].shape[0], graphs[d.within].num_edges
            if rows != count:
                raise InputError(f"`{d.name}` has {rows} rows, and graph `{d.within}` has {count} edges")


def _check_graphs(
    typed: TypedProgram, tensors: Mapping[str, Tensor], bound: Bound, counts: Mapping[str, int], num_graphs: int
) -> None:
    if bound.batch is not None:
        (rows,) = counts.values()  # whole graphs are of one set
        check_batch(bound.batch, rows)
    for d in typed.of_role("input"):
        if d.type is not None and d.type.domain is Domain.GRAPH and d.name in tensors:
            rows = tensors[d.name].shape[0]
            if rows != num_graphs:
                raise InputError(f"`{d.name}` has {rows} rows, and the batch has {num_graphs} graphs")
