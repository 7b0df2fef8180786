"""Parts of what a notebook shows: lines, tables, texts that unfold. Everything in them is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

# So many rows of a table are shown, and the others unfold.
ROWS = 12
# A part that is unfolded scrolls beyond this height.
_TALL = "max-height: 24em; overflow: auto; margin: 0.3em 0 0.3em 1.2em; line-height: 1.3; font-size: 0.9em"
# So many characters of a text are put into a page; the browser of a reader is not for more.
_MOST = 60_000

# Colours that can be read on a light and on a dark page.
_COLOURS = {"Keyword": "#2f7fb8", "Name.Builtin": "#a0703a", "Name.Class": "#8a63b0", "Name.Function": "#8a63b0"}
_COLOURS |= {"Literal": "#4f8f4f", "Comment": "#888888", "Operator.Word": "#2f7fb8", "Name.Constant": "#4f8f4f"}


def page(head: str, *parts: str) -> str:
    """A value: its head in bold, and parts below it."""
    return f'<div style="font-family: sans-serif"><b>{escape(head)}</b>{"".join(parts)}</div>'


def line(text: str) -> str:
    return f'<div style="margin-left: 1.2em">{escape(text)}</div>'


def text(words: str, language: str | None = None) -> str:
    """A text as it is, coloured where its language is known."""
    if len(words) > _MOST:
        cut = f"\n... {len(words) - _MOST:,} more characters: print it"
        return text(words[:_MOST], language) + f"<pre>{cut}</pre>"
    return f'<pre style="{_TALL}">{coloured(words, language) if language else escape(words)}</pre>'


def folded(title: str, inside: str, opened: bool = False) -> str:
    return f"<details{' open' if opened else ''}><summary>{escape(title)}</summary>{inside}</details>"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table whose first rows are shown. A cell that is a str is escaped."""
    left = 'style="text-align: left; padding-right: 2em"'
    lines = ["".join(f"<td {left}>{escape(str(cell))}</td>" for cell in row) for row in rows]
    titles = "".join(f"<th {left}>{escape(title)}</th>" for title in head)

    def made(some: Sequence[str]) -> str:
        body = "".join(f"<tr>{cells}</tr>" for cells in some)
        return f'<table style="font-family: monospace; margin-left: 1.2em"><tr>{titles}</tr>{body}</table>'

    more = folded(f"{len(lines) - ROWS} more", _scrolling(made(lines[ROWS:]))) if len(lines) > ROWS else ""
    return made(lines[:ROWS]) + more


def _scrolling(inside: str) -> str:
    return f'<div style="{_TALL}">{inside}</div>'


def coloured(words: str, language: str) -> str:
    """A text with its words in colours, if Pygments is there."""
    try:
        from pygments.lexers import get_lexer_by_name
        from pygments.util import ClassNotFound
    except ModuleNotFoundError:
        return escape(words)
    try:
        lexer = get_lexer_by_name(language)  # that of gdsl is an entry point of the package
    except ClassNotFound:
        return escape(words)
    return "".join(
        _span(str(kind).removeprefix("Token."), piece) for _, kind, piece in lexer.get_tokens_unprocessed(words)
    )


def _span(kind: str, piece: str) -> str:
    colour = next((c for name, c in _COLOURS.items() if kind.startswith(name)), None)
    return escape(piece) if colour is None else f'<span style="color: {colour}">{escape(piece)}</span>'
