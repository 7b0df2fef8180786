"""What a user calls: text in, torch module out."""

from __future__ import annotations

import copyreg
import functools
import inspect
from typing import Any

from gdsl.errors import InputError
from gdsl.language import ast
from gdsl.language.errors import warn
from gdsl.language.format import header
from gdsl.language.lint import lint
from gdsl.language.parse import parse
from gdsl.language.signature import signature_of
from gdsl.module.arguments import constructor_signature
from gdsl.module.layer import Layer


def compile(source: str, *args: Any, layer: str | None = None, backend: str = "auto", **kwargs: Any) -> Layer:
    """A layer of the program as a ``torch.nn.Module``.

    source:  the text; with several layers in it, ``layer`` names the one
    args:    the layer's arguments and modules, by place or by name, as in ``in_channels=16``
    backend: "auto", "cpp" or "torch"

    Raises :class:`gdsl.LanguageError` with every mistake in the text, each with its line and a caret. What the text
    says to no effect is a :class:`gdsl.LanguageWarning`.
    """
    definition = find_layer(source, layer)
    made = Layer(definition, *args, backend=backend, **kwargs)
    warn(lint(definition), definition.source, definition.name, stacklevel=2)
    return made


def define(source: str, *, layer: str | None = None) -> type[Layer]:
    """A class for a layer of the program: its constructor's signature and its docstring come from the text.

    The same text gives the same class, so that copies and what was pickled are instances of it. What the text says to
    no effect is a :class:`gdsl.LanguageWarning`.
    """
    definition = find_layer(source, layer)
    warn(lint(definition), definition.source, definition.name, stacklevel=2)
    return _class_of(source, definition.name)


@functools.cache
def _class_of(source: str, name: str) -> type[Layer]:
    definition = find_layer(source, name)
    signature = signature_of(definition)

    def __init__(self: Layer, *args: Any, backend: str = "auto", **kwargs: Any) -> None:
        Layer.__init__(self, definition, *args, backend=backend, **kwargs)

    # On the function, not on the class: a subclass with an __init__ of its own has its own signature.
    shown = constructor_signature(signature)
    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    __init__.__signature__ = shown.replace(parameters=[itself, *shown.parameters.values()])  # type: ignore[attr-defined]

    def __reduce__(self: Layer) -> tuple[Any, ...]:
        # The class is in no module that pickle could import; a subclass of it may be.
        if type(self) is cls:
            return _new, (source, name), self.__getstate__()
        return copyreg.__newobj__, (type(self),), self.__getstate__()  # type: ignore[attr-defined]

    doc = f"{definition.doc}\n\n{header(definition)}".strip()
    namespace = {
        "__init__": __init__,
        "__doc__": doc,
        "__reduce__": __reduce__,
    }
    cls: type[Layer] = type(definition.name, (Layer,), namespace)
    return cls


def _new(source: str, name: str) -> Layer:
    """An instance of a defined class without its state, for pickle: the class is made from its text."""
    cls = _class_of(source, name)
    return cls.__new__(cls)


def find_layer(source: str, name: str | None = None) -> ast.Layer:
    """The only layer of a text, or the one of a name."""
    if not isinstance(source, str):
        raise InputError(f"a program is text, a str, not {type(source).__name__}")
    if source.endswith(".gdsl") and "{" not in source:
        raise InputError(f"a program is text, not the name of a file: pass pathlib.Path({source!r}).read_text()")
    layers = {definition.name: definition for definition in parse(source).layers}
    if name is None:
        if len(layers) > 1:
            raise InputError(f"the text has {len(layers)} layers, {', '.join(layers)}: say which with layer=...")
        return next(iter(layers.values()))
    if name not in layers:
        raise InputError(f"the text has no layer `{name}`; it has {', '.join(layers)}")
    return layers[name]
