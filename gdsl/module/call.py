"""A call of a text: its arguments are checked, and the program that they are for is run.

A call like one before is not checked anew: what is remembered of that one says nothing of how many nodes and edges
there are, since training gives another graph in each step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gdsl.module import repeated, several
from gdsl.module.arguments import Bound, by_place, is_graph, spread_pair
from gdsl.module.checks import check_rows, node_counts
from gdsl.module.given import given_to, graph_on
from gdsl.module.known import KnownCall, facts_of, remembered
from gdsl.module.meeting import excuse, shared_among
from gdsl.module.run import all_pairs, nearest, run
from gdsl.module.ways import CallKind, Text
from gdsl.runtime import native
from gdsl.runtime.dtypes import AUTOCAST
from gdsl.runtime.graph import Graph
from gdsl.runtime.tracers import check_tracers, recording, refuse, run_as_it_is
from gdsl.runtime.transforms import transforming


@run_as_it_is
def call(
    text: Text,
    owner: nn.Module,
    inside: Mapping[str, Tensor],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    backend: str,
) -> Any:
    """The results of a text on a module: a tensor, or a tuple of them.

    inside: further tensors by the names of the parameters that they stand for
    args:   of the call, in the order of ``text.order``

    Raises :class:`gdsl.InputError` or :class:`gdsl.GraphError` before any kernel runs.
    """
    if type(args) is not tuple:
        refuse("torch.fx.symbolic_trace")
    if text.signature.graphs:
        return several.call(text, owner, inside, args, kwargs, backend)
    if text.is_between and args and (type(args[0]) in (tuple, list) or any(map(is_graph, args[1:2]))):
        args = tuple(spread_pair(text.signature, args))
    flat = by_place(text.order, args, kwargs)
    if tracing := recording():
        check_tracers()
    natively = not inside and backend in repeated.BACKENDS
    again, states, result = text.repeated.calls, text.states(owner), None
    if again is not None and natively and flat is not None and not tracing and not transforming():
        result = again(owner, flat, states)
    if result is None:
        results = _in_python(text, owner, inside, args, kwargs, backend, flat, states, natively)
        result = results[0] if len(results) == 1 else tuple(results)
    if flat is not None and repeated.watching():
        repeated.note(text, owner, bool(inside), flat, states, backend, result)
    return result


def _in_python(
    text: Text,
    owner: nn.Module,
    inside: Mapping[str, Tensor],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    backend: str,
    flat: tuple[Any, ...] | None,
    states: tuple[Any, ...],
    natively: bool,
) -> Sequence[Tensor]:
    """Check what is not known of calls like this, and run the program. What is checked is remembered by the facts of
    the arguments.

    flat:     all arguments by place, if they are
    natively: whether native code may repeat such a call
    """
    facts: Any = None
    if flat is not None and not text.signature.builds_graph and not any(map(torch.is_autocast_enabled, AUTOCAST)):
        what = facts_of(flat, text.places)
        facts = None if what is None else (owner.training, states, what)
    known: KnownCall | None = None if facts is None else text.known.get(facts)
    if flat is not None and known is not None and (found := known.tensors(flat, owner, inside)) is not None:
        if not known.offered and natively and known.kind.device.type == "cpu" and native.native() is not None:
            known.offered = True
            repeated.offer(text.repeated, known, states, owner.training, flat, backend)
        return run(known.kind, known.checked_graph(flat, found), found, backend, owner)
    try:
        kind, graph, tensors, bound, num_graphs = checked(text, owner, inside, args, kwargs)
    except Exception as error:
        excuse(shared_among((*args, *kwargs.values())), error)
        raise
    if facts is not None and flat is not None and bound.batch is None and bound.num_graphs is None:
        known = remembered(kind, tensors, text.order[: len(flat)], bound.graph)
        if known is not None:
            text.known.keep(facts, known)
    return run(kind, graph, tensors, backend, owner, bound.batch, num_graphs)


def checked(
    text: Text, owner: nn.Module, inside: Mapping[str, Tensor], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[CallKind, Graph, dict[str, Tensor], Bound, int]:
    """The kind of a call with its graph, its tensors by name, its arguments and the number of graphs, all checked."""
    given = given_to(text, owner, inside, args, kwargs)
    bound, tensors = given.bound, given.tensors
    kind = text.store.kind(given.way, given.typed, text.options, given.dtype, given.device)
    graph = _graph(kind, bound, tensors)
    check_rows(tensors, given.typed, graph, bound.batch, given.num_graphs)
    return kind, graph, tensors, bound, given.num_graphs


def _graph(kind: CallKind, bound: Bound, tensors: Mapping[str, Tensor]) -> Graph:
    """The graph of a call. Raises :class:`gdsl.GraphError` for one that lies elsewhere than the tensors."""
    typed = kind.typed
    sizes = node_counts(typed, tensors)
    knn = next((t for t in typed.transforms if t.name == "knn"), None)
    if knn is not None:
        return nearest(knn, kind, tensors, sizes[1] or 0, bound.batch)
    if typed.complete is not None:
        return all_pairs(kind, sizes[1] or 0, bound.batch)
    return graph_on(bound.graph, sizes, kind.device)
