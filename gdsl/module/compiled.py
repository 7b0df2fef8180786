"""A layer's call as torch.compile and torch.export trace it: operators of torch, and modules between.

While a call is traced no value is known, and nothing but tensors may be made: the graph is its edges and sizes, and the
compiler runs beforehand, in functions whose results the tracer takes for constants.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from gdsl.errors import InputError
from gdsl.ir.node import Node
from gdsl.ir.program import Program
from gdsl.ir.types import Domain
from gdsl.language.parts import aggregate, can_be_read
from gdsl.language.program import TypedProgram
from gdsl.language.signature import Signature
from gdsl.module.operators import Call
from gdsl.passes.options import Options
from gdsl.passes.pipeline import optimise
from gdsl.passes.stages import Stage, cut
from gdsl.runtime.dtypes import autocast, lower
from gdsl.runtime.graph import Graph
from gdsl.runtime.order import listed
from gdsl.runtime.rewire import edge_values
from gdsl.runtime.tracers import run_as_it_is

# What names a way of calling: whether in training, the inputs that are there, sizes of dims by name, and more.
Key = Any
# Numbers, names and tuples of them, which is all that a tracer takes for constant.
Plan = tuple[Any, ...]

NEAREST = -1

Method = TypeVar("Method", bound=Callable[..., Any])


def constant_for_tracer(method: Method) -> Method:
    """What ``torch.compiler.assume_constant_result`` does, without importing the tracer: that takes over a second, and
    only those who trace should pay for it."""
    method._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return run_as_it_is(method)


@dataclass(frozen=True)
class TracedGraph:
    """Edges, sizes, and what is to be done to them: what stands for a :class:`gdsl.Graph` while a call is traced.

    edges: [2, E] of any integer dtype, the tensor that was given or that a graph holds: a compiled call that gets the
           same one again finds its edges sorted
    """

    edges: Tensor
    num_sources: Any
    num_targets: Any

    @property
    def edge_index(self) -> Tensor:
        return self.edges.long()

    @property
    def num_edges(self) -> Any:
        return self.edges.shape[1]

    @property
    def is_bipartite(self) -> Any:
        return self.num_sources != self.num_targets

    @property
    def num_nodes(self) -> Any:
        """Of a graph that is not bipartite, which is for the layer to see to."""
        return self.num_targets

    @property
    def device(self) -> torch.device:
        return self.edges.device

    def with_edges(self, edge_index: Tensor) -> TracedGraph:
        """Other edges between the same nodes."""
        return TracedGraph(edge_index, self.num_sources, self.num_targets)

    def add_self_loops(self) -> TracedRewired:
        """As :meth:`gdsl.Graph.add_self_loops`, in the same order."""
        edges = self.edge_index
        kept, target, _ = torch.ops.gdsl.rewired("add_self_loops", self.edges, self.num_sources, self.num_targets)
        added = torch.arange(min(self.num_sources, self.num_targets), device=edges.device)
        made = self.with_edges(torch.cat([edges.index_select(1, kept), torch.stack([added, added])], dim=1))
        return TracedRewired(made, kept, added, None, target)

    def reverse(self) -> TracedGraph:
        """The graph with every edge turned round. Its edges are new, and sorted anew, in each call."""
        return TracedGraph(self.edges.flip(0), self.num_targets, self.num_sources)

    def repeat(self, times: int) -> TracedGraph:
        """So many copies of the graph side by side, as one graph."""
        copy = torch.arange(times, device=self.edge_index.device)
        first = torch.stack([copy * self.num_sources, copy * self.num_targets])
        edges = (self.edge_index.unsqueeze(1) + first.unsqueeze(2)).flatten(1)
        return TracedGraph(edges, times * self.num_sources, times * self.num_targets)


@dataclass(frozen=True)
class TracedRewired:
    """What stands for a :class:`gdsl.runtime.graph.Rewired` while a call is traced."""

    graph: TracedGraph
    kept: Tensor
    added: Tensor
    loop_edge: Tensor | None
    target: Tensor

    @property
    def num_edges(self) -> Any:
        return self.target.shape[0]


def traced_graph(given: Any, sources: Any, targets: Any) -> TracedGraph:
    """The graph that was given to a traced call, of sizes as the features tell.

    Raises :class:`gdsl.InputError` for what a traced call cannot take.
    """
    if isinstance(given, TracedGraph):
        return given
    if isinstance(given, Graph):
        # Without what makes its parts once: a tracer cannot follow locks.
        edges = given._edges
        held = edges.listed if edges.is_list else listed(edges)
        return TracedGraph(held, given.num_sources, given.num_targets)
    if not isinstance(given, Tensor) or given.layout is not torch.strided:
        raise InputError("under torch.compile and torch.export the graph is edge_index [2, E] or a gdsl.Graph")
    if sources is None or targets is None:
        raise InputError("under torch.compile and torch.export a layer without node inputs needs a gdsl.Graph")
    return TracedGraph(given, sources, targets)


def node_counts(signature: Signature, tensors: Mapping[str, Tensor]) -> tuple[Any, Any]:
    """(sources, targets) as the node inputs tell, None where no input does."""
    rows = {i.domain: tensors[i.name].shape[0] for i in signature.inputs if i.name in tensors}
    return rows.get("source", rows.get("node")), rows.get("target", rows.get("node"))


def constant(value: Any) -> Any:
    """A number or text that the tracer takes for constant, also where it would take all numbers for variables."""
    if isinstance(value, float):
        return "hex", value.hex()
    return operator.index(value) if isinstance(value, int) and not isinstance(value, bool) else value


def value_of(made: Any) -> Any:
    """What :func:`constant` was given."""
    return float.fromhex(made[1]) if isinstance(made, tuple) and made[:1] == ("hex",) else made


def fields_of(modules: Iterable[Any]) -> tuple[tuple[str, ...], ...]:
    """The names of what a program may read of modules and the modules in them, besides parameters.

    The tracer looks itself at what runs as it is; a counter of a user's module would ask for a new trace in each call.
    """
    parts = [part for module in modules for part in module.modules()]
    return tuple(
        tuple(k for k, v in p.__dict__.items() if isinstance(v, bool | int | float | str)) if can_be_read(p) else ()
        for p in parts
    )


def state_of(modules: Iterable[Any], fields: Iterable[Sequence[str]]) -> tuple[Any, ...]:
    """The same with its values: the tracer looks at them, too, and notices a change. Not every tracer lists names."""
    parts = [part for module in modules for part in module.modules()]
    found: list[Any] = []
    for part, names in zip(parts, fields, strict=True):
        found += [type(part).__name__, *((name, constant(getattr(part, name))) for name in names)]
    return tuple(found)


class Owner(Protocol):
    """A module with programs: :class:`gdsl.Layer`, or a layer of :mod:`gdsl.nn`."""

    def traced_plan(self, key: Key) -> Plan:
        """:func:`plan_of` of the program that ``key`` names."""
        ...

    def traced_call(self, key: Key, stage: int, mask: tuple[bool, ...], dtype: str) -> str:
        """:func:`call_text` for that program."""
        ...


def plan_of(typed: TypedProgram, stages: tuple[Stage, ...]) -> Plan:
    """What a traced call must know: transforms, nearest neighbours, edge inputs, and each stage's loads and module."""
    methods = tuple((t.name, tuple(t.keywords)) for t in typed.transforms if t.name != "knn")
    edge = tuple((d.name, d.default) for d in typed.of_role("input") if d.type and d.type.domain is Domain.EDGE)
    parts = tuple((_loads(s.program), len(s.program.outputs), s.module, s.result, (s.kind, s.end)) for s in stages)
    knn = next((t for t in typed.transforms if t.name == "knn"), None)
    nearest = None if knn is None else (_loads(_points(typed)), knn.arguments[1], bool(dict(knn.keywords).get("loop")))
    return methods, nearest, edge, typed.uses_seed, parts


