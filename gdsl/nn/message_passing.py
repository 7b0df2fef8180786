"""torch_geometric's base class for layers of a user's own: ``message`` becomes a program where it can."""

from __future__ import annotations

import copy
import dis
import functools
import inspect
import sys
import types
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gdsl.errors import GdslError, InternalWarning, ProgramError
from gdsl.ir import build
from gdsl.ir.node import Node, substitute
from gdsl.ir.program import Program
from gdsl.ir.types import Domain, Kind, Type
from gdsl.language import parts
from gdsl.language.modules import Reader, Unreadable, no_dropout, read_aggregation
from gdsl.language.program import Declaration, TypedProgram
from gdsl.module import compiled as traced
from gdsl.module.kept import Kept
from gdsl.module.run import ready_for, run, seed_for
from gdsl.module.shared import Shared
from gdsl.module.ways import CallKind, Compilations
from gdsl.nn import scatter
from gdsl.nn.aggr import Aggregation
from gdsl.nn.conv.base import Adjacency, Conv, Size, in_dtype_of
from gdsl.nn.lazy import Symbol, Trace, dtype_of, put
from gdsl.nn.symbolic import Untraceable, Value, loaded
from gdsl.runtime.dtypes import short
from gdsl.runtime.graph import Graph
from gdsl.runtime.transforms import transforming

# Arguments of ``message`` that are about the edges and not among them.
_ABOUT: dict[str, Callable[[Any], Any]] = {
    "index": lambda graph: graph.edge_index[1],
    "ptr": lambda graph: None,
    "size_i": lambda graph: graph.num_targets,
    "size_j": lambda graph: graph.num_sources,
    "dim_size": lambda graph: graph.num_targets,
    "size": lambda graph: [graph.num_sources, graph.num_targets],
    "edge_index_i": lambda graph: graph.edge_index[1],
    "edge_index_j": lambda graph: graph.edge_index[0],
    "adj_t": lambda graph: None,
}
SPECIAL = frozenset({*_ABOUT, "edge_index"})

MOST_KINDS = 64
# A method whose expression broke is tried again after 1, 2, 4, ... calls of the same kind, at most so many.
MOST_SKIPPED = 256

AS_IT_IS = "message and aggregate run as they are: "


