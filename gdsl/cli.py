"""The ``gdsl`` command.

    gdsl check FILE...                       every mistake in the programs
    gdsl show FILE --stage fused             one stage of a layer's way to machine code
    gdsl fmt FILE...                         format in place
    gdsl info                                versions, backends, compiler, cache

The exit code is 0 when all is well, 1 when a program has mistakes or ``fmt --check`` finds work, and 2 when
the command itself cannot be carried out; that is one line on stderr. ``check`` and ``fmt`` read the language
only, so this file imports what needs torch where it is used.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.metadata
import itertools
import os
import platform
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

from gdsl import __version__
from gdsl.errors import CacheError, GdslError
from gdsl.language import ast
from gdsl.language.errors import Diagnostic, LanguageError, did_you_mean
from gdsl.language.format import default_value, format_program
from gdsl.language.parse import MAX_TEXT, parse
from gdsl.language.placeholders import check_any, size_names
from gdsl.language.program import Constant
from gdsl.language.signature import Signature, signature_of
from gdsl.language.values import is_whole

STAGES = ("ast", "ir", "optimised", "fused", "cpp", "asm", "triton", "ttir", "ttgir", "llir", "ptx", "sass")

OK, MISTAKES, FAILED, INTERRUPTED = 0, 1, 2, 130

_STDIN = "<stdin>"
# UTF-8 has at most four bytes a character: a longer file cannot be a program, and is not read to its end.
_MAX_BYTES = 4 * MAX_TEXT


class CommandError(GdslError):
    """The command cannot be carried out: one line for stderr."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, by default those of the process. Gives the exit code."""
    for stream in (sys.stdout, sys.stderr):
        _never_fail(stream)
    try:
        options = _parser().parse_args(argv)
        code: int = options.run(options)
        sys.stdout.flush()
        return code
    except SystemExit as stop:  # argparse, after --help or a mistake that it has reported
        return stop.code if isinstance(stop.code, int) else FAILED
    except BrokenPipeError:
        _discard_output()
        return _complain("the output was closed before all of it was written")
    except LanguageError as error:
        print(error.render(), file=sys.stderr)
        return MISTAKES
    except GdslError as error:
        return _complain(str(error))
    except OSError as error:
        return _complain(_reason(error))
    except KeyboardInterrupt:
        return INTERRUPTED


def _never_fail(stream: Any) -> None:
    """Characters that the terminal cannot show are written as escapes."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")


def _discard_output() -> None:
    """Python flushes stdout once more at its end, which must not fail again."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(message: str) -> int:
    print(f"gdsl: {message}", file=sys.stderr)
    return FAILED


# ------------------------------------------------------------------------------------- arguments


class _Parser(argparse.ArgumentParser):
    """Reports a mistake in one line; the usage is behind --help."""

    def error(self, message: str) -> NoReturn:
        self.exit(FAILED, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="gdsl", description="A compiler for graph neural network layers written as text.")
    parser.add_argument("--version", action="version", version=f"gdsl {__version__}")
    commands = parser.add_subparsers(metavar="command", required=True)

    check = commands.add_parser("check", help="report every mistake in the programs")
    check.add_argument("files", nargs="+", metavar="FILE", help="a program, or - for stdin")
    check.set_defaults(run=lambda o: _each(o.files, _check_file))

    show = commands.add_parser("show", help="print one stage of a layer's way to machine code")
    show.add_argument("file", metavar="FILE", help="a program, or - for stdin")
    show.add_argument("--stage", choices=STAGES, default="optimised", help="default: %(default)s")
    show.add_argument("--layer", metavar="NAME", help="which layer, when the file has several")
    show.add_argument("--backward", action="store_true", help="of the gradients instead of the layer")
    show.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="NAME=VALUE", help="arguments of the layer"
    )
    show.add_argument(
        "--with",
        nargs="+",
        action="extend",
        default=[],
        metavar="INPUT",
        dest="inputs",
        help="optional inputs that are passed",
    )
    show.set_defaults(run=_show)

    fmt = commands.add_parser("fmt", help="format programs in place")
    fmt.add_argument("files", nargs="+", metavar="FILE", help="a program, or - for stdin to stdout")
    fmt.add_argument("--check", action="store_true", help="change nothing; list the files that would change")
    fmt.set_defaults(run=lambda o: _each(o.files, _list_file if o.check else _format_file))

    info = commands.add_parser("info", help="versions, backends, compiler, cache")
    info.set_defaults(run=_info)
    return parser


