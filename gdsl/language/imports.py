"""Layers that layers call: those of the same text, of the library, and of files beside a text. See :func:`linked`.

Nothing is run to find one: a text is read and parsed. A file is looked for below the folder of the file that uses it,
and a text that is in no folder uses no file.
"""

from __future__ import annotations

import functools
import os.path
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from gdsl.language import ast
from gdsl.language.errors import Diagnostic, Excerpt, LanguageError, did_you_mean
from gdsl.language.functions import FORMS, FUNCTIONS, ORDERED_REDUCERS, SEGMENT_REDUCERS

# A text may use so many files, those that they use counted too.
MAX_FILES = 200
# Layers call layers, and files use files, so many levels deep.
MAX_DEPTH = 40
# UTF-8 has at most four bytes a character, and a program at most 100,000 characters.
MAX_BYTES = 400_000

# The layers of the library that a text can use: what their programs' arguments have for defaults is what their classes
# have, so that both are one layer. The others are programs that a class prepares arguments and inputs for.
USABLE = (
    "AGNNConv", "APPNP", "CGConv", "EdgeConv", "FeaStConv", "GATConv", "GATv2Conv", "GCNConv", "GINConv", "GraphConv",
    "LEConv", "LGConv", "MFConv", "ResGatedGraphConv", "SAGEConv", "SGConv", "SSGConv", "SimpleConv", "SuperGATConv",
    "TAGConv", "TransformerConv",
)  # fmt: skip

Syntax = Callable[[str, str], ast.Program]


class NoFile(Exception):
    """Why a file cannot be used, and what to do about it."""

    def __init__(self, message: str, hint: str | None = None):
        super().__init__(message)
        self.message, self.hint = message, hint


class Files(Protocol):
    """Where the texts of files are from, by their paths from the text that is compiled, with ``/`` between names."""

    def read(self, path: str) -> str:
        """The text. Raises :class:`NoFile`."""


@dataclass(frozen=True)
class Folder:
    """The files below a folder, and no others."""

    folder: Path

    def read(self, path: str) -> str:
        name = f'"{_short(path)}"'
        try:
            root = self.folder.resolve()
            found = (root / path).resolve(strict=True)
        except (FileNotFoundError, NotADirectoryError):
            if os.path.islink(root / path):
                raise NoFile(f"{name} is a link to no file") from None
            hint = did_you_mean(posixpath.basename(path), _programs_in((root / path).parent))
            raise NoFile(f"there is no file {name}", hint or "paths start at the file that says `use`") from None
        except (OSError, RuntimeError) as error:  # a circle of links is a RuntimeError before Python 3.13
            raise NoFile(f"{name} cannot be read: {_reason(error)}") from None
        if not found.is_relative_to(root):
            raise NoFile(f"{name} leads out of the folder of the text")
        return text_of(found, name)


def _short(path: str) -> str:
    return path if len(path) <= 100 else f"{path[:60]}...{path[-30:]}"


def _programs_in(folder: Path) -> list[str]:
    try:
        return sorted(p.name for p in folder.glob("*.gdsl"))
    except OSError:
        return []


def _reason(error: Exception) -> str:
    """What the system says of a file, in its words."""
    said = error.strerror if isinstance(error, OSError) else None
    return (said or "it is in a circle of links").lower()


def text_of(path: Path, name: str = "it") -> str:
    """The text of a file, called ``name`` in messages. Raises :class:`NoFile`."""
    try:
        there = path.is_file()
    except OSError as error:
        raise NoFile(f"{name} cannot be read: {_reason(error)}") from None
    if not there:
        raise NoFile(f"{name} is no file")
    try:
        with path.open("rb") as opened:
            data = opened.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise NoFile(f"{name} is longer than a program may be")
        return data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        raise NoFile(f"{name} cannot be read as UTF-8 text") from None


@dataclass(frozen=True)
class KeptFiles:
    """Texts that were read before, by their paths."""

    texts: Mapping[str, str]

    def read(self, path: str) -> str:
        if path not in self.texts:
            raise NoFile(f'there is no file "{path}"')
        return self.texts[path]


@dataclass
class ReadFiles:
    """Files that keep what is read of them in ``texts``, so that the same can be read again."""

    files: Files
    texts: dict[str, str] = field(default_factory=dict)

    def read(self, path: str) -> str:
        if path not in self.texts:
            self.texts[path] = self.files.read(path)
        return self.texts[path]


# ------------------------------------------------------------------------------------- the library


def _programs() -> Path:
    return Path(__file__).parent.parent / "nn" / "programs"


@functools.cache
def library() -> Mapping[str, str]:
    """The names of the library's layers that a text can use, each with its file."""
    return {name: path for name, path in _all_programs().items() if name in USABLE}


@functools.cache
def _all_programs() -> Mapping[str, str]:
    found = {}
    for path in sorted(_programs().glob("*.gdsl")):
        for name in re.findall(r"^layer[ \t]+([A-Za-z_]\w*)", path.read_text(encoding="utf-8"), re.M):
            found[name] = path.name
    return found


