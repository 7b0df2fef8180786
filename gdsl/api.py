"""What a user calls: text in, torch module out."""

from __future__ import annotations

from typing import Any

from gdsl.errors import InputError
from gdsl.language import ast
from gdsl.language.format import header
from gdsl.language.parse import parse
from gdsl.language.signature import signature_of
from gdsl.layer import Layer, constructor_signature


def compile(source: str, *args: Any, layer: str | None = None, backend: str = "auto", **kwargs: Any) -> Layer:
    """A layer of the program as a ``torch.nn.Module``.

    source:  the text; with several layers in it, ``layer`` names the one
    args:    the layer's arguments and modules, by place or by name, as in ``in_channels=16``
    backend: "auto", "cpp" or "torch"

    Raises :class:`gdsl.LanguageError` with every mistake in the text, each with its line and a caret.
    """
    return Layer(find_layer(source, layer), *args, backend=backend, **kwargs)


def define(source: str, *, layer: str | None = None) -> type[Layer]:
    """A class for a layer of the program: its constructor's signature and its docstring come from the text."""
    definition = find_layer(source, layer)
    signature = signature_of(definition)

    def __init__(self: Layer, *args: Any, backend: str = "auto", **kwargs: Any) -> None:
        Layer.__init__(self, definition, *args, backend=backend, **kwargs)

    doc = f"{definition.doc}\n\n{header(definition)}".strip()
    namespace = {
        "__init__": __init__,
        "__doc__": doc,
        "__signature__": constructor_signature(signature),
        "__reduce__": lambda self: (_rebuild, (definition.source, definition.name, self.__getstate__())),
    }
    return type(definition.name, (Layer,), namespace)


def _rebuild(source: str, name: str, state: dict[str, Any]) -> Layer:
    """Unpickle an instance of a defined class: the class is made from its text again."""
    cls = define(source, layer=name)
    layer = cls.__new__(cls)
    layer.__setstate__(state)
    return layer


def find_layer(source: str, name: str | None = None) -> ast.Layer:
    """The only layer of a text, or the one of a name."""
    if not isinstance(source, str):
        raise InputError(f"a program is text, a str, not {type(source).__name__}")
    layers = {definition.name: definition for definition in parse(source).layers}
    if name is None:
        if len(layers) > 1:
            raise InputError(f"the text has {len(layers)} layers, {', '.join(layers)}: say which with layer=...")
        return next(iter(layers.values()))
    if name not in layers:
        raise InputError(f"the text has no layer `{name}`; it has {', '.join(layers)}")
    return layers[name]
