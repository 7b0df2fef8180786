"""The module that a program becomes: parameters, a call, and the look inside."""

from __future__ import annotations

import inspect
import operator
import re
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gdsl.errors import GraphError, InputError
from gdsl.ir.node import users
from gdsl.ir.program import Program
from gdsl.ir.types import Domain
from gdsl.language import ast, parts
from gdsl.language.check import check
from gdsl.language.errors import Diagnostic, LanguageError
from gdsl.language.program import Declaration, TypedProgram
from gdsl.language.signature import Signature, signature_of
from gdsl.language.values import UNKNOWN
from gdsl.look.kernels import LANGUAGES, Inspection, KernelInfo
from gdsl.module import compiled as traced
from gdsl.module.arguments import Bound, bind, count_graphs, free_sizes, parameters
from gdsl.module.checks import check_degrees, check_rows, check_tensors, node_counts
from gdsl.module.known import BY_ROWS, Known, Ready, facts_of, remembered
from gdsl.module.run import apply_module, describe_modules, nearest
from gdsl.module.shared import Numbers, Shared, tensors_of
from gdsl.passes.options import CHOICES, Options
from gdsl.passes.pipeline import optimise
from gdsl.passes.stages import Stage, cut
from gdsl.runtime import initialise
from gdsl.runtime.autograd import Runner
from gdsl.runtime.backend import BACKENDS, backend_for
from gdsl.runtime.dtypes import AUTOCAST, autocast
from gdsl.runtime.frame import Frame
from gdsl.runtime.graph import Graph, graph_of
from gdsl.runtime.offline import DEFAULT_TARGET, TARGETS
from gdsl.runtime.rewire import rewire
from gdsl.runtime.tracers import NotScriptable, check_tracers, refuse, run_as_it_is

# Kinds of calls that a layer remembers: a stream of graphs of all sizes must not fill the memory.
MOST_KNOWN = 1024

# Sizes tried, before any call, for the dims that only a call gives.
STAND_INS = (1, 3, 2, 60)

_UNITS = {"kB": 10**3, "MB": 10**6, "GB": 10**9}


@dataclass(frozen=True)
class Specialisation:
    """A program for one way of calling the layer: typed, optimised and cut at the modules that it calls.

    numbers: those that have changed from call to call, and are inputs of the program
    """

    typed: TypedProgram
    program: Program
    stages: tuple[Stage, ...]
    options: Options
    numbers: Numbers = field(default_factory=dict)


class Compiled(parts.Anew):
    """What a layer has compiled so far. It holds no tensor and no module: copies of the layer run it on their own.

    shared: what its programs share, also with those of other arguments
    last:   the way of the last call, and its dtypes
    """

    def __init__(self) -> None:
        self.shared = Shared()
        self.lock = threading.RLock()
        self.typed: dict[Any, TypedProgram] = {}
        self.known: dict[Any, Known] = {}
        self.saved_numbers: dict[Any, list[tuple[Domain, int]]] = {}
        self.specialisations: dict[Any, Specialisation] = {}
        self.runners: dict[Any, Runner] = {}
        self.last: Any = None

    def clear(self) -> None:
        """Forget what was compiled: each module that takes another's place asks for more."""
        for kept in (self.typed, self.known, self.saved_numbers, self.specialisations, self.runners):
            kept.clear()


