"""Random programs on two graphs, of which one may have the edges the other way round, and on sets of nodes: as on one
graph, whichever of the two each rule is over."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from dataclasses import fields, replace
from itertools import chain
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, given, seed, settings
from hypothesis import strategies as st

import gdsl
from gdsl.ir.types import ELEMENTS, Domain
from gdsl.language import ast
from gdsl.language.errors import LanguageError
from gdsl.language.format import format_program, format_text
from gdsl.language.functions import ORDERED_REDUCERS, SEGMENT_REDUCERS
from gdsl.language.parse import syntax
from tests.programs import harness
from tests.programs.random_texts import SIZES, Case, cases, inputs
from tests.typed import typed_of

COUNT = int(os.environ.get("GDSL_PROGRAMS", "40"))
WEIGHTS = {"softmax", "log_softmax", "sparsemax", "topk"}  # functions over the edges of a node that give edge values
OTHER_END = {"i": "j", "j": "i", "ji": "kj", "kj": "ji"}


class Flip:
    """Writes expressions for edges that go the other way: what is read at one end is read at the other.

    pairs: names of values of pairs
    folds: names of reducers that the layer has itself
    """

    def __init__(self, pairs: set[str], folds: set[str]):
        self.pairs = pairs
        self.reducers = {*SEGMENT_REDUCERS, *ORDERED_REDUCERS, *folds, "argmax"}

    def __call__(self, e: Any) -> Any:
        if isinstance(e, tuple):
            return tuple(map(self, e))
        if not isinstance(e, ast.Tree):
            return e
        made = replace(e, **{f.name: self(getattr(e, f.name)) for f in fields(e) if f.name != "span"})
        if isinstance(made, ast.Subscript):
            return replace(made, indices=tuple(map(self._end, made.indices)))
        if isinstance(made, ast.Call) and made.function == "degree":
            return replace(made, arguments=tuple(map(self._end, made.arguments)))
        if isinstance(e, ast.Call) and self._is_over_edges(e):
            return replace(made, at=OTHER_END[e.at or ("ji" if self._of_pairs(e.arguments[0]) else "i")])
        return made

    @staticmethod
    def _end(e: ast.Tree) -> ast.Tree:
        return ast.Name(OTHER_END[e.id]) if isinstance(e, ast.Name) and e.id in OTHER_END else e

    def _is_over_edges(self, e: ast.Call) -> bool:
        least = e.function in ("max", "min") and len(e.arguments) > 1
        return not e.over and not least and e.function in self.reducers | WEIGHTS

    def _of_pairs(self, e: ast.Tree) -> bool:
        if isinstance(e, ast.Name):
            return e.id in self.pairs
        if isinstance(e, ast.Subscript) and any(isinstance(i, ast.Name) and i.id in ("kj", "ji") for i in e.indices):
            return True
        if isinstance(e, ast.Call) and self._is_over_edges(e) and e.function not in WEIGHTS:
            return False
        return any(map(self._of_pairs, ast.children(e)))


class Split:
    """Says of each rule of a layer which of two graphs it is over.

    edges: names of values of edges
    sets:  of the nodes at the source and the target; none where no set is named
    flips: the graphs whose edges go the other way
    """

    def __init__(self, layer: ast.Layer, edges: set[str], flip: Flip, sets: tuple[str, ...], draw: random.Random):
        self.layer, self.draw, self.flip, self.sets = layer, draw, flip, sets
        self.edges, self.of = edges, dict[str, str]()
        trees = list(ast.walk(layer))
        self.reads = {s.name: s for s in trees if isinstance(s, ast.Function | ast.Reducer)}
        self.called = {s.name for s in trees if isinstance(s, ast.Instance)}

    def made(self) -> ast.Layer:
        ends = tuple(map(ast.Name, self.sets))
        named = (ast.Graphs((ast.Link("one", *ends), ast.Link("back", *reversed(ends)))),)
        if self.sets:
            named = (ast.Sets(tuple(map(ast.Name, dict.fromkeys(self.sets)))), *named)
        return replace(self.layer, body=(*named, *chain.from_iterable(map(self.statements, self.layer.body))))

    def graph(self, *trees: ast.Tree, name: str = "") -> str:
        """The graph of the edge values that are read, one of the two where none is."""
        names = self.names(trees)
        found = {self.of[n] for n in (*names, name) if n in self.of} | ({"one"} if names & self.called else set())
        assume(len(found) < 2)
        return found.pop() if found else self.draw.choice(("one", "back"))

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
        rules = [self.statement(ast.Rule("", name, e)) for name, e in named if not isinstance(e, ast.Name)]
        return (*rules, replace(s, values=tuple(ast.Name(name) for name, _ in named)))

    def statement(self, s: ast.Statement) -> ast.Statement:
        if isinstance(s, ast.Declaration):
            return self.declaration(s)
        if isinstance(s, ast.Rule):
            graph = self.graph(s.value, name=s.name if s.name in self.edges else "")
            if s.name in self.edges:
                self.of[s.name] = graph
            return replace(s, over=graph, value=self.read(s.value, graph) if s.kind != "pool" else s.value)
        if isinstance(s, ast.Function) and self.names((s,)) & self.of.keys():
            return replace(s, body=self.read(s.body, self.graph(s.body)))
        if isinstance(s, ast.Loop):
            return replace(s, body=tuple(map(self.statement, s.body)))
        if isinstance(s, ast.Branch):
            then, otherwise = (tuple(map(self.statement, block)) for block in (s.then, s.otherwise))
            return replace(s, then=then, otherwise=otherwise)
        return s

    def read(self, e: ast.Expression, graph: str) -> Any:
        return self.flip(e) if graph == "back" else e

    def declaration(self, s: ast.Declaration) -> ast.Declaration:
        if s.role == "edge":
            self.of[s.name] = self.graph(name=s.name)
            return replace(s, within=self.of[s.name])
        if s.role in ("node", "source", "target") and self.sets:
            return replace(s, role="node", within=self.sets[s.role == "target"])
        return s


def on_two(case: Case, number: int) -> Case:
    """The case with its last layer on two graphs. Cases are left out that ask something of their graph."""
    program = syntax(case.text)
    layer = program.layers[-1]
    assume(not any(isinstance(s, ast.Transform) for s in ast.walk(layer)))
    made = case.layer("torch")
    free = {n: made.free_sizes.get(n, SIZES["free"]) for n in made.signature.free_dims}
    every = frozenset(i.name for i in made.signature.inputs if i.optional)
    ways = [typed_of(made, training=case.training, present=some, free=free) for some in (case.passed, every)]
    # Of each graph other random numbers are drawn.
    assume(not ways[0].requires and not ways[0].uses_seed)
    # A rule may be of edges only where an optional input is passed.
    rules = [r for typed in ways for r in typed.rules]
    flip = Flip(
        {r.name for r in rules if r.node.domain is Domain.PAIR},
        {s.name for s in ast.walk(layer) if isinstance(s, ast.Reducer)},
    )
    draw = random.Random(number)
    sets = ("here", "there") if ways[0].bipartite else draw.choice(((), ("all", "all")))
    split = Split(layer, {r.name for r in rules if r.node.domain in ELEMENTS}, flip, sets, draw).made()
    text = format_program(replace(program, layers=(*program.layers[:-1], split), source=""))
    assert format_text(text) == text
    return replace(case, text=text)


def both(graph: gdsl.Graph) -> Mapping[str, gdsl.Graph]:
    return {"one": graph, "back": gdsl.Graph(graph.edge_index.flip(0), (graph.num_targets, graph.num_sources))}


def compare(case: Case, number: int) -> None:
    two = on_two(case, number)
    made = case.layer("torch")
    values = inputs(made, case)
    torch.manual_seed(7)
    expected = harness.run(made, values)
    graph = values.pop("graph")
    torch.manual_seed(7)
    try:
        made = two.layer("torch")
    except LanguageError as error:
        # A target's value in a layer on one graph, where nothing says so but the rule's place.
        assume("no telling how many" not in str(error))
        raise
    found = harness.run(made, values | both(graph))
    gap = max(harness.difference(a, b) for a, b in zip(found, expected, strict=True))
    assert gap < 1e-8, f"{two.text}\n{gap}"


@pytest.mark.parametrize("shard", range(-(-COUNT // 1000)))
def test_random_programs(shard: int) -> None:
    run = settings(
        max_examples=12 if COUNT < 1000 else 250, database=None, deadline=None, suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )(given(cases(), st.integers(0, 9))(compare))  # fmt: skip
    seed(shard)(run)()
