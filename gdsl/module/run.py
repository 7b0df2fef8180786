"""Running a program on checked tensors: the one place that makes a runner, a frame and a seed."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gdsl.errors import GraphError, InputError
from gdsl.ir.complete import why_not
from gdsl.ir.node import Node, walk
from gdsl.ir.ops.op import shape_of
from gdsl.ir.program import Program
from gdsl.kept import Kept
from gdsl.language import parts
from gdsl.language.program import GraphTransform
from gdsl.module.checks import check_batch, check_requirements
from gdsl.module.meeting import excuse, meet
from gdsl.module.shared import tensors_of
from gdsl.module.ways import CallKind, Ran, Ready
from gdsl.passes.stages import Stage
from gdsl.runtime import functions, reference
from gdsl.runtime.answers import heard
from gdsl.runtime.autograd import Runner
from gdsl.runtime.backend import backend_for
from gdsl.runtime.complete import complete_graph
from gdsl.runtime.frame import Frame
from gdsl.runtime.graph import Graph
from gdsl.runtime.halo import all_reduce, broadcast
from gdsl.runtime.local import LocalGraph
from gdsl.runtime.neighbors import knn_graph
from gdsl.runtime.rewire import rewire
from gdsl.runtime.together import is_shared, norms_over_all, own_targets, together
from gdsl.runtime.tracers import run_as_it_is

# No module: programs that call none are not on any.
NOBODY = nn.Module()


@dataclass(frozen=True, slots=True, eq=False)
class Running:
    """What a program was run on: see :func:`run`."""

    kind: CallKind
    graph: Graph
    tensors: Mapping[str, Tensor]
    backend: str
    owner: nn.Module
    batch: Tensor | None
    num_graphs: int


# For each thread that wants to know which programs it runs, those that it has.
_runs: dict[int, list[Running]] = {}


@contextmanager
def recording_runs() -> Iterator[list[Running]]:
    """The programs that this thread runs in Python's calls, also those that fail."""
    thread = threading.get_ident()
    found = _runs[thread] = []
    try:
        yield found
    finally:
        del _runs[thread]


@run_as_it_is
def run(
    kind: CallKind,
    graph: Graph,
    tensors: dict[str, Tensor],
    backend: str,
    owner: nn.Module = NOBODY,
    batch: Tensor | None = None,
    num_graphs: int = 1,
) -> Sequence[Tensor]:
    """The results of a program.

    tensors: its inputs, parameters and buffers by name, checked
    graph:   as the user has it
    owner:   the module whose modules it calls

    Raises :class:`gdsl.GraphError` where nodes have other degrees than the rules need, or an edge no reverse.
    """
    if _runs and (seen := _runs.get(threading.get_ident())) is not None:
        seen.append(Running(kind, graph, dict(tensors), backend, owner, batch, num_graphs))
    shared = graph.halo is not None
    try:
        if not shared:
            graph, tensors = as_rules_see(kind, graph, tensors)
        else:
            graph, tensors, num_graphs = _together(kind, graph, tensors, batch, num_graphs)
        ready = ready_for(kind, graph, backend)
        kind.store.last = (ready.ran,)
        if isinstance(graph, LocalGraph):
            graph = graph.walked
            tensors |= _ids(ready, graph)
        frame = frame_of(graph, kind.dtype, kind.device, batch, num_graphs)
        if ready.numbers:
            tensors |= tensors_of(ready.numbers, frame)
        results: Sequence[Tensor] = ()
        for stage, runner, names in ready.stages:
            results = functions.run(runner, [tensors[name] for name in names], frame)
            if stage.module is not None:
                module = parts.module_of(owner, stage.module)
                own = {place for place, _ in stage.kept} if stage.kept and not _only_reads(module) else ()
                operands = [results[k].clone() if k in own else results[k] for k in stage.takes]
                tensors[stage.result] = apply(module, stage, operands, frame)
                tensors |= {name: results[place] for place, name in stage.kept}
        return results
    except Exception as error:
        if shared:  # the others wait for rows by now, if not for the next call
            heard(error)
        raise


