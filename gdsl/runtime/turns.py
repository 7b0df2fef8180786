"""Running a program that goes through the edges in turns: see :mod:`gdsl.passes.turns`.

While one part of the edges is walked, the rows that the next one reads are on their way, and what the last one gives
for rows of other processes. A process has the rows of two parts at most, besides its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from gdsl.ir.node import Node
from gdsl.ir.ops.edges import finds_winners, is_extreme
from gdsl.ir.ops.indexing import wins
from gdsl.ir.program import Program
from gdsl.ir.types import Domain
from gdsl.passes.options import Options
from gdsl.passes.pipeline import in_pieces
from gdsl.passes.turns import ProgramPiece, best_of
from gdsl.runtime import halo
from gdsl.runtime.execute import KernelPlan, ReferencePlan
from gdsl.runtime.frame import WIRES, Frame
from gdsl.runtime.halo import COMBINED
from gdsl.runtime.local import LocalGraph, WalkedPart
from gdsl.runtime.results import Results, last_uses

# What is no larger than any number, or no smaller, or changes no sum and no product.
_NOTHING = {"sum": 0.0, "max": float("-inf"), "min": float("inf"), "mul": 1.0}


def pieces_for(
    program: Program, options: Options, index_dtype: torch.dtype
) -> tuple[Program, tuple[ProgramPiece, ...]]:
    """As :func:`gdsl.passes.pipeline.in_pieces`; none on graphs with very many edges, whose parts would have other
    indices."""
    return in_pieces(program, options) if index_dtype is torch.int32 else (program, ())


class TurnsPlan:
    """The pieces of a program, compiled, and how what they give becomes its outputs.

    visible: how many of the outputs a user sees
    """

    def __init__(
        self,
        program: Program,
        pieces: Sequence[ProgramPiece],
        visible: int,
        make: Callable[[Program], KernelPlan | ReferencePlan],
    ):
        self.outputs = program.nodes
        self.pieces = [(piece, make(piece.program)) for piece in pieces]
        together = [value for piece in pieces if piece.turns for value in piece.gives]
        self.results = Results(self.outputs, visible, frozenset(together))
        self.releases = last_uses([_used(piece) for piece in pieces], self.outputs)

    def run(self, values: Mapping[Node, Tensor], frame: Frame) -> list[Tensor]:
        """The program's outputs. ``values`` has a tensor for each load."""
        memory: dict[Node, Tensor] = dict(values)
        for (piece, plan), dead in zip(self.pieces, self.releases, strict=True):
            given = {n: memory[n] for n in piece.program.inputs if n in memory}
            given |= {load: memory[value] for load, value in piece.takes}
            if piece.turns:
                memory |= _Turn(piece, plan, given, frame).run([memory[value] for _, value, _ in piece.sends])
            else:
                memory |= zip(piece.gives, plan.run(given, frame), strict=True)
            for node in dead:
                memory.pop(node, None)
        # Pieces give numbers as they are computed.
        return self.results.own([memory[o] for o in self.outputs], values.values(), frame.dtype)


def _used(piece: ProgramPiece) -> list[Node]:
    """The values that a piece reads or makes."""
    taken = [value for _, value in piece.takes] + [value for _, value, _ in piece.sends]
    return [*piece.program.inputs, *taken, *piece.gives]