def _each(files: Sequence[str], work: Callable[[str], int]) -> int:
    """Do the work on every file, also after one that fails. Gives the worst exit code."""
    worst = OK
    for file in files:
        try:
            code = work(file)
        except LanguageError as error:
            print(error.render(), file=sys.stderr)
            code = MISTAKES
        except CommandError as error:
            code = _complain(str(error))
        worst = max(worst, code)
    return worst


# ----------------------------------------------------------------------------------------- files


def _read(file: str) -> tuple[str, str]:
    """The text, and what to call it in messages."""
    name = _STDIN if file == "-" else file
    try:
        with _opened(file) as opened:
            data = opened.read(_MAX_BYTES + 1)
    except OSError as error:
        raise CommandError(_reason(error, name)) from error
    if len(data) > _MAX_BYTES:
        raise CommandError(f"{name}: longer than the {MAX_TEXT} characters that a program may have")
    try:
        return data.decode("utf-8-sig"), name
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise CommandError(f"{name}: line {line} is not UTF-8 text") from error


def _opened(file: str) -> contextlib.AbstractContextManager[IO[bytes]]:
    return contextlib.nullcontext(sys.stdin.buffer) if file == "-" else open(file, "rb")


def _reason(error: OSError, name: str | None = None) -> str:
    name = name or error.filename
    text = (error.strerror or str(error)).lower()
    return f"{name}: {text}" if name else text


def _parse(file: str) -> ast.Program:
    text, name = _read(file)
    return parse(text, name)


def _in_file(error: LanguageError, file: str) -> LanguageError:
    """The same mistakes, placed in the file instead of the layer."""
    return LanguageError(error.diagnostics, error.source, _STDIN if file == "-" else file)


# ----------------------------------------------------------------------------------------- check


def _check_file(file: str) -> int:
    program = _parse(file)
    found: list[Diagnostic] = []
    for layer in program.layers:
        try:
            check_any(layer)
        except LanguageError as error:
            found.extend(error.diagnostics)
        else:
            print(f"{_STDIN if file == '-' else file}: {layer.name} is ok")
    if found:
        raise _in_file(LanguageError(found, program.source), file)
    return OK


# ------------------------------------------------------------------------------------------- fmt


def _formatted(file: str) -> tuple[str, str]:
    """The text of a file before and after."""
    text, name = _read(file)
    program = parse(text, name)
    after = format_program(program)
    if parse(after) != program:  # about to overwrite someone's work: trust nobody
        message = "formatting would change the program, so it is left as it is; please report this"
        raise CommandError(f"{name}: {message}")
    return text, after


def _list_file(file: str) -> int:
    before, after = _formatted(file)
    if before == after:
        return OK
    print(_STDIN if file == "-" else file)
    return MISTAKES


def _format_file(file: str) -> int:
    before, after = _formatted(file)
    if file == "-":
        sys.stdout.flush()
        sys.stdout.buffer.write(after.encode())
        sys.stdout.buffer.flush()
    elif before != after:
        try:
            _replace(Path(file).resolve(), after)
        except OSError as error:
            raise CommandError(_reason(error, file)) from error
        print(f"{file}: formatted")
    return OK


def _replace(path: Path, text: str) -> None:
    """Write a file so that at every moment it is whole: the old one or the new one. Its mode stays."""
    mode = stat.S_IMODE(path.stat().st_mode)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with open(descriptor, "wb") as opened:
            opened.write(text.encode())
            os.fchmod(descriptor, mode)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


# ------------------------------------------------------------------------------------------ show


