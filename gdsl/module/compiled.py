"""A layer's call as torch.compile and torch.export record it: operators of torch, and modules between.

While a call is recorded no value is known, and nothing but tensors may be made: the graph is its edges and sizes, and
the compiler runs beforehand, in functions whose results the tracer takes for constants.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from gdsl.errors import GdslError, InputError
from gdsl.ir.node import Node
from gdsl.ir.program import Program
from gdsl.language import parts
from gdsl.language.program import MAKERS, TypedProgram
from gdsl.module.arguments import bind, count_graphs, free_sizes
from gdsl.module.checks import check_row_counts, check_tensors
from gdsl.module.operators import COMPLETE, OperatorCall
from gdsl.module.run import seed_for
from gdsl.module.ways import stages_of
from gdsl.passes.options import Options
from gdsl.passes.stages import Stage
from gdsl.runtime.complete import CompleteGraph
from gdsl.runtime.dtypes import autocast, short
from gdsl.runtime.graph import Graph
from gdsl.runtime.order import listed
from gdsl.runtime.rewire import edge_values
from gdsl.runtime.tracers import NO_EXCHANGE, run_as_it_is

if TYPE_CHECKING:
    from gdsl.module.compilable import Compilable

# What names a way of calling: whether in training, the inputs that are there, sizes of dims by name, and more. As a
# tracer takes no more than numbers, names and tuples for constants, a way and what is known of it are made of these.
Key = Any

Method = TypeVar("Method", bound=Callable[..., Any])


def constant_for_tracer(method: Method) -> Method:
    """What ``torch.compiler.assume_constant_result`` does, without importing the tracer: that takes over a second, and
    only those who compile should pay for it."""
    method._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return run_as_it_is(method)


# ------------------------------------------------------------------------------------------- graphs


class SymbolicGraph(Graph):
    """Edges and sizes that nobody knows yet: what stands for a :class:`gdsl.Graph` while a call is recorded.

    edges: [2, E] of any integer dtype, the tensor that was given or that a graph holds: a compiled call that gets the
           same one again finds its edges sorted. Edges that are made here are sorted anew in each call
    """

    def __init__(self, edges: Tensor, num_sources: Any, num_targets: Any):
        self.edges, self.num_sources, self.num_targets = edges, num_sources, num_targets
        self.num_readable = num_sources
        self.num_edges, self.device = edges.shape[-1], edges.device

    @property
    def edge_index(self) -> Tensor:
        return self.edges.long()

    def known(self) -> Graph:
        """The graph, for Python that goes on where a tracer has stopped."""
        return Graph(self.edges, (self.num_sources, self.num_targets))

    def with_edges(self, edge_index: Tensor) -> SymbolicGraph:
        return SymbolicGraph(edge_index, self.num_sources, self.num_targets)

    def rewired(self, method: str) -> SymbolicRewired:
        """What a method of :class:`gdsl.Graph` makes of it, in the same order."""
        kept, target, loops = torch.ops.gdsl.rewired(method, self.edges, self.num_sources, self.num_targets)
        edges, added = self.edge_index.index_select(1, kept), None
        if method != "remove_self_loops":
            added = torch.arange(torch.sym_min(self.num_sources, self.num_targets), device=self.device)
            edges = torch.cat([edges, torch.stack([added, added])], dim=1)
        loop_edge = loops if method == "add_remaining_self_loops" else None
        return SymbolicRewired(self.with_edges(edges), self.num_edges, kept, added, loop_edge, target)

    def add_self_loops(self) -> SymbolicRewired:  # type: ignore[override]
        return self.rewired("add_self_loops")

    def reverse(self) -> SymbolicGraph:
        return SymbolicGraph(self.edges.flip(0), self.num_targets, self.num_sources)

    def repeat(self, times: int) -> SymbolicGraph:
        copy = torch.arange(times, device=self.device)
        first = torch.stack([copy * self.num_sources, copy * self.num_targets])
        edges = (self.edge_index.unsqueeze(1) + first.unsqueeze(2)).flatten(1)
        return SymbolicGraph(edges, times * self.num_sources, times * self.num_targets)


@dataclass(frozen=True)
class SymbolicRewired:
    """What stands for a :class:`gdsl.runtime.graph.Rewired` while a call is recorded."""

    graph: SymbolicGraph
    num_edges: Any
    kept: Tensor
    added: Tensor | None
    loop_edge: Tensor | None
    target: Tensor


def symbolic_graph(given: Any, sources: Any, targets: Any) -> SymbolicGraph:
    """The graph that was given to a call, of sizes as the features tell; as the edges do, where no features do.

    Raises :class:`gdsl.InputError` for a graph of another kind, which a tracer that may stop there leaves to Python.
    """
    if isinstance(given, SymbolicGraph):
        return given
    if isinstance(given, Graph) and given.halo is not None:
        raise InputError(NO_EXCHANGE)
    if isinstance(given, CompleteGraph):
        raise InputError("a CompleteGraph runs without torch.compile, and a text that says `graph complete` with it")
    if isinstance(given, Graph):
        # Without what makes its parts once: a tracer cannot follow locks.
        edges = given._edges
        held = edges.listed if edges.is_list else listed(edges)
        return SymbolicGraph(held, given.num_sources, given.num_targets)
    if not isinstance(given, Tensor) or given.layout is not torch.strided:
        raise InputError("under torch.compile and torch.export the graph is edge_index [2, E] or a gdsl.Graph")
    if sources is None and targets is None:
        sources = targets = above(given)
    elif sources is None or targets is None:
        sources = above(given[0]) if sources is None else sources
        targets = above(given[1]) if targets is None else targets
    return SymbolicGraph(given, sources, targets)


def above(numbers: Tensor) -> Any:
    """One more than the largest of some numbers from 0."""
    return torch.ops.gdsl.above(numbers).shape[0]


# ------------------------------------------------------------------- what a tracer takes for constant


def constant(value: Any) -> Any:
    """A number or text that the tracer takes for constant, also where it would take all numbers for variables."""
    if isinstance(value, bool | torch.SymBool):
        # What bool(...) gives stays a variable of the tracer's.
        return True if value else False  # noqa: SIM210
    if isinstance(value, float):
        return "hex", value.hex()
    return operator.index(value) if isinstance(value, int) else value


def value_of(made: Any) -> Any:
    """What :func:`constant` was given."""
    return float.fromhex(made[1]) if isinstance(made, tuple) and made[:1] == ("hex",) else made


def fields_of(modules: Iterable[Any]) -> tuple[tuple[str, ...], ...]:
    """The names of what a program may read of modules and the modules in them, besides parameters.

    The tracer looks itself at what runs as it is; a counter of a user's module would ask for a new trace in each call.
    """
    found = [part for module in modules for part in module.modules()]
    return tuple(
        tuple(k for k, v in p.__dict__.items() if _is_plain(v) or (v is None and not k.startswith("_")))
        if parts.can_be_read(p)
        else ()
        for p in found
    )


def _is_plain(value: Any) -> bool:
    """Whether it is a number or a name, or a list of them."""
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return isinstance(value, bool | int | float | str)


def _field(value: Any) -> Any:
    """What a tracer looks at of an attribute."""
    return tuple([_field(v) for v in value]) if isinstance(value, list | tuple) else constant(value)


def state_of(modules: Iterable[Any], fields: Iterable[Sequence[str]]) -> tuple[Any, ...]:
    """The same with its values: the tracer looks at them, too, and notices a change. Not every tracer lists names."""
    every = [part for module in modules for part in module.modules()]
    found: list[Any] = []
    for part, names in zip(every, fields, strict=True):
        found += [type(part).__name__, *((name, _field(getattr(part, name))) for name in names)]
    return tuple(found)


@dataclass(frozen=True)
class Staged:
    """A program for a graph that is not known, cut at the modules that run as they are."""

    typed: TypedProgram
    stages: tuple[Stage, ...]
    options: Options
    backend: str

    @classmethod
    def of(cls, typed: TypedProgram, options: Options, backend: str) -> Staged:
        stages = stages_of(typed.program, options)
        for knn in [t for t in typed.transforms if t.name == "knn"]:
            # The value whose nearest neighbours make the graph comes first.
            assert isinstance(knn.arguments[0], Node)
            points = Program(f"{typed.name}_points", (("points", knn.arguments[0]),))
            stages = (Stage(points, kind="knn"), *stages)
        return cls(typed, stages, options, backend)


def known(make: Callable[[], Staged], what: str, given: Sequence[Any], say: Callable[[Any], GdslError]) -> Any:
    """One of the things that are known of a call before it runs: see ``_KNOWN``.

    Raises what the compiler and the checks raise, as ``say`` puts it, so that it passes through the tracer.
    """
    try:
        return _KNOWN[what](make, *given)
    except GdslError as error:
        raise _through_tracer(say(error)) from error


def _through_tracer(error: GdslError) -> GdslError:
    """The same error as one of the tracer's own: others it wraps in an error of its own, without their class."""
    from torch._dynamo.exc import ShortenTraceback

    kind = type(error)
    own = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "first_useful_frame": None}
    made = type(kind.__name__, (kind, ShortenTraceback), own)
    found: GdslError = made.__new__(made, *error.args)
    found.__dict__.update(error.__dict__)
    return found


