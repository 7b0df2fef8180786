"""Syntax errors in human words, and where to go on after one."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import lark

from gdsl.language.ast import Span
from gdsl.language.errors import Diagnostic, closest

# Words that begin a statement; also the words that `did you mean` offers for a misspelt one.
STATEMENTS = (
    "param", "buffer", "const", "global", "graph", "node", "source", "target", "edge", "module", "message", "aggregate",
    "update", "pool", "def", "reduce", "for", "if", "return",
)  # fmt: skip
# Words that do so before a name and sizes, and are names elsewhere; and what follows them.
OWNED = {
    "linear": "linear lin(in -> out)",
    "mlp": "mlp phi(in -> hidden -> out, relu)",
    "use": "use conv = GCNConv(16)",
    "nodes": "nodes paper, author",
}
KEYWORDS = (
    *STATEMENTS,
    "layer",
    "else",
    "in",
    "init",
    "at",
    "by",
    "and",
    "or",
    "not",
    "true",
    "false",
    "none",
)

# What stands for a set of tokens in "expected ...": the first row that fits takes its tokens out.
_OPERATORS = {"PLUS", "MINUS", "TIMES", "DIVIDE", "MATMUL", "POWER", "COMPARE", "AND", "OR", "AT", "BY", "OVER"}
_OPERANDS = {"NUMBER", "PRIMED", "NAME", "STRING", "TRUE", "FALSE", "NONE", "LPAR", "MINUS", "NOT"}
_WORDS = [
    ({"NUMBER", "LPAR", "MINUS"}, _OPERANDS, "an expression"),
    (
        {"ROLE", "RULE"},
        {"ROLE", "RULE", *(s.upper() for s in STATEMENTS), "OWNED", "NAME", "SEMICOLON", "USE", "NODES"},
        "a statement",
    ),
    ({"PLUS", "POWER"}, _OPERATORS | {"LPAR", "LSQB"}, "an operator"),
]
_SYMBOLS = {
    "LPAR": "`(`",
    "RPAR": "`)`",
    "LSQB": "`[`",
    "RSQB": "`]`",
    "LBRACE": "`{`",
    "RBRACE": "`}`",
    "__ANON_0": "`..`",
    "__ANON_1": "`->`",
    "USE": "`use`",
    "NODES": "`nodes`",
    "OVER": "`over`",
    "FROM": "`from`",
    "NAME": "a name",
    "NUMBER": "a number",
    "STRING": "a string",
    "COMPARE": "a comparison",
    "$END": "the end",
}

# Characters of other languages, and what to write here.
_FOREIGN = {
    "!": "write `not`, and `!=` for unequal",
    "&": "write `and`",
    "|": "write `or`",
    "^": "write `**` for a power",
    "%": "write `mod(a, b)` for a remainder",
    "'": "strings have double quotes",
    '"': "a string ends on the line where it starts",
    ".": "a range is written `1..K`, and a function `relu(x)`",
}

# What a token in the wrong place was probably meant for.
_HINTS = {
    "EQUAL": "`==` compares; `=` gives one name its meaning",
    "COMPARE": "comparisons do not chain: write a < b and b < c",
}

_PAIRS = {"(": ")", "[": "]", "{": "}"}
_LEXEME = re.compile(r'"[^"\n]*"|#[^\n]*|[()\[\]{}]')


def span_at(text: str, start: int, length: int) -> Span:
    line = text.count("\n", 0, start) + 1
    column = start - (text.rfind("\n", 0, start) + 1) + 1
    return Span(start, start + length, line, column)


def explain(text: str, error: lark.UnexpectedInput, parser: lark.Lark) -> Diagnostic:
    """One syntax error as a diagnostic."""
    position = len(text) if _at_end(error) else error.pos_in_stream or 0
    bracket = _bracket_mistake(text, position)
    if bracket is not None:
        return bracket
    if isinstance(error, lark.UnexpectedCharacters):
        char = text[position]
        return Diagnostic(f"`{char}` is not part of the language", span_at(text, position, 1), hint=_FOREIGN.get(char))
    expected = _expected_words(_accepted(error), parser)
    if _at_end(error):
        end = max(len(text.rstrip()) - 1, 0)
        return Diagnostic("the program ends too early", span_at(text, end, 1), expected=expected)
    assert isinstance(error, lark.UnexpectedToken)
    token = str(error.token)
    span = span_at(text, position, len(token))
    if error.token.type in ("LSQB", "COLON") and re.search(r"\bnodes\s+\w+\s*$", text[:position]):
        message = "`nodes` names the sets that nodes are of, and declares no value"
        return Diagnostic(message, span, hint="declare one as `node x[d]`, or `node x[d] in paper`")
    misspelt = _misspelt_statement(text, position)
    if misspelt is not None:
        return misspelt
    if token in KEYWORDS and "NAME" in error.expected and "RBRACE" not in error.expected:
        hint = f"call it `{token}_` or another name" if _is_definition(text, position) else None
        return Diagnostic(f"`{token}` is a reserved word and cannot be a name", span, hint=hint)
    return Diagnostic(f"unexpected `{token}`", span, expected=expected, hint=_token_hint(error))


def _token_hint(error: lark.UnexpectedToken) -> str | None:
    token = str(error.token)
    if error.token.type == "NAME":
        meant = closest(token, [k for k in KEYWORDS if k.upper() in error.expected])
        return f"did you mean `{meant}`?" if meant else None
    return _HINTS.get(error.token.type)


def _accepted(error: lark.UnexpectedInput) -> set[str]:
    """The tokens that could have come. ``expected`` of an LALR state has too many: try which ones fit."""
    if isinstance(error, lark.UnexpectedToken) and error.interactive_parser is not None:
        # The trial runs the tree builder on tokens without text, which may complain.
        with contextlib.suppress(Exception):
            return set(error.accepts)
    return set(getattr(error, "expected", None) or ())


def _at_end(error: lark.UnexpectedInput) -> bool:
    if isinstance(error, lark.UnexpectedEOF):
        return True
    return isinstance(error, lark.UnexpectedToken) and error.token.type == "$END"


def _is_definition(text: str, position: int) -> bool:
    """Whether the word at this place is being given a meaning, as in ``node target[d]``."""
    before = re.search(r"([A-Za-z_]+)\s+$", text[:position])
    return before is not None and before.group(1) in STATEMENTS


def _expected_words(expected: set[str], parser: lark.Lark) -> tuple[str, ...]:
    words: list[str] = []
    for signs, covered, word in _WORDS:
        if signs <= expected:
            words.append(word)
            expected = expected - covered
    # What could go on with the last expression is only worth saying when nothing else could come.
    rest = expected - _OPERATORS - {"LPAR", "LSQB"}
    if rest or "a statement" in words:
        words = [word for word in words if word != "an operator"]
        expected = rest & {"RBRACE"} if "a statement" in words else rest
    patterns = {t.name: t.pattern.value for t in parser.terminals}
    singles = [_SYMBOLS.get(name) or f"`{patterns.get(name, name)}`" for name in sorted(expected)]
    return tuple(words + sorted(singles))


def _misspelt_statement(text: str, position: int) -> Diagnostic | None:
    """``mesage m = ...``: two names in a row, the first of them nearly a keyword."""
    before = re.search(r"(?:^|[\s;{}])([A-Za-z_]+)\s+$", text[:position])
    if before is None or before.group(1) in KEYWORDS or not re.match(r"[A-Za-z_]", text[position:]):
        return None
    word = before.group(1)
    last = text[: before.start(1)].rsplit("\n", 1)[-1].rstrip()[-1:]
    if word in OWNED and last in ("", "{", "}", ";"):
        message = f"`{word}` is followed by a name and sizes"
        return Diagnostic(message, span_at(text, before.start(1), len(word)), hint=f"as in {OWNED[word]}")
    meant = closest(word, (*STATEMENTS, *OWNED, "layer"))
    # Within a line a word may go on with the expression before it: then it has to look like a statement's.
    if last not in ("", "{", "}", ";") and (meant is None or not (last.isalnum() or last in "])'_\"")):
        return None
    hint = f"did you mean `{meant}`?" if meant else None
    return Diagnostic(f"no statement begins with `{word}`", span_at(text, before.start(1), len(word)), hint=hint)


def _brackets(text: str) -> Iterator[tuple[str, int]]:
    """Brackets and their places, outside comments and strings."""
    for match in _LEXEME.finditer(text):
        if match.group() in "()[]{}":
            yield match.group(), match.start()


def _bracket_mistake(text: str, position: int) -> Diagnostic | None:
    """The bracket that explains an error at this place, if one does."""
    stack: list[tuple[str, int]] = []
    for char, place in _brackets(text):
        if char in _PAIRS:
            stack.append((char, place))
            continue
        if stack and _PAIRS[stack[-1][0]] == char:
            stack.pop()
            continue
        if stack and stack[-1][1] < position and stack[-1][0] != "{":
            return _unclosed(text, *stack[-1])
        if place <= position:
            return Diagnostic(f"`{char}` closes nothing", span_at(text, place, 1))
        return None
    inner = [s for s in stack if s[0] != "{"] or stack
    if inner and inner[-1][1] < position:
        return _unclosed(text, *inner[-1])
    return None


def _unclosed(text: str, char: str, place: int) -> Diagnostic:
    return Diagnostic(f"`{char}` is never closed", span_at(text, place, 1), hint=f"add `{_PAIRS[char]}`")


_STATEMENT_START = re.compile(
    r"^[ \t]*(?:(?:"
    + "|".join((*STATEMENTS, "layer"))
    + r")\b|\}|[A-Za-z_][A-Za-z0-9_]*'*[ \t]*(?:=(?!=)|[ \t][A-Za-z_]))",
    re.M,
)


def blank_statement(text: str, span: Span) -> str | None:
    """The text with the statement around the error replaced by blanks, so that every other place stays put.

    None when the statement holds unpaired brackets: what follows could not be trusted.
    """
    starts = [m.start() for m in _STATEMENT_START.finditer(text)]
    begin = max((s for s in starts if s <= span.start), default=None)
    if begin is None:
        return None
    end = min((s for s in starts if s > max(begin, span.start)), default=len(text))
    piece = text[begin:end]
    depth = 0
    for char, _ in _brackets(piece):
        depth += 1 if char in _PAIRS else -1
        if depth < 0:
            return None
    if depth or re.match(r"\s*(layer|\}|for|if)\b", piece) or piece.lstrip().startswith("}"):
        return None
    return text[:begin] + re.sub(r"[^\n]", " ", piece) + text[end:]