def _loads(program: Program) -> tuple[str, ...]:
    return tuple(n.attrs.name for n in program.inputs)


def _points(typed: TypedProgram) -> Program:
    """The value whose nearest neighbours make the graph."""
    knn = next(t for t in typed.transforms if t.name == "knn")
    where = knn.arguments[0]
    assert isinstance(where, Node)
    return Program(f"{typed.name}_points", (("points", where),))


def call_text(
    typed: TypedProgram,
    stages: tuple[Stage, ...],
    number: int,
    options: Options,
    backend: str,
    mask: tuple[bool, ...],
    dtype: str,
) -> str:
    """The operator of a stage of a program, or of the values whose nearest neighbours make the graph."""
    if number == NEAREST:
        return Call(_points(typed), dtype, "torch").text()
    methods = tuple(t.name for t in typed.transforms if t.name != "knn")
    requires = tuple((need.end, need.value) for need in typed.requires)
    return Call(stages[number].program, dtype, backend, methods, requires, options.choices, mask).text()


def stages_of(typed: TypedProgram, options: Options) -> tuple[Stage, ...]:
    """The program for a graph that is not known, cut at the modules that run as they are."""
    program = Program(typed.name, typed.outputs, typed.names)
    return cut(optimise(program, options) if options.optimise else program)