def _refuse(_: Any, error: type[GdslError], message: str) -> None:
    raise error(message)


def _plan(make: Callable[[], Staged]) -> tuple[Any, ...]:
    """What a call must know of its program: what its tensors are checked against, defaults of inputs, transforms,
    whether it makes its graph, nearest neighbours, whether it draws, and of each stage the loads, the number of results
    and the module."""
    made = make()
    typed = made.typed
    state = tuple(d.name for d in typed.of_role("param", "buffer"))
    domains = tuple((d.name, d.type.domain.value) for d in typed.of_role("input") if d.type)
    defaults = tuple((d.name, d.default) for d in typed.of_role("input"))
    methods = tuple((t.name, tuple(t.keywords)) for t in typed.transforms if t.name not in MAKERS)
    knn = [(t.arguments[1], bool(dict(t.keywords).get("loop"))) for t in typed.transforms if t.name == "knn"]
    makes = bool(knn) or typed.complete is not None
    stages = tuple((s.program.input_names, len(s.program.outputs), *_of_stage(s)) for s in made.stages)
    checked = (typed.name, typed.bipartite, state, domains)
    return checked, defaults, methods, makes, (knn[0] if knn else None), typed.uses_seed, stages


def _of_stage(stage: Stage) -> tuple[Any, ...]:
    """What a call must know of a module that runs as it is."""
    return stage.module, stage.result, stage.kind, stage.end, stage.takes, stage.kept