def _together(
    kind: CallKind, graph: Graph, tensors: dict[str, Tensor], batch: Tensor | None, num_graphs: int
) -> tuple[Graph, dict[str, Tensor], int]:
    """As :func:`as_rules_see` on a part of a distributed graph, once all processes can make the call; and how many
    graphs there are in the batch of all.

    Raises :class:`gdsl.GraphError` on all processes where one cannot.
    """
    assert graph.halo is not None
    try:
        found = _rewired(kind, graph, tensors)
    except Exception as error:
        excuse(graph, error)
        raise
    meet(graph, kind, batch is not None)
    if batch is not None:
        num_graphs = int(all_reduce(graph.halo, torch.tensor(num_graphs, device=batch.device), "max"))
    return *_with_seed(kind, *found), num_graphs


def _ids(ready: Ready, graph: Graph) -> dict[str, Tensor]:
    """The numbers of rows among those of all processes, as far as a program draws by them."""
    loads = {n for _, runner, _ in ready.stages for n in runner.inputs if n.attrs.role == "ids"}
    return {n.attrs.name: graph.row_ids(n.domain) for n in sorted(loads, key=lambda n: n.attrs.name)}


def _only_reads(module: nn.Module) -> bool:
    """Whether a module is torch's own in all its parts, none of which writes to its argument unless it says so."""
    return all(type(part).__module__.startswith("torch.nn.modules.") for part in module.modules())


def as_rules_see(kind: CallKind, graph: Graph, tensors: dict[str, Tensor]) -> tuple[Graph, dict[str, Tensor]]:
    """The graph after what the program asks of it, and the tensors on it, with a seed where it draws.

    Raises :class:`gdsl.GraphError` where nodes have other degrees than the rules need.
    """
    return _with_seed(kind, *_rewired(kind, graph, tensors))


def _with_seed(kind: CallKind, graph: Graph, tensors: dict[str, Tensor]) -> tuple[Graph, dict[str, Tensor]]:
    typed = kind.typed
    if typed.uses_seed and "seed" not in tensors:
        seed = seed_for(kind.device)
        tensors["seed"] = seed if graph.halo is None else broadcast(graph.halo, seed)
    return graph, tensors


def _rewired(kind: CallKind, graph: Graph, tensors: dict[str, Tensor]) -> tuple[Graph, dict[str, Tensor]]:
    typed = kind.typed
    if typed.transforms:
        graph, tensors = rewire(typed, graph, tensors)
    if typed.requires:
        check_requirements(typed.name, [(need.end, need.value) for need in typed.requires], graph)
    return graph, tensors


def seed_for(device: torch.device) -> Tensor:
    """What dropout of one call is drawn from: a number of torch's generator."""
    if torch.compiler.is_compiling():
        # As torch.randint draws it, for which a compiler has a generator of its own.
        return torch.ops.aten.random.to(torch.empty((), dtype=torch.int64, device=device), 2**62)
    return torch.randint(2**62, (), dtype=torch.int64, device=device)


def runner_of(kept: Kept, program: Program, device: str, *at: Any) -> Runner:
    """The runner of a program on a type of device: its backend, dtype, dtype of indices and options."""
    return kept.once((program.outputs, device, *at), lambda: Runner(program, *at))


def frame_of(
    graph: Graph, dtype: torch.dtype, device: torch.device, batch: Tensor | None = None, num_graphs: int = 1
) -> Frame:
    """What a run knows besides tensors."""
    return Frame(graph, dtype, device, batch, num_graphs)


def ready_for(kind: CallKind, graph: Graph, backend: str) -> Ready:
    """A kind of call on graphs of the shape of this one, as the rules see it, optimised."""
    at = (graph.shape, graph.index_dtype, backend)
    found = kind.ready.get(at)
    if found is None:
        found = _ready(kind, graph, backend)
        if kind.options.budget is None:  # of which the sizes of each graph decide
            kind.ready[at] = found
    return found


