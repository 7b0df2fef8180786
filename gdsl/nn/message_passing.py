"""torch_geometric's base class for layers of a user's own: ``message`` becomes a program where it can."""

from __future__ import annotations

import functools
import importlib
import sys
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gdsl.errors import InputError
from gdsl.ir.types import Domain
from gdsl.kept import Kept
from gdsl.language import parts
from gdsl.module import collected, compiled
from gdsl.module.collected import Asked, Sending
from gdsl.module.hooks import POINTS, Hooked
from gdsl.module.host import NotOurs
from gdsl.module.run import ready_for, run, seed_for
from gdsl.module.ways import CallKind, Ran
from gdsl.nn import message_programs, scatter
from gdsl.nn.aggr import Aggregation
from gdsl.nn.conv.base import Conv, Unasked
from gdsl.nn.conv.inputs import Adjacency, Size, in_dtype_of
from gdsl.nn.lazy import Recording, dtype_of
from gdsl.nn.message_programs import MessagePrograms
from gdsl.nn.reach import Before, opaque
from gdsl.nn.softmax import with_softmax
from gdsl.nn.symbolic import TensorValue, Untraceable
from gdsl.nn.symbols import Symbol, like, put
from gdsl.runtime.answers import is_heard
from gdsl.runtime.dtypes import short
from gdsl.runtime.graph import Graph
from gdsl.runtime.transforms import transforming

MOST_KINDS = 64
# A method whose expression broke is tried again after 1, 2, 4, ... calls of the same kind, at most so many.
MOST_SKIPPED = 256

AS_IT_IS = "message and aggregate run as they are: "

NOT_CALLED = "not called yet"

# Names that layers have besides those of torch_geometric's: torch finds no module of such a name.
_TAKEN = frozenset(
    name
    for kind in Conv.__mro__
    if kind.__module__.startswith("gdsl.")
    for name, value in vars(kind).items()
    if not isinstance(value, NotOurs)
)

# How many arguments of a method ``propagate`` gives by place.
_GIVEN = {"explain_message": 1, "aggregate": 1, "update": 1, "message_and_aggregate": 1}

_METHODS = ("message", "aggregate", "update")

# The aggregations by name with which torch_geometric calls ``message_and_aggregate``.
_WHOLE = (None, "add", "sum", "mean", "min", "max")