def _show(options: argparse.Namespace) -> int:
    program = _parse(options.file)
    layer = _pick(program, options.layer)
    signature = signature_of(layer)
    given = _settings(options.set, layer, signature)
    present = _optional_inputs(options.inputs, signature)
    if options.stage == "ast":
        if options.backward:
            raise CommandError("the syntax tree has no backward: choose another stage")
        print("\n".join(_outline(layer)))
        return OK
    stand_ins = _stand_ins(layer, signature, given)
    if stand_ins:
        shown = " ".join(f"{name}={value}" for name, value in stand_ins.items())
        print(f"gdsl: stand-ins for what --set does not give: {shown}", file=sys.stderr)
    values = {**stand_ins, **given}
    try:
        text = _stage(layer, signature, values, present, options.stage, options.backward)
    except LanguageError as error:
        raise _blame(error, layer, values, options.file) from error
    print(text)
    return OK


def _blame(error: LanguageError, layer: ast.Layer, values: Mapping[str, Constant], file: str) -> GdslError:
    """Mistakes of the program, or, where other arguments would have been right, of these arguments."""
    try:
        check_any(layer)
    except LanguageError:
        return _in_file(error, file)
    first = error.diagnostics[0]
    given = " ".join(f"{name}={default_value(value)}" for name, value in values.items())
    return CommandError(f"{layer.name} cannot have {given}: {first.message} (line {first.span.line})")


def _pick(program: ast.Program, name: str | None) -> ast.Layer:
    layers = {layer.name: layer for layer in program.layers}
    if name is None and len(layers) > 1:
        listed = ", ".join(layers)
        raise CommandError(f"the file has {len(layers)} layers, {listed}: say which with --layer NAME")
    if name is not None and name not in layers:
        raise CommandError(f"the file has no layer `{name}`; it has {', '.join(layers)}")
    return layers[name] if name is not None else program.layers[0]


def _settings(pairs: Sequence[str], layer: ast.Layer, signature: Signature) -> dict[str, Constant]:
    """The values of ``--set name=value ...``."""
    modules = [name for name, _ in signature.modules]
    known = [*(p.name for p in signature.arguments), *signature.free_dims]
    sizes = set(signature.free_dims)
    found: dict[str, Constant] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise CommandError(f"--set takes name=value, and `{pair}` has no `=`")
        if name in modules:
            hint = "without one it is taken to keep the dims"
            raise CommandError(f"--set cannot give the torch module `{name}`; {hint}")
        if name not in known:
            listed = f"it has {', '.join(known)}" if known else "it has none"
            hint = did_you_mean(name, known, listed) or ""
            raise CommandError(f"{layer.name} has no argument `{name}`: {hint}")
        if name in found:
            raise CommandError(f"--set gives `{name}` twice")
        found[name] = _value(text)
        if name in sizes and not (is_whole(found[name]) and found[name] >= 0):  # type: ignore[operator]
            raise CommandError(f"`{name}` is the size of a dim, and {text!r} is not a whole number")
    return found


_WORDS: dict[str, Constant] = {"true": True, "false": False, "none": None}


