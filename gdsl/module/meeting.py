"""Processes that share a graph make sure that they run the same program, before they wait for each other's rows."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Any, NoReturn

from gdsl.errors import GraphError
from gdsl.ir.printer import print_program
from gdsl.ir.program import Program
from gdsl.module.kept import Kept
from gdsl.module.ways import CallKind, Compilations
from gdsl.runtime.answers import from_all, line, tell
from gdsl.runtime.dtypes import short
from gdsl.runtime.graph import Graph
from gdsl.runtime.halo import Halo, numbers

_READY, _FAILED = 0, 1


def shared_among(values: Iterable[Any]) -> Graph | None:
    """The graph among the arguments of a call, if it is a part of a distributed one."""
    return next((v for v in values if isinstance(v, Graph) and v.halo is not None), None)


def meet(graph: Graph, kind: CallKind) -> None:
    """Before the first call of a kind on a part of a graph: wait for the others to say that theirs is the same.

    Raises ``GraphError``, on every process alike, where one of them has refused its arguments or runs another program.
    """
    halo = graph.halo
    assert halo is not None
    met: Kept = graph._make("_met", Kept)
    if kind in met or halo.world == 1:
        return
    program = Program(kind.typed.name, kind.typed.outputs, kind.typed.names)
    inputs = ", ".join(f"{n.attrs.name} {list(n.type.shape)}" for n in program.inputs)
    text = f"{kind.typed.name}, {short(kind.dtype)}, with {inputs}"
    rules = f"{[t.name for t in kind.typed.transforms]}\n{print_program(program)}"
    found = _told(halo, _READY, zlib.crc32(f"{text}\n{rules}".encode()), text)
    if any(state == _FAILED for state, _ in found):
        _raise_first(from_all("", halo.group))
    if len({digest for _, digest in found}) > 1:
        texts = from_all(text, halo.group)
        other = next(k for k, (_, digest) in enumerate(found) if digest != found[0][1])
        raise GraphError(
            f"all processes must make the same calls: process 0 calls {texts[0]}; process {other} calls "
            f"{texts[other]}; sizes, settings or inputs differ"
        )
    met.keep(kind, True)


def excuse(graph: Graph, store: Compilations, error: Exception) -> None:
    """Tell the others that this process's call of a program has failed, so that they do not wait for it.

    Where the program has run on the graph before they do not meet any more: they hear of it when they wait in vain.
    """
    halo = graph.halo
    assert halo is not None
    if halo.world == 1:
        return
    met: Kept = graph._make("_met", Kept)
    if any(kind.store is store for kind in met):
        tell("failed", f"{type(error).__name__}: {line(error)}")
        return
    _told(halo, _FAILED, 0, str(error))
    from_all(str(error), halo.group)


def _told(halo: Halo, state: int, digest: int, text: str) -> list[list[int]]:
    """What each of several processes tells.

    text: what others hear that run something else, for want of an answer
    """
    tell("waits", text)
    found = numbers(halo, [state, digest])
    tell("waits", "")
    return found


def _raise_first(texts: list[str]) -> NoReturn:
    rank, text = next((rank, text) for rank, text in enumerate(texts) if text)
    raise GraphError(f"process {rank} has refused its call: {text}")
