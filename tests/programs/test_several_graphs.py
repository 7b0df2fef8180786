"""Random programs on two graphs with the same edges: as on one graph, whichever of the two each rule is over."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from itertools import chain

import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, given, seed, settings
from hypothesis import strategies as st

from gdsl.ir.types import ELEMENTS
from gdsl.language import ast
from gdsl.language.format import format_program, format_text
from gdsl.language.parse import syntax
from tests.programs import harness
from tests.programs.random_texts import SIZES, Case, cases, inputs
from tests.typed import typed_of

COUNT = int(os.environ.get("GDSL_PROGRAMS", "40"))
GRAPHS = ("one", "other")


class Split:
    """Says of each rule of a layer which of two graphs it is over."""

    def __init__(self, layer: ast.Layer, edges: set[str], draw: random.Random):
        self.layer, self.draw = layer, draw
        self.edges, self.of = edges, dict[str, str]()
        self.reads = {s.name: s for s in ast.walk(layer) if isinstance(s, ast.Function | ast.Reducer)}

    def made(self) -> ast.Layer:
        named = ast.Graphs(tuple(map(ast.Link, GRAPHS)))
        return replace(self.layer, body=(named, *chain.from_iterable(map(self.statements, self.layer.body))))

    def graph(self, *trees: ast.Tree, name: str = "") -> str:
        """The graph of the edge values that are read, one of the two where none is."""
        found = {self.of[n] for n in (*self.names(trees), name) if n in self.of}
        assume(len(found) < 2)
        return found.pop() if found else self.draw.choice(GRAPHS)

    def names(self, trees: tuple[ast.Tree, ...]) -> set[str]:
        pending, found = list(trees), set[str]()
        while pending:
            for t in ast.walk(pending.pop()):
                name = t.id if isinstance(t, ast.Name) else t.function if isinstance(t, ast.Call) else None
                if name is not None and name not in found:
                    found.add(name)
                    pending += [self.reads[name]] if name in self.reads else []
        return found

    def statements(self, s: ast.Statement) -> tuple[ast.Statement, ...]:
        """What a result is computed of is over a graph, as a rule."""
        if not isinstance(s, ast.Return):
            return (self.statement(s),)
        named = [(e.id if isinstance(e, ast.Name) else f"result_{k}", e) for k, e in enumerate(s.values)]
        rules = [ast.Rule("", name, e, self.graph(e)) for name, e in named if not isinstance(e, ast.Name)]
        return (*rules, replace(s, values=tuple(ast.Name(name) for name, _ in named)))

    def statement(self, s: ast.Statement) -> ast.Statement:
        if isinstance(s, ast.Declaration) and s.role == "edge":
            self.of[s.name] = self.graph(name=s.name)
            return replace(s, within=self.of[s.name])
        if isinstance(s, ast.Rule):
            graph = self.graph(s.value, name=s.name if s.name in self.edges else "")
            if s.name in self.edges:
                self.of[s.name] = graph
            return replace(s, over=graph)
        if isinstance(s, ast.Loop):
            return replace(s, body=tuple(map(self.statement, s.body)))
        if isinstance(s, ast.Branch):
            then, otherwise = (tuple(map(self.statement, block)) for block in (s.then, s.otherwise))
            return replace(s, then=then, otherwise=otherwise)
        return s


def on_two(case: Case, number: int) -> Case:
    """The case with its last layer on two graphs. Cases are left out that ask something of their graph."""
    program = syntax(case.text)
    layer = program.layers[-1]
    roles = {s.role for s in ast.walk(layer) if isinstance(s, ast.Declaration)}
    assume(not roles & {"source", "target"} and not any(isinstance(s, ast.Transform) for s in ast.walk(layer)))
    made = case.layer("torch")
    free = {n: made.free_sizes.get(n, SIZES["free"]) for n in made.signature.free_dims}
    every = frozenset(i.name for i in made.signature.inputs if i.optional)
    ways = [typed_of(made, training=case.training, present=some, free=free) for some in (case.passed, every)]
    # Of each graph other random numbers are drawn.
    assume(not ways[0].requires and not ways[0].uses_seed)
    # A rule may be of edges only where an optional input is passed.
    edges = {r.name for typed in ways for r in typed.rules if r.node.domain in ELEMENTS}
    split = Split(layer, edges, random.Random(number)).made()
    text = format_program(replace(program, layers=(*program.layers[:-1], split), source=""))
    assert format_text(text) == text
    return replace(case, text=text)


def compare(case: Case, number: int) -> None:
    two = on_two(case, number)
    made = case.layer("torch")
    values = inputs(made, case)
    torch.manual_seed(7)
    expected = harness.run(made, values)
    graph = values.pop("graph")
    torch.manual_seed(7)
    found = harness.run(two.layer("torch"), values | dict.fromkeys(GRAPHS, graph))
    gap = max(harness.difference(a, b) for a, b in zip(found, expected, strict=True))
    assert gap < 1e-8, f"{two.text}\n{gap}"


@pytest.mark.parametrize("shard", range(-(-COUNT // 1000)))
def test_random_programs(shard: int) -> None:
    run = settings(
        max_examples=12 if COUNT < 1000 else 250, database=None, deadline=None, suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )(given(cases(), st.integers(0, 9))(compare))  # fmt: skip
    seed(shard)(run)()