def run(
    owner: Owner, key: Key, tensors: Mapping[str, Tensor], graph: TracedGraph, batch: Tensor | None, graphs: Any
) -> Any:
    """The program that ``key`` names on tensors by name; parameters and buffers are looked up in the owner.

    Raises :class:`gdsl.InputError` for a program that asks two things of its graph and has values of edges.
    """
    transforms, nearest, edge_inputs, uses_seed, parts = owner.traced_plan(key)
    values = autocast(tensors)
    dtype = next(str(v.dtype).removeprefix("torch.") for v in values.values() if v.is_floating_point())
    sizes = (graph.num_sources, graph.num_targets)
    if batch is not None and graphs is None:
        graphs = torch.ops.gdsl.groups(batch).shape[0]
    graphs = 1 if graphs is None else graphs
    edges = graph.edges
    if nearest is not None:
        names, k, loop = nearest
        given = [values[n] if n in values else lower(_state(owner, n)) for n in names]
        text = owner.traced_call(key, NEAREST, (), dtype)
        points = torch.ops.gdsl.run(text, [g.detach() for g in given], edges, *sizes, None, 1)[0]
        edges = torch.ops.gdsl.nearest(points, k, batch, loop)
    for method, fills in transforms:
        for name, default in edge_inputs:
            if name in values:
                if len(transforms) > 1:
                    raise InputError("under torch.compile a program with values of edges asks one thing of its graph")
                values[name] = _rewire(method, edges, sizes, name, values[name], dict(fills), default)
    methods = [method for method, _ in transforms]
    if uses_seed:
        # As torch.randint draws it, for which a compiler has a generator of its own.
        room = torch.empty((), dtype=torch.int64, device=edges.device)
        values["seed"] = torch.ops.aten.random.to(room, 2**62)
    results: list[Tensor] = []
    for number, (names, outputs, module, result, (kind, end)) in enumerate(parts):
        given = [values[n] if n in values else lower(_state(owner, n)) for n in names]
        grad = torch.is_grad_enabled()
        mask = tuple([grad and t.is_floating_point() and t.requires_grad for t in given])
        text = owner.traced_call(key, number, mask if True in mask else (), dtype)
        results = torch.ops.gdsl.run(text, given, edges, *sizes, batch, graphs)[:outputs]
        if module is None:
            continue
        part = _state(owner, module)
        if kind == "aggregate":
            order, index = torch.ops.gdsl.in_order(methods, end, edges, *sizes)
            sorted_values = [r.index_select(0, order) for r in results]
            values[result] = aggregate(part, sorted_values, index, sizes[1 if end == "i" else 0])
        else:
            values[result] = part(*results)
    return results[0] if len(results) == 1 else tuple(results)


def _rewire(
    method: str,
    edges: Tensor,
    sizes: tuple[Any, Any],
    name: str,
    value: Tensor,
    fills: Mapping[str, Any],
    default: float | None,
) -> Tensor:
    """An edge input on the edges that a program asks for: see :func:`gdsl.runtime.rewire.rewire`."""
    kept, target, loop_edge = torch.ops.gdsl.rewired(method, edges, *sizes)
    count = 0 if method == "remove_self_loops" else min(sizes)
    added = torch.arange(count, device=edges.device)
    graph = TracedGraph(edges, *sizes)
    loops = loop_edge if method == "add_remaining_self_loops" else None
    rewired = TracedRewired(graph, kept, added, loops, target)
    return edge_values(name, default, rewired, value, fills)  # type: ignore[arg-type]


def _state(owner: Any, path: str) -> Any:
    found = owner
    for part in path.split("."):
        found = getattr(found, part)
    return found
