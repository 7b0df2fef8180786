"""What may be written at a place: by the parser's tables, the words of the language, and the names of the layer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from gdsl.editor.analysis import Analysis, Section
from gdsl.editor.hover import type_of
from gdsl.editor.recovery import expected
from gdsl.editor.symbols import CALLED
from gdsl.editor.tokens import Token, open_bracket, with_comments
from gdsl.ir.node import Node
from gdsl.language import ast, meanings
from gdsl.language.functions import DIM_REDUCERS
from gdsl.language.meanings import Meaning
from gdsl.language.parse import parser
from gdsl.language.recover import OWNED, STATEMENTS

# Words of a terminal that is a choice of several.
_CHOICES = {"ROLE", "RULE"}


@dataclass(frozen=True, slots=True)
class Completion:
    """kind: "keyword", "function", "value", "dim", "end" or "transform"; says: a line about it; code: how it is used"""

    word: str
    kind: str
    says: str = ""
    code: str = ""


def completions(analysis: Analysis, offset: int) -> tuple[Completion, ...]:
    """What may be written at a place, names of the layer first. Nothing in a comment, a string or a number, and
    nothing where a new name is to be written."""
    section, start = analysis.at(offset)
    before = [t for t in with_comments(section.text) if t.start < offset - start]
    if before and before[-1].kind in ("COMMENT", "STRING", "NUMBER") and offset - start <= before[-1].end:
        return ()
    line = section.text.rfind("\n", 0, offset - start)
    if any(t.text == '"' and t.start > line for t in before):  # of a string that is not closed yet
        return ()
    # The word that is being written says nothing yet.
    if before and before[-1].end >= offset - start and before[-1].text[0].isidentifier():
        before.pop()
    before = [t for t in before if t.kind != "COMMENT"]
    if before and before[-1].text == "over":  # a name, while none stands behind it
        word = [*before[:-1], replace(before[-1], kind="OVER")]
        before = word if expected(word) == {"NAME"} else before
    made = _Completing(section, offset - start, before)
    return tuple({c.word: c for c in reversed([*made.run()])}.values())[::-1]


class _Completing:
    """At one place of a section."""

    def __init__(self, section: Section, offset: int, before: Sequence[Token]):
        self.section, self.offset, self.before = section, offset, before
        self.expected = expected(before)
        self.last = before[-1].text if before else ""

    def run(self) -> Iterator[Completion]:
        if "NAME" in self.expected:
            yield from self.names()
        yield from self.keywords()

    def names(self) -> Iterator[Completion]:
        """By the word or sign before."""
        tables: Mapping[str, tuple[Mapping[str, tuple[Meaning, ...]], str]] = {
            "graph": (meanings.TRANSFORMS, "transform"),
            "~": (meanings.INITS, "function"),
            ":": (meanings.KINDS, "keyword"),
            "at": (meanings.ENDS, "end"),
        }
        role = next((t.text for t in reversed(self.before) if t.kind == "ROLE"), "")
        of_role = ast.Link if role == "edge" else ast.Sets
        named = {"over": ast.Link, "in": of_role, ":": ast.Sets, "->": ast.Sets}
        if self.last in named and "NUMBER" not in self.expected:
            for name, mention in self.section.names.known(self.offset).items():
                if isinstance(mention.statement, named[self.last]):
                    yield Completion(name, "value", mention.gives or "")
        if self.last in tables:
            yield from _of_table(*tables[self.last])
        elif "NUMBER" in self.expected:
            yield from self.of_expressions()
        elif "SEMICOLON" in self.expected:  # the start of a statement: a name that gets another value
            yield from (c for c in self.known() if c.kind == "value")
        elif self.last == "=":  # of a module
            yield from _of_table(meanings.FUNCTIONS, "function")
        elif self.last == "by":
            yield from self.known()

    def of_expressions(self) -> Iterator[Completion]:
        place, _ = open_bracket(self.before)
        bracket = self.before[place].text if place is not None else ""
        *_, role, owner = [None, None, *self.before[:place]] if place is not None else [None, None]
        if bracket == "[" and owner is not None:
            declares = role is not None and role.kind in ("ROLE", "CONST", "GRAPH", "OWNED")
            if not declares and owner.text not in DIM_REDUCERS:
                yield from _of_table(meanings.ENDS, "end")
            else:
                yield from self.dims()
            yield from self.numbers()
        elif bracket == "(" and any(t.text == ";" for t in self.before[place:]):
            yield from self.dims()
            yield from self.numbers()
        else:
            if bracket == "(" and owner is not None:
                yield from self.parameters(owner.text)
            yield from self.known()
            yield from _of_table(meanings.FUNCTIONS, "function")
            yield from _of_table(meanings.CONSTANTS, "value")
            yield from self.dims()

    def numbers(self) -> Iterator[Completion]:
        """The names that may be sizes and places."""
        yield from (c for c in self.known() if c.kind == "dim")

    def known(self) -> Iterator[Completion]:
        """The names that have a meaning here."""
        for name, mention in self.section.names.known(self.offset).items():
            token = mention.token
            value = self.section.values.get((token.start, token.end))
            if value is None and mention.statement is not None:
                span = mention.statement.span
                value = self.section.values.get((span.start, span.end))
            kind = "dim" if mention.gives in ("argument", "index") else "value"
            kind = "function" if mention.gives in CALLED else kind
            yield Completion(name, kind, type_of(value) or mention.gives or "")

    def dims(self) -> Iterator[Completion]:
        """The dims of the values of the layer, and those of its inputs."""
        found: dict[str, None] = {}
        if self.section.layer is not None:
            for dim in (t for t in ast.walk(self.section.layer) if isinstance(t, ast.Dim)):
                found.update((t.id, None) for t in ast.walk(dim) if isinstance(t, ast.Name))
        for value in self.section.values.values():
            found.update((n, None) for n in (value.type.names if isinstance(value, Node) else ()) if n.isidentifier())
        yield from (Completion(name, "dim", "a dim") for name in found)

    def in_brackets(self) -> bool:
        place, _ = open_bracket(self.before)
        return place is not None and self.before[place].text == "["

    def parameters(self, callee: str) -> Iterator[Completion]:
        """The parameters, which may be given by name, of a function of the layer's own."""
        layer = self.section.layer
        for s in ast.walk(layer) if layer is not None else ():
            if isinstance(s, ast.Function) and s.name == callee:
                yield from (Completion(p, "value", f"a parameter of {callee}") for p in s.parameters)

    def keywords(self) -> Iterator[Completion]:
        """The words of the terminals that may come next."""
        if "SEMICOLON" not in self.expected and (self.last in ("~", ":") or self.in_brackets()):
            return  # what may come is a name or a number here, whatever the grammar says
        patterns = {t.name: t.pattern.value for t in parser().terminals}
        words = [patterns[kind] for kind in self.expected if patterns.get(kind, "").isalpha()]
        if _CHOICES & self.expected:
            words += [*STATEMENTS, *OWNED]
        for word in sorted(set(words)):
            yield Completion(word, "keyword", *_says(meanings.WORDS.get(word, ())))


def _of_table(table: Mapping[str, tuple[Meaning, ...]], kind: str) -> Iterator[Completion]:
    yield from (Completion(word, kind, *_says(found)) for word, found in table.items())


def _says(found: Iterable[Meaning]) -> tuple[str, str]:
    first = next(iter(found), None)
    return (first.says, first.form) if first is not None else ("", "")
