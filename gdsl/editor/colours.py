"""A lexer for Pygments: the grammar's own tokens, and the language's own tables for what a name is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pygments.lexer import Lexer
from pygments.token import Comment, Error, Keyword, Name, Number, Operator, Punctuation, String, Whitespace

from gdsl.editor.tokens import UNKNOWN, Token, with_comments
from gdsl.language import meanings
from gdsl.language.program import ACTIVATIONS

# A type of Pygments' for each kind of token; brackets and signs between are punctuation.
_KINDS: dict[str, Any] = {
    **dict.fromkeys("LAYER ROLE CONST GRAPH NODES MODULE OWNED USE DEF REDUCE".split(), Keyword.Declaration),
    **dict.fromkeys(("RULE", "INIT", "FOR", "IN", "IF", "ELSE", "RETURN", "FROM"), Keyword),
    **dict.fromkeys(("AT", "BY", "OVER", "AND", "OR", "NOT"), Operator.Word),
    **dict.fromkeys(("TRUE", "FALSE", "NONE"), Keyword.Constant),
    **dict.fromkeys(("COMPARE", "PLUS", "MINUS", "TIMES", "DIVIDE", "MATMUL", "POWER", "EQUAL"), Operator),
    "NUMBER": Number,
    "STRING": String,
    "COMMENT": Comment.Single,
    "PRIMED": Name,
    UNKNOWN: Error,
}
_DEFINES = {"LAYER": Name.Class, "DEF": Name.Function, "REDUCE": Name.Function}
_STATEMENTS = frozenset(
    "LAYER ROLE RULE CONST GRAPH NODES MODULE OWNED USE DEF REDUCE FOR IF RETURN LBRACE RBRACE SEMICOLON".split()
)


class GdslLexer(Lexer):
    """Texts of gdsl: ``pygments.lexers.get_lexer_by_name("gdsl")``."""

    name = "gdsl"
    aliases = ("gdsl",)
    filenames = ("*.gdsl",)
    mimetypes = ("text/x-gdsl",)

    def get_tokens_unprocessed(self, text: str) -> Iterator[tuple[int, Any, str]]:
        end = 0
        for token, kind in coloured(text):
            if token.start > end:
                yield end, Whitespace, text[end : token.start]
            yield token.start, kind, token.text
            end = token.end
        if end < len(text):
            yield end, Whitespace, text[end:]


def coloured(text: str) -> Iterator[tuple[Token, Any]]:
    """The tokens and comments of a text, each with its type."""
    found = [*with_comments(text)]
    code = [t for t in found if t.kind != "COMMENT"]
    owned = False
    place = 0
    for token in found:
        if token.kind == "COMMENT":
            yield token, Comment.Single
            continue
        owned = token.kind == "OWNED" or (owned and token.kind not in _STATEMENTS)
        yield token, _name(code, place, owned) if token.kind == "NAME" else _KINDS.get(token.kind, Punctuation)
        place += 1


def _name(code: Sequence[Token], k: int, owned: bool) -> Any:
    """What a name is, by what stands around it."""
    name = code[k].text
    before = code[k - 1] if k else None
    sign = before.text if before is not None else ""
    if before is not None and before.kind in _DEFINES:
        return _DEFINES[before.kind]
    if (sign == "graph" and name in meanings.TRANSFORMS) or (sign == "~" and name in meanings.INITS):
        return Name.Builtin
    if sign == ":" and name in meanings.KINDS:
        return Keyword.Type
    if name in meanings.CONSTANTS:
        return Name.Constant
    if sign in ("[", "at") or (sign == "(" and code[k - 2].text == "degree"):
        return Name.Builtin.Pseudo if name in meanings.ENDS else Name
    stands_for = k > 2 and sign == "=" and code[k - 3].kind == "MODULE"
    word = (stands_for and name in meanings.FUNCTIONS) or (owned and name in (*ACTIVATIONS, *meanings.NORMS))
    return Name.Builtin if word or (name in meanings.FUNCTIONS and _is_called(code, k)) else Name


def _is_called(code: Sequence[Token], k: int) -> bool:
    """Whether arguments follow a name: ``norm(x)`` and ``norm[d](x)``, and not ``norm[i]``."""
    depth = 0
    for token in code[k + 1 :]:
        if token.text == "[":
            depth += 1
        elif token.text == "]":
            depth -= 1
        elif depth == 0:
            return token.text == "("
    return False
