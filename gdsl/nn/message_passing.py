"""torch_geometric's base class for layers of a user's own: ``message`` becomes a program where it can."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gdsl import call as calls
from gdsl.codegen.reference import Frame
from gdsl.ir import build
from gdsl.ir.build import IRError
from gdsl.ir.node import Node
from gdsl.ir.program import Program
from gdsl.ir.types import Domain
from gdsl.language.modules import Reader, Unreadable, no_dropout, read_aggregation
from gdsl.nn import symbolic
from gdsl.nn.aggr import Aggregation
from gdsl.nn.conv.base import Adjacency, Conv, Size, in_dtype_of
from gdsl.nn.symbolic import Symbol, Tracer, Untraceable
from gdsl.passes.options import Options
from gdsl.passes.pipeline import optimise
from gdsl.runtime.autograd import Runner
from gdsl.runtime.backend import backend_for
from gdsl.runtime.graph import Graph

# Arguments of ``message`` that are about the edges and not among them.
SPECIAL = (
    "index",
    "ptr",
    "size_i",
    "size_j",
    "dim_size",
    "size",
    "edge_index",
    "edge_index_i",
    "edge_index_j",
    "adj_t",
)

_PLAIN = (bool, int, float, str, bytes, complex, type(None), torch.dtype, torch.device)

MOST_KNOWN = 64


@dataclass(frozen=True)
class Traced:
    """A ``message`` and its aggregation as a program.

    inputs: the node or edge value that each input is: (name in the program, argument of ``propagate``, end or "")
    reads:  parameters and buffers of the layer, by their names in it
    """

    program: Program
    inputs: tuple[tuple[str, str, int | None], ...]
    reads: tuple[str, ...]
    uses_seed: bool
    runners: dict[Any, Runner]


class MessagePassing(Conv):
    """Base of a user's own layers: ``propagate``, ``message``, ``aggregate`` and ``update`` as in torch_geometric.

    Where ``message`` is made of functions that the IR has, and ``aggregate`` is the one of this class with an
    aggregation that is read, both become one program: nothing of the size of the edges times the features is stored.
    Where they are not, they run as they are, on tensors of all edges. :attr:`how` says which, and why. The method must
    be a function of its arguments, of the parameters, buffers and plain attributes of the layer, and of nothing else;
    attributes that are objects of other kinds, or that it writes, keep it from being read.

    aggr, aggr_kwargs, flow, node_dim, decomposed_layers, backend: see :class:`gdsl.nn.conv.base.Conv`
    """

    program = ""
    node_dims = None

    def __init__(self, aggr: Any = "sum", **kwargs: Any):
        super().__init__(aggr, **kwargs)
        self._traced: dict[Any, Traced | str] = {}

    # -- what a user overrides -------------------------------------------------------------------

    def message(self, x_j: Tensor) -> Tensor:
        """The message on each edge, from arguments of ``propagate``: ``_j`` and ``_i`` ask for them at its ends."""
        return x_j

    def aggregate(
        self, inputs: Tensor, index: Tensor, ptr: Tensor | None = None, dim_size: int | None = None
    ) -> Tensor:
        """What a node makes of the messages to it."""
        result: Tensor = self.aggr_module(inputs, index, ptr=ptr, dim_size=dim_size, dim=self.node_dim)
        return result

    def update(self, inputs: Tensor) -> Tensor:
        """The result of each node, from what it aggregated and arguments of ``propagate``."""
        return inputs

    def edge_update(self) -> Tensor:
        """The value of each edge that ``edge_updater`` gives."""
        raise NotImplementedError

    # -- the call --------------------------------------------------------------------------------

    def propagate(self, edge_index: Adjacency, size: Size = None, **kwargs: Any) -> Any:
        """Send messages along the edges, and aggregate and update at the nodes.

        edge_index: as any layer takes it
        size:       (sources, targets) where the arguments do not say it
        kwargs:     what ``message``, ``aggregate`` and ``update`` ask for by name

        Raises what :meth:`Conv.graph` raises.
        """
        graph, values = self._graph_for(edge_index, size, kwargs)
        if values is not None:
            kwargs = {"edge_weight": values, "edge_attr": values, **{k: v for k, v in kwargs.items() if v is not None}}
        found = self._trace_for(graph, kwargs)
        if isinstance(found, Traced):
            out = self._run_traced(found, graph, kwargs)
        else:
            given = self._collected(("message", "aggregate"), graph, kwargs)
            messages = self.message(**_chosen(self.message, given))
            out = self.aggregate(messages, **_chosen(self.aggregate, given, skip=1))
        if type(self).update is MessagePassing.update:
            return out
        given = self._collected(("update",), graph, kwargs)
        return self.update(out, **_chosen(self.update, given, skip=1))

    def edge_updater(self, edge_index: Adjacency, size: Size = None, **kwargs: Any) -> Any:
        """The value of each edge by ``edge_update``. It is stored, so it runs in torch."""
        graph, _ = self._graph_for(edge_index, size, kwargs)
        return self.edge_update(**_chosen(self.edge_update, self._collected(("edge_update",), graph, kwargs)))

    @property
    def how(self) -> str:
        """How the last call ran: "fused", or why the methods ran as they are."""
        found = self._traced.get(self._last)
        return "not called yet" if found is None else "fused" if isinstance(found, Traced) else found

    # -- the arguments ---------------------------------------------------------------------------

    def _graph_for(self, edge_index: Adjacency, size: Size, kwargs: Mapping[str, Any]) -> tuple[Graph, Tensor | None]:
        """The graph, of the size that the features at its ends tell."""
        sizes: list[int | None] = [None, None]
        features: Tensor | None = None
        for name, end in self._ends():
            value = kwargs.get(name)
            parts = value if isinstance(value, tuple | list) else (value, value)
            for place in (0, 1) if isinstance(value, tuple | list) else (end,):
                part = parts[place]
                if isinstance(part, Tensor) and sizes[place] is None:
                    sizes[place] = part.size(self.node_dim)
                    features = part if features is None else features
        graph, values = self.graph(edge_index, sizes[0], sizes[1], size)
        return graph, None if values is None else in_dtype_of(features, values)

    def _ends(self) -> list[tuple[str, int]]:
        """The arguments that are read at an end of the edges: 0 for the source, 1 for the target."""
        names = {name for method in ("message", "aggregate", "update", "edge_update") for name in self._asked(method)}
        return sorted((name[:-2], 0 if name.endswith("_j") else 1) for name in names if _is_end(name))

    def _asked(self, method: str) -> tuple[str, ...]:
        kind: Any = type(self)
        return _names(kind, method)

    def _collected(self, methods: tuple[str, ...], graph: Graph, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """All that these methods may ask for, with node values read at the ends of the edges."""
        source, target = graph.edge_index
        found: dict[str, Any] = {
            "index": target, "ptr": None, "size_i": graph.num_targets, "size_j": graph.num_sources,
            "dim_size": graph.num_targets, "size": [graph.num_sources, graph.num_targets],
            "edge_index": graph.edge_index, "edge_index_i": target, "edge_index_j": source, "adj_t": None,
        }  # fmt: skip
        for method in methods:
            for name in self._asked(method):
                if name in found:
                    continue
                if not _is_end(name):
                    if name in kwargs:
                        found[name] = kwargs[name]
                    continue
                end = 0 if name.endswith("_j") else 1
                value = kwargs.get(name[:-2], inspect.Parameter.empty)
                value = value[end] if isinstance(value, tuple | list) else value
                if isinstance(value, Tensor):
                    value = value.index_select(self.node_dim, source if end == 0 else target)
                if value is not inspect.Parameter.empty:
                    found[name] = value
        return found

    # -- the program -----------------------------------------------------------------------------

    def _trace_for(self, graph: Graph, kwargs: Mapping[str, Any]) -> Traced | str:
        """The program for arguments of these kinds, or why there is none."""
        key: tuple[Any, ...]
        try:
            key = (graph.is_bipartite, self._facts_of(kwargs, graph), _plain_state(self), _outer_values(self.message))
        except Untraceable as reason:
            key = ("untraceable",)
            self._traced[key] = f"message and aggregate run as they are: {reason}"
        self._last = key
        if key not in self._traced:
            if len(self._traced) >= MOST_KNOWN:
                self._traced.clear()
            self._traced[key] = self._trace(graph, kwargs)
        return self._traced[key]

    def _facts_of(self, kwargs: Mapping[str, Any], graph: Graph) -> tuple[Any, ...]:
        def facts(value: Any) -> Any:
            if isinstance(value, Tensor):
                rows = value.shape[0] if value.dim() else None
                return value.shape[1:], rows == graph.num_edges, rows == 1, value.dim(), value.dtype, value.device
            if isinstance(value, tuple | list):
                return tuple(facts(v) for v in value)
            return _frozen(value)

        return tuple((name, facts(value)) for name, value in kwargs.items())

    def _trace(self, graph: Graph, kwargs: Mapping[str, Any]) -> Traced | str:
        try:
            first, again = self._trace_once(graph, kwargs), self._trace_once(graph, kwargs)
        except (Untraceable, IRError, Unreadable) as reason:
            return f"message and aggregate run as they are: {reason}"
        if first.program.nodes != again.program.nodes:
            return "message and aggregate run as they are: the method does something else each time"
        return first

    def _trace_once(self, graph: Graph, kwargs: Mapping[str, Any]) -> Traced:
        if type(self).aggregate is not MessagePassing.aggregate:
            raise Untraceable("`aggregate` is the layer's own")
        if self.node_dim not in (-2, 0):
            raise Untraceable(f"nodes lie along dimension {self.node_dim}")
        if not isinstance(self.aggr_module, Aggregation):
            raise Untraceable("the aggregation is not one of gdsl.nn.aggr")
        rows = Domain.TARGET if self._is_bipartite(graph, kwargs) else Domain.NODE
        tracer = Tracer(self, self.training, rows)
        inputs: dict[str, tuple[str, str, int | None]] = {}
        arguments = self._stand_ins(tracer, graph, kwargs, inputs)
        state = _state_of(self)
        try:
            message = symbolic.call(self.message, arguments, _softmaxes())
        finally:
            changed = _restore(self, state)
        if changed:
            raise Untraceable(f"`message` writes {', '.join(f'`{name}`' for name in changed)}")
        if tracer.uses_seed and ("seed" in inputs or "seed" in tracer.reads):
            raise Untraceable("`seed` is what dropout draws from, and a value of the layer")
        if not isinstance(message, Symbol) or message.node.domain is not Domain.EDGE:
            raise Untraceable("`message` does not give a value for each edge")
        if self.node_dim == -2 and message.ndim != 2:
            raise Untraceable(f"node_dim is -2, and the messages have {message.ndim} dims")
        m = message.ordered()
        if not m.dims:
            raise Untraceable("the messages have no features")
        reader = Reader("aggr_module", no_dropout)
        out = read_aggregation(reader, "aggr_module", self.aggr_module, build.to_float(m), "i", rows)
        # A message of [E, H, 1] has a dim of size 1 that the result has too.
        program = Program(type(self).__name__, (("out", out),), {})
        return Traced(
            optimise(program, Options()),
            tuple(inputs.values()),
            tuple({**dict.fromkeys(tracer.reads), **dict.fromkeys(reader.params)}),
            tracer.uses_seed,
            {},
        )

    def _is_bipartite(self, graph: Graph, kwargs: Mapping[str, Any]) -> bool:
        pairs = [kwargs.get(name) for name, _ in self._ends()]
        different = any(isinstance(v, tuple | list) and v[0] is not v[1] for v in pairs)
        return different or graph.is_bipartite

    def _stand_ins(
        self,
        tracer: Tracer,
        graph: Graph,
        kwargs: Mapping[str, Any],
        inputs: dict[str, tuple[str, str, int | None]],
    ) -> dict[str, Any]:
        """The arguments of ``message``: tensors as symbols, other values as they are."""
        found: dict[str, Any] = {}
        bipartite = tracer.rows is Domain.TARGET
        for name, parameter in inspect.signature(self.message).parameters.items():
            if name in SPECIAL:
                found[name] = _Special(name)
                continue
            argument = name[:-2] if _is_end(name) else name
            if argument not in kwargs:
                if parameter.default is inspect.Parameter.empty:
                    raise Untraceable(f"`{name}` was not given")
                continue
            value, end = kwargs[argument], None
            if _is_end(name):
                end = 0 if name.endswith("_j") else 1
                value = value[end] if isinstance(value, tuple | list) else value
            if not isinstance(value, Tensor):
                found[name] = value
                continue
            found[name] = self._stand_in(tracer, graph, argument, value, end, bipartite, inputs)
        return found

    def _stand_in(
        self,
        tracer: Tracer,
        graph: Graph,
        argument: str,
        value: Tensor,
        end: int | None,
        bipartite: bool,
        inputs: dict[str, tuple[str, str, int | None]],
    ) -> Symbol:
        if not value.is_floating_point():
            raise Untraceable(f"`{argument}` does not hold real numbers")
        if value.layout is not torch.strided:
            raise Untraceable(f"`{argument}` is a sparse tensor")
        if end is None:
            if not value.dim() or value.shape[0] != graph.num_edges or graph.num_edges == 1:
                raise Untraceable(f"`{argument}` is not a value of each edge")
            inputs[argument] = (argument, argument, None)
            return tracer.symbol(_load(tracer, argument, Domain.EDGE, value.shape[1:]))
        if self.node_dim == -2 and value.dim() != 2:
            raise Untraceable(f"node_dim is -2, and `{argument}` has {value.dim()} dims")
        domain = (Domain.SOURCE, Domain.TARGET)[end] if bipartite else Domain.NODE
        name = f"{argument}_{'ji'[end]}" if bipartite else argument
        inputs[name] = (name, argument, end)
        node = _load(tracer, name, domain, value.shape[1:])
        return tracer.symbol(build.gather(node, "ji"[end]))

    def _run_traced(self, traced: Traced, graph: Graph, kwargs: Mapping[str, Any]) -> Tensor:
        tensors: dict[str, Tensor] = {}
        for name, argument, end in traced.inputs:
            value = kwargs[argument]
            tensors[name] = value[end] if isinstance(value, tuple | list) and end is not None else value
        state = {**dict(self.named_parameters()), **dict(self.named_buffers())}
        tensors |= {name: state[name] for name in traced.reads}
        first = next(iter(tensors.values()))
        for name, value in tensors.items():
            if value.dtype != first.dtype or value.device != first.device:
                raise ValueError(
                    f"`{name}` is {calls.short(value.dtype)} on {value.device}, and others are "
                    f"{calls.short(first.dtype)} on {first.device}"
                )
        if traced.uses_seed:
            tensors["seed"] = torch.randint(2**62, (), dtype=torch.int64, device=first.device)
        frame = Frame(graph, first.dtype, first.device)
        key = (first.dtype, graph.index_dtype, first.device.type, self.backend)
        if key not in traced.runners:
            backend = backend_for(self.backend, frame.dtype, frame.device)
            traced.runners[key] = Runner(traced.program, backend, first.dtype, graph.index_dtype, Options())
        runner = traced.runners[key]
        return runner([tensors[name] for name in runner.names], frame)[0]

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_traced": {}}


def softmax(
    src: Tensor,
    index: Tensor,
    ptr: Tensor | None = None,
    num_nodes: int | None = None,
    dim: int = 0,
) -> Tensor:
    """The softmax of the rows of each group, as ``torch_geometric.utils.softmax``; part of the program in ``message``.

    src:       [E, ...]
    index:     [E] the group of each row
    num_nodes: the number of groups; without it the largest index plus one
    """
    size = int(index.max()) + 1 if num_nodes is None and index.numel() else num_nodes or 0
    shape = [1] * src.dim()
    shape[dim] = -1
    place = index.view(shape).expand_as(src)
    full = list(src.shape)
    full[dim] = size
    top = src.new_zeros(full).scatter_reduce(dim, place, src.detach(), "amax", include_self=False)
    raised = (src - top.index_select(dim, index)).exp()
    total = raised.new_zeros(full).scatter_add(dim, place, raised) + 1e-16
    return raised / total.index_select(dim, index)


class _Special:
    """An argument about the edges, which only ``softmax`` may take."""

    def __init__(self, name: str):
        self.name = name

    def __getattr__(self, name: str) -> Any:
        raise Untraceable(f"`{self.__dict__.get('name', '?')}.{name}`")


def _traced_softmax(src: Any, index: Any, ptr: Any = None, num_nodes: Any = None, dim: int = 0) -> Any:
    if not isinstance(src, Symbol) or not isinstance(index, _Special) or index.name not in ("index", "edge_index_i"):
        raise Untraceable("softmax over groups other than the edges into a node")
    if dim not in (0, -src.ndim):
        raise Untraceable("softmax over another dim than the edges")
    return symbolic.segment_softmax(src)


@functools.cache
def _softmaxes() -> dict[Any, Callable[..., Any]]:
    """The functions that stand for the softmax over the edges into a node."""
    found: dict[Any, Callable[..., Any]] = {softmax: _traced_softmax}
    try:
        from torch_geometric.utils import softmax as theirs
    except ImportError:
        return found
    return {**found, theirs: _traced_softmax}


def _load(tracer: Tracer, name: str, domain: Domain, shape: Any) -> Node:
    return tracer.load(name, domain, tuple(shape))


def _is_end(name: str) -> bool:
    return name[-2:] in ("_i", "_j") and name not in SPECIAL


@functools.cache
def _names(kind: type, method: str) -> tuple[str, ...]:
    return tuple(name for name in inspect.signature(getattr(kind, method)).parameters if name != "self")


def _chosen(method: Callable[..., Any], given: Mapping[str, Any], skip: int = 0) -> dict[str, Any]:
    """The arguments that a method asks for. Raises TypeError for one that is missing."""
    chosen = {}
    for name, parameter in list(inspect.signature(method).parameters.items())[skip:]:
        if name in given:
            chosen[name] = given[name]
        elif parameter.default is inspect.Parameter.empty:
            raise TypeError(f"Required parameter '{name}' is empty.")
    return chosen


# ------------------------------------------------------------------------------- what a method may depend on


def _frozen(value: Any) -> Any:
    """A value that can be compared later. Raises Untraceable for an object whose inside may change unseen."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, tuple | list):
        return tuple(_frozen(v) for v in value)
    if isinstance(value, dict):
        return tuple((k, _frozen(v)) for k, v in value.items())
    if isinstance(value, type) or inspect.isroutine(value):
        return id(value)
    raise Untraceable(f"a value of type {type(value).__name__}, which may change unseen")