class MessagePassing(Conv):
    """Base of a user's own layers: ``propagate``, ``message``, ``aggregate`` and ``update`` as in torch_geometric.

    Each call runs ``message``, with whatever Python does in it, on tensors that are not computed yet. Where it is made
    of functions that the IR has, and ``aggregate`` is the one of this class with an aggregation that is read, both are
    one program: nothing of the size of the edges times the features is stored. From the first function on that the IR
    does not have, the method runs on tensors of all edges, as torch runs it. :attr:`how` says which, and why. A tensor
    of all edges that the method keeps (``self.alpha = alpha``) is computed along with the result.

    Under torch.compile the message is torch's, as its tracer and its guards have it: a program of ours would not notice
    that a number which the method reads has changed. Only the aggregation is an operator there.

    Under :func:`torch.autocast` a fused message and its result are of the lower precision, as layers in text are.

    aggr, aggr_kwargs, flow, decomposed_layers, backend: see :class:`gdsl.nn.conv.base.Conv`
    node_dim: the dimension of the nodes; one that is not the first runs on tensors
    fuse:     whether a ``message_and_aggregate`` of the layer's own is called for a sparse matrix
    """

    program_name = "message_passing"
    nodes_last = True

    # Whether ``message_and_aggregate`` takes torch_geometric's edges sorted by target, too.
    SUPPORTS_FUSED_EDGE_INDEX: ClassVar[bool] = False

    def __init__(self, aggr: Any = "sum", **kwargs: Any):
        super().__init__(aggr, **kwargs)
        implemented = type(self).message_and_aggregate is not MessagePassing.message_and_aggregate
        self.fuse = implemented and not isinstance(self.aggr, list) and self.aggr in _WHOLE
        self._how = NOT_CALLED
        self._calling = False
        # For each kind of call how often it is to run as it is before it is tried again, and how often last time.
        self._kinds = Kept()
        # Names of parameters and buffers by what torch knows them by: they may be others by now.
        self._names = Kept()

    _points = POINTS

    @classmethod
    def _unasked(cls) -> list[Unasked]:
        return []

    @property
    def inspector(self) -> Any:
        """torch_geometric's object that tells the arguments of the methods; nothing of gdsl's reads it.

        Raises AttributeError where torch_geometric is not installed.
        """
        try:
            made = importlib.import_module("torch_geometric.inspector").Inspector(type(self))
        except ImportError as error:
            raise AttributeError("`inspector` is torch_geometric's, which is not installed") from error
        for name in (*_METHODS, "message_and_aggregate", "edge_update"):
            method = getattr(self, name)
            made.inspect_signature(method, exclude=[0, "aggr"] if name in _GIVEN else None)
        return made

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
        return self.aggr_module(inputs, index=index, ptr=ptr, dim_size=dim_size, dim=self.node_dim)

    def message_and_aggregate(self, edge_index: Adjacency) -> Tensor:
        """Both in one, of a sparse matrix whose rows are targets: called for one where a layer has this method."""
        raise NotImplementedError

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
        size:       how many nodes the first and the second row of ``edge_index`` are of, where the arguments do not
                    say it
        kwargs:     what ``message``, ``aggregate`` and ``update`` ask for by name

        Raises what :meth:`Conv.graph` raises, and ValueError for node values of different numbers of nodes.
        """
        return self._hooked("propagate", self._propagate, edge_index, size, kwargs)

    def _propagate(self, edge_index: Adjacency, size: Size, kwargs: dict[str, Any]) -> Any:
        if self.fuse and not self._explaining and self._is_whole(edge_index):
            methods = ("message_and_aggregate", "update")
            call = Sending(edge_index, None, kwargs, False, None, self.node_dim, False)
            if collected.reads_edges(map(self._asked, methods)):
                call = self._sending(methods, edge_index, size, kwargs)
            given = call.collected(self._asked("message_and_aggregate"))
            out = self._hooked("message_and_aggregate", self._message_and_aggregate, edge_index, given)
        else:
            asking = (*_METHODS, "explain_message") if self._explaining else _METHODS
            call = self._sending(asking, edge_index, size, kwargs)
            out = self._on_tensors(call) if torch.compiler.is_compiling() else self._propagated(call)
        if getattr(self.update, "__func__", None) is MessagePassing.update:
            return out
        return self.update(out, **call.collected(self._asked("update")))

    def _is_whole(self, edge_index: Adjacency) -> bool:
        """Whether the graph is what ``message_and_aggregate`` takes."""
        if type(edge_index).__name__ == "EdgeIndex":
            return self.SUPPORTS_FUSED_EDGE_INDEX and bool(edge_index.is_sorted_by_col)
        return self.flow == "source_to_target" and collected.is_matrix(edge_index)

    def _message_and_aggregate(self, edge_index: Adjacency, given: dict[str, Any]) -> Tensor:
        self.__dict__["_how"] = "`message_and_aggregate` is the layer's own"
        return self.message_and_aggregate(edge_index, **given)

    def edge_updater(self, edge_index: Adjacency, size: Size = None, **kwargs: Any) -> Any:
        """The value of each edge by ``edge_update``. It is stored, so it runs in torch."""
        call = self._sending(("edge_update",), edge_index, size, kwargs)
        given = call.collected(self._asked("edge_update"))
        return self._hooked("edge_update", lambda _, __, given: self.edge_update(**given), edge_index, size, given)

    @property
    def how(self) -> str:
        """How the last call ran: "fused", or from where on the methods ran as they are."""
        return self._how

    # -- the look inside -------------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The programs of all calls of ``propagate`` in one of the layer are what the last call ran.

        Raises :class:`gdsl.InputError` for a module of the layer that a method of this class hides.
        """
        if torch.compiler.is_compiling():
            return super().__call__(*args, **kwargs)
        if self._how == NOT_CALLED:
            for name in _TAKEN.intersection(self._modules):
                raise InputError(
                    f"gdsl's layers have `{name}` themselves: give the part of {type(self).__name__} another name"
                )
        self._store.last = ()
        self.__dict__["_calling"] = True
        try:
            return super().__call__(*args, **kwargs)
        finally:
            self.__dict__["_calling"] = False

    def _definition(self) -> None:
        """The text is Python's."""

    def _ran(self) -> tuple[Ran, ...]:
        if not self._store.last and self._how.startswith(AS_IT_IS):
            raise InputError(f"the last call of {type(self).__name__} ran no program: {self._how}")
        return super()._ran()

    def _watch(self, what: str, point: str = "message") -> None:
        Hooked._watch(self, what, point)

    @property
    def _edge_dim(self) -> int:
        return self.node_dim

    # -- the arguments ---------------------------------------------------------------------------

    def _sending(self, methods: tuple[str, ...], edge_index: Adjacency, size: Size, kwargs: dict[str, Any]) -> Sending:
        """The graph, of the size that the features at its ends tell, with the arguments of these methods.

        Raises ValueError where sizes disagree.
        """
        sizes: list[int | None] = [None, None]
        features: Tensor | None = None
        apart = False
        for name, end in self._ends(methods):
            value = kwargs.get(name)
            pairs = {end: value}
            if isinstance(value, tuple | list):
                pairs = {0: value[0], 1: value[1]}
                apart = apart or value[0] is not value[1]
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
        backwards = self.flow == "target_to_source"
        if size is not None and backwards:
            size = (size[1], size[0])
        # Not by the names of these methods: a layer of a user's own may have taken them.
        graph, values = Conv.graph(self, edge_index, sizes[0], sizes[1], size)
        if values is not None:
            kwargs = collected.with_values(kwargs, in_dtype_of(features, values), map(self._asked, methods))
        plain = type(edge_index) is Tensor and edge_index.layout is torch.strided
        known = not plain and not torch.compiler.is_compiling()
        ptr = collected.pointer(edge_index, graph.num_targets, backwards) if known else None
        return Sending(edge_index, graph, kwargs, apart or graph.is_bipartite, ptr, self.node_dim, backwards)

    @compiled.constant_for_tracer
    def _ends(self, methods: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
        return collected.ends_of(*map(self._asked, methods))

    @compiled.constant_for_tracer
    def _asked(self, method: str) -> Asked:
        return collected.asked_by(getattr(self, method), _GIVEN.get(method, 0))

    # -- on tensors ------------------------------------------------------------------------------

    def _on_tensors(self, call: Sending) -> Tensor:
        """The methods as they are, on tensors of all edges."""
        given = call.collected(self._asked("message"))
        messages = self._hooked("message", lambda given: self.message(**given), given)
        if self._explaining:
            messages = self.explain_message(messages, **call.collected(self._asked("explain_message")))
        return self._aggregated(messages, call)

    def _aggregated(self, messages: Any, call: Sending) -> Tensor:
        compiling = torch.compiler.is_compiling() and not self._watched
        if compiling and self._has_program() and messages.is_floating_point():
            rows = messages.unsqueeze(1) if messages.dim() == 1 else messages
            out: Tensor = Conv.run(self, call.graph, {"m": rows})
            return out.t().flatten() if messages.dim() == 1 else out
        given = call.collected(self._asked("aggregate"))
        return self._hooked("aggregate", lambda given: self.aggregate(messages, **given), given)

    def _children(self) -> list[nn.Module]:
        return [self.aggr_module]

    @compiled.constant_for_tracer
    def _has_program(self) -> bool:
        """Whether a tracer is to see a program aggregate the messages that torch has computed."""
        ours = getattr(self.aggregate, "__func__", None) is MessagePassing.aggregate and self.node_dim in (0, -2)
        return ours and isinstance(self.aggr_module, Aggregation) and not scatter.knows(self.aggr_module)

    def _as_it_is(self, call: Sending, how: str) -> Tensor:
        self.__dict__["_how"] = how  # not by setattr, which torch's modules make slow
        return self._on_tensors(call)

    # -- the program -----------------------------------------------------------------------------

    def _propagated(self, call: Sending) -> Tensor:
        never = self._never(call.graph)
        if never is not None:
            return self._as_it_is(call, AS_IT_IS + never)
        kind = self._kind(call)
        wait, skipped, reason = self._kinds.get(kind, (0, 0, ""))
        if wait:
            self._kinds[kind] = wait - 1, skipped, reason
            return self._as_it_is(call, reason)
        state = None
        if kind not in self._kinds:
            hidden = opaque(self)
            if hidden is not None:
                return self._never_again(kind, f"`{hidden}` takes tensors without asking what they are", call)
            state = Before(self)
        trace = self._trace(call)
        if trace is None:
            along = self.node_dim not in (0, -2) and f"nodes lie along dimension {self.node_dim}"
            none = "no argument holds real numbers of each edge or of the nodes at its ends"
            return self._as_it_is(call, AS_IT_IS + (along or none))
        try:
            out = self._run(trace, call)
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
            return self._never_again(kind, trace.restarted, call)
        how, again = "fused", 0
        if trace.reason is not None:
            how, again = AS_IT_IS + trace.reason, min(2 * skipped + 1, MOST_SKIPPED)
        self._kinds[kind] = again, again, how
        self.__dict__["_how"] = how
        return out

    def _never_again(self, kind: Any, reason: str, call: Sending) -> Tensor:
        self._kinds[kind] = sys.maxsize, 0, AS_IT_IS + reason
        return self._as_it_is(call, AS_IT_IS + reason)

    def _never(self, graph: Any) -> str | None:
        """Why no call of this kind is fused."""
        if getattr(self.aggregate, "__func__", None) is not MessagePassing.aggregate:
            return "`aggregate` is the layer's own"
        if not isinstance(self.aggr_module, Aggregation) or any(map(parts.must_run, self.aggr_module.modules())):
            return "the aggregation is not one of gdsl.nn.aggr, or has hooks"
        if self._watched and self._is_watched():
            if self._explaining:
                return "an edge mask is on the messages"
            if self._has_hooks("message", "aggregate"):
                return "`message` or `aggregate` has hooks"
        if transforming():
            return "a transform of torch.func is at work"
        if not isinstance(graph, Graph) or torch.jit.is_tracing():
            return "torch traces the call"
        return None

    def _kind(self, call: Sending) -> Any:
        """What may decide whether the expression breaks: calls that differ in it are tried by themselves."""
        facts = []
        for name, value in call.kwargs.items():
            for part in value if isinstance(value, tuple | list) else (value,):
                known = (part.dtype, part.dim()) if isinstance(part, Tensor) else type(part)
                facts.append((name, known))
        message = getattr(self.message, "__func__", self.message)
        graph, grad = call.graph, torch.is_grad_enabled()
        autocast = torch.is_autocast_enabled(graph.device.type)
        return message, self.training, grad, autocast, call.bipartite, graph.num_edges == 1, tuple(facts)

    def _trace(self, call: Sending) -> Recording | None:
        """What the method's run is recorded in; None where no argument is a real number of edges or nodes."""
        for name, _ in self._asked("message"):
            value, end = (None, None) if name in collected.SPECIAL else call.argument(name)
            if isinstance(value, Tensor) and self._on_edges(value, end, call.graph):
                rows = Domain.TARGET if call.bipartite else Domain.NODE
                return Recording(rows, call.graph, dtype_of(value), value.device, call.ptr, self._name_of)
        return None

    def _name_of(self, tensor: Tensor) -> str | None:
        """The name of a parameter or buffer in a program."""
        name = self._names.get(id(tensor))
        if name is None and isinstance(tensor, nn.Parameter):
            self._names.clear()
            self._names.update({id(t): name for name, t in [*self.named_buffers(), *self.named_parameters()]})
            name = self._names.get(id(tensor))
        try:
            return name if name and name != "seed" and parts.tensor_of(self, name) is tensor else None
        except InputError:  # there is none of this name any more
            return None

    def _on_edges(self, value: Tensor, end: int | None, graph: Graph) -> bool:
        """Whether a tensor is a real number, or several, of each edge or of each node at an end of the edges."""
        if type(value) not in (Tensor, nn.Parameter) or value.layout is not torch.strided or not value.dim():
            return False
        if not value.is_floating_point() or 0 in value.shape[1:] or value.device != graph.device:
            return False
        if end is None:
            return value.shape[0] == graph.num_edges
        return -value.dim() <= self.node_dim < value.dim() and self.node_dim % value.dim() == 0

    def _symbol(self, trace: Recording, call: Sending, name: str, value: Tensor, end: int | None) -> Tensor:
        """An argument of ``message``: a Symbol where it can be, or the tensor read at the end of the edges."""
        if not self._on_edges(value, end, call.graph) or dtype_of(value) != trace.dtype:
            return call.lifted(value, end)
        if end is None:
            return trace.input(_safe(name), value, Domain.EDGE, None)
        bipartite = trace.names.rows is Domain.TARGET
        domain = (Domain.SOURCE, Domain.TARGET)[end] if bipartite else Domain.NODE
        return trace.input(name if bipartite else _safe(name[:-2]), value, domain, end)

    def _run(self, trace: Recording, call: Sending) -> Tensor:
        lift = functools.partial(self._symbol, trace, call)
        result = with_softmax(self.message)(**call.collected(self._asked("message"), lift))
        trace.check()
        if not isinstance(result, Symbol):
            if trace.reason is None:
                trace.break_off("`message` does not give a value of each edge that depends on its arguments")
            return self._aggregated(result, call)
        held = trace.held(result.cell)
        try:
            programs = self._programs(trace, result.cell.value, tuple(symbol.cell.value for symbol in held))
            own = {name: self._parameter(name, trace) for name in programs.params}
            for kind in programs.kinds:
                ready_for(kind, call.graph, self.backend)
        except Exception as error:  # also a bug of a pass of the compiler: nothing has been computed yet
            if is_heard(error):  # of another process, which is in this call no more
                raise
            del held
            trace.break_off(f"the aggregation: {message_programs.reason(error)}")
            return self._aggregated(result, call)
        tensors, cut = trace.tensors, trace.grad and not result.needs_grad
        del result
        trace.forget()
        if trace.names.salts:
            tensors["seed"] = seed_for(trace.device)
        # What the method has put somewhere is computed by itself, and read by what comes after it: so that gradients
        # by it are those of torch.
        for k, (symbol, kind) in enumerate(zip(held, programs.kinds, strict=False)):
            put(symbol, like(symbol, self._results(kind, call.graph, dict(tensors))))
            tensors[f"kept.{k}"] = symbol
        if cut:
            # Nothing flows back through the messages, so that torch's result has no gradient either.
            tensors = {name: tensor.detach() for name, tensor in tensors.items()}
        return self._results(programs.kinds[-1], call.graph, tensors | own)

    def _results(self, kind: CallKind, graph: Graph, tensors: dict[str, Tensor]) -> Tensor:
        """What a program computes. It is one of those of the call of the layer, if that is under way."""
        store = kind.store
        before = store.last if self._calling else ()
        (result,) = run(kind, graph, tensors, self.backend, self)
        store.last = (*before, *store.last)
        return result

    def _programs(self, trace: Recording, message: TensorValue, held: tuple[TensorValue, ...]) -> MessagePrograms:
        """The programs of a message. Raises Untraceable where the aggregation is not one of its functions."""
        rows, state = trace.names.rows, parts.states([self.aggr_module])
        key = (message, held, rows, self.node_dim, trace.dtype, trace.device, state)
        found: MessagePrograms | None = self._texts.get(key)
        if found is None:
            if not -message.ndim <= self.node_dim < message.ndim or self.node_dim % message.ndim:
                raise Untraceable(f"node_dim is {self.node_dim}, and the messages have {message.ndim} dims")
            out, params = message_programs.aggregated("aggr_module", self.aggr_module, message, rows)
            typed = message_programs.programs(type(self).__name__, held, message, out, rows, trace.names.salts > 0)
            about = self._options, trace.dtype, trace.device
            found = MessagePrograms(tuple(self._store.kind((p.name, p.outputs), p, *about) for p in typed), params)
            self._texts.keep(key, found)
        return found

    def _parameter(self, name: str, trace: Recording) -> Tensor:
        """A parameter of the aggregation, as it is now. Raises Untraceable for one of a wider type."""
        held: Any = functools.reduce(getattr, name.split("."), self)
        found = trace.lowered(held)
        if torch.promote_types(found.dtype, trace.dtype) != trace.dtype or found.device != trace.device:
            raise Untraceable(f"`{name}` is {short(found.dtype)} on {found.device}")
        return found.to(trace.dtype)


def _safe(name: str) -> str:
    """A name for an input: a program's seed has one of its own."""
    return "seed_" if name == "seed" else name
