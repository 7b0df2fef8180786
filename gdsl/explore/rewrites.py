"""The program before and after each rule that fired, one step after another."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from gdsl.explore.making import Making
from gdsl.ir.node import Node, substitute, walk
from gdsl.ir.printer import expression, name_nodes
from gdsl.ir.program import Program
from gdsl.look.accounts import saved_by
from gdsl.look.kernels import Inspection
from gdsl.passes import algebra, distribute, hoist, layout, picks, reassociate, simplify, vendor
from gdsl.passes.estimate import Work
from gdsl.passes.options import GraphShape
from gdsl.passes.rewrite import Fired

_PASSES: tuple[types.ModuleType, ...] = (algebra, distribute, hoist, layout, picks, reassociate, simplify, vendor)
# Steps that are shown, and values in all of their states together: a program of very many operations fires more rules
# than anyone reads.
MOST_STEPS, MOST_VALUES = 200, 20_000
# The step after the last one that is shown by itself.
REST = "and more"


@functools.cache
def equations() -> Mapping[str, str]:
    """``before --> after`` of each rule: the first line of its docstring."""
    functions = (f for module in _PASSES for f in vars(module).values() if isinstance(f, types.FunctionType))
    return {f.__name__: f.__doc__.split("\n")[0] for f in functions if f.__doc__ and "-->" in f.__doc__}


def rewrites(making: Making) -> list[dict[str, Any]]:
    """The rules that fired: for the forward program, the backward one, and before kernels are made.

    A section's ``states`` are the program at its start and after each step, as numbers of lines of ``texts``; a state
    that is the one before has no step.
    """
    found, shape = making.inspection, making.options.shape
    typed, programs = found.typed, found.programs
    raw = Inspection(typed, programs, found.dtype, found.index, replace(found.options, optimise=False)).adjoints
    adjoints = [a.program for a in found.adjoints]
    planned = [plan.program for _, plan in found.plans]
    parts = [
        ("forward", making.parts, making.optimised, making.log),
        ("backward", [a.program for a in raw], adjoints, found.backward_log),
        ("before kernels", [*found.kept, *(p for p in adjoints if p.outputs)], planned, found.last_log),
    ]
    sections = []
    for title, start, end, log in parts:
        replay = _Replay(_joined(start), shape, making.origins.lines)
        replay.all(log, [n for p in end for n in p.nodes])
        sections.append({"title": title, "texts": list(replay.texts), "states": replay.states, "steps": replay.steps})
    return sections


def _joined(programs: Iterable[Program]) -> Program:
    """Programs as one."""
    found = list(programs)
    names = {n: name for p in reversed(found) for n, name in p.names.items()}
    return Program(found[0].name, tuple(o for p in found for o in p.outputs), names)


class _Replay:
    """Applies what fired to a program again, one rule at a time."""

    def __init__(self, program: Program, shape: GraphShape, lines: Mapping[Node, int]):
        self.program, self.shape, self.lines = program, shape, lines
        self.texts: dict[tuple[str, str, int | None], int] = {}
        self.states = [self.state()]
        self.steps: list[dict[str, Any]] = []

    def all(self, log: Sequence[Fired], end: Sequence[Node]) -> None:
        values = len(list(walk(self.program.nodes)))
        for fired in log[: min(MOST_STEPS, MOST_VALUES // max(values, 1))]:
            # The engine rewrites in rounds: a rule may have been applied by an earlier step here already.
            if fired.before in set(walk(self.program.nodes)):
                self.step(fired)
        if self.program.nodes != tuple(end):
            names = [name for name, _ in self.program.outputs]
            self.go_to(replace(self.program, outputs=tuple(zip(names, end, strict=True))))
            self.note(REST, "", "", "", Work(), None)

    def step(self, fired: Fired) -> None:
        names = name_nodes(self.program)
        outer = {n: name for n, name in names.items() if n is not fired.before}
        before = expression(fired.before, outer)
        mapping = substitute(self.program.nodes, {fired.before: fired.after})
        self.go_to(self.program.mapped(mapping))
        names = name_nodes(self.program)
        after = expression(fired.after, {n: name for n, name in names.items() if n is not fired.after})
        saved, line = saved_by(fired, self.shape), self.lines.get(fired.before)
        self.note(fired.rule, equations().get(fired.rule, ""), before, after, saved, line)

    def go_to(self, program: Program) -> None:
        self.program = program
        self.states.append(self.state())

    def note(self, rule: str, equation: str, before: str, after: str, saved: Work, line: int | None) -> None:
        told = {"rule": rule, "equation": equation, "before": before, "after": after, "line": line}
        self.steps.append({**told, "operations": saved.operations, "bytes": saved.bytes})

    def state(self) -> list[int]:
        return [self.texts.setdefault(line, len(self.texts)) for line in equations_of(self.program, self.lines)]


def equations_of(program: Program, lines: Mapping[Node, int]) -> Iterator[tuple[str, str, int | None]]:
    """One equation a value, its type and the line of the text that it is for; the results at the end."""
    names = name_nodes(program)
    for node, name in names.items():
        if node.op != "load":
            yield f"{name} = {expression(node, names)}", str(node.type), lines.get(node)
    results = [(name, names.get(node) or expression(node, names)) for name, node in program.outputs]
    yield "return " + ", ".join(name if name == text else f"{name} = {text}" for name, text in results), "", None
