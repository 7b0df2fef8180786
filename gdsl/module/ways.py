"""The ways of calling a program, and what has been compiled for each. Nothing here holds a tensor or a module: copies
and replicas of a module share it, each with its own.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from gdsl.errors import InputError
from gdsl.ir.program import Program
from gdsl.ir.types import Domain
from gdsl.kept import Kept
from gdsl.language import ast, parts
from gdsl.language.check import check
from gdsl.language.errors import LanguageError
from gdsl.language.program import TypedProgram
from gdsl.language.signature import Signature, signature_of
from gdsl.language.values import UNKNOWN
from gdsl.look.kernels import Inspection
from gdsl.module.arguments import between, parameters, plain
from gdsl.module.shared import Numbers, Repeated, Shared
from gdsl.passes.exchanges import exchanged
from gdsl.passes.options import Options
from gdsl.passes.pipeline import optimise
from gdsl.passes.reversed import with_ends_swapped
from gdsl.passes.stages import Stage, cut
from gdsl.runtime.autograd import Runner
from gdsl.runtime.frame import Frame
from gdsl.runtime.graph import Graph

DEFAULTS = Options()

# Sizes tried, before any call, for the dims that only a call gives.
STAND_INS = (1, 3, 2, 60)

# Domains whose values have a row for each node or edge, as signatures name them.
BY_ROWS = frozenset(d.value for d in (Domain.NODE, Domain.SOURCE, Domain.TARGET, Domain.EDGE))


# ----------------------------------------------------------------------------------- what is compiled


@dataclass(frozen=True, slots=True, eq=False)
class Compiled:
    """A program for graphs of a shape: typed, optimised, and cut at the modules that run as they are.

    options: with the shape that it is for
    numbers: those that have changed from call to call, and are inputs of the program
    """

    typed: TypedProgram
    stages: tuple[Stage, ...]
    options: Options
    numbers: Numbers

    def __repr__(self) -> str:
        return f"<Compiled {self.typed!r}>"


@dataclass(frozen=True, slots=True, eq=False)
class CallKind:
    """A kind of call: a program, and what its tensors are.

    key:   what names the program in the store
    ready: what runs, by the shape of the graph, its index dtype and the backend
    """

    store: Compilations
    key: Hashable
    typed: TypedProgram
    options: Options
    dtype: torch.dtype
    device: torch.device
    ready: dict[Any, Ready] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<CallKind {self.typed!r}, {self.dtype}, {self.device}>"


@dataclass(frozen=True, slots=True, eq=False)
class Ready:
    """A kind of call on graphs of a shape.

    stages: each with its runner, and the names of the tensors that this takes
    """

    stages: tuple[tuple[Stage, Runner, tuple[str, ...]], ...]
    numbers: Numbers
    ran: Ran

    def __repr__(self) -> str:
        return f"<Ready {self.ran!r}>"


@dataclass(frozen=True, slots=True, eq=False)
class Ran:
    """What a call ran, for those who look at it: a kind of call, with the shape of its graph among the options."""

    kind: CallKind
    options: Options
    index: torch.dtype
    backend: str

    def __repr__(self) -> str:
        return f"<Ran {self.kind!r} by {self.backend}>"

    @property
    def compiled(self) -> Compiled:
        return self.kind.store.compiled(self.kind, self.options)

    @property
    def inspection(self) -> Inspection:
        """The program with all that is made from it, which is made once."""
        return self.kind.store.inspection(self)

    def on(self, graph: Graph) -> Ran:
        """What the same call would run on another graph."""
        options = self.kind.store.options_for(self.kind, graph)
        return replace(self, options=options, index=graph.index_dtype)

    def on_device(self, device: str) -> Ran:
        """What the same call would run on a type of device."""
        return replace(self, options=replace(self.options, shape=replace(self.options.shape, device=device)))


class Compilations:
    """What a module has compiled so far.

    shared: what its programs share, also those of other arguments
    last:   what the last call ran, program by program
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> Compilations:
        return Compilations(copy.deepcopy(self.shared))

    def __reduce__(self) -> tuple[Any, ...]:
        return Compilations, (self.shared,)

    def __init__(self, shared: Shared | None = None) -> None:
        self.shared = shared or Shared()
        self.kinds = Kept()
        self.programs = Kept()
        self.last: tuple[Ran, ...] = ()
        self._saved, self._looks = Kept(), Kept()

    def kind(
        self, key: Hashable, typed: TypedProgram, options: Options, dtype: torch.dtype, device: torch.device
    ) -> CallKind:
        """The one of a program that ``key`` names."""
        return self.kinds.once(
            (key, options, dtype, device), lambda: CallKind(self, key, typed, options, dtype, device)
        )

    def compiled(self, kind: CallKind, options: Options) -> Compiled:
        """The program of a kind of call, for the graphs that the options tell of."""
        return self.programs.once((kind.key, options), lambda: self._compile(kind.typed, options))

    def inspection(self, ran: Ran) -> Inspection:
        """The look inside of what a call ran."""

        def make() -> Inspection:
            found = ran.compiled
            return Inspection(found.typed, [s.program for s in found.stages], ran.kind.dtype, ran.index, found.options)

        return self._looks.once((ran.kind.key, ran.options, ran.kind.dtype, ran.index), make)

    def _compile(self, typed: TypedProgram, options: Options) -> Compiled:
        written, numbers = self.shared.with_inputs(typed.program)
        stages = self.shared.made.once((written.outputs, options), lambda: stages_of(written, options))
        return Compiled(typed, stages, options, numbers)

    def options_for(self, kind: CallKind, graph: Graph) -> Options:
        """The options with the shape of a graph. Where what the backward pass would read of the forward pass is beyond
        the user's budget on it, nothing is saved."""
        options = replace(kind.options, shape=graph.shape)
        if options.budget is None or options.choice("save") != "auto":
            return options
        saved = self._saved.once((kind.key, options), lambda: self._saved_by(kind, options, graph))
        frame = Frame(graph, kind.dtype, kind.device)
        count = sum(frame.rows(domain) * numel for domain, numel in saved)
        return options if count * kind.dtype.itemsize <= options.budget else options.with_choice("save", "nothing")

    def _saved_by(self, kind: CallKind, options: Options, graph: Graph) -> list[tuple[Domain, int]]:
        adjoints = Ran(kind, options, graph.index_dtype, "").inspection.adjoints
        return [(node.type.domain, node.type.numel) for adjoint in adjoints for node, _ in adjoint.saved]


