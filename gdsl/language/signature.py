"""What a layer takes, from its text alone: the arguments of its constructor and of its call."""

from __future__ import annotations

import textwrap
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

from gdsl.language import ast
from gdsl.language.imports import sites
from gdsl.language.program import MAKERS, ConstantTable, Declaration, table_of
from gdsl.language.tree import CONSTANTS


@dataclass(frozen=True, slots=True)
class Input:
    """A tensor of the call. ``domain``: node, source, target, edge, graph or global; ``rank`` counts dims; ``real``: of
    floating-point numbers; ``within``: the graph or the set of nodes that it is of, where there are several."""

    name: str
    domain: str
    optional: bool
    default: float | None = None
    rank: int = 0
    real: bool = True
    within: str = ""


@dataclass(frozen=True, slots=True)
class Signature:
    """The two calls of a layer.

    arguments: of the constructor
    modules:   the torch modules it also takes, and whether each may be left out
    parts:     arguments that say whether there is an optional part: a param, a buffer or linear maps
    choices:   arguments that name the function which stands for a module
    tables:    arguments that give the numbers of a constant table
    inputs:    in the order of the call, without the graph
    free_dims: dims of inputs, linear maps and tables that no argument gives: their sizes come with the call, with the
        numbers of a table, or when compiling
    free_places: where the call gives them: input, place among its dims, dim
    table_places: where a table gives them: table, place among its dims, dim
    builds_graph: whether the layer makes its own edges, so that the call takes none
    batched:   whether values of whole graphs occur, so that the call takes the graph of each node
    inside:    the names of the layers that it calls, under which their parameters are
    graphs:    the names of the graphs of a call, where there are several
    """

    name: str
    arguments: tuple[ast.Parameter, ...]
    modules: tuple[tuple[str, bool], ...]
    parts: tuple[str, ...]
    choices: tuple[str, ...]
    tables: tuple[str, ...]
    inputs: tuple[Input, ...]
    free_dims: tuple[str, ...]
    free_places: tuple[tuple[str, int, str], ...]
    table_places: tuple[tuple[str, int, str], ...]
    builds_graph: bool
    batched: bool
    inside: tuple[str, ...] = ()
    graphs: tuple[str, ...] = ()

    def __repr__(self) -> str:
        arguments = ", ".join([*(p.name for p in self.arguments), *(name for name, _ in self.modules)])
        inputs = ", ".join(f"{i.domain} {i.name}" for i in (*self.before_graph, *self.after_graph))
        return textwrap.shorten(f"<Signature {self.name}({arguments}), called with {inputs}>", 300, placeholder=" ...>")

    def only(self, declared: Iterable[Declaration]) -> Signature:
        """Without the inputs that a layer with certain arguments does not declare."""
        types = {d.name: d.type for d in declared if d.type is not None}
        inputs = tuple(
            replace(i, domain=types[i.name].domain.value, rank=len(types[i.name].dims))
            for i in self.inputs
            if i.name in types
        )
        # An input that two branches declare may have other dims in each.
        places = tuple(
            (name, place, dim)
            for name, place, dim in dict.fromkeys(self.free_places)
            if name in types and types[name].names[place : place + 1] in ((dim,), (dim + "'",))
        )
        free = tuple(dim for dim in self.free_dims if any(dim == place[2] for place in places))
        return replace(self, inputs=inputs, free_dims=free, free_places=places)

    def sizes_of_tables(self, given: Mapping[str, Any]) -> dict[str, int]:
        """The sizes of free dims that the tables among these arguments say, the first of them that has the dim."""
        shapes = {name: t.shape for name in self.tables if isinstance(t := table_of(given.get(name)), ConstantTable)}
        found: dict[str, int] = {}
        for name, place, dim in self.table_places:
            if place < len(shapes.get(name, ())):
                found.setdefault(dim, shapes[name][place])
        return found

    @property
    def order(self) -> tuple[str, ...]:
        """The arguments of the constructor in their order, without sizes of free dims."""
        known = {p.name for p in self.arguments}
        return (
            *(p.name for p in self.arguments if p.required),
            *(name for name, optional in self.modules if not optional),
            *(p.name for p in self.arguments if not p.required),
            *(name for name, optional in self.modules if optional and name not in known),
        )

    @property
    def before_graph(self) -> tuple[Input, ...]:
        """Node and graph-level inputs: they come first in a call, the required ones before the others."""
        return _required_first([i for i in self.inputs if i.domain != "edge"])

    @property
    def after_graph(self) -> tuple[Input, ...]:
        """Edge inputs: they come after the graph."""
        return _required_first([i for i in self.inputs if i.domain == "edge"])


