"""A text as the grammar's own tokens, also one with mistakes; and places in it as editors count them."""

from __future__ import annotations

import bisect
import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import lark

from gdsl.language.parse import parser

# Tokens of these kinds are names that a text gives.
NAMES = frozenset({"NAME", "PRIMED"})
UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of the text: ``kind`` is a terminal of the grammar, COMMENT, or UNKNOWN for what is in no program."""

    kind: str
    text: str
    start: int

    @property
    def end(self) -> int:
        return self.start + len(self.text)


def tokens(text: str) -> Iterator[Token]:
    """The tokens of a text without its comments. A character that starts none is one of its own."""
    begin = 0
    while True:
        try:
            for found in parser().lex(text[begin:]):
                yield Token(found.type, str(found), begin + (found.start_pos or 0))
            return
        except lark.UnexpectedCharacters as error:
            begin += error.pos_in_stream or 0
            yield Token(UNKNOWN, text[begin], begin)
            begin += 1


def with_comments(text: str) -> Iterator[Token]:
    """The tokens of a text and its comments. What is between two of these is blank."""
    end = 0
    for token in tokens(text):
        yield from _comments(text, end, token.start)
        yield token
        end = token.end
    yield from _comments(text, end, len(text))


def _comments(text: str, start: int, end: int) -> Iterator[Token]:
    """Between two tokens there are blanks and comments only."""
    while (start := text.find("#", start, end)) >= 0:
        stop = text.find("\n", start, end)
        stop = end if stop < 0 else stop
        yield Token("COMMENT", text[start:stop], start)
        start = stop


def open_bracket(before: Sequence[Token]) -> tuple[int | None, int]:
    """The place of the innermost parenthesis or bracket that is open at the end, and how many commas stand in it."""
    depth, commas = 0, 0
    for k in range(len(before) - 1, -1, -1):
        text = before[k].text
        if text in (")", "]", "}"):
            depth += 1
        elif text in ("(", "[", "{"):
            if depth == 0:
                return (k, commas) if text != "{" else (None, 0)
            depth -= 1
        elif text == "," and depth == 0:
            commas += 1
    return None, 0


# -------------------------------------------------------------------------------------- places


@dataclass(frozen=True, slots=True)
class TextLines:
    """Offsets in a text as lines and columns from 0, and back. Columns count the units of an encoding: a character
    beyond the first 65,536 is one of utf-32, two of utf-16 and four of utf-8."""

    text: str
    starts: tuple[int, ...]
    encoding: str = "utf-16"

    @staticmethod
    def of(text: str, encoding: str = "utf-16") -> TextLines:
        return _lines(text, encoding)

    def place(self, offset: int) -> tuple[int, int]:
        """The line and the column of an offset."""
        line = bisect.bisect_right(self.starts, offset) - 1
        return line, units(self.text[self.starts[line] : offset], self.encoding)

    def offset(self, line: int, column: int) -> int:
        """The offset of a line and a column: of the nearest character where there is none."""
        if line >= len(self.starts):
            return len(self.text)
        start = self.starts[max(line, 0)]
        end = self.starts[line + 1] if line + 1 < len(self.starts) else len(self.text)
        for offset in range(start, end):
            if column <= 0 or self.text[offset] in "\r\n":
                return offset
            column -= units(self.text[offset], self.encoding)
        return end


def edited(text: str, start: tuple[int, int], end: tuple[int, int], new: str, encoding: str = "utf-16") -> str:
    """A text with a piece of it, between two places, replaced."""
    lines = TextLines.of(text, encoding)
    return text[: lines.offset(*start)] + new + text[lines.offset(*end) :]


def units(text: str, encoding: str) -> int:
    """How many units of an encoding a text has."""
    if text.isascii() or encoding == "utf-32":
        return len(text)
    if encoding == "utf-8":
        return len(text.encode("utf-8", "surrogatepass"))
    return len(text) + sum(character > "\uffff" for character in text)


@functools.lru_cache(maxsize=4)
def _lines(text: str, encoding: str) -> TextLines:
    """Lines end as in the protocol: with a line feed, a carriage return, or both."""
    return TextLines(text, (0, *(m.end() for m in re.finditer(r"\r\n|\r|\n", text))), encoding)
