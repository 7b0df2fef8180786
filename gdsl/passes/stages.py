"""A program cut at the modules that run as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gdsl.ir import build
from gdsl.ir.node import Node, substitute, walk
from gdsl.ir.program import Program
from gdsl.ir.types import Type


@dataclass(frozen=True)
class Stage:
    """A part of a program up to a module that runs as it is.

    program: its outputs are the operands of the module, or, in the last stage, the results of the layer
    module:  the module's name; None in the last stage
    result:  the name under which later stages load what the module gives
    kind:    how the module runs, and at which end: see :class:`gdsl.ir.ops.libraries.Call`
    """

    program: Program
    module: str | None = None
    result: str = ""
    kind: str = ""
    end: str = ""
    type: Type | None = None


def cut(program: Program) -> tuple[Stage, ...]:
    """Cut a program at the modules that run as they are: each stage computes the operands of the next one."""
    stages: list[Stage] = []
    mapping: dict[Node, Node] = {}
    for call in [n for n in walk(program.nodes) if n.op == "call"]:
        result = f"{call.attrs.module}.{len(stages)}"
        operands = substitute(call.inputs, mapping)
        outputs = tuple((f"{result}.{k}", operands[i]) for k, i in enumerate(call.inputs))
        stage = Program(f"{program.name}_{len(stages)}", outputs, _renamed(program, operands))
        stages.append(Stage(stage, call.attrs.module, result, call.attrs.kind, call.attrs.end, call.type))
        mapping[call] = build.load(result, call.type, "input")
    last = substitute(program.nodes, mapping)
    final = program.with_outputs([last[n] for n in program.nodes], last) if stages else program
    return (*stages, Stage(final))


def _renamed(program: Program, mapping: Mapping[Node, Node]) -> dict[Node, str]:
    return {mapping[n]: name for n, name in program.names.items() if n in mapping}