def library_hint(name: str) -> str | None:
    """What to do where a layer of the library was meant that the text does not use."""
    return f"`use {name}` above the layer brings it from the library" if name in library() else None


@functools.cache
def _of_library(name: str, syntax: Syntax) -> ast.Layer:
    path = _programs() / library()[name]
    program = syntax(path.read_text(encoding="utf-8"), f"gdsl's {path.name}")
    return replace(program.layer(name), file=f"gdsl's {path.name}")


# ----------------------------------------------------------------------------------------- linking


def linked(program: ast.Program, files: Files | None, syntax: Syntax) -> tuple[ast.Program, list[Diagnostic]]:
    """A program whose layers know the layers that they call, and what is wrong with what it uses.

    files:  where texts are from; None for a text that is in no folder
    syntax: makes the tree of a text, or raises :class:`LanguageError`
    """
    if not program.uses and not _may_call(program):
        return program, []
    linker = _Linker(files, syntax)
    layers = linker.text(program, "")
    return replace(program, layers=tuple(layers[layer.name] for layer in program.layers)), linker.mistakes


def _may_call(program: ast.Program) -> bool:
    """Whether a layer of a text may call one of it."""
    names = {layer.name for layer in program.layers}
    return any(name in names for layer in program.layers for name, _ in called(layer)) or any(_taken(program))


def _taken(program: ast.Program) -> Iterator[Diagnostic]:
    """Calls of which nobody can tell whether a function of the language is meant, or a layer of the text."""
    names = {layer.name for layer in program.layers if is_builtin(layer.name)}
    for layer in program.layers if names else ():
        own = {layer.name, *(s.name for s in ast.walk(layer) if isinstance(s, _CALLABLE))}
        for tree in ast.walk(layer):
            if isinstance(tree, ast.Call) and tree.function in names - own:
                message = f"`{tree.function}` is a function of the language, and a layer of this text"
                yield Diagnostic(message, tree.name_span, hint=f"give the layer another name, as {tree.function}_")


def called(layer: ast.Layer) -> Iterator[tuple[str, ast.Span]]:
    """The names of what a layer calls that are neither its own nor the language's, and where."""
    own = {s.name for s in ast.walk(layer) if isinstance(s, _CALLABLE)}
    for tree in ast.walk(layer):
        if isinstance(tree, ast.Instance):
            yield tree.layer, tree.layer_span
        elif isinstance(tree, ast.Call) and tree.function not in own and not is_builtin(tree.function):
            yield tree.function, tree.name_span


_CALLABLE = (ast.Function, ast.Reducer, ast.Module, ast.Owned, ast.Instance)


def is_builtin(name: str) -> bool:
    """Whether a name is a function of the language, which no layer of a text hides."""
    return name in FUNCTIONS or name in FORMS or name in SEGMENT_REDUCERS or name in ORDERED_REDUCERS


def sites(layer: ast.Layer) -> dict[int, str]:
    """The calls of layers that have no name of their own, by their places: each is called as its layer, and further
    ones of a layer are numbered in the order in which they are computed, the inner one of two first."""
    used = dict(layer.uses)
    if not used:
        return {}
    instances = {s.name for s in ast.walk(layer) if isinstance(s, ast.Instance)}
    counts: dict[str, int] = {}
    found = {}
    for tree in sorted(ast.walk(layer), key=lambda tree: tree.span.end):
        if isinstance(tree, ast.Call) and tree.function in used and tree.function not in instances:
            counts[tree.function] = count = counts.get(tree.function, 0) + 1
            found[tree.span.start] = tree.function if count == 1 else f"{tree.function}_{count}"
    return found


