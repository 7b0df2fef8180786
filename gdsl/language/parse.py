"""Text to syntax tree."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import lark

from gdsl.errors import GdslError
from gdsl.language import ast, imports, names, recover
from gdsl.language.errors import Diagnostic, LanguageError, Mistake
from gdsl.language.tree import TreeBuilder
from gdsl.locks import Lock
from gdsl.store import cache_folder, is_whole, replacing, seal

MAX_TEXT = 100_000
MAX_DEPTH = 200
MAX_ERRORS = 20

_lock = Lock()


def grammar_path() -> Path:
    """The grammar: inside an installed package, or beside it in the source tree."""
    package = Path(__file__).parent.parent
    for folder in (package, package.parent):
        path = folder / "grammar" / "gdsl.lark"
        if path.exists():
            return path
    raise FileNotFoundError("gdsl.lark is missing from the installation: install gdsl again")


@functools.cache
def parser() -> lark.Lark:
    """Made at the first use, once a process. Its tables are kept with the compiled kernels: making them takes ten
    times as long as reading them."""
    path = _tables_path()
    if path is None or is_whole(path):
        return _parser(str(path) if path else False)
    # What is damaged or not the user's own is made anew. lark itself writes the file, and trusts one that it finds.
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return _parser(False)
    made = _parser(str(path))
    with contextlib.suppress(OSError), replacing(path) as temporary:
        temporary.write_bytes(path.read_bytes())
        seal(temporary)
    return made


def _parser(tables: str | bool) -> lark.Lark:
    return lark.Lark(
        grammar_path().read_text(encoding="utf-8"),
        parser="lalr",
        lexer="basic",
        keep_all_tokens=True,
        maybe_placeholders=False,
        transformer=TreeBuilder(),
        cache=tables,
    )


def _tables_path() -> Path | None:
    """A file that only the user can write, since reading the tables runs what they say; None where there is none."""
    try:
        return cache_folder() / "grammar.tables"
    except (GdslError, OSError):
        return None


def parse(text: str, filename: str | None = None, files: imports.Files | None = None) -> ast.Program:
    """Parse a text of one layer or several, and what it uses. Raises :class:`LanguageError` with every mistake found.

    files: where the texts of files are from that it uses; without, it can use no file
    """
    program, mistakes = imports.linked(syntax(text, filename), files, syntax)
    if mistakes:
        raise LanguageError(mistakes, text, filename)
    return program


def syntax(text: str, filename: str | None = None) -> ast.Program:
    """A text alone: its layers do not know the layers that they call. Raises as :func:`parse` does."""
    if len(text) > MAX_TEXT:
        start = ast.Span(0, 0, 1, 1)
        message = f"the program has {len(text)} characters, and {MAX_TEXT} is the limit"
        raise LanguageError([Diagnostic(message, start)], text[:200], filename)
    trees = _parse_trees(text, filename)
    layers = tuple(tree for tree in trees if isinstance(tree, ast.Layer))
    uses = tuple(tree for tree in trees if isinstance(tree, ast.Use))
    if not layers:
        start = ast.Span(0, 0, 1, 1)
        mistake = Diagnostic("the program is empty", start, hint="a program is `layer Name(arguments) { ... }`")
        raise LanguageError([mistake], text, filename)
    span = layers[0].span.to(layers[-1].span)
    made = tuple(replace(layer, doc=_doc(text, layer.span.start), source=text) for layer in layers)
    program = ast.Program(made, text, uses, span=span)
    mistakes = _too_deep(program) or [*_twice(program), *(m for layer in made for m in names.refused(layer, text))]
    if mistakes:
        raise LanguageError(mistakes, text, filename)
    return program


def _parse_trees(text: str, filename: str | None) -> tuple[ast.Layer | ast.Use, ...]:
    """Parse; after a syntax error, blank the statement it is in and parse again, to find the next error."""
    mistakes: list[Diagnostic] = []
    rest = text
    while True:
        try:
            found = _run(rest)
        except lark.UnexpectedInput as error:
            mistake = recover.explain(rest, error, parser())
        except Mistake as error:
            mistake = error.diagnostic
        else:
            break
        seen = {d.span.start for d in mistakes}
        if mistakes and mistake.span.start <= max(seen):
            break  # a consequence of what was blanked
        mistakes.append(mistake)
        blanked = recover.blank_statement(rest, mistake.span)
        if blanked is None or len(mistakes) >= MAX_ERRORS:
            break
        rest = blanked
    if mistakes:
        raise LanguageError(mistakes, text, filename)
    return found


def _run(text: str) -> tuple[ast.Layer | ast.Use, ...]:
    with _lock:  # lark's parser is not documented to be safe with threads
        result: Any = parser().parse(text)
    trees: tuple[ast.Layer | ast.Use, ...] = result
    return trees


def _doc(text: str, start: int) -> str:
    """The comment lines right above a layer."""
    lines = text[:start].split("\n")[:-1]
    found: list[str] = []
    while lines and lines[-1].strip().startswith("#"):
        found.append(lines.pop().strip().lstrip("#").strip())
    return "\n".join(reversed(found))


def _too_deep(program: ast.Program) -> list[Diagnostic]:
    """Deep nesting would exhaust Python's stack in the passes that recurse."""
    level: list[ast.Tree] = [program]
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in ast.children(node)]
        if not level:
            return []
    return [
        Diagnostic(
            f"the program is nested more than {MAX_DEPTH} deep",
            level[0].span,
            hint="give the inner expressions names of their own",
        )
    ]


def _twice(program: ast.Program) -> list[Diagnostic]:
    seen: set[str] = set()
    found: list[Diagnostic] = []
    for layer in program.layers:
        if layer.name in seen:
            found.append(Diagnostic(f"there are two layers named `{layer.name}`", layer.span))
        seen.add(layer.name)
    return found
