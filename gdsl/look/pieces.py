"""A typed program on several graphs as typed programs on one each."""

from __future__ import annotations

from dataclasses import dataclass

from gdsl.ir.node import Node
from gdsl.ir.program import Program
from gdsl.ir.spaces import Spaces
from gdsl.ir.types import ELEMENTS, Domain
from gdsl.language.program import Declaration, TypedProgram
from gdsl.passes.graphs import GraphPiece, pieces_of


@dataclass(frozen=True, slots=True, eq=False)
class Pieces:
    """What a typed program on several graphs runs.

    parts:   the pieces in their order, each with the typed program that it is
    results: the names of the layer's results among what they give
    places:  the set of nodes or the graph that each result is of; None of one of neither
    """

    parts: tuple[tuple[GraphPiece, TypedProgram], ...]
    results: tuple[str, ...]
    places: tuple[str | None, ...]

    @property
    def are_by_type(self) -> bool:
        """Whether the results can be told apart by what they are of."""
        return None not in self.places and len(set(self.places)) == len(self.places)

    def __repr__(self) -> str:
        return f"<Pieces {', '.join(piece.program.name for piece, _ in self.parts)}>"


def pieces(typed: TypedProgram) -> Pieces:
    """A typed program, cut."""
    within = {d.name: d.within for d in typed.declarations if d.within}
    found, results = pieces_of(typed.program, typed.graphs, within)
    spaces = typed.spaces
    places = tuple(_place(spaces, node) for _, node in typed.outputs)
    return Pieces(tuple((piece, _typed(typed, piece)) for piece in found), results, places)


def programs_of(typed: TypedProgram) -> tuple[Program, ...]:
    """What is compiled of a typed program: itself, or its pieces."""
    return tuple(piece.program for piece, _ in pieces(typed).parts) if typed.graphs else (typed.program,)


def _place(spaces: Spaces, x: Node) -> str | None:
    return (spaces.of(x) or "") if x.domain in (Domain.NODE, *ELEMENTS) else None


def _typed(typed: TypedProgram, piece: GraphPiece) -> TypedProgram:
    """A piece as a layer of its own."""
    known = {d.name: d for d in typed.declarations}
    loads = {n.attrs.name: n.type for n in piece.program.inputs if n.attrs.role != "seed"}
    declared = []
    for name, type in loads.items():
        d = known.get(name)
        declared.append(Declaration(name, "input", type) if d is None else d)
    # What runs as it is has no tensor among the loads.
    modules = typed.of_role("module")
    nodes = set(loads.values())
    return TypedProgram(
        name=piece.program.name,
        arguments=typed.arguments,
        declarations=(*declared, *modules),
        transforms=(),
        rules=(),
        outputs=piece.program.outputs,
        names=piece.program.names,
        bipartite=any(type.domain in (Domain.SOURCE, Domain.TARGET) for type in nodes),
        uses_seed=any(n.attrs.role == "seed" for n in piece.program.inputs),
        training=typed.training,
        doc=typed.doc,
    )
