"""What a call of a text is given, checked: its arguments by name, and a graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gdsl.errors import GraphError
from gdsl.language.program import TypedProgram
from gdsl.module.arguments import Bound, bind, count_graphs, free_sizes
from gdsl.module.checks import check_tensors
from gdsl.module.state import state_of
from gdsl.module.ways import Text, Way
from gdsl.runtime.dtypes import autocast
from gdsl.runtime.graph import Graph
from gdsl.runtime.recent import graph_of
from gdsl.runtime.tracers import check_tracers


@dataclass(frozen=True)
class CallArguments:
    """The arguments of a call, and what they say.

    way, typed:    the way of calling the text, and its program
    tensors:       inputs, parameters and buffers by name
    dtype, device: of all of these
    num_graphs:    in the batch
    """

    bound: Bound
    way: Way
    typed: TypedProgram
    tensors: dict[str, Tensor]
    dtype: torch.dtype
    device: torch.device
    num_graphs: int


def graph_on(given: Any, sizes: tuple[int | None, int | None], device: torch.device) -> Graph:
    """The graph that a call is given, between so many nodes as its inputs tell. Those of one that is made already are
    compared with what it has, and not with each other.

    Raises :class:`gdsl.GraphError` for what is no graph, has other sizes, or lies elsewhere than the inputs.
    """
    plain = isinstance(given, Tensor) and given.layout is torch.strided
    if not plain and not isinstance(given, Graph):
        given = Graph.from_any(given, None if None in sizes else sizes)  # type: ignore[arg-type]
    if given.device != device:  # before anything is asked of its edges
        raise GraphError(f"the graph is on {given.device}, and the inputs are on {device}: move one with .to()")
    return graph_of(given, *sizes) if plain else given


def given_to(
    text: Text, owner: nn.Module, inside: Mapping[str, Tensor], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> CallArguments:
    """What a call of a text on a module is given. Raises :class:`gdsl.InputError` where it does not fit."""
    check_tracers((*args, *kwargs.values()))
    bound = bind(text.signature, args, kwargs)
    given = {name: value for name, value in bound.values.items() if value is not None}
    way = text.way(owner, given, free_sizes(text.signature, given, text.free_sizes))
    typed = text.typed_for(owner, way)
    inputs = {d.name: given[d.name] for d in typed.of_role("input") if d.name in given}
    tensors = autocast({**inputs, **state_of(typed, owner, inside)})
    dtype, device = check_tensors(tensors, typed)
    num_graphs = count_graphs(bound.batch, bound.num_graphs, device)
    return CallArguments(bound, way, typed, tensors, dtype, device, num_graphs)