def stages_of(program: Program, options: Options) -> tuple[Stage, ...]:
    """A program, optimised, with what it exchanges on a distributed graph, and cut at the modules that run as they
    are."""
    if options.shape.reversed:
        program = with_ends_swapped(program)
    best = optimise(program, options) if options.optimise else program
    wire = "bfloat16" if options.choice("wire") == "bfloat16" else "exact"
    return cut(exchanged(best, wire) if options.shape.processes else best)


# ----------------------------------------------------------------------------------- programs of texts


@dataclass(frozen=True, slots=True)
class Way:
    """What decides which program a call of a text is, besides its dtypes and its graph.

    present: the optional inputs that are there
    sizes:   of the dims that only a call gives
    states:  the arguments of the text, and what the modules are that it reads besides the values of their parameters
    """

    training: bool
    present: frozenset[str]
    sizes: tuple[tuple[str, int], ...]
    states: tuple[Any, ...] = field(repr=False)


class Text:
    """A program as it is written, with its arguments, on whatever module it is called.

    free_sizes: those of dims that no argument gives, as far as they are known
    options:    what a user may choose about the passes
    order:      the inputs of a call by name, and of each whether it is the graph, and whether it has rows
    is_between: whether a call begins with one value of sources and one of targets
    """

    def __init__(
        self,
        definition: ast.Layer,
        arguments: Mapping[str, Any],
        free_sizes: Mapping[str, int],
        options: Options = DEFAULTS,
        store: Compilations | None = None,
    ):
        self.definition, self.sources = definition, ast.sources(definition)
        self._written = self.signature = signature_of(definition)
        self.arguments = {name: plain(value) for name, value in arguments.items()}
        self.free_sizes = dict(free_sizes)
        self.module_names = (*(name for name, _ in self.signature.modules), *self.signature.inside)
        self.options, self.store = options, store or Compilations()
        self.typed, self.known, self.pieces = Kept(), Kept(), Kept()
        self.repeated = Repeated()

    def __repr__(self) -> str:
        return f"<Text {self.definition.name}({', '.join(f'{k}={v!r}' for k, v in self.arguments.items())})>"

    def __deepcopy__(self, memo: dict[int, Any]) -> Text:
        return self.again(self.options)

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.definition, self.arguments, self.free_sizes, self.options, self.signature)

    def again(self, options: Options) -> Text:
        """The same with other options and nothing compiled yet."""
        return _again(self.definition, self.arguments, self.free_sizes, options, self.signature)

    def narrow(self, outlines: Sequence[TypedProgram]) -> None:
        """Take the arguments with their defaults, and of the inputs those that such a layer has."""
        self.arguments = dict(outlines[0].arguments)
        self._take(self.signature.only(d for typed in outlines for d in typed.of_role("input")))

    def _take(self, signature: Signature) -> None:
        self.signature = signature
        self.order = tuple(name for name, _ in parameters(signature))
        self.is_between = bool(between(signature))
        by_rows = {i.name for i in signature.inputs if i.domain in BY_ROWS}
        self.places = tuple((name == "graph", name in by_rows) for name in self.order)

    def modules_of(self, owner: nn.Module) -> dict[str, nn.Module | None]:
        """The modules that the program declares."""
        return {name: owner._modules.get(name) for name in self.module_names}

    def states(self, owner: nn.Module) -> tuple[Any, ...]:
        """What the program depends on that may change between calls: what modules are besides the values of their
        parameters, and arguments."""
        if not self.module_names:
            return tuple(self.arguments.values())
        modules = owner._modules
        return (*parts.states([modules.get(name) for name in self.module_names]), *self.arguments.values())

    def outlines(self, owner: nn.Module) -> list[TypedProgram]:
        """The program before any call, without optional inputs and with all of them."""
        every = frozenset(i.name for i in self.signature.inputs if i.optional)
        return [self.outline(owner, present) for present in ([frozenset(), every] if every else [every])]

    def outline(
        self, owner: nn.Module, present: frozenset[str], sizes: Mapping[str, int] | None = None
    ) -> TypedProgram:
        """The program before any call. Dims that only a call gives have a stand-in size here, or one of ``sizes``.

        A module that is made for another size cannot be read then; it is taken for an opaque one. What is wrong with
        every stand-in (``cross`` needs 3 places, ``x[5]`` 6 or more) is a mistake.
        """
        seen = self.modules_of(owner)
        unseen = {name: UNKNOWN for name, module in seen.items() if module is not None}
        first: LanguageError | None = None
        for size in STAND_INS if self.signature.free_dims else STAND_INS[:1]:
            free = {**dict.fromkeys(self.signature.free_dims, size), **(sizes or {}), **self.free_sizes}
            for modules in (seen, unseen) if unseen and self.signature.free_dims else (seen,):
                try:
                    return self._check(modules=modules, present=present, free_dims=free)
                except LanguageError as error:
                    first = first or error
        assert first is not None
        raise first

    def way(self, owner: nn.Module, given: Mapping[str, Any] | Sequence[str], sizes: Mapping[str, int]) -> Way:
        """The way of a call with these inputs on a module."""
        present = frozenset(i.name for i in self.signature.inputs if i.optional and i.name in given)
        return Way(owner.training, present, tuple(sorted(sizes.items())), self.states(owner))

    def typed_for(self, owner: nn.Module, way: Way) -> TypedProgram:
        """The typed program for a way of calling it."""
        return self.typed.once(
            way,
            lambda: self._check(
                modules=self.modules_of(owner), training=way.training, present=way.present, free_dims=dict(way.sizes)
            ),
        )

    def _check(self, **about: Any) -> TypedProgram:
        return check(self.definition, self.arguments, signature=self._written, **about)


