"""What all layers share: a program of the language on a module's parameters, called as torch_geometric's layers are."""

from __future__ import annotations

import functools
import inspect
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import resources
from typing import Any, ClassVar, NoReturn, TypeAlias

import torch
from torch import Tensor, nn

from gdsl.errors import GdslError, GraphError, InputError
from gdsl.kept import Kept
from gdsl.language import ast
from gdsl.language.errors import LanguageError
from gdsl.language.signature import signature_of
from gdsl.module import compiled
from gdsl.module.api import find_layer
from gdsl.module.arguments import bind, free_sizes
from gdsl.module.call import call
from gdsl.module.compilable import Compilable
from gdsl.module.inspected import Inspected
from gdsl.module.shared import Repeated
from gdsl.module.ways import Compilations, Ran, Text, Way, text_for
from gdsl.nn import host
from gdsl.nn.aggr import Aggregation, aggr_resolver
from gdsl.nn.conv.hooks import Hooked
from gdsl.nn.conv.watched import run_watched
from gdsl.passes.options import Options
from gdsl.runtime.formats import sizes_of
from gdsl.runtime.graph import Graph, graph_of
from gdsl.runtime.tracers import NotScriptable, check_proxy, check_tracers

Pair: TypeAlias = tuple[Tensor, Tensor | None]
Features: TypeAlias = Tensor | Pair
Channels: TypeAlias = int | tuple[int, int]
Size: TypeAlias = tuple[int | None, int | None] | None
Adjacency: TypeAlias = Any
Result: TypeAlias = Any

# What programs call the steps that a normalised graph has behind it.
_NORMALISING = frozenset(("add_self_loops", "loops", "normalize", "symmetric"))

_WHOLE = frozenset({torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64})

FLOWS = ("source_to_target", "target_to_source")


@functools.cache
def program_text(name: str) -> str:
    """The text of a program of the library."""
    return (resources.files("gdsl.nn") / "programs" / f"{name}.gdsl").read_text(encoding="utf-8")


@functools.cache
def program_of(name: str) -> ast.Layer:
    """A program of the library, parsed."""
    return find_layer(program_text(name))


@functools.cache
def _ranks_of(name: str) -> tuple[tuple[str, int], ...]:
    """The inputs of a program of the library, and how many dims each has besides the rows."""
    return tuple((i.name, i.rank) for i in signature_of(program_of(name)).inputs)


@functools.cache
def _reals_of(name: str) -> tuple[str, ...]:
    """The inputs of a program of the library that are real numbers."""
    return tuple(i.name for i in signature_of(program_of(name)).inputs if i.real)


@functools.cache
def _has_messages(name: str) -> bool:
    """Whether a program of the library says what its messages are."""
    return re.search(r"^[^#\n]*\bmessage \w+ =", program_text(name), re.MULTILINE) is not None


class Unasked:
    """A method that torch_geometric's layers call and a program does not: a user's own must not be ignored in silence.

    A module has no such attribute. Raises :class:`gdsl.InputError` where one is set.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, module: nn.Module | None, owner: type) -> Unasked:
        if module is None:
            return self
        raise AttributeError(self.name)

    def __set__(self, module: nn.Module, value: Any) -> None:
        self.refuse(type(module))

    def refuse(self, layer: type) -> NoReturn:
        """Raises :class:`gdsl.InputError` for a method of the user's in a layer."""
        raise InputError(
            f"{layer.__name__} is computed by a program and never calls `{self.name}`: for a `{self.name}` of your own "
            "derive the layer from gdsl.nn.MessagePassing"
        )


