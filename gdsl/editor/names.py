"""Where a name gets its meaning, where it is read, and what it may be called instead."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from gdsl.editor.analysis import Analysis, Section, analyse, mistakes_of
from gdsl.editor.symbols import CALLED, LAYER, MADE, Identifier, Mention, NameTable
from gdsl.editor.tokens import tokens
from gdsl.errors import GdslError
from gdsl.language import meanings

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class RenameError(GdslError, ValueError):
    """A name that cannot be given, and why."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a text, ``[start, end)``."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the outline of a text: a layer with its statements, or a statement.

    kind:  "layer", or what the statement gives: "param", "message", ...
    whole: all of it; name: its name
    """

    name: str
    kind: str
    whole: Piece
    name_at: Piece
    inside: tuple[Entry, ...] = ()


def _mention(analysis: Analysis, offset: int) -> tuple[Section, int, Mention | None]:
    section, start = analysis.at(offset)
    return section, start, section.names.at(offset - start)


def definition(analysis: Analysis, offset: int) -> Piece | None:
    """Where the name at a place gets its meaning; None for a name that the language gives, and where there is none."""
    section, start, mention = _mention(analysis, offset)
    source = section.names.source(mention) if mention is not None else None
    return _piece(source, start) if source is not None else _layer_at(analysis, section, offset - start)


def _layer_at(analysis: Analysis, section: Section, offset: int) -> Piece | None:
    """The name of the layer of this text that is called at a place of a section."""
    word = next((t.text for t in section.tokens if t.kind == "NAME" and t.start <= offset <= t.end), None)
    for other, start in zip(analysis.sections, analysis.starts, strict=True):
        if word is not None and other.layer is not None and other.layer.name == word:
            return next((_piece(m, start) for m in other.names.mentions if m.gives == "layer"), None)
    return None


def references(analysis: Analysis, offset: int) -> tuple[Piece, ...]:
    """All places of the name at a place."""
    section, start, mention = _mention(analysis, offset)
    return tuple(_piece(m, start) for m in section.names.of(mention.symbol)) if mention is not None else ()


def _piece(m: Mention, start: int) -> Piece:
    return Piece(m.token.start + start, m.token.end + start)


# --------------------------------------------------------------------------------------- renaming


def renamable(analysis: Analysis, offset: int) -> Piece:
    """The name at a place. Raises :class:`RenameError` where there is none that a text gives."""
    section, start, mention = _mention(analysis, offset)
    if mention is None:
        raise RenameError("there is no name here")
    given = section.names.given(mention.symbol)
    if any(m.gives == MADE for m in given):
        raise RenameError(f"`{mention.symbol.name}` is what a `graph` statement makes")
    if not given and not _is_dim(mention.symbol):
        raise RenameError(f"`{mention.token.text}` is a name of the language")
    return _piece(mention, start)


def _is_dim(symbol: Identifier) -> bool:
    """A name that nothing gives is that of a dim, or of the language."""
    tables = (meanings.FUNCTIONS, meanings.ENDS, meanings.CONSTANTS, meanings.NORMS)
    return not symbol.name.isdigit() and not any(symbol.name in table for table in tables)


def rename(analysis: Analysis, offset: int, new: str) -> tuple[Piece, ...]:
    """The places to write another name at. Their primes stay. Raises :class:`RenameError` where the new name is taken,
    or would make a mistake of what is none."""
    renamable(analysis, offset)
    section, start, mention = _mention(analysis, offset)
    assert mention is not None
    if not _NAME.fullmatch(new):
        raise RenameError(f"`{new}` is no name: letters, digits and _, and no digit first")
    if [t.kind for t in tokens(new)] != ["NAME"]:
        raise RenameError(f"`{new}` is a reserved word and cannot be a name")
    called = any(m.gives in CALLED for m in section.names.given(mention.symbol))
    if new in meanings.ENDS or new in meanings.CONSTANTS or (called and new in meanings.FUNCTIONS):
        raise RenameError(f"`{new}` has a meaning in the language")
    if new == mention.symbol.name:
        return ()
    found = section.names.of(mention.symbol)
    taken = _taken(mention.symbol, section.names, new)
    if taken is not None:
        line = analysis.text.count("\n", 0, taken.token.start + start) + 1
        raise RenameError(f"`{new}` is taken already, in line {line}")
    pieces = tuple(Piece(m.token.start + start, m.token.start + start + len(m.symbol.name)) for m in found)
    _refuse_mistakes(analysis, pieces, new)
    return pieces


def _taken(symbol: Identifier, names: NameTable, new: str) -> Mention | None:
    """Where the new name is another one's in the same scope, or one of a layer and one of a `def` would meet in it."""
    for m in names.mentions:
        if m.symbol.name != new:
            continue
        if m.symbol.scope == symbol.scope:
            return m
        scope = m.symbol if symbol.scope == LAYER else symbol
        owner = next(f.statement for f in names.given(scope) if f.statement is not None)
        inside = names.of(symbol) if symbol.scope == LAYER else (m,)
        if any(owner.span.start <= f.token.start < owner.span.end for f in inside):
            return m
    return None


def renamed(text: str, pieces: Sequence[Piece], new: str) -> str:
    """The text with another name in these places."""
    parts, end = [], 0
    for piece in sorted(pieces, key=lambda p: p.start):
        parts += [text[end : piece.start], new]
        end = piece.end
    return "".join([*parts, text[end:]])


def _refuse_mistakes(analysis: Analysis, pieces: Sequence[Piece], new: str) -> None:
    """The checker has the last word: on words of Python and of torch modules, say, which an argument cannot have."""
    text = renamed(analysis.text, pieces, new)
    for look in (mistakes_of, lambda text: analyse(text).diagnostics):
        before, after = ([d for d in look(t) if d.severity == "error"] for t in (analysis.text, text))
        if len(after) > len(before):
            messages = {d.message for d in before}
            raise RenameError(next((d.message for d in after if d.message not in messages), after[0].message))


# ---------------------------------------------------------------------------------------- outline


def outline(analysis: Analysis) -> tuple[Entry, ...]:
    """The layers of a text, and in each what its statements give names to."""
    found = []
    for section, start in zip(analysis.sections, analysis.starts, strict=True):
        layer = section.layer
        if layer is None:
            continue
        entries = []
        head = None
        for m in section.names.mentions:
            if m.gives == "layer":
                head = m
            elif m.gives not in (None, "parameter", "index") and m.statement is not None:
                span = m.statement.span
                whole = Piece(span.start + start, span.end + start)
                entries.append(Entry(m.token.text, m.gives or "", whole, _piece(m, start)))
        if head is not None:
            whole = Piece(layer.span.start + start, layer.span.end + start)
            found.append(Entry(layer.name, "layer", whole, _piece(head, start), tuple(entries)))
    return tuple(found)
