"""A program cut at the modules that run as they are."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from gdsl.ir import build
from gdsl.ir.node import Node, substitute, walk, walk_below
from gdsl.ir.program import Program
from gdsl.ir.types import Kind, Type


@dataclass(frozen=True)
class Stage:
    """A part of a program up to a module that runs as it is.

    program: its outputs are the operands of the module and what is kept, or, in the last stage, the layer's results
    module:  the module's name; None in the last stage
    result:  the name under which later stages load what the module gives
    takes:   the places among the outputs of the operands of the module
    kept:    the places among the outputs of what later stages load, too, and the names under which they do
    kind:    how the module runs, and at which end: see :class:`gdsl.ir.ops.libraries.Call`
    """

    program: Program
    module: str | None = None
    result: str = ""
    kind: str = ""
    end: str = ""
    type: Type | None = None
    takes: tuple[int, ...] = ()
    kept: tuple[tuple[int, str], ...] = ()


def cut(program: Program) -> tuple[Stage, ...]:
    """Cut a program at the modules that run as they are: each stage computes the operands of the next one.

    Products and reductions that a later stage reads, too, are kept for it; what little there is between it has again.
    """
    stages: list[Stage] = []
    mapping: dict[Node, Node] = {}
    calls = [n for n in walk(program.nodes) if n.op == "call"]
    for number, call in enumerate(calls):
        result = f"{call.attrs.module}.{len(stages)}"
        later = [i for other in calls[number + 1 :] for i in other.inputs] + list(program.nodes)
        shared = _shared(call.inputs, later, {*mapping, call})
        results = list(dict.fromkeys([*call.inputs, *shared]))
        found = substitute(results, mapping)
        names = {node: f"{result}.{k}" for k, node in enumerate(results)}
        outputs = tuple((names[node], found[node]) for node in results)
        stage = Program(f"{program.name}_{len(stages)}", outputs, _renamed(program, found))
        kept = tuple((results.index(node), names[node]) for node in shared)
        operands = tuple(results.index(node) for node in call.inputs)
        attrs = call.attrs
        stages.append(Stage(stage, attrs.module, result, attrs.kind, attrs.end, call.type, operands, kept))
        mapping[call] = build.load(result, call.type, "input")
        mapping |= {node: build.load(names[node], node.type, "input") for node in shared}
    last = substitute(program.nodes, mapping)
    final = program.mapped(last) if stages else program
    return (*stages, Stage(final))


def _shared(operands: Sequence[Node], later: Sequence[Node], known: Collection[Node]) -> list[Node]:
    """The products and reductions below operands that later stages would compute again; ``known`` is loaded there."""
    reached = _below(later, known)
    heavy = [n for n in _below(operands, known) if n in reached and _is_heavy(n)]
    kept: list[Node] = []
    for node in reversed(heavy):  # what is kept is not looked into
        if not kept or node in _below(later, {*known, *kept}):
            kept.append(node)
    return kept


def _is_heavy(node: Node) -> bool:
    return node.op in ("contract", "segment") and node.kind is Kind.FLOAT


def _below(nodes: Sequence[Node], known: Collection[Node]) -> dict[Node, None]:
    """What values are computed from, each after its operands; nothing below what is known."""
    return dict.fromkeys(walk_below(nodes, lambda n: () if n in known else n.inputs))


def _renamed(program: Program, mapping: Mapping[Node, Node]) -> dict[Node, str]:
    return {mapping[n]: name for n, name in program.names.items() if n in mapping}
