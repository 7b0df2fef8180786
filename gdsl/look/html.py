"""What a notebook shows: a line or a table, and texts that unfold. Everything in it is escaped.

It is made of what is known already: showing a layer compiles nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from gdsl.look.short import Explanation, short

if TYPE_CHECKING:
    from torch import nn

    from gdsl.ir.program import Program
    from gdsl.language.program import TypedProgram
    from gdsl.look.check import CheckReport
    from gdsl.look.kernels import KernelInfo
    from gdsl.runtime.graph import Graph

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
    lines = ["".join(f'<td style="text-align: left">{escape(str(cell))}</td>' for cell in row) for row in rows]
    titles = "".join(f'<th style="text-align: left">{escape(title)}</th>' for title in head)

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

        from gdsl.editor.colours import GdslLexer
    except ModuleNotFoundError:
        return escape(words)
    lexer = GdslLexer() if language == "gdsl" else get_lexer_by_name(language)
    return "".join(
        _span(str(kind).removeprefix("Token."), piece) for _, kind, piece in lexer.get_tokens_unprocessed(words)
    )


def _span(kind: str, piece: str) -> str:
    colour = next((c for name, c in _COLOURS.items() if kind.startswith(name)), None)
    return escape(piece) if colour is None else f'<span style="color: {colour}">{escape(piece)}</span>'


# ------------------------------------------------------------------------------------------ values


def layer(module: nn.Module, source: str | None, program: TypedProgram | None) -> str:
    """A layer: its parameters, its text, and the types of the last call."""
    shapes = [(name, " × ".join(map(str, p.shape)) or "1") for name, p in _parameters(module)]
    numbers = sum(p.numel() for _, p in _parameters(module))
    head = repr(module).splitlines()[0]
    if head.endswith("("):  # of a module with others in it
        head = f"{head}{short(module.extra_repr(), 1)})"
    backend = getattr(module, "backend", "")
    parts = [line(f"{numbers:,} parameters in {len(shapes)} tensors, backend {backend}")]
    if source is not None:
        parts.append(folded("program", text(source, "gdsl")))
    if program is not None:
        parts.append(folded("types", rules(program)))
    if shapes:
        parts.append(folded("parameters", table(("name", "shape"), shapes)))
    return page(head, *parts)


def _parameters(module: nn.Module) -> list[tuple[str, Any]]:
    """Those that have a shape: one that is made in the first call has none yet."""
    from torch.nn.parameter import is_lazy

    return [(name, p) for name, p in module.named_parameters() if not is_lazy(p)]


def rules(program: TypedProgram) -> str:
    return table(("rule", "type"), ((r.text, r.type) for r in program.rules))


def typed_program(program: TypedProgram) -> str:
    results = ", ".join(f"{name}: {node.type}" for name, node in program.outputs)
    return page(f"program {program.name}", line(f"{len(program.rules)} rules, returns {results}"), rules(program))


def ir_program(program: Program) -> str:
    from gdsl.ir.printer import print_program

    words = print_program(program)
    return page(f"program {program.name}", folded(f"{len(words.splitlines())} lines", text(words)))


def kernel(k: KernelInfo) -> str:
    head = f"kernel {k.name}"
    costs = line(f"bytes: {k.bytes}"), line(f"flops: {k.flops}")
    lines = len(k.source.splitlines())
    return page(head, line(_of(k)), *costs, folded(f"source, {lines} lines", text(k.source, _LANGUAGES[k.language])))


_LANGUAGES = {"cpp": "cpp", "triton": "python"}


def _of(k: KernelInfo) -> str:
    target = f", {k.target}" if k.job is not None else ""
    return f"{k.direction}, {k.language}{target}"


def kernels(found: Sequence[KernelInfo]) -> str:
    """A line for each kernel, under which its source unfolds."""
    sources = [
        folded(f"{k.name}: {_of(k)}, {len(k.source.splitlines())} lines", text(k.source, _LANGUAGES[k.language]))
        for k in found
    ]
    more = folded(f"{len(sources) - ROWS} more", "".join(sources[ROWS:])) if len(sources) > ROWS else ""
    return page(f"{len(found)} kernel{'s' * (len(found) != 1)}", *sources[:ROWS], more)


def explanation(found: Explanation) -> str:
    """The parts of an explanation, folded."""
    before = "".join(text(words) for title, words in found.parts if not title)
    parts = [folded(title, text(words)) for title, words in found.parts if title]
    return page("explanation", before, *parts)


def graph(g: Graph) -> str:
    counts = (
        [("nodes", g.num_targets)] if not g.is_bipartite else [("sources", g.num_sources), ("targets", g.num_targets)]
    )
    rows = [*counts, ("edges", g.num_edges), ("device", str(g.device))]
    return page("graph", table(("", ""), [(name, f"{v:,}" if isinstance(v, int) else v) for name, v in rows]))


def report(found: CheckReport) -> str:
    """The checks that failed, and all of them folded."""
    head = ("check", "error", "tolerance", "")

    def made(rows: Iterable[Any]) -> str:
        return table(head, ((r.name, f"{r.value:.1e}", f"{r.tolerance:.0e}", r.note) for r in rows))

    failed = made(found.failures) if found.failures else ""
    verdict = f"{len(found.failures)} of {len(found.rows)} checks failed" if failed else f"all {len(found.rows)} passed"
    return page(f"check of {found.layer}", line(verdict), failed, folded("all checks", made(found.rows)))
