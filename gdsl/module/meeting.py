"""Processes that share a graph make sure that they run the same program, before they wait for each other's rows."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from gdsl.errors import DistributedError, GraphError
from gdsl.ir.printer import print_program
from gdsl.kept import Kept
from gdsl.module.ways import CallKind
from gdsl.runtime.answers import agree
from gdsl.runtime.dtypes import short
from gdsl.runtime.graph import Graph
from gdsl.runtime.local import LocalGraph


def shared_among(values: Iterable[Any]) -> Graph | None:
    """The graph among the arguments of a call, if it is a part of a distributed one."""
    return next((v for v in values if isinstance(v, Graph) and v.halo is not None), None)


def meet(graph: Graph, kind: CallKind) -> None:
    """Before each call on a part of a graph: all processes say what they call, and on which graph.

    Raises ``GraphError``, on every process alike, where one of them has refused its arguments, runs another program, or
    runs it on the part of another graph.
    """
    assert isinstance(graph, LocalGraph)
    if graph.halo.world == 1:
        return
    met: Kept = graph._make("_met", Kept)
    digest, text = met.once(kind, lambda: _said(kind))
    agree(text, graph.halo.group, graph.device, digest, graph.tag)
    graph.shape  # noqa: B018 - which makes sure that the parts are of one graph, the first time


def _said(kind: CallKind) -> tuple[int, str]:
    """A number for what a kind of call runs, and words for it."""
    program = kind.typed.program
    inputs = ", ".join(f"{n.attrs.name} {list(n.type.shape)}" for n in program.inputs)
    text = f"a call of {kind.typed.name}, {short(kind.dtype)}, with {inputs}"
    rules = f"{[t.name for t in kind.typed.transforms]}\n{kind.options.choices}\n{print_program(program)}"
    return zlib.crc32(f"{text}\n{rules}".encode()), text


def excuse(graph: Graph, error: Exception) -> None:
    """Tell the others that this process's call of a program has failed, so that they do not wait for it."""
    assert isinstance(graph, LocalGraph)
    if graph.halo.world > 1:
        with suppress(DistributedError, GraphError):  # the error itself is what this process has to say
            agree(str(error), graph.halo.group, graph.device, refused=True)