class Layer(NotScriptable, nn.Module):
    """A layer written in the gdsl language. Made by :func:`gdsl.compile`, or by calling what ``gdsl.define`` gives.

    Arguments of the program and the torch modules that it declares are keyword or positional arguments: those
    without a default, then the modules, then the others, each in the order of the text. ``backend`` is "auto"
    (Triton on GPU tensors, compiled C++ on CPU tensors), "triton", "cpp" or "torch" (the reference).

    Raises :class:`gdsl.LanguageError` when the program and its arguments do not make sense together.
    """

    # Tensors of a call that stand for parameters: see :meth:`on`.
    _inside: Mapping[str, Tensor] = {}

    def __init__(self, definition: ast.Layer, *args: Any, backend: str = "auto", **kwargs: Any):
        super().__init__()
        if backend not in BACKENDS:
            raise InputError(f"there is no backend {backend!r}; there are {', '.join(BACKENDS)}")
        signature = signature_of(definition)
        constants, modules, free = _split_arguments(signature, args, kwargs)
        for name, module in modules.items():
            self._check_name(name, "module")
            self.add_module(name, module)
        self._setup(definition, signature, constants, free, backend)
        self._narrow(self._outlines())
        for d in self._own_state():
            self._create(d)
        self._draw_parameters()

    @classmethod
    def over(
        cls,
        owner: nn.Module,
        definition: ast.Layer,
        arguments: Mapping[str, Any],
        inputs: Mapping[str, Tensor],
        backend: str = "auto",
        shared: Shared | None = None,
    ) -> Layer:
        """A program for the parameters, buffers and submodules of other modules, on which :meth:`on` puts it.

        It reads them by the names that it declares, and ``param x ~ ...`` draws nothing. So one module can have several
        programs, for calls of different kinds, and its copies have the same. ``owner`` is a first one of them, and
        ``inputs`` those of a call: which optional ones there are, and the sizes of dims that no argument gives.
        ``shared`` is what the programs of one module share.
        """
        layer = cls.__new__(cls)
        nn.Module.__init__(layer)
        signature = signature_of(definition)
        ranks = {i.name: i.rank for i in signature.inputs}
        sizes: dict[str, int] = {}
        for name, place, dim in signature.free_places:
            shape = tuple(inputs[name].shape)[-ranks[name] :] if name in inputs else ()
            if place < len(shape):
                sizes.setdefault(dim, shape[place])
        layer._setup(definition, signature, dict(arguments), {}, backend)
        layer._compiled.shared = shared or layer._compiled.shared
        layer._narrow([layer.on(owner)._outline(frozenset(inputs), sizes)])
        return layer

    def _call_on(self, owner: nn.Module, inside: Mapping[str, Tensor], args: tuple[Any, ...]) -> Any:
        """As ``on(owner, inside)(*args)`` with neither hooks nor tracers."""
        return self._call(owner, inside, args, {})

    def on(self, owner: nn.Module, inside: Mapping[str, Tensor] | None = None) -> Layer:
        """The program on what a module is and has at this moment, for one call: nothing is written to what is shared.

        inside: further tensors by the names of the parameters that they stand for
        """
        bound = object.__new__(type(self))
        own = bound.__dict__
        own.update(self.__dict__)
        own["_owner"] = owner
        own["training"] = owner.training
        own["backend"] = owner.__dict__.get("backend", self.backend)
        own["_parameters"], own["_buffers"], own["_modules"] = owner._parameters, owner._buffers, owner._modules
        if inside:
            own["_inside"] = inside
        return bound

    def _setup(
        self,
        definition: ast.Layer,
        signature: Signature,
        constants: Mapping[str, Any],
        free: Mapping[str, int],
        backend: str,
    ) -> None:
        self.definition = definition
        self.backend = backend
        self.signature = signature
        self.free_sizes = dict(free)
        self.arguments = {name: plain(value) for name, value in constants.items()}
        self._module_names = tuple(name for name, _ in signature.modules)
        self.options = Options()
        self._reset()

    def _narrow(self, outlines: Sequence[TypedProgram]) -> None:
        """Take the arguments with their defaults, and of the inputs those that such a layer has."""
        self.arguments = dict(outlines[0].arguments)
        self.signature = self.signature.only(d for typed in outlines for d in typed.of_role("input"))
        self._order = tuple(name for name, _ in parameters(self.signature, self.signature.batched))
        by_rows = {i.name for i in self.signature.inputs if i.domain in BY_ROWS}
        self._places = tuple((name == "graph", name in by_rows) for name in self._order)

    def _reset(self) -> None:
        self._compiled = Compiled()

    def _own_state(self) -> list[Declaration]:
        """Parameters and buffers, also those that only exist when an optional input is passed."""
        outlines = self._outlines()
        found = {d.name: d for typed in outlines for d in typed.of_role("param", "buffer") if d.module is None}
        unknown = {name for name in self.signature.free_dims if name not in self.free_sizes}
        mistakes = [m for d in found.values() if d.type is not None and (m := _no_size(d, unknown)) is not None]
        if mistakes:
            raise LanguageError(mistakes, self.definition.source, self.definition.name)
        return list(found.values())

    def _outlines(self) -> list[TypedProgram]:
        """The program before any call, without optional inputs and with all of them."""
        every = frozenset(i.name for i in self.signature.inputs if i.optional)
        return [self._outline(present) for present in ([frozenset(), every] if every else [every])]

    def _outline(self, present: frozenset[str], sizes: Mapping[str, int] | None = None) -> TypedProgram:
        """The program before any call. Dims that only a call gives have a stand-in size here, or one of ``sizes``.

        A module that is made for another size cannot be read then; it is taken for an opaque one. What is wrong with
        every stand-in (``cross`` needs 3 places, ``x[5]`` 6 or more) is a mistake.
        """
        unseen = {name: UNKNOWN for name in self._module_names if self._modules.get(name) is not None}
        seen = {name: self._modules.get(name) for name in self._module_names}
        first: LanguageError | None = None
        for size in STAND_INS if self.signature.free_dims else STAND_INS[:1]:
            free = {**dict.fromkeys(self.signature.free_dims, size), **(sizes or {}), **self.free_sizes}
            for modules in (seen, unseen) if unseen and self.signature.free_dims else (seen,):
                try:
                    return check(self.definition, self.arguments, modules=modules, present=present, free_dims=free)
                except LanguageError as error:
                    first = first or error
        assert first is not None
        raise first

    def _check(self, *, training: bool, present: frozenset[str], free: Mapping[str, int]) -> TypedProgram:
        modules = {name: self._modules.get(name) for name in self._module_names}
        return check(
            self.definition, self.arguments, modules=modules, training=training, present=present, free_dims=free
        )

    def _create(self, d: Declaration) -> None:
        assert d.type is not None
        self._check_name(d.name, d.role)
        tensor = torch.zeros(d.type.shape)
        if d.role == "param":
            self.register_parameter(d.name, nn.Parameter(tensor))
        else:
            self.register_buffer(d.name, tensor)

    def _check_name(self, name: str, kind: str) -> None:
        """Names of torch's modules are refused with the text; this is for those that only the running torch has."""
        own = getattr(type(self), name, None)
        if name in self.__dict__ or (own is not None and not (kind == "module" and isinstance(own, property))):
            raise InputError(f"torch's modules have `{name}` themselves: give the {kind} another name")

    def reset_parameters(self) -> None:
        """Draw the parameters anew, as the program says, and those of its modules, as they say."""
        self._draw_parameters()
        for module in self._modules.values():
            for part in module.modules() if module is not None else ():
                reset = getattr(part, "reset_parameters", None)
                if callable(reset):
                    reset()

    def _draw_parameters(self) -> None:
        every = frozenset(i.name for i in self.signature.inputs if i.optional)
        read_by = users(node for _, node in self._outline(every).outputs)
        loads = {n.attrs.name: n for n in read_by if n.op == "load"}
        for d in self._own_state():
            if d.init is not None:
                tensor = self._parameters.get(d.name, self._buffers.get(d.name))
                if tensor is None:
                    raise InputError(f"`{d.name}` is computed from other tensors (pruned, parametrised): draw those")
                node = loads.get(d.name)
                fan_in, fan_out = initialise.fans(node, read_by) if node is not None else (tensor.numel(),) * 2
                initialise.fill(tensor, d.init.name, d.init.arguments, fan_in, fan_out)

    # -- the call ------------------------------------------------------------------------------

    def forward(self, *args: Any, **kwargs: Any) -> Tensor | tuple[Tensor, ...]:
        """Apply the layer: ``layer(x, graph, ...)``.

        Node inputs come first, ``[N, dims]`` each, in the order of the text, or a pair (source, target) for a
        bipartite layer; then the graph: ``edge_index`` [2, E] or a :class:`gdsl.Graph`; then edge inputs,
        ``[E, dims]``, and optional ones. A layer that pools takes ``batch`` [N] and ``num_graphs`` last.

        Raises :class:`gdsl.InputError` or :class:`gdsl.GraphError` before any kernel runs.
        """
        if torch.compiler.is_compiling():
            return self._traced(args, kwargs)
        return self._call(self.__dict__.get("_owner", self), self._inside, args, kwargs)

    @run_as_it_is
    def _call(
        self, owner: nn.Module, inside: Mapping[str, Tensor], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Tensor | tuple[Tensor, ...]:
        """The call of a program :meth:`on` a module, which is only put on it for a call of a new kind."""
        if type(args) is not tuple:
            refuse("torch.fx.symbolic_trace")
        plain = not kwargs and not any(map(torch.is_autocast_enabled, AUTOCAST))
        what = facts_of(args, self._places) if plain and not self.signature.builds_graph else None
        facts = None if what is None else (owner.training, self._states_of(owner), what)
        known = None if facts is None else self._compiled.known.get(facts)
        tensors = None if known is None else known.tensors(args, owner, inside)
        if known is None or tensors is None:
            return self._bound(owner, inside)._first_call(args, kwargs, facts)
        graph = known.checked_graph(args, tensors)
        frame, tensors = _framed(known.typed, graph, tensors, known.dtype, known.device)
        backend = owner.__dict__.get("backend", self.backend)
        ready = known.ready.get((frame.graph.shape, frame.graph.index_dtype, backend))
        if ready is None:
            return self._bound(owner, inside)._run_on(known.key, tensors, frame, known.ready)
        self._compiled.last = ready.last
        return _one_or_all(ready.runner([tensors[name] for name in ready.names], frame))

    def _bound(self, owner: nn.Module, inside: Mapping[str, Tensor]) -> Layer:
        return self if self.__dict__.get("_owner", self) is owner else self.on(owner, inside)

    def _traced(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The call as torch.compile and torch.export see it: see :mod:`gdsl.module.compiled`."""
        signature = self.signature
        bound = bind(signature, args, kwargs, signature.batched)
        tensors = {i.name: bound.values[i.name] for i in signature.inputs if bound.values[i.name] is not None}
        sources, targets = traced.node_counts(signature, tensors)
        if signature.builds_graph:
            given: Any = next(iter(tensors.values())).new_empty((2, 0), dtype=torch.int64)
        else:
            given = bound.graph
        free = free_sizes(signature, bound.values, self.free_sizes)
        modules = self._given_modules()
        # A size of which programs are made is a constant, also where the tracer takes all sizes for variables.
        sizes = tuple(sorted((name, operator.index(size)) for name, size in free.items()))
        key = (self.training, tuple(tensors), sizes, traced.state_of(modules, self.traced_fields()))
        graph = traced.traced_graph(given, sources, targets)
        return traced.run(self, key, tensors, graph, bound.batch, bound.num_graphs)

    def _traced_program(self, key: Any) -> tuple[TypedProgram, tuple[Stage, ...]]:
        training, given, free = key[:3]
        optional = {i.name for i in self.signature.inputs if i.optional}
        whole = (training, frozenset(optional.intersection(given)), free, self._module_states())
        typed = self._typed_for(whole)
        with self._compiled.lock:
            if ("traced", whole) not in self._compiled.specialisations:
                stages = traced.stages_of(typed, self.options)
                found = Specialisation(typed, Program("", ()), stages, self.options)
                self._compiled.specialisations["traced", whole] = found
            return typed, self._compiled.specialisations["traced", whole].stages

    def _given_modules(self) -> list[nn.Module]:
        modules = (self._modules.get(name) for name in self._module_names)
        return [module for module in modules if module is not None]

    @traced.constant_for_tracer
    def traced_fields(self) -> tuple[tuple[str, ...], ...]:
        """What a traced call looks at in modules: see :func:`gdsl.module.compiled.fields_of`."""
        return traced.fields_of(self._given_modules())

    @traced.constant_for_tracer
    def traced_plan(self, key: Any) -> Any:
        """What a traced call must know: see :func:`gdsl.module.compiled.plan_of`."""
        return traced.plan_of(*self._traced_program(key))

    @traced.constant_for_tracer
    def traced_call(self, key: Any, stage: int, mask: tuple[bool, ...], dtype: str) -> str:
        """The operator of a traced call: see :func:`gdsl.module.compiled.call_text`."""
        typed, stages = self._traced_program(key)
        return traced.call_text(typed, stages, stage, self.options, self.backend, mask, dtype)

    @run_as_it_is
    def _first_call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], facts: Any) -> Tensor | tuple[Tensor, ...]:
        """Check everything, and remember what a call with tensors like these needs not check again."""
        check_tracers((*args, *kwargs.values()))
        bound = bind(self.signature, args, kwargs, self.signature.batched)
        optional = (i.name for i in self.signature.inputs if i.optional)
        present = frozenset(name for name in optional if bound.values.get(name) is not None)
        free = free_sizes(self.signature, bound.values, self.free_sizes)
        key = (self.training, present, tuple(sorted(free.items())), self._module_states())
        typed = self._typed_for(key)
        tensors = autocast(self._tensors(typed, bound.values))
        dtype, device = check_tensors(tensors, typed)
        num_graphs = count_graphs(bound, device)
        graph = self._graph(typed, bound, tensors, dtype, device)
        check_rows(tensors, typed, graph, bound.batch, num_graphs)
        if facts is not None and bound.batch is None and bound.num_graphs is None:
            names = self._order[: len(args)]
            known = remembered(key, typed, tensors, names, bound.graph, dtype, device)
            if known is not None:
                if len(self._compiled.known) >= MOST_KNOWN:
                    self._compiled.known.clear()
                self._compiled.known[facts] = known
        frame, tensors = _framed(typed, graph, tensors, dtype, device, bound.batch, num_graphs)
        return self._run_on(key, tensors, frame)

    @run_as_it_is
    def _run_on(
        self, key: Any, tensors: dict[str, Tensor], frame: Frame, ready: dict[Any, Ready] | None = None
    ) -> Tensor | tuple[Tensor, ...]:
        """Run a call on a graph of a new shape. What it runs is noted in ``ready`` for other calls of its kind."""
        graph = frame.graph
        key = (key, graph.shape, self._within_budget(key, graph, frame.dtype))
        last = self._compiled.last = (key, frame.dtype, graph.index_dtype)
        spec = self._specialise(key)
        outputs = self._run(spec, tensors, frame, key)
        if ready is not None and len(spec.stages) == 1 and not spec.numbers and self.options.budget is None:
            runner = self._stage_runner(spec, 0, frame, key)
            ready[graph.shape, graph.index_dtype, self.backend] = Ready(runner, tuple(runner.names), last)
        return _one_or_all(outputs)

    def _module_states(self) -> tuple[Any, ...]:
        """What the program depends on that may change between calls: arguments, and what modules are besides the values
        of their parameters.
        """
        return self._states_of(self)

    def _states_of(self, owner: nn.Module) -> tuple[Any, ...]:
        modules = owner._modules
        return (*parts.states([modules.get(name) for name in self._module_names]), *self.arguments.values())

    def _typed_for(self, key: Any) -> TypedProgram:
        """The typed program for one way of calling the layer."""
        with self._compiled.lock:
            if key not in self._compiled.typed:
                if len(self._compiled.typed) >= MOST_KNOWN:
                    self._compiled.clear()
                training, present, free, _ = key
                self._compiled.typed[key] = self._check(training=training, present=present, free=dict(free))
            return self._compiled.typed[key]

    def _specialise(self, key: Any) -> Specialisation:
        """The program of a way of calling, optimised for graphs of a shape."""
        found = self._compiled.specialisations.get(key)
        if found is not None:
            return found
        with self._compiled.lock:
            if key not in self._compiled.specialisations:
                call, shape, within_budget = key
                typed, options = self._typed_for(call), replace(self.options, shape=shape)
                if not within_budget:
                    options = options.with_choice("save", "nothing")
                shared, written = self._compiled.shared, Program(typed.name, typed.outputs, typed.names)
                written, numbers = shared.with_inputs(None, written)
                program, stages = shared.once((written.outputs, options), lambda: _optimised(written, options))
                self._compiled.specialisations[key] = Specialisation(typed, program, stages, options, numbers)
            return self._compiled.specialisations[key]

    def _within_budget(self, call: Any, graph: Graph, dtype: torch.dtype) -> bool:
        """Whether what the backward pass would read of the forward pass fits the user's budget on this graph."""
        if self.options.budget is None or self.options.choice("save") != "auto":
            return True
        key = (call, graph.shape, True)
        with self._compiled.lock:
            if key not in self._compiled.saved_numbers:
                spec = self._specialise(key)
                found = Inspection(spec.typed, [s.program for s in spec.stages], dtype, graph.index_dtype, spec.options)
                saved = [node.type for adjoint in found.adjoints for node, _ in adjoint.saved]
                self._compiled.saved_numbers[key] = [(t.domain, t.numel) for t in saved]
        frame = Frame(graph, dtype, graph.device)
        numbers = sum(frame.rows(domain) * numel for domain, numel in self._compiled.saved_numbers[key])
        return numbers * dtype.itemsize <= self.options.budget

    def _tensors(self, typed: TypedProgram, values: Mapping[str, Any]) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for d in typed.declarations:
            if d.role == "input" and d.present:
                value = values[d.name]
                if value is not None:
                    found[d.name] = value
            elif d.role in ("param", "buffer"):
                found[d.name] = self._state(d.name)
        return found

    def _state(self, name: str) -> Tensor:
        found = self._inside.get(name)
        return parts.tensor_of(self.__dict__.get("_owner", self), name) if found is None else found

    def _graph(
        self, typed: TypedProgram, bound: Bound, tensors: Mapping[str, Tensor], dtype: torch.dtype, device: Any
    ) -> Graph:
        sizes = node_counts(typed, tensors)
        knn = next((t for t in typed.transforms if t.name == "knn"), None)
        if knn is not None:
            return nearest(knn, tensors, dtype, device, sizes, bound.batch)
        given = bound.graph
        plain = isinstance(given, Tensor) and given.layout is torch.strided
        if not plain and not isinstance(given, Graph):
            pair = None if None in sizes else (sizes if typed.bipartite else sizes[1])
            given = Graph.from_any(given, pair)  # type: ignore[arg-type]
        if given.device != device:
            raise GraphError(f"the graph is on {given.device}, and the inputs are on {device}: move one with .to()")
        return graph_of(given, *sizes) if plain else given

    def _run(self, spec: Specialisation, tensors: dict[str, Tensor], frame: Frame, key: Any) -> Sequence[Tensor]:
        results: Sequence[Tensor] = ()
        if spec.numbers:
            tensors |= tensors_of(spec.numbers, frame)
        for number, stage in enumerate(spec.stages):
            runner = self._stage_runner(spec, number, frame, key)
            results = runner([tensors[name] for name in runner.names], frame)
            if stage.module is not None:
                tensors[stage.result] = apply_module(self._part(stage.module), stage, results, frame)
        return results

    def _part(self, name: str) -> nn.Module:
        return parts.module_of(self.__dict__.get("_owner", self), name)

    def _stage_runner(self, spec: Specialisation, number: int, frame: Frame, key: Any) -> Runner:
        at = (key, number, frame.dtype, frame.graph.index_dtype, frame.device.type, self.backend)
        return self._runner(spec.stages[number].program, at, frame, spec.options)

    def _runner(self, program: Program, key: Any, frame: Frame, options: Options) -> Runner:
        found = self._compiled.runners.get(key)
        if found is not None:
            return found
        with self._compiled.lock:
            if key not in self._compiled.runners:
                backend = backend_for(self.backend, frame.dtype, frame.device)
                given = (backend, frame.dtype, frame.graph.index_dtype, options)
                self._compiled.runners[key] = self._compiled.shared.once(
                    (program.outputs, frame.device.type, *given), lambda: Runner(program, *given)
                )
            return self._compiled.runners[key]

    def choose(self, *, memory: int | str | None = None, **choices: str) -> Layer:
        """Take choices out of the cost model's hands: ``layer.choose(aggregate="first", memory="64MB")``.

        memory:          the most to keep between the forward and the backward pass, in bytes or as in "64MB": on a
                         graph where it would be more, the backward pass computes it again. None sets no limit
        aggregate:       sum over edges before ("first") or after ("last") products with matrices
        weight_gradient: sum a weight's gradient over "nodes", or over "edges"
        kinds:           of values that a chain of `where` chooses from, compute the one that is "picked", or "all"
        save:            keep "all" that the backward pass can use, or "nothing" and compute it again
        sums:            plain weighted sums by a "kernel" of gdsl's, or as the sparse product of the "vendor": MKL on
                         a CPU, cuSPARSE on a GPU, whose bits may depend on the number of threads
        ties:            "split" the gradient of equal maxima or minima evenly, as torch does and "auto" is, or give it
                         all to the "first", which spares messages that are computed on edges a second computation

        "auto" gives a choice back. Raises :class:`gdsl.InputError` for a choice or a value that there is not.
        """
        for name, value in choices.items():
            if name not in CHOICES:
                raise InputError(f"there is no choice `{name}`; there are memory, {', '.join(CHOICES)}")
            if value not in CHOICES[name]:
                raise InputError(f"`{name}` is one of {', '.join(CHOICES[name])}, not {value!r}")
        options = replace(self.options, budget=_count_bytes(memory))
        for name, value in choices.items():
            options = options.with_choice(name, value)
        self.options = options
        self._reset()
        return self

    # -- the look inside -----------------------------------------------------------------------

    @property
    def source(self) -> str:
        """The text of the program."""
        return self.definition.source[self.definition.span.start : self.definition.span.end]

    def _shown(
        self, graph: Graph | None = None, device: str | None = None
    ) -> tuple[Specialisation, torch.dtype, torch.dtype]:
        """What the last call ran, its dtype and that of the indices; before any call, what a plain one would.

        With a graph, what the same call would run on it; with a type of device, what it would run there.
        """
        if self._compiled.last is not None:
            key, dtype, index = self._compiled.last
        else:
            missing = [n for n in self.signature.free_dims if n not in self.free_sizes]
            if missing:
                raise InputError(
                    f"the size of dim `{missing[0]}` is only known from a call: call the layer once, or give "
                    f"{missing[0]}=... when compiling it"
                )
            call: Any = (False, frozenset(), tuple(sorted(self.free_sizes.items())), self._module_states())
            key = (call, self.options.shape, True)
            dtype, index = torch.float32, torch.int32
        if graph is not None:
            key, index = (key[0], graph.shape, self._within_budget(key[0], graph, dtype)), graph.index_dtype
        if device is not None:
            key = (key[0], replace(key[1], device=device), key[2])
        return self._specialise(key), dtype, index

    def _inspect(self, graph: Graph | None = None, device: str | None = None) -> Inspection:
        spec, dtype, index = self._shown(graph, device)
        return Inspection(spec.typed, [s.program for s in spec.stages], dtype, index, spec.options)

    @property
    def program(self) -> TypedProgram:
        """The typed program of the last call, or of a call without optional inputs in evaluation mode."""
        return self._inspect().typed

    @property
    def kernels(self) -> list[KernelInfo]:
        """The generated kernels, forward then backward: name, direction, language, source, bytes, flops."""
        on_gpu = self.backend == "triton" or any(r.backend == "triton" for r in self._compiled.runners.values())
        return self.kernels_for("triton" if on_gpu else "cpp")

    def kernels_for(self, language: str, target: str = DEFAULT_TARGET) -> list[KernelInfo]:
        """The kernels in "cpp" or "triton", whatever the layer runs on. No GPU need be there.

        target: "sm_80", "sm_90", "gfx942"...: what ``kernel.asm("ptx")`` and ``kernel.binary`` are for

        Raises :class:`gdsl.InputError` for a language or a target that there is not.
        """
        if language not in LANGUAGES:
            raise InputError(f"there are kernels in {' and '.join(LANGUAGES)}, not in {language!r}")
        if target not in TARGETS:
            raise InputError(f"there is no target {target!r}; there are {', '.join(TARGETS)}")
        return self._inspect(device="cuda" if language == "triton" else "cpu").kernels(language, target)

    def explain(self, graph: Any = None, *, node: int | None = None, inputs: Sequence[Tensor] | None = None) -> str:
        """How the layer is compiled, as text: program, optimised IR, kernels with their costs, what the backward keeps.

        graph:  a graph or ``edge_index``: adds the ledger of a compilation for it. Each rule that fired, what it saved,
                what was not fused and why, the schedule, a forecast of memory by tensor, and what bounds each kernel
        node:   a target of the graph: shows its messages, weights and result instead, step by step, from the
                reference and from the kernels
        inputs: for ``node``, the tensors of a call in order, without the graph; drawn at random if not given

        Raises :class:`gdsl.InputError` for a node that the graph does not have.
        """
        found = None if graph is None else self._any_graph(graph)
        if node is not None:
            if found is None:
                raise InputError("explain(graph, node=...) needs the graph")
            from gdsl.look.node import trace

            return trace(self, found, node, inputs)
        present = [name for name in self._module_names if self._modules.get(name) is not None]
        modules = describe_modules(present, self._shown(found)[0].stages)
        text = self._inspect(found).explain() + (f"\n\n== modules ==\n{modules}" if modules else "")
        if found is None:
            return text
        from gdsl.look.accounts import ledger

        return text + "\n" + ledger(self._inspect(found), found, self._shown(found)[1])

    def _any_graph(self, given: Any) -> Graph:
        return graph_of(given, None, None) if type(given) is Tensor else Graph.from_any(given)

    def check(self, *args: Any, **kwargs: Any) -> Any:
        """Test the layer's derivatives and kernels on your own data: see :func:`gdsl.look.check.check_layer`."""
        from gdsl.look.check import check_layer

        return check_layer(self, args, kwargs)

    def extra_repr(self) -> str:
        shown = [f"{k}={v!r}" for k, v in self.arguments.items()]
        return ", ".join(shown)

    def __dir__(self) -> list[str]:
        """Without what cannot be told before a call, for tools that look at all that a module has."""
        unknown = self._compiled.last is None and any(name not in self.free_sizes for name in self.signature.free_dims)
        return [name for name in super().__dir__() if not (unknown and name in ("kernels", "program"))]

    def _get_name(self) -> str:
        return self.definition.name


def _framed(
    typed: TypedProgram,
    graph: Graph,
    tensors: dict[str, Tensor],
    dtype: torch.dtype,
    device: torch.device,
    batch: Tensor | None = None,
    num_graphs: int = 1,
) -> tuple[Frame, dict[str, Tensor]]:
    """What a call whose arguments are known to be right runs on: its graph as the rules see it, and its tensors."""
    if typed.transforms:
        graph, tensors = rewire(typed, graph, tensors)
    if typed.requires:
        check_degrees(typed.name, [(need.end, need.value) for need in typed.requires], graph)
    if typed.uses_seed:
        tensors["seed"] = torch.randint(2**62, (), dtype=torch.int64, device=device)
    return Frame(graph, dtype, device, batch, num_graphs), tensors


def _one_or_all(outputs: Sequence[Tensor]) -> Tensor | tuple[Tensor, ...]:
    return outputs[0] if len(outputs) == 1 else tuple(outputs)


def _no_size(d: Declaration, unknown: Collection[str]) -> Diagnostic | None:
    """What is missing where the size of a parameter comes only with a call, when there should be one already."""
    assert d.type is not None
    names = [word for dim in d.type.names for word in re.findall(r"[A-Za-z_]\w*", dim) if word in unknown]
    if not names:
        return None
    message = f"the size of dim `{names[0]}` of {d.role} `{d.name}` is not known before a call"
    hint = f"give it when compiling, as in {names[0]}=16, or make it an argument of the layer"
    return Diagnostic(message, d.span, hint=hint)


def _optimised(program: Program, options: Options) -> tuple[Program, tuple[Stage, ...]]:
    found = optimise(program, options) if options.optimise else program
    return found, cut(found)


def plain(value: Any) -> Any:
    """A number of NumPy as one of Python."""
    return value.item() if isinstance(value, np.generic) else value


def _split_arguments(
    signature: Signature, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, nn.Module], dict[str, int]]:
    """Constructor arguments by what they are: constants, modules and sizes of free dims."""
    names = [name for name in constructor_signature(signature).parameters if name != "backend"]
    if len(args) > len(names):
        raise InputError(f"{signature.name} takes {len(names)} arguments, and got {len(args)}")
    given = dict(zip(names, args, strict=False))
    for name, value in kwargs.items():
        if name in given:
            raise InputError(f"{signature.name} got `{name}` twice")
        given[name] = value
    modules: dict[str, nn.Module] = {}
    for name, optional in signature.modules:
        value = given.pop(name, None)
        if value is None:
            if not optional:
                raise InputError(f"{signature.name} needs a torch module for `{name}`")
        elif not isinstance(value, nn.Module):
            raise InputError(f"`{name}` must be a torch.nn.Module, not {type(value).__name__}")
        else:
            modules[name] = value
    free = {name: plain(given.pop(name)) for name in signature.free_dims if name in given}
    for name, size in free.items():
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise InputError(f"`{name}` is the size of a dim: a whole number from 0, not {size!r}")
    return given, modules, free


def _count_bytes(memory: int | str | None) -> int | None:
    """Bytes from a number, or from text such as "64MB"."""
    if isinstance(memory, str):
        text, unit = memory[:-2].strip(), memory[-2:]
        if unit in _UNITS and text.isdigit():
            return int(text) * _UNITS[unit]
    elif memory is None or (isinstance(memory, int) and not isinstance(memory, bool) and memory >= 0):
        return memory
    raise InputError(f'`memory` is a number of bytes, or text such as "64MB", not {memory!r}')


def constructor_signature(signature: Signature) -> inspect.Signature:
    """The Python signature of a layer's class."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    required = [inspect.Parameter(p.name, kind) for p in signature.arguments if p.required]
    modules = [inspect.Parameter(name, kind) for name, optional in signature.modules if not optional]
    defaults = [inspect.Parameter(p.name, kind, default=p.default) for p in signature.arguments if not p.required]
    absent = [inspect.Parameter(name, kind, default=None) for name, optional in signature.modules if optional]
    backend = inspect.Parameter("backend", inspect.Parameter.KEYWORD_ONLY, default="auto")
    return inspect.Signature([*required, *modules, *defaults, *absent, backend])
