"""The ``gdsl`` command.

    gdsl check FILE... --strict              every mistake in the programs, and what they say to no effect
    gdsl show FILE --stage fused             one stage of a layer's way to machine code
    gdsl explore FILE                        all stages in the browser, as the text is typed
    gdsl fmt FILE...                         format in place
    gdsl bench FILE --set d=64 --nodes 10000 time and memory against the torch backend
    gdsl lsp                                 a language server, for editors
    gdsl info                                versions, backends, compiler, cache

The exit code is 0 when all is well, 1 when a program has mistakes (or, with ``--strict``, warnings) or ``fmt --check``
finds work, and 2 when the command itself cannot be carried out; that is one line on stderr. ``check`` and ``fmt``
read the language only, so this file imports what needs torch where it is used.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

from gdsl import __version__
from gdsl.errors import CommandError, GdslError
from gdsl.language import ast
from gdsl.language.errors import Diagnostic, LanguageError
from gdsl.language.format import format_program
from gdsl.language.imports import Folder
from gdsl.language.lint import lint
from gdsl.language.parse import MAX_TEXT, parse, syntax
from gdsl.language.placeholders import check_any
from gdsl.language.signature import signature_of
from gdsl.look.show import STAGES, show, values_of

OK, MISTAKES, FAILED, INTERRUPTED = 0, 1, 2, 130

_STDIN = "<stdin>"
# UTF-8 has at most four bytes a character: a longer file cannot be a program, and is not read to its end.
_MAX_BYTES = 4 * MAX_TEXT


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
    check.add_argument("--strict", action="store_true", help="fail on warnings too")
    _add_settings(check, "arguments and sizes; without them, sizes are tried")
    check.set_defaults(run=lambda o: _each(o.files, lambda file: _check_file(file, o.set, o.strict)))

    shown = commands.add_parser("show", help="print one stage of a layer's way to machine code")
    shown.add_argument("file", metavar="FILE", help="a program, or - for stdin")
    shown.add_argument("--stage", choices=STAGES, default="optimised", help="default: %(default)s")
    shown.add_argument("--layer", metavar="NAME", help="which layer, when the file has several")
    shown.add_argument("--backward", action="store_true", help="of the gradients instead of the layer")
    _add_settings(shown, "arguments of the layer")
    _add_inputs(shown)
    shown.set_defaults(run=_show)

    explore = commands.add_parser("explore", help="look at all stages in the browser, as the text is typed")
    explore.add_argument("file", nargs="?", metavar="FILE", help="a program, or - for stdin; without one, an example")
    explore.add_argument("--layer", metavar="NAME", help="which layer first, when the file has several")
    explore.add_argument("--html", metavar="OUT", help="write one file that opens without a server, and end")
    explore.add_argument("--port", type=_port, default=0, help="default: any that is free")
    explore.add_argument("--host", default="127.0.0.1", help="default: %(default)s, which only this machine reaches")
    explore.add_argument("--no-browser", action="store_true", help="only print the address")
    _add_settings(explore, "arguments of the layer")
    _add_inputs(explore)
    explore.set_defaults(run=_explore)

    fmt = commands.add_parser("fmt", help="format programs in place")
    fmt.add_argument("files", nargs="+", metavar="FILE", help="a program, or - for stdin to stdout")
    fmt.add_argument("--check", action="store_true", help="change nothing; list the files that would change")
    fmt.set_defaults(run=lambda o: _each(o.files, _list_file if o.check else _format_file))

    _add_bench(commands.add_parser("bench", help="time a layer against the torch backend, on a made-up graph"))

    lsp = commands.add_parser("lsp", help="a language server over stdin and stdout, for editors")
    lsp.add_argument("--stdio", action="store_true", help="as editors say it; there is no other way")
    lsp.set_defaults(run=_lsp)

    info = commands.add_parser("info", help="versions, backends, compiler, cache: what a bug report needs")
    info.add_argument("--paths", action="store_true", help="with the folders of this machine, and values that may be")
    info.set_defaults(run=_info)
    return parser


def _port(word: str) -> int:
    number = int(word)
    if not 0 <= number < 1 << 16:  # others would be taken for one of these
        raise argparse.ArgumentTypeError(f"a port is a number from 0 to 65535, not {word}")
    return number


def _add_bench(timed: argparse.ArgumentParser) -> None:
    timed.add_argument("file", metavar="FILE", help="a program, or - for stdin")
    timed.add_argument("--layer", metavar="NAME", help="which layer, when the file has several")
    _add_settings(timed, "arguments and sizes of the layer")
    _add_inputs(timed)
    timed.add_argument("--nodes", type=int, default=10_000, help="or targets (default: %(default)s)")
    timed.add_argument("--sources", type=int, help="of a layer with source and target nodes (default: as many)")
    timed.add_argument("--edges", type=int, help="(default: --degree times the nodes)")
    timed.add_argument("--degree", type=int, default=16, help="edges at a node, on average (default: %(default)s)")
    timed.add_argument("--profile", choices=("random", "regular", "power-law"), default="random",
                       help="how degrees are spread (default: %(default)s)")  # fmt: skip
    timed.add_argument("--dtype", choices=("float32", "float64", "float16", "bfloat16"), default="float32")
    timed.add_argument("--backend", choices=("auto", "cpp", "triton", "torch"), default="auto")
    timed.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    timed.add_argument("--mode", choices=("forward", "both"), help="forward, or forward + backward (default: each)")
    timed.add_argument("--seconds", type=float, default=2.0, help="to spend on each (default: %(default)s)")
    timed.add_argument("--plot", metavar="PICTURE", help="also as a picture, such as out.png; needs matplotlib")
    timed.set_defaults(run=_bench)


def _add_settings(parser: argparse.ArgumentParser, purpose: str) -> None:
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="NAME=VALUE", help=purpose)


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--with",
        nargs="+",
        action="extend",
        default=[],
        metavar="INPUT",
        dest="inputs",
        help="optional inputs that are passed",
    )


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
    folder = _folder(file)
    return parse(text, name, None if folder is None else Folder(folder))


def _folder(file: str) -> Path | None:
    """Where the files are that a program uses: beside it, where it is a file."""
    return None if file == "-" else Path(file).parent


# ----------------------------------------------------------------------------------------- check


def _check_file(file: str, settings: Sequence[str], strict: bool) -> int:
    program, where = _parse(file), _STDIN if file == "-" else file
    given = values_of(settings, program.layers)
    errors: list[Diagnostic] = []
    warnings: list[Diagnostic] = []
    for layer in program.layers:
        warned = lint(layer)
        warnings.extend(warned)
        signature = signature_of(layer)
        names = {*(p.name for p in signature.arguments), *signature.free_dims}
        try:
            check_any(layer, {name: value for name, value in given.items() if name in names})
        except LanguageError as error:
            errors.extend(error.diagnostics)
        else:
            many = "1 warning" if len(warned) == 1 else f"{len(warned)} warnings"
            print(f"{where}: {layer.name} is ok{f', with {many}' if warned else ''}")
    if errors:
        raise LanguageError([*errors, *warnings], program.source, where)
    for d in warnings:
        print(d.render(program.source, where), end="\n\n", file=sys.stderr)
    return MISTAKES if strict and warnings else OK


# ------------------------------------------------------------------------------------------- fmt


def _formatted(file: str) -> tuple[str, str]:
    """The text of a file before and after."""
    text, name = _read(file)
    program = syntax(text, name)
    after = format_program(program)
    if syntax(after) != program:  # about to overwrite someone's work: trust nobody
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
    layer = _pick(_parse(options.file), options.layer)
    where = _STDIN if options.file == "-" else options.file
    print(show(layer, options.stage, options.set, options.inputs, where, _checked, options.backward))
    return OK


def _checked(*arguments: Any, **way: Any) -> Any:
    from gdsl.module.rerun import with_own_parts

    return with_own_parts(*arguments, **way)


def _pick(program: ast.Program, name: str | None) -> ast.Layer:
    layers = {layer.name: layer for layer in program.layers}
    if name is None and len(layers) > 1:
        listed = ", ".join(layers)
        raise CommandError(f"the file has {len(layers)} layers, {listed}: say which with --layer NAME")
    if name is not None and name not in layers:
        raise CommandError(f"the file has no layer `{name}`; it has {', '.join(layers)}")
    return layers[name] if name is not None else program.layers[0]


# --------------------------------------------------------------------------------------- explore


def _explore(options: argparse.Namespace) -> int:
    from gdsl.explore import command

    text, name = _read(options.file) if options.file else (command.EXAMPLE, "an example")
    folder = _folder(options.file) if options.file else None
    start = command.beginning(text, name, options.layer, options.set, options.inputs, folder)
    if options.html:
        command.write(start, options.html, folder)
        return OK
    again = (lambda: _read(options.file)[0]) if options.file not in (None, "-") else None
    command.serve(start, again, options.host, options.port, not options.no_browser, folder)
    return OK


# ----------------------------------------------------------------------------------------- bench


def _bench(options: argparse.Namespace) -> int:
    layer = _pick(_parse(options.file), options.layer)
    given = values_of(options.set, [layer])

    from gdsl.module.bench import MODES, Setting, bench, plot

    names = ("nodes", "sources", "edges", "degree", "profile", "dtype", "backend", "device", "seconds")
    setting = Setting(
        **{name: getattr(options, name) for name in names},
        present=options.inputs,
        modes=(options.mode,) if options.mode else MODES,
    )
    found = bench(layer, given, setting)
    print(found.table())
    if options.plot is not None:
        plot(found, Path(options.plot))
        print(f"a picture is in {options.plot}")
    return OK


# ------------------------------------------------------------------------------------------- lsp


def _lsp(options: argparse.Namespace) -> int:
    try:
        from gdsl.editor.server import server
    except ModuleNotFoundError as error:
        raise CommandError(f"gdsl lsp needs {error.name}: pip install 'gdsl[lsp]'") from error
    # The server closes what it writes to; and what anything else would print is no message of the protocol.
    with open(os.dup(sys.stdout.fileno()), "wb") as out, contextlib.redirect_stdout(sys.stderr):
        server.start_io(sys.stdin.buffer, out)
    return OK


# ------------------------------------------------------------------------------------------ info


def _info(options: argparse.Namespace) -> int:
    from gdsl.look.environment import facts

    rows = facts(options.paths)
    width = max(len(name) for name, _ in rows)
    print("\n".join(f"{name.ljust(width)}  {value}" for name, value in rows))
    return OK


if __name__ == "__main__":
    sys.exit(main())
