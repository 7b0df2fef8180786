"""Processes that share a graph make sure that they run the same program, before they wait for each other's rows."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from gdsl.errors import DistributedError, GdslError, GraphError, InputError
from gdsl.ir.printer import print_program
from gdsl.kept import Kept
from gdsl.module.ways import CallKind
from gdsl.runtime.answers import agree, heard, is_heard
from gdsl.runtime.dtypes import short
from gdsl.runtime.given import is_integer
from gdsl.runtime.graph import Graph
from gdsl.runtime.local import LocalGraph
from gdsl.runtime.together import shared_graph, together
from gdsl.runtime.tracers import NO_EXCHANGE, left_alone, run_as_it_is

Call = TypeVar("Call", bound=Callable[..., Any])


def shared_among(values: Iterable[Any]) -> Graph | None:
    """The graph among the arguments of a call, or in a dict of them, if it is a part of a distributed one."""
    every = (one for v in values for one in (v.values() if isinstance(v, dict) else (v,)))
    return next((v for v in every if isinstance(v, Graph) and v.halo is not None), None)


def meet(graph: Graph, kind: CallKind, batched: bool) -> None:
    """Before each call on a part of a graph: all processes say what they call, and on which graph.

    batched: whether the call says which graph of a batch each node is of

    Raises ``GraphError``, on every process alike, where one of them has refused its arguments, runs another program, or
    runs it on the part of another graph.
    """
    assert isinstance(graph, LocalGraph)
    if graph.halo.world == 1:
        return
    met: Kept = graph._make("_met", Kept)
    digest, text = met.once((kind, batched), lambda: _said(kind, batched))
    agree(text, graph.halo.group, graph.device, digest, graph.tag)
    graph.shape  # noqa: B018 - which makes sure that the parts are of one graph, the first time


def _said(kind: CallKind, batched: bool) -> tuple[int, str]:
    """A number for what a kind of call runs, and words for it."""
    program = kind.typed.program
    inputs = ", ".join(f"{n.attrs.name} {list(n.type.shape)}" for n in program.inputs)
    text = f"a call of {kind.typed.name}, {short(kind.dtype)}, with {inputs}{', batch' if batched else ''}"
    rules = f"{[t.name for t in kind.typed.transforms]}\n{kind.options.choices}\n{print_program(program)}"
    return zlib.crc32(f"{text}\n{rules}".encode()), text


def excuse(graph: Graph | None, error: Exception) -> None:
    """Tell the others, in the place of its agreement, that this process's call has failed: they do not wait for it.

    Nothing is said of an error that they know of, or that came while rows were on their way.
    """
    if torch.compiler.is_compiling():  # nothing is said while a tracer looks at the call
        return
    if not isinstance(graph, LocalGraph) or graph.halo.world == 1 or is_heard(error):
        return
    heard(error)
    kind = "" if isinstance(error, GdslError) else f"{type(error).__name__}: "
    with suppress(DistributedError, GraphError):  # the error itself is what this process has to say
        agree(f"{kind}{error}", graph.halo.group, graph.device, refused=True)


def excused(function: Call) -> Call:
    """The decorator of a function that is no call of a layer, and fails on all processes where it does on one: of the
    part of a graph that it is given, or of those whose rows are taken together."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        graph = shared_among((*args, *kwargs.values())) or shared_graph()
        if graph is None:
            return function(*args, **kwargs)
        if torch.compiler.is_compiling():
            raise InputError(NO_EXCHANGE)
        return _excused(graph, function, args, kwargs)

    return cast("Call", call)


@run_as_it_is
def _excused(graph: Graph, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    try:
        return function(*args, **kwargs)
    except Exception as error:
        excuse(graph, error)
        raise


# The modules whose calls are met in this process, from the outermost.
_met: list[nn.Module] = []


@run_as_it_is
def must_meet(owner: nn.Module, graph: Any) -> bool:
    """Whether a call of a module is on a part of a distributed graph, and :func:`meeting` is yet to come.

    Raises ``InputError`` while torch.compile traces it, which then runs it as it is, where it may.
    """
    found = isinstance(graph, Graph) and graph.halo is not None and not (_met and _met[-1] is owner)
    if found and torch.compiler.is_compiling():
        raise InputError(NO_EXCHANGE)
    return found


@contextmanager
def meeting(owner: nn.Module, graph: Any, x: Any, batch: Any = None, **optional: Any) -> Iterator[None]:
    """:func:`together` for a call that is no single program: all processes say first what it is, and which optional
    inputs it is given.

    x:     rows of own nodes, or None
    batch: the graph of each of them, or None

    Raises ``InputError`` where x or batch of this process are not for its own nodes, and ``GraphError`` where those of
    another one are not; ``GraphError``, on every process alike, where they make different calls.
    """
    with left_alone():
        try:
            _check_own(graph, x, batch)
        except InputError as error:
            excuse(graph, error)
            raise
        if graph.halo.world > 1:
            rows = f"x {short(x.dtype)} {list(x.shape[1:])}" if isinstance(x, Tensor) else f"x {type(x).__name__}"
            given = ["batch"] * (batch is not None) + [name for name, value in optional.items() if value is not None]
            way = "training" if owner.training else "evaluation"
            text = f"a call of {type(owner).__name__} in {way}, with {', '.join([rows, *given])}"
            agree(text, graph.halo.group, graph.device, tag=graph.tag)
        _met.append(owner)
        try:
            with together(graph):
                yield
        finally:
            _met.pop()


def check_own_rows(name: str, value: Any, count: int, what: str) -> None:
    """Raise ``InputError`` for a value, if it is given, that has another number of rows."""
    if value is not None and not (isinstance(value, Tensor) and value.dim() and len(value) == count):
        has = f"has shape {list(value.shape)}" if isinstance(value, Tensor) else f"is a {type(value).__name__}"
        raise InputError(f"this process has {count} {what}, and `{name}` {has}")


def _check_own(graph: Graph, x: Any, batch: Any) -> None:
    if isinstance(x, Tensor) and (x.dim() == 0 or len(x) != graph.num_sources):
        raise InputError(f"this process owns {graph.num_sources} nodes, and `x` has shape {list(x.shape)}")
    if batch is None:
        return
    if not isinstance(batch, Tensor) or not is_integer(batch):
        raise InputError("`batch` must be a tensor of whole numbers: the graph of each node")
    if batch.shape != (graph.num_sources,):
        raise InputError(f"this process owns {graph.num_sources} nodes, and `batch` has shape {list(batch.shape)}")
    if batch.numel() and int(batch.min()) < 0:
        raise InputError("`batch` has negative numbers of graphs")
