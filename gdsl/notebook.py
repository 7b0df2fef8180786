"""Layers in a notebook: ``%load_ext gdsl.notebook``, then a cell that begins with ``%%gdsl``.

    %%gdsl                              defines a class for each layer of the text, under its name there
    %%gdsl conv d=16 k=32               makes a layer of the text, under the name ``conv``
    %%gdsl conv --layer A nn=my_mlp     of the layer A; a torch module is given by the name of its variable

The text is checked, and mistakes are shown with a caret. It is never run as Python, and neither are the values.
"""

from __future__ import annotations

import keyword
import shlex
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

from gdsl.editor.analysis import analyse
from gdsl.editor.complete import completions
from gdsl.errors import GdslError, InputError
from gdsl.language import ast
from gdsl.language.errors import LanguageWarning
from gdsl.language.format import header
from gdsl.language.lint import lint
from gdsl.language.parse import parse
from gdsl.language.placeholders import check_any
from gdsl.language.signature import signature_of
from gdsl.look.short import short
from gdsl.look.show import constant_of
from gdsl.module import api
from gdsl.module.api import define, find_layer
from gdsl.module.layer import Layer

_COMPLETER = "gdsl.notebook"


def load_ipython_extension(shell: Any) -> None:
    """``%load_ext gdsl.notebook``"""
    unload_ipython_extension(shell)
    shell.register_magic_function(_magic(shell), "cell", "gdsl")
    shell.Completer.custom_matchers.append(_completer())


def unload_ipython_extension(shell: Any) -> None:
    """``%unload_ext gdsl.notebook``"""
    shell.magics_manager.magics["cell"].pop("gdsl", None)
    ours = [m for m in shell.Completer.custom_matchers if getattr(m, "matcher_identifier", None) == _COMPLETER]
    for matcher in ours:
        shell.Completer.custom_matchers.remove(matcher)


@dataclass(frozen=True)
class Defined:
    """The layers that a cell has defined, as they are called."""

    headers: tuple[str, ...]

    def __repr__(self) -> str:
        return short("\n".join(f"defined {header}" for header in self.headers))

    def _repr_html_(self) -> str:
        return "".join(
            f"<div>defined <code>{escape(line.removeprefix('defined '))}</code></div>"
            for line in repr(self).splitlines()
        )


def _magic(shell: Any) -> Any:
    def gdsl(line: str, cell: str) -> Defined | Layer:
        """Define the layers of a text, or make one: see gdsl.notebook."""
        try:
            # The cell's first line is the magic's: so lines are numbered as the notebook numbers them.
            return run(line, "\n" + cell, shell.user_ns)
        except GdslError as error:
            # A traceback would end in gdsl's own code, and the mistake is in the cell.
            lines = str(error).splitlines()
            error._render_traceback_ = lambda: lines  # type: ignore[attr-defined]
            raise

    return gdsl


def _completer() -> Any:
    """What Tab offers in a text, as in an editor."""
    from IPython.core.completer import SimpleCompletion, context_matcher

    @context_matcher(identifier=_COMPLETER)
    def matcher(context: Any) -> dict[str, Any]:
        head, _, text = context.full_text.partition("\n")
        if not head.startswith("%%gdsl") or context.cursor_line == 0:
            return {"completions": []}
        lines = text.splitlines(keepends=True)
        offset = sum(map(len, lines[: context.cursor_line - 1])) + context.cursor_position
        word = context.token if context.token.isidentifier() else ""
        found = [c for c in completions(analyse(text), offset) if c.word.startswith(word)]
        offered = [SimpleCompletion(text=c.word, type=c.kind) for c in found]
        return {"completions": offered, "suppress": True, "matched_fragment": word, "ordered": True}

    return matcher


def run(line: str, text: str, names: dict[str, Any]) -> Defined | Layer:
    """What a cell does: put the classes of a text's layers, or one layer, into a namespace.

    line:  what stands behind ``%%gdsl``
    names: the namespace, where torch modules are looked up, too

    Raises :class:`gdsl.LanguageError` for mistakes in the text, and :class:`gdsl.InputError` for those in the line.
    """
    target, wanted, given = _options(line)
    definitions = parse(text).layers
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LanguageWarning)
        if target is None:
            if given or wanted:
                raise InputError("arguments make a layer, which needs a name: %%gdsl conv " + line.strip())
            for d in definitions:
                _check_name(d.name)
                check_any(d)  # a class is made without sizes, and shows mistakes in types when it is called
            names.update({d.name: define(text, layer=d.name) for d in definitions})
            value: Defined | Layer = Defined(tuple(header(d) for d in definitions))
        else:
            _check_name(target)
            definition = find_layer(text, wanted)
            value = names[target] = api.compile(text, layer=definition.name, **_values(definition, given, names))
            definitions = (definition,)
    for definition in definitions:
        for warning in lint(definition):
            print(warning.render(text, definition.name), file=sys.stderr)
    return value


def _options(line: str) -> tuple[str | None, str | None, dict[str, str]]:
    """The name to give, the layer that is meant, and what its arguments are."""
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise InputError(f"%%gdsl {line.strip()}: {error}".lower()) from error
    target: str | None = None
    wanted: str | None = None
    given: dict[str, str] = {}
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if word == "--layer" and words:
            wanted = words.pop(0)
        elif equals and name.isidentifier() and name not in given:
            given[name] = value
        elif not equals and target is None and word.isidentifier():
            target = word
        else:
            raise InputError(
                f"`{word}` is not understood: write %%gdsl, or %%gdsl name --layer Layer argument=value ..."
            )
    return target, wanted, given


def _values(definition: ast.Layer, given: Mapping[str, str], names: Mapping[str, Any]) -> dict[str, Any]:
    """Constants as the command line has them; a torch module by the name of a variable."""
    modules = {name for name, _ in signature_of(definition).modules}
    values: dict[str, Any] = {}
    for name, value in given.items():
        is_variable = name in modules and value in names
        values[name] = names[value] if is_variable else value if name == "backend" else constant_of(value)
    return values


def _check_name(name: str) -> None:
    if keyword.iskeyword(name):
        raise InputError(f"`{name}` is a word of Python and cannot be the name of a variable")
