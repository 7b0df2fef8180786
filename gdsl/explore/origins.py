"""Which line of the text a value comes from, and so each kernel and each line of generated code.

Nodes are shared and carry no places. But every pass carries names along, and the code generators write them: so the
program is compiled once more with names that say a line, and what comes out has the same nodes, kernels and lines of
code as what the page shows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import torch

from gdsl.ir.node import Node, users, walk
from gdsl.ir.program import Program
from gdsl.language import ast
from gdsl.language.program import TypedProgram
from gdsl.look.kernels import Inspection
from gdsl.look.pieces import programs_of
from gdsl.passes.options import Options
from gdsl.passes.pipeline import optimise
from gdsl.passes.stages import cut

_LABEL, _IN = "srcline{}", re.compile(r"srcline(\d+)")
# What is assigned to, in a line of C++ or of Triton.
_ASSIGNED = re.compile(r"^([^=(]*?) [-+*|&]?= ")


_INDENT = "    "
# What belongs to the function as a whole, and ends of blocks.
_FRAME = re.compile(r"""$|[})]|extern "C"|@triton|def |int64_t num_blocks|const idx_t\* __restrict__ rowptr""")


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip())


def _line_in(text: str) -> int | None:
    found = _IN.search(text)
    return int(found.group(1)) if found else None


def lines_of_values(typed: TypedProgram, layer: ast.Layer) -> dict[Node, int]:
    """The line of the statement that first says each value."""
    declared = {d.name: d.span.line for d in typed.declarations if d.span is not ast.NOWHERE}
    declared |= {d.name: declared[d.module] for d in typed.declarations if d.module in declared}
    statements = [(rule.node, rule.span.line) for rule in typed.rules]
    results = next((s.span.line for s in layer.body if isinstance(s, ast.Return)), layer.span.line)
    found: dict[Node, int] = {}
    for root, line in (*statements, *((node, results) for _, node in typed.outputs)):
        for node in walk([root]):
            own = declared.get(node.attrs.name, line) if node.op == "load" else line
            found.setdefault(node, own)
    return found


class Origins:
    """The lines that the values of a program and of its gradients come from."""

    def __init__(self, typed: TypedProgram, layer: ast.Layer, options: Options):
        self.first = lines_of_values(typed, layer)
        names = {node: _LABEL.format(line) for node, line in self.first.items()}
        self.parts = programs_of(replace(typed, names=names))
        programs = [s.program for part in self.parts for s in cut(optimise(part, options))]
        self.labelled = Inspection(typed, programs, torch.float32, torch.int32, options)
        self.labelled.__dict__["planned"] = [
            replace(p, plan=replace(p.plan, program=_complete(p.plan.program))) for p in self.labelled.planned
        ]

    @cached_property
    def lines(self) -> Mapping[Node, int]:
        """The line of each node before the passes, after them and in the plans."""
        found = dict(self.first)
        programs = [*self.parts, *self.labelled.programs, *(a.program for a in self.labelled.adjoints)]
        for program in (*(p for _, p in self._plans), *map(_complete, programs)):
            for node, name in program.names.items():
                line = _line_in(name)
                if line is not None:
                    found.setdefault(node, line)
        return found

    @property
    def _plans(self) -> Iterator[tuple[str, Program]]:
        return ((direction, plan.program) for direction, plan in self.labelled.plans)


def _complete(program: Program) -> Program:
    """With a name for every node: what has none is there for what reads it."""
    read_by = users(program.nodes)
    names = dict(program.names)
    for node in reversed(list(walk(program.nodes))):
        if _line_in(names.get(node, "")) is None:
            lines = (_line_in(names.get(user, "")) for user in read_by[node])
            line = next((n for n in lines if n is not None), None)
            if line is not None:
                names[node] = _LABEL.format(line)
    return Program(program.name, program.outputs, names)


def lines_of_code(source: str, labelled: str) -> list[int | None]:
    """The line of the text for each line of a function, from the same function with labels for names.

    A line that assigns belongs to what it assigns to; where that has no label, as a counter or a sum on the way, it is
    there for the next line that has one.
    """
    parts, others = _statements(source), _statements(labelled)
    if len(parts) != len(others):
        return [None] * len(source.splitlines())
    written = source.splitlines()
    found: list[int | None] = []
    waiting = 0
    for lines, text in zip(parts, map(" ".join, others), strict=True):
        assigned = _ASSIGNED.match(text)
        line = _line_in(assigned.group(1) if assigned else text)
        if line is not None:
            depth = _depth(lines[0])
            for k in range(len(found) - waiting, len(found)):
                found[k] = line if _depth(written[k]) >= depth - len(_INDENT) else None
        waits = line is None and not _FRAME.match(text.strip())
        waiting = waiting + len(lines) if waits else 0
        found += [line] * len(lines)
    return found


def _statements(source: str) -> list[list[str]]:
    """The lines of a function; those of a call in Triton that is broken by its width together."""
    found: list[list[str]] = []
    open_ = 0
    for line in source.splitlines():
        if open_ > 0:
            found[-1].append(line)
        else:
            found.append([line])
        if not line.lstrip().startswith(("#", "//", "def ", 'extern "C"')):
            open_ = max(0, open_ + sum(map(line.count, "([")) - sum(map(line.count, ")]")))
    return found


def lines_of_nodes(nodes: Sequence[Node], lines: Mapping[Node, int]) -> list[int]:
    """The lines of some values, each once, in order."""
    return sorted({lines[n] for n in nodes if n in lines})