def _dtype(make: Callable[[], Staged], facts: Iterable[tuple[str, Any]], batch: Any, rows: bool) -> str | None:
    """The dtype of a call with such tensors; if they do not fit the program, None where the error is to tell the rows.

    Raises :class:`gdsl.InputError` for what does not fit.
    """
    try:
        dtype, device = check_tensors({name: _stand_in(fact) for name, fact in facts}, make().typed)
    except InputError:
        if rows:
            raise
        return None
    if batch is not None:
        count_graphs(_stand_in(batch), None, device)
    return short(dtype)


def _fact(value: Any, rows: bool) -> Any:
    """What of a tensor decides how a call is compiled, with the number of its rows or without. Of anything else, its
    class."""
    if not isinstance(value, Tensor):
        return type(value)
    sizes = value.shape if rows or not value.dim() else (0, *value.shape[1:])
    return value.dtype, tuple([operator.index(size) for size in sizes]), value.layout, value.device


def _stand_in(fact: Any) -> Any:
    """Something of which :func:`_fact` is the same."""
    if isinstance(fact, type):
        return type(fact.__name__, (), {})()
    dtype, shape, layout, device = fact
    if layout is torch.strided:
        return torch.zeros((), dtype=dtype, device=device).expand(shape)
    return torch.empty(shape, dtype=dtype, layout=layout, device=device)


def _call_text(make: Callable[[], Staged], stage: int, mask: tuple[bool, ...], dtype: str) -> str:
    """The operator of a stage of a program."""
    made = make()
    program = made.stages[stage].program
    if made.stages[stage].kind == "knn":
        return OperatorCall(program, dtype, "torch").text()
    methods = tuple(t.name for t in made.typed.transforms if t.name not in MAKERS)
    if made.typed.complete is not None:
        methods = (COMPLETE[made.typed.complete],)
    requires = tuple((need.end, need.value) for need in made.typed.requires)
    return OperatorCall(program, dtype, made.backend, methods, requires, made.options.choices, mask).text()


_KNOWN: dict[str, Callable[..., Any]] = {
    "refuse": _refuse,
    "plan": _plan,
    "dtype": _dtype,
    "count": lambda _, count: count_graphs(None, count),
    "operator": _call_text,
}


# ----------------------------------------------------------------------------------------- the call