def _required_first(inputs: Sequence[Input]) -> tuple[Input, ...]:
    return tuple(sorted(inputs, key=lambda i: i.optional))


def signature_of(layer: ast.Layer) -> Signature:
    """Read both branches of every ``if``: what a layer takes, whatever its arguments; see :meth:`Signature.only`."""
    inputs: dict[str, Input] = {}
    modules: dict[str, bool] = {}
    parts: dict[str, None] = {}
    choices: dict[str, None] = {}
    tables: dict[str, None] = {}
    arguments = {p.name: p for p in layer.parameters}
    known = {p.name for p in layer.parameters} | set(CONSTANTS)
    free: dict[str, None] = {}
    places: list[tuple[str, int, str]] = []
    of_tables: list[tuple[str, int, str]] = []
    builds_graph = False
    for s in _statements(layer.body):
        if isinstance(s, ast.Declaration) and is_input(s):
            inputs.setdefault(s.name, input_of(s))
            found = tuple(_free_places(s, known))
            places += found
            free.update((dim, None) for _, _, dim in found)
        elif isinstance(s, ast.Module):
            modules.setdefault(s.name, s.optional or s.function is not None)
            if modules[s.name]:
                choices[s.name] = None
                arguments.setdefault(s.name, ast.Parameter(s.name, s.function, False, span=s.span))
        elif isinstance(s, ast.Owned):
            modules.setdefault(s.name, True)
            read = (t.id.rstrip("'") for size in s.sizes for t in ast.walk(size) if isinstance(t, ast.Name))
            free.update(dict.fromkeys(name for name in read if name not in known and not name.isdigit()))
        elif isinstance(s, ast.Constant) and s.dims:
            if s.value is None:
                tables[s.name] = None
                arguments.setdefault(s.name, ast.Parameter(s.name, span=s.span))
                found = tuple(_free_places(s, known))
                of_tables += found
                free.update((dim, None) for _, _, dim in found)
        elif isinstance(s, ast.Rule | ast.Constant):
            known.add(s.name)
        if is_optional_part(s):
            parts[s.name] = None
            arguments.setdefault(s.name, ast.Parameter(s.name, None, False, span=s.span))
        elif isinstance(s, ast.Transform) and s.name in MAKERS:
            builds_graph = True
    instances = (s.name for s in _statements(layer.body) if isinstance(s, ast.Instance))
    return Signature(
        layer.name,
        tuple(arguments.values()),
        tuple(modules.items()),
        tuple(parts),
        tuple(choices),
        tuple(tables),
        tuple(inputs.values()),
        tuple(free),
        tuple(places),
        tuple(of_tables),
        builds_graph,
        any(_is_of_graphs(tree) for one in ast.reached(layer) for tree in ast.walk(one)),
        tuple(dict.fromkeys((*instances, *sites(layer).values()))),
        tuple(link.name for s in layer.body if isinstance(s, ast.Graphs) for link in s.links),
    )


def _free_places(s: ast.Declaration | ast.Constant, known: Container[str]) -> Iterator[tuple[str, int, str]]:
    """The dims that are a name which stands for nothing else: what is declared, the place, the dim."""
    for place, d in enumerate(s.dims):
        if d.start is None and isinstance(d.size, ast.Name):
            base = d.size.id.rstrip("'")
            if base not in known and not base.isdigit():
                yield s.name, place, base


def is_input(s: ast.Declaration) -> bool:
    return s.role not in ("param", "buffer")


def input_of(s: ast.Declaration) -> Input:
    default = s.default.value if isinstance(s.default, ast.Number) else None
    real = s.kind is None or s.kind.name == "float"
    return Input(s.name, s.role, s.default is not None, default, len(s.dims), real, s.within)


def is_optional_part(s: ast.Statement) -> TypeGuard[ast.Declaration | ast.Owned]:
    """Whether a statement declares something of the layer's own that an argument of the same name may leave out."""
    if isinstance(s, ast.Declaration):
        return s.role in ("param", "buffer") and isinstance(s.default, ast.Nothing)
    return isinstance(s, ast.Owned) and s.optional


def _is_of_graphs(tree: ast.Tree) -> bool:
    """Whether a piece of the text has one value a graph of a batch."""
    if isinstance(tree, ast.Declaration):
        return tree.role == "graph"
    return (isinstance(tree, ast.Rule) and tree.kind == "pool") or (isinstance(tree, ast.Call) and tree.at == "g")


def _statements(body: Sequence[ast.Statement]) -> Iterator[ast.Statement]:
    for s in body:
        yield s
        if isinstance(s, ast.Loop):
            yield from _statements(s.body)
        elif isinstance(s, ast.Branch):
            yield from _statements(s.then)
            yield from _statements(s.otherwise)
