"""Processes that share a graph make sure that they run the same program, before they wait for each other's rows."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Any, NoReturn

import torch
from torch import Tensor, distributed

from gdsl.errors import GraphError
from gdsl.ir.printer import print_program
from gdsl.ir.program import Program
from gdsl.module.kept import Kept
from gdsl.module.ways import CallKind, Compilations
from gdsl.runtime.answers import answered, line, tell
from gdsl.runtime.graph import Graph
from gdsl.runtime.halo import Halo

_READY, _FAILED = 0, 1


def shared_among(values: Iterable[Any]) -> Graph | None:
    """The graph among the arguments of a call, if it is a part of a distributed one."""
    return next((v for v in values if isinstance(v, Graph) and v.halo is not None), None)


def meet(graph: Graph, kind: CallKind) -> None:
    """Before the first call of a kind on a part of a graph: wait for the others to say that theirs is the same.

    Raises ``GraphError``, on every process alike, where one of them has refused its arguments or runs another program.
    """
    assert graph.halo is not None
    met: Kept = graph._make("_met", Kept)
    if kind in met:
        return
    program = Program(kind.typed.name, kind.typed.outputs, kind.typed.names)
    inputs = ", ".join(f"{n.attrs.name} {list(n.type.shape)}" for n in program.inputs)
    text = f"{kind.typed.name}, {str(kind.dtype).removeprefix('torch.')}, with {inputs}"
    rules = f"{[t.name for t in kind.typed.transforms]}\n{print_program(program)}"
    found = _told(graph.halo, _READY, zlib.crc32(f"{text}\n{rules}".encode()), text)
    if any(state == _FAILED for state, _ in found):
        _raise_first(_texts(graph.halo, ""))
    if len({digest for _, digest in found}) > 1:
        texts = _texts(graph.halo, text)
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
    assert graph.halo is not None
    met: Kept = graph._make("_met", Kept)
    if any(kind.store is store for kind in met):
        if graph.halo.world > 1:
            tell("failed", f"{type(error).__name__}: {line(error)}")
        return
    _told(graph.halo, _FAILED, 0, str(error))
    _texts(graph.halo, str(error))


def _told(halo: Halo, state: int, digest: int, text: str) -> list[tuple[int, int]]:
    """What each process tells. ``text`` is what others hear that run something else, for want of an answer."""
    if halo.world == 1:
        return [(state, digest)]
    tell("waits", text)
    own = torch.tensor([state, digest], device=halo.send.device)
    found = [torch.empty_like(own) for _ in range(halo.world)]
    with answered():
        distributed.all_gather(found, own, group=halo.group)
    tell("waits", "")
    return [(int(a), int(b)) for a, b in map(Tensor.tolist, found)]


@answered()
def _texts(halo: Halo, text: str) -> list[str]:
    found: list[Any] = [text] * halo.world
    if halo.world > 1:
        distributed.all_gather_object(found, text, group=halo.group)
    return found


def _raise_first(texts: list[str]) -> NoReturn:
    rank, text = next((rank, text) for rank, text in enumerate(texts) if text)
    raise GraphError(f"process {rank} has refused its call: {text}")