def _again(
    definition: ast.Layer,
    arguments: Mapping[str, Any],
    sizes: Mapping[str, int],
    options: Options,
    signature: Signature,
) -> Text:
    made = Text(definition, arguments, sizes, options)
    made._take(signature)
    return made


def text_for(
    owner: nn.Module,
    definition: ast.Layer,
    arguments: Mapping[str, Any],
    inputs: Mapping[str, Tensor],
    options: Options = DEFAULTS,
    store: Compilations | None = None,
) -> Text:
    """A program for the parameters, buffers and submodules of a module, and of its copies. It reads them by the names
    that it declares, and ``param x ~ ...`` draws nothing. So one module can have several, for calls of different kinds.

    inputs: those of a first call: which optional ones there are, and the sizes of dims that no argument gives
    """
    made = Text(definition, arguments, {}, options, store)
    # No function takes the place of a module that the owner lacks, and no part is there that it has not.
    made.arguments = {**dict.fromkeys((*made.signature.choices, *made.signature.parts)), **made.arguments}
    ranks = {i.name: i.rank for i in made.signature.inputs}
    sizes: dict[str, int] = {}
    for name, place, dim in made.signature.free_places:
        shape = tuple(inputs[name].shape)[-ranks[name] :] if name in inputs else ()
        if place < len(shape):
            sizes.setdefault(dim, shape[place])
    outline = made.outline(owner, frozenset(inputs), sizes)
    lacking = next((d.name for d in outline.of_role("module") if d.part is not None), None)
    if lacking is not None:
        raise InputError(f"{type(owner).__name__} has no module `{lacking}`")
    made.narrow([outline])
    return made
