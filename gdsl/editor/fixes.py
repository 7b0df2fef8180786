"""What a hint says to write instead, as an edit; and the forms of the function that a call is of."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gdsl.editor.analysis import Analysis
from gdsl.editor.tokens import open_bracket
from gdsl.language import ast, meanings
from gdsl.language.errors import Diagnostic

# `did you mean x[j]?`, with what is meant in backquotes or not.
_MEANT = re.compile(r"did you mean `?([^`?]+)`?\?")
_NAME = re.compile(r"[A-Za-z_]\w*'*")
# A name alone, or that of an argument: `slop = 0.2`.
_MISSPELT = re.compile(rf"({_NAME.pattern})(\s*=[^=].*)?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Fix:
    """What a mistake is mended by: another text for a piece of the program, ``[start, end)``."""

    mistake: Diagnostic
    start: int
    end: int
    text: str


def fixes(analysis: Analysis, start: int, end: int) -> tuple[Fix, ...]:
    """The fixes for the mistakes that are, in part or whole, in a piece of the text."""
    found = []
    for d in analysis.diagnostics:
        meant = _MEANT.fullmatch(d.hint or "")
        words = analysis.text[d.span.start : d.span.end]
        if meant is None or d.span.start > end or d.span.end < start:
            continue
        # A hint such as x[j] is for the name x, which may be a part of what is marked.
        new = meant.group(1)
        name = _NAME.match(new)
        misspelt = _MISSPELT.fullmatch(words)
        if misspelt is not None:
            found.append(Fix(d, d.span.start, d.span.start + misspelt.end(1), new))
        elif name is not None and new != name.group():
            places = [m.start() for m in re.finditer(rf"\b{re.escape(name.group())}\b(?!\[)", words)]
            if len(places) == 1:
                at = d.span.start + places[0]
                found.append(Fix(d, at, at + len(name.group()), new))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Form:
    """One way of calling a function: ``form`` as it is written, ``says`` what it means, and its arguments' words."""

    form: str
    says: str
    arguments: tuple[str, ...]


def forms(analysis: Analysis, offset: int) -> tuple[tuple[Form, ...], int]:
    """The forms of the function in whose parentheses a place is, and the argument that is written there, from 0."""
    section, start = analysis.at(offset)
    before = [t for t in section.tokens if t.end <= offset - start]
    place, argument = open_bracket(before)
    callee = before[place - 1] if place and before[place].text == "(" else None
    if callee is None or callee.kind != "NAME":
        return (), argument
    return _forms_of(callee.text, section.layer), argument


def _forms_of(name: str, layer: ast.Layer | None) -> tuple[Form, ...]:
    for s in ast.walk(layer) if layer is not None else ():
        if isinstance(s, ast.Function | ast.Reducer) and s.name == name:
            parameters = s.parameters if isinstance(s, ast.Function) else s.parameters[1:]
            return (Form(f"{name}({', '.join(parameters)})", "", parameters),)
        if getattr(s, "name", None) == name and isinstance(s, ast.Module | ast.Owned):
            return ()
    found = (m for m in meanings.FUNCTIONS.get(name, ()) if m.form.startswith(f"{name}("))
    return tuple(Form(m.form, m.says, _arguments(m.form)) for m in found)


def _arguments(form: str) -> tuple[str, ...]:
    inside = form[form.index("(") + 1 : form.rindex(")")].partition(";")[0]
    return tuple(part.strip() for part in inside.split(","))
