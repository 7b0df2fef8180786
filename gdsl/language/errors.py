"""Mistakes in a program: each with its place, the line with a caret, what was expected, and a hint."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from gdsl.errors import GdslError
from gdsl.language.ast import Span

# A longer line of the program is shown in part.
MAX_LINE = 160


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A line of a text with a caret: ``shown`` of the line, with the caret under ``width`` characters from ``at`` on.

    where: the layer or file, if it has to be said
    """

    where: str | None
    line: int
    column: int
    shown: str
    at: int
    width: int

    @staticmethod
    def of(span: Span, source: str, where: str | None) -> Excerpt:
        lines = source.split("\n")
        text = lines[span.line - 1].rstrip("\r") if span.line <= len(lines) else ""
        # Tabs would shift the caret: show each as one space.
        text = text.replace("\t", " ")
        width = max(1, min(span.end - span.start, len(text) - span.column + 1))
        return Excerpt(where, span.line, span.column, *_window(text, span.column, width))

    @property
    def sentence(self) -> str:
        """In one line, without a caret."""
        return f"in {self.where}, line {self.line}: {self.shown.strip()}"

    def render(self, arrow: str = "-->") -> list[str]:
        """As a compiler prints it, in lines."""
        place = f"{self.where}, " if self.where else ""
        gutter = " " * len(str(self.line))
        return [
            f"{gutter} {arrow} {place}line {self.line}, column {self.column}",
            f"{gutter} |",
            f"{self.line} | {self.shown}",
            f"{gutter} | {' ' * (self.at - 1)}{'^' * self.width}",
        ]


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One mistake. ``detail`` gives the types or values at hand, ``expected`` what could stand here.

    severity: "error", or "warning" of what means something, and hardly what was meant
    sizes:    sizes of dims with any one of which this would be no mistake
    inside:   where it is inside the layer that is called here, or the file that is used here, the outermost first
    """

    message: str
    span: Span
    detail: str | None = None
    expected: tuple[str, ...] = ()
    hint: str | None = None
    severity: str = "error"
    sizes: tuple[tuple[str, int], ...] = field(default=(), compare=False)
    inside: tuple[Excerpt, ...] = ()

    def render(self, source: str, where: str | None = None) -> str:
        """As a compiler prints it."""
        gutter = " " * len(str(self.span.line))
        out = [f"{self.severity}: {self.message}", *Excerpt.of(self.span, source, where).render()]
        for excerpt in self.inside:
            out += excerpt.render("--> in")
        if self.detail:
            out.append(f"{gutter} = {self.detail}")
        if self.expected:
            out.append(f"{gutter} = expected {either(self.expected)}")
        if self.hint:
            out.append(f"{gutter} = hint: {self.hint}")
        return "\n".join(out)


class LanguageError(GdslError, ValueError):
    """A program that does not parse or does not type-check. ``diagnostics`` holds every mistake found."""

    def __init__(self, diagnostics: Sequence[Diagnostic], source: str = "", where: str | None = None):
        self.diagnostics = tuple(sorted(diagnostics, key=lambda d: (d.span.start, d.message)))
        self.source, self.where = source, where
        super().__init__(self.render())

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.diagnostics, self.source, self.where)

    def render(self) -> str:
        return "\n\n".join(d.render(self.source, self.where) for d in self.diagnostics)


class LanguageWarning(UserWarning):
    """What a program says to no effect, such as an ``update`` that nothing reads: shown as errors are, with a caret."""


def warn(diagnostics: Iterable[Diagnostic], source: str, where: str | None, stacklevel: int) -> None:
    """A Python warning for each diagnostic, at the place of the caller that many levels up."""
    for d in diagnostics:
        warnings.warn(d.render(source, where), LanguageWarning, stacklevel=stacklevel + 1)


class Mistake(Exception):
    """Raised while checking one statement; the checker notes it and goes on with the next statement."""

    def __init__(
        self,
        message: str,
        span: Span,
        *,
        detail: str | None = None,
        hint: str | None = None,
        sizes: tuple[tuple[str, int], ...] = (),
        inside: tuple[Excerpt, ...] = (),
    ):
        super().__init__(message)
        self.diagnostic = Diagnostic(message, span, detail=detail, hint=hint, sizes=sizes, inside=inside)


class UnknownName(Mistake):
    """A name that nothing gives."""


def _window(text: str, column: int, width: int) -> tuple[str, int, int]:
    """The part of a long line around a column, where that column is in it, and how much of the span shows."""
    if len(text) <= MAX_LINE:
        return text, column, width
    start = max(0, min(column - 1 - MAX_LINE // 3, len(text) - MAX_LINE))
    left, right = ("..." if start else ""), ("..." if start + MAX_LINE < len(text) else "")
    shown = text[start : start + MAX_LINE]
    return left + shown + right, column - start + len(left), max(1, min(width, start + MAX_LINE - column + 1))


def either(words: Sequence[str]) -> str:
    """``a``, ``a or b``, ``a, b or c``"""
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " or " + words[-1]


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant."""
    candidates = sorted(set(known))
    lowered = {k.lower(): k for k in candidates}
    if name.lower() in lowered:
        return lowered[name.lower()]
    found = difflib.get_close_matches(name, candidates, n=1, cutoff=0.65)
    return found[0] if found else None


# What other libraries call what is said otherwise here.
ELSEWHERE = {
    **dict.fromkeys(("add", "scatter", "scatter_add", "scatter_sum", "segment_sum", "propagate"), "write sum(x[j])"),
    **dict.fromkeys(("src", "dst", "row", "col"), "[j] reads a value at the source of an edge, [i] at its target"),
    **dict.fromkeys(
        ("layer_norm", "LayerNorm", "batch_norm", "BatchNorm", "BatchNorm1d"),
        "declare `module nn`, call it as nn(x), and pass a torch module: gdsl.compile(text, nn=...)",
    ),
    "cumsum": "multiply by a triangle of ones: `p @ tri`, with `const tri[k, k']`",
    **dict.fromkeys(("xavier_uniform", "xavier_uniform_"), "write `glorot`"),
    **dict.fromkeys(("kaiming_uniform_",), "write `kaiming_uniform`"),
}


def did_you_mean(name: str, known: Iterable[str], otherwise: str | None = None) -> str | None:
    found = closest(name, known)
    return f"did you mean `{found}`?" if found else otherwise
