"""Calls like one before, all of it in native code: what :mod:`gdsl.runtime.native` needs of a call that was checked.

Native code only repeats. What a call needs is compiled and checked by Python's; where native code has no answer, for a
graph that is large, a tensor that is no plain one, a derivative of a derivative, Python's call is the answer.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from gdsl.ir.types import Domain, Kind
from gdsl.module.arguments import by_place
from gdsl.module.known import KnownCall, facts_of
from gdsl.module.shared import Repeated
from gdsl.module.ways import CallKind, Text
from gdsl.passes.options import GraphShape
from gdsl.runtime import native
from gdsl.runtime.functions import function_of
from gdsl.runtime.graph import Graph
from gdsl.runtime.recent import is_recent
from gdsl.runtime.tracers import recording, run_as_it_is
from gdsl.runtime.transforms import transforming

# What native code does to the edges for the ``graph`` statements of a program; others are Python's.
LOOPS = {(): -1, ("remove_self_loops",): 0, ("add_self_loops",): 1, ("add_remaining_self_loops",): 2}

# What a user may have asked for where native code repeats a call.
BACKENDS = ("auto", "cpp")

_REAL = (torch.float32, torch.float64)

# Tensors of a call that native code tells apart: a bit for each says whether it has a gradient.
MOST_TENSORS = 40

_NOTHING, _TENSOR, _GRAPH = range(3)


def offer(repeated: Repeated, known: KnownCall, states: Any, training: bool, args: Sequence[Any], backend: str) -> None:
    """Have native code repeat a call of a text that is known, where it can."""
    if _can_be_repeated(known):
        own = {k: k for k in range(len(args))}
        repeated.add(training, states, *_told(known, args, own, backend, -1 if known.results > 1 else 0))


def _told(
    known: KnownCall, args: Sequence[Any], places: Mapping[int, int], backend: str, returns: int, *more: Any
) -> tuple[Any, ...]:
    """What native code is told of a call.

    args:    of what is called
    places:  for each argument of the text, its place among them
    returns: which result it gives, -1 for all
    """
    kind = known.kind
    rows = {places[place]: size for place, size in known.rows}
    graph = places[known.graph]
    arguments = [_about(value, k == graph, rows.get(k, -1)) for k, value in enumerate(args)]
    names = [name for name, _ in (*known.inputs, *known.state)]
    inputs = [*((0, places[place]) for _, place in known.inputs), *((1, k) for k in range(len(known.state)))]
    declared = kind.typed.of_role("input", "param", "buffer")
    real = {d.name for d in declared if d.type is not None and d.type.kind is Kind.FLOAT}
    state = [(*_split(name), facts[1], tuple(facts[0])) for name, facts in known.state]
    sizes = [-1 if place is None else places[place] for place in (known.sources, known.targets)]
    finder = Finder(kind, {name: k for k, name in enumerate((*names, "seed"))}, backend)
    fills = [(names.index(name), fill) for name, fill in (_fills(known) or {}).items()]
    return (
        arguments, state, inputs, [name in real for name in names], (graph, *sizes, _loops(kind), returns), fills,
        kind.typed.bipartite, kind.typed.uses_seed, Graph, finder, kind.store, *(more or (None, ())),
    )  # fmt: skip


def _can_be_repeated(known: KnownCall) -> bool:
    kind = known.kind
    typed = kind.typed
    if kind.device.type != "cpu" or kind.dtype not in _REAL or kind.options.budget is not None:
        return False
    if len(known.inputs) + len(known.state) >= MOST_TENSORS:
        return False
    return not (typed.requires or known.bounded or _loops(kind) is None or _fills(known) is None)


def _fills(known: KnownCall) -> dict[str, float] | None:
    """What the loops that a program adds get of each input that edges have; None where that is no number."""
    typed, given = known.kind.typed, {name for name, _ in known.inputs}
    by_edge = [d for d in typed.of_role("input") if d.name in given and d.type and d.type.domain is Domain.EDGE]
    if not typed.transforms or not by_edge:
        return {}
    told = dict(typed.transforms[0].keywords)
    fills = {d.name: told.get(d.name, d.default) for d in by_edge}
    if _loops(known.kind) not in (1, 2) or any(type(fill) not in (int, float) for fill in fills.values()):
        return None
    return {name: float(fill) for name, fill in fills.items()}  # type: ignore[arg-type]


def _loops(kind: CallKind) -> int | None:
    return LOOPS.get(tuple(t.name for t in kind.typed.transforms))


def _about(value: Any, is_graph: bool, rows: int) -> tuple[Any, ...]:
    if is_graph:
        return _GRAPH, -1, None, ()
    if value is None:
        return _NOTHING, -1, None, ()
    return _TENSOR, rows, value.dtype, tuple(value.shape[rows >= 0 :])


def _split(name: str) -> tuple[tuple[str, ...], str]:
    *path, leaf = name.split(".")
    return tuple(path), leaf


# -- calls of a module that asks one text ----------------------------------------------------------

# Attributes of a module that say nothing of what it computes.
_IDLE = frozenset({"_store", "_texts", "_repeated"})

Forward = TypeVar("Forward", bound=Callable[..., Any])


@dataclass
class _Seen:
    """What a call of a module asked of texts, in the thread that watches it."""

    thread: int
    calls: list[tuple[Any, ...]] = field(default_factory=list)


_seen: _Seen | None = None


def note(*call: Any) -> None:
    """A text was called: (text, owner, whether with tensors of other modules, arguments, states, backend, result)."""
    if _seen is not None and _seen.thread == threading.get_ident():
        _seen.calls.append(call)


def watching() -> bool:
    """Whether somebody wants to know which texts are called."""
    return _seen is not None


def repeatable(forward: Forward) -> Forward:
    """A ``forward`` that native code may repeat: it does nothing but pass some of its arguments to one text, and give
    what this gives, or one of its results; which, only the module and the kinds of tensors say, whatever their rows and
    values."""

    names = tuple(inspect.signature(forward).parameters)[1:]

    @functools.wraps(forward)
    def again(self: Any, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            return forward(self, *args, **kwargs)
        flat = by_place(names, args, kwargs)
        repeated: Repeated = self._repeated
        if repeated.calls is not None and flat is not None and not recording() and not transforming():
            found = repeated.calls(self, flat, ())
            if found is not None:
                return found
        if native.loaded() is None or flat is None or _seen is not None or _is_elsewhere(flat):
            return forward(self, *args, **kwargs)
        return _watched(forward, self, repeated, flat, args, kwargs)

    return cast(Forward, again)


def _is_elsewhere(args: Sequence[Any]) -> bool:
    """Whether a call is for a GPU, where native code repeats nothing."""
    first = args[0] if args else None
    if type(first) in (tuple, list) and first:
        first = first[0]
    return isinstance(first, Tensor) and not first.is_cpu


@run_as_it_is
def _watched(
    forward: Callable[..., Any],
    owner: nn.Module,
    repeated: Repeated,
    flat: tuple[Any, ...],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> Any:
    global _seen
    seen = _seen = _Seen(threading.get_ident())
    try:
        result = forward(owner, *args, **kwargs)
    finally:
        _seen = None
    if len(seen.calls) == 1:
        _offer_module(owner, repeated, flat, result, *seen.calls[0])
    return result


def _offer_module(
    owner: nn.Module,
    repeated: Repeated,
    args: tuple[Any, ...],
    result: Any,
    text: Text,
    on: nn.Module,
    inside: bool,
    asked: Sequence[Any],
    states: tuple[Any, ...],
    backend: str,
    gave: Any,
) -> None:
    """Have native code repeat a call of a module that asked a text, where it can."""
    facts = facts_of(asked, text.places)
    # A layer that keeps its first graph reads no other.
    keeps = getattr(owner, "cached", False)
    if keeps or on is not owner or inside or (given := (facts, len(args))) in repeated.offered:
        return
    known = None if facts is None else text.known.get((owner.training, states, facts))
    if known is None:
        return
    repeated.offered.keep(given, True)
    returns = _which(result, gave)
    places = {k: place for k, value in enumerate(asked) if (place := _place(value, args)) is not None}
    used = {places.get(k, -1) for k in (*(place for _, place in known.inputs), known.graph)}
    idle = [value for k, value in enumerate(args) if k not in used]
    if returns is None or -1 in used or any(value is not None for value in idle) or not _can_be_repeated(known):
        return
    watched = [(m, tuple(name.split(".")) if name else (), _IDLE) for name, m in owner.named_modules()]
    repeated.add(owner.training, (), *_told(known, args, places, backend, returns, owner, watched))


def _which(result: Any, gave: Any) -> int | None:
    """Which of the results of a text was given: -1 for all, None for something else."""
    if isinstance(gave, tuple) and result is gave:
        return -1
    results = gave if isinstance(gave, tuple) else (gave,)
    return next((k for k, value in enumerate(results) if value is result), None)


def _place(value: Any, args: Sequence[Any]) -> int | None:
    """Where an argument of a text is among those of the module that asks it."""
    for k, given in enumerate(args):
        if given is value and value is not None:
            return k
        if type(value) is Graph and type(given) is Tensor and is_recent(given, value):
            return k
    return None


class Finder:
    """What native code asks for the function of a call once: by the sizes of its graph, and which tensors have
    gradients."""

    def __init__(self, kind: CallKind, places: Mapping[str, int], backend: str):
        self.kind, self.places, self.backend = kind, places, backend

    def __call__(self, sources: int, targets: int, edges: int, mask: int) -> Any | None:
        """The function, or None where there is none, or Python's call has not yet compiled it.

        mask: the bit of each place among the tensors is set if this one has a gradient
        """
        shape = GraphShape.of(sources, targets, edges, "cpu")
        ready = self.kind.ready.get((shape, torch.int32, self.backend))
        if ready is None or ready.numbers or len(ready.stages) != 1:
            return None
        stage, runner, names = ready.stages[0]
        if stage.module is not None or any(name not in self.places for name in names):
            return None
        places = [self.places[name] for name in names]
        wanted = tuple(bool(mask >> place & 1) for place in places)
        return function_of(runner, wanted, places, (ready.ran,))
