"""What all layers share: a program of the language on a module's parameters, called as torch_geometric's layers are."""

from __future__ import annotations

import functools
import inspect
import math
import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor, nn

from gdsl.errors import GdslError, InputError
from gdsl.kept import Kept
from gdsl.language import ast
from gdsl.language.errors import LanguageError
from gdsl.language.signature import signature_of
from gdsl.module import compiled, host
from gdsl.module.api import find_layer
from gdsl.module.arguments import bind, free_sizes
from gdsl.module.call import call
from gdsl.module.compilable import Compilable
from gdsl.module.hooks import Hooked
from gdsl.module.inspected import Inspected
from gdsl.module.meeting import excuse, shared_among
from gdsl.module.shared import Repeated
from gdsl.module.watched import run_watched
from gdsl.module.ways import Compilations, Ran, Text, Way, text_for
from gdsl.nn.aggr import Aggregation, aggr_resolver
from gdsl.nn.conv.graphs import OnGraphs
from gdsl.nn.conv.inputs import WHOLE, Misfit, strided
from gdsl.passes.options import Options
from gdsl.runtime.backend import check_backend
from gdsl.runtime.graph import Graph
from gdsl.runtime.tracers import NotScriptable

# What programs call the steps that a normalised graph has behind it.
_NORMALISING = frozenset(("add_self_loops", "loops", "normalize", "symmetric"))

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


class Programmed(OnGraphs, Hooked, NotScriptable, Inspected, Compilable):
    """A module whose maths is a program on its parameters, called with features and a graph. See :class:`Conv`."""

    program_name: ClassVar[str]

    # Whether sparse matrices are multiplied instead of sending messages; torch_geometric's tools turn it off.
    fuse: bool = False

    # A program aggregates messages; nothing in it is both in one.
    _points: ClassVar[tuple[str, ...]] = ("propagate", "message", "aggregate", "edge_update")

    message: Any = Unasked()
    aggregate: Any = Unasked()
    message_and_aggregate: Any = Unasked()
    update: Any = Unasked()
    edge_update: Any = Unasked()

    # What a user calls the inputs of a program, where its own names are others.
    given_names: ClassVar[Mapping[str, str]] = {
        "z": "x[1]", "w": "edge_weight", "e": "edge_attr", "rel": "edge_type", "p": "pos", "q": "pos[1]",
    }  # fmt: skip

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
        if node_dim == -1 and not self.nodes_last:
            raise ValueError("nodes lie along a dimension before that of the features, not -1")
        self.aggr: Any = [str(a) for a in aggr] if isinstance(aggr, tuple | list) else aggr and str(aggr)
        self.aggr_module: Any = None if aggr is None else aggr_resolver(aggr, **(aggr_kwargs or {}))
        self.flow = flow
        self.node_dim = node_dim
        self.decomposed_layers = decomposed_layers
        check_backend(backend)
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
        """As torch's modules are called. Raises :class:`gdsl.InputError` for an array where a tensor should be.

        On a part of a distributed graph, all processes hear of any error.
        """
        try:
            return super().__call__(*args, **kwargs)
        except Exception as error:
            excuse(shared_among((*args, *kwargs.values())), error)
            if isinstance(error, GdslError) or not isinstance(error, AttributeError | TypeError | ValueError):
                raise
            wrong = _array_among(self, args, kwargs)
            if wrong is None:
                raise
            raise InputError(f"{wrong} must be a tensor, not an array: pass torch.from_numpy(...)") from error

    def run(self, graph: Any, inputs: Mapping[str, Tensor | None], /, **arguments: Any) -> Any:
        """The program with these arguments on the tensors that it declares as inputs, by name.

        Node inputs may have more dims, [*, N, ...], or others with ``node_dim``: many signals on one graph. The results
        have these dims too. Sparse inputs become dense ones, and whole numbers real ones where the program reads such.
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
            if value.layout is not torch.strided or value.dtype in WHOLE:
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
        return {n: v.to(dtype) if n in reals and v.dtype in WHOLE else v for n, v in dense.items()}

    def _signals(self, inputs: Mapping[str, Tensor | None]) -> tuple[int, ...]:
        """The dims of the first input besides the nodes and those that the program declares."""
        name, rank = self._ranks()[0]
        value = inputs.get(name)
        if value is None or rank == 0 or value.dim() <= rank + 1:
            return ()
        place = self._place(value, rank)
        return (*value.shape[:place], *value.shape[place + 1 : value.dim() - rank])

    def _place(self, value: Tensor, rank: int) -> int:
        """The dimension of the nodes, which is before those that the program declares."""
        return value.dim() - rank - 1 if self.node_dim == -2 else self.node_dim % value.dim()

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
        place = 0
        for name, rank in self._ranks():
            value = inputs.get(name)
            if value is not None:
                own = value.dim() - rank - 1
                if own:
                    at = self._place(value, rank)
                    place, value = place if flat else at, value.movedim(at, own)
                value = value.expand(*signals, *value.shape[own:]).flatten(0, len(signals))
            flat[name] = value
        count = math.prod(signals)
        if self._watched and self._is_watched():
            result = self._one_by_one(graph, flat, inside, count, arguments)
        else:
            result = self.run_with(inside, graph.repeat(count), flat, **arguments)

        def apart(flat: Tensor) -> Tensor:
            return flat.unflatten(0, (*signals, -1)).movedim(len(signals), place)

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
    node_dim:    the dimension of the nodes, before that of the features
    decomposed_layers: accepted for torch_geometric's sake. It saves memory there by running the features in parts, and
                 here there are no edge messages in memory
    backend:     "auto", "triton", "cpp" or "torch", as in :func:`gdsl.compile`

    A subclass names its program (a file of ``gdsl/nn/programs``), makes its parameters, and calls :meth:`run`.
    """


def _array_among(layer: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
    """The argument of a call, by its name, that is an array of NumPy's or of its kind, or has one inside."""
    names = list(inspect.signature(layer.forward).parameters)
    for name, value in (*zip(names, args, strict=False), *kwargs.items()):
        for one in value if isinstance(value, list | tuple) else (value,):
            if hasattr(one, "__array__") and not isinstance(one, Tensor):
                return f"`{name}`"
    return None