def _outer_values(method: Callable[..., Any]) -> tuple[Any, ...]:
    """The plain globals and outer variables that a method reads, and those that functions of the user's in it read.

    Raises Untraceable for an object among them whose inside may change unseen.
    """
    function = getattr(method, "__func__", None)
    found: list[Any] = []
    _collect_outer(function, type(getattr(method, "__self__", None)), found, set())
    return tuple(found)


def _collect_outer(function: Any, owner: type, found: list[Any], seen: set[Any]) -> None:
    if not isinstance(function, types.FunctionType) or function in seen:
        return
    seen.add(function)
    names = _names_in(function.__code__)
    known = function.__globals__
    outer = [cell.cell_contents for cell in function.__closure__ or ()]
    for value in (*(known[name] for name in names if name in known), *outer):
        if isinstance(value, types.FunctionType):
            if not (value.__module__ or "").startswith(("torch.", "torch_geometric.", "gdsl.")):
                _collect_outer(value, owner, found, seen)
        elif not isinstance(value, types.ModuleType | Tensor | nn.Module):
            found.append(_frozen(value))
    for name in names:
        _collect_outer(vars(owner).get(name), owner, found, seen)


def _names_in(code: types.CodeType) -> list[str]:
    """The names that a piece of code reads, and pieces inside it."""
    inner = [name for part in code.co_consts if isinstance(part, types.CodeType) for name in _names_in(part)]
    return [*code.co_names, *inner]