def _value(text: str) -> Constant:
    """A number, true, false, none, or else a string; quotes make a string of anything."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        return text[1:-1]
    for number in (int, float):
        with contextlib.suppress(ValueError):
            return number(text)
    return text


def _optional_inputs(names: Sequence[str], signature: Signature) -> frozenset[str]:
    optional = [i.name for i in signature.inputs if i.optional]
    for name in names:
        if name not in optional:
            listed = f"it has {', '.join(optional)}" if optional else "it has none"
            hint = did_you_mean(name, optional, listed)
            raise CommandError(f"{signature.name} has no optional input `{name}`: {hint}")
    return frozenset(names)


def _stand_ins(layer: ast.Layer, signature: Signature, given: Mapping[str, Constant]) -> dict[str, Constant]:
    """Values for what has neither a default nor a setting.

    Sizes are 16, 32, ..., each another one; the ends of loops are 2, 3, ..., since each turn is written out;
    what is neither is a rate or a slope: 0.5.
    """
    missing = [p.name for p in signature.arguments if p.required and p.name not in given]
    missing += [name for name in signature.free_dims if name not in given]
    loops = [e for t in ast.walk(layer) if isinstance(t, ast.Loop) for e in (t.start, t.stop)]
    counts = {t.id for e in loops for t in ast.walk(e) if isinstance(t, ast.Name)}
    sizes = size_names(layer) | set(signature.free_dims)
    small, wide = itertools.count(2), itertools.count(16, 16)
    return {n: next(small) if n in counts else next(wide) if n in sizes else 0.5 for n in missing}


def _stage(
    layer: ast.Layer,
    signature: Signature,
    values: Mapping[str, Constant],
    present: frozenset[str],
    stage: str,
    backward: bool,
) -> str:
    """A stage after the syntax tree, as text: for float32, in evaluation mode."""
    import torch

    from gdsl.call import cut
    from gdsl.inspect import Inspection
    from gdsl.ir.program import Program
    from gdsl.language.check import check
    from gdsl.passes.options import Options
    from gdsl.passes.pipeline import optimise

    free = {name: int(values[name]) for name in signature.free_dims}  # type: ignore[arg-type]
    arguments = {name: value for name, value in values.items() if name not in free}
    typed = check(layer, arguments, present=present, free_dims=free)
    program = Program(typed.name, typed.outputs, typed.names)
    options = Options(optimise=stage != "ir")
    if options.optimise:
        program = optimise(program)
    programs = [s.program for s in cut(program)]
    return Inspection(typed, programs, torch.float32, torch.int32, options).text(stage, backward)


def _outline(tree: ast.Tree, label: str = "", depth: int = 0) -> Iterator[str]:
    """A syntax tree with a node a line: its class and its plain fields, then its children."""
    fields = [(f.name, getattr(tree, f.name)) for f in dataclasses.fields(tree) if f.repr]
    plain = [(name, v) for name, v in fields if v is not None and v != () and not _is_syntax(v)]
    words = [f"{name}={_field(v)}" for name, v in plain]
    yield "    " * depth + label + " ".join([type(tree).__name__, *words])
    for name, value in fields:
        for child in value if isinstance(value, tuple) else (value,):
            if isinstance(child, ast.Tree):
                yield from _outline(child, "" if name == "body" else f"{name}: ", depth + 1)


def _is_syntax(value: object) -> bool:
    return any(isinstance(v, ast.Tree) for v in (value if isinstance(value, tuple) else (value,)))


def _field(value: object) -> str:
    return "(" + ", ".join(map(str, value)) + ")" if isinstance(value, tuple) else repr(value)


# ------------------------------------------------------------------------------------------ info


def _info(options: argparse.Namespace) -> int:
    import torch

    from gdsl.runtime import cache

    compiler = cache.find_compiler()
    triton = ""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        triton = importlib.metadata.version("triton")
    rows = [
        ("gdsl", __version__),
        ("python", platform.python_version()),
        ("torch", torch.__version__),
        ("backends", ", ".join([*(["cpp"] if compiler else []), *(["triton"] if triton else []), "torch"])),
        ("triton", triton or "none: layers on a GPU run on the slow torch backend"),
        ("gpu", torch.cuda.get_device_name() if torch.cuda.is_available() else "none"),
        ("compiler", f"{compiler.version} ({compiler.path})" if compiler else f"none: {cache.INSTALL}"),
        ("cache", _cache_line(cache.cache_folder)),
        ("threads", str(torch.get_num_threads())),
    ]
    width = max(len(name) for name, _ in rows)
    print("\n".join(f"{name.ljust(width)}  {value}" for name, value in rows))
    return OK


def _cache_line(folder_of: Callable[[], Path]) -> str:
    """The folder of compiled kernels and what it holds, or why it cannot be used."""
    try:
        folder = folder_of()
        files = [(f.name, f.stat().st_size) for f in os.scandir(folder) if f.is_file(follow_symlinks=False)]
    except (CacheError, OSError) as error:
        return f"unusable: {error}"
    kernels = sum(name.endswith(".so") for name, _ in files)
    total = sum(size for _, size in files)
    return f"{folder}: {kernels} compiled programs, {_human(total)}; $GDSL_CACHE puts it elsewhere"


def _human(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


if __name__ == "__main__":
    sys.exit(main())