class _Turn:
    """One turn through all parts of the edges.

    given: a tensor for each load but for those that are fetched
    found: what the parts so far have given together
    """

    def __init__(
        self, piece: ProgramPiece, plan: KernelPlan | ReferencePlan, given: Mapping[Node, Tensor], frame: Frame
    ):
        assert isinstance(frame.graph, LocalGraph)
        self.piece, self.plan, self.given, self.frame, self.graph = piece, plan, given, frame, frame.graph
        self.wires = [WIRES[wire] for *_, wire in piece.sends]
        self.found: dict[Node, Tensor] = {}

    def run(self, sent: Sequence[Tensor]) -> dict[Node, Tensor]:
        """What all parts give together. ``sent`` are the values of own nodes that edges of others read."""
        own, *others = self.graph.parts
        # The own rows are there while the first of others are on their way; where none come, the last go meanwhile.
        parts = [own, *others] if sent else [*others, own]
        coming: Callable[[], list[Tensor]] | None = None
        going: list[Callable[[], None]] = []
        for part, following in zip(parts, [*parts[1:], None], strict=True):
            fetched = [value[: self.graph.num_sources] for value in sent] if coming is None else coming()
            coming = self._fetch(following, sent) if sent and following is not None else None
            given = {n: _rows(v, n.domain, part) for n, v in self.given.items()}
            given |= zip((load for load, *_ in self.piece.sends), fetched, strict=True)
            values = self.plan.run(given, self.frame._replace(graph=part.graph))
            self._put_all(dict(zip(self.piece.gives, values, strict=True)), part)
            del given, fetched
            sending = self._give_back(values, part)
            for finish in going:
                finish()
            going = sending
        for finish in going:
            finish()
        empty = sum(part.graph.in_degree for part in parts) == 0
        for key, value in self.found.items():
            if is_extreme(key) and key.domain is not Domain.SOURCE:
                _fill(value, empty, 0.0)  # type: ignore[arg-type]
            elif finds_winners(key) and key.domain is not Domain.SOURCE and key.attrs.reducer[:3] == "arg":
                self.found[key] = value.masked_fill(value == torch.iinfo(value.dtype).max, -1)
        return self.found

    def _fetch(self, part: WalkedPart, sent: Sequence[Tensor]) -> Callable[[], list[Tensor]]:
        assert part.rows is not None
        return halo.fetch(self.graph.halo, part.rows, sent, self.wires)

    def _give_back(self, values: Sequence[Tensor], part: WalkedPart) -> list[Callable[[], None]]:
        """What a part gives for rows of other processes, on its way to them; and what adds theirs to own rows."""
        keys = [(k, key) for k, key in enumerate(self.piece.gives) if key.op == "collect"]
        if part.rows is None or not keys:
            return []
        reducers = [key.attrs.reducer for _, key in keys]
        wires = [WIRES[key.attrs.wire] for _, key in keys]
        shared = self.graph.halo
        add = halo.give_back(shared, part.rows, [values[k] for k, _ in keys], reducers, wires)
        results = [self._result(key, values[k], shared.own) for k, key in keys]
        return [partial(one, result) for one, result in zip(add, results, strict=True)]

    def _result(self, key: Node, like: Tensor, rows: int) -> Tensor:
        """Where what parts give is put together, with as many rows."""
        if key not in self.found:
            nothing = _NOTHING[key.attrs.reducer] if key.op == "collect" else 0.0
            self.found[key] = like.new_full((rows, *like.shape[1:]), nothing)
        return self.found[key]

    def _put_all(self, values: dict[Node, Tensor], part: WalkedPart) -> None:
        """What a part gives, with what others have given."""
        at_targets = [key for key in values if key.op == "segment" and key.domain is not Domain.SOURCE]
        for key in at_targets:
            if is_extreme(key):
                _fill(values[key], part.graph.in_degree == 0, _NOTHING[key.attrs.reducer])
        winners = [key for key in at_targets if finds_winners(key)]
        for key in winners:
            values[key] = self._winners(key, values, part)
        for key, value in values.items():
            if key in winners:
                self.found[key] = value
            elif key in at_targets:
                self._combine(key, value, key.attrs.reducer)
            else:
                self._put(key, value, part)

    def _put(self, key: Node, value: Tensor, part: WalkedPart) -> None:
        if key.op == "collect":
            if part.rows is None:
                _combine(self._result(key, value, self.graph.halo.own), value, key.attrs.reducer)
        elif key.domain is Domain.EDGE:
            self._result(key, value, self.graph.num_edges).index_copy_(0, part.edges.long(), value)
        elif key.domain is Domain.SOURCE:
            self._result(key, value, self.graph.num_readable)[part.start : part.stop] = value
        else:
            self._combine(key, value, "sum")

    def _combine(self, key: Node, value: Tensor, reducer: str) -> None:
        if key in self.found:
            _combine(self.found[key], value, reducer)
        else:
            self.found[key] = value

    def _winners(self, key: Node, values: Mapping[Node, Tensor], part: WalkedPart) -> Tensor:
        """How many of the edges so far win, or which is the first, of the values that a part has and those before."""
        best, reducer, value = best_of(key), key.attrs.reducer, values[key]
        none = 0
        if reducer[:3] == "arg":
            none = torch.iinfo(value.dtype).max
            there = value >= 0
            edges = part.edges.index_select(0, value.clamp(min=0).flatten()) if len(part.edges) else value.flatten()
            value = edges.view(value.shape).to(value.dtype).masked_fill(~there, none)
        if key not in self.found:
            return value
        before, here = self.found[best], values[best]
        both = COMBINED[reducer[-3:]](before, here)
        old = self.found[key].where(wins(before, both), none)
        new = value.where(wins(here, both), none)
        return torch.minimum(old, new) if none else old + new


def _rows(value: Tensor, domain: Domain, part: WalkedPart) -> Tensor:
    """What a part has of a value."""
    if domain is Domain.SOURCE:
        return value[part.start : part.stop]
    return value.index_select(0, part.edges) if domain is Domain.EDGE else value


def _combine(result: Tensor, value: Tensor, reducer: str) -> None:
    COMBINED[reducer](result, value, out=result)


def _fill(value: Tensor, rows: Tensor, number: float) -> None:
    value.masked_fill_(rows.view(-1, *[1] * (value.dim() - 1)), number)
