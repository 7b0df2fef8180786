"""Calls like one before: what is remembered of a call that was checked, so that the next one need not be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gdsl.ir.types import Domain, Kind
from gdsl.language import parts
from gdsl.language.program import Declaration
from gdsl.module.checks import check_bound, check_rows
from gdsl.module.ways import CallKind
from gdsl.runtime.graph import Graph
from gdsl.runtime.recent import graph_of

# For each domain, which of a graph's sizes counts its rows; kinds of calls with values of other domains do not
# remember how many there were.
_TARGETS, _SOURCES, _EDGES = range(3)
_ROWS = {Domain.NODE: _TARGETS, Domain.TARGET: _TARGETS, Domain.SOURCE: _SOURCES, Domain.EDGE: _EDGES}


@dataclass(slots=True, eq=False)
class KnownCall:
    """What a call needs once another one with tensors of the same kinds has been checked.

    inputs:  (name, place among the arguments)
    rows:    (place among the arguments, which size of the graph counts its rows)
    graph:   the place of the graph among the arguments
    bounded: integers, whose values are checked in each call
    state:   names of parameters and buffers, each with the facts of its tensor
    sources, targets: places of the arguments that tell how many there are
    results: how many it gives
    offered: whether native code has been told of it
    """

    kind: CallKind
    inputs: tuple[tuple[str, int], ...]
    rows: tuple[tuple[int, int], ...]
    graph: int
    bounded: tuple[Declaration, ...]
    state: tuple[tuple[str, Any], ...]
    sources: int | None
    targets: int | None
    results: int
    offered: bool = False

    def tensors(self, args: Sequence[Any], owner: nn.Module, inside: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """The tensors of a call, also those of the module that the program is on; None where one of these is no longer
        what it was.
        """
        found = {name: args[place] for name, place in self.inputs}
        for name, facts in self.state:
            value = inside.get(name) if inside else None
            if value is None:
                value = parts.tensor_of(owner, name)
            if _tensor_facts(value) != facts:
                return None
            found[name] = value
        return found

    def checked_graph(self, args: Sequence[Any], tensors: Mapping[str, Tensor]) -> Graph:
        """The graph of a call, and the checks of what differs between calls of one kind. Raises as the first does."""
        for d in self.bounded:
            assert d.type is not None
            check_bound(d.name, d.type, tensors[d.name])
        given = args[self.graph]
        if type(given) is Graph:
            graph = given
        else:
            sources, targets = (None if at is None else args[at].shape[0] for at in (self.sources, self.targets))
            graph = graph_of(given, sources, targets)
        sizes = (graph.num_targets, graph.num_sources, graph.num_edges)
        typed = self.kind.typed
        fits = sizes[_TARGETS] == sizes[_SOURCES] or typed.bipartite
        for place, size in self.rows:
            if args[place].shape[0] != sizes[size]:
                fits = False
        if not fits:
            check_rows(tensors, typed, graph, None, 1)
        return graph


def facts_of(args: Sequence[Any], places: Sequence[tuple[bool, bool]]) -> tuple[Any, ...] | None:
    """What plain arguments of a call are, but for their rows and values; None for other arguments.

    places: for each argument, whether it is the graph, and whether it has rows
    """
    if len(args) > len(places):
        return None
    found: list[Any] = []
    for value, (is_graph, has_rows) in zip(args, places, strict=False):
        kind = type(value)
        if kind is Tensor or kind is nn.Parameter:
            shape: Any = None if is_graph else value.shape
            if has_rows and shape:
                shape = (shape[1:],)  # in brackets, since it may be as short as that of a value without rows
            found.append((shape, value.dtype, value.device, value.layout))
        elif kind is Graph and is_graph:
            found.append(value.device)
        elif value is None:
            found.append(None)
        else:
            return None
    return tuple(found)


def _tensor_facts(value: Tensor) -> tuple[Any, ...]:
    """What a program asks of a parameter or a buffer but for its values."""
    return value.shape, value.dtype, value.device, value.layout


def remembered(kind: CallKind, tensors: Mapping[str, Tensor], names: Sequence[str], graph: Any) -> KnownCall | None:
    """What a checked call says of others like it; None where each must be checked anew.

    names: of the arguments, in order
    graph: as it was given
    """
    plain = type(graph) is Graph or (type(graph) is Tensor and graph.layout is torch.strided)
    places = {name: place for place, name in enumerate(names)}
    if not plain or "graph" not in places:
        return None
    if not any(t.is_floating_point() for t in tensors.values()):
        return None  # computed in torch's default dtype, which may be another one next time
    inputs = [(d, d.type) for d in kind.typed.of_role("input") if d.name in tensors and d.type is not None]

    def first(*domains: Domain) -> int | None:
        return next((places[d.name] for d, t in inputs if t.domain in domains), None)

    return KnownCall(
        kind,
        tuple((d.name, places[d.name]) for d, _ in inputs),
        tuple((places[d.name], _ROWS[t.domain]) for d, t in inputs if t.domain in _ROWS),
        places["graph"],
        tuple(d for d, t in inputs if t.kind is Kind.INT),
        tuple((d.name, _tensor_facts(tensors[d.name])) for d in kind.typed.of_role("param", "buffer")),
        first(Domain.NODE, Domain.SOURCE),
        first(Domain.NODE, Domain.TARGET),
        len(kind.typed.outputs),
    )
