"""What there is to say of a place in a text: the type of a value, the meaning of a word."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gdsl.editor.analysis import Analysis, Section
from gdsl.editor.symbols import MADE, Identifier, Mention
from gdsl.editor.tokens import Token
from gdsl.ir.node import Node
from gdsl.ir.spaces import Spaces
from gdsl.language import ast, format, meanings
from gdsl.language.meanings import Meaning
from gdsl.language.named_graphs import spaces_of
from gdsl.language.values import Absent, ModuleValue, UserFunction, UserReducer, Value, is_constant

# A definition that is longer is shown by its first line.
_MOST_LINES = 12


@dataclass(frozen=True, slots=True)
class Hover:
    """code:  a line or more of the language; says: lines in words; start, end: the piece of the text that it is of"""

    code: str
    says: tuple[str, ...]
    start: int
    end: int

    def markdown(self) -> str:
        return "\n\n".join([f"```gdsl\n{self.code}\n```", *self.says])


def hover(analysis: Analysis, offset: int) -> Hover | None:
    """What to say of a place, or None where there is nothing."""
    section, start = analysis.at(offset)
    at = offset - start
    # At the end of a name that a bracket follows, the name is meant.
    near = [k for k, t in enumerate(section.tokens) if t.start <= at <= t.end]
    if not near:
        return None
    k = min(near, key=lambda k: (not section.tokens[k].text[0].isalnum(), -k))
    token = section.tokens[k]
    said = _said(section, k)
    return Hover(*said, token.start + start, token.end + start) if said is not None else None


def _said(section: Section, k: int) -> tuple[str, tuple[str, ...]] | None:
    token = section.tokens[k]
    before = section.tokens[k - 1] if k else None
    mention = section.names.at(token.start)
    if mention is not None and mention.token.start == token.start:
        source = section.names.source(mention)
        if source is not None and mention.gives != MADE:
            return _name(section, mention, source)
    meaning = meaning_of(token, before, section.tokens[k + 1] if k + 1 < len(section.tokens) else None)
    value = _value_around(section, token)
    if meaning:
        code = "\n".join(m.form for m in meaning)
        says = [m.says if len(meaning) == 1 else f"`{m.form}`: {m.says}" for m in meaning]
        if token.kind not in _WORDLESS and value is not None:
            says.append(f"Here: `{value}`")
        return code, tuple(says)
    used = dict(section.layer.uses).get(token.text) if section.layer is not None else None
    if used is not None and token.kind == "NAME":
        return format.header(used), tuple(filter(None, [used.doc, used.file]))
    if token.kind in ("NAME", "PRIMED") and mention is not None:
        dim = _free_dim(section, mention.symbol)
        return (token.text, (dim,)) if dim is not None else None
    return (value, ()) if value is not None and token.kind in _OPERATORS else None


# Words of statements have no value of their own.
_WORDLESS = frozenset(
    (
        "LAYER ROLE RULE OWNED USE FROM CONST GRAPH NODES OVER MODULE DEF REDUCE INIT FOR IN IF ELSE RETURN TRUE FALSE "
        "NONE"
    ).split()
)
_OPERATORS = frozenset("PLUS MINUS TIMES DIVIDE MATMUL POWER COMPARE AND OR NOT LSQB".split())


def meaning_of(token: Token, before: Token | None, after: Token | None) -> Sequence[Meaning]:
    """The meanings of a word of the language: by what stands before it, since a word may be several."""
    sign = before.text if before is not None else ""
    opens = after is not None and after.text in ("(", "[")
    if token.kind == "NAME":
        tables = [meanings.CONSTANTS, meanings.NORMS, meanings.FUNCTIONS]
        if sign == "graph":
            tables = [meanings.TRANSFORMS]
        elif sign == "~":
            tables = [meanings.INITS]
        elif sign == ":":
            tables = [meanings.KINDS]
        elif sign in ("[", "at") or (sign in ("(", ",") and not opens):
            tables = [meanings.ENDS, *tables]
    else:
        tables = [meanings.WORDS]
    return next((table[token.text] for table in tables if token.text in table), ())


# ----------------------------------------------------------------------------------------- names


def _name(section: Section, mention: Mention, source: Mention) -> tuple[str, tuple[str, ...]]:
    """A name of the layer: the type that it has here, and the statement that gives it."""
    if source.gives == "layer":
        assert section.layer is not None
        return format.header(section.layer), ()
    value = _value_of(section, mention, source)
    head = mention.token.text if source.gives in ("value", MADE) else f"{source.gives} {mention.token.text}"
    shown = type_of(value, _spaces(section))
    line = _statement(section, source)
    return f"{head}: {shown}" if shown is not None else head, (f"`{line}`",) if line is not None else ()


def _statement(section: Section, m: Mention) -> str | None:
    """The statement that gives a name, as the formatter writes it."""
    s = m.statement
    if s is None or m.gives in ("layer", "index"):
        return None
    if isinstance(s, ast.Parameter):
        return s.name if s.required else f"{s.name} = {format.default_value(s.default)}"
    lines = section.text[s.span.start : s.span.end].splitlines()
    return " ".join(map(str.strip, lines)) if len(lines) <= _MOST_LINES else lines[0].rstrip()


def _spaces(section: Section) -> Spaces | None:
    return None if section.layer is None else spaces_of(section.layer)


def type_of(value: Value | None, spaces: Spaces | None = None) -> str | None:
    """The type of a value, in a few words; in a layer on several graphs with the one that it is of."""
    if isinstance(value, Node):
        return str(value.type) if spaces is None else spaces.shown(value)
    if isinstance(value, ModuleValue):
        if value.takes is not None and value.gives is not None:
            return f"{value.takes.name} -> {value.gives.name}"
        return "a torch module" if value.function is None else f"a torch module, or {value.function}"
    if isinstance(value, UserFunction | UserReducer):
        return "a function"
    if isinstance(value, Absent):
        return "left out"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, str):
        return "a word"
    if is_constant(value) and value is not None:
        return "a number known when the layer is made"
    return None


def _value_of(section: Section, mention: Mention, source: Mention) -> Value | None:
    """What a name stands for where it is read; else by the statement that gives it; else wherever it is read."""
    for token in (mention.token, source.token):
        if (token.start, token.end) in section.values:
            return section.values[token.start, token.end]
    if source.statement is not None and source.gives != "parameter":
        span = source.statement.span
        if (span.start, span.end) in section.values:
            return section.values[span.start, span.end]
    places = ((m.token.start, m.token.end) for m in section.names.of(mention.symbol))
    return next((section.values[place] for place in places if place in section.values), None)


def _value_around(section: Section, token: Token) -> str | None:
    """The type of the smallest expression that a token is in."""
    around = [
        (end - start, value)
        for (start, end), value in section.values.items()
        if start <= token.start and token.end <= end and (start, end) != (token.start, token.end)
    ]
    nodes = [(size, value) for size, value in around if isinstance(value, Node)]
    return type_of(min(nodes, key=lambda pair: pair[0])[1], _spaces(section)) if nodes else None


def _free_dim(section: Section, symbol: Identifier) -> str | None:
    """A dim that no argument gives: the inputs that have it."""
    inputs = _inputs_with(section.layer, symbol.name) if section.layer is not None else []
    if inputs:
        return f"a dim of {', '.join(f'`{name}`' for name in inputs)}, whose size a call gives"
    named = any(
        isinstance(v, Node) and symbol.name in (n.rstrip("'") for n in v.type.names) for v in section.values.values()
    )
    return "a dim" if named else None


def _inputs_with(layer: ast.Layer, dim: str) -> list[str]:
    return [
        s.name for s in ast.walk(layer) if isinstance(s, ast.Declaration) and any(dim in _names_in(d) for d in s.dims)
    ]


def _names_in(tree: ast.Tree) -> Iterable[str]:
    return {t.id.rstrip("'") for t in ast.walk(tree) if isinstance(t, ast.Name)}