_MODULE_OWN = frozenset(nn.Module().__dict__)
_OWN = frozenset({"_traced", "_layers", "_last", "_kept", "aggr", "training", *_MODULE_OWN})


def _plain_state(module: nn.Module) -> tuple[Any, ...]:
    """The plain attributes of a module and of all its parts, and whether they have hooks."""
    found: list[Any] = []
    for part in module.modules():
        if part._forward_hooks or part._forward_pre_hooks:
            raise Untraceable("a hook on the layer or on a part of it")
        found.append(part.training)
        for name, value in part.__dict__.items():
            if name not in _OWN and not isinstance(value, Tensor):
                found.append(_frozen(value))
        found.extend((name, p is None) for name, p in part._parameters.items())
    return tuple(found)


def _state_of(module: nn.Module) -> list[tuple[nn.Module, dict[str, Any], dict[str, Any]]]:
    return [(part, dict(part.__dict__), dict(part._buffers)) for part in module.modules()]


def _restore(module: nn.Module, state: list[tuple[nn.Module, dict[str, Any], dict[str, Any]]]) -> list[str]:
    """Undo what a traced method wrote, and say what."""
    changed = []
    for part, before, buffers in state:
        now = part.__dict__
        for name in {*before, *now}:
            if now.get(name, state) is not before.get(name, state):
                changed.append(name)
                if name in before:
                    now[name] = before[name]
                else:
                    del now[name]
        if dict(part._buffers) != buffers and any(part._buffers.get(k) is not v for k, v in buffers.items()):
            changed += [k for k, v in buffers.items() if part._buffers.get(k) is not v]
            part._buffers.update(buffers)
    return sorted(changed)