class KeptGraph:
    """The graph of the first call with its weights, under the name that torch_geometric has for its own: assigning None
    forgets it. Raises :class:`gdsl.InputError` for anything else, since what is kept is not normalised yet.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, module: nn.Module | None, owner: type) -> Any:
        return self if module is None else module.__dict__[self.name]

    def __set__(self, module: nn.Module, value: None) -> None:
        if value is not None:
            raise InputError(f"`{self.name}` is for the layer to set; None forgets the graph that it keeps")
        module.__dict__[self.name] = None


class Programmed(Hooked, NotScriptable, Inspected, Compilable):
    """A module whose maths is a program on its parameters, called with features and a graph. See :class:`Conv`."""

    program_name: ClassVar[str]

    # Whether sparse matrices are multiplied instead of sending messages; torch_geometric's tools turn it off.
    fuse: bool = False

    _cached_edge_index, _cached_adj_t = KeptGraph(), KeptGraph()

    # A program aggregates messages; nothing in it is both in one.
    _points: ClassVar[tuple[str, ...]] = ("propagate", "message", "aggregate", "edge_update")

    message: Any = Unasked()
    aggregate: Any = Unasked()
    message_and_aggregate: Any = Unasked()
    update: Any = Unasked()
    edge_update: Any = Unasked()

    # Where the nodes may lie, or None for any dimension.
    node_dims: ClassVar[tuple[int, ...] | None] = (-2, 0)

    # What a user calls the inputs of a program, where its own names are others.
    given_names: ClassVar[Mapping[str, str]] = {
        "z": "x[1]", "w": "edge_weight", "e": "edge_attr", "rel": "edge_type", "p": "pos", "q": "pos[1]",
    }  # fmt: skip

    # Edges and normalised weights [E] that another library's layer had kept for all calls; see gdsl.nn.conversion.
    _normalised: tuple[Adjacency, Tensor | None] | None = None

    def __init__(
        self,
        aggr: str | list[str] | Aggregation | None = "sum",
        *,
        aggr_kwargs: dict[str, Any] | None = None,
        flow: str = "source_to_target",
        node_dim: int = -2,
        decomposed_layers: int = 1,
        backend: str = "auto",
    ):
        super().__init__()
        for method in self._unasked():
            if getattr(type(self), method.name) is not method:
                method.refuse(type(self))
        if flow not in FLOWS:
            raise ValueError(f"Expected 'flow' to be either 'source_to_target' or 'target_to_source' (got '{flow}')")
        if not isinstance(aggr, str | list | tuple | nn.Module | None):
            raise ValueError(f"an aggregation is a name, a list of names or a module, not a {type(aggr).__name__}")
        if self.node_dims is not None and node_dim not in self.node_dims:
            raise ValueError(f"nodes lie along dimension -2 or 0, not {node_dim}")
        self.aggr: Any = [str(a) for a in aggr] if isinstance(aggr, tuple | list) else aggr and str(aggr)
        self.aggr_module: Any = None if aggr is None else aggr_resolver(aggr, **(aggr_kwargs or {}))
        self.flow = flow
        self.node_dim = node_dim
        self.decomposed_layers = decomposed_layers
        self.backend = backend
        self._forget()
        self._options = Options()
        self._start_watching()
        # Programs for the kinds of calls: with a pair of inputs or one, with edge features or without.
        self._texts, self._store, self._repeated = Kept(), Compilations(), Repeated()

    @classmethod
    def _unasked(cls) -> list[Unasked]:
        return [value for value in Programmed.__dict__.values() if isinstance(value, Unasked)]

    def reset_parameters(self) -> None:
        """Draw the parameters anew, as torch_geometric draws them, and forget a kept graph."""
        self._forget()
        if self.aggr_module is not None and hasattr(self.aggr_module, "reset_parameters"):
            self.aggr_module.reset_parameters()

    def _forget(self) -> None:
        self._cached_edge_index = self._cached_adj_t = self._normalised = None

    # -- the call ------------------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As torch's modules are called. Raises :class:`gdsl.InputError` for an array where a tensor should be."""
        try:
            return super().__call__(*args, **kwargs)
        except (AttributeError, TypeError, ValueError) as error:
            if isinstance(error, GdslError):
                raise
            wrong = _array_among(self, args, kwargs)
            if wrong is None:
                raise
            raise InputError(f"{wrong} must be a tensor, not an array: pass torch.from_numpy(...)") from error

    def run(self, graph: Any, inputs: Mapping[str, Tensor | None], /, **arguments: Any) -> Any:
        """The program with these arguments on the tensors that it declares as inputs, by name.

        Node inputs may have more dims, [*, N, ...], or [N, *, ...] with ``node_dim=0``: many signals on one graph. The
        results have these dims too. Sparse inputs become dense ones, and whole numbers real ones where the program
        reads such.
        """
        return self.run_with({}, graph, inputs, **arguments)

    def run_with(
        self,
        inside: Mapping[str, Tensor | None],
        graph: Any,
        inputs: Mapping[str, Tensor | None],
        /,
        **arguments: Any,
    ) -> Any:
        """As :meth:`run`, with further tensors by the names of parameters that the program declares: of parts that no
        program can read. They are those of this call alone.
        """
        if self._normalised is not None and self._is_normalised(graph):
            arguments = {name: name not in _NORMALISING and value for name, value in arguments.items()}
        given = {name: value for name, value in inputs.items() if value is not None}
        for value in given.values():
            if value.layout is not torch.strided or value.dtype in _WHOLE:
                inputs = given = self._real(given)
                break
        signals = self._signals(given)
        if signals:
            return self._run_signals(graph, inputs, inside, signals, arguments)
        nested = {name: value for name, value in inside.items() if value is not None} if inside else {}
        compiling = torch.compiler.is_compiling()
        if not compiling and type(graph) is compiled.SymbolicGraph:
            graph = graph.known()
        if self._watched and self._is_watched():
            return self._run_watched(graph, given, nested, arguments)
        if compiling:
            # Rows are not of interest to a program, and would make another one for each graph; other sizes are, also
            # where the tracer takes all of them for variables.
            shapes = tuple(
                (name, (1, *map(operator.index, value.shape[1:])) if value.dim() else ())
                for name, value in given.items()
            )
            constants = tuple((name, compiled.constant(value)) for name, value in arguments.items())
            state = compiled.state_of(self._children(), self._fields())
            key = (self.training, constants, shapes, self.backend, self._options.choices, state)
            return compiled.run(self, key, {**given, **nested}, graph, None, None)
        try:
            text = self._text(given, arguments)
            values = {**given, "graph": graph}
            return call(text, self, nested, tuple([values.get(name) for name in text.order]), {}, self.backend)
        except (InputError, LanguageError) as error:
            raise self._misfit(error, given) from error

    def _run_watched(
        self, graph: Any, given: Mapping[str, Tensor], inside: Mapping[str, Tensor], arguments: Mapping[str, Any]
    ) -> Any:
        """As :meth:`run_with`, in torch, with a mask or hooks on the messages."""
        if torch.compiler.is_compiling():
            raise InputError("torch.compile has no place for masks and hooks on messages: call the model itself")
        text = self._text(given, arguments)
        values = {**given, "graph": graph}
        self._store.last = ()
        try:
            return run_watched(self, text, inside, tuple([values.get(name) for name in text.order]))
        except (InputError, LanguageError) as error:
            raise self._misfit(error, given) from error

    def check_unwatched(self, why: str) -> None:
        """Raises :class:`gdsl.InputError` for a mask or a hook on a call that sends no messages of a program."""
        if self._watched and self._is_watched():
            raise InputError(f"{type(self).__name__} {why}: a mask or a hook has no place there")

    def _watch(self, what: str, point: str = "message") -> None:
        if self.program_name and not _has_messages(self.program_name):
            raise InputError(
                f"{type(self).__name__} sends no messages that {what} could be put on: its program adds them up in "
                "another way. Set `explain = False` on the layer to leave it out"
            )
        super()._watch(what, point)

    def _misfit(self, error: GdslError, given: Iterable[str]) -> GdslError:
        """With the names of the arguments of ``forward`` in the place of those that the program has for them."""
        names = "|".join(name for name in given if name in self.given_names)
        if isinstance(error, InputError) and names:
            return Misfit(re.sub(rf"\b({names})\b", lambda m: self.given_names[m[1]], str(error)))
        return Misfit(str(error)) if isinstance(error, InputError | LanguageError) else error

    def _as_said(self, error: GdslError, key: Any) -> GdslError:
        return self._misfit(error, [name for name, _ in key[2]])

    @compiled.constant_for_tracer
    def _ranks(self) -> tuple[tuple[str, int], ...]:
        return _ranks_of(self.program_name)

    @compiled.constant_for_tracer
    def _reals(self) -> tuple[str, ...]:
        return _reals_of(self.program_name)

    def _real(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rows of numbers for sparse matrices, and for whole numbers and truth values those of the dtype of the others
        that are given, else of the parameters, where the program reads real ones."""
        dense, reals = {name: strided(value) for name, value in given.items()}, self._reals()
        known = [value.dtype for value in (*dense.values(), *self.parameters()) if value.is_floating_point()]
        dtype = known[0] if known else torch.get_default_dtype()
        return {n: v.to(dtype) if n in reals and v.dtype in _WHOLE else v for n, v in dense.items()}

    def _signals(self, inputs: Mapping[str, Tensor | None]) -> tuple[int, ...]:
        """The dims of the first input besides the nodes and those that the program declares."""
        name, rank = self._ranks()[0]
        value = inputs.get(name)
        if value is None or rank == 0 or value.dim() <= rank + 1:
            return ()
        more = value.shape[: value.dim() - rank]
        return tuple(more[1:] if self.node_dim == 0 else more[:-1])

    def _run_signals(
        self,
        graph: Any,
        inputs: Mapping[str, Tensor | None],
        inside: Mapping[str, Tensor | None],
        signals: tuple[int, ...],
        arguments: Mapping[str, Any],
    ) -> Any:
        """The program on a copy of the graph for each signal, and one by one where a mask or a hook looks at its edges.
        Inputs without such dims are the same for all."""
        flat: dict[str, Tensor | None] = {}
        for name, rank in self._ranks():
            value = inputs.get(name)
            if value is not None:
                own = value.dim() - rank - 1
                value = value.movedim(0, own) if self.node_dim == 0 else value
                value = value.expand(*signals, *value.shape[own:]).flatten(0, len(signals))
            flat[name] = value
        count = math.prod(signals)
        if self._watched and self._is_watched():
            result = self._one_by_one(graph, flat, inside, count, arguments)
        else:
            result = self.run_with(inside, graph.repeat(count), flat, **arguments)

        def apart(flat: Tensor) -> Tensor:
            value = flat.unflatten(0, (*signals, -1))
            return value.movedim(len(signals), 0) if self.node_dim == 0 else value

        return tuple(map(apart, result)) if isinstance(result, tuple) else apart(result)

    def _one_by_one(
        self,
        graph: Any,
        flat: Mapping[str, Tensor | None],
        inside: Mapping[str, Tensor | None],
        count: int,
        arguments: Mapping[str, Any],
    ) -> Any:
        """The results of so many signals, which lie behind each other, from a call for each."""
        parts = {name: [None] * count if value is None else value.chunk(count) for name, value in flat.items()}
        calls = [
            self.run_with(inside, graph, {name: part[k] for name, part in parts.items()}, **arguments)
            for k in range(count)
        ]
        return tuple(map(torch.cat, zip(*calls, strict=True))) if isinstance(calls[0], tuple) else torch.cat(calls)

    def _text(self, given: Mapping[str, Tensor], arguments: Mapping[str, Any]) -> Text:
        """The program with these arguments for these inputs."""
        key = (tuple(arguments.items()), tuple(given))
        found: Text | None = self._texts.get(key)
        if found is None:
            program = program_of(self.program_name)
            found = text_for(self, program, arguments, given, self._options, self._store)
            self._texts.keep(key, found)
        return found

    def _way(self, key: Any) -> tuple[Text, Way]:
        _, arguments, shapes, *_ = key
        given = {name: torch.empty(shape, device="meta") for name, shape in shapes}
        text = self._text(given, {name: compiled.value_of(value) for name, value in arguments})
        args = {"graph": key, **given}
        bind(text.signature, [args.get(name) for name in text.order], {})
        return text, text.way(self, given, free_sizes(text.signature, given, text.free_sizes))

    def _children(self) -> list[nn.Module]:
        return [module for module in self._modules.values() if module is not None]

    def rows(self, x: Tensor | None) -> int | None:
        """The number of nodes with features [*, N, F], or [N, *, F] with ``node_dim=0``; of one number each, [N]."""
        check_proxy(x)
        return None if x is None else x.shape[0] if x.dim() == 1 else x.shape[self.node_dim]

    def graph(
        self, edge_index: Adjacency, sources: int | None, targets: int | None, size: Size = None
    ) -> tuple[Graph, Tensor | None]:
        """The graph that messages flow along, with the values of the sparse matrix that it was given as, if any.

        edge_index: [2, E], a :class:`gdsl.Graph`, or a sparse matrix whose rows are targets
        sources, targets: how many there are as the features tell; None where they do not
        size:       the user's word for it

        Raises ValueError for what is no graph, or not of this size, and IndexError for nodes that there are not.
        """
        backwards = self.flow == "target_to_source"
        known = sizes_of(edge_index) if isinstance(edge_index, Tensor) else None
        where = "`size`" if known is None else "the sparse size of `edge_index`"
        if known is not None:
            size = known[::-1] if backwards else known
        if size is not None:
            for name, told, given in (("sources", sources, size[0]), ("targets", targets, size[1])):
                if told is not None and given is not None and told != given:
                    raise ValueError(
                        f"Encountered tensor with size {told} in dimension {self.node_dim}, but expected size {given}. "
                        f"The second is the number of {name} in {where}"
                    )
            sources = size[0] if sources is None else sources
            targets = size[1] if targets is None else targets
        if torch.compiler.is_compiling():
            sources, targets = targets if sources is None else sources, sources if targets is None else targets
            seen: Any = compiled.symbolic_graph(edge_index, *((targets, sources) if backwards else (sources, targets)))
            return (seen.reverse() if backwards else seen), None
        check_tracers((edge_index,))
        if isinstance(edge_index, Tensor) and edge_index.layout is torch.strided:
            _check_edge_index(edge_index)
            # As torch_geometric has it: where one side has no features and no size, it is as large as the other.
            sources = targets if sources is None else sources
            targets = sources if targets is None else targets
            if sources is None or targets is None:
                sources = targets = int(edge_index.max()) + 1 if edge_index.numel() else 0
            pair = (targets, sources) if backwards else (sources, targets)
            try:
                found = graph_of(edge_index, *pair)
            except GraphError as error:
                raise _out_of_range(edge_index, pair, error) if edge_index.numel() else error from error
            return (found.reverse() if backwards else found), None
        if backwards and not isinstance(edge_index, Graph):
            raise ValueError(
                'Flow direction "target_to_source" is invalid for message propagation via a sparse matrix. If you '
                "really want to make use of a reverse message passing flow, pass in the transposed sparse matrix"
            )
        found = Graph.from_any(edge_index)
        found = found.reverse() if backwards else found
        for name, told, have in (("source", sources, found.num_sources), ("target", targets, found.num_targets)):
            if told is not None and told != have:
                raise GraphError(f"the graph has {have} {name} nodes, and there are features of {told}")
        return found, found.edge_weight

    def _between(
        self, x: Features, edge_index: Adjacency, size: Size = None
    ) -> tuple[Any, Any, bool, Graph, Tensor | None]:
        """The features of sources and targets, whether these are two sets, and :meth:`graph` between them."""
        source, target = (x, x) if isinstance(x, Tensor) else x
        graph, values = self.graph(edge_index, self.rows(source), self.rows(target), size)
        return source, target, not isinstance(x, Tensor), graph, values

    def square(self, x: Tensor, edge_index: Adjacency) -> tuple[Graph, Tensor | None]:
        """:meth:`graph` on one set of nodes. Raises ValueError for a pair of inputs."""
        if isinstance(x, tuple | list):
            raise ValueError(
                f"'{type(self).__name__}' received a tuple of node features as input while this layer does not support "
                f"bipartite message passing. Please try other layers such as 'SAGEConv' or 'GraphConv' instead"
            )
        return self.graph(edge_index, self.rows(x), self.rows(x))

    def weighted(
        self,
        x: Tensor,
        edge_index: Adjacency,
        edge_weight: Tensor | None,
        *,
        keep: bool = False,
        loops: float = 0.0,
    ) -> tuple[Graph, Tensor | None]:
        """The graph of one set of nodes, and its weights [E]: the user's, or the values of a sparse matrix.

        keep:  give the graph and weights of the first call in all others too, as ``cached=True`` asks
        loops: the weight of the self-loops that the program adds where there is none. torch_geometric adds it to the
               diagonal of torch's sparse matrices also where there is one, and sets that of torch_sparse's to it

        Raises ValueError for a pair of inputs.
        """
        place = "_cached_adj_t" if _is_torch_sparse(edge_index) else "_cached_edge_index"
        if keep and self._normalised is not None and self.__dict__[place] is None:
            if torch.compiler.is_compiling():
                raise InputError("the layer keeps the graph of a call before it was converted: call it once uncompiled")
            known, values = self.square(x, self._normalised[0])
            self.__dict__[place] = known, edge_weights(self._normalised[1], values, x)
        if keep and isinstance(x, Tensor):
            kept: tuple[Graph, Tensor | None] | None = self.__dict__[place]
            if kept is not None:
                return kept
        graph, values = self.square(x, edge_index)
        weight = edge_weights(edge_weight, values, x)
        if loops and _is_torch_sparse(edge_index):
            weight = _loops_set(graph, weight if values is not None else None, loops, x.dtype)
        elif loops and values is not None and weight is not None:
            weight = weight + loops * _is_loop(graph).to(weight.dtype)
        found = graph, weight
        if keep:
            self.__dict__[place] = found
        return found

    def _is_normalised(self, graph: Any) -> bool:
        """Whether a graph has its self-loops and normalised weights already."""
        return any(kept is not None and graph is kept[0] for kept in (self._cached_edge_index, self._cached_adj_t))

    def _answer(self, found: Any, asked: bool, edge_index: Adjacency, graph: Graph, loops: bool = False) -> Any:
        """What a call gives of what the program gave: the result, and the attention where it was asked for."""
        if not asked:
            return found
        y, alpha = found
        return y, self.attended(edge_index, graph, alpha, loops)

    def attended(self, edge_index: Adjacency, graph: Graph, alpha: Tensor, loops: bool = False) -> Any:
        """What ``return_attention_weights`` adds to the result: the edges that the program sees and their weights.

        Edges and weights for edges, a sparse matrix of the weights and these for one of torch's, and the matrix alone
        for one of torch_sparse's, as torch_geometric has it.
        """
        edges = self.seen_edges(graph, loops)
        column, row = edges
        sizes = (graph.num_targets, graph.num_sources)
        if _is_torch_sparse(edge_index):
            return type(edge_index)(row=row, col=column, value=alpha, sparse_sizes=sizes)
        if not isinstance(edge_index, Tensor) or edge_index.layout is torch.strided:
            return edges, alpha
        by_column = edge_index.layout is torch.sparse_csc
        order = (column * sizes[0] + row if by_column else row * sizes[1] + column).argsort()
        row, column, alpha = row[order], column[order], alpha[order]
        shape = (*sizes, *alpha.shape[1:])
        if edge_index.layout is torch.sparse_coo:
            places = torch.stack([row, column])
            return torch.sparse_coo_tensor(places, alpha, shape, is_coalesced=True, check_invariants=False), alpha
        line, place, lines = (column, row, sizes[1]) if by_column else (row, column, sizes[0])
        make = torch.sparse_csc_tensor if by_column else torch.sparse_csr_tensor
        starts = nn.functional.pad(torch.bincount(line, minlength=lines).cumsum(0), (1, 0))
        return make(starts, place, alpha, shape, check_invariants=False), alpha

    def seen_edges(self, graph: Graph, loops: bool) -> Tensor:
        """The edges that a program sees, with self-loops or without, the way round that the user has them: [2, E'].
        Of a part of a distributed graph those that it has."""
        loops = loops and not (self._normalised is not None and self._is_normalised(graph))
        edges = (graph.add_self_loops().graph if loops else graph).local_edge_index
        return edges.flip(0) if self.flow == "target_to_source" else edges

    # -- the look inside -----------------------------------------------------------------------

    def _definition(self) -> ast.Layer | None:
        return program_of(self.program_name) if self.program_name else None

    def _ran(self) -> tuple[Ran, ...]:
        # Some layers leave all to a part of theirs.
        inner = (part._store.last for part in self._children() if isinstance(part, Programmed))
        found = self._store.last or tuple(ran for last in inner for ran in last)
        if not found and self._watched:
            raise InputError(f"{type(self).__name__} ran its last call in torch, for a mask or a hook on its messages")
        if not found:
            raise InputError(f"call {type(self).__name__} once: how it is compiled depends on the kind of call")
        return found

    def _seen(self, graph: Graph) -> Graph:
        return graph.reverse() if self.flow == "target_to_source" else graph

    def _choose(self, options: Options) -> None:
        self._options = options
        self._texts, self._store, self._repeated = Kept(), Compilations(), Repeated()

    @property
    def source(self) -> str:
        """The text of the program."""
        return program_text(self.program_name)

    def __dir__(self) -> list[str]:
        """Without what cannot be told before a call, for tools that look at all that a module has."""
        unknown = set() if self._store.last else {"kernels", "program"}.difference(self._modules)
        unknown |= set() if self.program_name else {"source"}
        unknown |= {method.name for method in self._unasked()} | host.hidden_names(type(self))
        return [name for name in super().__dir__() if name not in unknown]

    def __repr__(self) -> str:
        if hasattr(self, "in_channels") and hasattr(self, "out_channels"):
            return f"{type(self).__name__}({self.in_channels}, {self.out_channels})"
        return f"{type(self).__name__}({self.channels if hasattr(self, 'channels') else ''})"


@host.stands_for("torch_geometric.nn.conv.message_passing", "MessagePassing")
class _HostsLayer(nn.Module):
    """What torch_geometric's tools take for a layer of its own."""


class Conv(Programmed, _HostsLayer):
    """Base of the layers of :mod:`gdsl.nn`: the maths is in a program, the parameters are this module's.

    aggr:        how messages meet: a name, a list of names, or a module; see :mod:`gdsl.nn.aggr`
    aggr_kwargs: arguments of an aggregation given by name
    flow:        "source_to_target", or "target_to_source" to send messages against the edges
    node_dim:    the dimension of the nodes: -2 or 0
    decomposed_layers: accepted for torch_geometric's sake. It saves memory there by running the features in parts, and
                 here there are no edge messages in memory
    backend:     "auto", "triton", "cpp" or "torch", as in :func:`gdsl.compile`

    A subclass names its program (a file of ``gdsl/nn/programs``), makes its parameters, and calls :meth:`run`.
    """


class Misfit(InputError, RuntimeError):
    """Tensors that do not fit the layer: a RuntimeError, too, as torch's own is where torch_geometric runs into it."""


class OutOfRange(GraphError, IndexError):
    """An edge of a node that there is not."""


def _out_of_range(edge_index: Tensor, sizes: tuple[int, int], error: GraphError) -> GraphError:
    """What is wrong with the edges, in torch_geometric's words, and with which one, in ours."""
    for ends, size in zip(edge_index, sizes, strict=True):
        low, high = int(ends.min()), int(ends.max())
        if low < 0 or high >= size:
            found = f"negative indices in 'edge_index' (got {low})"
            if low >= 0:
                found = f"indices in 'edge_index' that are larger than {size - 1} (got {high})"
            return OutOfRange(
                f"Found {found}. Please ensure that all indices in 'edge_index' point to valid indices in the interval "
                f"[0, {size}) in your node feature matrix and try again.\n{error}"
            )
    return error


def _array_among(layer: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
    """The argument of a call, by its name, that is an array of NumPy's or of its kind, or has one inside."""
    names = list(inspect.signature(layer.forward).parameters)
    for name, value in (*zip(names, args, strict=False), *kwargs.items()):
        for one in value if isinstance(value, list | tuple) else (value,):
            if hasattr(one, "__array__") and not isinstance(one, Tensor):
                return f"`{name}`"
    return None


def _is_torch_sparse(edge_index: Adjacency) -> bool:
    """Whether it is a matrix of torch_sparse, which is known by its class: nothing imports the package."""
    return type(edge_index).__name__ == "SparseTensor"


def _is_loop(graph: Graph) -> Tensor:
    return graph.edge_index[0] == graph.edge_index[1]


def _loops_set(graph: Graph, values: Tensor | None, weight: float, dtype: torch.dtype) -> Tensor:
    """The values, or ones, with this one at all self-loops."""
    values = torch.ones(graph.num_edges, dtype=dtype, device=graph.device) if values is None else values
    return values.masked_fill(_is_loop(graph), weight)


def _check_edge_index(edge_index: Tensor) -> None:
    """With torch_geometric's words, so that a user who changes the import sees the same."""
    if edge_index.dtype not in _WHOLE - {torch.bool}:
        raise ValueError(f"Expected 'edge_index' to be of integer type (got '{edge_index.dtype}')")
    if edge_index.dim() != 2:
        raise ValueError(f"Expected 'edge_index' to be two-dimensional (got {edge_index.dim()} dimensions)")
    if edge_index.size(0) != 2:
        raise ValueError(f"Expected 'edge_index' to have size '2' in the first dimension (got '{edge_index.size(0)}')")


def parameter(*shape: int) -> nn.Parameter:
    """A parameter that ``reset_parameters`` has yet to fill."""
    return nn.Parameter(torch.empty(*shape))


def pair_of(channels: Channels) -> tuple[int, int]:
    """Sizes at sources and targets: one number stands for both."""
    return channels if isinstance(channels, tuple | list) else (channels, channels)


class _Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def as_module(function: Callable[..., Any]) -> nn.Module:
    """A module as it is, or a function as one, so that a program can call it."""
    return function if isinstance(function, nn.Module) else _Function(function)


def see(*pairs: tuple[Any, Tensor | None]) -> None:
    """Lazy sizes of linear maps from their inputs, where both are there. What a user put in their place has none."""
    for lin, value in pairs:
        if value is not None and hasattr(lin, "see"):
            check_proxy(value)
            lin.see(value)


def strided(x: Tensor) -> Tensor:
    """Features that were given as a sparse matrix, as rows of numbers. What is no tensor is left to later checks."""
    return x.to_dense() if isinstance(x, Tensor) and x.layout is not torch.strided else x


def real_features(x: Tensor) -> Tensor:
    """Features for a layer that is linear in each of them: a complex one as two."""
    if not isinstance(x, Tensor):
        return x  # a pair, which :meth:`Conv.square` refuses
    return torch.view_as_real(x.resolve_conj()).flatten(-2) if x.is_complex() else x


def like_features(y: Tensor, x: Tensor) -> Tensor:
    """The result of a layer that was given ``real_features(x)``."""
    return torch.view_as_complex(y.unflatten(-1, (-1, 2)).contiguous()) if x.is_complex() else y


def edge_weights(edge_weight: Tensor | None, values: Tensor | None, x: Tensor | None) -> Tensor | None:
    """Edge weights [E]; one column [E, 1] is taken for them. Where the graph was given as a matrix, its values, in the
    dtype of the features: SciPy's are float64 where nobody says otherwise.

    Raises :class:`gdsl.InputError` for weights of another shape.
    """
    weight = edge_weight if values is None else in_dtype_of(x, values)
    if not isinstance(weight, Tensor) or weight.dim() == 1:
        return weight
    if weight.dim() != 2 or weight.shape[1] != 1:
        raise Misfit(f"`edge_weight` must have shape [E], and it has shape {list(weight.shape)}")
    return weight.squeeze(1)


def in_dtype_of(x: Tensor | None, values: Tensor) -> Tensor:
    """The values of a matrix in the dtype of the features."""
    real = x is not None and x.is_floating_point() and not values.is_complex()
    return values.to(x.dtype) if real and x is not None else values


def edge_features(
    edge_attr: Tensor | None, values: Tensor | None = None, edge_index: Adjacency = None
) -> Tensor | None:
    """Edge features [E, D]; a vector [E] is one column. Where there are none, the values of the matrix that the graph
    was given as: torch's matrices always have some, and a number for each edge is no feature there.
    """
    if edge_attr is None and values is not None and (values.dim() > 1 or _is_torch_sparse(edge_index)):
        edge_attr = values
    return edge_attr.view(-1, 1) if edge_attr is not None and edge_attr.dim() == 1 else edge_attr
