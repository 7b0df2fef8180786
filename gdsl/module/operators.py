"""Programs as operators of torch: what torch.compile and torch.export see in place of a layer.

An operator is told its program as text, so that a compiled or exported model holds all of it and a new process needs no
more than ``import gdsl``. What depends on the values of the edges happens inside the operator.

``gdsl::run``       a program: its outputs, then the values that its backward pass reads
``gdsl::rewired``   which edges self-loops replace, and where they are added
``gdsl::in_order``  the edges sorted by node, for a module that aggregates them
``gdsl::above``     as many rows as the largest of some numbers, plus one
``gdsl::nearest``   the edges of nearest neighbours
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from gdsl.errors import GraphError, InputError, ProgramError
from gdsl.ir.attributes import BOOL, MOST, Allowed, number, one_of, shown
from gdsl.ir.node import Node, walk
from gdsl.ir.ops.op import shape_of
from gdsl.ir.program import Program
from gdsl.ir.serialise import fields, from_data, items, to_data
from gdsl.ir.types import Domain, Kind, Type
from gdsl.kept import Kept
from gdsl.module.checks import check_bound, check_requirements
from gdsl.module.run import frame_of, runner_of
from gdsl.passes.options import CHOICES, TYPICAL, Options
from gdsl.passes.pipeline import lower
from gdsl.runtime.autograd import Differentiable, Mask, Runner
from gdsl.runtime.backend import BACKENDS, backend_for
from gdsl.runtime.complete import complete_graph
from gdsl.runtime.dtypes import FLOATS, short
from gdsl.runtime.frame import Frame
from gdsl.runtime.graph import Graph, Rewired
from gdsl.runtime.items import storage_of
from gdsl.runtime.neighbors import knn_graph
from gdsl.runtime.recent import graph_of
from gdsl.runtime.tracers import run_as_it_is
from gdsl.runtime.transforms import by_row

DTYPES = {short(d): d for d in FLOATS}


@dataclass(frozen=True)
class OperatorCall:
    """What an operator is told besides tensors.

    graph:    what is done to the graph first: names of methods of :class:`gdsl.Graph`; or one of ``COMPLETE``
    requires: (end, degree) that each node must have, ("reverse", 1) where each edge must have one
    mask:     by which of the inputs it is differentiated, for what the forward pass saves; () if by none
    """

    program: Program
    dtype: str
    backend: str
    graph: tuple[str, ...] = ()
    requires: tuple[tuple[str, int], ...] = ()
    choices: tuple[tuple[str, str], ...] = ()
    mask: Mask = ()

    def text(self) -> str:
        """For :func:`call_of`."""
        return json.dumps({**self.__dict__, "program": to_data(self.program)}, separators=(",", ":"))


@functools.lru_cache(maxsize=1024)
def call_of(text: str) -> OperatorCall:
    """The operator that a text tells of. It may come from a file that somebody edited: nothing is taken on trust.

    Raises :class:`gdsl.errors.ProgramError`, a ValueError, for a text that :meth:`OperatorCall.text` cannot
    have written.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ProgramError(f"an operator of gdsl is told as JSON: {error}") from error
    given = dict(fields(data, "an operator", (f.name for f in dataclasses.fields(OperatorCall))))
    for name, allowed in _FIELDS.items():
        if name in _LISTS:
            given[name] = tuple(tuple(v) if isinstance(v, list) else v for v in items(given[name], name))
        for value in given[name] if name in _LISTS else (given[name],):
            if not allowed.is_one(value):
                raise ProgramError(f"`{name}` of an operator: {allowed.words} is needed, not {shown(value)}")
    call = OperatorCall(**{**given, "program": from_data(given["program"])})
    real = [n.kind is Kind.FLOAT for n in call.program.inputs]
    if call.mask and (len(call.mask) != len(real) or any(m and not r for m, r in zip(call.mask, real, strict=True))):
        raise ProgramError(f"`mask` of an operator names some of its {len(real)} inputs, all of them floats")
    return call


GRAPH_METHODS = ("add_self_loops", "add_remaining_self_loops", "remove_self_loops", "non_backtracking")
# What an operator on the complete graph of a batch is told, with loops or without.
COMPLETE = {True: "complete", False: "complete_without_loops"}
_PAIRS = [(name, value) for name, values in CHOICES.items() for value in values]
_DEGREE = number(0, MOST)
_REQUIRED = one_of(("i", "j", "reverse"))
_LISTS = ("graph", "requires", "choices", "mask")
# What the fields of a call may hold besides its program, each item of it where it is a list.
_FIELDS = {
    "dtype": one_of(DTYPES),
    "backend": one_of(BACKENDS),
    "graph": one_of((*GRAPH_METHODS, *COMPLETE.values())),
    "requires": Allowed(
        "an end, i or j, or reverse, and a number of edges",
        lambda v: type(v) is tuple and len(v) == 2 and _REQUIRED.is_one(v[0]) and _DEGREE.is_one(v[1]),
    ),
    "choices": Allowed(f"a choice ({', '.join(CHOICES)}) and one of its values", lambda v: v in _PAIRS),
    "mask": BOOL,
}


