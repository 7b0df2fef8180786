"""The module that a program becomes: parameters, a call, and the look inside."""

from __future__ import annotations

import inspect
import threading
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from gdsl import call as calls
from gdsl.codegen.reference import Frame
from gdsl.errors import GraphError, InputError
from gdsl.inspect import Inspection
from gdsl.ir.node import walk
from gdsl.ir.program import Program
from gdsl.language import ast
from gdsl.language.check import check
from gdsl.language.errors import LanguageError
from gdsl.language.program import Declaration, TypedProgram
from gdsl.language.signature import Signature, signature_of
from gdsl.passes.options import Options
from gdsl.passes.pipeline import optimise
from gdsl.runtime import cache, initialise
from gdsl.runtime.autograd import Runner
from gdsl.runtime.graph import Graph, graph_of
from gdsl.runtime.rewire import rewire

BACKENDS = ("auto", "cpp", "torch")


@dataclass(frozen=True)
class Specialisation:
    """A program for one way of calling the layer: typed, optimised and cut at the modules that it calls."""

    typed: TypedProgram
    program: Program
    stages: tuple[calls.Stage, ...]


class Layer(nn.Module):
    """A layer written in the gdsl language. Made by :func:`gdsl.compile`, or by calling what ``gdsl.define`` gives.

    Arguments of the program and the torch modules that it declares are keyword or positional arguments: those
    without a default, then the modules, then the others, each in the order of the text. ``backend`` is "auto"
    (compiled C++ on CPU tensors), "cpp" or "torch" (the reference).

    Raises :class:`gdsl.LanguageError` when the program and its arguments do not make sense together.
    """

    def __init__(self, definition: ast.Layer, *args: Any, backend: str = "auto", **kwargs: Any):
        super().__init__()
        if backend not in BACKENDS:
            raise InputError(f"there is no backend {backend!r}; there are {', '.join(BACKENDS)}")
        self.definition = definition
        self.backend = backend
        self.signature = signature_of(definition)
        constants, modules, free = _split_arguments(self.signature, args, kwargs)
        self._free = free
        self.arguments = constants
        self._module_names = tuple(name for name, _ in self.signature.modules)
        for name, module in modules.items():
            self.add_module(name, module)
        self.options = Options()
        self._reset()
        self.arguments = dict(self._outline(frozenset()).arguments)
        for d in self._own_state():
            self._create(d)
        self._draw_parameters()

    def _reset(self) -> None:
        self._lock = threading.RLock()
        self._specialisations: dict[Any, Specialisation] = {}
        self._runners: dict[Any, Runner] = {}
        self._last: Any = None

    def _own_state(self) -> list[Declaration]:
        """Parameters and buffers, also those that only exist when an optional input is passed."""
        every = frozenset(i.name for i in self.signature.inputs if i.optional)
        outlines = [self._outline(present) for present in {frozenset(), every}]
        found = {d.name: d for typed in outlines for d in typed.of_role("param", "buffer") if d.module is None}
        return list(found.values())

    def _outline(self, present: frozenset[str]) -> TypedProgram:
        """The program before any call. Dims that only a call gives have size 1 here.

        A module that is made for another size cannot be read then; it is taken for an opaque one.
        """
        free = {**dict.fromkeys(self.signature.free_dims, 1), **self._free}
        try:
            return self._check(training=False, present=present, free=free)
        except LanguageError:
            if not self.signature.free_dims or not self._module_names:
                raise
            return check(self.definition, self.arguments, present=present, free_dims=free)

    def _check(self, *, training: bool, present: frozenset[str], free: Mapping[str, int]) -> TypedProgram:
        modules = {name: self._modules.get(name) for name in self._module_names}
        return check(
            self.definition, self.arguments, modules=modules, training=training, present=present, free_dims=free
        )

    def _create(self, d: Declaration) -> None:
        assert d.type is not None
        tensor = torch.zeros(d.type.shape)
        if d.role == "param":
            self.register_parameter(d.name, nn.Parameter(tensor))
        else:
            self.register_buffer(d.name, tensor)

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
        outputs = [node for _, node in self._outline(every).outputs]
        loads = {n.attr("name"): n for n in walk(outputs) if n.op == "load"}
        for d in self._own_state():
            if d.init is not None:
                tensor = self._parameters.get(d.name, self._buffers.get(d.name))
                assert tensor is not None
                node = loads.get(d.name)
                fan_in, fan_out = initialise.fans(node, outputs) if node is not None else (tensor.numel(),) * 2
                initialise.fill(tensor, d.init.name, d.init.arguments, fan_in, fan_out)

    # -- the call ------------------------------------------------------------------------------

    def forward(self, *args: Any, **kwargs: Any) -> Tensor | tuple[Tensor, ...]:
        """Apply the layer: ``layer(x, graph, ...)``.

        Node inputs come first, ``[N, dims]`` each, in the order of the text, or a pair (source, target) for a
        bipartite layer; then the graph: ``edge_index`` [2, E] or a :class:`gdsl.Graph`; then edge inputs,
        ``[E, dims]``, and optional ones. A layer that pools takes ``batch`` [N] and ``num_graphs`` last.

        Raises :class:`gdsl.InputError` or :class:`gdsl.GraphError` before any kernel runs.
        """
        bound = calls.bind(self.signature, args, kwargs, self.signature.batched)
        optional = (i.name for i in self.signature.inputs if i.optional)
        present = frozenset(name for name in optional if bound.values.get(name) is not None)
        free = calls.free_sizes(self.signature, bound.values, self._free)
        key = (self.training, present, tuple(sorted(free.items())), self._module_states())
        spec = self._specialise(key)
        tensors = self._tensors(spec.typed, bound.values)
        dtype, device = calls.check_tensors(tensors, spec.typed)
        num_graphs = calls.count_graphs(bound, device)
        graph = self._graph(spec.typed, bound, tensors, dtype, device)
        calls.check_rows(tensors, spec.typed, graph, bound.batch, num_graphs)
        graph, tensors = rewire(spec.typed, graph, tensors)
        calls.check_graph(spec.typed, graph)
        frame = Frame(graph, dtype, device, bound.batch, num_graphs)
        if spec.typed.uses_seed:
            tensors["seed"] = torch.randint(2**62, (), dtype=torch.int64)
        self._last = (key, dtype, graph.index_dtype)
        outputs = self._run(spec, tensors, frame, key)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def _module_states(self) -> tuple[Any, ...]:
        """What the program that is read out of the modules depends on, besides their parameters' values."""
        modules = [self._modules.get(name) for name in self._module_names]
        return tuple((module, *map(calls.module_state, module.modules())) for module in modules if module is not None)

    def _specialise(self, key: Any) -> Specialisation:
        training, present, free, _ = key
        with self._lock:
            if key not in self._specialisations:
                typed = self._check(training=training, present=present, free=dict(free))
                program = Program(typed.name, typed.outputs, typed.names)
                program = optimise(program, self.options) if self.options.optimise else program
                self._specialisations[key] = Specialisation(typed, program, calls.cut(program))
            return self._specialisations[key]

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
        owner: nn.Module = self
        *path, leaf = name.split(".")
        for part in path:
            owner = owner._modules[part]  # type: ignore[assignment]
        value: Tensor | None = owner._parameters.get(leaf)
        value = owner._buffers.get(leaf) if value is None else value
        if value is None:
            raise InputError(f"the layer has no parameter `{name}`")
        return value

    def _graph(
        self, typed: TypedProgram, bound: calls.Bound, tensors: Mapping[str, Tensor], dtype: torch.dtype, device: Any
    ) -> Graph:
        sizes = calls.node_counts(typed, tensors)
        knn = next((t for t in typed.transforms if t.name == "knn"), None)
        if knn is not None:
            return calls.nearest(knn, tensors, dtype, device, sizes, bound.batch)
        given = bound.graph
        where = getattr(given, "device", device)
        if where != device:
            raise GraphError(f"the graph is on {where}, and the inputs are on {device}: move one with .to()")
        if isinstance(given, Graph):
            return given
        if isinstance(given, Tensor) and given.layout is torch.strided:
            return graph_of(given, *sizes)
        pair = None if None in sizes else (sizes if typed.bipartite else sizes[1])
        return Graph.from_any(given, pair)  # type: ignore[arg-type]

    def _run(self, spec: Specialisation, tensors: dict[str, Tensor], frame: Frame, key: Any) -> Sequence[Tensor]:
        results: Sequence[Tensor] = ()
        for number, stage in enumerate(spec.stages):
            runner = self._runner(stage.program, (key, number, frame.dtype, frame.graph.index_dtype), frame)
            results = runner([tensors[n.attr("name")] for n in runner.inputs], frame)
            if stage.module is not None:
                tensors[stage.result] = calls.apply_module(self._modules[stage.module], stage, results, frame)
        return results

    def _runner(self, program: Program, key: Any, frame: Frame) -> Runner:
        with self._lock:
            key = (key, self._backend_for(frame))
            if key not in self._runners:
                self._runners[key] = Runner(program, key[1], frame.dtype, frame.graph.index_dtype, self.options)
            return self._runners[key]

    def _backend_for(self, frame: Frame) -> str:
        supported = frame.device.type == "cpu" and frame.dtype in (torch.float32, torch.float64)
        if self.backend == "cpp" and not supported:
            given = f"{calls.short(frame.dtype)} on {frame.device}"
            raise InputError(f"the C++ backend runs float32 and float64 on the CPU, not {given}")
        if self.backend != "auto":
            return self.backend
        if not supported:
            return "torch"
        if cache.find_compiler() is None:
            _warn_once("no C++ compiler was found: layers run on the slow torch backend. " + cache.INSTALL)
            return "torch"
        return "cpp"

    # -- the look inside -----------------------------------------------------------------------

    @property
    def source(self) -> str:
        """The text of the program."""
        return self.definition.source[self.definition.span.start : self.definition.span.end]

    def _shown(self) -> tuple[Specialisation, torch.dtype, torch.dtype]:
        """What the last call ran, its dtype and that of the indices; before any call, what a plain one would."""
        if self._last is not None:
            key, dtype, index = self._last
        else:
            missing = [n for n in self.signature.free_dims if n not in self._free]
            if missing:
                raise InputError(
                    f"the size of dim `{missing[0]}` is only known from a call: call the layer once, or give "
                    f"{missing[0]}=... when compiling it"
                )
            key = (False, frozenset(), tuple(sorted(self._free.items())), self._module_states())
            dtype, index = torch.float32, torch.int32
        return self._specialise(key), dtype, index

    def _inspect(self) -> Inspection:
        spec, dtype, index = self._shown()
        return Inspection(spec.typed, [s.program for s in spec.stages], dtype, index, self.options)

    @property
    def program(self) -> TypedProgram:
        """The typed program of the last call, or of a call without optional inputs in evaluation mode."""
        return self._inspect().typed

    @property
    def kernels(self) -> list[Any]:
        """The generated kernels, forward then backward: name, direction, language, source, bytes, flops."""
        return self._inspect().kernels()

    def explain(self) -> str:
        """Every stage as text: program, modules, optimised IR, kernels with their costs, what the backward keeps."""
        present = [name for name in self._module_names if self._modules.get(name) is not None]
        modules = calls.describe_modules(present, self._shown()[0].stages)
        return self._inspect().explain() + (f"\n\n== modules ==\n{modules}" if modules else "")

    def check(self, *args: Any, **kwargs: Any) -> Any:
        """Test the layer's derivatives and kernels on your own data: see :func:`gdsl.checking.check_layer`."""
        from gdsl.checking import check_layer

        return check_layer(self, args, kwargs)

    def extra_repr(self) -> str:
        shown = [f"{k}={v!r}" for k, v in self.arguments.items()]
        return ", ".join(shown)

    def _get_name(self) -> str:
        return self.definition.name

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        for name in ("_lock", "_specialisations", "_runners", "_last"):
            state.pop(name, None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._reset()


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
    free = {name: given.pop(name) for name in signature.free_dims if name in given}
    for name, size in free.items():
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise InputError(f"`{name}` is the size of a dim: a whole number from 0, not {size!r}")
    return given, modules, free


_warned: set[str] = set()


def _warn_once(message: str) -> None:
    if message not in _warned:
        _warned.add(message)
        warnings.warn(message, stacklevel=4)


def constructor_signature(signature: Signature) -> inspect.Signature:
    """The Python signature of a layer's class."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    required = [inspect.Parameter(p.name, kind) for p in signature.arguments if p.required]
    modules = [inspect.Parameter(name, kind) for name, optional in signature.modules if not optional]
    defaults = [inspect.Parameter(p.name, kind, default=p.default) for p in signature.arguments if not p.required]
    absent = [inspect.Parameter(name, kind, default=None) for name, optional in signature.modules if optional]
    backend = inspect.Parameter("backend", inspect.Parameter.KEYWORD_ONLY, default="auto")
    return inspect.Signature([*required, *modules, *defaults, *absent, backend])