class _Linker:
    """Links the texts that one text leads to."""

    def __init__(self, files: Files | None, syntax: Syntax):
        self.files, self.syntax = files, syntax
        self.mistakes: list[Diagnostic] = []
        # The layers of files, by the files' paths; None while a file is being read.
        self.read: dict[str, dict[str, ast.Layer] | None] = {}

    def text(self, program: ast.Program, path: str) -> dict[str, ast.Layer]:
        """The layers of a text, linked. path: of its file, "" for the text that is compiled."""
        before = len(self.mistakes)
        known: dict[str, ast.Layer] = {}
        for use in program.uses:
            for name, layer in self.used(use, path).items():
                message = None
                if name in known:
                    message = f"`{name}` is used twice"
                elif any(layer.name == name for layer in program.layers):
                    message = f"`{name}` is a layer of this text, too"
                elif is_builtin(name):
                    message = f"`{name}` is a function of the language"
                if message is not None:
                    hint = f"give it another name: use {name}_ = {layer.name}" + f' from "{use.path}"' * bool(use.path)
                    self.mistakes.append(Diagnostic(message, use.span, hint=hint))
                known[name] = layer
        self.mistakes += _taken(program)
        failed = len(self.mistakes) > before
        own = {layer.name: replace(layer, file=path) for layer in program.layers}
        done: dict[str, ast.Layer] = {}

        def link(name: str, above: tuple[str, ...]) -> ast.Layer:
            if name in done:
                return done[name]
            if len(above) > MAX_DEPTH:
                message = f"layers call layers more than {MAX_DEPTH} deep"
                self.mistakes.append(Diagnostic(message, own[above[-1]].span))
                return own[name]
            uses: dict[str, ast.Layer] = {}
            instances = {s.layer for s in ast.walk(own[name]) if isinstance(s, ast.Instance)}
            for callee, span in called(own[name]):
                if callee in instances and callee not in known and callee not in own and not failed:
                    other = did_you_mean(callee, [*known, *own, *library()], "`use` brings those of files, too")
                    hint = library_hint(callee) or other
                    self.mistakes.append(Diagnostic(f"there is no layer `{callee}`", span, hint=hint))
                if callee in known:
                    uses[callee] = known[callee]
                elif callee in own and callee in (*above, name):
                    chain = [*above, name][[*above, name].index(callee) :]
                    way = ", which calls ".join([*chain[1:], callee])
                    message = f"`{name}` calls itself" if len(chain) == 1 else f"`{callee}` calls {way}"
                    hint = "repeat with `for k in a..b { ... }`"
                    self.mistakes.append(Diagnostic(message, span, hint=hint))
                elif callee in own:
                    uses[callee] = link(callee, (*above, name))
            made = replace(own[name], uses=tuple(uses.items()))
            done[name] = made
            return made

        result = {name: link(name, ()) for name in own}
        if failed and path:
            return {}
        return result

    def used(self, use: ast.Use, path: str) -> dict[str, ast.Layer]:
        """The layers that a statement brings, by their names in the text. What is wrong is noted."""
        if use.path is None:
            names = library()
            there = {layer: _of_library(layer, self.syntax) for _, layer in use.layers if layer in names}
            where, known = "the library", list(names)
        else:
            found = self.file(use, posixpath.join(posixpath.dirname(path), use.path))
            if found is None:
                return {}
            there, where, known = found, f'"{use.path}"', list(found)
        for _, layer in use.layers:
            if layer not in there:
                other = f"{where} has {', '.join(known[:10])}" if use.path is not None else "see docs/layers.md"
                if use.path is None:
                    other = f'a layer of a file: use {layer} from "file.gdsl"'
                hint = did_you_mean(layer, known, other)
                if use.path is None and layer in _all_programs():
                    hint = f"gdsl.nn.{layer} prepares what its program is given, as no text can: call it in Python"
                self.mistakes.append(Diagnostic(f"there is no layer `{layer}` in {where}", use.span, hint=hint))
        return {name: there[layer] for name, layer in use.layers if layer in there}

    def file(self, use: ast.Use, path: str) -> dict[str, ast.Layer] | None:
        """The layers of a file, or None where it cannot be used."""
        assert use.path is not None
        try:
            _check_path(use.path)
            if self.files is None:
                hint = "compile a pathlib.Path, or give the text a folder=..."
                raise NoFile("a text that is in no folder uses no files", hint)
            if path in self.read:
                found = self.read[path]
                if found is None:
                    raise NoFile(f'"{use.path}" uses this text itself, by way of `use`')
                return found
            if sum(layers is None for layers in self.read.values()) > MAX_DEPTH:
                raise NoFile(f"files use files more than {MAX_DEPTH} deep")
            if len(self.read) >= MAX_FILES:
                raise NoFile(f"a text uses at most {MAX_FILES} files")
            text = self.files.read(path)
        except NoFile as problem:
            self.mistakes.append(Diagnostic(problem.message, use.span, hint=problem.hint))
            return None
        self.read[path] = None
        before = len(self.mistakes)
        try:
            program = self.syntax(text, path)
        except LanguageError as error:
            wrong: Sequence[Diagnostic] = error.diagnostics
            layers: dict[str, ast.Layer] | None = None
        else:
            layers = self.text(program, path)
            wrong = self.mistakes[before:]
            del self.mistakes[before:]
        for d in wrong:
            place = Excerpt.of(d.span, text, path)
            moved = replace(d, span=use.span, inside=(place, *d.inside))
            self.mistakes.append(moved)
        self.read[path] = layers if not wrong else {}
        return None if wrong else layers


def _check_path(path: str) -> None:
    """A path goes down from a folder, by names alone. Raises :class:`NoFile`."""
    hint = 'as in "block.gdsl" or "blocks/attention.gdsl"'
    parts = path.split("/")
    plain = all(re.fullmatch(r"[\w \-.]+", part) and part not in (".", "..") and part[0] != " " for part in parts)
    if not plain:
        raise NoFile(f'"{path}" is no path below the folder of the text', hint)
    if not path.endswith(".gdsl"):
        raise NoFile(f'"{path}" is no file of this language', hint)
