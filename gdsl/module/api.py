"""What a user calls: text in, torch module out."""

from __future__ import annotations

import copyreg
import functools
import inspect
import types
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gdsl.errors import InputError
from gdsl.language import ast, imports
from gdsl.language.errors import warn
from gdsl.language.format import header
from gdsl.language.lint import lint
from gdsl.language.parse import parse
from gdsl.language.signature import signature_of
from gdsl.module.arguments import call_signature, constructor_signature
from gdsl.module.layer import Layer
from gdsl.module.rounds import PassesMessages


def compile(
    source: str | Path,
    *args: Any,
    layer: str | None = None,
    folder: str | Path | None = None,
    backend: str = "auto",
    **kwargs: Any,
) -> Layer:
    """A layer of the program as a ``torch.nn.Module``.

    source:  the text, or a ``pathlib.Path`` of a file with it; with several layers in it, ``layer`` names the one
    folder:  where the files are that the text uses, as in ``use Block from "block.gdsl"``: that of the file, or none
    args:    the layer's arguments and modules, by place or by name, as in ``in_channels=16``
    backend: "auto", "cpp" or "torch"

    Raises :class:`gdsl.LanguageError` with every mistake in the text, each with its line and a caret. What the text
    says to no effect is a :class:`gdsl.LanguageWarning`.
    """
    definition, texts = _found(source, layer, folder)
    made = _class_of(definition, texts)(*args, backend=backend, **kwargs)
    warn(lint(definition), definition.source, definition.name, stacklevel=2)
    return made


def define(source: str | Path, *, layer: str | None = None, folder: str | Path | None = None) -> type[Layer]:
    """A class for a layer of the program: its constructor's signature and its docstring come from the text, which
    :func:`compile` takes in the same ways.

    The same text gives the same class, so that copies and what was pickled are instances of it. What the text says to
    no effect is a :class:`gdsl.LanguageWarning`.
    """
    definition, texts = _found(source, layer, folder)
    warn(lint(definition), definition.source, definition.name, stacklevel=2)
    return _class_of(definition, texts)


# The texts of the files that a text uses, by their paths.
Texts = tuple[tuple[str, str], ...]

# The classes that are in use, by their texts and names.
_CLASSES: weakref.WeakValueDictionary[tuple[str, str, Texts], type[Layer]] = weakref.WeakValueDictionary()


def _found(source: str | Path, name: str | None, folder: str | Path | None) -> tuple[ast.Layer, Texts]:
    """A layer of a text or a file, and what was read of other files."""
    if isinstance(source, Path):
        folder = source.parent if folder is None else folder
        source = read_file(source)
    files = None if folder is None else imports.ReadFiles(imports.Folder(Path(folder)))
    definition = find_layer(source, name, files)
    return definition, () if files is None else tuple(sorted(files.texts.items()))


def read_file(path: Path) -> str:
    """The text of a file. Raises :class:`gdsl.InputError` where there is none."""
    try:
        return imports.text_of(path)
    except imports.NoFile as problem:
        raise InputError(f"{path}: {problem.message}") from None


def _class_of(definition: ast.Layer, texts: Texts) -> type[Layer]:
    """The class of a layer of a text."""
    key = definition.source, definition.name, texts
    found = _CLASSES.get(key)
    return _CLASSES.setdefault(key, _made(definition, texts)) if found is None else found


def _made(definition: ast.Layer, texts: Texts) -> type[Layer]:
    signature, name = signature_of(definition), definition.name

    def __init__(self: Layer, *args: Any, backend: str = "auto", **kwargs: Any) -> None:
        Layer.__init__(self, definition, *args, backend=backend, **kwargs)

    # On the function, not on the class: a subclass with an __init__ of its own has its own signature.
    shown = constructor_signature(signature)
    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    __init__.__signature__ = shown.replace(parameters=[itself, *shown.parameters.values()])  # type: ignore[attr-defined]

    def __reduce__(self: Layer) -> tuple[Any, ...]:
        # The class is in no module that pickle could import; a subclass of it may be.
        if type(self) is cls:
            return _new, (definition.source, name, texts), self.__getstate__()
        return copyreg.__newobj__, (type(self),), self.__getstate__()  # type: ignore[attr-defined]

    doc = f"{definition.doc}\n\n{header(definition)}".strip()
    namespace = {"__init__": __init__, "__doc__": doc, "__reduce__": __reduce__}
    if not any(isinstance(s, ast.Branch) and _declares(s) for s in ast.walk(definition)):
        namespace["forward"] = _forward(call_signature(signature))
    # A text without edges is no layer of torch_geometric's.
    bases = (Layer, PassesMessages) if _reads_edges(definition) else (Layer,)
    cls: type[Layer] = type(definition.name, bases, namespace)
    return cls


def _reads_edges(definition: ast.Layer) -> bool:
    """Whether a text has messages or reads values at ends of edges, or a layer that it calls does."""
    trees = [t for one in ast.reached(definition) for t in ast.walk(one)]
    ends = [end for t in trees if isinstance(t, ast.Subscript) for end in t.indices]
    said = any(isinstance(t, ast.Rule) and t.kind == "message" for t in trees)
    return said or any(isinstance(end, ast.Name) and end.id in ("i", "j") for end in ends)


def _declares(branch: ast.Branch) -> bool:
    """Whether the arguments of a layer say which inputs a call has."""
    inside = (s for part in (*branch.then, *branch.otherwise) for s in ast.walk(part))
    return any(isinstance(s, ast.Declaration) and s.role not in ("param", "buffer") for s in inside)


def _forward(signature: inspect.Signature) -> Callable[..., Any]:
    """``Layer.forward`` with what a user sees of its arguments."""
    whole = Layer.forward
    made = types.FunctionType(whole.__code__, whole.__globals__, whole.__name__, whole.__defaults__, whole.__closure__)
    functools.update_wrapper(made, whole)
    del made.__wrapped__  # type: ignore[attr-defined]
    made.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD), *signature.parameters.values()],
        return_annotation=inspect.signature(whole).return_annotation,
    )
    return made


def _new(source: str, name: str, texts: Texts = ()) -> Layer:
    """An instance of a defined class without its state, for pickle: the class is made from its text, and from what was
    read of other files when the first one was made."""
    cls = _class_of(find_layer(source, name, imports.KeptFiles(dict(texts)) if texts else None), texts)
    return cls.__new__(cls)


def find_layer(source: str, name: str | None = None, files: imports.Files | None = None) -> ast.Layer:
    """The only layer of a text, or the one of a name. files: where the files are that it uses"""
    if not isinstance(source, str):
        raise InputError(f"a program is text, a str, not {type(source).__name__}")
    if source.endswith(".gdsl") and "{" not in source:
        raise InputError(f"a program is text, not the name of a file: pass pathlib.Path({source!r})")
    layers = {definition.name: definition for definition in parse(source, files=files).layers}
    if name is None:
        if len(layers) > 1:
            raise InputError(f"the text has {len(layers)} layers, {', '.join(layers)}: say which with layer=...")
        return next(iter(layers.values()))
    if name not in layers:
        raise InputError(f"the text has no layer `{name}`; it has {', '.join(layers)}")
    return layers[name]
