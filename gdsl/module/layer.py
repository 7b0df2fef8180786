"""The module that a program becomes: parameters, a call, and the look inside."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from gdsl.errors import InputError
from gdsl.ir.node import users
from gdsl.language import ast
from gdsl.language.errors import Diagnostic, LanguageError
from gdsl.language.names import PROPERTIES
from gdsl.language.parts import module_of, part_of
from gdsl.language.program import Declaration, Part, TypedProgram
from gdsl.language.signature import Signature, is_optional_part, signature_of
from gdsl.look.short import short
from gdsl.module import compiled, host, owned, several
from gdsl.module.arguments import bind, constructor_arguments
from gdsl.module.by_type import is_by_type, named
from gdsl.module.call import call
from gdsl.module.compilable import Compilable
from gdsl.module.inspected import Inspected
from gdsl.module.rounds import InRounds
from gdsl.module.watched import run_rounds
from gdsl.module.ways import CallKind, Ran, Text, Way
from gdsl.passes.options import Options
from gdsl.runtime import initialise
from gdsl.runtime.backend import check_backend
from gdsl.runtime.graph import Graph
from gdsl.runtime.rewire import rewirings
from gdsl.runtime.tracers import NotScriptable

_REGISTERS: Mapping[str, Any] = {
    "param": nn.Module.register_parameter, "buffer": nn.Module.register_buffer, "module": nn.Module.register_module,
}  # fmt: skip


class Layer(InRounds, NotScriptable, Inspected, Compilable):
    """A layer written in the gdsl language. Made by :func:`gdsl.compile`, or by calling what ``gdsl.define`` gives.

    Arguments of the program and the torch modules that it declares are keyword or positional arguments: those
    without a default, then the modules, then the others, each in the order of the text. ``backend`` is "auto"
    (Triton on GPU tensors, compiled C++ on CPU tensors), "triton", "cpp" or "torch" (the reference).

    Raises :class:`gdsl.LanguageError` when the program and its arguments do not make sense together.
    """

    def __init__(self, definition: ast.Layer, *args: Any, backend: str = "auto", **kwargs: Any):
        super().__init__()
        self._start_watching()
        check_backend(backend)
        self.backend = backend
        signature = signature_of(definition)
        constants, modules, free = constructor_arguments(signature, args, kwargs)
        for name, module in modules.items():
            self._check_name(name, "module")
            self.add_module(name, module)
        self._text = Text(definition, constants, free)
        self._text.narrow(self._text.outlines(self))
        self._made: dict[str, Part] = {}
        for d in self._own_state():
            self._create(d)
        for part in ast.walk(definition):
            if not isinstance(part, ast.Declaration | ast.Owned) or not is_optional_part(part):
                continue
            if not hasattr(self, part.name):  # as torch's modules have it, what was left out is None
                _REGISTERS[part.role if isinstance(part, ast.Declaration) else "module"](self, part.name, None)
        self._draw_parameters()

    @classmethod
    def _of(cls, text: Text, modules: Mapping[str, nn.Module]) -> Layer:
        """A layer on modules that are there, without parameters of its own."""
        made = cls.__new__(cls)
        nn.Module.__init__(made)
        made._start_watching()
        made.backend, made._text = "auto", text
        made._modules.update(modules)
        return made

    @property
    def definition(self) -> ast.Layer:
        """The syntax tree of the program."""
        return self._text.definition

    @property
    def signature(self) -> Signature:
        """The inputs of the call, and the arguments of the text."""
        return self._text.signature

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of the text, with their defaults."""
        return self._text.arguments

    @property
    def free_sizes(self) -> dict[str, int]:
        """The sizes that were given of dims that no argument gives."""
        return self._text.free_sizes

    @property
    def source(self) -> str:
        """The text of the program."""
        return self.definition.source[self.definition.span.start : self.definition.span.end]

    def _own_state(self) -> list[Declaration]:
        """Parameters, buffers and linear maps, also those that only exist when an optional input is passed."""
        declared = [d for typed in self._text.outlines(self) for d in typed.of_role("param", "buffer", "module")]
        made = (d for d in declared if d.part is not None or d.name in self._made or (d.type and d.module is None))
        found = {d.name: d for d in made}
        unknown = {name for name in self.signature.free_dims if name not in self.free_sizes}
        mistakes = [m for d in found.values() if (m := _no_size(d, unknown)) is not None]
        if mistakes:
            raise LanguageError(mistakes, self.definition.source, self.definition.name)
        return list(found.values())

    def _create(self, d: Declaration) -> None:
        self._check_name(d.name.split(".")[0], "module" if "." in d.name else d.role)
        *path, name = d.name.split(".")
        holder = part_of(self, path)
        if d.part is not None:
            holder._modules[name] = owned.make(d.part)  # its name may be that of a property, as `kernels` is
            self._made[d.name] = d.part
            return
        assert d.type is not None
        tensor = torch.zeros(d.type.shape)
        if d.role == "param":
            holder.register_parameter(name, nn.Parameter(tensor))
        else:
            holder.register_buffer(name, tensor)

    def _check_name(self, name: str, kind: str) -> None:
        """Names of torch's modules are refused with the text; this is for those that only the running torch has."""
        own = getattr(type(self), name, None)
        if name in self.__dict__ or (own is not None and not (kind == "module" and name in PROPERTIES)):
            raise InputError(f"torch's modules have `{name}` themselves: give the {kind} another name")

    def reset_parameters(self) -> None:
        """Draw the parameters anew, as the program says, and those of its modules, as they say."""
        self._draw_parameters()
        for name, module in self._modules.items():
            for part in module.modules() if module is not None and name not in self._made else ():
                reset = getattr(part, "reset_parameters", None)
                if callable(reset):
                    reset()

    def _draw_parameters(self) -> None:
        every = frozenset(i.name for i in self.signature.inputs if i.optional)
        read_by = users(node for _, node in self._text.outline(self, every).outputs)
        loads = {n.attrs.name: n for n in read_by if n.op == "load"}
        for d in self._own_state():
            if d.name in self._made:
                owned.draw(self._made[d.name], d.name, module_of(self, d.name))
            elif d.init is not None:
                *path, name = d.name.split(".")
                holder = part_of(self, path)
                tensor = holder._parameters.get(name, holder._buffers.get(name))
                if tensor is None:
                    raise InputError(f"`{d.name}` is computed from other tensors (pruned, parametrised): draw those")
                node = loads.get(d.name)
                fan_in, fan_out = initialise.fans(node, read_by) if node is not None else (tensor.numel(),) * 2
                initialise.fill(tensor, d.init.name, d.init.arguments, fan_in, fan_out)

    # -- the call ------------------------------------------------------------------------------

    def forward(self, *args: Any, **kwargs: Any) -> Tensor | tuple[Tensor, ...]:
        """Apply the layer: ``layer(x, graph, ...)``.

        Node inputs come first, ``[N, dims]`` each, in the order of the text, or a pair (source, target) for a
        bipartite layer, or one tensor that is both; then the graph: ``edge_index`` [2, E] or a :class:`gdsl.Graph`;
        then edge inputs, ``[E, dims]``, and optional ones. A layer that pools takes ``batch`` [N] and ``num_graphs``
        last.

        Raises :class:`gdsl.InputError` or :class:`gdsl.GraphError` before any kernel runs.
        """
        if (self._watched or self._rounds) and self._is_looked_at():
            return self._run_watched(args, kwargs)
        if torch.compiler.is_compiling():
            if not self.signature.graphs:
                return compiled.call(self, args, kwargs)
            several.leave_tracer(self._get_name())
        return call(self._text, self, {}, args, kwargs, self.backend)

    def _run_watched(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor | tuple[Tensor, ...]:
        """A call in torch, with masks or hooks on its messages."""
        if self.signature.graphs:
            raise InputError(f"{self._get_name()} runs on several graphs, and masks and hooks are for messages of one")
        if torch.compiler.is_compiling():
            raise InputError("torch.compile has no place for masks and hooks on messages: call the model itself")
        return run_rounds(self, self._text, (self, *self._others()), args, kwargs)

    def _outline(self) -> TypedProgram:
        text = self._text
        if text.store.last:
            return text.store.last[-1].kind.typed
        if self._rounds_of is not None:  # torch lists modules often, and checking a text takes milliseconds
            return self._rounds_of
        return text.outline(self, frozenset(i.name for i in self.signature.inputs if i.optional))

    def _way(self, key: Any) -> tuple[Text, Way]:
        return self._text, self._text.way(self, key[1], dict(key[2]))

    def _children(self) -> list[nn.Module]:
        return [module for module in self._text.modules_of(self).values() if module is not None]

    # -- the look inside -----------------------------------------------------------------------

    def _definition(self) -> ast.Layer:
        return self.definition

    @property
    def options(self) -> Options:
        """What was chosen about the passes: see :meth:`choose`."""
        return self._text.options

    @options.setter
    def options(self, options: Options) -> None:
        self._choose(options)

    _options = options

    def _choose(self, options: Options) -> None:
        self._text = self._text.again(options)

    def _ran(self) -> tuple[Ran, ...]:
        """What the last call ran; before any call, what a plain one would, in evaluation mode and float32."""
        text = self._text
        if text.store.last:
            return text.store.last
        missing = [n for n in self.signature.free_dims if n not in self.free_sizes]
        if missing:
            raise InputError(
                f"the size of dim `{missing[0]}` is only known from a call: call the layer once, or give "
                f"{missing[0]}=... when compiling it"
            )
        return self._plain((), "cpp" if self.backend == "auto" else self.backend)

    def _plain(self, inputs: Collection[str], backend: str) -> tuple[Ran, ...]:
        """What a call with these optional inputs would run on a backend, in evaluation mode and float32."""
        text, at = self._text, (torch.float32, torch.device("cpu"))
        way = replace(text.way(self, tuple(inputs), self.free_sizes), training=False)
        if self.signature.graphs:
            kinds: tuple[CallKind, ...] = several.kinds(text, self, way, *at)[1]
        else:
            kinds = (text.store.kind(way, text.typed_for(self, way), text.options, *at),)
        return tuple(Ran(kind, text.options, torch.int32, backend) for kind in kinds)

    @property
    def program(self) -> TypedProgram:
        """The typed program of the last call; before any, of a plain one in evaluation mode."""
        if not self.signature.graphs:
            return super().program
        key: Any = self._ran()[-1].kind.key
        return self._text.typed_for(self, key[0])

    def _on(self, ran: Ran, graph: Any) -> Graph:
        if not self.signature.graphs:
            return super()._on(ran, graph)
        missing = [name for name in self.signature.graphs if not isinstance(graph, Mapping) or name not in graph]
        if missing:
            raise InputError(f"{self._get_name()} runs on several graphs: pass all by name, {{{missing[0]!r}: ...}}")
        key: Any = ran.kind.key
        way, place = key
        piece, _ = self._text.pieces[way].parts[place]
        name = piece.graph or self.signature.graphs[0]
        found = super()._on(ran, graph[name])
        return [found, *(made.graph for made, _ in rewirings(self._text.typed_for(self, way), found, name))][-1]

    def _named_arguments(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        if self.signature.graphs and is_by_type(args, kwargs):
            return dict(named(self.definition, self.signature, args, kwargs).arguments)
        bound = bind(self.signature, args, kwargs)
        graphs = bound.graph if self.signature.graphs else {"graph": bound.graph}
        given = {**bound.values, **graphs, "batch": bound.batch, "num_graphs": bound.num_graphs}
        return {name: value for name, value in given.items() if value is not None}

    def extra_repr(self) -> str:
        return ", ".join(f"{k}={v!r}" for k, v in self.arguments.items())

    def __repr__(self) -> str:
        return short(super().__repr__())

    def __dir__(self) -> list[str]:
        """Without what cannot be told before a call, for tools that look at all that a module has."""
        unknown = not self._text.store.last and any(name not in self.free_sizes for name in self.signature.free_dims)
        hidden = host.hidden_names(type(self)) | ({"kernels", "program"} if unknown else set())
        return [name for name in super().__dir__() if name not in hidden]

    def _get_name(self) -> str:
        return self.definition.name


def _no_size(d: Declaration, unknown: Collection[str]) -> Diagnostic | None:
    """What is missing where the size of a parameter comes only with a call, when there should be one already."""
    dims = d.part.sizes if d.part is not None else d.type.dims if d.type is not None else ()
    names = [word for dim in dims for word in re.findall(r"[A-Za-z_]\w*", dim.name) if word in unknown]
    if not names:
        return None
    message = f"the size of dim `{names[0]}` of {d.role} `{d.name}` is not known before a call"
    hint = f"give it when compiling, as in {names[0]}=16, or make it an argument of the layer"
    return Diagnostic(message, d.span, hint=hint)