class MessagePassing(Conv):
    """Base of a user's own layers: ``propagate``, ``message``, ``aggregate`` and ``update`` as in torch_geometric.

    Each call runs ``message``, with whatever Python does in it, on tensors that are not computed yet. Where it is made
    of functions that the IR has, and ``aggregate`` is the one of this class with an aggregation that is read, both are
    one program: nothing of the size of the edges times the features is stored. From the first function on that the IR
    does not have, the method runs on tensors of all edges, as torch runs it. :attr:`how` says which, and why. A tensor
    of all edges that the method keeps (``self.alpha = alpha``) is computed along with the result.

    Under :func:`torch.autocast` a fused message and its result are of the lower precision, as layers in text are.

    aggr, aggr_kwargs, flow, decomposed_layers, backend: see :class:`gdsl.nn.conv.base.Conv`
    node_dim: the dimension of the nodes; one that is not the first runs on tensors
    """

    program_name = ""
    node_dims = None

    def __init__(self, aggr: Any = "sum", **kwargs: Any):
        super().__init__(aggr, **kwargs)
        self._store = Compilations(_shared)
        self._how = "not called yet"
        # For each kind of call how often it is to run as it is before it is tried again, and how often last time.
        self._kinds = Kept()

    # -- what a user overrides -------------------------------------------------------------------

    def message(self, x_j: Tensor) -> Tensor:
        """The message on each edge, from arguments of ``propagate``: ``_j`` and ``_i`` ask for them at its ends."""
        return x_j

    def aggregate(
        self, inputs: Tensor, index: Tensor, ptr: Tensor | None = None, dim_size: int | None = None
    ) -> Tensor:
        """What a node makes of the messages to it."""
        if dim_size is not None and (torch.compiler.is_compiling() or transforming()):
            found = scatter.aggregate(self.aggr_module, inputs, index, dim_size, self.node_dim)
            if found is not None:
                return found
        result: Tensor = self.aggr_module(inputs, index=index, ptr=ptr, dim_size=dim_size, dim=self.node_dim)
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

        Raises what :meth:`Conv.graph` raises, and ValueError for node values of different numbers of nodes.
        """
        graph, values = self._graph_for(edge_index, size, kwargs)
        if values is not None:
            kwargs = {"edge_weight": values, "edge_attr": values, **{k: v for k, v in kwargs.items() if v is not None}}
        if torch.compiler.is_compiling():
            out = self._on_tensors(graph, kwargs)
        else:
            out = self._propagated(graph, kwargs)
        if type(self).update is MessagePassing.update:
            return out
        given = self._collected(("update",), graph, kwargs)
        return self.update(out, **self._chosen("update", given, skip=1))

    def edge_updater(self, edge_index: Adjacency, size: Size = None, **kwargs: Any) -> Any:
        """The value of each edge by ``edge_update``. It is stored, so it runs in torch."""
        graph, _ = self._graph_for(edge_index, size, kwargs)
        return self.edge_update(**self._chosen("edge_update", self._collected(("edge_update",), graph, kwargs)))

    @property
    def how(self) -> str:
        """How the last call ran: "fused", or from where on the methods ran as they are."""
        return self._how

    # -- the arguments ---------------------------------------------------------------------------

    def _graph_for(self, edge_index: Adjacency, size: Size, kwargs: Mapping[str, Any]) -> tuple[Any, Tensor | None]:
        """The graph, of the size that the features at its ends tell. Raises ValueError where they disagree."""
        sizes: list[int | None] = [None, None]
        features: Tensor | None = None
        for name, end in self._ends():
            value = kwargs.get(name)
            pairs = {0: value[0], 1: value[1]} if isinstance(value, tuple | list) else {end: value}
            for place, part in pairs.items():
                if not isinstance(part, Tensor):
                    continue
                rows = part.size(self.node_dim)
                if sizes[place] is None:
                    sizes[place] = rows
                    features = part if features is None else features
                elif sizes[place] != rows:
                    raise ValueError(
                        f"Encountered tensor with size {rows} in dimension {self.node_dim}, but expected size "
                        f"{sizes[place]}. It is `{name}`, and other values of these nodes have that many rows"
                    )
        graph, values = self.graph(edge_index, sizes[0], sizes[1], size)
        return graph, None if values is None else in_dtype_of(features, values)

    @traced.constant_for_tracer
    def _ends(self) -> tuple[tuple[str, int], ...]:
        """The arguments that are read at an end of the edges: 0 for the source, 1 for the target."""
        return _ends_of(*[self._asked(method) for method in ("message", "aggregate", "update", "edge_update")])

    @traced.constant_for_tracer
    def _asked(self, method: str) -> tuple[tuple[str, bool], ...]:
        """The arguments of a method, each with whether it may be left out."""
        found: Any = getattr(self, method)
        return _arguments(getattr(found, "__func__", found), hasattr(found, "__self__"))

    def _chosen(self, method: str, given: Mapping[str, Any], skip: int = 0) -> dict[str, Any]:
        """The arguments that a method asks for. Raises TypeError for one that is missing."""
        chosen = {}
        for name, optional in self._asked(method)[skip:]:
            if name in given:
                chosen[name] = given[name]
            elif not optional:
                raise TypeError(f"Required parameter '{name}' is empty.")
        return chosen

    def _about_edges(self, name: str, graph: Any) -> Any:
        """One of the arguments that are about the edges."""
        if name == "edge_index":
            return graph.edge_index if self.flow == "source_to_target" else graph.edge_index.flip(0)
        return _ABOUT[name](graph)

    def _collected(self, methods: tuple[str, ...], graph: Any, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """All that these methods may ask for, with node values read at the ends of the edges."""
        found: dict[str, Any] = {}
        for method in methods:
            for name, _ in self._asked(method):
                if name in SPECIAL:
                    found[name] = self._about_edges(name, graph)
                elif name not in found:
                    value, end = self._argument(name, kwargs)
                    if end is not None and isinstance(value, Tensor):
                        value = value.index_select(self.node_dim, graph.edge_index[end])
                    if value is not inspect.Parameter.empty:
                        found[name] = value
        return found

    def _argument(self, name: str, kwargs: Mapping[str, Any]) -> tuple[Any, int | None]:
        """What an argument of a method is read from, and the end of the edges at which, if any."""
        if not _is_end(name):
            return kwargs.get(name, inspect.Parameter.empty), None
        end = 0 if name.endswith("_j") else 1
        value = kwargs.get(name[:-2], inspect.Parameter.empty)
        return (value[end] if isinstance(value, tuple | list) else value), end

    # -- on tensors ------------------------------------------------------------------------------

    def _on_tensors(self, graph: Any, kwargs: Mapping[str, Any]) -> Tensor:
        """The methods as they are, on tensors of all edges."""
        given = self._collected(("message", "aggregate"), graph, kwargs)
        messages = self.message(**self._chosen("message", given))
        return self.aggregate(messages, **self._chosen("aggregate", given, skip=1))

    def _aggregated(self, messages: Any, graph: Graph, kwargs: Mapping[str, Any]) -> Tensor:
        given = self._collected(("aggregate",), graph, kwargs)
        return self.aggregate(messages, **self._chosen("aggregate", given, skip=1))

    # -- the program -----------------------------------------------------------------------------

    def _propagated(self, graph: Graph, kwargs: Mapping[str, Any]) -> Tensor:
        never = self._never(graph)
        if never is not None:
            self._say(AS_IT_IS + never)
            return self._on_tensors(graph, kwargs)
        kind = self._kind(graph, kwargs)
        wait, skipped, reason = self._kinds.get(kind, (0, 0, ""))
        if wait:
            self._kinds[kind] = wait - 1, skipped, reason
            self._say(reason)
            return self._on_tensors(graph, kwargs)
        first = kind not in self._kinds
        opaque = _opaque(self) if first else None
        if opaque is not None:
            return self._never_again(kind, f"`{opaque}` takes tensors without asking what they are", graph, kwargs)
        state = _Before(self) if first else None
        trace = self._trace(graph, kwargs)
        if trace is None:
            along = self.node_dim not in (0, -2) and f"nodes lie along dimension {self.node_dim}"
            self._say(AS_IT_IS + (along or "no argument holds real numbers of each edge or of the nodes at its ends"))
            return self._on_tensors(graph, kwargs)
        try:
            out = self._run(trace, graph, kwargs)
        except Exception:
            if trace.restarted is None:
                raise
        finally:
            trace.forget()
        if len(self._kinds) >= MOST_KINDS:
            self._kinds.clear()
        if trace.restarted is not None:
            if state is not None:
                state.restore()
            return self._never_again(kind, trace.restarted, graph, kwargs)
        if trace.reason is None:
            self._kinds[kind] = 0, 0, ""
            self._say("fused")
        else:
            reason, again = AS_IT_IS + trace.reason, min(2 * skipped + 1, MOST_SKIPPED)
            self._kinds[kind] = again, again, reason
            self._say(reason)
        return out

    def _never_again(self, kind: Any, reason: str, graph: Graph, kwargs: Mapping[str, Any]) -> Tensor:
        self._kinds[kind] = sys.maxsize, 0, AS_IT_IS + reason
        self._say(AS_IT_IS + reason)
        return self._on_tensors(graph, kwargs)

    def _say(self, how: str) -> None:
        self.__dict__["_how"] = how  # not by setattr, which torch's modules make slow

    def _never(self, graph: Any) -> str | None:
        """Why no call of this kind is fused."""
        if type(self).aggregate is not MessagePassing.aggregate or "aggregate" in self.__dict__:
            return "`aggregate` is the layer's own"
        if not isinstance(self.aggr_module, Aggregation) or any(map(parts.must_run, self.aggr_module.modules())):
            return "the aggregation is not one of gdsl.nn.aggr, or has hooks"
        if transforming():
            return "a transform of torch.func is at work"
        if not isinstance(graph, Graph) or torch.jit.is_tracing():
            return "torch traces the call"
        return None

    def _kind(self, graph: Graph, kwargs: Mapping[str, Any]) -> Any:
        """What may decide whether the expression breaks: calls that differ in it are tried by themselves."""
        facts = []
        for name, value in kwargs.items():
            for part in value if isinstance(value, tuple | list) else (value,):
                known = (part.dtype, part.dim()) if isinstance(part, Tensor) else type(part)
                facts.append((name, known))
        message = getattr(self.message, "__func__", self.message)
        autocast = torch.is_autocast_enabled(graph.edge_index.device.type)
        grad = torch.is_grad_enabled()
        return message, self.training, grad, autocast, graph.is_bipartite, graph.num_edges == 1, tuple(facts)

    def _trace(self, graph: Graph, kwargs: Mapping[str, Any]) -> Trace | None:
        """What the method's run is recorded in; None where no argument is a real number of edges or nodes."""
        device = graph.edge_index.device
        for name, _ in self._asked("message"):
            value, end = self._argument(name, kwargs) if name not in SPECIAL else (None, None)
            if isinstance(value, Tensor) and self._on_edges(value, end, graph) and value.device == device:
                rows = Domain.TARGET if self._is_bipartite(graph, kwargs) else Domain.NODE
                return Trace(rows, graph, dtype_of(value), device)
        return None

    def _on_edges(self, value: Tensor, end: int | None, graph: Graph) -> bool:
        """Whether a tensor is a real number, or several, of each edge or of each node at an end of the edges."""
        if type(value) not in (Tensor, nn.Parameter) or value.layout is not torch.strided or not value.dim():
            return False
        if not value.is_floating_point() or 0 in value.shape[1:]:
            return False
        if end is None:
            return value.shape[0] == graph.num_edges
        return -value.dim() <= self.node_dim < value.dim() and self.node_dim % value.dim() == 0

    def _is_bipartite(self, graph: Graph, kwargs: Mapping[str, Any]) -> bool:
        pairs = [kwargs.get(name) for name, _ in self._ends()]
        different = any(isinstance(v, tuple | list) and v[0] is not v[1] for v in pairs)
        return different or graph.is_bipartite

    def _given(self, trace: Trace, graph: Graph, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of ``message``: Symbols where they can be, other tensors read at the ends of the edges."""
        given: dict[str, Any] = {}
        for name, _ in self._asked("message"):
            if name in SPECIAL:
                given[name] = self._about_edges(name, graph)
                continue
            value, end = self._argument(name, kwargs)
            if isinstance(value, Tensor):
                value = self._symbol(trace, graph, name, value, end)
            if value is not inspect.Parameter.empty:
                given[name] = value
        return self._chosen("message", given)

    def _symbol(self, trace: Trace, graph: Graph, name: str, value: Tensor, end: int | None) -> Tensor:
        fits = self._on_edges(value, end, graph) and value.device == trace.device
        if not fits or dtype_of(value) != trace.dtype:
            return value if end is None else value.index_select(self.node_dim, graph.edge_index[end])
        if end is None:
            return trace.input(_safe(name), value, Domain.EDGE, None)
        bipartite = trace.names.rows is Domain.TARGET
        domain = (Domain.SOURCE, Domain.TARGET)[end] if bipartite else Domain.NODE
        return trace.input(name if bipartite else _safe(name[:-2]), value, domain, end)

    def _run(self, trace: Trace, graph: Graph, kwargs: Mapping[str, Any]) -> Tensor:
        result = _method(self.message)(**self._given(trace, graph, kwargs))
        trace.check()
        if not isinstance(result, Symbol):
            if trace.reason is None:
                trace.break_off("`message` does not give a value of each edge that depends on its arguments")
            return self._aggregated(result, graph, kwargs)
        held = trace.held(result.cell)
        try:
            out, params = self._read_aggregation(trace, result.cell.value)
            own = {name: self._parameter(name, trace) for name in params}
            programs = self._programs([symbol.cell.value for symbol in held], out, trace)
        except Exception as reason:  # also a bug of a pass of the compiler: nothing has been computed yet
            del held
            trace.break_off(f"the aggregation: {_reason(reason)}")
            return self._aggregated(result, graph, kwargs)
        tensors, cut = trace.tensors, trace.grad and not result.needs_grad
        del result
        trace.forget()
        if trace.names.salts:
            tensors["seed"] = seed_for(trace.device)
        # What the method has put somewhere is computed by itself, and read by what comes after it: so that gradients
        # by it are those of torch.
        for k, (symbol, program) in enumerate(zip(held, programs, strict=False)):
            put(symbol, _as(run(program, graph, dict(tensors), self.backend)[0], symbol))
            tensors[f"kept.{k}"] = symbol
        if cut:
            # Nothing flows back through the messages, so that torch's result has no gradient either.
            tensors = {name: tensor.detach() for name, tensor in tensors.items()}
        return run(programs[-1], graph, tensors | own, self.backend)[0]

    def _programs(self, kept: list[Value], out: Node, trace: Trace) -> list[CallKind]:
        """What computes each value that is kept, from those before it, and the result from all of them."""
        loads = dict[Node, Node]()
        found = []

        def kind(node: Node) -> CallKind:
            name, store = type(self).__name__, self._store
            typed = store.programs.once((name, node), lambda: _typed(name, node))
            return store.kind((name, node), typed, self._options, trace.dtype, trace.device)

        for k, value in enumerate(kept):
            node = _with(build.to_float(value.ordered()), loads)
            found.append(kind(node))
            loads[value.node] = _loaded_as(f"kept.{k}", value)
        found.append(kind(_with(out, loads)))
        for each in found:
            ready_for(each, trace.graph, self.backend)  # what it may raise, it raises here
        return found

    def _read_aggregation(self, trace: Trace, message: Value) -> tuple[Node, list[str]]:
        """The aggregate of the messages, and the parameters that it reads."""
        if not message.on_rows or message.node.kind is not Kind.FLOAT:
            raise Untraceable("the messages are no real numbers of each edge")
        if not -message.ndim <= self.node_dim < message.ndim or self.node_dim % message.ndim:
            raise Untraceable(f"node_dim is {self.node_dim}, and the messages have {message.ndim} dims")
        reader = Reader("aggr_module", no_dropout)
        out = read_aggregation(reader, "aggr_module", self.aggr_module, message.ordered(), "i", trace.names.rows)
        return out, list(reader.params)

    def _parameter(self, name: str, trace: Trace) -> Tensor:
        """A parameter of the aggregation, as it is now. Raises Untraceable for one of a wider type."""
        held: Any = functools.reduce(getattr, name.split("."), self)
        found = trace.lowered(held)
        if torch.promote_types(found.dtype, trace.dtype) != trace.dtype or found.device != trace.device:
            raise Untraceable(f"`{name}` is {short(found.dtype)} on {found.device}")
        return found.to(trace.dtype)


# ------------------------------------------------------------------------------------------- programs


class _Everyones(Shared):
    """What all layers share: expressions are hash-consed, and so is what they are without their numbers."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _Everyones:
        return self

    def __reduce__(self) -> Any:
        return "_shared"


_shared = _Everyones()


def _typed(name: str, node: Node) -> TypedProgram:
    """An expression as a program."""
    loads = Program(name, (("out", node),)).inputs
    declared = tuple(Declaration(n.attrs.name, "input", n.type) for n in loads if n.attrs.role != "seed")
    return TypedProgram(name, (), declared, (), (), (("out", node),), {})


def _reason(error: Exception) -> str:
    """Why a message is not compiled. It runs on tensors then, right but slower, so a warning tells a bug of gdsl."""
    if isinstance(error, Untraceable | Unreadable | GdslError) and not isinstance(error, ProgramError):
        return str(error) or "it is not read"
    reason = f"gdsl could not compile it: {type(error).__name__}: {error}"
    warnings.warn(f"{reason}. This is a bug of gdsl; the layer runs unfused", InternalWarning, stacklevel=2)
    return reason


def _with(node: Node, kept: Mapping[Node, Node]) -> Node:
    """An expression that reads what is kept."""
    return substitute([node], kept)[node] if kept else node


def _loaded_as(name: str, value: Value) -> Node:
    """An input in the place of a value."""
    inside = loaded(name, Domain.EDGE, value.sizes, value.node.kind)
    dims = tuple(value.node.type.dim(a) for a in value.axes if a is not None)
    shaped = build.reshape_like(inside.node, Type(Domain.EDGE, dims, value.node.kind))
    return build.transpose(shaped, value.node.type.names)


def _as(real: Tensor, symbol: Symbol) -> Tensor:
    """A computed tensor as the Symbol that it is to replace."""
    with torch._C.DisableTorchFunctionSubclass():
        shape, dtype = symbol.shape, symbol.dtype
    real = real if symbol.needs_grad else real.detach()
    return real.view(shape) if dtype == real.dtype else real.to(dtype).view(shape)


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
    if isinstance(src, Symbol):
        return src.tracing.softmax(softmax, src, index, ptr, num_nodes, dim)
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


@functools.cache
def _softmax_of(theirs: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """torch_geometric's softmax, put off where it is given a Symbol."""

    @functools.wraps(theirs)
    def put_off(src: Tensor, index: Any, ptr: Any = None, num_nodes: Any = None, dim: int = 0) -> Tensor:
        if isinstance(src, Symbol):
            return src.tracing.softmax(theirs, src, index, ptr, num_nodes, dim)
        return theirs(src, index, ptr, num_nodes, dim)

    return put_off


class _Globals(dict[str, Any]):
    """Names in front of the globals of a module."""

    def __init__(self, outer: dict[str, Any], names: Mapping[str, Any]):
        super().__init__(names)
        self.outer = outer

    def __missing__(self, name: str) -> Any:
        return self.outer[name]


def _method(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method that calls torch_geometric's softmax by a global name, with one that can be put off in its place."""
    theirs = getattr(sys.modules.get("torch_geometric.utils"), "softmax", None)
    function = getattr(method, "__func__", None)
    if theirs is None or type(function) is not types.FunctionType:
        return method
    outer = function.__globals__
    names = [name for name in _names_in(function.__code__) if outer.get(name) is theirs]
    cells = function.__closure__ or ()
    closed = [cell for cell in cells if _contents(cell) is theirs]
    if (not names and not closed) or _writes_globals(function.__code__):
        return method
    ours = _softmax_of(theirs)
    known = _Globals(outer, {"__builtins__": outer["__builtins__"], **dict.fromkeys(names, ours)})
    twin = types.FunctionType(
        function.__code__,
        known if names else outer,
        function.__name__,
        function.__defaults__,
        tuple(types.CellType(ours) if cell in closed else cell for cell in cells),
    )
    twin.__kwdefaults__ = function.__kwdefaults__
    return types.MethodType(twin, method.__self__)  # type: ignore[attr-defined]


@functools.lru_cache(maxsize=1024)
def _writes_globals(code: types.CodeType) -> bool:
    inside = (_writes_globals(c) for c in code.co_consts if isinstance(c, types.CodeType))
    own = any(i.opname in ("STORE_GLOBAL", "DELETE_GLOBAL") for i in dis.get_instructions(code))
    return own or any(inside)


def _contents(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not bound yet
        return None


@functools.lru_cache(maxsize=1024)
def _names_in(code: types.CodeType) -> tuple[str, ...]:
    """The names that a piece of code and pieces inside it use."""
    found: list[str] = []
    todo = [code]
    while todo:
        part = todo.pop()
        found += part.co_names
        todo += [c for c in part.co_consts if isinstance(c, types.CodeType)]
    return tuple(dict.fromkeys(found))


# ------------------------------------------------------------------------------------------ small things


def _is_end(name: str) -> bool:
    return name[-2:] in ("_i", "_j") and name not in SPECIAL


@functools.lru_cache(maxsize=4096)
def _ends_of(*asked: tuple[tuple[str, bool], ...]) -> tuple[tuple[str, int], ...]:
    names = {name for arguments in asked for name, _ in arguments}
    return tuple(sorted((name[:-2], 0 if name.endswith("_j") else 1) for name in names if _is_end(name)))


def _safe(name: str) -> str:
    """A name for an input: a program's seed has one of its own."""
    return "seed_" if name == "seed" else name


@functools.lru_cache(maxsize=4096)
def _arguments(function: Callable[..., Any], bound: bool) -> tuple[tuple[str, bool], ...]:
    parameters = list(inspect.signature(function).parameters.values())[1 if bound else 0 :]
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return tuple((p.name, p.default is not p.empty) for p in named)


def _opaque(layer: nn.Module) -> str | None:
    """A function within reach of ``message`` that torch hands tensors to without asking their class: one with a
    gradient of its own, or a scripted one. Where this overlooks one, the call notices, and runs again."""
    todo: list[tuple[Any, Any]] = [(layer.message, layer)]
    seen: set[Any] = set()
    while todo:
        found, owner = todo.pop()
        if isinstance(found, torch.jit.ScriptFunction | torch.jit.ScriptModule):
            return str(getattr(found, "name", type(found).__name__))
        if isinstance(found, type) and issubclass(found, torch.autograd.Function):
            return found.__name__
        if isinstance(found, nn.Module):
            own = [part for part in found.modules() if not type(part).__module__.startswith("torch.nn.")]
            todo += [(part, part) for part in own if isinstance(part, torch.jit.ScriptModule)]
            todo += [(type(part).forward, part) for part in own]
            continue
        function = getattr(found, "__func__", found.fget if isinstance(found, property) else found)
        function = inspect.unwrap(function) if isinstance(function, types.FunctionType) else None
        if not isinstance(function, types.FunctionType) or function in seen:
            continue
        seen.add(function)
        if (function.__module__ or "").startswith(("torch.", "torch_geometric.", "gdsl.")):
            continue
        names = _names_in(function.__code__)
        todo += [(function.__globals__[name], owner) for name in names if name in function.__globals__]
        todo += [(_contents(cell), owner) for cell in function.__closure__ or ()]
        todo += [(owner._modules.get(name) or inspect.getattr_static(owner, name, None), owner) for name in names]
    return None


class _Before:
    """What a layer held before its method ran for the first time."""

    def __init__(self, layer: nn.Module):
        self._parts = [(part, dict(part.__dict__), _copies(part.__dict__)) for part in layer.modules()]
        self._buffers = [(b, b.detach().clone()) for b in layer.buffers()]
        self._random = torch.get_rng_state()

    def restore(self) -> None:
        torch.set_rng_state(self._random)
        for part, attributes, copies in self._parts:
            part.__dict__.clear()
            part.__dict__.update(attributes)
            for held, was in copies:
                held.clear()
                held.extend(was) if isinstance(held, list) else held.update(was)
        with torch.no_grad():
            for buffer, was in self._buffers:
                buffer.copy_(was)


def _copies(attributes: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    """The lists, dicts and sets among attributes, each with a copy."""
    return [(v, copy.copy(v)) for v in attributes.values() if type(v) in (list, dict, set)]