def transformed(graph: Graph, methods: Sequence[str]) -> Graph:
    """The graph after what a program asks of it."""
    for name in methods:
        graph = _rewiring(graph, name).graph
    return graph


def _rewiring(graph: Graph, method: str) -> Rewired:
    """A change of a graph by its name, which a file may have brought."""
    if method not in GRAPH_METHODS:
        raise ProgramError(f"a graph is changed by one of {', '.join(GRAPH_METHODS)}, not {shown(method)}")
    return getattr(graph, method)()


# What is made of an operator, on first need.


_runners = Kept()


@functools.lru_cache(maxsize=1024)
def _runner(text: str, backend: str, device: str, save: bool = True) -> Runner:
    call = call_of(text)
    return runner_of(_runners, call.program, device, backend, DTYPES[call.dtype], torch.int32, _options(call, save))


def _options(call: OperatorCall, save: bool = True) -> Options:
    complete = not set(COMPLETE.values()).isdisjoint(call.graph)
    return Options(choices=call.choices, save=save, shape=replace(TYPICAL, complete=complete))


@functools.lru_cache(maxsize=1024)
def _owner(text: str) -> Differentiable:
    """The program as it is differentiated: with nothing saved where none of that was foreseen."""
    call = call_of(text)
    if any(call.mask):
        return _runner(text, "torch", "").differentiable(call.mask)
    return _runner(text, "torch", "", save=False).differentiable(
        tuple(n.kind is Kind.FLOAT for n in call.program.inputs)
    )


@functools.lru_cache(maxsize=1024)
def _seen(text: str, wanted: Mask) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The places of the inputs that a backward by some may read, and of the outputs that are constant by these."""
    return _owner(text).reads_of(wanted), _owner(text).constant_by(wanted)


@functools.lru_cache(maxsize=1024)
def _adjoint(text: str, present: Mask, wanted: Mask, mask: Mask) -> str:
    """The operator of an adjoint, when it is itself to be differentiated by ``mask``."""
    return replace(
        call_of(text), program=_owner(text).adjoint(present, wanted).adjoint.program, requires=(), mask=mask
    ).text()


@functools.lru_cache(maxsize=1024)
def _outputs(text: str, backend: str) -> tuple[tuple[Node, torch.dtype], ...]:
    """The outputs, with those that the backward pass reads, and the dtypes that they have on a backend."""
    call, dtype = call_of(text), DTYPES[call_of(text).dtype]
    whole, visible = (_owner(text).program if any(call.mask) else call.program), len(call.program.outputs)
    kinds = {Kind.FLOAT: dtype, Kind.INT: torch.int64, Kind.BOOL: torch.bool}
    if backend == "torch":
        return tuple((n, kinds[n.kind]) for n in whole.nodes)
    storage = storage_of(lower(whole, _options(call)), dtype, torch.int32, visible)
    return tuple(
        (n, dtype if n.kind is Kind.FLOAT and k < visible else storage.of(n)) for k, n in enumerate(whole.nodes)
    )


@functools.lru_cache(maxsize=1024)
def _is_of_one_set(text: str) -> bool:
    """Whether sources and targets must be the same nodes."""
    return any(n.domain is Domain.NODE for n in walk(call_of(text).program.nodes))


# What the tensors of loads may be, besides the dtype that a call is for.
_DTYPES_OF = {Kind.INT: (torch.int32, torch.int64), Kind.BOOL: (torch.bool,)}


def _check(text: str, tensors: Sequence[Tensor], frame: Frame) -> None:
    """What a kernel takes for granted: number, dtypes, shapes and devices of tensors, and integers that are indices."""
    program, graph, batch = call_of(text).program, frame.graph, frame.batch
    if len(tensors) != len(program.inputs):
        raise InputError(f"{program.name} has {len(program.inputs)} inputs, and {len(tensors)} tensors were given")
    for load, value in zip(program.inputs, tensors, strict=True):
        name = load.attrs.name
        wide = load.attrs.role in ("saved", "product", "grad")
        if load.kind is Kind.FLOAT and value.dtype != frame.dtype and not (wide and value.is_floating_point()):
            raise InputError(f"`{name}` is {value.dtype}, and this call was compiled for {frame.dtype}")
        if load.kind is not Kind.FLOAT and value.dtype not in _DTYPES_OF[load.kind]:
            raise InputError(f"`{name}` is {value.dtype}, and {load.kind.value} is needed")
        shape = shape_of(load.type, frame)
        if tuple(value.shape) != shape:
            raise InputError(f"`{name}` has shape {list(value.shape)}, and {list(shape)} is needed")
        if value.device != frame.device:
            raise InputError(f"`{name}` is on {value.device}, and the graph is on {frame.device}")
        if load.type.bound is not None:
            check_bound(name, load.type, value)
    check_requirements(program.name, call_of(text).requires, graph)
    if graph.num_sources != graph.num_targets and _is_of_one_set(text):
        sizes = f"{graph.num_sources} sources and {graph.num_targets} targets"
        raise GraphError(f"{program.name} needs one set of nodes, and the graph has {sizes}")
    if graph.index_dtype is not torch.int32:
        raise GraphError("under torch.compile a graph has fewer than 2^31 nodes and edges")
    if batch is not None:
        if (
            batch.shape != (graph.num_targets,)
            or batch.dtype not in _DTYPES_OF[Kind.INT]
            or batch.device != graph.device
        ):
            raise InputError(f"`batch` is {batch.dtype} {list(batch.shape)}, and int64 [{graph.num_targets}] is needed")
        check_bound("batch", Type(Domain.NODE, (), Kind.INT, frame.num_graphs), batch)


def _run(
    text: str, tensors: list[Tensor], edges: Tensor, sources: int, targets: int, batch: Tensor | None, graphs: int
) -> list[Tensor]:
    call = call_of(text)
    loops = next((loops for loops, name in COMPLETE.items() if name in call.graph), None)
    if loops is not None:
        graph: Graph = complete_graph(batch, targets, loops, edges.device)
    else:
        graph = transformed(graph_of(edges, sources, targets), call.graph)
    frame = frame_of(graph, DTYPES[call.dtype], edges.device, batch, graphs)
    _check(text, tensors, frame)
    backend = backend_for(call.backend, frame.dtype, edges.device)
    runner = _runner(text, backend, edges.device.type)
    plan = runner.differentiable(call.mask).forward if any(call.mask) else runner.plain
    found = plan.run(dict(zip(call.program.inputs, tensors, strict=True)), frame)
    # An operator's results share no memory with its operands, or with each other.
    taken = {t.untyped_storage()._cdata for t in tensors}
    results = []
    for value, (_, dtype) in zip(found, _outputs(text, backend), strict=True):
        value = value.to(dtype).contiguous()
        if value.untyped_storage()._cdata in taken:
            value = value.clone()
        taken.add(value.untyped_storage()._cdata)
        results.append(value)
    return results


def _run_batched(call: str, tensors: list[Tensor], *others: Any) -> list[Tensor]:
    """Under torch's older vmap."""
    return list(by_row(lambda rows: torch.ops.gdsl.run(call, list(rows), *others), tensors))