def call(layer: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """A call of a :class:`gdsl.Layer`. Layers of one text and with the same arguments share what a tracer records."""
    signature = layer.signature
    try:
        bound = bind(signature, args, kwargs)
        free = free_sizes(signature, bound.values, layer.free_sizes)
    except GdslError as error:
        layer._known("refuse", None, type(error), str(error))
        raise
    tensors = {i.name: bound.values[i.name] for i in signature.inputs if bound.values[i.name] is not None}
    # A size of which programs are made is a constant, also where the tracer takes all sizes for variables.
    sizes = tuple(sorted((name, operator.index(size)) for name, size in free.items()))
    text = (layer._text.sources, constant(layer.definition.span.start), layer.backend, layer.options.choices)
    arguments = tuple([(name, constant(value)) for name, value in layer.arguments.items()])
    state = state_of(layer._children(), layer._fields())
    key = (layer.training, tuple(tensors), sizes, text, arguments, state)
    return run(layer, key, tensors, bound.graph, bound.batch, bound.num_graphs)


def run(owner: Compilable, key: Key, tensors: Mapping[str, Tensor], given: Any, batch: Any, count: Any) -> Any:
    """The program that ``key`` names on tensors by name; parameters and buffers are looked up in the owner."""
    checked, defaults, transforms, makes, knn, uses_seed, stages = owner._known("plan", key)
    name, bipartite, state, domains = checked
    inputs = [n for n, _ in domains if n in tensors]
    held = {n: tensors[n] if n in tensors else operator.attrgetter(n)(owner) for n in state}
    values = autocast({**{n: tensors[n] for n in inputs}, **held})
    # Of how many nodes and edges there are nothing is a constant; an input that is the same everywhere has no rows.
    by_rows = {n: domain for n, domain in domains if n in tensors and domain != "global"}
    facts = tuple([(n, _fact(value, n not in by_rows)) for n, value in values.items()])
    dtype = owner._known("dtype", key, facts, None if batch is None else _fact(batch, False), False)
    if dtype is None:
        owner._known("dtype", key, tuple([(n, _fact(value, True)) for n, value in values.items()]), None, True)
    rows = {domain: values[n].shape[0] for n, domain in reversed(by_rows.items())}
    graphs = _graphs(owner, key, batch, count, rows.get("graph"))
    if makes:
        given = values[domains[0][0]].new_empty((2, 0), dtype=torch.int64)
    one_set = rows.get("node")
    graph = symbolic_graph(given, rows.get("source", one_set), rows.get("target", one_set))
    try:
        check_row_counts(values, domains, name, bipartite, graph, batch, graphs)
    except GdslError as error:
        owner._known("refuse", key, type(error), str(error))
    sizes = (graph.num_sources, graph.num_targets)
    edges = graph.edges
    present = [(n, dict(defaults)[n]) for n, domain in domains if domain == "edge" and n in values]
    for method, fills in transforms if present else ():
        if method == "non_backtracking":
            continue  # the operators are told, and edges and their values stay
        rewired = graph.rewired(method)
        for n, default in present:
            values[n] = edge_values(n, default, rewired, values[n], dict(fills))  # type: ignore[arg-type]
        graph = rewired.graph
    if uses_seed:
        values["seed"] = seed_for(edges.device)
    results: list[Tensor] = []
    for number, (names, outputs, module, result, kind, end, takes, kept) in enumerate(stages):
        operands = [values[n] for n in names]
        grad = torch.is_grad_enabled()
        mask = tuple([grad and t.is_floating_point() and t.requires_grad for t in operands])
        text = owner._known("operator", key, number, mask if True in mask else (), dtype)
        results = torch.ops.gdsl.run(text, operands, edges, *sizes, batch, graphs)[:outputs]
        if kind == "knn":
            edges = torch.ops.gdsl.nearest(results[0].detach(), knn[0], batch, knn[1])
        if module is None:
            continue
        part = operator.attrgetter(module)(owner)
        values.update({name: results[place] for place, name in kept})
        # What is kept is no variable of the module's.
        shared = [place for place, _ in kept]
        results = parts.operands([results[k].clone() if k in shared else results[k] for k in takes])
        if kind == "aggregate":
            order, index = torch.ops.gdsl.in_order([m for m, _ in transforms], end, edges, *sizes)
            ordered = [r.index_select(0, order) for r in results]
            values[result] = parts.aggregate(part, ordered, index, sizes[1 if end == "i" else 0])
        else:
            values[result] = parts.on_rows(part, results)
    return results[0] if len(results) == 1 else tuple(results)


def _graphs(owner: Compilable, key: Key, batch: Any, count: Any, rows: Any) -> Any:
    """How many graphs there are, as the user or the rows of an input tell. What the tracer takes for a variable stays
    one."""
    if count is None:
        return 1 if batch is None else above(batch) if rows is None else rows
    if isinstance(count, bool) or not isinstance(count, int | torch.SymInt) or count < 0:
        return owner._known("count", key, count)
    return count