def _ready(kind: CallKind, graph: Graph, backend: str) -> Ready:
    if graph.shape.complete and (why := why_not([node for _, node in kind.typed.outputs])):
        raise GraphError(f"{kind.typed.name} cannot run on a complete graph: {why}")
    store, options = kind.store, kind.store.options_for(kind, graph)
    found = store.compiled(kind, options)
    at = (backend_for(backend, kind.dtype, kind.device), kind.dtype, graph.index_dtype, options)
    made, on = store.shared.made, kind.device.type
    stages = tuple((s, runner_of(made, s.program, on, *at), s.program.input_names) for s in found.stages)
    return Ready(stages, found.numbers, Ran(kind, options, graph.index_dtype, at[0]))


def apply(module: nn.Module, stage: Stage, inputs: Sequence[Tensor], frame: Frame) -> Tensor:
    """Run a module on whole tensors. An aggregating one gets the edges sorted by node, as PyG's aggregations do."""
    assert stage.type is not None
    inputs = parts.operands(inputs)
    if stage.kind == "aggregate":
        graph, end = frame.graph, int(stage.end == "i")
        index = frame.ends(stage.end)
        if graph.is_sorted(end):
            index = index.clone()  # the module's own, as are the values
        else:
            edge = (graph.in_edges if end else graph.out_edges).edge.long()
            inputs = [v.index_select(0, edge) for v in inputs]
            index = index.index_select(0, edge)
        rows = frame.rows(stage.type.domain)
        if graph.halo is None:
            result = parts.aggregate(module, inputs, index, rows)
        else:
            _refuse_padded(module)
            with own_targets(graph):
                result = parts.aggregate(module, inputs, index, rows)
    elif frame.graph.halo is None:
        result = parts.on_rows(module, inputs)
    else:
        with together(frame.graph), norms_over_all(module):
            result = parts.on_rows(module, inputs)
    shape = shape_of(stage.type, frame)
    if not isinstance(result, Tensor) or tuple(result.shape) != shape:
        got = list(result.shape) if isinstance(result, Tensor) else type(result).__name__
        raise InputError(f"module `{stage.module}` gave {got}, and the program expects shape {list(shape)}")
    return result


def _refuse_padded(module: nn.Module) -> None:
    """Raise ``GraphError`` for an aggregation of another library that pads all groups to the length of the largest,
    which it does not ask other processes for."""
    for part in module.modules():
        padded = "max_num_elements" in inspect.signature(part.forward).parameters
        if padded and not type(part).__module__.startswith("gdsl."):
            name = type(part).__name__
            raise GraphError(
                f"{name} pads the edges of each node to those of the node with most, of which a process has its own: "
                f"use gdsl.nn.{name}, or run this layer on the whole graph, in one process"
            )


def nearest(
    knn: GraphTransform, kind: CallKind, tensors: Mapping[str, Tensor], count: int, batch: Tensor | None
) -> Graph:
    """The graph of the nearest neighbours of a node value, between so many nodes."""
    where, k = knn.arguments
    assert isinstance(where, Node) and isinstance(k, int)
    empty = without_edges(count, kind.device)
    with torch.no_grad():
        values = {n: tensors[n.attrs.name] for n in walk([where]) if n.op == "load"}
        (found,) = reference.run([where], values, frame_of(empty, kind.dtype, kind.device))
    return Graph(knn_graph(found, k, batch, loop=bool(dict(knn.keywords).get("loop", False))), count)


def without_edges(count: int, device: torch.device) -> Graph:
    """A graph of so many nodes alone."""
    return Graph(torch.zeros(2, 0, dtype=torch.long, device=device), count)


def all_pairs(kind: CallKind, count: int, batch: Tensor | None) -> Graph:
    """The complete graph of so many nodes, or one of each graph of a batch of them.

    Raises :class:`gdsl.GraphError` on a part of a distributed graph.
    """
    if is_shared():
        raise GraphError(f"{kind.typed.name} joins all nodes of a graph, of which this process has a part: use GPSConv")
    if batch is not None:
        check_batch(batch, count)
    loops = kind.typed.complete
    assert loops is not None
    return complete_graph(batch, count, loops, kind.device)