def _run_fake(
    text: str, tensors: list[Tensor], edges: Tensor, sources: int, targets: int, batch: Tensor | None, graphs: int
) -> list[Tensor]:
    """The shapes alone: what does not fit is for the run to refuse."""
    call = call_of(text)
    outputs = _outputs(text, backend_for(call.backend, DTYPES[call.dtype], edges.device))
    count: Any = edges.shape[1]
    if call.graph and any(n.domain is Domain.EDGE for n, _ in outputs):
        given = [t.shape[0] for n, t in zip(call.program.inputs, tensors, strict=True) if n.domain is Domain.EDGE]
        count = given[0] if given else torch.library.get_ctx().new_dynamic_size()
    rows = {Domain.SOURCE: (sources,), Domain.EDGE: (count,), Domain.GRAPH: (graphs,), Domain.GLOBAL: ()}
    return [edges.new_empty((*rows.get(n.domain, (targets,)), *n.type.shape), dtype=dtype) for n, dtype in outputs]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    ctx.text, tensors, edges, ctx.sources, ctx.targets, batch, ctx.graphs = inputs
    ctx.set_materialize_grads(False)
    ctx.has_batch = batch is not None
    ctx.reads, constant = _seen(ctx.text, _differentiable(call_of(ctx.text).program, tensors))
    ctx.mark_non_differentiable(*(output[k] for k in constant))
    kept = [output[k] for k in _owner(ctx.text).kept]
    ctx.save_for_backward(edges, *([batch] if ctx.has_batch else []), *(tensors[k] for k in ctx.reads), *kept)


