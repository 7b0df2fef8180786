"""What is known of a text: its mistakes, the types of its expressions, and its names.

A layer of a text is looked at by itself, and what is known of one is kept: an edit costs what its layer costs.
"""

from __future__ import annotations

import bisect
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from gdsl.editor.recovery import trees_of
from gdsl.editor.symbols import NameTable, names_of
from gdsl.editor.tokens import Token, tokens
from gdsl.ir.node import Node
from gdsl.ir.types import Domain
from gdsl.language import ast
from gdsl.language.errors import Diagnostic, LanguageError
from gdsl.language.imports import Files, linked
from gdsl.language.lint import lint
from gdsl.language.parse import MAX_TEXT, syntax
from gdsl.language.placeholders import check_any
from gdsl.language.recover import span_at
from gdsl.language.values import Absent, Poison, Value


@dataclass(frozen=True, slots=True)
class Section:
    """One layer of a text, with what stands after it; or what stands before the first. All places count from its
    start.

    layer:       None where there is none, or hardly anything of it parses
    diagnostics: its mistakes; without such, its warnings too
    values:      what expressions, and names where they get their meaning, stand for, by start and end
    """

    text: str
    tokens: tuple[Token, ...]
    layer: ast.Layer | None
    diagnostics: tuple[Diagnostic, ...]
    values: Mapping[tuple[int, int], Value]
    names: NameTable


@dataclass(frozen=True, slots=True)
class Analysis:
    """A text, and its sections with where each starts."""

    text: str
    starts: tuple[int, ...]
    sections: tuple[Section, ...]
    diagnostics: tuple[Diagnostic, ...]

    def at(self, offset: int) -> tuple[Section, int]:
        """The section that a place is in, and where it starts."""
        k = max(bisect.bisect_right(self.starts, offset) - 1, 0)
        return self.sections[k], self.starts[k]


def analyse(text: str, files: Files | None = None) -> Analysis:
    """All that is known of a text. A text beyond the length that a program may have is not looked at.

    files: where the texts of files are from that it uses, which may change between two looks
    """
    return _analysed(text, None) if files is None or "from" not in text else _analysed.__wrapped__(text, files)


@functools.lru_cache(maxsize=8)
def _analysed(text: str, files: Files | None) -> Analysis:
    if len(text) > MAX_TEXT:
        return Analysis(text, (0,), (_empty(text),), mistakes_of(text))
    heads = [t.start for t in tokens(text) if t.kind == "LAYER"]
    starts = (0, *(start for start in heads if start > 0))
    ends = (*starts[1:], len(text))
    pieces = [text[start:end] for start, end in zip(starts, ends, strict=True)]
    linked, mistakes = _linked(text, pieces, files)
    sections = tuple(_section(piece, bool(heads), *used) for piece, used in zip(pieces, linked, strict=True))
    found = [_moved(d, text, start) for s, start in zip(sections, starts, strict=True) for d in s.diagnostics]
    return Analysis(text, starts, sections, (*found, *mistakes, *_twice(text, sections, starts)))


# The layers that a layer calls, by their names, and the texts that they mean something by.
Used = tuple[tuple[tuple[str, ast.Layer], ...], tuple[str, ...]]
_NOTHING: Used = ((), ())


def _linked(text: str, pieces: Sequence[str], files: Files | None) -> tuple[list[Used], list[Diagnostic]]:
    """What the layers of the sections of a text call, and what is wrong with what the text uses."""
    trees = [_trees(piece) for piece in pieces]
    layers = [next((t for t in found if isinstance(t, ast.Layer)), None) for found in trees]
    uses = [t for found in trees for t in found if isinstance(t, ast.Use)]
    named = {layer.name: replace(layer, source=p) for layer, p in zip(layers, pieces, strict=True) if layer is not None}
    program = ast.Program(tuple(named.values()), text, tuple(uses))
    found, mistakes = linked(program, files, syntax)
    if mistakes:  # those of a text that parses are in their places
        try:
            mistakes = linked(syntax(text), files, syntax)[1]
        except LanguageError:
            mistakes = []
    by_name = {layer.name: layer for layer in found.layers}
    used: list[Used] = []
    for layer in layers:
        known = by_name[layer.name] if layer is not None else None
        used.append(_NOTHING if known is None or not known.uses else (known.uses, ast.sources(known)[1:]))
    return used, mistakes


@functools.lru_cache(maxsize=256)
def _trees(text: str) -> tuple[ast.Layer | ast.Use, ...]:
    """The layers of a section, and what it uses, as far as they parse."""
    return trees_of(text)


def _moved(d: Diagnostic, text: str, by: int) -> Diagnostic:
    """A diagnostic of a section as one of the text."""
    return replace(d, span=span_at(text, d.span.start + by, d.span.end - d.span.start))


def _twice(text: str, sections: Sequence[Section], starts: Sequence[int]) -> list[Diagnostic]:
    seen: set[str] = set()
    found = []
    for section, start in zip(sections, starts, strict=True):
        if section.layer is not None and section.layer.name in seen:
            mistake = Diagnostic(f"there are two layers named `{section.layer.name}`", section.layer.span)
            found.append(_moved(mistake, text, start))
        seen.update([section.layer.name] if section.layer is not None else [])
    return found


def _empty(text: str) -> Section:
    return Section(text, (), None, (), {}, NameTable())


@functools.lru_cache(maxsize=256)
def _section(
    text: str, one_of_more: bool, uses: tuple[tuple[str, ast.Layer], ...], texts: tuple[str, ...]
) -> Section:
    """A section of a text.

    one_of_more: whether the text has a layer, so that a section without one is right if there is nothing in it, or
                 only what the text uses
    uses:        the layers that its layer calls; texts: what they mean something by
    """
    found = tuple(tokens(text))
    if one_of_more and all(t.kind == "SEMICOLON" for t in found):
        return _empty(text)
    begun = any(t.kind == "LAYER" for t in found)
    mistakes = mistakes_of(text if begun or not one_of_more else f"{text}\nlayer _ {{}}")
    layers = [tree for tree in _trees(text) if isinstance(tree, ast.Layer)]
    values: dict[tuple[int, int], Value] = {}
    for layer in layers[:1]:
        layer = replace(layer, source=text, uses=uses)
        wrong, warned = _checked(layer, values), lint(layer)
        mistakes = mistakes or (*wrong, *warned)
        layers[0] = layer
    return Section(text, found, layers[0] if layers else None, mistakes, values, names_of(layers[:1], found))


def mistakes_of(text: str) -> tuple[Diagnostic, ...]:
    """Why a text does not parse."""
    try:
        syntax(text)
    except LanguageError as error:
        return error.diagnostics
    return ()


def _checked(layer: ast.Layer, values: dict[tuple[int, int], Value]) -> tuple[Diagnostic, ...]:
    """The mistakes of a layer, and what its expressions stand for in the way that says most."""

    def watch(span: ast.Span, value: Value) -> None:
        place = span.start, span.end
        if place not in values or _says(values[place]) < _says(value):
            values[place] = value

    try:
        check_any(layer, watch=watch)
    except LanguageError as error:
        return error.diagnostics
    return ()


def _says(value: Value) -> int:
    """How much a value says: an input that is passed says more than its default."""
    if isinstance(value, Node):
        return 3 if value.domain is not Domain.GLOBAL else 2
    return 0 if isinstance(value, Absent | Poison) else 1