def _backward(ctx: Any, grads: list[Tensor | None]) -> tuple[Any, ...]:
    owner = _owner(ctx.text)
    edges, *rest = ctx.saved_tensors
    batch = rest.pop(0) if ctx.has_batch else None
    loads = owner.runner.inputs
    present = tuple(g is not None and g.is_floating_point() for g in grads)
    wanted = tuple(ctx.needs_input_grad[1])
    adjoint = owner.adjoint(present, wanted).adjoint
    values: dict[Node, Any] = dict(zip((*(loads[k] for k in ctx.reads), *owner.saved), rest, strict=True))
    values |= {load: values[node] for node, load in adjoint.saved}
    values |= {load: grads[k] for k, load in adjoint.grads}
    given = [values[n] for n in adjoint.program.inputs]
    again = _differentiable(adjoint.program, given) if torch.is_grad_enabled() else ()
    text = _adjoint(ctx.text, present, wanted, again if True in again else ())
    found = torch.ops.gdsl.run(text, given, edges, ctx.sources, ctx.targets, batch, ctx.graphs)
    by_input = dict(zip(adjoint.wrt, found, strict=False))
    return None, [by_input.get(n) for n in loads], None, None, None, None, None


def _differentiable(program: Program, tensors: Sequence[Tensor]) -> Mask:
    """By which of its inputs a program is differentiated."""
    return tuple(n.kind is Kind.FLOAT and t.requires_grad for n, t in zip(program.inputs, tensors, strict=True))


def _rewired(method: str, edges: Tensor, sources: int, targets: int) -> list[Tensor]:
    found = _rewiring(graph_of(edges, sources, targets), method)
    kept = torch.arange(edges.shape[1], device=edges.device) if found.kept is None else found.kept.clone()
    loops = edges.new_full((0,), -1, dtype=torch.int64) if found.loop_edge is None else found.loop_edge.clone()
    return [kept, found.target.clone(), loops]


def _rewired_fake(method: str, edges: Tensor, sources: int, targets: int) -> list[Tensor]:
    kept = torch.library.get_ctx().new_dynamic_size()
    loops = torch.sym_min(sources, targets) if method == "add_remaining_self_loops" else 0
    return [edges.new_empty(n, dtype=torch.int64) for n in (kept, edges.shape[1], loops)]


def _in_order(methods: list[str], end: str, edges: Tensor, sources: int, targets: int) -> list[Tensor]:
    if end not in ("i", "j"):
        raise ProgramError(f"edges are sorted by their end i or j, not {shown(end)}")
    graph = transformed(graph_of(edges, sources, targets), methods)
    order = graph.in_edges if end == "i" else graph.out_edges
    edge = order.edge.long()
    return [edge, graph.edge_index[1 if end == "i" else 0].index_select(0, edge)]


def _in_order_fake(methods: list[str], end: str, edges: Tensor, sources: int, targets: int) -> list[Tensor]:
    count = torch.library.get_ctx().new_dynamic_size() if methods else edges.shape[1]
    return [edges.new_empty(count, dtype=torch.int64) for _ in range(2)]


def _above(numbers: Tensor) -> Tensor:
    return numbers.new_empty(int(numbers.max()) + 1 if numbers.numel() else 0, dtype=torch.bool)


def _above_fake(numbers: Tensor) -> Tensor:
    return numbers.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.bool)


def _nearest(points: Tensor, k: int, batch: Tensor | None, loop: bool) -> Tensor:
    return knn_graph(points, k, batch, loop=loop)


def _nearest_fake(points: Tensor, k: int, batch: Tensor | None, loop: bool) -> Tensor:
    return points.new_empty((2, torch.library.get_ctx().new_dynamic_size()), dtype=torch.int64)


_library = torch.library.Library("gdsl", "DEF")

# Operator -> what it takes and gives, what it does, what its results look like.
_OPERATORS: dict[str, tuple[str, Any, Any]] = {
    "run": (
        "(str call, Tensor[] tensors, Tensor edges, SymInt sources, SymInt targets, Tensor? batch, SymInt graphs)"
        " -> Tensor[]",
        _run,
        _run_fake,
    ),
    "rewired": ("(str method, Tensor edges, SymInt sources, SymInt targets) -> Tensor[]", _rewired, _rewired_fake),
    "in_order": (
        "(str[] methods, str end, Tensor edges, SymInt sources, SymInt targets) -> Tensor[]",
        _in_order,
        _in_order_fake,
    ),
    "above": ("(Tensor numbers) -> Tensor", _above, _above_fake),
    "nearest": ("(Tensor points, int k, Tensor? batch, bool loop) -> Tensor", _nearest, _nearest_fake),
}
for _name, (_signature, _kernel, _fake) in _OPERATORS.items():
    _library.define(_name + _signature)
    _library.impl(_name, run_as_it_is(_kernel), "CompositeExplicitAutograd")
    torch.library.register_fake(f"gdsl::{_name}", _fake, lib=_library)
_library.impl("run", run_as_it_is(_run_batched), "Batched")
torch.library.register_autograd("gdsl::run", run_as_it_is(_backward), setup_context=run_as_it_is(_setup), lib=_library)
